"""A Cyrus of our own, unpacked into a folder of the build (unpacked.py): one folder, a port of the loopback, TLS with its own CA.

Like Dovecot it runs as one unprivileged user (nobody where the tests are root), from a copy that this user may read."""
import os
import shutil
import signal
import subprocess

from . import system
from .imap import Client
from .tls import Authority
from .unpacked import libraries, unpack

PACKAGES = ("cyrus-imapd", "cyrus-common", "sasl2-bin", "libical3", "libpcre3", "libpq5", "libsasl2-modules", "libsasl2-modules-db", "libxapian30")
PASSWORD = "correct horse"
DOMAIN = "cyrus.test"


class Cyrus:
    """internal: mailboxes are below INBOX, with the delimiter '.', as Debian sets it up; else beside it, with '/'."""
    ends_lines = False

    def __init__(self, suite, internal=True):
        self.suite, self.internal, self.user, self.password = suite, internal, "alice", PASSWORD
        self.delimiter, self.top = (".", "INBOX/") if internal else ("/", "")
        self.identity = system.Identity()
        self.folder = suite.path("cyrus")
        self.folder.chmod(0o755)
        self.port, = system.free_ports(1)
        self.process = None
        self._copy_programs()
        self.authority = Authority(self.folder / "tls")
        self.certificate = self.authority.issue()
        for name in ("conf", "spool", "socket", "proc", "lock"):
            (self.folder / name).mkdir()
        (self.folder / "imapd.conf").write_text(self._imapd_conf())
        (self.folder / "cyrus.conf").write_text(self._cyrus_conf())
        self.identity.own(self.folder)
        self._run("usr/sbin/saslpasswd2", "-p", "-c", "-u", DOMAIN, "-f", self.folder / "sasldb2", self.user, input=self.password)
        suite.callback(self.stop)
        self.start()

    def _copy_programs(self):
        root = unpack(*PACKAGES)
        self.root = self.folder / "root"
        shutil.copytree(root / "usr/lib", self.root / "usr/lib", symlinks=True)
        shutil.copytree(root / "usr/sbin", self.root / "usr/sbin", symlinks=True)
        if (root / "lib").exists():
            shutil.copytree(root / "lib", self.root / "lib", symlinks=True)
        self.bin = self.root / "usr/lib/cyrus/bin"

    def _imapd_conf(self):
        yes = "no" if self.internal else "yes"
        return f"""
configdirectory: {self.folder}/conf
partition-default: {self.folder}/spool
proc_path: {self.folder}/proc
mboxname_lockpath: {self.folder}/lock
lmtpsocket: {self.folder}/socket/lmtp
idlesocket: {self.folder}/socket/idle
notifysocket: {self.folder}/socket/notify
cyrus_user: {self.identity.name}
cyrus_group: {self.identity.group}
servername: {DOMAIN}
hashimapspool: true
altnamespace: {yes}
unixhierarchysep: {yes}
autocreate_quota: 0
sasl_mech_list: PLAIN
sasl_pwcheck_method: auxprop
sasl_auxprop_plugin: sasldb
sasl_sasldb_path: {self.folder}/sasldb2
tls_server_cert: {self.certificate.certificate}
tls_server_key: {self.certificate.key}
"""

    def _cyrus_conf(self):
        with_conf = f"-C {self.folder}/imapd.conf"
        return f"""
START {{
 recover cmd="{self.bin}/ctl_cyrusdb {with_conf} -r"
 idled cmd="{self.bin}/idled {with_conf}"
}}
SERVICES {{
 imaps cmd="{self.bin}/imapd -s {with_conf}" listen="127.0.0.1:{self.port}" prefork=1 maxchild=100
}}
EVENTS {{
 checkpoint cmd="{self.bin}/ctl_cyrusdb {with_conf} -c" period=30
}}
"""

    def _arguments(self):
        plugins = next((self.root / "usr/lib").glob("*-linux-gnu/sasl2"))
        environment = {"PATH": "/usr/bin:/bin", "LD_LIBRARY_PATH": libraries(self.root), "SASL_PATH": str(plugins)}
        return {"env": environment, "cwd": self.folder, **self.identity.popen_arguments()}

    def _run(self, program, *arguments, **kwargs):
        subprocess.run([self.root / program, *arguments], check=True, text=True, capture_output=True, timeout=60, **kwargs, **self._arguments())

    # --- life

    def start(self, timeout=60):
        self.process = system.spawn([self.bin / "master", "-C", self.folder / "imapd.conf", "-M", self.folder / "cyrus.conf",
                                     "-p", self.folder / "pid"], stdout=open(self.folder / "output", "ab"), stderr=subprocess.STDOUT,
                                    start_new_session=True, **self._arguments())
        self.suite.kill_on_timeout.append(self.process)
        system.wait_until(self._answers, f"Cyrus answers: {(self.folder / 'output').read_text(errors='replace')}", timeout)

    def _answers(self):
        assert self.process.poll() is None, (self.folder / "output").read_text(errors="replace")
        with self.client():
            return True

    def stop(self):
        """with everything that it has started: the session is its own"""
        if not self.process:
            return
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()
        self.process = None

    def settings(self, port=None):
        return {"imap": f"imaps://127.0.0.1:{port or self.port}", "user": self.user, "password": self.password,
                "tls-ca-file": str(self.authority.ca)}

    def wait_idle(self):
        """what it got on connections that are gone, it has done; a file says of each process whom it serves"""
        system.wait_until(lambda: not list((self.folder / "proc").iterdir()), "nobody is connected")

    def client(self):
        return Client(self.port, self.user, self.password, self.authority.ca)
