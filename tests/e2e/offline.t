#!/usr/bin/python3
import os
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib import Suite, corpus, digest, errno_of, read, require_fuse, wait_until  # noqa: E402
from lib import system  # noqa: E402

with Suite("without a network", timeout=400) as suite:
    require_fuse()
    server = suite.dovecot()
    server.fill("INBOX", corpus.realistic(40, seed=31))
    server.fill("Archive/2024", corpus.small(20, seed=32))
    home = suite.home(server)
    mount = home.mount()
    cached = mount.messages()[:15]
    known = {path.name: (digest(path), os.stat(path).st_ino, os.stat(path).st_size) for path in cached}
    tree = {folder.removeprefix(str(mount.where)): sorted(files) for folder, _, files in os.walk(mount.where)}
    inodes = {path.name: os.stat(path).st_ino for path in mount.messages()}
    wait_until(lambda: len(home.bodies()) >= 15, "what was read is kept")
    mount.umount()
    server.stop()

    def up():
        if not server.process:
            server.start()

    def offline_mount(*options):
        started = time.monotonic()
        again = home.mount(*options)
        suite.say(f"mounted without a server in {time.monotonic() - started:.3f} s")
        return again

    def examine(again):
        assert {folder.removeprefix(str(again.where)): sorted(files) for folder, _, files in os.walk(again.where)} == tree
        assert {path.name: os.stat(path).st_ino for path in again.messages()} == inodes
        for name, (sha, inode, size) in known.items():
            path = again / "INBOX" / name
            assert (digest(path), os.stat(path).st_ino, os.stat(path).st_size) == (sha, inode, size)
        for path in again.messages() + again.messages("Archive/2024"):
            if os.getxattr(path, "user.mail.cached") == b"no":
                started = time.monotonic()
                answer = errno_of(read, path)
                assert answer == "ENETUNREACH", (path, answer)
                assert time.monotonic() - started < 15 * system.SLOW     # far from a deadline
        assert os.statvfs(again.where).f_blocks > 0
        said = subprocess.run(["cat", str([p for p in again.messages("Archive/2024")][0])], capture_output=True, text=True)
        assert said.returncode == 1 and "Network is unreachable" in said.stderr, said.stderr

    @suite.case("the whole tree and every cached body are there; others fail at once with ENETUNREACH")
    def _():
        server.stop()
        again = offline_mount()
        wait_until(lambda: home.link() in ("offline", "waiting"), "the account knows that it is offline")
        examine(again)
        status = home.status()["link"]
        assert status.get("reason") or status.get("error"), status
        assert "offline" in home.run("status", check=0).stdout
        again.umount()

    @suite.case("the same with -o offline, which never connects")
    def _():
        up()
        up()
        again = offline_mount("offline")
        assert home.link() in ("offline", "waiting")
        examine(again)
        home.run("connect", check=0)
        home.wait_link("online")
        assert len(again.digests()) == 40
        home.run("disconnect", check=0)
        wait_until(lambda: home.link() == "waiting", "disconnected")
        assert len(again.digests()) == 40
        assert errno_of(read, again.messages("Archive/2024")[5]) == "ENETUNREACH"
        again.umount()
        server.stop()

    @suite.case("the server comes back: SIGUSR1 connects at once, and what is new appears")
    def _():
        server.stop()
        again = offline_mount()
        wait_until(lambda: home.link() == "offline", "offline")
        up()
        server.deliver(corpus.message(subject="while you were out"))
        os.kill(again.pid, signal.SIGUSR1)
        home.wait_link("online", 10)
        wait_until(lambda: [n for n in again.names() if "while-you-were-out" in n], "the new message is listed")
        with server.client() as other:
            assert again.digests() == other.digests()
        again.umount()

    @suite.case("the server comes back: without a signal, too")
    def _():
        server.stop()
        again = offline_mount()
        wait_until(lambda: home.link() == "offline", "offline")
        up()
        home.wait_link("online", 60)
        again.umount()

    @suite.case("sync --populate brings every body; then nothing needs the network")
    def _():
        up()
        again = home.mount()
        home.run("sync", "--populate", check=0)
        again.umount()
        server.stop()
        again = offline_mount()
        assert len(again.digests()) == 41 and len(again.digests("Archive/2024")) == 20
        for folder in ("INBOX", "Archive/2024"):
            assert all(os.getxattr(p, "user.mail.cached") in (b"yes", b"1", b"true") for p in again.messages(folder))
        again.umount()
        up()

    @suite.case("offline, a mailbox that was never listed is known to be incomplete")
    def _():
        up()
        demand = suite.home(server, sync="demand")
        again = demand.mount()
        again.names("INBOX")
        again.umount()
        server.stop()
        again = demand.mount()
        assert os.getxattr(again / "INBOX", "user.mail.complete") in (b"yes", b"1", b"true")
        assert os.getxattr(again / "Archive/2024", "user.mail.complete") in (b"no", b"0", b"false")
        assert os.listdir(again / "Archive/2024") == []
        assert len(again.names("INBOX")) == 41
        again.umount()
        up()

    @suite.case("what was never listed at all is not an empty account")
    def _():
        fresh = suite.home(server).mount("offline")
        assert errno_of(os.listdir, fresh.where) == "ENETUNREACH"
        assert errno_of(os.stat, fresh / "INBOX") == "ENETUNREACH" and errno_of(os.stat, fresh / ".hidden") == "ENOENT"
        assert "status" in os.listdir(fresh / ".mailfs")
        fresh.home.run("connect", check=0)
        wait_until(lambda: not errno_of(os.listdir, fresh.where), "the mailboxes are listed")
        assert "INBOX" in os.listdir(fresh.where)
        fresh.umount()

    @suite.case("a first mount without a server fails in one line, and leaves nothing")
    def _():
        server.stop()
        nobody = suite.home(server)
        where = suite.path("mnt")
        answer = nobody.run("mount", "work", where)
        assert answer.returncode == 10 and len(answer.stderr.strip().split("\n")) == 1, (answer.returncode, answer.stderr)
        assert not system.fuse_device(where)
