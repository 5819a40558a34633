"""A Dovecot of our own: one folder, free ports of the loopback, TLS with its own CA, any user name with one password.

It runs as one unprivileged user (nobody where the tests are root), so nothing of the system's configuration is needed."""
import os
import shutil
import smtplib
import socket
import subprocess
from pathlib import Path

from . import system
from .imap import Client
from .tls import Authority

PASSWORD = "correct horse"


class Dovecot:
    """variant: maildir, mdbox, maildir++ (delimiter '.', everything below INBOX.) or fs (maildir with '/' on disk).
    without: capabilities that are taken away. extra: lines for the configuration. pop3: speaks it too, on pop3_port and
    pop3s_port."""

    def __init__(self, suite, variant="maildir", without=(), extra="", user="alice", special_use=True, authority=None,
                 pop3=False):
        self.suite, self.variant, self.user, self.password = suite, variant, user, PASSWORD
        self.without, self.extra, self.special_use = list(without), extra, special_use
        self.identity = system.Identity()
        self.folder = suite.path("dovecot")
        self.folder.chmod(0o755)
        self.imaps_port, self.imap_port, self.lmtp_port, self.pop3_port, self.pop3s_port = system.free_ports(5)
        self.pop3 = pop3
        self.authority = authority or Authority(self.folder / "tls")
        self.certificate = self.authority.issue()
        self.process = None
        self.mail = self.folder / "mail" / user
        self.mail.mkdir(parents=True)
        self.identity.own(self.folder)
        self.use_certificate(self.certificate)
        suite.callback(self.kill)
        if without:
            self._take_capabilities_away()

    @property
    def port(self):
        return self.imaps_port

    @property
    def delimiter(self):
        return "." if self.variant == "maildir++" else "/"

    def _location(self):
        return {
            "maildir": "maildir:~/Maildir:LAYOUT=fs",
            "maildir++": "maildir:~/Maildir",
            "mdbox": "mdbox:~/mdbox",
        }[self.variant]

    def configuration(self):
        prefix = "INBOX." if self.variant == "maildir++" else ""
        special = "".join(f"mailbox {name} {{\n special_use = \\{name}\n auto = subscribe\n}}\n"
                          for name in ("Drafts", "Sent", "Trash")) if self.special_use else ""
        me = self.identity
        pop3 = "" if not self.pop3 else f"""
service pop3-login {{
 chroot =
 service_count = 0
 process_min_avail = 1
 client_limit = 500
 inet_listener pop3 {{
  port = {self.pop3_port}
 }}
 inet_listener pop3s {{
  port = {self.pop3s_port}
 }}
}}
protocol pop3 {{
 mail_max_userip_connections = 200
}}
"""
        return f"""
protocols = imap lmtp {"pop3" if self.pop3 else ""}
listen = 127.0.0.1
base_dir = {self.folder}/run
state_dir = {self.folder}/state
log_path = {self.folder}/log
default_internal_user = {me.name}
default_internal_group = {me.group}
default_login_user = {me.name}
first_valid_uid = 1
mail_fsync = never
mail_location = {self._location()}
mail_attachment_detection_options =
mailbox_list_index = yes
namespace inbox {{
 inbox = yes
 separator = {self.delimiter}
 prefix = {prefix}
 {special}
}}
ssl = yes
ssl_cert = <{self.certificate.certificate}
ssl_key = <{self.certificate.key}
disable_plaintext_auth = no
auth_mechanisms = plain login cram-md5 scram-sha-1 scram-sha-256
auth_failure_delay = 0
passdb {{
 driver = passwd-file
 args = scheme=PLAIN username_format=%u {self.folder}/passwd
}}
userdb {{
 driver = static
 args = uid={me.uid} gid={me.gid} home={self.folder}/mail/%u
}}
service imap-login {{
 chroot =
 service_count = 0
 process_min_avail = 1
 client_limit = 500
 inet_listener imap {{
  port = {self.imap_port}
 }}
 inet_listener imaps {{
  port = {self.imaps_port}
 }}
}}
service imap {{
 process_limit = 200
}}
service lmtp {{
 inet_listener lmtp {{
  port = {self.lmtp_port}
 }}
}}
service anvil {{
 chroot =
 unix_listener anvil-auth-penalty {{
  mode = 0
 }}
}}
service stats {{
 chroot =
}}
service auth {{
 unix_listener auth-userdb {{
  mode = 0600
 }}
}}
mail_plugins = zlib
protocol imap {{
 mail_max_userip_connections = 200
 mail_plugins = zlib imap_zlib
}}
{pop3}
{self.extra}
"""

    # --- life

    def start(self, timeout=20):
        (self.folder / "passwd").write_text(f"{self.user}:{{PLAIN}}{self.password}\n")
        (self.folder / "dovecot.conf").write_text(self.configuration())
        self.identity.own(self.folder / "passwd")
        self.process = system.spawn(["/usr/sbin/dovecot", "-F", "-c", str(self.folder / "dovecot.conf")],
                                    stderr=subprocess.STDOUT, stdout=open(self.folder / "output", "ab"),
                                    start_new_session=True, **self.identity.popen_arguments())
        self.suite.kill_on_timeout.append(self.process)
        system.wait_until(self._answers, f"Dovecot answers\n{self.output()}", timeout)

    def _answers(self):
        if self.process.poll() is not None:
            raise AssertionError(self.output())
        with socket.create_connection(("127.0.0.1", self.imap_port), 5) as s:
            s.settimeout(5)
            return s.recv(10).startswith(b"* OK")

    def output(self):
        texts = [(self.folder / name).read_text(errors="replace") for name in ("output", "log") if (self.folder / name).exists()]
        return "\n".join(texts)[-3000:]

    def stop(self):
        if self.process and self.process.poll() is None:
            with self._children() as children:
                self.process.terminate()
                try:
                    self.process.wait(10)
                except subprocess.TimeoutExpired:
                    self.kill()
                children.kill()          # a login process may linger, and would accept connections meant for the next start
        self.process = None

    def kill(self):
        """kill -9 of the server and of everything that serves a connection"""
        if not self.process:
            return
        with self._children() as children:
            self.process.kill()
            self.process.wait()
            children.kill()
        self.process = None

    def _children(self):
        def numbers():
            return {pid for pid, parent in system.parents() if parent == self.process.pid}
        return system.Held(numbers if self.process.poll() is None else set)

    def restart(self):
        self.stop()
        self.start()

    def use_certificate(self, certificate):
        """another one, from the next start on"""
        self.certificate = certificate
        self.identity.own(certificate.certificate)
        self.identity.own(certificate.key)

    # --- content

    def client(self, user=None):
        """an independent client, logged in"""
        return Client(self.imaps_port, user or self.user, self.password, self.authority.ca)

    def capabilities(self):
        with self.client() as c:
            return c.capabilities()

    def _take_capabilities_away(self):
        without, self.without = self.without, []
        self.start()
        have = self.capabilities()
        self.stop()
        gone = {name for name in have for w in without if name == w or name.startswith(w + "=")}
        kept = [name for name in have if name not in gone]
        assert len(kept) < len(have), f"none of {without} in {have}"
        self.extra += f"\nprotocol imap {{\n imap_capability = {' '.join(kept)}\n}}\n"

    def doveadm(self, *arguments, check=True):
        return subprocess.run(["/usr/bin/doveadm", "-c", str(self.folder / "dovecot.conf"), *arguments], check=check,
                              capture_output=True, text=True, stdin=subprocess.DEVNULL, **self.identity.popen_arguments())

    def _folder_of(self, mailbox):
        assert self.variant in ("maildir", "maildir++")
        base = self.mail / "Maildir"
        if mailbox != "INBOX":
            base = base / mailbox if self.variant == "maildir" else base / ("." + mailbox.replace("/", "."))
        return base

    def maildir(self, mailbox="INBOX"):
        """the folder on disk (variant maildir only), made if it is not there"""
        base = self._folder_of(mailbox)
        for part in ("cur", "new", "tmp"):
            (base / part).mkdir(parents=True, exist_ok=True)
        return base

    def stored(self, mailbox, subject):
        """all messages with this subject, as they are on its disk, for whoever must not look by IMAP: [(name, bytes)]"""
        base, wanted = self._folder_of(mailbox), f"Subject: {subject}".encode()
        while True:
            try:
                found = {}
                for path in (path for part in ("new", "cur") for path in sorted((base / part).glob("*"))):
                    data = path.read_bytes()
                    if wanted in data.replace(b"\r", b"").split(b"\n"):
                        found[path.name.partition(":")[0]] = path.name, data      # the same again: it has been moved to cur meanwhile
                return list(found.values())
            except FileNotFoundError:
                pass        # it has got another name while we looked

    def fill(self, mailbox, messages):
        """messages: (bytes, seconds since 1970, Maildir flags like "S") each; fast, while nobody looks"""
        base = self.maildir(mailbox) if self.variant != "mdbox" else self.folder / "staging"
        if self.variant == "mdbox":
            for part in ("cur", "new", "tmp"):
                (base / part).mkdir(parents=True, exist_ok=True)
        count = 0
        for data, when, flags in messages:
            count += 1
            path = f"{base}/cur/{when}.{count:07d}.host,S={len(data)}:2,{flags}"
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(fd, "wb", buffering=0) as out:
                out.write(data)
            os.utime(path, (when, when))
        self.identity.own(self.mail)
        if self.variant == "mdbox":
            self.identity.own(base)
            name = mailbox if mailbox == "INBOX" else mailbox
            self.doveadm("mailbox", "create", "-u", self.user, name, check=False)
            self.doveadm("import", "-u", self.user, f"maildir:{base}", "", "ALL")
            # doveadm import keeps the names of mailboxes: what was INBOX in the staging Maildir arrives in INBOX
            if mailbox != "INBOX":
                with self.client() as c:
                    c.command("select", "INBOX")
                    c.command("uid", "MOVE", "1:*", c.quote(mailbox))
            shutil.rmtree(base)
        return count

    def deliver(self, message, user=None):
        """by LMTP, as an MTA would"""
        with smtplib.LMTP("127.0.0.1", self.lmtp_port) as lmtp:
            lmtp.sendmail("sender@example.net", [user or self.user], message)
