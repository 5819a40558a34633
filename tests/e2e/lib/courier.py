"""Courier's POP3 and IMAP servers, unpacked into a folder of the build (unpacked.py)."""
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
from pathlib import Path

from . import system
from .imap import Client
from .listener import Listener
from .suite import Skip
from .tls import Authority
from .unpacked import libraries, unpack

IMAP = "usr/bin/imapd"
GAMIN = "usr/libexec/gam_server"
PACKAGES = ("courier-imap", "courier-pop", "courier-authlib", "libcourier-unicode4", "gamin", "libgamin0", "libidn12")
IMAP_SETTINGS = "etc/courier/imapd"
POP3_PACKAGES = ("courier-pop", "courier-base", "courier-authlib", "courier-authlib-userdb", "libcourier-unicode4", "gamin", "libgamin0",
                 "libidn12", "libgdbm6", "libltdl7")
POP3_PROGRAMS = ("usr/bin/couriertls", "usr/sbin/couriertcpd", "usr/lib/courier/courier/courierpop3login", "usr/lib/courier/courier/courierpop3d",
                 "usr/lib/courier/courier-authlib/authdaemond", "usr/lib/courier/courier-authlib/makedatprog",
                 "usr/lib/courier-authlib/libauthuserdb.so")


class Courier:
    """the POP3 server as Debian runs it, in a chroot (its paths are compiled in): couriertcpd, couriertls, courierpop3login that asks
    authdaemond, which looks into authuserdb, and courierpop3d as the user. For root."""
    user, password = "alice", "open-Sesame-11"

    def __init__(self, suite):
        if os.getuid() != 0:
            raise Skip("Courier's login needs root")
        self.suite, self.root, self.given = suite, suite.path("courier"), 0
        self.root.chmod(0o755)
        self.port, self.tls_port = system.free_ports(2)
        self.authority, self.identity = Authority(suite.path("tls")), system.Identity()
        self.maildir = self.root / "home/alice/Maildir"
        self._fill_root()
        self._add_user()
        self.processes = []
        suite.callback(self.stop)
        self._start()

    def _fill_root(self):
        unpacked = unpack(*POP3_PACKAGES)
        for name in ("usr/bin", "usr/sbin", "usr/lib", "etc/courier"):
            shutil.copytree(unpacked / name, self.root / name, symlinks=True)
        for name in ("run/courier/authdaemon", "dev", "tmp", "lib64"):
            (self.root / name).mkdir(parents=True)
        (self.root / "dev/null").touch(0o666)
        found = subprocess.run(["ldd", *(self.root / name for name in POP3_PROGRAMS)], check=True, capture_output=True, text=True,
                               env={**os.environ, "LD_LIBRARY_PATH": libraries(unpacked)}).stdout
        for path in set(re.findall(r"(?:=> |\t)(/\S+) \(", found)):     # what is the machine's own, and what the packages put beside /usr
            shutil.copy(path, self.root / ("lib64" if Path(path).name.startswith("ld-") else "usr/lib"))
        certificate = self.authority.issue()
        (self.root / "etc/courier/pop3d.pem").write_bytes(certificate.key.read_bytes() + certificate.certificate.read_bytes())
        (self.root / "etc/courier/authdaemonrc").write_text('authmodulelist="authuserdb"\nauthmodulelistorig="authuserdb"\ndaemons=2\n'
                                                            'authdaemonvar=/run/courier/authdaemon\nDEBUG_LOGIN=0\nDEFAULTOPTIONS=""\n')

    def _add_user(self):
        me = self.identity
        (self.root / "etc/passwd").write_text(f"root:x:0:0::/:\ncourier:x:{me.uid}:{me.gid}::/:\n")
        (self.root / "etc/group").write_text(f"courier:x:{me.gid}:\n")
        for name in ("cur", "new", "tmp"):
            (self.maildir / name).mkdir(parents=True)
        me.own(self.maildir.parent)
        secret = subprocess.run(["openssl", "passwd", "-6", self.password], check=True, capture_output=True, text=True).stdout.strip()
        self._make_table("userdb", f"uid={me.uid}|gid={me.gid}|home=/home/alice|_=")
        self._make_table("userdbshadow", f"systempw={secret}")

    def _make_table(self, name, value):
        """as makeuserdb does"""
        subprocess.run(["chroot", self.root, "/usr/lib/courier/courier-authlib/makedatprog", "-", "/tmp/dat", f"/etc/courier/{name}.dat"],
                       input=f"{self.user}\t{value}\n.\n", check=True, capture_output=True, text=True)

    def _run(self, *argv, **environment):
        with open(self.root / "log", "ab") as log:
            process = system.spawn(["chroot", self.root, *map(str, argv)], stdout=log, stderr=log, cwd=self.root, start_new_session=True,
                                   env={"PATH": "/usr/bin:/usr/sbin", **environment})
        self.processes.append(process)
        self.suite.kill_on_timeout.append(process)

    def _start(self):
        shown = subprocess.run(["sh", "-c", "set -a; . ./pop3d; . ./pop3d-ssl; exec env -0"], check=True, capture_output=True, text=True,
                               cwd=self.root / "etc/courier", env={"PATH": os.environ["PATH"]})
        settings = {**dict(entry.split("=", 1) for entry in shown.stdout.split("\0") if entry), "TLS_CACHEFILE": "", "TLS_TRUSTCERTS": ""}
        listen = ["/usr/sbin/couriertcpd", "-address=127.0.0.1", "-maxprocs=40", "-maxperip=40", "-nodnslookup", "-noidentlookup"]
        serve = ["/usr/lib/courier/courier/courierpop3login", "/usr/lib/courier/courier/courierpop3d", "Maildir"]
        self._run("/usr/lib/courier/courier-authlib/authdaemond")
        system.wait_until((self.root / "run/courier/authdaemon/socket").exists, "authdaemond listens")
        self._run(*listen, self.port, *serve, **{**settings, "POP3_STARTTLS": "YES", "POP3_TLS_REQUIRED": "1"})
        self._run(*listen, self.tls_port, "/usr/bin/couriertls", "-server", "-tcpd", "-user=courier", *serve,
                  **{**settings, "POP3_TLS": "1", "POP3_STARTTLS": "NO"})
        for port in (self.port, self.tls_port):
            system.wait_until(lambda: socket.create_connection(("127.0.0.1", port)).close() is None, "couriertcpd listens")

    def stop(self):
        for process in self.processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def settings(self, port=None, scheme="pop3"):
        """pop3: with STLS, pop3s: with TLS from the start"""
        port = port or (self.port if scheme == "pop3" else self.tls_port)
        return {"imap": None, "pop3": f"{scheme}://127.0.0.1:{port}", "tls-ca-file": str(self.authority.ca), "user": self.user,
                "password": self.password}

    def deliver(self, message):
        """As a delivery agent does: lines end as the file system's do"""
        self.given += 1
        name = f"{1_700_000_000 + self.given}.M{self.given}P1.courier"
        temporary = self.maildir / "tmp" / name
        temporary.write_bytes(message.replace(b"\r\n", b"\n"))
        self.identity.own(temporary)
        os.rename(temporary, self.maildir / "new" / name)

    def left(self):
        """file names of the messages that it still has"""
        return sorted(p.name for sub in ("cur", "new") for p in (self.maildir / sub).iterdir())


