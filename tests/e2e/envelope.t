#!/usr/bin/python3
import os
import re
import sys
import threading

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib import Suite, errno_of, require_fuse  # noqa: E402
from lib import system  # noqa: E402
from lib.smtp import SmtpServer  # noqa: E402

EXTENSIONS = ("8BITMIME", "PIPELINING", "SIZE 10000000", "DSN", "SMTPUTF8")

with Suite("sending: whom a message goes to, how, and when", timeout=300) as suite:
    require_fuse()
    dovecot = suite.dovecot()

    def server(**options):
        made = SmtpServer(**{"extensions": EXTENSIONS, **options})
        suite.callback(made.stop)
        return made

    def sender(smtp, **settings):
        return suite.home(dovecot, **{"smtp": f"smtp://127.0.0.1:{smtp.port}", "tls": "none", "send_delay": "0", "save_sent": "no", "poll": "1h",
                                      "imap": f"imap://127.0.0.1:{dovecot.imap_port}", "from": "Alice <alice@example.org>", **settings})

    def letter(subject, to="bob@example.org", more="", body="Hello.\n"):
        return f"To: {to}\n{more}Subject: {subject}\n\n{body}"

    def box(mount):
        return sorted(name for name in os.listdir(mount / "outbox") if name != "failed")

    def state(path):
        return os.getxattr(path, "user.mail.state").decode()

    def empty(mount):
        system.wait_until(lambda: box(mount) == [], "outbox/ is empty", 60)

    def recipients(smtp):
        return [command for command in smtp.commands if command.startswith("RCPT")]

    @suite.case("recipients of groups, with comments, quoted, of Resent fields, and of a domain beyond ASCII")
    def _():
        taken = []
        smtp = server(taken=taken.append)
        mount = sender(smtp).mount()
        (mount / "outbox/a.eml").write_text(letter("shapes", 'Friends: bob@example.org, "D, E" <"d e"@example.org>;, x@bücher.example (a comment)', "Cc: none:;\n"))
        empty(mount)
        assert recipients(smtp) == ["RCPT TO:<bob@example.org>", 'RCPT TO:<"d e"@example.org>', "RCPT TO:<x@xn--bcher-kva.example>"], smtp.commands
        del smtp.commands[:]
        (mount / "outbox/b.eml").write_text("Resent-To: eve@example.org\nResent-Bcc: zoe@example.org\nFrom: bob@example.org\nDate: Thu, 26 Nov 2026 10:00:00 +0000\n"
                                            "Message-ID: <old@example.org>\n" + letter("resent", "carol@example.org"))
        empty(mount)
        assert recipients(smtp) == ["RCPT TO:<eve@example.org>", "RCPT TO:<zoe@example.org>"], smtp.commands
        assert b"zoe" not in taken[1] and b"Message-ID: <old@example.org>" in taken[1] and b"Resent-From: Alice" in taken[1], taken[1]
        mount.umount()

    @suite.case("the envelope's sender: the first of the account's addresses, or the one that From names")
    def _():
        smtp = server()
        mount = sender(smtp, **{"from": "Alice <alice@example.org>, al@example.org"}).mount()
        for name, author in (("none", ""), ("second", "From: Al <al@example.org>\n"), ("stranger", "From: carol@example.org\n")):
            (mount / f"outbox/{name}.eml").write_text(letter(name, more=author))
            empty(mount)
        senders = [command.split(">")[0] for command in smtp.commands if command.startswith("MAIL")]
        assert senders == ["MAIL FROM:<alice@example.org", "MAIL FROM:<al@example.org", "MAIL FROM:<alice@example.org"], senders
        mount.umount()

    @suite.case("a server without 8BITMIME: text is made 7 bit; what says that it is 8 bit is refused, with the reason")
    def _():
        taken = []
        smtp = server(taken=taken.append, extensions=("PIPELINING",))
        mount = sender(smtp).mount()
        (mount / "outbox/a.eml").write_text(letter("text", body="Grüße\n"))
        (mount / "outbox/b.eml").write_text(letter("declared", body="Grüße\n", more="MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n"))
        empty(mount)
        assert smtp.accepted == ["text"] and b"Gr=C3=BC=C3=9Fe" in taken[0] and max(taken[0]) < 128, taken
        assert "8BITMIME" in (mount / "outbox/failed/b.eml.error.txt").read_text()
        mount.umount()

    @suite.case("a thousand recipients of one message")
    def _():
        smtp = server()
        mount = sender(smtp).mount()
        (mount / "outbox/a.eml").write_text(letter("to all", ",\n ".join(f"Person {i} <p{i}@example.org>" for i in range(1000))))
        empty(mount)
        assert recipients(smtp) == [f"RCPT TO:<p{i}@example.org>" for i in range(1000)] and smtp.accepted == ["to all"]
        mount.umount()

    @suite.case("CHUNKING: in one chunk, as it is")
    def _():
        taken = []
        smtp = server(taken=taken.append, extensions=EXTENSIONS + ("CHUNKING",))
        mount = sender(smtp).mount()
        (mount / "outbox/a.eml").write_text(letter("in a chunk", body=".\n..\nend\n"))
        empty(mount)
        assert f"BDAT {len(taken[0])} LAST" in smtp.commands and "DATA" not in smtp.commands, smtp.commands
        assert taken[0].endswith(b"\r\n\r\n.\r\n..\r\nend\r\n"), taken
        mount.umount()

    @suite.case("DSN is asked for by a field, which is not sent, and by an attribute")
    def _():
        taken = []
        smtp = server(taken=taken.append)
        home = sender(smtp, send="manual")
        mount = home.mount()
        out = mount / "outbox"
        (out / "none.eml").write_text(letter("none"))
        (out / "field.eml").write_text(letter("field", more="X-DSN-Notify: success, delay\n"))
        assert errno_of(os.getxattr, out / "none.eml", "user.mail.notify") == "ENODATA"
        assert os.getxattr(out / "field.eml", "user.mail.notify") == b"SUCCESS,DELAY"
        for name in ("attribute", "both", "cleared"):
            (out / f"{name}.eml").write_text(letter(name, more="" if name == "attribute" else "X-DSN-Notify: delay\n"))
            os.setxattr(out / f"{name}.eml", "user.mail.notify", b"failure" if name == "attribute" else b"never")
        os.removexattr(out / "cleared.eml", "user.mail.notify")
        assert errno_of(os.setxattr, out / "none.eml", "user.mail.notify", b"often") == "EINVAL"
        assert errno_of((out / "bad.eml").write_text, letter("bad", more="X-DSN-Notify: often\n")) == "EINVAL"
        with open(out / "attribute.eml", "a") as f:      # it stays through another save
            f.write("More.\n")
        mount.umount()
        mount = home.mount()                             # and a remount
        for name in ("none", "field", "attribute", "both", "cleared"):
            home.run("send", "--retry", f"{name}.eml", check=0)
        empty(mount)
        asked = dict(zip(smtp.accepted, (re.sub(r"RCPT TO:<bob@example.org> ?", "", command) for command in recipients(smtp))))
        assert asked == {"none": "", "field": "NOTIFY=SUCCESS,DELAY", "attribute": "NOTIFY=FAILURE", "both": "NOTIFY=NEVER", "cleared": ""}, asked
        assert b"X-DSN" not in b"".join(taken)
        out = mount / "outbox"
        (out / "much.eml").write_text(letter("much", more="X-DSN-Notify: delay\n"))
        os.setxattr(out / "much.eml", "user.mail.notify", b"failure, full")
        assert os.getxattr(out / "much.eml", "user.mail.notify") == b"FAILURE,FULL"
        home.run("send", "--retry", "much.eml", check=0)
        empty(mount)
        mails = [command for command in smtp.commands if command.startswith("MAIL")]
        assert re.search(r" RET=FULL ENVID=[0-9a-f]{16}$", mails[-1]) and recipients(smtp)[-1].endswith(" NOTIFY=FAILURE"), mails
        assert sum("ENVID" in mail for mail in mails) == 3 and sum("RET=" in mail for mail in mails) == 1, mails
        mount.umount()

    @suite.case("send = connect: it waits for the next connection")
    def _():
        smtp = server()
        home = sender(smtp, send="connect")
        mount = home.mount()
        home.wait_link("online")
        home.run("sync", check=0)       # everybody has heard of this connection
        (mount / "outbox/a.eml").write_text(letter("at the next one"))
        assert state(mount / "outbox/a.eml").startswith("queued"), state(mount / "outbox/a.eml")
        home.run("disconnect", "work", check=0)
        assert smtp.accepted == [] and box(mount) == ["a.eml"]
        home.run("connect", "work", check=0)
        empty(mount)
        assert smtp.accepted == ["at the next one"]
        mount.umount()

    @suite.case("a mount that is gone: what it has left is sent by `mailfs sync --once`")
    def _():
        smtp = server()
        home = sender(smtp)
        mount = home.mount("offline")
        for i in range(3):
            (mount / f"outbox/{9 - i}.eml").write_text(letter(f"left {i}"))
        mount.umount()
        assert smtp.connections == 0
        home.run("sync", "--once", check=0)
        assert smtp.accepted == ["left 0", "left 1", "left 2"] and smtp.connections == 1

    @suite.case("status: messages queued and sent, and bytes in flight")
    def _():
        reached, go = threading.Event(), threading.Event()

        def pace(lines):
            if lines == 100:
                reached.set()
                go.wait(120 * system.SLOW)

        smtp = server(pace=pace, extensions=("SIZE 100000000",))
        home = sender(smtp)
        mount = home.mount()
        (mount / "outbox/a.eml").write_text(letter("large", body=("x" * 70 + "\n") * 280000))    # more than the kernel holds between the two
        try:
            assert reached.wait(60 * system.SLOW), "the message begins to leave"
            (mount / "outbox/b.eml").write_text(letter("behind it"))
            system.wait_until(lambda: home.status()["outbox"]["progress"]["bytes"] > 0, "some of it has left", 60)
            outbox = home.status()["outbox"]
            assert outbox["sending"] == 1 and outbox["queued"] == 1 and outbox["progress"]["sent"] == 0, outbox
            assert outbox["progress"]["bytes"] < outbox["progress"]["total"] and outbox["progress"]["total"] > 20000000, outbox
            text = home.run("status", check=0).stdout
            assert re.search(r"outbox: 1 queued, 1 being sent \([\d.]+[KM] of 19M\)", text), text
        finally:
            go.set()
        empty(mount)
        assert home.status()["outbox"]["progress"] == {"sent": 2, "bytes": 0, "total": 0} and "outbox: empty, 2 sent" in home.run("status", check=0).stdout
        mount.umount()

    @suite.case("maybe sent: the server files by itself, and what is found in Sent was sent")
    def _():
        def file(data):
            with dovecot.client() as client:
                client.append("Sent", data)

        smtp = server(taken=file, fail=lambda stage, subject: "close" if stage == "answer" or subject == "lost" else None)
        home = sender(smtp)
        mount = home.mount()
        home.wait_link("online")
        (mount / "outbox/a.eml").write_text(letter("found"))
        (mount / "outbox/b.eml").write_text(letter("lost"))
        system.wait_until(lambda: "a.eml" not in box(mount) or state(mount / "outbox/a.eml").startswith("maybe sent"), "a.eml has left", 60)
        home.run("sync", check=0)
        system.wait_until(lambda: box(mount) == ["b.eml"], "a.eml is settled by what is in Sent", 60)
        system.wait_until(lambda: state(mount / "outbox/b.eml").startswith("maybe sent"), "b.eml is held", 60)
        assert smtp.accepted == ["found"]
        with dovecot.client() as client:
            assert len(client.bodies("Sent")) == 1
        mount.umount()
