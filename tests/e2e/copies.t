#!/usr/bin/python3
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib import Suite, require_fuse  # noqa: E402
from lib import system  # noqa: E402
from lib.smtp import SmtpServer  # noqa: E402

with Suite("copies of what is sent: by the server or by mailfs, found out and remembered", timeout=300) as suite:
    require_fuse()
    dovecot = suite.dovecot()

    def sender(server, **settings):
        suite.callback(server.stop)
        return suite.home(dovecot, smtp=f"smtp://127.0.0.1:{server.port}", tls="none", send_delay="0", poll="1h",
                          imap=f"imap://127.0.0.1:{dovecot.imap_port}", **{"from": "Alice <alice@example.org>", **settings})

    def filed(subject):
        """those in Sent with this subject: their bytes and flags"""
        with dovecot.client() as client:
            client.select("Sent")
            flags = client.flags("Sent")
            return [(body, flags[uid]) for uid, body in client.bodies("Sent").items() if f"Subject: {subject}\r\n".encode() in body]

    def send(mount, subject):
        (mount / f"outbox/{subject}.eml").write_text(f"To: bob@example.org\nSubject: {subject}\n\nHello.\n")

    def put_into_sent(data):
        with dovecot.client() as client:
            client.append("Sent", b"X-Filed-By: the server\r\n" + data)

    @suite.case("a server that files: one copy, its own; from then on mailfs makes none, also after a remount")
    def _():
        server = SmtpServer(taken=put_into_sent)
        home = sender(server)
        mount = home.mount()
        assert home.status()["outbox"]["copies"] == "unknown"
        send(mount, "first")
        system.wait_until(lambda: home.status()["outbox"]["copies"] == "server", "it is found out", 60)
        home.run("sync", "--wait", check=0)
        (body, flags), = filed("first")
        assert body.startswith(b"X-Filed-By") and "\\Seen" in flags, flags
        assert len([n for n in mount.names("Sent") if "first" in n]) == 1
        mount.umount()
        mount = home.mount()
        send(mount, "second")
        system.wait_until(lambda: "second" in server.accepted and not any(home.status()["outbox"][k] for k in ("queued", "sending", "unfiled")), "it is sent", 60)
        home.run("sync", "--wait", check=0)
        home.run("sync", check=0)
        assert len(filed("second")) == 1 and home.status()["outbox"]["copies"] == "server"
        assert len([n for n in mount.names("Sent") if "second" in n]) == 1
        mount.umount()

    @suite.case("maybe sent, where the server is known to file: what is in Sent was sent")
    def _():
        server = SmtpServer(taken=put_into_sent, fail=lambda stage, subject: "close" if stage == "answer" and subject == "in doubt" else None)
        home = sender(server)
        mount = home.mount()
        send(mount, "known")
        system.wait_until(lambda: home.status()["outbox"]["copies"] == "server", "it is found out", 60)
        send(mount, "in doubt")
        system.wait_until(lambda: "in doubt" in server.accepted, "the server has it", 60)
        system.wait_until(lambda: home.run("sync", check=0) and os.listdir(mount / "outbox") == ["failed"], "it was sent", 60)
        assert server.accepted.count("in doubt") == 1 and len(filed("in doubt")) == 1
        mount.umount()

    @suite.case("a server that does not: each is stored once; after some of them nobody looks any more")
    def _():
        server = SmtpServer()
        home = sender(server)
        mount = home.mount()
        for i in range(3):
            send(mount, f"plain{i}")
            system.wait_until(lambda: filed(f"plain{i}"), "the copy is stored", 60)
        system.wait_until(lambda: home.status()["outbox"]["copies"] == "mailfs", "it is found out", 60)
        send(mount, "plain3")
        system.wait_until(lambda: filed("plain3"), "the copy is stored", 60)
        home.run("sync", "--wait", check=0)
        assert [len(filed(f"plain{i}")) for i in range(4)] == [1] * 4
        mount.umount()
