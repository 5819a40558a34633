#!/usr/bin/python3
"""make bench [ROWS=ls-cold,cat-cold,resync,remount,warm-10k,warm-100k,grep,exists,memory,idle,mv,rm,flags,cp-in,cp-across,replay,pop3-list]

mailfs beside what can be had: a minimal client that throws away what it reads ("floor"), mbsync, the same files on ext4.
Everything runs against a Dovecot of its own behind a proxy that delays each byte by 25 ms each way. Prints a table of
ratios with the absolute values, and writes build/bench.json. Nothing is asserted: a busy machine is not an error."""
import base64
import json
import os
import re
import socket
import ssl
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "e2e"))
os.environ.setdefault("TMPDIR", "/var/tmp")     # a disk, where /tmp may be memory
from lib import ROOT, Suite, corpus, system, wait_until  # noqa: E402
from lib.proxy import TOOLS  # noqa: E402

DELAY_MS = 25
RTT = 2 * DELAY_MS / 1000
CPU = "0"
MANY, CROWD = (int(os.environ.get(name, default)) for name, default in (("BENCH_MANY", "10000"), ("BENCH_CROWD", "100000")))
ROWS = {}
COMMAND = re.compile(r"imap: \S+ > \S+ ((?:UID )?[A-Z]+)")
table = []


def row(function):
    ROWS[function.__name__.replace("_", "-")] = function
    return function


def report(what, value, unit, base=None, base_what="", reach="", reached=None):
    """One line of the table. value and base in the same unit; the ratio is shown where there is a base."""
    ratio = value / base if base else None
    table.append({"what": what, "value": value, "unit": unit, "base": base, "base_what": base_what, "ratio": ratio, "reach": reach, "reached": reached})
    shown = f"{value:10.3f} {unit:7}" + (f"{base:10.3f}  {ratio:6.2f} x {base_what}" if base else "")
    print(f"{what:58} {shown:52} {reach:24} {'' if reached is None else 'reached' if reached else 'NOT REACHED'}", flush=True)


def timed(argv, pinned=False, cwd=None, check=True):
    argv = ["taskset", "-c", CPU, *argv] if pinned else argv
    begun = time.monotonic()
    subprocess.run(argv, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL, check=check, cwd=cwd)
    return time.monotonic() - begun


def tool(name, *arguments, pinned=False):
    """One of ours, which prints JSON"""
    argv = (["taskset", "-c", CPU] if pinned else []) + [f"{TOOLS}/{name}", *map(str, arguments)]
    return json.loads(subprocess.run(argv, stdout=subprocess.PIPE, check=True, stdin=subprocess.DEVNULL).stdout)


def drop(what):
    try:
        Path("/proc/sys/vm/drop_caches").write_text(str(what))
        return True
    except OSError:
        return False


