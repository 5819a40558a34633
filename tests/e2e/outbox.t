#!/usr/bin/python3
import email
import email.policy
import os
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib import Suite, errno_of, require_fuse  # noqa: E402
from lib import system  # noqa: E402
from lib.exim import Exim  # noqa: E402
from lib.smtp import SmtpServer  # noqa: E402
from lib.suite import Skip  # noqa: E402

with Suite("outbox/: a file dropped into it is sent", timeout=600) as suite:
    require_fuse()
    dovecot = suite.dovecot(extra="auth_username_format = %Ln")
    exim = Exim(suite, dovecot)

    def sender(**settings):
        settings = {"smtp": f"smtps://127.0.0.1:{exim.tls_port}", "from": "Alice <alice@example.org>", "send_delay": "0", **settings}
        return suite.home(dovecot, **settings)

    def letter(subject, to="alice@example.org", more="", body="Hello.\n"):
        return f"To: {to}\n{more}Subject: {subject}\n\n{body}"

    stored = dovecot.stored

    def delivered(subject):
        found = system.wait_until(lambda: stored("INBOX", subject), f"{subject!r} is delivered: {exim.log()[-1500:]}", 30)
        return email.message_from_bytes(found[0][1], policy=email.policy.default)

    def box(mount, folder="outbox"):
        return sorted(name for name in os.listdir(mount / folder) if name != "failed")

    def state(path):
        return os.getxattr(path, "user.mail.state").decode()

    def empty(mount):
        system.wait_until(lambda: box(mount) == [], "outbox/ is empty", 30)

    def sh(script, mount, check=True, **more):
        answer = subprocess.run(["bash", "-c", script], cwd=mount.where, capture_output=True, text=True, timeout=60 * system.SLOW,
                                env={**os.environ, "LC_ALL": "C.UTF-8", **more})
        assert not check or answer.returncode == 0, (script, answer.returncode, answer.stdout, answer.stderr)
        return answer

    @suite.case("the folder: where it is, what it says of itself, what it refuses")
    def _():
        home = sender()
        mount = home.mount()
        assert "outbox" in os.listdir(mount.where)
        assert os.listdir(mount / "outbox") == ["failed"] and os.listdir(mount / "outbox/failed") == []
        assert os.stat(mount / "outbox").st_mode & 0o777 == 0o700
        assert errno_of(os.mkdir, mount / "outbox/x") == "EPERM" and errno_of(os.rmdir, mount / "outbox/failed") == "EPERM"
        assert errno_of(os.symlink, "x", mount / "outbox/x") == "EPERM"
        assert os.stat(mount / "outbox/..").st_ino == os.stat(mount.where).st_ino
        assert os.stat(mount / "outbox/failed/..").st_ino == os.stat(mount / "outbox").st_ino
        assert os.statvfs(mount / "outbox").f_blocks > 0
        assert (mount / ".mailfs/new.eml").read_text() == "From: Alice <alice@example.org>\nTo: \nSubject: \n\n"
        assert errno_of(open, mount / ".mailfs/new.eml", "w") == "EROFS"
        mount.umount()
        plain = suite.home(dovecot)
        mount = plain.mount()
        assert "outbox" not in os.listdir(mount.where) and not (mount / "outbox").exists()
        mount.umount()

    @suite.case("cp, cat >, mv from outside: sent, and the file leaves")
    def _():
        home = sender()
        mount = home.mount()
        outside = home.folder / "letter.eml"
        for subject, how in (("by cp", "cp {} outbox/"), ("by cat", "cat {} > outbox/a.eml"), ("by mv", "mv {} outbox/b.eml"), ("by cp -p", "chmod 644 {0}; cp -p {0} outbox/"),
                             ("by two", "{{ head -2 {0}; tail -n +3 {0}; }} > outbox/c.eml")):
            outside.write_text(letter(subject))
            sh(how.format(outside), mount)
            assert delivered(subject)["From"] == "Alice <alice@example.org>"
            empty(mount)
            assert len(stored("INBOX", subject)) == 1
        mount.umount()

    @suite.case("attributes and bytes while it rests; rm takes it back")
    def _():
        home = sender(send_delay="60s")
        mount = home.mount()
        path = mount / "outbox/x.eml"
        path.write_text(letter("resting"))
        assert path.read_text() == letter("resting") and os.stat(path).st_size == len(letter("resting"))
        assert state(path).startswith("waiting until 20"), state(path)
        assert os.getxattr(path, "user.mail.subject") == b"resting" and b"@" in os.getxattr(path, "user.mail.message-id")
        assert os.listxattr(path) == [] and errno_of(os.getxattr, path, "security.x") == "ENOTSUP"
        number = os.stat(path).st_ino
        assert [e.inode() for e in os.scandir(mount / "outbox") if e.name == "x.eml"] == [number]
        listing = sh("ls -l outbox", mount).stdout
        assert "x.eml" in listing and "-rw-------" in listing
        assert home.status()["outbox"]["waiting"] == 1
        os.remove(path)
        assert home.status()["outbox"]["waiting"] == 0 and box(mount) == []
        mount.umount()
        assert not any("resting" in line for line in exim.received())

    @suite.case("overwriting within the delay: one message, the last one; its number stays")
    def _():
        home = sender(send_delay="10s")      # each step takes less than that
        mount = home.mount()
        path = mount / "outbox/x.eml"
        path.write_text(letter("first version"))
        number = os.stat(path).st_ino
        with open(path, "r+") as f:
            assert state(path) == "being written"
            time.sleep(10.5)     # it would have been sent
            f.write(letter("other version", body="longer than before\n"))
            f.flush()
            assert home.status()["outbox"]["waiting"] == 0 and state(path) == "being written"   # the program that asks had it too, and closed it
            os.close(os.dup(f.fileno()))
            assert home.status()["outbox"]["waiting"] == 1 and state(path).endswith(", and while it is open for writing")
            f.write("and a line\n")
            f.flush()
            assert state(path) == "being written"
        assert os.stat(path).st_ino == number
        with open(path, "a") as f:
            f.write("and more\n")
        assert os.stat(path).st_ino == number and home.status()["outbox"]["waiting"] == 1
        assert "longer than before\nand a line\nand more\n" in delivered("other version").get_content()
        empty(mount)
        assert stored("INBOX", "first version") == [] and len(stored("INBOX", "other version")) == 1
        mount.umount()

    @suite.case("what cannot be sent: told by close or rename, and in failed/ with the reason")
    def _():
        home = sender()
        mount = home.mount()
        assert errno_of((mount / "outbox/no.eml").write_text, "Subject: nobody\n\nx\n") == "EINVAL"
        system.wait_until(lambda: box(mount, "outbox/failed") == ["no.eml", "no.eml.error.txt"], "it is in failed/", 10)
        assert box(mount) == [] and "recipient" in (mount / "outbox/failed/no.eml.error.txt").read_text()
        assert (mount / "outbox/failed/no.eml").read_text() == "Subject: nobody\n\nx\n"
        assert state(mount / "outbox/failed/no.eml").startswith("failed: ")
        assert errno_of(os.rename, mount / "outbox/failed/no.eml", mount / "outbox/no.eml") == "EINVAL"
        assert errno_of(open, mount / "outbox/failed/no.eml", "r+") == "EACCES"
        assert errno_of((mount / "outbox/failed/new.eml").write_text, "x") == "EPERM"
        (mount / "outbox/x.tmp").write_text("To: not an address\n\nx\n")
        assert errno_of(os.rename, mount / "outbox/x.tmp", mount / "outbox/bad.eml") == "EINVAL"
        assert "bad.eml" in box(mount, "outbox/failed") and box(mount) == ["x.tmp"]
        os.remove(mount / "outbox/x.tmp")
        os.remove(mount / "outbox/failed/no.eml.error.txt")
        assert box(mount, "outbox/failed") == ["bad.eml", "bad.eml.error.txt", "no.eml"]
        answer = sh("rm outbox/failed/*", mount)
        assert answer.stderr == "", answer
        assert box(mount, "outbox/failed") == []
        mount.umount()

    @suite.case("over the server's SIZE: told by write, nothing of it is sent")
    def _():
        home = sender()
        mount = home.mount()
        (mount / "outbox/small.eml").write_text(letter("learns the size"))
        delivered("learns the size")
        empty(mount)
        big = home.folder / "big.eml"
        big.write_text(letter("too big", body="x" * 70 + "\n" * 1) + ("y" * 70 + "\n") * 40000)
        answer = sh(f"cp {big} outbox/big.eml", mount, check=False)
        assert answer.returncode != 0 and "File too large" in answer.stderr, answer
        system.wait_until(lambda: "big.eml" in box(mount, "outbox/failed"), "it is in failed/", 10)
        assert box(mount) == [] and "larger" in (mount / "outbox/failed/big.eml.error.txt").read_text()
        time.sleep(0.5)
        assert stored("INBOX", "too big") == []
        os.remove(mount / "outbox/failed/big.eml")
        mount.umount()

    @suite.case("refused by the server: failed/, and mv failed/x.eml . tries again")
    def _():
        home = sender()
        mount = home.mount()
        (mount / "outbox/r.eml").write_text(letter("refused", to="no@example.org"))
        system.wait_until(lambda: "r.eml" in box(mount, "outbox/failed"), "it is in failed/", 30)
        assert "no such user here" in (mount / "outbox/failed/r.eml.error.txt").read_text()
        before = exim.log().count("no such user")
        os.rename(mount / "outbox/failed/r.eml", mount / "outbox/again.eml")
        system.wait_until(lambda: "again.eml" in box(mount, "outbox/failed"), "it is in failed/ again", 30)
        system.wait_until(lambda: exim.log().count("no such user") > before, "the server has refused it again")
        sh("rm outbox/failed/again.eml", mount)
        assert "no such user" in (mount / "outbox/failed/again.eml.error.txt").read_text() and home.status()["outbox"]["failed"] == 0
        sh("rm outbox/failed/*", mount)
        assert box(mount, "outbox/failed") == []
        mount.umount()

    @suite.case("scratch names are local, kept across remounts, and sent when they get a real name")
    def _():
        home = sender()
        mount = home.mount()
        for name in (".draft", "x~", "y.tmp", "z.part"):
            (mount / "outbox" / name).write_text(letter(f"scratch {name}"))
        assert state(mount / "outbox/x~").startswith("local: ")
        mount.umount()
        mount = home.mount()
        assert box(mount) == [".draft", "x~", "y.tmp", "z.part"] and (mount / "outbox/y.tmp").read_text() == letter("scratch y.tmp")
        os.rename(mount / "outbox/y.tmp", mount / "outbox/y.eml")
        delivered("scratch y.tmp")
        os.rename(mount / "outbox/z.part", mount / "outbox/z2.part")
        time.sleep(0.5)
        for name in (".draft", "x~", "z2.part"):
            os.remove(mount / "outbox" / name)
            assert stored("INBOX", f"scratch {name}") == []
        empty(mount)
        mount.umount()

    @suite.case("to a scratch name and back; over another that waits; an empty file")
    def _():
        home = sender(send_delay="60s")
        mount = home.mount()
        out = mount / "outbox"
        (out / "a.eml").write_text(letter("a"))
        os.rename(out / "a.eml", out / "a.eml~")
        assert home.status()["outbox"]["waiting"] == 0 and (out / "a.eml~").read_text() == letter("a")
        os.rename(out / "a.eml~", out / "b.eml")
        assert home.status()["outbox"]["waiting"] == 1
        (out / "c.eml").write_text(letter("c"))
        os.rename(out / "c.eml", out / "b.eml")
        assert home.status()["outbox"]["waiting"] == 1 and (out / "b.eml").read_text() == letter("c")
        (out / "d.tmp").write_text(letter("d"))
        os.rename(out / "d.tmp", out / "b.eml")
        assert home.status()["outbox"]["waiting"] == 1 and (out / "b.eml").read_text() == letter("d")
        (out / "e.tmp").write_text("nothing\n")
        assert errno_of(os.rename, out / "e.tmp", out / "b.eml") == "EINVAL"
        assert (out / "b.eml").read_text() == letter("d") and home.status()["outbox"]["waiting"] == 1
        (out / "empty.eml").touch()
        assert state(out / "empty.eml").startswith("empty") and home.status()["outbox"]["waiting"] == 1
        (out / "empty.eml").write_text(letter("not empty"))
        assert home.status()["outbox"]["waiting"] == 2
        with open(out / "open.eml", "w") as f:
            f.write("x")
            f.flush()
            os.remove(out / "open.eml")
            f.write("y")
            f.flush()
            assert os.fstat(f.fileno()).st_size == 2 and "open.eml" not in box(mount)
        for name in box(mount):
            os.remove(out / name)
        assert home.status()["outbox"]["waiting"] == 0
        mount.umount()

    @suite.case("an editor's lock holds it; vim saving twice is one message")
    def _():
        home = sender(send_delay="1s")
        mount = home.mount()
        path = mount / "outbox/v.eml"
        (mount / "outbox/.v.eml.swp").write_text("vim")
        path.write_text(letter("held"))
        assert ".v.eml.swp" in state(path)
        system.wait_until(lambda: state(path).startswith("queued, and while .v.eml.swp is there"), "the delay is over")
        os.remove(mount / "outbox/.v.eml.swp")
        delivered("held")
        empty(mount)
        (mount / "outbox/.v.eml.swp").write_text("vim")
        path.write_text(letter("held over a kill"))
        mount.kill()
        time.sleep(1)
        mount = home.mount()
        path = mount / "outbox/v.eml"
        time.sleep(0.5)
        assert ".v.eml.swp" in state(path) and stored("INBOX", "held over a kill") == []
        os.remove(mount / "outbox/.v.eml.swp")
        delivered("held over a kill")
        empty(mount)
        vim = next((v for v in ("/usr/bin/vim", "/usr/bin/vim.tiny") if os.path.exists(v)), None)
        if vim:
            path, go = mount / "outbox/w.eml", home.folder / "go"
            home.run("disconnect", "work", check=0)      # it must not be sent before vim has its lock
            path.write_text(letter("saved by vim", body="text\n"))
            wait = f"while !filereadable(\"{go}\") | sleep 20m | endwhile"
            editor = subprocess.Popen([vim, "-u", "NONE", "-es", "-c", "set swapfile", "-c", wait, "-c", "$s/$/ once/", "-c", "w", "-c", "sleep 2",
                                       "-c", "$s/$/ twice/", "-c", "w", "-c", "q", "outbox/w.eml"], cwd=mount.where, stdin=subprocess.DEVNULL,
                                      env={**os.environ, "TERM": "dumb"})
            system.wait_until(lambda: ".w.eml.swp" in state(path), "vim has opened it")
            home.run("connect", "work", check=0)
            go.touch()
            editor.wait(60 * system.SLOW)
            assert "text once twice" in delivered("saved by vim").get_content()
            empty(mount)
            assert len(stored("INBOX", "saved by vim")) == 1
        mount.umount()

    @suite.case("git format-patch -o outbox; sed -i; mv of a message out of a mailbox")
    def _():
        home = sender()
        mount = home.mount()
        repo = home.folder / "repo"
        sh(f"git init -q {repo} && cd {repo} && git config user.name A && git config user.email alice@example.org && "
           "for i in 1 2 3; do echo $i > f && git add f && git commit -qm \"change $i\"; done", mount)
        sh(f"cd {repo} && git format-patch -q --to=alice@example.org -o {mount.where}/outbox -2", mount)
        for subject in ("[PATCH 1/2] change 2", "[PATCH 2/2] change 3"):
            delivered(subject)
        empty(mount)
        with dovecot.client() as client:
            client.append("INBOX", b"From: bob@example.org\r\nTo: alice@example.org\r\nSubject: moved out\r\n\r\nx\r\n")
        system.wait_until(lambda: any("moved-out" in n for n in mount.names()), "it is there", 30)
        name = next(n for n in mount.names() if "moved-out" in n)
        assert errno_of(os.rename, mount / "INBOX" / name, mount / "outbox" / name) == "EXDEV"
        answer = sh(f"mv INBOX/{name} outbox/", mount)
        assert answer.stderr == "", answer.stderr
        system.wait_until(lambda: len(stored("INBOX", "moved out")) >= 1 and box(mount) == [], "it came back", 30)
        mount.umount()

    @suite.case("offline: queued, then sent in the order of dropping")
    def _():
        home = sender()
        mount = home.mount()
        home.run("disconnect", "work", check=0)
        for i in range(8):
            (mount / f"outbox/{9 - i}.eml").write_text(letter(f"order {i}"))
        time.sleep(0.3)
        assert len(box(mount)) == 8 and state(mount / "outbox/9.eml").startswith("queued")
        home.run("connect", "work", check=0)
        for i in range(8):
            delivered(f"order {i}")
        received = [i for line in exim.received() for i in range(8) if f'T="order {i}"' in line]
        assert received in ([], list(range(8))), received
        empty(mount)
        mount.umount()

    @suite.case("a person who reads it while it goes; a write that mailfs did not survive")
    def _():
        home = sender(send_delay="8s")
        mount = home.mount()
        path = mount / "outbox/r.eml"
        path.write_text(letter("being read"))
        with open(path) as f:
            assert f.read(4) == "To: "
            empty(mount)
            assert f.read() == letter("being read")[4:]
        f = open(mount / "outbox/half.eml", "w")
        f.write(letter("half written"))
        f.flush()
        (mount / "outbox/whole.eml").write_text(letter("whole"))
        mount.kill()
        try:
            f.close()
        except OSError:
            pass
        mount = home.mount()
        delivered("whole")
        system.wait_until(lambda: box(mount) == ["half.eml"], "only the unfinished one is left", 30)
        assert state(mount / "outbox/half.eml").startswith("unfinished") and (mount / "outbox/half.eml").read_text() == letter("half written")
        sh("touch outbox/half.eml; cat outbox/half.eml >/dev/null", mount)
        assert stored("INBOX", "half written") == []
        with open(mount / "outbox/half.eml", "a") as f:
            f.write("the rest\n")
        assert delivered("half written").get_content().endswith("the rest\n")
        mount.umount()

    def copies(subject):
        return stored("Sent", subject)

    @suite.case("the copy in Sent: with its Bcc, seen, once; it arrives in INBOX without a poll")
    def _():
        home = sender(poll="1h")
        mount = home.mount()
        mount.names("Sent")
        (mount / "outbox/x.eml").write_text(letter("filed", more="Bcc: carol@example.org\n"))
        system.wait_until(lambda: any("filed" in n for n in mount.names("INBOX")), "it is in INBOX by itself", 20)
        system.wait_until(lambda: copies("filed"), "the server has the copy", 20)
        name = next(n for n in mount.names("Sent") if "filed" in n)
        text = (mount / "Sent" / name).read_text()
        assert "Bcc: carol@example.org" in text and "Message-ID:" in text
        assert "Bcc" not in delivered("filed")
        assert os.getxattr(mount / "Sent" / name, "user.mail.flags") == b"\\Seen"
        assert copies("filed")[0][0].endswith("S"), copies("filed")
        system.wait_until(lambda: home.status()["outbox"]["unfiled"] == 0, "nothing is left", 10)
        assert len(copies("filed")) == 1
        home.set(save_sent="no")
        mount.umount()
        mount = home.mount()
        (mount / "outbox/x.eml").write_text(letter("not filed"))
        delivered("not filed")
        empty(mount)
        time.sleep(0.5)
        assert copies("not filed") == [] and not any("not-filed" in n for n in mount.names("Sent"))
        mount.umount()

    @suite.case("without a mount, and an index that knows nothing yet: the copy is there when the command ends")
    def _():
        home = sender()
        home.run("send", "--to", "alice@example.org", "-s", "no mount", check=0)
        assert len(copies("no mount")) == 1 and home.status()["outbox"]["unfiled"] == 0
        home.run("send", "--to", "alice@example.org", "-s", "no mount again", check=0)
        assert len(copies("no mount again")) == 1

    @suite.case("sent-mailbox that is not there is made; sent while IMAP is away, filed when it is back")
    def _():
        home = sender(sent_mailbox="Copies/Mine")
        mount = home.mount()
        (mount / "outbox/x.eml").write_text(letter("made"))
        system.wait_until(lambda: stored("Copies/Mine", "made"), "the copy is in a new mailbox", 30)
        dovecot.stop()
        (mount / "outbox/y.eml").write_text(letter("meanwhile"))
        system.wait_until(lambda: any('<= alice' in line for line in exim.received()) and box(mount) == [], "it is sent", 30)
        system.wait_until(lambda: any("meanwhile" in n for n in mount.names("Copies/Mine")), "the copy is in the tree", 30)
        dovecot.start()
        os.kill(mount.pid, 10)
        system.wait_until(lambda: stored("Copies/Mine", "meanwhile"), "the copy is there", 60)
        mount.umount()

    @suite.case("kill -9 at any moment: each is sent once and filed once")
    def _():
        server = SmtpServer(delay=0.03)
        suite.callback(server.stop)
        home = suite.home(dovecot, smtp=f"smtp://127.0.0.1:{server.port}", tls="none", send_delay="0", imap=f"imap://127.0.0.1:{dovecot.imap_port}",
                          **{"from": "Alice <alice@example.org>"})
        promised = []
        for turn in range(30 if suite.long else 8):
            mount = home.mount()
            for i in range(3):
                try:
                    (mount / f"outbox/{turn}-{i}.eml").write_text(letter(f"k{turn}-{i}", to="bob@example.org"))
                    promised.append(f"k{turn}-{i}")
                except OSError:
                    pass
            time.sleep(suite.random.random() * 0.25)
            mount.kill()
        mount = home.mount()
        system.wait_until(lambda: not any(home.status()["outbox"][k] for k in ("waiting", "queued", "sending", "unfiled")), "nothing is under way", 60)
        maybe = {os.getxattr(mount / "outbox" / name, "user.mail.subject").decode() for name in box(mount)}
        suite.say(f"{len(promised)} promised, {len(maybe)} maybe sent")
        home.run("sync", "--wait", check=0)
        for subject in promised:
            assert server.accepted.count(subject) <= 1
            if subject not in maybe:
                assert server.accepted.count(subject) == 1, (subject, server.accepted)
                assert len(copies(subject)) == 1, (subject, copies(subject))
        mount.umount()

    @suite.case("many at once, while others look and the mount is read-only elsewhere")
    def _():
        server = SmtpServer()
        suite.callback(server.stop)
        home = suite.home(dovecot, smtp=f"smtp://127.0.0.1:{server.port}", tls="none", send_delay="0", save_sent="no",
                          imap=f"imap://127.0.0.1:{dovecot.imap_port}", **{"from": "Alice <alice@example.org>"})
        mount = home.mount(source=None)
        assert "outbox" in os.listdir(mount / "work") and "outbox" not in os.listdir(mount.where)
        out = mount / "work/outbox"
        script = f"""
import os, sys, itertools
for i in range(25):
    name = "{out}/%s-%d" % (sys.argv[1], i)
    if i % 3 == 0:
        with open(name + ".tmp", "w") as f:
            f.write("To: bob@example.org\\nSubject: m%s-%d\\n\\nx\\n" % (sys.argv[1], i))
        os.rename(name + ".tmp", name + ".eml")
    else:
        with open(name + ".eml", "w") as f:
            f.write("To: bob@example.org\\nSubject: m%s-%d\\n\\nx\\n" % (sys.argv[1], i))
"""
        look = f"""
import os, time
end = time.time() + 60
while not os.path.exists("{home.folder}/stop") and time.time() < end:
    for entry in os.scandir("{out}"):
        try:
            entry.stat(); os.getxattr(entry.path, "user.mail.state"); open(entry.path).read()
        except (FileNotFoundError, IsADirectoryError):
            pass
        except OSError as e:
            if e.errno not in (2, 61, 116):
                raise
"""
        lookers = [subprocess.Popen([sys.executable, "-c", look], stderr=subprocess.PIPE) for _ in range(2)]
        writers = [subprocess.Popen([sys.executable, "-c", script, str(n)], stderr=subprocess.PIPE) for n in range(4)]
        for writer in writers:
            _, error = writer.communicate(timeout=120 * system.SLOW)
            assert writer.returncode == 0, error
        system.wait_until(lambda: len(server.accepted) >= 100 and len(os.listdir(out)) == 1, "all are sent", 60)
        (home.folder / "stop").touch()
        for looker in lookers:
            _, error = looker.communicate(timeout=60 * system.SLOW)
            assert looker.returncode == 0, error
        assert sorted(server.accepted) == sorted(f"m{n}-{i}" for n in range(4) for i in range(25))
        mount.umount()
        mount = home.mount("ro")
        assert os.listdir(mount / "outbox") == ["failed"]
        assert errno_of((mount / "outbox/x").write_text, "x") == "EROFS"
        mount.umount()
