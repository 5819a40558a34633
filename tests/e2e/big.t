#!/usr/bin/python3
import os
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib import Suite, corpus, digest, read, require_fuse, wait_until  # noqa: E402
from lib import system  # noqa: E402

COUNT = 100_000

with Suite("100,000 messages in one mailbox", timeout=1200) as suite:
    require_fuse()
    server = suite.dovecot()
    count = 5000 if suite.short else COUNT
    server.fill("INBOX", corpus.small(count))
    huge = corpus.every_byte(huge=100_000_000)[-1][1]
    server.fill("Huge", [(huge, corpus.BASE, "")])
    with server.client() as other:      # Dovecot reads 100,000 files once; that is not what is tested here
        other.select("INBOX", readonly=True)
        other.command("uid", "FETCH", "1:*", "(RFC822.SIZE BODY.PEEK[HEADER.FIELDS (DATE FROM TO SUBJECT MESSAGE-ID)])")
    home = suite.home(server, io_timeout="120s", connect_timeout="60s")
    started = time.monotonic()
    mount = home.mount()

    @suite.case("mounts and lists")
    def _():
        names = os.listdir(mount / "INBOX")
        suite.say(f"first listing after {time.monotonic() - started:.1f} s")
        assert len(names) == count and len(set(names)) == count

    @suite.case("ls -l and find see every one")
    def _():
        assert subprocess.run(["ls", "-l", str(mount / "INBOX")], capture_output=True, check=True).stdout.count(b"\n") == count + 1
        found = subprocess.run(["find", str(mount / "INBOX"), "-name", "*.eml", "-size", "-9"], capture_output=True, check=True).stdout
        assert found.count(b"\n") == count

    @suite.case("any of them can be read")
    def _():
        names = mount.names()
        for name in suite.random.sample(names, 20):
            uid = int(os.getxattr(mount / "INBOX" / name, "user.mail.uid"))
            assert b"\r\nNumber %d.\r\n" % (uid - 1) in read(mount / "INBOX" / name)

    @suite.case("memory stays below 48 MB, and 16 MB above that with 100 MB read", when=not suite.short)
    def _():
        before = system.memory_kb(mount.pid)
        suite.say(f"resident {before} kB, of it anonymous {system.anonymous_kb(mount.pid)} kB, peak {system.memory_kb(mount.pid, 'VmHWM')} kB")
        path, = mount.messages("Huge")
        assert len(read(path)) == len(huge)
        after = system.memory_kb(mount.pid)
        suite.say(f"after 100 MB: {after} kB, peak {system.memory_kb(mount.pid, 'VmHWM')} kB")
        assert before <= 48 * 1024, f"{before} kB"
        assert after <= (48 + 16) * 1024, f"{after} kB"

    @suite.case("new mail in it appears at once")
    def _():
        server.deliver(corpus.message(subject="arrival zzyzx"))
        wait_until(lambda: [n for n in os.listdir(mount / "INBOX") if "arrival-zzyzx" in n], "the new message is listed")

    @suite.case("a remount without a server lists it at once")
    def _():
        mount.umount()
        server.stop()
        begun = time.monotonic()
        again = home.mount()
        found = len(os.listdir(again / "INBOX"))
        assert found == count + 1, found
        suite.say(f"mounted and listed in {time.monotonic() - begun:.2f} s")
        again.umount()
