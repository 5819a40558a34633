#!/usr/bin/python3
import os
import signal
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib import Suite, corpus, digest, errno_of, read, require_fuse, wait_until  # noqa: E402
from lib import system  # noqa: E402

with Suite("IMAP cannot be reached, and INBOX goes on by POP3", timeout=900) as suite:
    require_fuse()

    def serve(uidl, messages=25, **options):
        server = suite.dovecot(pop3=True, extra=f"protocol pop3 {{\n pop3_uidl_format = {uidl}\n}}", **options)
        server.fill("INBOX", corpus.realistic(messages, seed=81))
        server.fill("Archive", corpus.small(4, seed=82))
        return server

    def home(server, imap, pop3=None, **settings):
        url = pop3 if isinstance(pop3, str) else f"pop3s://127.0.0.1:{pop3.port if pop3 else server.pop3s_port}"
        return suite.home(server, port=imap.port, **{"pop3": url, "pop3_after": "1s",
                                                     "connect_timeout": "15s", "io_timeout": "15s", "poll": "24h", **settings})

    def block(imap):
        imap.do("mode reset")
        imap.do("drop")

    def protocol(h):
        status = h.status()
        return status["protocol"] if status["link"]["state"] == "online" else None

    def until(h, wanted, what):
        """Attempts that fail because the machine is busy are followed by ever longer pauses."""
        try:
            wait_until(lambda: protocol(h) == wanted, what, 150)
        except AssertionError as error:
            raise AssertionError(f"{error}; the account: {h.status()['link']}") from error

    def files(mount, mailbox="INBOX", read_too=True):
        return {path.name: (os.stat(path).st_ino, os.stat(path).st_size, digest(path) if read_too else None) for path in mount.messages(mailbox)}

    def crossing(uidl):
        server = serve(uidl)
        imap = suite.proxy(server.port)
        h = home(server, imap)
        mount = h.mount()
        before = files(mount)
        mtimes = {path.name: os.stat(path).st_mtime for path in mount.messages()}
        with server.client() as other:
            other.select()
            other.store("INBOX", "1:3", "+FLAGS", "\\Flagged")
        h.run("sync", check=0)
        bodies = len(h.bodies())
        assert protocol(h) == "imap"
        block(imap)
        until(h, "pop3", "it goes on by POP3")
        said = h.run("status", check=0).stdout
        assert "by POP3" in said and "IMAP cannot be reached: " in said, said
        assert h.status()["link"]["imap_next_try"] and h.status()["link"]["imap_reason"], h.status()["link"]
        h.run("sync", check=0)
        assert files(mount) == before
        assert {path.name: os.stat(path).st_mtime for path in mount.messages()} == mtimes
        assert len(h.bodies()) == bodies
        assert sum(b"Flagged" in os.getxattr(path, "user.mail.flags") for path in mount.messages()) == 3
        # the other mailboxes stay as they are, and say what is so where they are not cached
        assert len(mount.names("Archive")) == 4
        started = time.monotonic()
        assert errno_of(read, mount.messages("Archive")[0]) == "ENETUNREACH"
        assert time.monotonic() - started < 10 * system.SLOW     # far from a deadline
        server.deliver(corpus.message(subject="came by POP3"))
        h.run("sync", check=0)
        during = files(mount)
        assert len(during) == len(before) + 1 and [n for n in during if "came-by-POP3" in n], during.keys() - before.keys()
        # a remount in the middle of it
        mount.umount()
        mount = h.mount()
        assert files(mount) == during
        until(h, "pop3", "by POP3 after a remount")
        h.run("sync", check=0)
        assert files(mount) == during
        imap.do("mode normal")
        until(h, "imap", "it goes back by itself")
        h.run("sync", check=0)
        assert files(mount) == during
        assert {path.name: os.stat(path).st_mtime for path in mount.messages() if path.name in mtimes} == mtimes
        assert sum(b"Flagged" in os.getxattr(path, "user.mail.flags") for path in mount.messages()) == 3
        assert len(mount.digests("Archive")) == 4
        with server.client() as other:
            assert mount.digests() == other.digests()
            assert sorted(mount.by_uid()) == sorted(other.bodies())
        checked = h.run("check")
        assert checked.returncode == 0, (checked.returncode, checked.stdout[-800:], checked.stderr[-800:])
        mount.umount()

    @suite.case("UIDLs that show the UID (%08Xu%08Xv): the same files there, and back")
    def _():
        crossing("%08Xu%08Xv")

    @suite.case("... and %v-%u")
    def _():
        crossing("%v-%u")

    @suite.case("... and names of files of a Maildir (%f)")
    def _():
        crossing("%f")

    @suite.case("UIDLs that show nothing (%g): the same files there, and back")
    def _():
        crossing("%g")

    @suite.case("UIDLs that show nothing: lost lines and kill -9 in the middle of reading INBOX anew, there and back")
    def _():
        server = serve("%g", 60)
        imap, pop3 = suite.proxy(server.port), suite.proxy(server.pop3s_port)
        h = home(server, imap, pop3)
        mount = h.mount()
        before = files(mount)

        def half(mount):
            """INBOX is being read anew: not all of it has come"""
            try:
                return len(mount.names()) < len(before) - 5
            except OSError:
                return False

        def whole(mount):
            try:
                return mount.names() == sorted(before) and os.getxattr(mount / "INBOX", "user.mail.complete") == b"yes"
            except OSError:
                return False
        for there, away, line in (("pop3", imap, pop3), ("imap", pop3, imap)):
            line.do("mode normal")
            line.do("cut 20000 2")
            block(away)
            until(h, there, f"by {there}")
            wait_until(lambda: whole(mount), f"all is there again by {there}", 60)
            h.run("sync", check=0)
            assert files(mount) == before, there
            line.do("cut 0")
        # now slowly, so that a kill comes in the middle
        pop3.do("mode normal")
        pop3.do("rate 12000")
        block(imap)
        wait_until(lambda: half(mount), "INBOX is being read anew", 60)
        mount.kill()
        pop3.do("rate 0")
        mount = h.mount()
        wait_until(lambda: protocol(h) == "pop3" and whole(mount), "all is there again after the kill", 60)
        assert files(mount) == before
        imap.do("mode normal")
        until(h, "imap", "IMAP again")
        h.run("sync", check=0)
        assert files(mount) == before
        mount.umount()

    @suite.case("what POP3 does not show comes back as the same files, with the bodies that were there")
    def _():
        server = serve("%g\n pop3_deleted_flag = Hidden", 12)
        imap = suite.proxy(server.port)
        h = home(server, imap)
        mount = h.mount()
        before = files(mount)
        with server.client() as other:
            other.store("INBOX", "2:4", "+FLAGS", "Hidden")
        block(imap)
        until(h, "pop3", "by POP3")
        h.run("sync", check=0)
        assert len(mount.names()) == 9 and files(mount).items() < before.items()
        fetched = h.status()["traffic"]["fetched_messages"]
        imap.do("mode normal")
        until(h, "imap", "IMAP again")
        h.run("sync", check=0)
        assert files(mount) == before
        assert h.status()["traffic"]["fetched_messages"] == fetched
        mount.umount()

    def changes(uidl):
        server = serve(uidl, 12)
        imap = suite.proxy(server.port)
        h = home(server, imap, leave_on_server="no", expunge_delay="0s")
        mount = h.mount()
        inbox = mount / "INBOX"
        before = files(mount)
        names = mount.names()
        block(imap)
        until(h, "pop3", "by POP3")
        h.run("sync", check=0)
        h.run("flag", "+flagged", inbox / names[0], check=0)
        os.rename(inbox / names[1], mount / "Archive" / "moved.eml")
        os.unlink(inbox / names[2])
        os.mkdir(mount / "Later")
        (inbox / "written.eml").write_bytes(corpus.message(subject="written meanwhile"))
        h.run("sync")
        during = mount.names()
        assert names[1] not in during and names[2] not in during and "written.eml" in during, during
        assert h.status()["changes"]["pending"] >= 5, h.status()["changes"]
        with server.client() as other:
            other.select()
            assert len(other.uids()) == 12, "something was deleted by POP3"
        if uidl == "%g":     # and through a kill in the middle of it
            mount.kill()
            mount = h.mount()
            until(h, "pop3", "by POP3 again")
            h.run("sync")
            assert mount.names() == during
        imap.do("mode normal")
        until(h, "imap", "IMAP again")
        wait_until(lambda: h.status()["changes"]["pending"] == 0, "all is carried out", 40)
        h.run("sync", check=0)
        assert h.status()["changes"]["parked"] == h.status()["changes"]["unconfirmed"] == 0, h.run("pending").stdout
        assert mount.names() == during and "moved.eml" in os.listdir(mount / "Archive") and "Later" in os.listdir(mount.where)
        assert files(mount, read_too=False).items() >= {(n, (i, size, None)) for n, (i, size, _) in before.items() if n not in (names[1], names[2])}
        with server.client() as other:
            assert mount.digests() == other.digests() and mount.digests("Archive") == other.digests("Archive")
            other.select()
            assert len(other.uids()) == 11 and sum("\\Flagged" in flags for flags in other.flags().values()) == 1, other.flags()
        assert b"Flagged" in os.getxattr(mount / "INBOX" / names[0], "user.mail.flags")
        mount.umount()

    @suite.case("what is changed meanwhile waits for IMAP, and nothing is deleted by POP3: the UIDLs show the numbers")
    def _():
        changes("%08Xu%08Xv")

    @suite.case("what is changed meanwhile waits for IMAP, and nothing is deleted by POP3: they do not; with a kill -9")
    def _():
        changes("%g")

    @suite.case("never after a refused password")
    def _():
        server = serve("%g", 3)
        imap = suite.proxy(server.port)
        h = home(server, imap)
        mount = h.mount()
        server.password = "another"
        os.kill(mount.pid, signal.SIGSTOP)      # who looked while the server is restarted would find that IMAP cannot be reached
        server.restart()
        imap.do("drop")
        os.kill(mount.pid, signal.SIGCONT)
        wait_until(lambda: h.link() == "waiting", "it waits for its user", 40)
        time.sleep(2.5)      # longer than pop3-after: nothing may happen
        status = h.status()
        assert status["protocol"] == "imap" and status["link"]["state"] == "waiting", status
        assert "pop3-login" not in (server.folder / "log").read_text(errors="replace")
        mount.umount()

    @suite.case("a password that only POP3 refuses: once, and IMAP is what is waited for")
    def _():
        server = serve("%g", 3)
        other = suite.dovecot(pop3=True, authority=server.authority)
        other.password = "another"
        other.restart()
        imap = suite.proxy(server.port)
        h = home(server, imap, pop3=f"pop3s://127.0.0.1:{other.pop3s_port}")
        mount = h.mount()
        refusals = lambda: (other.folder / "log").read_text(errors="replace").count("auth failed")
        before = refusals()
        block(imap)
        wait_until(lambda: refusals() > before, "POP3 has refused", 40)
        wait_until(lambda: h.link() == "offline", "offline", 20)
        time.sleep(4)        # some attempts at IMAP later
        assert refusals() == before + 1 and h.link() != "waiting"
        imap.do("mode normal")
        until(h, "imap", "IMAP again")
        assert len(mount.digests()) == 3
        mount.umount()

    @suite.case("neither can be reached: offline, and IMAP first when they come back")
    def _():
        server = serve("%g", 3)
        imap, pop3 = suite.proxy(server.port), suite.proxy(server.pop3s_port)
        h = home(server, imap, pop3)
        mount = h.mount()
        assert len(mount.names()) == 3
        block(imap)
        block(pop3)
        wait_until(lambda: h.link() == "offline", "offline", 40)
        assert h.status()["protocol"] == "imap"
        assert errno_of(read, mount.messages()[0]) == "ENETUNREACH"
        imap.do("mode normal")
        pop3.do("mode normal")
        until(h, "imap", "IMAP again")
        assert len(mount.digests()) == 3
        mount.umount()

    @suite.case("a first mount while IMAP is away, with pop3-after = 0: INBOX is there, the rest follows")
    def _():
        server = serve("%08Xu%08Xv", 6)
        imap = suite.proxy(server.port)
        block(imap)
        h = home(server, imap, pop3_after="0")
        mount = h.mount()
        assert protocol(h) == "pop3"
        during = files(mount)
        assert len(during) == 6
        imap.do("mode normal")
        until(h, "imap", "IMAP")
        h.run("sync", check=0)
        assert files(mount) == during
        assert len(mount.digests("Archive")) == 4
        mount.umount()

    @suite.case("IMAP that accepts and says nothing")
    def _():
        server = serve("%08Xu%08Xv", 6)
        imap = suite.proxy(server.port)
        h = home(server, imap, connect_timeout="5s", io_timeout="5s")
        mount = h.mount()
        before = files(mount)
        imap.do("mode silent")
        imap.do("drop")
        until(h, "pop3", "by POP3")
        server.deliver(corpus.message(subject="meanwhile"))
        h.run("sync", check=0)
        assert len(files(mount)) == 7 and before.items() <= files(mount).items()
        mount.umount()
