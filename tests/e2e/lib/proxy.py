"""The line between mailfs and a server: tests/tools/proxy.c, which says what it can do."""
import json
import os
import socket

from . import system
from .suite import ROOT

TOOLS = os.environ.get("MAILFS_TOOLS", str(ROOT / "build/plain/tools"))


class Proxy:
    def __init__(self, suite, target, delay_ms=0):
        self.port, = system.free_ports(1)
        self.control = suite.folder / f"proxy-{self.port}"
        self.process = system.spawn([f"{TOOLS}/proxy", "--listen", str(self.port), "--to", str(target),
                                     "--control", str(self.control), "--delay", str(delay_ms)])
        suite.kill_on_timeout.append(self.process)
        system.wait_until(self.stats, "the proxy answers")

    def do(self, command):
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(system.PATIENCE)
            s.connect(str(self.control))
            s.sendall(command.encode() + b"\n")
            answer = json.loads(s.makefile().readline())
            assert "error" not in answer, (command, answer)
            return answer

    def stats(self):
        return self.do("stats")

    def stop(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
