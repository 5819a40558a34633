#!/usr/bin/python3
import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib import MountFailed, Suite, corpus, digest, errno_of, read, require_fuse, wait_until  # noqa: E402
from lib import system  # noqa: E402

CLEAR = {"ENETUNREACH", "ETIMEDOUT", "EIO", "EHOSTDOWN", "EHOSTUNREACH"}   # what a reader may be told when the server fails

with Suite("broken lines and dead servers", timeout=600) as suite:
    require_fuse()
    server = suite.dovecot()
    server.fill("INBOX", corpus.realistic(60, seed=11))
    with server.client() as other:
        truth = other.digests()
    proxy = suite.proxy(server.port)

    def home(**settings):
        proxy.do("mode normal")
        proxy.do("resume")
        proxy.do("cut 0")
        proxy.do("rate 0")
        return suite.home(server, port=proxy.port, **settings)

    def blocked_in_read(pid):
        with open(f"/proc/{pid}/syscall") as call:
            return call.read().startswith("0 ") and system.process_state(pid) in ("S", "D")

    def right_or_error(mount):
        """Reads everything once; what comes is right or a clear error. Returns how many were right."""
        good = 0
        for path in mount.messages():
            try:
                assert digest(path) in truth, f"{path}: wrong bytes"
                good += 1
            except OSError as error:
                assert errno.errorcode[error.errno] in CLEAR | {"ESTALE"}, (path, error)
        return good

    def recovered(mount):
        def all_there():
            return mount.digests() == truth
        wait_until(all_there, "everything can be read again, by itself", 60)

    @suite.case("the connection is cut after N bytes, for many N; it comes back by itself, and no byte is wrong")
    def _():
        total = 1_900_000
        points = [1, 40, 500, 2000, 4000] + sorted(int(10 ** suite.random.uniform(3, 6.2)) for _ in range(200 if suite.long else 4 if suite.short else 14))
        good = 0
        for point in points:
            assert point < total
            h = home()
            proxy.do(f"cut {point} 3")
            try:
                mount = h.mount()
            except MountFailed as failed:      # cut three times before the list was there
                assert failed.text.strip() and failed.code != 0, (point, failed)
                proxy.do("cut 0")
                mount = h.mount()
            good += right_or_error(mount)
            proxy.do("cut 0")
            h.run("connect", check=0)
            recovered(mount)
            mount.umount()
        suite.say(f"cut at {points}; {good} of {len(points) * 60} first reads were right at once")

    @suite.case("the server is killed in the middle of a fetch, and comes back")
    def _():
        for _ in range(1 if suite.short else 3):
            h = home()
            mount = h.mount()
            paths = mount.messages()
            proxy.do("rate 50000")      # half a minute for all of it: it is in the middle whenever we look
            start = proxy.stats()["down"]
            reader = system.spawn(["cat", *map(str, paths)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            wait_until(lambda: proxy.stats()["down"] > start + 50_000, "some of it is on its way")
            server.kill()
            proxy.do("drop")
            proxy.do("rate 0")
            _, said = reader.communicate(timeout=system.PATIENCE * system.SLOW)
            assert reader.returncode == 1 and said, (reader.returncode, said)
            assert errno_of(read, mount.messages()[-1]) in CLEAR | {""}
            wait_until(lambda: h.link() != "online", "mailfs knows")
            assert len(mount.names()) == 60
            server.start()
            os.kill(mount.pid, signal.SIGUSR1)
            h.wait_link("online")
            recovered(mount)
            mount.umount()

    @suite.case("a server that accepts and then says nothing: mount fails within the deadline, in one clear line")
    def _():
        silent = home(connect_timeout="3s")
        proxy.do("mode silent")
        started = time.monotonic()
        try:
            silent.mount()
            raise AssertionError("mounted")
        except MountFailed as failed:
            took = time.monotonic() - started
            assert took < system.PATIENCE * system.SLOW, took
            text = failed.text.strip()
            assert failed.code not in (0, None) and failed.code > 0, failed.code
            assert text, "nothing said"
        finally:
            proxy.do("mode normal")
            proxy.do("drop")

    @suite.case("no server at all, wrong port: mount fails with one clear line and leaves nothing")
    def _():
        port, = system.free_ports(1)
        h = suite.home(server, port=port)
        where = suite.path("mnt")
        answer = h.run("mount", "work", where, timeout=20)
        assert answer.returncode == 10, (answer.returncode, answer.stderr)
        assert len(answer.stderr.strip().split("\n")) == 1 and answer.stderr.startswith("mailfs:"), answer.stderr
        assert not system.fuse_device(where)

    @suite.case("a mounted server goes silent: readers get ETIMEDOUT, the tree goes on answering, ^C and kill work")
    def _():
        h = home(io_timeout="15s")
        mount = h.mount()
        cached, *rest = mount.messages()
        whole = read(cached)
        proxy.do("pause")
        reader = system.spawn(["cat", str(rest[0])], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        interrupted = system.spawn(["cat", str(rest[1])], stdout=subprocess.DEVNULL)
        terminated = system.spawn(["cat", str(rest[2])], stdout=subprocess.DEVNULL)
        killed = system.spawn(["cat", str(rest[3])], stdout=subprocess.DEVNULL)
        for process in (reader, interrupted, terminated, killed):
            wait_until(lambda: blocked_in_read(process.pid), "the reader waits")
        interrupted.send_signal(signal.SIGINT)
        terminated.send_signal(signal.SIGTERM)
        killed.kill()
        started = time.monotonic()
        for process, number in ((interrupted, signal.SIGINT), (terminated, signal.SIGTERM), (killed, signal.SIGKILL)):
            assert process.wait(system.PATIENCE * system.SLOW) == -number
        suite.say(f"interrupted readers were gone after {time.monotonic() - started:.2f} s")
        assert reader.poll() is None, "they were gone by the deadline, not by their signals"
        assert len(mount.names()) == 60 and read(cached) == whole and os.statvfs(mount.where).f_blocks
        _, said = reader.communicate(timeout=system.PATIENCE * system.SLOW)
        assert reader.returncode == 1 and b"timed out" in said.lower() or b"unreachable" in said.lower(), said
        proxy.do("resume")
        h.run("connect", check=0)
        recovered(mount)
        mount.umount()

    @suite.case("a server that goes silent in the middle of every body: ETIMEDOUT after the deadline, not after many of them")
    def _():
        silent = suite.scripted(mailboxes={"INBOX": [corpus.message(subject=f"m{i}") for i in range(2)]},
                                script="on UID FETCH .*BODY.PEEK\\[\\]:\n\t!raw * 1 FETCH (UID 1 BODY[] {50}\\r\\nabc\n\t!hang\n")
        mount = suite.home(**silent.settings(), connect_timeout="6s", io_timeout="6s").mount()
        for path in mount.messages():
            started = time.monotonic()
            answer = errno_of(read, path)
            took = time.monotonic() - started
            assert answer in ("ETIMEDOUT", "ENETUNREACH"), answer
            assert took < 6 * 3 * system.SLOW, f"{answer} after {took:.1f} s, with io-timeout = 6s"
        mount.umount()

    @suite.case("a server that breaks the protocol in a body's place: EIO; one that refuses it: EACCES")
    def _():
        for answer, error in (("BAD what?", "EIO"), ("NO not for you", "EACCES")):
            odd = suite.scripted(mailboxes={"INBOX": [corpus.message()]}, script=f"on UID FETCH .*BODY.PEEK\\[\\]:\n\t{{tag}} {answer}\n")
            mount = suite.home(**odd.settings()).mount()
            assert errno_of(read, mount.messages()[0]) == error, answer
            mount.umount()

    @suite.case("what is asked for once more comes behind other mailboxes' messages with the same numbers, and none gets another's bytes")
    def _():
        boxes = {name: [corpus.message(subject=f"{name} {i}") for i in range(count)] for name, count in (("INBOX", 1), ("Few", 3), ("Many", 5))}
        for answer in ("on UID FETCH 1:3 .*BODY.PEEK\\[\\]:\n\t{tag} NO not together\n", "once UID FETCH 1:3 .*BODY.PEEK\\[\\]:\n\t{tag} OK there was nothing\n"):
            odd = suite.scripted(mailboxes=boxes, script=answer)
            h = suite.home(**odd.settings())
            mount = h.mount()
            h.run("sync", "--populate")
            for name, messages in boxes.items():
                assert {digest(mount.where / name / file) for file in mount.names(name)} == {hashlib.sha256(m).hexdigest() for m in messages}, name
            mount.umount()

    @suite.case("umount while the server is silent and readers wait")
    def _():
        h = home(io_timeout="10m")
        mount = h.mount()
        message = mount.messages()[5]
        proxy.do("pause")
        reader = system.spawn(["cat", str(message)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(lambda: blocked_in_read(reader.pid), "the reader waits")
        mount.process.send_signal(signal.SIGTERM)
        mount.wait_end()
        assert reader.wait(system.PATIENCE * system.SLOW) != 0
        proxy.do("resume")
        proxy.do("drop")

    @suite.case("reconnecting while the server refuses, then does not, needs nobody")
    def _():
        h = home()
        mount = h.mount()
        message = mount.messages()[7]
        proxy.do("mode reset")
        proxy.do("drop")
        h.wait_link("offline")
        status = h.status()["link"]
        assert status.get("reason") or status.get("error"), status
        assert errno_of(read, message) in CLEAR
        before = proxy.stats()["connections"]
        proxy.do("mode normal")
        h.wait_link("online", 60)
        suite.say(f"{proxy.stats()['connections'] - before} connections")
        recovered(mount)
        mount.umount()

    @suite.case("a wrong password stops trying, says so, and connect tries again")
    def _():
        h = home()
        mount = h.mount()
        message = mount.messages()[9]
        proxy.do("drop")
        server.password, right = "another", server.password
        server.restart()
        try:
            proxy.do("drop")
            h.run("connect")
            h.wait_link("waiting")
            status = h.status()["link"]
            assert "password" in json.dumps(status) or "credential" in json.dumps(status) or "uthentication" in json.dumps(status), status
            tries = proxy.stats()["connections"]
            assert errno_of(read, message) in CLEAR | {"EACCES"}
            for _ in range(3):      # a network that changes, and who asks for mail, change nothing about it
                os.kill(mount.pid, signal.SIGUSR1)
                assert h.run("sync", "work").returncode == 9
            assert h.link() == "waiting" and proxy.stats()["connections"] == tries, "it goes on trying"
        finally:
            server.password = right
            server.restart()
        proxy.do("drop")
        h.run("connect", check=0)
        h.wait_link("online")
        recovered(mount)
        mount.umount()
