#!/usr/bin/python3
import os
import signal
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib import Suite, corpus, require_fuse, wait_until  # noqa: E402
from lib import system  # noqa: E402
from lib.smtp import SmtpServer  # noqa: E402

with Suite("SIGHUP: a running mount takes over what has changed in the config file", timeout=400) as suite:
    require_fuse()
    server = suite.dovecot()
    server.fill("INBOX", corpus.small(8))
    server.fill("Archive", corpus.small(6))
    READ = "the config file was read again"
    REFUSED = "the config file was not taken over"

    def hang_up(mount):
        """SIGHUP, and the lines that are logged about it"""
        before = len(mount.log.read_text(errors="replace"))
        os.kill(mount.pid, signal.SIGHUP)

        def lines():
            text = mount.log.read_text(errors="replace")[before:]
            return text if READ in text or REFUSED in text else ""
        return wait_until(lines, "the file has been read")

    def changed(mount, *words):
        text = hang_up(mount)
        assert READ in text, text
        for word in words:
            assert word in text, (word, text)

    def drop(mount, subject):
        (mount / "outbox" / f"{subject}.eml").write_text(f"To: bob@example.org\nSubject: {subject}\n\nHello.\n")

    @suite.case("a file that has not changed changes nothing")
    def _():
        home = suite.home(server, poll="24h")
        mount = home.mount()
        changed(mount, "nothing has changed")
        assert home.link() == "online" and len(mount.names()) == 8

    @suite.case("poll")
    def _():
        quiet = suite.dovecot(without=["IDLE", "NOTIFY"])
        quiet.fill("INBOX", corpus.small(2))
        home = suite.home(quiet, poll="24h")
        mount = home.mount()
        assert len(mount.names()) == 2
        home.set(poll="1s")
        changed(mount, "account work: changed: poll\n")
        for i in range(3):   # the first may have come with the signal
            quiet.deliver(corpus.message(subject=f"polled {i}"))
            wait_until(lambda: [n for n in mount.names() if f"polled-{i}" in n], "it comes without a push")

    @suite.case("idle, on a connection of its own and on the only one")
    def _():
        for connections in ("3", "1"):
            home = suite.home(server, poll="24h", idle="no", connections=connections)
            mount = home.mount()
            home.wait_link("online")
            home.set(idle="yes")
            changed(mount, "changed: idle")
            for i in range(2):
                server.deliver(corpus.message(subject=f"pushed {connections} {i}"))
                wait_until(lambda: [n for n in mount.names() if f"pushed-{connections}-{i}" in n], "it is pushed")
            home.set(idle="no")
            changed(mount, "changed: idle")
            home.wait_link("online")
            mount.umount()

    @suite.case("delete and expunge-delay")
    def _():
        home = suite.home(server, poll="24h")
        mount = home.mount()
        uid, path = sorted(mount.by_uid("Archive").items())[0]
        home.set(delete="expunge", expunge_delay="0")
        changed(mount, "changed: delete, expunge-delay\n")
        path.unlink()
        home.run("sync", "--wait", check=0)
        with server.client() as other:
            wait_until(lambda: uid not in other.flags("Archive"), "it is gone at the server")
            assert not other.flags("Trash"), "it was expunged, not moved"

    @suite.case("sync of one mailbox; cache-size")
    def _():
        home = suite.home(server, poll="24h", sync="headers", cache_min_free="0")
        mount = home.mount()
        assert len(mount.names("Archive")) == len(mount.names("Archive")) > 0
        home.mailboxes["Archive"] = {"sync": "full"}
        home.write()
        changed(mount, "changed: [mailbox work/Archive]")
        wait_until(lambda: all(os.getxattr(p, "user.mail.cached") == b"yes" for p in mount.messages("Archive")), "the mailbox is complete")
        del home.mailboxes["Archive"]
        home.set(cache_size="1")
        changed(mount, "changed: cache-size, [mailbox work/Archive]")
        wait_until(lambda: home.bodies() == [], "there is room again")

    @suite.case("exclude, there and back")
    def _():
        home = suite.home(server, poll="24h")
        mount = home.mount()
        names = mount.names("Archive")
        home.set(exclude="Archive")
        changed(mount, "changed: exclude\n")
        wait_until(lambda: "Archive" not in os.listdir(mount.where), "it is left out")
        home.set(exclude=None)
        changed(mount, "changed: exclude\n")
        wait_until(lambda: mount.names("Archive") == names, "it is there again, with the same names")

    @suite.case("leave-on-server")
    def _():
        pop3 = suite.dovecot(pop3=True)
        pop3.fill("INBOX", corpus.small(4))
        home = suite.home(pop3, imap=None, pop3=f"pop3s://127.0.0.1:{pop3.pop3s_port}", poll="24h")
        mount = home.mount()
        before = mount.digests()
        home.set(leave_on_server="no")
        changed(mount, "changed: leave-on-server\n")
        with pop3.client() as other:
            wait_until(lambda: not other.flags(), "the server has none of them any more")
        assert mount.digests() == before

    @suite.case("send-delay, send and from; what -o says goes on winning")
    def _():
        smtp = SmtpServer()
        suite.callback(smtp.stop)
        home = suite.home(server, smtp=f"smtp://127.0.0.1:{smtp.port}", tls="none", send_delay="1h", save_sent="no", poll="24h", **{"from": "alice@example.org"})
        mount = home.mount()
        drop(mount, "first")
        home.set(send_delay="0", **{"from": "Alice <alice@elsewhere.example>"})
        changed(mount, "changed: from, send-delay\n")
        drop(mount, "second")
        wait_until(lambda: smtp.accepted == ["second"], "the second goes out at once")
        assert [c for c in smtp.commands if c.startswith("MAIL")][-1].startswith("MAIL FROM:<alice@elsewhere.example>"), smtp.commands
        assert (mount / "outbox/first.eml").exists(), "what has its time keeps it"
        home.set(send="manual")
        changed(mount, "changed: send\n")
        drop(mount, "third")
        wait_until(lambda: os.getxattr(mount / "outbox/third.eml", "user.mail.state").startswith(b"queued"), "the third waits to be released")
        (mount / "outbox/first.eml").unlink()
        home.set(send="now")
        changed(mount, "changed: send\n")
        wait_until(lambda: smtp.accepted == ["second", "third"], "it goes out")
        mount.umount()
        again = home.mount("send-delay=0")
        home.set(send_delay="1h", poll="23h")
        changed(again, "changed: poll\n")
        drop(again, "fourth")
        wait_until(lambda: smtp.accepted[2:] == ["fourth"], "the command line has said when")

    @suite.case("smtp: another server, from the next connection on")
    def _():
        old, new = SmtpServer(), SmtpServer()
        suite.callback(old.stop)
        suite.callback(new.stop)
        home = suite.home(server, smtp=f"smtp://127.0.0.1:{old.port}", tls="none", send_delay="0", save_sent="no", poll="24h", **{"from": "alice@example.org"})
        mount = home.mount()
        drop(mount, "to the old one")
        wait_until(lambda: "QUIT" in old.commands, "it is sent, and the connection is over")
        home.set(smtp=f"smtp://127.0.0.1:{new.port}")
        changed(mount, "from the next connection on: smtp\n")
        drop(mount, "to the new one")
        wait_until(lambda: new.accepted == ["to the new one"], "the new one has it")
        home.set(smtp=None)
        changed(mount, "from the next mount on: smtp\n")

    @suite.case("a password that was refused is tried anew when another one is there")
    def _():
        home = suite.home(server, poll="24h")
        mount = home.mount()
        mount.umount()
        home.set(password="wrong")
        again = home.mount()
        home.wait_link("waiting")
        changed(again, "nothing has changed")     # tried once more, as it is
        home.wait_link("waiting")
        home.set(password=server.password)
        changed(again, "from the next connection on: password\n")
        home.wait_link("online")
        command = home.folder / "command"
        command.write_text(f"#!/bin/sh\necho '{server.password}'\n")
        command.chmod(0o700)
        home.set(password=None, password_command=str(command))
        changed(again, "from the next connection on: password, password-command\n")
        os.kill(again.pid, signal.SIGUSR1)
        wait_until(lambda: "online" == home.link() and len(again.names()) > 0, "connected with the command's")
        assert server.password not in again.log.read_text()

    @suite.case("a server that could not be reached is tried at once where it is now")
    def _():
        home = suite.home(server, poll="24h")
        home.mount().umount()
        closed = system.free_ports(1)[0]
        home.set(imap=f"imaps://127.0.0.1:{closed}")
        mount = home.mount()
        home.wait_link("offline")
        home.set(imap=f"imaps://127.0.0.1:{server.port}")
        changed(mount, "from the next connection on: imap\n")
        home.wait_link("online")

    @suite.case("a mistake anywhere: one line that says where, and nothing changes")
    def _():
        home = suite.home(server, poll="24h")
        mount = home.mount()
        uid, path = sorted(mount.by_uid("Archive").items())[0]
        home.set(delete="expunge", expunge_delay="0")
        good = home.config.read_text()
        home.config.write_text(good + "pol = 1s\n")
        number = len(good.split("\n"))
        text = hang_up(mount)
        assert text.count("\n") == 1 and f"{home.config}:{number}: " in text and '"poll"' in text, text
        home.set(**{"tls-ca-file": "/nonexistent/ca.pem"})
        text = hang_up(mount)
        assert REFUSED in text and "/nonexistent/ca.pem" in text and text.count("\n") == 1, text
        home.config.unlink()
        assert REFUSED in hang_up(mount)
        path.unlink()
        home.run("sync", "--wait", check=0)
        with server.client() as other:
            wait_until(lambda: len(other.flags("Trash")) == 1, "it was moved to Trash, as before")
            assert uid not in other.flags("Archive")
        home.set(**{"tls-ca-file": str(server.authority.ca)})
        changed(mount, "changed: delete, expunge-delay\n")

    @suite.case("what makes it another account, or has to be mounted, is named and left alone")
    def _():
        home = suite.home(server, poll="24h")
        mount = home.mount(source=None)
        home.set(connections="2")
        changed(mount, "account work: changed from the next mount on: connections\n")
        home.set(user="bob", poll="1h")
        text = hang_up(mount)
        assert "account work: user has changed" in text and "changed: poll" not in text, text
        home.set(user=server.user, poll="24h")
        home.account = "other"
        home.write()
        text = hang_up(mount)
        assert "account work is not in the config file" in text and "account other is new" in text, text
        home.account = "work"
        home.write()
        assert home.link() == "online" and len(mount.names("work/INBOX")) > 0

    @suite.case("a link to the file that leads elsewhere by now is followed")
    def _():
        home = suite.home(server, poll="24h")
        first, second = home.config.with_name("first"), home.config.with_name("second")
        home.config.rename(first)
        home.config.symlink_to(first)
        mount = home.mount()
        second.write_text(first.read_text() + "mark-seen = read\n")
        second.chmod(0o600)
        home.config.unlink()
        home.config.symlink_to(second)
        changed(mount, "changed: mark-seen\n")
        path = mount.messages()[0]
        subprocess.run(["cat", str(path)], stdout=subprocess.DEVNULL, check=True)
        wait_until(lambda: b"\\Seen" in os.getxattr(path, "user.mail.flags"), "what is read is seen from now on")
