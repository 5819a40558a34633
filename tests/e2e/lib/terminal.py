"""Programs that want a terminal, and somebody who types."""
import os
import pty
import select
import time

from . import system


def in_terminal(argv, keys, environment, timeout=60):
    """Runs a program on a pty, types keys when it has shown something and shows nothing more; (what it showed, exit code)"""
    pid, fd = pty.fork()
    if pid == 0:
        os.execvpe(argv[0], argv, {**environment, "TERM": "xterm"})
    shown, deadline, typed = b"", time.monotonic() + timeout * system.SLOW, False
    while time.monotonic() < deadline:
        ready, _, _ = select.select([fd], [], [], .3)
        if ready:
            try:
                data = os.read(fd, 65536)
            except OSError:
                break
            if not data:
                break
            shown += data
        elif shown and not typed:
            os.write(fd, keys)
            typed = True
    else:
        os.kill(pid, 9)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.close(fd)
    return shown, code
