#!/usr/bin/python3
import os
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib import MountFailed, Suite, corpus, require_fuse  # noqa: E402
from lib import system  # noqa: E402
from lib.scripted import Script  # noqa: E402

LIMIT_KB = 200 * 1024           # of resident memory, whatever a server says
DEADLINE = 180                  # of everything a case does: mounting, reading all, unmounting

# reads whatever is there, in a process of its own, so that a hang is seen and can be ended
WALK = """
import os, sys
for folder, folders, files in os.walk(sys.argv[1]):
    folders[:] = folders[:50]
    for name in files[:50]:
        path = os.path.join(folder, name)
        try:
            size = os.stat(path).st_size
            with open(path, 'rb') as f:
                f.read(10_000_000)
        except OSError as error:
            print(name, error)
for name in ('status', 'status.json', 'log'):
    open(sys.argv[1] + '/.mailfs/' + name, 'rb').read()
"""

with Suite("hostile servers", timeout=900) as suite:
    require_fuse()
    files = sorted(Path(__file__).parent.joinpath("hostile").glob("*.txt"))

    def examine(text, script):
        server = suite.scripted(mailboxes={"INBOX": [corpus.message(subject=f"m{i}", when=corpus.BASE + i) for i in range(3)]}, script=text)
        patience = "5s" if script.expect == "online" else "2s"      # a busy machine is not to be refused for being slow
        home = suite.home(**server.settings(), connect_timeout=patience, io_timeout=patience, poll="1s")
        started = time.monotonic()
        try:
            mount = home.mount()
        except MountFailed as failed:
            assert 0 < failed.code < 64, f"ended with {failed.code}: {failed.text[-1500:]}"
            assert "Sanitizer" not in failed.text, failed.text[-3000:]
            said = failed.text.strip().split("\n")[-1]
            assert said and said.isprintable(), repr(said)
            assert script.expect in ("refused", "any"), f"refused: {said}"
            assert time.monotonic() - started < DEADLINE * system.SLOW
            server.stop()
            return
        assert script.expect in ("online", "any"), "mounted"
        walker = system.spawn([sys.executable, "-c", WALK, str(mount.where)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            said = walker.communicate(timeout=DEADLINE * system.SLOW)[0].decode(errors="replace")
        except subprocess.TimeoutExpired:
            walker.kill()
            raise AssertionError("a reader hangs")
        assert walker.returncode == 0, said[-1000:]
        assert mount.process.poll() is None, f"mailfs ended with {mount.process.poll()}: {mount.log_tail()}"
        if not suite.short:
            peak = system.memory_kb(mount.pid, "VmHWM")
            assert peak < LIMIT_KB, f"{peak} kB at the peak"
        status = home.run("status", timeout=10)
        assert status.returncode == 0 and "\x1b" not in status.stdout + status.stderr
        log = mount.log.read_text(errors="replace")
        assert "\x1b" not in log, "an escape sequence in the log"
        mount.umount()
        server.stop()
        assert not [p for p in suite.folder.rglob("*") if p.name in ("passwd", "absolute")]

    for file in files:
        text = file.read_text()
        script = Script(text)

        @suite.case(f"{script.title} ({file.name})")
        def _():
            examine(text, script)