class CourierImap:
    """the IMAP server, with Debian's settings: all mailboxes are below INBOX, the delimiter is '.'. The login is ours (any password is
    right, no TLS); everything behind it is imapd, one process per session."""
    delimiter, top, ends_lines = ".", "INBOX/", True

    def __init__(self, suite):
        self.suite, self.root = suite, unpack(*PACKAGES)
        self.folder = suite.path("courier")
        for name in ("cur", "new", "tmp"):
            (self.folder / "Maildir" / name).mkdir(parents=True)
        self.environment = {"PATH": "/usr/bin:/bin", "LD_LIBRARY_PATH": libraries(self.root)}
        self.serving, self.lock = set(), threading.Lock()
        self._take_settings()
        self._watch_files()
        self.listener = Listener(self._serve, buffered=False)
        self.port = self.listener.port
        suite.callback(self.stop)

    def _take_settings(self):
        shown = subprocess.run(["sh", "-c", f"set -a; . {self.root / IMAP_SETTINGS}; exec env -0"], check=True, capture_output=True, text=True)
        settings = dict(entry.split("=", 1) for entry in shown.stdout.split("\0") if entry)
        self.environment.update({name: value for name, value in settings.items() if name.startswith("IMAP")})

    def _watch_files(self):
        """imapd waits for each other's locks by gamin: one of our own, as each imapd that finds none tries for a second"""
        me = self.suite.folder.name
        self.environment["GAM_CLIENT_ID"] = me
        self.gamin = system.spawn([self.root / GAMIN, "--notimeout", me], env=self.environment, stdout=subprocess.DEVNULL,
                                  stderr=subprocess.DEVNULL)
        self.suite.kill_on_timeout.append(self.gamin)
        system.wait_until(lambda: me in Path("/proc/net/unix").read_text(errors="replace"), "gamin listens")

    def _serve(self, handler):
        command = self.log_in(handler.rfile, handler.wfile)
        if command:
            self._hand_on(handler.connection, *command)

    def _hand_on(self, connection, argv, environment):
        with self.lock:
            process = system.spawn(argv, stdin=connection, stdout=connection, stderr=subprocess.DEVNULL, cwd=self.folder,
                                   env={**self.environment, **environment})
            self.serving.add(process)
        process.wait()
        with self.lock:
            self.serving.remove(process)

    def wait_idle(self):
        """what it got on connections that are gone, it has done"""
        system.wait_until(lambda: not self.serving, "its processes end")

    def stop(self):
        self.listener.stop()
        with self.lock:
            for process in self.serving:
                process.kill()
        self.gamin.kill()
        self.gamin.wait()

    def log_in(self, rfile, wfile):
        capability = b"CAPABILITY " + self.environment["IMAP_CAPABILITY"].encode()
        wfile.write(b"* OK [" + capability + b"] Courier-IMAP ready. Copyright 1998-2018 Double Precision, Inc.\r\n")
        while line := rfile.readline():
            tag, verb = (line.split() + [b"*", b""])[:2]
            if verb.upper() == b"LOGIN":
                who = {"AUTHENTICATED": "alice", "AUTHADDR": "alice", "TCPREMOTEIP": "127.0.0.1", "TCPREMOTEPORT": "1"}
                return [self.root / IMAP, "Maildir"], {"IMAPLOGINTAG": tag.decode(), "PROTOCOL": "IMAP", **who}
            if verb.upper() == b"CAPABILITY":
                wfile.write(b"* " + capability + b"\r\n")
            wfile.write(tag + (b" OK done\r\n" if verb.upper() in (b"CAPABILITY", b"NOOP") else b" BAD log in first\r\n"))
            if verb.upper() == b"LOGOUT":
                break
        return None

    def settings(self, port=None):
        return {"imap": f"imap://127.0.0.1:{port or self.port}", "tls": "none", "user": "alice", "password": "secret"}

    def client(self):
        return Client(self.port, "alice", "secret")
