"""Courier's POP3 and IMAP servers, unpacked into a folder of the build (unpacked.py).

The login is ours (any password is right, no TLS); everything behind it is courierpop3d or imapd, one process per session."""
import os
import socketserver
import subprocess
import threading
from pathlib import Path

from . import system
from .imap import Client
from .unpacked import libraries, unpack

POP3 = "usr/lib/courier/courier/courierpop3d"
IMAP = "usr/bin/imapd"
GAMIN = "usr/libexec/gam_server"
PACKAGES = ("courier-imap", "courier-pop", "courier-authlib", "libcourier-unicode4", "gamin", "libgamin0", "libidn12")
IMAP_SETTINGS = "etc/courier/imapd"


class Front:
    """Takes connections, logs in, and hands the socket to the program that serves it."""

    def __init__(self, suite):
        self.suite, self.root = suite, unpack(*PACKAGES)
        self.folder = suite.path("courier")
        for name in ("cur", "new", "tmp"):
            (self.folder / "Maildir" / name).mkdir(parents=True)
        self.environment = {"PATH": "/usr/bin:/bin", "LD_LIBRARY_PATH": libraries(self.root)}
        self.serving, self.lock = set(), threading.Lock()
        outer = self

        class Handler(socketserver.StreamRequestHandler):
            rbufsize = 0             # not a byte of what is for the server is read here

            def handle(self):
                try:
                    command = outer.log_in(self.rfile, self.wfile)
                    if command:
                        outer.serve(self.connection, *command)
                except OSError:
                    pass

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = True

            def handle_error(self, request, client_address):
                pass

        self.server = Server(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        suite.callback(self.stop)

    def serve(self, connection, argv, environment):
        with self.lock:
            process = system.spawn(argv, stdin=connection, stdout=connection, stderr=subprocess.DEVNULL, cwd=self.folder,
                                   env={**self.environment, **environment})
            self.serving.add(process)
        process.wait()
        with self.lock:
            self.serving.remove(process)

    def stop(self):
        self.server.shutdown()
        self.server.server_close()
        with self.lock:
            for process in self.serving:
                process.kill()


class Courier(Front):
    """the POP3 server"""

    def __init__(self, suite):
        super().__init__(suite)
        self.given = 0

    def log_in(self, rfile, wfile):
        wfile.write(b"+OK Hello there.\r\n")
        while line := rfile.readline():
            verb = line.split()[0].upper() if line.split() else b""
            if verb == b"PASS":
                return [self.root / POP3, "Maildir"], {}      # whose server says that it is right
            answers = {b"CAPA": b"+OK\r\nTOP\r\nUSER\r\nPIPELINING\r\nUIDL\r\n.\r\n", b"USER": b"+OK Password required.\r\n"}
            wfile.write(answers.get(verb, b"-ERR Invalid command.\r\n"))
        return None

    def settings(self, port=None):
        return {"imap": None, "pop3": f"pop3://127.0.0.1:{port or self.port}", "tls": "none", "user": "alice", "password": "secret"}

    def deliver(self, message):
        """As a delivery agent does: lines end as the file system's do"""
        self.given += 1
        name = f"{1_700_000_000 + self.given}.M{self.given}P1.courier"
        temporary = self.folder / "Maildir/tmp" / name
        temporary.write_bytes(message.replace(b"\r\n", b"\n"))
        os.rename(temporary, self.folder / "Maildir/new" / name)

    def left(self):
        """file names of the messages that it still has"""
        return sorted(p.name for sub in ("cur", "new") for p in (self.folder / "Maildir" / sub).iterdir())


class CourierImap(Front):
    """the IMAP server, with Debian's settings: all mailboxes are below INBOX, the delimiter is '.'"""
    delimiter, top, ends_lines = ".", "INBOX/", True

    def __init__(self, suite):
        super().__init__(suite)
        shown = subprocess.run(["sh", "-c", f"set -a; . {self.root / IMAP_SETTINGS}; exec env -0"], check=True, capture_output=True, text=True)
        settings = dict(entry.split("=", 1) for entry in shown.stdout.split("\0") if entry)
        self.environment.update({name: value for name, value in settings.items() if name.startswith("IMAP")})
        self._watch_files()

    def _watch_files(self):
        """imapd waits for each other's locks by gamin: one of our own, as each imapd that finds none tries for a second"""
        me = self.suite.folder.name
        self.environment["GAM_CLIENT_ID"] = me
        self.gamin = system.spawn([self.root / GAMIN, "--notimeout", me], env=self.environment, stdout=subprocess.DEVNULL,
                                  stderr=subprocess.DEVNULL)
        self.suite.kill_on_timeout.append(self.gamin)
        system.wait_until(lambda: me in Path("/proc/net/unix").read_text(errors="replace"), "gamin listens")

    def stop(self):
        super().stop()
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
