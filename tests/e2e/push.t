#!/usr/bin/python3
import json
import os
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib import PROGRAM, Suite, corpus, digest, errno_of, read, require_fuse, wait_until  # noqa: E402
from lib import system  # noqa: E402

with Suite("changes made by others arrive without a poll", timeout=400) as suite:
    require_fuse()

    def examine(variant, without=()):
        label = variant + (f" without {'+'.join(without)}" if without else "")
        server = suite.dovecot(variant=variant, without=without)
        with server.client() as other:
            other.create("Work")
            for i in range(5):
                other.append("INBOX", corpus.message(subject=f"old {i}", when=corpus.BASE + i))
                other.append("Work", corpus.message(subject=f"work {i}", when=corpus.BASE + i))
        home = suite.home(server, poll="24h")
        mount = home.mount()
        home.wait_link("online")
        assert len(mount.names()) == 5 and len(mount.names("Work")) == 5
        stream = system.spawn([str(PROGRAM), "events", "--all", "work"], env=home.environment(), stdout=open(suite.folder / f"events-{label}", "wb"))
        suite.callback(stream.kill)

        def events():
            lines = (suite.folder / f"events-{label}").read_text().split("\n")
            return [json.loads(line) for line in lines if line.startswith("{")]

        @suite.case(f"{label}: a message delivered by LMTP appears in ls and in events")
        def _():
            server.deliver(corpus.message(subject="fresh news"))
            name = wait_until(lambda: [n for n in mount.names() if "fresh-news" in n], "the new message is listed")[0]
            assert b"Subject: fresh news" in read(mount / "INBOX" / name)
            event = wait_until(lambda: [e for e in events() if e["event"] == "message-added" and e.get("name") == name], "the event is told")[0]
            assert event["mailbox"] == "INBOX" and event["account"] == "work"
            assert name.encode() in wait_until(lambda: read(mount / ".mailfs/events"), "the events file has it")

        @suite.case(f"{label}: many at once")
        def _():
            for i in range(25):
                server.deliver(corpus.message(subject=f"burst {i}", when=corpus.BASE + 100 + i))
            wait_until(lambda: len([n for n in mount.names() if "burst" in n]) == 25, "all are listed")

        @suite.case(f"{label}: flags set by another client")
        def _():
            uid, path = sorted(mount.by_uid().items())[0]
            assert os.getxattr(path, "user.mail.flags") == b""
            before = os.stat(path).st_ctime_ns
            with server.client() as other:
                other.store("INBOX", uid, "+FLAGS", "\\Flagged $Work")
            wait_until(lambda: set(os.getxattr(path, "user.mail.flags").split()) == {b"\\Flagged", b"$Work"}, "the flags are seen")
            wait_until(lambda: os.stat(path).st_ctime_ns > before, "the kernel has been told")
            with server.client() as other:
                other.store("INBOX", uid, "-FLAGS", "\\Flagged")
            wait_until(lambda: os.getxattr(path, "user.mail.flags") == b"$Work", "the flag is gone")

        @suite.case(f"{label}: an expunge by another client; who has the file open can go on reading")
        def _():
            uid, path = sorted(mount.by_uid().items())[1]
            truth, before = read(path), os.stat(mount / "INBOX").st_mtime_ns
            with open(path, "rb", buffering=0) as held:
                assert held.read(10) == truth[:10]
                with server.client() as other:
                    other.expunge("INBOX", uid)
                wait_until(lambda: not os.path.exists(path), "the name is gone")
                assert path.name not in mount.names()
                held.seek(0)
                assert held.read() == truth
                assert os.fstat(held.fileno()).st_size == len(truth)
            assert errno_of(os.stat, path) == "ENOENT"
            assert os.stat(mount / "INBOX").st_mtime_ns > before
            wait_until(lambda: [e for e in events() if e["event"] == "message-removed"], "the event is told")

        @suite.case(f"{label}: an uncached file that is open and expunged is stale")
        def _():
            uid, path = sorted(mount.by_uid().items())[0]
            fd = os.open(path, os.O_RDONLY)
            with server.client() as other:
                other.expunge("INBOX", uid)
            wait_until(lambda: not os.path.exists(path), "the name is gone")
            assert errno_of(os.read, fd, 100) == "ESTALE"
            os.close(fd)

        @suite.case(f"{label}: a move between mailboxes by another client keeps the name", when="NOTIFY" not in without)
        def _():
            uid, path = sorted(mount.by_uid().items())[-1]
            with server.client() as other:
                other.select("INBOX")
                other.command("uid", "MOVE", str(uid), "Work")
            wait_until(lambda: path.name in mount.names("Work") and path.name not in mount.names(), "it has moved")

        @suite.case(f"{label}: news of a mailbox that is not the INBOX", when="NOTIFY" not in without)
        def _():
            with server.client() as other:
                other.append("Work", corpus.message(subject="work news"))
            wait_until(lambda: [n for n in mount.names("Work") if "work-news" in n], "the new message is listed")

        @suite.case(f"{label}: a mailbox made, and one deleted, are seen by sync")
        def _():
            with server.client() as other:
                other.create("Made/Later")
                other.append("Made/Later", corpus.message(subject="later"))
            home.run("sync", check=0)
            wait_until(lambda: len(mount.names("Made/Later")) == 1, "the new mailbox is there")
            with server.client() as other:
                other.command("delete", "Made/Later")
            home.run("sync", check=0)
            wait_until(lambda: not os.path.exists(mount / "Made/Later"), "the deleted mailbox is gone")

        @suite.case(f"{label}: at the end, everything is as the server has it")
        def _():
            home.run("sync", check=0)
            with server.client() as other:
                for mailbox in ("INBOX", "Work"):
                    assert mount.digests(mailbox) == other.digests(mailbox)
                    assert {uid: set(os.getxattr(p, "user.mail.flags").decode().split()) for uid, p in mount.by_uid(mailbox).items()} == \
                        {uid: flags - {"\\Recent"} for uid, flags in other.flags(mailbox).items()}
            assert home.run("check").returncode == 0
        mount.umount()

    examine("maildir")
    if not suite.short:
        examine("mdbox", without=["NOTIFY"])
        examine("maildir", without=["QRESYNC", "CONDSTORE", "NOTIFY"])

    @suite.case("without IDLE, polling finds it")
    def _():
        server = suite.dovecot(without=["IDLE", "NOTIFY"])
        home = suite.home(server, poll="1s")
        mount = home.mount()
        server.deliver(corpus.message(subject="polled"))
        wait_until(lambda: [n for n in mount.names() if "polled" in n], "the new message is listed")
        mount.umount()

    @suite.case("a change of UIDVALIDITY keeps names and bodies")
    def _():
        server = suite.dovecot()
        server.fill("INBOX", corpus.small(50))
        home = suite.home(server)
        mount = home.mount()
        before = {path.name: digest(path) for path in mount.messages()}
        fetched = home.status()["traffic"]["fetched_messages"]
        mount.umount()
        server.stop()
        (server.maildir() / "dovecot-uidlist").unlink()
        for index in server.maildir().glob("dovecot.index*"):
            index.unlink()
        server.start()
        again = home.mount()
        home.run("sync", check=0)
        assert {path.name: digest(path) for path in again.messages()} == before
        with server.client() as other:
            other.select()
            assert sorted(again.by_uid()) == other.uids()
        suite.say(f"{fetched} bodies fetched before, {home.status()['traffic']['fetched_messages']} after")
        assert home.status()["traffic"]["fetched_messages"] == 0
        again.umount()
