#!/usr/bin/python3
import hashlib
import os
import socket
import ssl
import sys
import threading
import time
import warnings

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib import MountFailed, Suite, corpus, require_fuse  # noqa: E402
from lib import system  # noqa: E402
from lib.tls import Authority  # noqa: E402

with Suite("certificates and STARTTLS", timeout=400) as suite:
    require_fuse()
    authority = Authority(suite.folder / "tls")
    stranger = Authority(suite.folder / "stranger")
    boxes = {"INBOX": [corpus.message(subject="private")]}

    def serve(certificate, **options):
        return suite.scripted(mailboxes={"INBOX": list(boxes["INBOX"])}, authority=authority, certificate=certificate, **options)

    def works(server, **settings):
        mount = suite.home(**{**server.settings(), **settings}).mount()
        assert len(mount.digests()) == 1
        mount.umount()

    def refused(server, *words, code=12, **settings):
        home = suite.home(**{**server.settings(), **settings})
        where = suite.path("mnt")
        answer = home.run("mount", "work", where)
        assert not system.fuse_device(where), "mounted"
        assert answer.returncode == code, (answer.returncode, answer.stderr)
        text = answer.stderr.strip()
        assert len(text.split("\n")) == 1 and any(word in text.lower() for word in words), text
        assert not server.commands("LOGIN|AUTHENTICATE"), "the password was sent"
        suite.say(text)

    @suite.case("a certificate of the CA that the account names")
    def _():
        works(serve(authority.issue()))

    @suite.case("by name and by address")
    def _():
        server = serve(authority.issue(names=["DNS:localhost"]))
        works(server, imap=f"imaps://localhost:{server.port}")
        refused(serve(authority.issue(names=["DNS:localhost"])), "is for")

    @suite.case("expired")
    def _():
        refused(serve(authority.issue(expired=True)), "expired")

    @suite.case("of another host")
    def _():
        refused(serve(authority.issue(names=["DNS:other.example.org"])), "other.example.org")

    @suite.case("self-signed")
    def _():
        refused(serve(authority.issue(self_signed=True)), "self", "verif", "trust", "certificate")

    @suite.case("of a CA nobody trusts")
    def _():
        refused(serve(stranger.issue()), "issuer", "verif", "trust", "certificate")

    def fingerprint(certificate, upper=False):
        der = ssl.PEM_cert_to_DER_cert(certificate.certificate.read_text())
        text = hashlib.sha256(der).hexdigest()
        return ":".join(text[i:i + 2] for i in range(0, 64, 2)).upper() if upper else text

    @suite.case("pinned: the certificate itself, whoever signed it, and no other")
    def _():
        certificate = stranger.issue(names=["DNS:other.example.org"], expired=True)
        works(serve(certificate), tls=f"fingerprint:SHA256:{fingerprint(certificate)}")
        works(serve(certificate), tls=f"fingerprint:SHA256:{fingerprint(certificate, upper=True)}")
        refused(serve(authority.issue()), "fingerprint", tls=f"fingerprint:SHA256:{fingerprint(certificate)}")
        # the way out stands in the status too, whole
        other = authority.issue()
        mount = suite.home(**{**serve(other).settings(), "tls": f"fingerprint:SHA256:{fingerprint(certificate)}"}).mount("offline")
        mount.home.run("connect", check=12)
        text = mount.home.run("status", check=0).stdout
        assert f"fingerprint:SHA256:{fingerprint(other)}\n" in text and max(map(len, text.split("\n"))) <= 100, text
        mount.umount()

    @suite.case("STARTTLS")
    def _():
        server = serve(authority.issue(), starttls=True)
        works(server)
        assert not [line for line in server.commands() if "correct" in line and "STARTTLS" in server.commands()[-1]]
        assert server.commands("STARTTLS")

    @suite.case("STARTTLS stripped: refused, nothing is sent in clear")
    def _():
        server = serve(None)
        refused(server, "starttls", "tls", "encrypt", imap=f"imap://127.0.0.1:{server.port}", tls="verify")

    @suite.case("STARTTLS refused by the server")
    def _():
        server = serve(authority.issue(), starttls=True, script="on STARTTLS:\n\t{tag} NO not now\n")
        refused(server, "starttls", "tls", "encrypt")

    @suite.case("what comes in clear with the STARTTLS answer is not trusted")
    def _():
        server = serve(authority.issue(), starttls=True,
                       script="on STARTTLS:\n\t!raw {tag} OK begin\\r\\n* OK injected\\r\\n\n\t!hang\n")
        refused(server, "in clear", code=15)

    @suite.case("plain text where TLS is expected")
    def _():
        server = serve(None)
        refused(server, "tls", "ssl", imap=f"imaps://127.0.0.1:{server.port}", tls="verify")

    @suite.case("TLS 1.1 is refused, TLS 1.2 is fine")
    def _():
        server = serve(authority.issue())
        server.context.minimum_version = server.context.maximum_version = ssl.TLSVersion.TLSv1_2
        works(server)
        old = serve(authority.issue())
        warnings.simplefilter("ignore", DeprecationWarning)
        old.context.set_ciphers("ALL:@SECLEVEL=0")
        old.context.minimum_version = ssl.TLSVersion.TLSv1
        old.context.maximum_version = ssl.TLSVersion.TLSv1_1
        refused(old, "tls", "ssl", "version", "protocol", "alert", "handshake")

    @suite.case("a handshake that never ends")
    def _():
        silent = socket.create_server(("127.0.0.1", 0))
        held = []
        threading.Thread(target=lambda: [held.append(silent.accept()) for _ in range(9)], daemon=True).start()
        started = time.monotonic()
        refused(serve(authority.issue()), "time", "answer", code=11, imap=f"imaps://127.0.0.1:{silent.getsockname()[1]}", connect_timeout="4s")
        assert time.monotonic() - started < system.PATIENCE * system.SLOW

    @suite.case("no TLS at all only on the loopback, unless tls-insecure says so")
    def _():
        home = suite.home(imap="imap://mail.example.org", user="a", password="b", tls="none")
        answer = home.run("mount", "work", suite.path("mnt"))
        assert answer.returncode == 3 and "tls-insecure" in answer.stderr, (answer.returncode, answer.stderr)

    @suite.case("a certificate that changes to a bad one while mounted: readers are told, the tree stays, and a good one heals it")
    def _():
        dovecot = suite.dovecot()
        dovecot.fill("INBOX", corpus.small(4))
        home = suite.home(dovecot)
        mount = home.mount()
        first, second = mount.messages()[:2]
        first.read_bytes()
        good = dovecot.certificate
        dovecot.stop()
        dovecot.use_certificate(dovecot.authority.issue(expired=True))
        dovecot.start()
        home.run("connect")
        home.wait_link("offline") if home.link() == "connecting" else None
        assert home.link() in ("offline", "waiting")
        first.read_bytes()
        try:
            second.read_bytes()
            raise AssertionError("read from a server with an expired certificate")
        except OSError as error:
            suite.say(str(error))
        dovecot.stop()
        dovecot.use_certificate(good)
        dovecot.start()
        home.run("connect", check=0)
        home.wait_link("online")
        second.read_bytes()
        mount.umount()