def seconds_of_cpu(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


class Busy:
    """How busy all processors are, with whatever runs, from here to stop()"""

    def __init__(self):
        self.begun = self.times()

    @staticmethod
    def times():
        fields = list(map(int, Path("/proc/stat").read_text().splitlines()[0].split()[1:9]))
        return sum(fields), sum(fields) - fields[3] - fields[4]

    def stop(self):
        whole, busy = (now - then for now, then in zip(self.times(), self.begun))
        self.share = busy / max(whole, 1)
        return self


class Setting:
    """Servers and mounts that several rows share, made when first asked for."""

    def __init__(self, suite):
        self.suite, self.made = suite, {}

    def get(self, name):
        if name not in self.made:
            self.made[name] = getattr(self, "make_" + name)()
        return self.made[name]

    def make_many(self):
        print(f"# {MANY} messages of realistic sizes into Dovecot (mdbox)", flush=True)
        server = self.suite.dovecot(variant="mdbox")
        server.fill("INBOX", ((data, when, "S") for data, when, _ in corpus.realistic(MANY)))
        server.proxy = self.suite.proxy(server.port, delay_ms=DELAY_MS)
        floor(server, server.port, "meta")      # Dovecot's own caches are warm for everyone
        floor(server, server.port, "bodies")
        return server

    def make_maildir(self):
        """The same messages as mbsync leaves them: a Maildir on ext4"""
        server, folder = self.get("many"), self.suite.path("mbsync")
        self.seconds_mbsync = mbsync(server, server.proxy.port, folder)
        return folder / "INBOX/cur"

    def make_full(self):
        """a mount with every body cached"""
        server = self.get("many")
        home = self.suite.home(server, sync="full", cache_size="20G", cache_min_free="0")
        mount = home.mount()
        home.run("sync", "--populate", timeout=600, check=0)
        return mount

    def make_crowd(self):
        print(f"# {CROWD} small messages into Dovecot (Maildir)", flush=True)
        server = self.suite.dovecot()
        server.fill("INBOX", corpus.small(CROWD))
        server.fill("Huge", [(corpus.every_byte(huge=100_000_000)[-1][1], corpus.BASE, "")])
        floor(server, server.port, "meta")
        return server

    def make_crowd_mount(self):
        home = self.suite.home(self.get("crowd"), io_timeout="300s", connect_timeout="60s")
        mount = home.mount()
        assert len(os.listdir(mount / "INBOX")) == CROWD
        return mount

    def make_crowd_ext4(self):
        """files of the same names and sizes"""
        folder, mount = self.suite.path("ext4"), self.get("crowd_mount")
        for entry in os.scandir(mount / "INBOX"):
            with open(folder / entry.name, "wb") as out:
                out.write(b"x" * entry.stat().st_size)
        os.sync()
        return folder

    def make_many_ext4(self):
        folder, mount = self.suite.path("ext4"), self.get("full")
        subprocess.run(["cp", "-r", str(mount / "INBOX") + "/.", str(folder)], check=True)
        os.sync()
        return folder


def floor(server, port, what):
    return tool("floor", port, server.authority.ca, server.user, server.password, "INBOX", what)


def mbsync(server, port, folder):
    (folder / "INBOX").mkdir(parents=True, exist_ok=True)
    config = folder / "mbsyncrc"
    config.write_text(f"""IMAPAccount a
Host localhost
Port {port}
User {server.user}
Pass "{server.password}"
SSLType IMAPS
SystemCertificates no
CertificateFile {server.authority.ca}

IMAPStore far
Account a

MaildirStore near
Inbox {folder}/INBOX

Channel c
Far :far:
Near :near:
Sync Pull
Create Near
SyncState *
""")
    return timed(["mbsync", "-q", "-c", str(config), "c"])


# --- over the network ----------------------------------------------------------------------------------------------

@row
def ls_cold(s):
    server = s.get("many")
    floors = [floor(server, server.proxy.port, "meta") for _ in range(3)]
    whole, alone, up, down, cpu, shares = [], [], 0, 0, [], []
    for _ in range(3):
        home = s.suite.home(server, port=server.proxy.port)
        server.proxy.do("reset")
        busy, begun = Busy(), time.monotonic()
        mount = home.mount()
        ready = time.monotonic()
        timed(["ls", "-l", str(mount / "INBOX")])
        done = time.monotonic()
        shares.append(busy.stop().share)
        cpu.append(seconds_of_cpu(mount.pid))
        whole.append(done - begun)
        alone.append(done - ready)
        stats = server.proxy.stats()
        up, down = stats["up"], stats["down"]
        assert len(mount.names()) == MANY
        mount.umount()
    base = min(f["seconds"] for f in floors)
    report(f"first ls -l of {MANY}, cold, 50 ms: from mount to its end", min(whole), "s", base, "floor", "<= 1.3", min(whole) <= 1.3 * base)
    report("  of that, ls alone (from the mount's being ready)", min(alone), "s", min(f["fetch_seconds"] for f in floors), "floor's fetch")
    report("  CPU of the mount", min(cpu), "s")
    report("  of all processors, busy with server, line, ls and mount", 100 * max(shares), "%")
    report("  bytes received", down / 1e6, "MB", floors[0]["bytes"] / 1e6, "floor")
    report("  bytes sent", up / 1e3, "kB")


@row
def cat_cold(s):
    server = s.get("many")
    floors = [floor(server, server.proxy.port, "bodies") for _ in range(3)]
    took, cpu, shares = [], [], []
    for _ in range(2):
        home = s.suite.home(server, port=server.proxy.port, cache_size="20G", cache_min_free="0")
        mount = home.mount()
        mount.names()
        before, busy, begun = seconds_of_cpu(mount.pid), Busy(), time.monotonic()
        subprocess.run("cat ./*.eml | wc -c", shell=True, cwd=mount / "INBOX", stdout=subprocess.DEVNULL, check=True)
        took.append(time.monotonic() - begun)
        shares.append(busy.stop().share)
        cpu.append(seconds_of_cpu(mount.pid) - before)
        mount.umount()
    base = min(f["fetch_seconds"] for f in floors)
    report(f"cat of all {MANY}, cold, 50 ms", min(took), "s", base, "floor", "<= 1.15", min(took) <= 1.15 * base)
    report("  CPU of the mount", min(cpu), "s")
    report("  of all processors, busy with server, line, cat and mount", 100 * max(shares), "%")
    maildir = s.get("maildir")
    pull = s.seconds_mbsync + timed(["sh", "-c", "cat ./* | wc -c"], cwd=maildir)
    report("  beside mbsync's pull and cat", min(took), "s", pull, "mbsync", "< 1", min(took) < pull)


def least_resync(server, port):
    """Seconds of a client that does no more than has to be done: TLS, the greeting, and everything behind that at once"""
    begun = time.monotonic()
    with ssl.create_default_context(cafile=server.authority.ca).wrap_socket(socket.create_connection(("127.0.0.1", port)), server_hostname="127.0.0.1") as line:
        line.recv(65536)
        secret = base64.b64encode(f"\0{server.user}\0{server.password}".encode()).decode()
        line.sendall(f'a AUTHENTICATE PLAIN {secret}\r\nb ENABLE QRESYNC\r\nc LIST "" "*" RETURN (SUBSCRIBED SPECIAL-USE STATUS (MESSAGES UIDNEXT '
                     'UIDVALIDITY UNSEEN HIGHESTMODSEQ))\r\n'.encode())
        heard = b""
        while b"\r\nc OK" not in heard:
            part = line.recv(1 << 20)
            assert part, heard[-200:]
            heard += part
    return time.monotonic() - begun


@row
def resync(s):
    count = 200
    server = s.suite.dovecot()
    for i in range(count - 4):
        server.fill(f"lists/list-{i}", corpus.small(20, seed=i))
    server.fill("INBOX", corpus.small(20))
    proxy = s.suite.proxy(server.port, delay_ms=DELAY_MS)
    home = s.suite.home(server, port=proxy.port)
    home.run("sync", "--once", timeout=300, check=0)
    home.run("sync", "--once", timeout=300, check=0)
    took, stats = [], []
    for _ in range(5):
        proxy.do("reset")
        begun = time.monotonic()
        home.run("sync", "--once", check=0)
        took.append(time.monotonic() - begun)
        stats.append(proxy.stats())
    trips = stats[0]["turns"] + stats[0]["connections"]
    report(f"no-change resync of {count} mailboxes, cold connection: turns", trips, "turns", None, "", "<= 5 (LOGOUT aside)", trips <= 6)
    report("  time from the command's start to its end", min(took), "s", RTT, "round trips", "<= 5", min(took) <= 5 * RTT)
    report("  beside a client that throws away what it reads", min(took), "s", min(least_resync(server, proxy.port) for _ in range(5)), "floor")
    size = (stats[0]["up"] + stats[0]["down"]) / count
    report("  bytes for each mailbox", size, "bytes", None, "", "<= 1024", size <= 1024)


@row
def exists(s):
    server = s.suite.dovecot()
    server.fill("INBOX", corpus.small(500))
    proxy = s.suite.proxy(server.port, delay_ms=DELAY_MS)
    home = s.suite.home(server, port=proxy.port)
    mount = home.mount()
    home.wait_link("online")
    mount.names()
    took = []
    for i in range(12):
        settle(proxy)
        proxy.do("reset")
        server.deliver(corpus.message(subject=f"exists {i}", when=corpus.BASE + i))
        wait_until(lambda: any(f"exists-{i}" in name for name in os.listdir(mount / "INBOX")), "it is listed")
        took.append(time.monotonic() - proxy.stats()["heard"] / 1e9)
    took.sort()
    bound = 1.5 * RTT + .05
    report("from EXISTS on the wire to ls: median", statistics.median(took), "s", bound, "1.5 RTT + 50 ms", "<= 1", statistics.median(took) <= bound)
    report("  slowest of 12", took[-1], "s", bound, "1.5 RTT + 50 ms")
    mount.umount()


def pop3_floor(server, port, commands):
    """(seconds, bytes): one connection, all commands behind the greeting, what comes is thrown away.

    Three round trips: TLS, the greeting, everything. A client that knows neither the server nor the number of messages needs six:
    TLS, the greeting, CAPA, USER and PASS, UIDL and LIST, TOP. Behind PASS nothing may be sent to a server that is not known, since
    what reads on can be another program (Courier's), which never sees it. mailfs knows a Dovecot by its greeting, and needs four. The
    rest of its time is the work of both processors: starting and mounting, names and rows of all messages, what ls asks for."""
    context = ssl.create_default_context(cafile=str(server.authority.ca))
    begun, received = time.monotonic(), 0
    with socket.create_connection(("127.0.0.1", port)) as plain:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with context.wrap_socket(plain, server_hostname="127.0.0.1") as line:
            line.recv(4096)
            text = "".join(f"{c}\r\n" for c in (f"USER {server.user}", f"PASS {server.password}", *commands, "QUIT")).encode()
            writer = threading.Thread(target=line.sendall, args=(text,))
            writer.start()
            while data := line.recv(1 << 17):
                received += len(data)
            writer.join()
    return time.monotonic() - begun, received


@row
def pop3_list(s):
    server = s.suite.dovecot(variant="mdbox", pop3=True)
    server.fill("INBOX", ((data, when, "S") for data, when, _ in corpus.realistic(MANY)))
    pop3_floor(server, server.pop3s_port, ["UIDL", "LIST", *(f"TOP {n} 0" for n in range(1, MANY + 1))])     # its caches are warm
    proxy = s.suite.proxy(server.pop3s_port, delay_ms=DELAY_MS)
    everything = [pop3_floor(server, proxy.port, ["UIDL", "LIST", *(f"TOP {n} 0" for n in range(1, MANY + 1))]) for _ in range(3)]
    base = min(seconds for seconds, _ in everything)
    took = []
    for _ in range(3):
        home = s.suite.home(server, imap=None, pop3=f"pop3s://127.0.0.1:{proxy.port}", poll="24h")
        proxy.do("reset")
        begun = time.monotonic()
        mount = home.mount()
        timed(["ls", "-l", str(mount / "INBOX")])
        took.append(time.monotonic() - begun)
        stats = proxy.stats()
        assert len(mount.names()) == MANY
        mount.umount()
    report(f"POP3: first ls -l of {MANY}, cold, 50 ms: from mount to its end", min(took), "s", base, "floor", "<= 1.5", min(took) <= 1.5 * base)
    report("  bytes received", stats["down"] / 1e6, "MB", everything[0][1] / 1e6, "floor")
    checks = [pop3_floor(server, proxy.port, ["UIDL"]) for _ in range(3)]
    took = []
    for _ in range(3):
        proxy.do("reset")
        begun = time.monotonic()
        home.run("sync", "--once", check=0)
        took.append(time.monotonic() - begun)
        stats = proxy.stats()
    report("POP3: a check with nothing new, cold connection", min(took), "s", min(seconds for seconds, _ in checks), "UIDL alone")
    report("  bytes received", stats["down"] / 1e3, "kB", checks[0][1] / 1e3, "UIDL alone", "<= 1.1", stats["down"] <= 1.1e3 * checks[0][1] / 1e3)


def settle(proxy):
    """until the line is quiet for a quarter of a second"""
    while True:
        before = proxy.stats()["down"]
        time.sleep(.25)
        if proxy.stats()["down"] == before:
            return


@row
def idle(s):
    server = s.suite.dovecot(extra="imap_idle_notify_interval = 29 mins")    # what it says by itself is not ours
    server.fill("INBOX", corpus.small(100))
    proxy = s.suite.proxy(server.port)
    home = s.suite.home(server, port=proxy.port)
    mount = home.mount()
    mount.names()
    home.wait_link("online")
    settle(proxy)
    time.sleep(5)

    def switches():
        total = 0
        for task in Path(f"/proc/{mount.pid}/task").iterdir():
            total += sum(int(line.split()[1]) for line in (task / "status").read_text().split("\n") if "voluntary_ctxt" in line)
        return total
    proxy.do("reset")
    before, seconds = switches(), 30
    time.sleep(seconds)
    rate = (switches() - before) / seconds
    stats = proxy.stats()
    report("idle, connected: wake-ups per second", rate, "1/s", None, "", "< 1", rate < 1)
    report(f"  bytes in {seconds} s", stats["up"] + stats["down"], "bytes", None, "", "0", stats["up"] + stats["down"] == 0)
    mount.umount()


# --- local ---------------------------------------------------------------------------------------------------------

@row
def remount(s):
    mount = s.get("full")
    took = []
    mount.umount()
    for _ in range(5):
        begun = time.monotonic()
        again = mount.home.mount("offline")
        timed(["ls", "-l", str(again / "INBOX")])
        took.append(time.monotonic() - begun)
        again.umount()
    s.made["full"] = mount.home.mount("offline")
    report(f"remount offline to the end of the first ls -l, {MANY}", min(took), "s", None, "", "<= 0.3", min(took) <= .3)


def pin(mount):
    subprocess.run(["taskset", "-a", "-p", "-c", CPU, str(mount.pid)], check=True, stdout=subprocess.DEVNULL)


def warm(s, mount, folder, ext4, label):
    pin(mount)
    jobs = {
        "ls -l": lambda where: timed(["ls", "-l", str(where)], pinned=True),
        "find -name": lambda where: timed(["find", str(where), "-name", "*none*"], pinned=True),
        "stat of each": lambda where: tool("walk", "stat", where, pinned=True)["seconds"],
    }
    ours = mount / folder
    for name, job in jobs.items():
        job(ours), job(ext4)
        a, b = min(job(ours) for _ in range(5)), min(job(ext4) for _ in range(5))
        report(f"warm {name}, {label}", a, "s", b, "ext4", "<= 1.2", a <= 1.2 * b)
    for name, job in jobs.items():
        limit = 3 if name.startswith("stat") else 2
        a, b = [], []
        for _ in range(3):
            if not drop(2):
                print("# dentries cannot be dropped: not root")
                return
            a.append(job(ours))
            drop(2)
            b.append(job(ext4))
        report(f"dentries and inodes dropped: {name}, {label}", min(a), "s", min(b), "ext4", f"<= {limit}", min(a) <= limit * min(b))


@row
def warm_10k(s):
    warm(s, s.get("full"), "INBOX", s.get("many_ext4"), f"{MANY}")


@row
def warm_100k(s):
    warm(s, s.get("crowd_mount"), "INBOX", s.get("crowd_ext4"), f"{CROWD}")


@row
def grep(s):
    mount, maildir = s.get("full"), s.get("maildir")
    pin(mount)
    job = lambda where: timed(["grep", "-r", "never-anywhere-9x", str(where)], pinned=True, check=False)
    walk = lambda where: tool("walk", "read", where, pinned=True)["seconds"]
    for name, what in (("grep -r", job), ("read of each, nothing else", walk)):
        what(mount / "INBOX"), what(maildir)
        a, b = min(what(mount / "INBOX") for _ in range(3)), min(what(maildir) for _ in range(3))
        report(f"warm {name}, all bodies cached, {MANY}", a, "s", b, "Maildir on ext4", "<= 3" if name == "grep -r" else "", a <= 3 * b if name == "grep -r" else None)


@row
def memory(s):
    mount = s.get("crowd_mount")
    subprocess.run(["ls", "-l", str(mount / "INBOX")], stdout=subprocess.DEVNULL, check=True)
    before = system.memory_kb(mount.pid) / 1024
    report(f"resident memory, {CROWD} messages indexed and listed", before, "MiB", None, "", "<= 48", before <= 48)
    report("  of that anonymous", system.anonymous_kb(mount.pid) / 1024, "MiB")
    report("  peak since the start", system.memory_kb(mount.pid, "VmHWM") / 1024, "MiB")
    path, = mount.messages("Huge")
    timed(["cat", str(path)])
    after = system.memory_kb(mount.pid) / 1024
    report("  after a message of 100 MB was read", after, "MiB", None, "", "<= +16", after <= 64)


# --- writing -------------------------------------------------------------------------------------------------------

class Writing:
    """A mount at the end of the long line, that has listed what is in `mailboxes`. Measures what is done here, and then what
    `mailfs sync --wait` says that the server has."""

    def __init__(self, s, **mailboxes):
        self.server = s.suite.dovecot(variant="mdbox")
        for name in sorted(mailboxes, key="INBOX".__eq__):     # last: what is imported passes through it
            self.server.fill(name, mailboxes[name])
        self.server.doveadm("index", "-u", self.server.user, "*")
        self.proxy = s.suite.proxy(self.server.port, delay_ms=DELAY_MS)
        self.home = s.suite.home(self.server, port=self.proxy.port, poll="24h")
        self.names = list(mailboxes)
        self.shell, self.whole, self.cpu, self.commands, self.bytes = [], [], [], [], []

    def mount(self, *options, online=True):
        self.at = self.home.mount(*options, arguments=["--trace", "imap"])
        if online:
            self.home.wait_link("online")
            self.home.run("sync", "--wait", "work", timeout=300, check=0)
            for name in self.names:
                self.at.names(name)
            settle(self.proxy)
        return self.at

    def seconds_of_cpu(self):
        return seconds_of_cpu(self.at.pid)

    def traced(self):
        """the verbs of all commands in the log"""
        lines = self.at.log.read_text(errors="replace").split("\n")
        return [match.group(1) for line in lines if (match := COMMAND.search(line))]

    def measure(self, work, mounts=False):
        """mounts: it is work that begins with the mount"""
        before, commands = 0, 0
        if not mounts:
            settle(self.proxy)
            before, commands = self.seconds_of_cpu(), len(self.traced())
        self.proxy.do("reset")
        begun = time.monotonic()
        work()
        done = time.monotonic()
        self.home.run("sync", "--wait", "work", timeout=300, check=0)
        end = time.monotonic()
        self.shell.append(done - begun)
        self.whole.append(end - begun)
        self.cpu.append(self.seconds_of_cpu() - before)
        self.commands.append(self.traced()[commands:])
        stats = self.proxy.stats()
        self.bytes.append(stats["up"] + stats["down"])

    def report(self, what, here=None, server=None, commands=None):
        """here, server, commands: what is to be reached; None: no bound"""
        for label, took, bound in ((f"{what}: here", self.shell, here), ("  until the server has it", self.whole, server)):
            report(label, min(took), "s", None, "", f"<= {bound}" if bound else "", min(took) <= bound if bound else None)
        report("  CPU of the mount", min(self.cpu), "s")
        fewest = min(self.commands, key=len)
        report("  commands on the wire", len(fewest), "", None, "", f"<= {commands}" if commands else "", len(fewest) <= commands if commands else None)
        print("    " + ", ".join(f"{n} {verb}" for verb, n in Counter(fewest).items()), flush=True)

    def end(self):
        if self.at.process.poll() is None:
            self.at.umount()
        self.server.stop()


def renamed(source, target):
    """the loop of a shell without the shell: one rename(2) for each name"""
    for name in os.listdir(source):
        os.rename(f"{source}/{name}", f"{target}/{name}")


@row
def mv(s):
    w = Writing(s, INBOX=corpus.small(1000), Archive=corpus.small(10, seed=2))
    mount = w.mount()
    for source, target in (("INBOX", "Archive"), ("Archive", "INBOX")) * 2:
        w.measure(lambda: renamed(mount / source, mount / target))
    w.report("rename of 1000 messages into another mailbox, 50 ms", 1, 2, commands=10)
    w.end()


@row
def rm(s):
    boxes = ("First", "Second", "Third")
    w = Writing(s, **{name: corpus.small(MANY, seed=i) for i, name in enumerate(boxes)})
    mount = w.mount()
    for name in boxes:
        w.measure(lambda: subprocess.run(["rm", "-f", "--", *mount.names(name)], cwd=mount / name, check=True, stderr=subprocess.DEVNULL))
    w.report(f"rm of {MANY} (one command, to Trash), 50 ms", 3, 5)
    w.end()


@row
def flags(s):
    w = Writing(s, INBOX=corpus.small(1000))
    mount = w.mount()
    for value in (rb"\Seen \Flagged", rb"\Seen") * 2:
        def work():
            for path in mount.messages():
                os.setxattr(path, "user.mail.flags", value)
        w.measure(work)
    w.report("flags of 1000 messages (setxattr(2) each), 50 ms", .5, 1)
    w.end()


@row
def cp_in(s):
    w = Writing(s, INBOX=corpus.small(10))
    mount, count = w.mount(), 200
    for repeated in range(4):
        folder = s.suite.path("letters")
        for i in range(count):
            (folder / f"letter-{i}.eml").write_bytes(corpus.message(f"letter {repeated} {i}", when=corpus.BASE + i, body=b"x" * 72 + b"\r\n" + (b"y" * 76 + b"\r\n") * 150))
        paths = list(map(str, folder.iterdir()))
        size = sum(map(os.path.getsize, paths))
        os.sync()
        w.measure(lambda: subprocess.run(["cp", "--", *paths, str(mount / "INBOX")], check=True))
        for path in paths:
            os.unlink(mount / "INBOX" / os.path.basename(path))
        w.home.run("sync", "--wait", "work", timeout=300, check=0)
    w.report(f"cp of {count} messages ({size / 1e6:.1f} MB, one command), 50 ms", .5, 1.5)
    w.end()


@row
def cp_across(s):
    w = Writing(s, INBOX=corpus.realistic(1000), **{f"Copy{i}": corpus.small(5, seed=i) for i in range(3)})
    mount = w.mount()
    for i in range(3):
        w.measure(lambda: subprocess.run(["cp", "--", *map(str, mount.messages()), str(mount / f"Copy{i}")], check=True))
        assert len(mount.names(f"Copy{i}")) == 1005
    w.report("cp of 1000 messages between mailboxes, 50 ms")
    size = sum(path.stat().st_size for path in mount.messages()) / 1e3
    report("  bytes on the wire, both ways", min(w.bytes) / 1e3, "kB", size, "the messages", "none of their data", min(w.bytes) / 1e3 < size / 50)
    w.end()


@row
def replay(s):
    w = Writing(s, INBOX=corpus.small(1200), Archive=corpus.small(10, seed=2))
    for repeated in range(3):
        w.mount()
        w.at.umount()
        mount = w.mount("offline", online=False)
        paths = mount.messages()
        for path in paths[:1000]:
            os.setxattr(path, "user.mail.flags", rb"\Seen \Answered" if repeated % 2 else rb"\Seen \Flagged")
        for i in range(200):
            (mount / "INBOX" / f"offline-{repeated}-{i}.eml").write_bytes(corpus.message(f"offline {repeated} {i}", when=corpus.BASE + i))
        for path in paths[1000:1100]:
            os.rename(path, mount / "Archive" / path.name)
        w.at.umount()
        w.measure(lambda: w.mount(online=False), mounts=True)      # here: until the mount is ready
        mount = w.at
        for path in mount.messages("Archive")[-100:]:
            os.rename(path, mount / "INBOX" / path.name)
        w.home.run("sync", "--wait", "work", timeout=300, check=0)
        w.at.umount()
    w.report("replay of 1000 flags, 200 appends, 100 moves, 50 ms", server=1.5)
    w.end()


# Nothing of it is left, however this ends: the mount goes with its namespace, and the image has no name any more.
ON_OWN_DISK = """
at=$(mktemp -d) && truncate -s 20G "$at/image" && mkfs.ext4 -q "$at/image" && mkdir "$at/disk" && mount -o loop "$at/image" "$at/disk" &&
    chmod 711 "$at" && chmod 1777 "$at/disk" && TMPDIR=$at/disk && export TMPDIR || echo "# on $TMPDIR: no file system of its own could be made" >&2
rm -f "$at/image"
trap 'cd /; umount "$at/disk"; rmdir "$at/disk" "$at"' EXIT
"$@"
"""


def own_disk():
    """Begins again on an ext4 of its own, with a journal as most have one, where a mount can be made for this process alone: one without
    looks at each inode that was removed in the last minutes, by whomever, for each file that is made."""
    if os.geteuid() == 0 and "BENCH_DISK" not in os.environ:
        os.environ["BENCH_DISK"] = "its own"
        os.execvp("unshare", ["unshare", "--mount", "sh", "-c", ON_OWN_DISK, "sh", sys.executable, *sys.argv])


def main():
    own_disk()
    wanted = [name for argument in sys.argv[1:] for name in argument.split(",")] or list(ROWS)
    unknown = set(wanted) - set(ROWS)
    if unknown:
        sys.exit(f"bench: no row {', '.join(sorted(unknown))}; there are {', '.join(ROWS)}")
    with Suite("bench", timeout=7200, plan=False) as suite:
        setting = Setting(suite)
        failed = False
        for name in wanted:
            try:
                ROWS[name](setting)
            except Exception as error:
                failed = True
                suite.failed += 1
                print(f"{name}: {type(error).__name__}: {str(error)[:600]}")
        out = ROOT / "build/bench.json"
        out.write_text(json.dumps({"delay_ms": DELAY_MS, "many": MANY, "crowd": CROWD, "cpus": os.cpu_count(), "rows": table}, indent=1) + "\n")
        print(f"\n{out}{'; some rows failed' if failed else ''}")


main()
