#!/usr/bin/python3
import os
import resource
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib import Suite, corpus, errno_of, require_fuse, wait_until  # noqa: E402

with Suite("a process that may have few files open", timeout=400) as suite:
    require_fuse()
    server = suite.dovecot()
    server.fill("INBOX", corpus.small(2000))
    server.fill("Large", [(corpus.message(subject=f"large {i}", body=b"0123456789abcdef\r\n" * 4500), corpus.BASE + i, "") for i in range(300)])
    home = suite.home(server, poll="24h")
    mount = home.mount()

    def allow(count):
        resource.prlimit(mount.pid, resource.RLIMIT_NOFILE, (count, 256))

    @suite.case("grep -r goes through a mailbox that nobody has read")
    def _():
        allow(128)
        found = subprocess.run(["grep", "-rc", "^Subject:", "INBOX"], cwd=mount.where, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        assert found.returncode == 0 and not found.stderr, (found.returncode, found.stderr[-500:])
        assert len(found.stdout.split()) == 2000

    @suite.case("as many messages as can be are held open: one more is ENFILE, and all the rest goes on")
    def _():
        allow(256)
        files = [open(path, "rb", buffering=0) for path in mount.messages("Large")]
        try:
            errors = [errno_of(file.read, 10) for file in files]
            assert set(errors) == {"", "ENFILE"}, set(errors)
            (mount / "INBOX/new.eml").write_text("From: a@example.org\nSubject: new\n\nHello.\n")
            mount.messages("INBOX")[0].unlink()
            home.run("sync", "--wait", check=0)
            assert home.link() == "online"
            assert "as many messages open as the limit of open files (256) allows" in mount.log.read_text()
        finally:
            for file in files:
                file.close()
        with server.client() as other:
            wait_until(lambda: mount.digests("Large") == other.digests("Large"), "they can be read again")
            assert mount.digests() == other.digests()
