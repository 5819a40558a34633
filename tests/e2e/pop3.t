#!/usr/bin/python3
import errno
import hashlib
import os
import poplib
import signal
import socket
import ssl
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib import Suite, corpus, digest, errno_of, read, require_fuse, wait_until  # noqa: E402
from lib import system  # noqa: E402

CLEAR = {"ENETUNREACH", "ETIMEDOUT", "EIO", "EHOSTDOWN", "EHOSTUNREACH"}   # what a reader may be told when the server fails

with Suite("an account with a POP3 server and nothing else", timeout=400) as suite:
    require_fuse()
    server = suite.dovecot(pop3=True)
    server.fill("INBOX", corpus.realistic(60, seed=71))
    server.fill("Archive", corpus.small(3, seed=72))
    with server.client() as other:
        truth = other.digests()

    def home(at=server, port=None, **settings):
        url = f"pop3s://127.0.0.1:{port or at.pop3s_port}"
        return suite.home(at, **{"imap": None, "pop3": url, **settings})

    def log_of(at):
        return (at.folder / "log").read_text(errors="replace")

    @suite.case("INBOX and nothing else; every byte is the server's; sizes and dates are right")
    def _():
        h = home()
        mount = h.mount()
        assert sorted(os.listdir(mount.where)) == [".nomedia", "INBOX"], os.listdir(mount.where)
        assert mount.digests() == truth
        status = h.status()
        assert status["protocol"] == "pop3" and status["link"]["state"] == "online", status
        said = h.run("status", check=0).stdout
        assert "by POP3" in said and "current" in said and "behind" not in said, said
        by_imap = suite.home(server).mount()
        assert mount.names() == by_imap.names()
        assert {p.name: os.stat(p).st_size for p in mount.messages()} == {p.name: os.stat(p).st_size for p in by_imap.messages()}
        by_imap.umount()
        mount.umount()

    @suite.case("new mail comes with `mailfs sync` and with the poll; what others expunge goes; the rest stays the same files")
    def _():
        own = suite.dovecot(pop3=True)
        own.fill("INBOX", corpus.realistic(12, seed=73))
        h = home(own, poll="24h")
        mount = h.mount()
        before = {path.name: os.stat(path).st_ino for path in mount.messages()}
        assert len(before) == 12
        own.deliver(corpus.message(subject="ordered by hand"))
        h.run("sync", check=0)
        assert [n for n in mount.names() if "ordered-by-hand" in n]
        with own.client() as other:
            other.select()
            other.expunge("INBOX", other.uids()[3])
        h.run("sync", check=0)
        after = {path.name: os.stat(path).st_ino for path in mount.messages()}
        assert len(after) == 12 and len(before.keys() - after.keys()) == 1
        assert all(before[name] == inode for name, inode in after.items() if name in before)
        mount.umount()
        h.set(poll="1s")
        mount = h.mount()
        own.deliver(corpus.message(subject="by itself"))
        wait_until(lambda: [n for n in mount.names() if "by-itself" in n], "the poll finds it", 30)
        with own.client() as other:
            assert mount.digests() == other.digests()
        mount.umount()

    @suite.case("the mailbox is not held while nothing is done: a server that locks it lets others in")
    def _():
        own = suite.dovecot(pop3=True, extra="protocol pop3 {\n pop3_lock_session = yes\n}")
        own.fill("INBOX", corpus.small(5, seed=74))
        h = home(own, poll="24h")
        mount = h.mount()
        assert len(mount.digests()) == 5

        def other_session():
            context = ssl.create_default_context(cafile=str(own.authority.ca))
            other = poplib.POP3_SSL("127.0.0.1", own.pop3s_port, timeout=20, context=context)
            try:
                other.user(own.user)
                other.pass_(own.password)
                return other
            except poplib.error_proto:
                other.close()
                return None
        other = []
        wait_until(lambda: other.append(other_session()) or other[-1], "another session gets in", 15)
        assert h.link() == "online"
        other[-1].quit()
        own.deliver(corpus.message(subject="after the other"))
        h.run("sync", check=0)
        assert len(mount.digests()) == 6
        mount.umount()

    @suite.case("sync --populate, and then everything without a server")
    def _():
        own = suite.dovecot(pop3=True)
        own.fill("INBOX", corpus.realistic(30, seed=75))
        h = home(own)
        mount = h.mount()
        names, inodes = mount.names(), {p.name: os.stat(p).st_ino for p in mount.messages()}
        h.run("sync", "--populate", check=0)
        digests = mount.digests()
        mount.umount()
        own.stop()
        mount = h.mount()
        assert mount.names() == names and mount.digests() == digests
        assert {p.name: os.stat(p).st_ino for p in mount.messages()} == inodes
        wait_until(lambda: h.link() == "offline", "it knows that it is offline")
        own.start()
        own.deliver(corpus.message(subject="while you were out"))
        os.kill(mount.pid, signal.SIGUSR1)
        wait_until(lambda: [n for n in mount.names() if "while-you-were-out" in n], "the new message is listed")
        mount.umount()

    @suite.case("without a mount: sync --once --populate fetches everything")
    def _():
        own = suite.dovecot(pop3=True)
        own.fill("INBOX", corpus.small(8, seed=77))
        h = home(own)
        h.run("sync", "--once", "--populate", check=0)
        own.stop()
        mount = h.mount("offline")
        assert len(mount.digests()) == 8
        mount.umount()

    @suite.case("a URL as SOURCE, with STARTTLS, and a first mount without a server")
    def _():
        h = home(pop3=f"pop3://127.0.0.1:{server.pop3_port}")
        mount = h.mount()
        assert mount.digests() == truth
        mount.umount()
        h = suite.home(None)
        h.set(pop3=f"pop3s://127.0.0.1:{server.pop3s_port}", user=server.user, password=server.password, tls_ca_file=str(server.authority.ca))
        mount = h.mount(source=f"pop3s://{server.user}@127.0.0.1:{server.pop3s_port}")
        assert len(mount.names()) == len(truth)
        mount.umount()
        port, = system.free_ports(1)
        answer = home(pop3=f"pop3s://127.0.0.1:{port}").run("mount", "work", suite.path("mnt"))
        assert answer.returncode == 10 and len(answer.stderr.strip().split("\n")) == 1, (answer.returncode, answer.stderr)

    @suite.case("certificates that are not to be trusted, clear text, wrong passwords: refused in one line, without the password")
    def _():
        def refused(code, word, **settings):
            where = suite.path("mnt")
            answer = home(**settings).run("mount", "work", where, timeout=60)
            assert answer.returncode == code and word in answer.stderr.lower(), (answer.returncode, answer.stderr)
            assert len(answer.stderr.strip().split("\n")) == 1 and not system.fuse_device(where), answer.stderr
        before = log_of(server).count("Login:")
        refused(12, "certificate", tls_ca_file=None)
        refused(12, "fingerprint", tls="fingerprint:SHA256:" + "ab" * 32)
        assert log_of(server).count("Login:") == before
        der = ssl.PEM_cert_to_DER_cert(server.certificate.certificate.read_text())
        mount = home(tls=f"fingerprint:SHA256:{hashlib.sha256(der).hexdigest()}", tls_ca_file=None).mount()
        assert len(mount.names()) == len(truth)
        mount.umount()
        before = log_of(server).count("auth failed")
        refused(9, "refused", password="wrong")
        wait_until(lambda: log_of(server).count("auth failed") > before, "the server says that it refused")
        assert log_of(server).count("auth failed") == before + 1, "a wrong password was tried again"
        mount = home(pop3=f"pop3://127.0.0.1:{server.pop3_port}", tls="none").mount()
        assert mount.digests() == truth
        mount.umount()

    @suite.case("whoever answers, over TLS that is not verified, is not told the password")
    def _():
        before = log_of(server).count("method=SCRAM-SHA-256")
        mount = home(tls="none", tls_ca_file=None).mount()
        assert len(mount.names()) == len(truth)
        mount.umount()
        wait_until(lambda: log_of(server).count("method=SCRAM-SHA-256") > before, "the server says how somebody logged in")

    @suite.case("every way to log in")
    def _():
        for mechanism in ("plain", "login", "cram-md5", "scram-sha-1", "scram-sha-256"):
            mount = home(auth=mechanism).mount()
            assert len(mount.names()) == len(truth), mechanism
            mount.umount()

    @suite.case("APOP, of a server that has nothing better; never in clear")
    def _():
        stamp, heard = "<1896.697170952@pop.example.org>", []
        listener = socket.create_server(("127.0.0.1", 0))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(server.certificate.certificate, server.certificate.key)

        def serve(line):
            try:
                out = context.wrap_socket(line, server_side=True).makefile("rwb", buffering=0)
                out.write(f"+OK ready {stamp}\r\n".encode())
                while command := out.readline().decode().strip():
                    heard.append(command)
                    body = "Subject: one\r\n\r\n.\r\n"
                    answers = {"CAPA": "\r\nTOP\r\nUIDL\r\n.\r\n", "UIDL": "\r\n1 a\r\n.\r\n", "LIST": "\r\n1 18\r\n.\r\n", "TOP": "\r\n" + body,
                               "RETR": "\r\n" + body, "APOP": "\r\n", "QUIT": "\r\n"}
                    answer = answers.get(command.split()[0])
                    out.write(f"+OK{answer}".encode() if answer else b"-ERR\r\n")
            except OSError:
                pass

        def accept():
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
        threading.Thread(target=accept, daemon=True).start()
        mount = home(port=listener.getsockname()[1]).mount()
        assert len(mount.names()) == 1
        mount.umount()
        expected = hashlib.md5((stamp + server.password).encode()).hexdigest()
        assert f"APOP {server.user} {expected}" in heard and not [c for c in heard if c.startswith(("USER", "PASS", "AUTH"))], heard

    @suite.case("whatever the server's UIDLs look like, and when they change: the same files")
    def _():
        own = suite.dovecot(pop3=True)
        own.fill("INBOX", corpus.realistic(15, seed=76))
        h = home(own, poll="24h")
        before = None
        for uidl in ("%08Xu%08Xv", "%v-%u", "%u.%v", "%g", "%f"):
            own.extra = f"protocol pop3 {{\n pop3_uidl_format = {uidl}\n}}"
            own.restart()
            mount = h.mount()
            h.run("sync", check=0)
            now = {path.name: (os.stat(path).st_ino, digest(path)) for path in mount.messages()}
            assert len(now) == 15
            assert before in (None, now), uidl
            before = now
            mount.umount()

    @suite.case("cut connections: by itself it is all there again, and no byte is wrong")
    def _():
        proxy = suite.proxy(server.pop3s_port)
        good = 0
        points = [1, 40, 500, 2000] + sorted(int(10 ** suite.random.uniform(3, 6)) for _ in range(4 if suite.short else 12))
        for point in points:
            proxy.do("cut 0")
            h = home(port=proxy.port)
            proxy.do(f"cut {point} 3")
            mount = None
            try:
                mount = h.mount()
            except AssertionError:
                proxy.do("cut 0")
                mount = h.mount()
            for path in mount.messages():
                try:
                    assert digest(path) in truth, f"{path}: wrong bytes"
                    good += 1
                except OSError as error:
                    assert errno.errorcode[error.errno] in CLEAR | {"ESTALE"}, (path, error)
            proxy.do("cut 0")

            def complete():
                try:
                    return mount.digests() == truth
                except OSError:
                    return False
            wait_until(complete, f"cut after {point}: everything can be read again, by itself", 60)
            mount.umount()
        suite.say(f"{good} messages were read at once")

    @suite.case("a server that says nothing: a clear error within its time, and no process that cannot be ended")
    def _():
        proxy = suite.proxy(server.pop3s_port)
        h = home(port=proxy.port, io_timeout="10s", connect_timeout="10s", poll="24h")
        mount = h.mount()
        cached = mount.messages()[0]
        assert digest(cached) in truth
        proxy.do("pause")
        started = time.monotonic()
        answer = errno_of(read, mount.messages()[30])
        assert answer in CLEAR, answer
        assert time.monotonic() - started < system.PATIENCE * system.SLOW
        assert digest(cached) in truth
        proxy.do("resume")

        def there():
            try:
                return mount.digests() == truth
            except OSError:
                return False
        wait_until(there, "everything can be read again", 60)
        mount.umount()

    @suite.case("kill -9 ten times, during the first sync and during downloads: the next mount is right")
    def _():
        kills, names = 0, None
        while kills < 10:
            h = home()
            for life in (.02, .08, .2, .4, .8):
                mount = h.mount(wait=False)
                stop = threading.Timer(life * suite.random.uniform(.5, 1.5) * system.SLOW, mount.process.kill)
                stop.start()
                try:
                    while not system.fuse_device(mount.where) and mount.process.poll() is None:
                        time.sleep(.005)
                    mount.device = system.fuse_device(mount.where)
                    for path in mount.messages():
                        assert digest(path) in truth, f"{path}: wrong bytes"
                except OSError:
                    pass
                stop.join()
                mount.kill()
                kills += 1
            final = h.mount()
            assert final.digests() == truth
            assert names in (None, final.names())
            names = final.names()
            checked = h.run("check")
            assert checked.returncode == 0, (checked.returncode, checked.stdout[-800:], checked.stderr[-800:])
            final.umount()
