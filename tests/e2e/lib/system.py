"""Processes, ports, FUSE connections: what the harness asks of the operating system."""
import contextlib
import ctypes
import fcntl
import os
import pwd
import select
import signal
import socket
import subprocess
import time

LIBC = ctypes.CDLL(None, use_errno=True)
PR_SET_PDEATHSIG = 1
CLONE_NEWNS = 0x00020000
PATIENCE = 60     # seconds that anything is waited for, at least: a machine may have other things to do
SLOW = float(os.environ.get("MAILFS_TEST_SLOW", "1"))  # sanitizers: every deadline times this


def die_with_parent():
    """For preexec_fn: SIGTERM when the test ends, however it ends."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def spawn(argv, **kwargs):
    kwargs.setdefault("stdin", subprocess.DEVNULL)
    return subprocess.Popen(argv, preexec_fn=die_with_parent, **kwargs)


def wait_until(condition, what, timeout=PATIENCE):
    """Returns the first true value of condition(); fails after timeout seconds. An exception counts as not yet."""
    timeout = max(timeout, PATIENCE)
    deadline = time.monotonic() + timeout * SLOW
    pause, last = 0.002, None
    while True:
        try:
            value = condition()
            if value:
                return value
        except Exception as error:  # shown when time is up
            last = error
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout * SLOW:g} s: {what}" + (f" ({last!r})" if last else ""))
        time.sleep(pause)
        pause = min(pause * 1.5, 0.05)


_held_ports = []


def free_ports(count):
    """Ports of the loopback nobody else uses, below the range for outgoing connections, held until this process ends
    (so that a server can be stopped and started on the same one)."""
    folder = f"/tmp/mailfs-ports-{os.getuid()}"
    os.makedirs(folder, mode=0o700, exist_ok=True)
    found = []
    start = 20000 + os.getpid() * 37 % 12000
    for port in list(range(start, 32000)) + list(range(20000, start)):
        lock = open(f"{folder}/{port}", "w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("127.0.0.1", port))
        except OSError:
            lock.close()
            continue
        _held_ports.append(lock)
        found.append(port)
        if len(found) == count:
            return found
    raise AssertionError("no free ports")


class Identity:
    """Who a server runs as: Dovecot refuses to serve mail of root."""

    def __init__(self):
        entry = pwd.getpwnam("nobody") if os.getuid() == 0 else pwd.getpwuid(os.getuid())
        self.uid, self.gid, self.name = entry.pw_uid, entry.pw_gid, entry.pw_name
        import grp
        self.group = grp.getgrgid(self.gid).gr_name

    def popen_arguments(self):
        return {"user": self.uid, "group": self.gid, "extra_groups": []} if os.getuid() == 0 else {}

    def own(self, path):
        """Gives a file or a whole tree to this identity."""
        if os.getuid() != 0:
            return
        os.chown(path, self.uid, self.gid)
        for folder, folders, files in os.walk(path):
            for name in folders + files:
                with contextlib.suppress(FileNotFoundError):     # a server that runs has files that come and go
                    os.lchown(os.path.join(folder, name), self.uid, self.gid)


# --- processes ---------------------------------------------------------------------------------------------------

def process_state(pid):
    """R S D Z T..., or None when it is gone."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return None


def parents():
    """(number, its parent's) of every process"""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError), open(f"/proc/{pid}/stat") as stat:
            yield int(pid), int(stat.read().rpartition(")")[2].split()[1])


class Held:
    """Processes by descriptors, until the end of a `with`: a number is soon another process's when many are started.
    find: says which numbers are meant; it is asked again when they are held, so that they are those of whom is meant."""

    def __init__(self, find):
        held = {}
        for pid in find():
            with contextlib.suppress(ProcessLookupError):
                held[pid] = os.pidfd_open(pid)
        for pid in held.keys() - find():
            os.close(held.pop(pid))
        self.descriptors = list(held.values())

    def __enter__(self):
        return self

    def __exit__(self, *ignored):
        for fd in self.descriptors:
            os.close(fd)

    def kill(self):
        """kill -9, and waits until they are gone"""
        for fd in self.descriptors:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(fd, signal.SIGKILL)
        wait_until(lambda: len(select.select(self.descriptors, [], [], 0)[0]) == len(self.descriptors), "the processes are gone")


def all_threads():
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            for tid in os.listdir(f"/proc/{pid}/task"):
                yield int(pid), int(tid)
        except (FileNotFoundError, ProcessLookupError):
            continue


def stuck_in_fuse():
    """Threads in uninterruptible sleep that wait for a FUSE answer: [(pid, name, where)]."""
    stuck = []
    for pid, tid in all_threads():
        if process_state(tid) != "D":
            continue
        try:
            with open(f"/proc/{tid}/wchan") as wchan, open(f"/proc/{tid}/comm") as comm:
                where, name = wchan.read(), comm.read().strip()
        except OSError:
            continue
        if "fuse" in where or "request_wait" in where:
            stuck.append((pid, name, where))
    return stuck


def memory_kb(pid, field="VmRSS"):
    with open(f"/proc/{pid}/status") as status:
        for line in status:
            if line.startswith(field + ":"):
                return int(line.split()[1])
    return 0


def anonymous_kb(pid):
    return memory_kb(pid, "RssAnon")


# --- mounts ------------------------------------------------------------------------------------------------------

def private_mounts():
    """From here on this process and its children have mounts of their own, which end with the last of them. As root, and
    before there are threads."""
    if LIBC.unshare(CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)


class SmallDisk:
    """A file system in memory that can be filled to its last page. For root, behind private_mounts()."""

    def __init__(self, where, megabytes):
        self.where, self.ballast = where, where / "ballast"
        where.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0700", "tmpfs", where], check=True)

    def fill(self):
        with open(self.ballast, "ab", buffering=0) as ballast:
            for size in (1 << 20, 1 << 12):
                with contextlib.suppress(OSError):
                    while ballast.write(bytes(size)) == size:
                        pass

    def make_room(self, size=None):
        """so many bytes, or all"""
        os.truncate(self.ballast, self.ballast.stat().st_size - size if size else 0)

    def end(self):
        subprocess.run(["umount", "-l", self.where], check=True)

def _unescape(text):
    return text.encode().decode("unicode_escape").encode("latin-1").decode(errors="surrogateescape")


def mountinfo():
    """[(device "0:57", mountpoint, file system type)] of this mount namespace."""
    with open("/proc/self/mountinfo") as lines:
        rows = [line.split() for line in lines]
    return [(row[2], _unescape(row[4]), row[row.index("-") + 1]) for row in rows]


def fuse_device(mountpoint):
    """The device number of the FUSE mount there, or None."""
    for device, where, kind in mountinfo():
        if where == str(mountpoint) and kind.startswith("fuse"):
            return device
    return None


def abort_fuse(device):
    """Ends every request of that connection: the last resort against a hang."""
    connections = "/sys/fs/fuse/connections"
    if os.getuid() == 0 and not os.listdir(connections):
        subprocess.run(["mount", "-t", "fusectl", "fusectl", connections], stderr=subprocess.DEVNULL)
    try:
        with open(f"{connections}/{device.split(':')[1]}/abort", "w") as abort:
            abort.write("1")
    except OSError:
        pass
