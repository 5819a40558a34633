"""One test file: TAP on standard output, a temporary folder, things to end, and a watchdog.

    with Suite("what this file shows", timeout=120) as suite:
        server = suite.dovecot()

        @suite.case("a message is read")
        def _():
            assert ...

A case runs where it stands. A failing case reports its traceback and the next one runs.
"""
import contextlib
import faulthandler
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import traceback
from pathlib import Path

from . import system

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = Path(os.environ.get("MAILFS", ROOT / "build/mailfs")).resolve()


class Skip(Exception):
    """Raised in a case that cannot be run here; the text says why."""


class Suite(contextlib.ExitStack):
    def __init__(self, title, timeout=120, plan=True):
        super().__init__()
        self.title, self.timeout = title, timeout
        self.count = self.failed = 0
        self.long = os.environ.get("MAILFS_TEST_LONG") == "1"     # no bounds on time
        self.short = os.environ.get("MAILFS_TEST_SHORT") == "1"   # under sanitizers
        self.only = os.environ.get("CASE", "")
        self.seed = int(os.environ.get("SEED") or random.SystemRandom().randrange(1 << 31))
        self.random = random.Random(self.seed)
        self.mounts = []
        self.kill_on_timeout = []
        self.over = threading.Event()
        self.plan = plan              # speak TAP

    def __enter__(self):
        super().__enter__()
        sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")
        sys.stderr.reconfigure(errors="backslashreplace")
        faulthandler.enable()
        signal.signal(signal.SIGINT, signal.default_int_handler)   # a shell's background jobs ignore it, and hand that on
        os.umask(0o022)
        if self.plan:
            print(f"# {self.title}; SEED={self.seed}")
        self.folder = Path(tempfile.mkdtemp(prefix="mailfs-e2e-"))
        self.folder.chmod(0o711)
        self.callback(shutil.rmtree, self.folder, ignore_errors=True)
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, kind, error, trace):
        if isinstance(error, Skip):
            print(f"1..0 # SKIP {error}")
            super().__exit__(None, None, None)
            os._exit(0) if threading.active_count() > 8 else sys.exit(0)
        if error is not None and not isinstance(error, SystemExit):
            self._report("the file runs to its end", error)
        try:
            super().__exit__(None, None, None)
        except BaseException as late:
            self._report("everything ends cleanly", late)
        self.over.set()
        stuck = [entry for entry in system.stuck_in_fuse() if entry[0] in self._own_processes()]
        if stuck:
            self._report("nobody is left waiting in the kernel", AssertionError(stuck))
        if self.plan:
            print(f"1..{self.count}")
        sys.stdout.flush()
        os._exit(1 if self.failed else 0)  # helper threads of servers are not waited for

    # --- cases

    def case(self, name, when=True):
        """A decorator that runs the function at once. when: False leaves it out (a slow one in a short run)."""
        def run(function):
            if not when or self.only not in name:
                return None
            before = len(self.mounts)
            try:
                function()
            except Skip as skip:
                self.count += 1
                print(f"ok {self.count} - {name} # SKIP {skip}")
            except Exception as error:
                self._report(name, error)
                for mount in self.mounts[before:]:
                    mount.kill_hard()
            else:
                self.count += 1
                print(f"ok {self.count} - {name}")
            return None
        return run

    def _report(self, name, error):
        self.count += 1
        self.failed += 1
        print(f"not ok {self.count} - {name}")
        text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        lines = [f"{sys.argv[0]}: not ok {self.count} - {name} (SEED={self.seed})"] + ["  " + line[:400] for line in text.rstrip().split("\n")[-40:]]
        for mount in self.mounts[-1:]:
            lines += ["  mailfs' log: " + line[:300] for line in mount.log_tail(12)]
            if mount.process and mount.process.poll() is not None:
                lines.append(f"  mailfs has ended with {mount.process.returncode}")
        sys.stdout.flush()
        said = "".join(f"# {line}\n" for line in lines)
        sys.stderr.write(said)   # prove shows this at once
        sys.stderr.flush()
        if os.environ.get("MAILFS_TEST_FAILED"):   # and make check at the end
            with open(os.environ["MAILFS_TEST_FAILED"], "a", errors="backslashreplace") as file:
                file.write(said)

    def say(self, text):
        print("# " + text)

    # --- the watchdog

    def _own_processes(self):
        return {os.getpid()} | {mount.pid for mount in self.mounts if mount.pid}

    def _watch(self):
        if self.over.wait(self.timeout * system.SLOW):
            return
        print(f"Bail out! {self.title}: not done after {self.timeout * system.SLOW:g} s")
        faulthandler.dump_traceback(file=sys.stdout)
        for entry in system.stuck_in_fuse():
            print(f"# stuck: {entry}")
        for mount in self.mounts:
            mount.kill_hard()
        for process in self.kill_on_timeout:
            with contextlib.suppress(OSError):
                process.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
        sys.stdout.flush()
        os._exit(2)

    # --- what tests are made of; all of it ends with the suite

    def path(self, prefix):
        return Path(tempfile.mkdtemp(prefix=prefix + "-", dir=self.folder))

    def dovecot(self, **options):
        from .dovecot import Dovecot
        server = Dovecot(self, **options)
        server.start()
        return server

    def scripted(self, **options):
        from .scripted import ScriptedServer
        server = ScriptedServer(**options)
        self.callback(server.stop)
        return server

    def proxy(self, port, **options):
        from .proxy import Proxy
        proxy = Proxy(self, port, **options)
        self.callback(proxy.stop)
        return proxy

    def home(self, server=None, port=None, **settings):
        from .mailfs import Home
        return Home(self, server, port, **settings)
