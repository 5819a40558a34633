"""The program under test: a home with its own XDG folders, commands, and mounts."""
import errno
import hashlib
import json
import os
import socket
import subprocess
import time

from . import system
from .suite import PROGRAM, Skip


class Home:
    """A user of mailfs: configuration with one account "work", state, cache, runtime folder."""

    def __init__(self, suite, server=None, port=None, account="work", **settings):
        self.suite, self.server, self.account = suite, server, account
        self.folder = suite.path("home")
        self.state = self.folder / "state/mailfs" / account
        self.cache = self.folder / "cache/mailfs" / account
        self.config = self.folder / "config/mailfs/config"
        for name in ("config/mailfs", "run"):
            (self.folder / name).mkdir(parents=True, mode=0o700)
        (self.folder / "run").chmod(0o700)
        self.mailboxes = {}
        self.settings = {}
        if server is not None:
            self.settings = {"imap": f"imaps://127.0.0.1:{port or server.port}", "user": server.user,
                             "password": server.password, "tls-ca-file": str(server.authority.ca)}
        self.set(**settings)

    def set(self, **settings):
        """Settings of the account; '-' is written '_', None takes one away."""
        for key, value in settings.items():
            self.settings[key.replace("_", "-")] = value
        self.write()

    def write(self):
        lines = [f"[account {self.account}]"] + [f"{k} = {v}" for k, v in self.settings.items() if v is not None]
        for name, values in self.mailboxes.items():
            lines += [f"[mailbox {self.account}/{name}]"] + [f"{k} = {v}" for k, v in values.items()]
        self.config.write_text("\n".join(lines) + "\n")
        self.config.chmod(0o600)

    def environment(self, **more):
        kept = {k: v for k, v in os.environ.items() if k in ("PATH", "LANG", "TZ", "MAILFS_TRACE") or k.endswith("SAN_OPTIONS")}
        kept.update(HOME=str(self.folder), XDG_CONFIG_HOME=str(self.folder / "config"), XDG_STATE_HOME=str(self.folder / "state"),
                    XDG_CACHE_HOME=str(self.folder / "cache"), XDG_RUNTIME_DIR=str(self.folder / "run"), LC_ALL="C.UTF-8")
        kept.update(more)
        return kept

    def run(self, *arguments, timeout=60, check=None, **kwargs):
        """One command to its end. check: the exit code it must have."""
        kwargs.setdefault("stdin", subprocess.DEVNULL)
        process = subprocess.run([str(PROGRAM), *map(str, arguments)], env=self.environment(), capture_output=True,
                                 text=True, errors="replace", timeout=max(timeout, 2 * system.PATIENCE) * system.SLOW, **kwargs)
        if check is not None:
            assert process.returncode == check, (arguments, process.returncode, process.stdout[-2000:], process.stderr[-2000:])
        return process

    def status(self):
        """the account's object of status --json"""
        answer = json.loads(self.run("status", "--json", check=0).stdout)
        for account in answer["accounts"]:
            if account["account"] == self.account:
                return account
        raise AssertionError(answer)

    def link(self):
        """online, connecting, offline or waiting"""
        return self.status()["link"]["state"]

    def wait_link(self, state, timeout=system.PATIENCE):
        system.wait_until(lambda: self.link() == state, f"the account is {state}", timeout)

    def mount(self, *options, **kwargs):
        mount = Mount(self, *options, **kwargs)
        self.suite.callback(mount.end)
        self.suite.mounts.append(mount)
        mount.start()
        return mount

    def bodies(self):
        """body files in the cache, sorted"""
        return sorted(path for path in self.cache.rglob("*") if path.is_file() and "bodies" in path.parts)


