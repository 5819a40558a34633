#!/usr/bin/python3
import hashlib
import os
import shutil
import signal
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib import MountFailed, Suite, corpus, digest, errno_of, require_fuse, wait_until  # noqa: E402
from lib.courier import Courier  # noqa: E402
from lib.pop3 import Pop3Server  # noqa: E402

with Suite("what a POP3 server is asked to delete, and what it cannot do", timeout=600) as suite:
    require_fuse()

    def home(server, **settings):
        return suite.home(server, **{"imap": None, "pop3": f"pop3s://127.0.0.1:{server.pop3s_port}", "expunge_delay": "0s", "poll": "24h",
                                     **settings})

    def serve(messages, seed, **options):
        server = suite.dovecot(pop3=True, **options)
        server.fill("INBOX", corpus.realistic(messages, seed=seed))
        return server

    def left(server):
        with server.client() as other:
            other.select()
            return other.uids()

    def state(path):
        return os.getxattr(path, "user.mail.state").decode()

    def files(mount):
        return {path.name: os.stat(path).st_ino for path in mount.messages()}

    def scripted(messages):
        server = Pop3Server(messages)
        suite.callback(server.stop)
        return server

    @suite.case("rm is DELE after the delay; there is no Trash, and no mailbox is made")
    def _():
        server = serve(6, 91)
        h = home(server)
        mount = h.mount()
        paths = mount.messages()
        os.unlink(paths[0])
        os.unlink(paths[1])
        wait_until(lambda: len(left(server)) == 4, "two are deleted at the server")
        assert sorted(os.listdir(mount.where)) == [".nomedia", "INBOX"]
        mount.umount()
        h.set(expunge_delay="1h")
        mount = h.mount()
        os.unlink(mount.messages()[0])
        h.run("sync", check=0)
        assert len(left(server)) == 4 and len(mount.messages()) == 3
        assert "delete for good" in h.run("pending", check=0).stdout
        mount.umount()

    @suite.case("what POP3 can never do is refused at once, with EPERM, and leaves nothing to be done; offline too")
    def _():
        server = serve(5, 92)
        h = home(server)
        for offline in (False, True):
            mount = h.mount("offline") if offline else h.mount()
            inbox, first = mount / "INBOX", mount.messages()[0]
            before, bytes_before = files(mount), first.read_bytes()
            refused = {
                "mkdir": lambda: os.mkdir(mount / "Archive"), "mkdir inside": lambda: os.mkdir(inbox / "Old"), "rmdir": lambda: os.rmdir(inbox),
                "rename": lambda: os.rename(inbox, mount / "Eingang"), "create": lambda: open(inbox / "new.eml", "xb"),
                "scratch": lambda: open(inbox / ".new.swp", "xb"), "mknod": lambda: os.mknod(inbox / "new.eml"), "append": lambda: open(first, "ab"),
                "overwrite": lambda: open(first, "wb"), "truncate": lambda: os.truncate(first, 3), "link": lambda: os.link(first, inbox / "twin.eml"),
                "up": lambda: os.rename(first, mount / "out.eml"),
            }
            for what, do in refused.items():
                assert errno_of(do) == "EPERM", (what, errno_of(do))
            assert files(mount) == before and first.read_bytes() == bytes_before
            assert "nothing" in h.run("pending").stdout.lower() or not h.run("pending").stdout.strip(), h.run("pending").stdout
            assert h.status()["changes"]["pending"] == 0, h.status()
            mount.umount()

    @suite.case("flags and names are kept here, and nothing waits for a server")
    def _():
        server = serve(5, 93)
        h = home(server)
        mount = h.mount()
        first, second = mount.messages()[:2]
        h.run("flag", "+flagged", "+seen", first, check=0)
        os.setxattr(first, "user.mail.flags", b"Seen Flagged work")
        os.rename(second, mount / "INBOX" / "renamed by hand.eml")
        os.utime(first, (1e9, 1e9))
        assert h.status()["changes"]["pending"] == 0 and state(first) == "synchronised"
        h.run("sync", check=0)
        mount.umount()
        mount = h.mount()
        h.run("sync", check=0)
        assert {b"Flagged", b"work"} <= set(os.getxattr(mount / "INBOX" / first.name, "user.mail.flags").split())
        assert "renamed by hand.eml" in mount.names() and second.name not in mount.names()
        os.rename(mount / "INBOX" / "renamed by hand.eml", mount / "INBOX" / first.name)
        wait_until(lambda: len(left(server)) == 4, "what was replaced is deleted")
        mount.umount()

    @suite.case("leave-on-server = no: stored here, deleted there; the same files, flags and names; the folder of the cache may go")
    def _():
        server = serve(40, 94)
        with server.client() as other:
            truth = other.digests()
        h = home(server)
        mount = h.mount()
        first = mount.messages()[0]
        h.run("flag", "+flagged", first, check=0)
        os.rename(mount.messages()[1], mount / "INBOX" / "mine.eml")
        before = files(mount)
        mount.umount()
        h.set(leave_on_server="no")
        mount = h.mount()
        wait_until(lambda: not left(server), "the server is empty", 60)
        wait_until(lambda: h.status()["changes"]["pending"] == 0, "nothing waits")
        assert files(mount) == before and mount.digests() == truth
        assert {state(path) for path in mount.messages()} == {"local"} and not h.bodies()
        assert b"Flagged" in os.getxattr(mount / "INBOX" / first.name, "user.mail.flags")
        unseen = os.getxattr(mount / "INBOX", "user.mail.unseen")
        h.run("sync", check=0)
        assert files(mount) == before and os.getxattr(mount / "INBOX", "user.mail.unseen") == unseen
        assert "current" in h.run("status", check=0).stdout and h.status()["kept"]["messages"] == 40, h.status()
        checked = h.run("check")
        assert checked.returncode == 0, (checked.returncode, checked.stdout[-800:], checked.stderr[-800:])
        mount.umount()
        shutil.rmtree(h.cache)
        mount = h.mount("offline")
        assert files(mount) == before and mount.digests() == truth
        mount.umount()
        mount = h.mount()
        server.deliver(corpus.message(subject="comes later"))
        h.run("sync", check=0)
        wait_until(lambda: not left(server), "the new one is taken too")
        assert len(mount.names()) == 41
        os.unlink(mount / "INBOX" / first.name)
        wait_until(lambda: len(list((h.state / "spool").iterdir())) == 40, "its bytes are gone")
        mount.umount()
        mount = h.mount()
        assert len(mount.digests()) == 40 and first.name not in mount.names()
        mount.umount()

    @suite.case("leave-on-server = 30: what is older goes, once it is here; the rest stays at the server")
    def _():
        now = time.time()
        server = scripted([corpus.message(subject=f"{days} days", when=now - days * 86400) for days in (400, 40, 31, 29, 2)])
        h = suite.home(None, **server.settings(), leave_on_server="30", poll="24h")
        mount = h.mount()
        wait_until(lambda: len(server.drop) == 2, "the old ones are deleted")
        wait_until(lambda: h.status()["changes"]["pending"] == 0, "nothing waits")
        assert sorted(state(path) for path in mount.messages()) == ["local"] * 3 + ["synchronised"] * 2
        assert len(set(mount.digests())) == 5
        mount.umount()

    @suite.case("a mount that is read-only takes nothing away, whatever leave-on-server says; the next one does")
    def _():
        server = scripted([corpus.message(subject=f"message {i}") for i in range(4)])
        h = suite.home(None, **server.settings(), leave_on_server="no", poll="24h")
        mount = h.mount("ro")
        assert len(set(mount.digests())) == 4
        h.run("sync", "--wait", check=0)
        assert {state(path) for path in mount.messages()} == {"synchronised"} and len(server.drop) == 4
        mount.umount()
        assert not [c for c in server.commands if c.startswith("DELE")], server.commands
        mount = h.mount()
        wait_until(lambda: not server.drop, "everything is taken")
        mount.umount()

    @suite.case("a server that hides what it has shown once: the tree is what it shows; the same file when it shows it again")
    def _():
        server = Pop3Server([corpus.message(subject=f"message {i}") for i in range(4)], hides=True)
        suite.callback(server.stop)
        h = suite.home(None, **server.settings(), poll="24h")
        mount = h.mount()
        before, (first, *others) = files(mount), mount.messages()
        data = first.read_bytes()
        h.run("sync", check=0)
        assert mount.messages() == others
        server.show()
        h.run("sync", check=0)
        assert files(mount) == before and first.read_bytes() == data
        assert list(server.retrieved.values()) == [1], server.retrieved
        mount.umount()
        assert not [c for c in server.commands if c.startswith("DELE")], server.commands

    @suite.case("leave-on-server = no: what was read and is hidden since is stored here all the same, and nothing is read twice")
    def _():
        sent = [corpus.message(subject=f"message {i}") for i in range(6)]
        server = Pop3Server(sent, hides=True)
        suite.callback(server.stop)
        h = suite.home(None, **server.settings(), poll="24h")
        mount = h.mount()
        before = files(mount)
        h.run("sync", "--populate", check=0)
        assert sorted(server.retrieved.values()) == [1] * 6, server.retrieved
        mount.umount()
        h.set(leave_on_server="no")
        mount = h.mount()
        h.run("sync", "--wait", check=0)
        wait_until(lambda: {state(path) for path in mount.messages()} == {"local"}, "everything is taken")
        assert files(mount) == before and mount.digests() == sorted(hashlib.sha256(m).hexdigest() for m in sent)
        assert sorted(server.retrieved.values()) == [1] * 6, server.retrieved
        assert h.status()["changes"] == {**h.status()["changes"], "pending": 0, "parked": 0}
        mount.umount()

    @suite.case("without a mount: sync --once takes everything, and ends")
    def _():
        server = serve(12, 95)
        h = home(server, leave_on_server="no")
        h.run("sync", "--once", check=0)
        assert left(server) == []
        mount = h.mount("offline")
        assert len(mount.digests()) == 12
        mount.umount()

    @suite.case("a cache that is too small for what is to be stored does not keep it from being stored")
    def _():
        big = [corpus.message(subject=f"big {i}", body=b"0123456789abcdef" * 6250 * (i + 1) + b"\r\n") for i in range(12)]
        server = scripted(big)
        h = suite.home(None, **server.settings(), leave_on_server="no", poll="24h", cache_size="1M")
        mount = h.mount()
        wait_until(lambda: not server.drop, "everything is taken", 60)
        assert mount.digests() == sorted(hashlib.sha256(m).hexdigest() for m in big)
        assert max(server.retrieved.values()) == 1, server.retrieved
        mount.umount()

    @suite.case("one that the server will not delete keeps none of the others back, and waits for a person")
    def _():
        server = scripted([corpus.message(subject=f"message {i}") for i in range(5)])
        server.refuse.add("u3")
        h = suite.home(None, **server.settings(), leave_on_server="no", poll="24h")
        mount = h.mount()
        wait_until(lambda: [key for key, _ in server.drop] == ["u3"], "the others are deleted")
        wait_until(lambda: h.status()["changes"]["parked"] == 1, "one waits")
        assert "that one stays" in h.run("pending").stdout
        assert len(mount.digests()) == 5 and server.commands.count("QUIT") < 8
        mount.umount()

    @suite.case("removed while it is on its way out of the server: gone everywhere, and not back")
    def _():
        server = scripted([corpus.message(subject=f"message {i}") for i in range(3)])
        h = suite.home(None, **server.settings(), leave_on_server="no", poll="24h", expunge_delay="0s", io_timeout="5s")
        mount = h.mount()
        wait_until(lambda: mount.names(), "it is listed")
        for path in mount.messages():
            os.unlink(path)
        wait_until(lambda: not server.drop, "the server is empty")
        h.run("sync", check=0)
        assert not mount.names() and not list((h.state / "spool").iterdir())
        mount.umount()

    messages = [corpus.message(subject=f"message {i}", body=b"x" * 20000 * i + b"\r\n") for i in range(3)]
    wanted = sorted(hashlib.sha256(m).hexdigest() for m in messages)

    def complete(mount):
        try:
            return mount.digests() == wanted
        except OSError:
            return False

    def steps():
        """How many commands it takes when nothing fails"""
        server = scripted(messages)
        h = suite.home(None, **server.settings(), leave_on_server="no", poll="24h")
        mount = h.mount()
        wait_until(lambda: not server.drop, "the server is empty")
        wait_until(lambda: h.status()["changes"]["pending"] == 0, "nothing waits")
        mount.umount()
        return len(server.commands)

    count = steps()

    def chosen():
        every = [(step, when) for step in range(1, count + 1) for when in ("before", "after")]
        return every[::2] if suite.short else every

    @suite.case("the connection is cut at each step of get-and-delete: nothing is lost, nothing comes twice")
    def _():
        for step, when in chosen():
            server = scripted(messages)
            h = suite.home(None, **server.settings(), leave_on_server="no", poll="24h")
            server.arm(step, when)
            try:
                mount = h.mount()
            except MountFailed: # cut before the first list
                mount = h.mount()
            wait_until(lambda: server.armed is None or not server.drop, f"step {step} is reached")

            def done():
                if server.drop and h.link() == "offline": # only then: the signal ends what is under way too
                    os.kill(mount.process.pid, signal.SIGUSR1)
                return not server.drop and complete(mount)
            wait_until(done, f"cut {when} step {step}: taken, whole and once", 40)
            wait_until(lambda: h.status()["changes"]["pending"] == 0, "nothing waits")
            h.run("sync", check=0)
            assert complete(mount), (step, when, mount.names())
            mount.umount()
        suite.say(f"{count} steps")

    @suite.case("kill -9 at each step of get-and-delete: nothing is lost, nothing comes twice")
    def _():
        for step, when in chosen():
            server = scripted(messages)
            h = suite.home(None, **server.settings(), leave_on_server="no", poll="24h")
            mount = h.mount(wait=False)
            server.arm(step, when, mount.process.kill)
            wait_until(lambda: server.armed is None or not server.drop, f"step {step} is reached")
            mount.kill()
            mount = h.mount()
            wait_until(lambda: not server.drop and complete(mount), f"killed {when} step {step}: taken, whole and once", 40)
            wait_until(lambda: h.status()["changes"]["pending"] == 0, "nothing waits")
            h.run("sync", check=0)
            assert complete(mount) and not os.listdir(h.state / "rejected"), (step, when, mount.names())
            assert len(os.listdir(h.state / "spool")) == len(wanted)
            mount.umount()

    @suite.case("Courier's server, by STLS and by TLS from the start: CAPA, UIDL, TOP, RETR, DELE; a wrong password")
    def _():
        server = Courier(suite)

        def deliver(i):
            server.deliver(corpus.message(subject=f"to Courier {i}", body=b".dot\r\n..two\r\n" + b"y" * 990 * 50 * i + b"\r\n"))
        for i in range(4):
            deliver(i)
        seen = []
        for scheme in ("pop3", "pop3s"):
            h = suite.home(None, **server.settings(scheme=scheme), poll="24h", expunge_delay="0s")
            mount = h.mount(arguments=["--trace", "pop3"])
            deliver(4 + len(seen))        # what is traced in the moment of mounting may be lost
            h.run("sync", "work", check=0)
            seen.append({path.name: digest(path) for path in mount.messages()})
            said = mount.log.read_text()
            for line in ["CAPA", "UIDL", "TOP ", "RETR "] + ["STLS"] * (scheme == "pop3"):
                assert f"> {line}" in said, (line, said)
            assert server.password not in said
            left = len(server.left())
            os.unlink(mount.messages()[0])
            wait_until(lambda: len(server.left()) == left - 1, "one is deleted", 60)
            mount.umount()
        assert len(seen[0]) == len(seen[1]) == 5 and len(seen[0].items() & seen[1].items()) == 4
        h.set(password="wrong")
        refused = h.run("sync", "--once", "work")
        assert refused.returncode == 9 and len(server.left()) == 4, refused

    def taken_from_courier(scheme):
        server = Courier(suite)
        sent = [corpus.message(subject=f"to Courier {i}", body=b".dot\r\n..two\r\n" + b"y" * 997 * i + b"\r\n") for i in range(12)]
        for message in sent:
            server.deliver(message)
        truth = sorted(hashlib.sha256(message).hexdigest() for message in sent)
        h = suite.home(None, **server.settings(scheme=scheme), poll="24h", expunge_delay="0s")
        mount = h.mount()
        assert mount.digests() == truth
        before = files(mount)
        os.unlink(mount.messages()[0])
        wait_until(lambda: len(server.left()) == 11, "one is deleted", 60)
        mount.umount()
        # its sessions are some seconds apart (LOGIN-DELAY); each is cut a little later than the last
        proxy = suite.proxy(server.tls_port if scheme == "pop3s" else server.port)
        h.set(**server.settings(proxy.port, scheme), leave_on_server="no")
        shutil.rmtree(h.cache)
        mount = h.mount("offline")
        for point in (200, 4000, 60000):
            proxy.do(f"cut {point} 1")
            h.run("connect")
            wait_until(lambda: h.link() in ("online", "offline"), "it has tried", 60)
        proxy.do("cut 0")

        def taken():
            if server.left() and h.link() == "offline":
                os.kill(mount.pid, signal.SIGUSR1)
            return not server.left()
        wait_until(taken, "everything is taken", 120)
        wait_until(lambda: h.status()["changes"]["pending"] == 0, "nothing waits", 60)
        assert len(mount.digests()) == 11 and set(mount.digests()) < set(truth)
        assert all(before[name] == inode for name, inode in files(mount).items())
        assert {state(path) for path in mount.messages()} == {"local"}
        mount.umount()

    @suite.case("Courier's server by STLS: read, removed, taken; and with cut connections")
    def _():
        taken_from_courier("pop3")

    @suite.case("the same by TLS from the start")
    def _():
        taken_from_courier("pop3s")
