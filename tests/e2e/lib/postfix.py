"""Another submission server, beside Exim: Postfix, unpacked into a folder of the build, for the two cannot be installed together.

STARTTLS on port, implicit TLS on tls_port; logins are asked of the Dovecot (its option extra must be EXTRA), which gets the mail
by LMTP. Recipients no@example.org are refused, later@example.org put off, müller@example.org is the Dovecot's user by a Maildir
delivery, as Dovecot's LMTP has no SMTPUTF8. message_size_limit is 2 MB."""
import os
import re
import signal
import socket
import subprocess
from pathlib import Path

from . import system
from .suite import Skip
from .unpacked import unavailable, unpack

EXTRA = """
auth_username_format = %Ln
service auth {
 unix_listener sasl {
  mode = 0666
 }
}
"""
OWNER, GROUP = "daemon", "mail"    # of the queue; users that every Debian has
PRIVATE = ("active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming", "private", "saved", "trace")
SERVICES = """
pickup    unix  n - n 60   1 pickup
cleanup   unix  n - n -    0 cleanup
qmgr      unix  n - n 300  1 qmgr
tlsmgr    unix  - - n 1000 1 tlsmgr
rewrite   unix  - - n -    - trivial-rewrite
bounce    unix  - - n -    0 bounce
defer     unix  - - n -    0 bounce
trace     unix  - - n -    0 bounce
flush     unix  n - n 1000 0 flush
proxymap  unix  - - n -    - proxymap
error     unix  - - n -    - error
retry     unix  - - n -    - error
virtual   unix  - n n -    - virtual
lmtp      unix  - - n -    - lmtp
anvil     unix  - - n -    1 anvil
scache    unix  - - n -    1 scache
postlog   unix-dgram n - n - 1 postlogd
"""


class Postfix:
    """By STARTTLS it offers no CHUNKING, so that both BDAT and DATA are seen."""

    def __init__(self, suite, dovecot):
        if os.getuid() != 0:
            raise Skip("Postfix changes its user and needs root")
        self.root = unpack("postfix")
        if not self._program("master").exists():
            unavailable("Postfix' server is not in its package")
        self.suite, self.dovecot = suite, dovecot
        self.folder = suite.path("postfix")
        self.folder.chmod(0o755)
        self.port, self.tls_port = system.free_ports(2)
        self.certificate = dovecot.authority.issue()
        self.process = None
        for name in ("etc", "queue", "queue/pid"):
            (self.folder / name).mkdir(mode=0o755)
        self._own("data", 0o700)
        for name in PRIVATE:
            self._own(f"queue/{name}", 0o700)
        self._own("queue/maildrop", 0o730, GROUP)
        self._own("queue/public", 0o710, GROUP)
        suite.callback(self.kill)
        self.start()

    def _program(self, name):
        return Path(self.root) / "usr/lib/postfix/sbin" / name

    def _own(self, name, mode, group="root"):
        (self.folder / name).mkdir()
        subprocess.run(["chown", f"{OWNER}:{group}", str(self.folder / name)], check=True)
        (self.folder / name).chmod(mode)

    def configuration(self):
        me = self.dovecot.identity
        libraries = Path(self.root) / "usr/lib/postfix"
        return f"""
compatibility_level = 3.6
queue_directory = {self.folder}/queue
data_directory = {self.folder}/data
daemon_directory = {libraries}/sbin
command_directory = {self.root}/usr/sbin
shlib_directory = {libraries}
meta_directory = {self.folder}/etc
import_environment = MAIL_CONFIG MAIL_LOGTAG POSTLOG_SERVICE POSTLOG_HOSTNAME LD_LIBRARY_PATH={libraries} LANG=C
maillog_file_prefixes = {self.folder}
maillog_file = {self.folder}/log
mail_owner = {OWNER}
setgid_group = {GROUP}
default_privs = {me.name}
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
smtp_dns_support_level = disabled
myhostname = mx.test
mydestination =
mynetworks = 127.0.0.1/32
local_recipient_maps =
alias_maps =
alias_database =
local_header_rewrite_clients =
default_transport = lmtp:inet:[127.0.0.1]:{self.dovecot.lmtp_port}
transport_maps = inline:{{ {{ müller@example.org = virtual: }} }}
virtual_mailbox_base = {self.dovecot.mail.parent}
virtual_mailbox_maps = inline:{{ {{ müller@example.org = {self.dovecot.user}/Maildir/ }} }}
virtual_uid_maps = static:{me.uid}
virtual_gid_maps = static:{me.gid}
message_size_limit = 2000000
in_flow_delay = 0
queue_run_delay = 2s
minimal_backoff_time = 2s
maximal_backoff_time = 5s
smtpd_peername_lookup = no
smtpd_error_sleep_time = 0
smtpd_relay_restrictions = permit_sasl_authenticated, reject
smtpd_recipient_restrictions = check_recipient_access inline:{{
  {{ no@example.org = REJECT no such user here }}
  {{ later@example.org = 450 4.7.1 greylisted, come back }} }}
smtpd_sasl_auth_enable = yes
smtpd_sasl_type = dovecot
smtpd_sasl_path = {self.dovecot.folder}/run/sasl
smtpd_tls_auth_only = yes
smtpd_tls_security_level = encrypt
smtpd_tls_cert_file = {self.folder}/etc/cert.pem
smtpd_tls_key_file = {self.folder}/etc/key.pem
smtpd_tls_loglevel = 1
"""

    def start(self):
        etc = self.folder / "etc"
        (etc / "main.cf").write_text(self.configuration())
        (etc / "master.cf").write_text(f"127.0.0.1:{self.port} inet n - n - - smtpd -o smtpd_discard_ehlo_keywords=chunking\n"
                                       f"127.0.0.1:{self.tls_port} inet n - n - - smtpd -o smtpd_tls_wrappermode=yes\n{SERVICES}")
        for name, source in (("cert.pem", self.certificate.certificate), ("key.pem", self.certificate.key)):
            (etc / name).write_bytes(Path(source).read_bytes())
        (etc / "key.pem").chmod(0o600)
        self.process = system.spawn([str(self._program("master")), "-s", "-c", str(etc)], stderr=subprocess.STDOUT,
                                    stdout=open(self.folder / "output", "ab"), start_new_session=True,
                                    env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LD_LIBRARY_PATH": f"{self.root}/usr/lib/postfix"})
        self.suite.kill_on_timeout.append(self.process)
        system.wait_until(self._answers, "Postfix answers", 60)

    def _answers(self):
        if self.process.poll() is not None:
            raise AssertionError(self.log())
        with socket.create_connection(("127.0.0.1", self.port), 5) as s:
            s.settimeout(5)
            return s.recv(10).startswith(b"220")

    def log(self):
        paths = [self.folder / "output", self.folder / "log"]
        return "\n".join(path.read_text(errors="replace") for path in paths if path.exists())

    def logins(self):
        """users, one for each message that was begun"""
        return re.findall(r"sasl_username=(\S+)", self.log())

    def connections(self):
        """how many messages came by each connection that has ended"""
        return [int(found.group(1)) for found in re.finditer(r"disconnect from .* mail=(\d+)", self.log())]

    def queued(self):
        """files of what it has taken and not delivered"""
        return [path for name in ("incoming", "active", "deferred") for path in (self.folder / "queue" / name).rglob("*") if path.is_file()]

    def kill(self):
        """with everything it has started: the session is its own"""
        if self.process:
            try:
                os.killpg(self.process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            self.process.wait()
        self.process = None
