"""Courier's POP3 server, unpacked into a folder of the build: its package cannot be installed beside Dovecot's.

The login is ours (any password is right, no TLS); everything behind it is courierpop3d, one process per session."""
import os
import socketserver
import subprocess
import threading

from .unpacked import unavailable, unpack

PACKAGES = ("courier-pop", "courier-authlib", "libcourier-unicode4", "libidn12")
SERVER = "usr/lib/courier/courier/courierpop3d"


class Courier:
    def __init__(self, suite):
        root = unpack(*PACKAGES)
        if not (root / SERVER).exists():
            unavailable("Courier's server is not in its package")
        self.folder = suite.path("courier")
        self.given = 0
        for name in ("cur", "new", "tmp"):
            (self.folder / "Maildir" / name).mkdir(parents=True)
        libraries = [root / "usr/lib", *(root / "usr/lib").glob("*-linux-gnu")]
        environment = {"PATH": "/usr/bin:/bin", "LD_LIBRARY_PATH": ":".join(map(str, libraries))}
        outer = self

        class Handler(socketserver.StreamRequestHandler):
            rbufsize = 0             # not a byte of what is for the server is read here

            def handle(self):
                try:
                    if self.log_in():
                        subprocess.run([root / SERVER, "Maildir"], stdin=self.connection, stdout=self.connection, stderr=subprocess.DEVNULL,
                                       cwd=outer.folder, env=environment, check=False)
                except OSError:
                    pass

            def log_in(self):
                self.wfile.write(b"+OK Hello there.\r\n")
                while line := self.rfile.readline():
                    verb = line.split()[0].upper() if line.split() else b""
                    if verb == b"PASS":
                        return True      # whose server says that it is right
                    answers = {b"CAPA": b"+OK\r\nTOP\r\nUSER\r\nPIPELINING\r\nUIDL\r\n.\r\n", b"USER": b"+OK Password required.\r\n"}
                    self.wfile.write(answers.get(verb, b"-ERR Invalid command.\r\n"))
                return False

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = True

            def handle_error(self, request, client_address):
                pass

        self.server = Server(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        suite.callback(self.stop)

    def stop(self):
        self.server.shutdown()
        self.server.server_close()

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