class Mount:
    """`mailfs mount -f`, ended with the test. source None: every account a directory of the root."""

    def __init__(self, home, *options, source="work", arguments=(), wait=True):
        self.home, self.options, self.source, self.arguments, self.wait = home, options, source, arguments, wait
        self.where = home.suite.path("mnt")
        self.log = home.suite.folder / (self.where.name + ".log")
        self.process = self.device = self.pid = None
        self.environment = {}           # of the process, beside the home's

    def start(self, timeout=system.PATIENCE):
        notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        notify.bind(f"\0{self.where.name}{os.getpid()}")
        argv = [str(PROGRAM), "mount", "-f", *self.arguments]
        if self.options:
            argv += ["-o", ",".join(self.options)]
        argv += [self.source] if self.source else []
        with open(self.log, "ab") as log:
            self.process = system.spawn(argv + [str(self.where)], stdout=log, stderr=log, start_new_session=True,
                                        env=self.home.environment(NOTIFY_SOCKET=f"@{self.where.name}{os.getpid()}", **self.environment))
        self.pid = self.process.pid
        notify.settimeout(0.05)
        deadline = time.monotonic() + timeout * system.SLOW
        ready = not self.wait
        while not ready:
            try:
                ready = b"READY=1" in notify.recv(4096)
            except TimeoutError:
                if self.process.poll() is not None:
                    raise MountFailed(self.process.returncode, self.log.read_text(errors="replace"))
                assert time.monotonic() < deadline, f"no mount within {timeout} s: {self.log_tail(20)}"
        notify.close()
        if self.wait:
            self.device = system.fuse_device(self.where)
            assert self.device, "READY=1, and nothing is mounted"
        return self

    def __truediv__(self, name):
        return self.where / name

    def names(self, mailbox="INBOX"):
        return sorted(name for name in os.listdir(self.where / mailbox) if name.endswith(".eml"))

    def messages(self, mailbox="INBOX"):
        return [self.where / mailbox / name for name in self.names(mailbox)]

    def log_tail(self, lines=30):
        """the end of the log, or a sanitizer's report from its beginning"""
        try:
            text = self.log.read_text(errors="replace").rstrip().split("\n")
        except FileNotFoundError:
            return []
        for at, line in enumerate(text):
            if "Sanitizer" in line or "runtime error" in line:
                return text[max(0, at - 3):at + 55]
        return text[-lines:]

    def umount(self, timeout=system.PATIENCE):
        """As a user does; the process must end by itself, with 0, and leave nothing."""
        umount = subprocess.run([str(PROGRAM), "umount", str(self.where)], capture_output=True, text=True,
                                env=self.home.environment(), timeout=timeout * system.SLOW, stdin=subprocess.DEVNULL)
        assert umount.returncode == 0, (umount.returncode, umount.stdout, umount.stderr, self.log_tail())
        self.wait_end(timeout)

    def wait_end(self, timeout=system.PATIENCE, code=0):
        timeout = max(timeout, system.PATIENCE)
        try:
            status = self.process.wait(timeout * system.SLOW)
        except subprocess.TimeoutExpired:
            where = {tid: _read(f"/proc/{tid}/wchan") for pid, tid in system.all_threads() if pid == self.pid}
            self.kill_hard()
            raise AssertionError(f"mailfs did not end within {timeout} s; threads wait in {where}; {self.log_tail()}")
        self.pid = self.device = None
        assert status == code, f"mailfs ended with {status}: {self.log_tail()}"
        assert not system.fuse_device(self.where), "ended, but still mounted"
        log = self.log.read_text(errors="replace")
        assert "Sanitizer" not in log and "runtime error:" not in log, log[-4000:]

    def kill(self):
        """kill -9, and what a person does about the dead mount"""
        self.process.kill()
        self.process.wait()
        self.pid = self.device = None
        lazy_umount(self.where)

    def kill_hard(self):
        if self.device and system.fuse_device(self.where) == self.device:   # else the number may be another mount's by now
            system.abort_fuse(self.device)
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.pid = self.device = None
        lazy_umount(self.where)

    def end(self):
        """At the end of the suite: still running means umount now, and cleanly."""
        if self.process is None:
            return
        if self.process.poll() is None:
            try:
                self.umount()
            except BaseException:
                self.kill_hard()
                raise
        elif system.fuse_device(self.where):
            lazy_umount(self.where)

    def digests(self, mailbox="INBOX"):
        """sorted SHA-256 of all messages, read whole"""
        return sorted(digest(path) for path in self.messages(mailbox))

    def by_uid(self, mailbox="INBOX"):
        """{uid: path}"""
        return {int(os.getxattr(path, "user.mail.uid")): path for path in self.messages(mailbox)}


def digest(path):
    """SHA-256 of a file, which must be exactly as long as stat said before"""
    size, read, sha = os.stat(path).st_size, 0, hashlib.sha256()
    with open(path, "rb", buffering=0) as f:
        while data := f.read(1 << 20):
            read += len(data)
            sha.update(data)
    assert read == size, f"{path}: st_size {size}, read {read}"
    return sha.hexdigest()


def errno_of(function, *arguments):
    """the name of the error a call ends with; "" if it succeeds"""
    try:
        function(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno]
    return ""


def read(path, size=-1, offset=0):
    with open(path, "rb", buffering=0) as f:
        f.seek(offset)
        return f.read(size)


class MountFailed(AssertionError):
    def __init__(self, code, text):
        super().__init__(f"mailfs mount ended with {code}: {text[-1500:]}")
        self.code, self.text = code, text


def _read(path):
    try:
        with open(path) as f:
            return f.read()
    except OSError:
        return "?"


def lazy_umount(where):
    command = ["umount", "-l"] if os.getuid() == 0 else ["fusermount3", "-u", "-z"]
    subprocess.run([*command, str(where)], stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)


def require_fuse():
    """Skips the file where mounting is impossible."""
    if not PROGRAM.exists():
        raise AssertionError(f"{PROGRAM} is missing: make")
    if not os.path.exists("/dev/fuse"):
        raise Skip("no /dev/fuse")
    if os.getuid() != 0 and not os.access("/dev/fuse", os.R_OK | os.W_OK):
        raise Skip("/dev/fuse is not for ordinary users here")
