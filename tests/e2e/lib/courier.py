"""Courier's POP3 server, unpacked into a folder of the build: its package cannot be installed beside Dovecot's.

The login is ours (any password is right, no TLS); everything behind it is courierpop3d, one process per session."""
import fcntl
import os
import socketserver
import subprocess
import threading

from .suite import ROOT, Skip

SERVER = "usr/lib/courier/courier/courierpop3d"


def unpack():
    """Where the packages are unpacked; downloads them at first use."""
    folder = ROOT / "build/unpacked"
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (folder / "done").exists():
            return folder / "root"
        lines = (ROOT / "tests/packages/unpacked").read_text().split("\n")
        names = [line for line in lines if line and not line.startswith("#")]
        try:
            subprocess.run(["apt-get", "-q", "download", *names], cwd=folder, check=True, capture_output=True, timeout=120)
            for package in folder.glob("*.deb"):
                subprocess.run(["dpkg", "-x", package, folder / "root"], check=True, capture_output=True, timeout=60)
        except (OSError, subprocess.SubprocessError) as error:
            raise Skip(f"Courier's packages cannot be had: {error}") from error
        (folder / "done").touch()
    return folder / "root"


class Courier:
    def __init__(self, suite):
        root = unpack()
        if not (root / SERVER).exists():
            raise Skip("Courier's server is not in its package")
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
