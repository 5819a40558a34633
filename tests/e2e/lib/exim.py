"""A submission server of our own: Exim with TLS, AUTH PLAIN and LOGIN, and delivery into a Dovecot by LMTP.

It wants the login of the Dovecot's user. Recipients no@... are refused, later@... put off; others are delivered to the user
that their local part names. message_size_limit is 2 MB."""
import os
import signal
import socket
import subprocess
from pathlib import Path

from . import system
from .suite import Skip

PROGRAM = "/usr/sbin/exim4"


class Exim:
    def __init__(self, suite, dovecot, options=""):
        if not Path(PROGRAM).exists():
            raise Skip("no exim4")
        if os.getuid() != 0:
            raise Skip("Exim changes its user and needs root")
        self.suite, self.dovecot, self.options = suite, dovecot, options
        self.authority, self.user, self.password = dovecot.authority, dovecot.user, dovecot.password
        self.folder = suite.path("exim")
        self.folder.chmod(0o755)
        self.port, self.tls_port = system.free_ports(2)
        self.certificate = self.authority.issue()
        self.process = None
        for name in ("spool", "log"):
            (self.folder / name).mkdir(mode=0o755)
            subprocess.run(["chown", "Debian-exim:Debian-exim", str(self.folder / name)], check=True)
        for name, source in (("cert.pem", self.certificate.certificate), ("key.pem", self.certificate.key)):
            (self.folder / name).write_bytes(Path(source).read_bytes())
            subprocess.run(["chown", "Debian-exim:Debian-exim", str(self.folder / name)], check=True)
        suite.callback(self.kill)
        self.start()

    def configuration(self):
        check = "{eq{%s}{" + self.user + "}}{eq{%s}{" + self.password + "}}"
        plain, login = check % ("$auth2", "$auth3"), check % ("$auth1", "$auth2")
        return f"""
primary_hostname = mx.test
daemon_smtp_ports = {self.port} : {self.tls_port}
tls_on_connect_ports = {self.tls_port}
local_interfaces = 127.0.0.1
spool_directory = {self.folder}/spool
log_file_path = {self.folder}/log/%slog
pid_file_path = {self.folder}/spool/exim.pid
log_selector = +smtp_protocol_error +smtp_syntax_error +received_recipients
tls_certificate = {self.folder}/cert.pem
tls_privatekey = {self.folder}/key.pem
tls_advertise_hosts = *
auth_advertise_hosts = ${{if eq{{$tls_in_cipher}}{{}}{{}}{{*}}}}
smtputf8_advertise_hosts = *
chunking_advertise_hosts = *
pipelining_advertise_hosts = *
dsn_advertise_hosts = *
message_size_limit = 2M
deliver_drop_privilege = true
smtp_accept_queue_per_connection = 0
host_lookup =
rfc1413_hosts =
acl_smtp_rcpt = rcpt
acl_smtp_data = data
{self.options}

begin acl
rcpt:
  deny    !authenticated = *
          message = 5.7.0 log in first
  deny    local_parts = no
          message = no such user here
  defer   local_parts = later
          message = greylisted, come back
  accept
data:
  accept

begin routers
everybody:
  driver = manualroute
  route_list = * 127.0.0.1 byname
  self = send
  transport = dovecot

begin transports
dovecot:
  driver = smtp
  protocol = lmtp
  port = {self.dovecot.lmtp_port}
  allow_localhost
  utf8_downconvert = 0

begin retry
* * F,1h,1m

begin authenticators
plain:
  driver = plaintext
  public_name = PLAIN
  server_condition = ${{if and{{{plain}}}}}
  server_set_id = $auth2
login:
  driver = plaintext
  public_name = LOGIN
  server_prompts = <| Username: | Password:
  server_condition = ${{if and{{{login}}}}}
  server_set_id = $auth1
"""

    def start(self):
        (self.folder / "exim.conf").write_text(self.configuration())
        self.process = system.spawn([PROGRAM, "-bdf", "-q1h", "-C", str(self.folder / "exim.conf")], stderr=subprocess.STDOUT,
                                    stdout=open(self.folder / "output", "ab"), start_new_session=True)
        self.suite.kill_on_timeout.append(self.process)
        system.wait_until(self._answers, "Exim answers", 60)  # a port that is in use still is tried again after 30

    def _answers(self):
        if self.process.poll() is not None:
            raise AssertionError(self.log())
        with socket.create_connection(("127.0.0.1", self.port), 5) as s:
            s.settimeout(5)
            return s.recv(10).startswith(b"220")

    def log(self):
        paths = [self.folder / "output", *sorted((self.folder / "log").glob("*"))]
        return "\n".join(path.read_text(errors="replace") for path in paths if path.exists())

    def received(self):
        """the log's lines of messages that were taken"""
        return [line for line in self.log().split("\n") if " <= " in line]

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(system.PATIENCE)
        self.process = None

    def kill(self):
        """with everything it has forked: the session is its own"""
        if self.process:
            try:
                os.killpg(self.process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            self.process.wait()
        self.process = None
