#!/usr/bin/python3
import email
import email.policy
import os
import re
import shutil
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib import Suite, require_fuse  # noqa: E402
from lib import system  # noqa: E402
from lib.postfix import EXTRA, Postfix  # noqa: E402
from lib.suite import PROGRAM, Skip  # noqa: E402

TRACE = re.compile(rb"(?:(?:Return-Path|Delivered-To|X-Original-To|Received):[^\n]*\n(?:[ \t][^\n]*\n)*)*", re.I)

with Suite("sending by Postfix", timeout=400) as suite:
    require_fuse()
    dovecot = suite.dovecot(extra=EXTRA)
    postfix = Postfix(suite, dovecot)
    IMPLICIT, STARTTLS = f"smtps://127.0.0.1:{postfix.tls_port}", f"smtp://127.0.0.1:{postfix.port}"

    def sender(smtp=IMPLICIT, **settings):
        return suite.home(dovecot, smtp=smtp, send_delay="0", poll="24h", **{"from": "Alice Ünïcode <alice@example.org>", **settings})

    def letter(subject, to="alice@example.org", more="", body="Hello.\n"):
        return f"To: {to}\n{more}Subject: {subject}\n\n{body}"

    def parsed(data):
        return email.message_from_bytes(data, policy=email.policy.default)

    def stored(mailbox, subject):
        """all messages with this subject, as the server gives them"""
        with dovecot.client() as client:
            return [data for _, data in sorted(client.bodies(mailbox).items()) if str(parsed(data)["Subject"]) == subject]

    def delivered(subject):
        return system.wait_until(lambda: stored("INBOX", subject), f"{subject!r} is delivered: {postfix.log()[-1500:]}", 60)[0]

    def copies(subject):
        return system.wait_until(lambda: stored("Sent", subject), f"{subject!r} is in Sent", 60)

    def box(mount, folder="outbox"):
        return sorted(name for name in os.listdir(mount / folder) if name != "failed")

    def empty(mount):
        system.wait_until(lambda: box(mount) == [], "outbox/ is empty", 60)

    def state(path):
        return os.getxattr(path, "user.mail.state").decode()

    def reason(mount, name):
        return system.wait_until(lambda: (mount / "outbox/failed" / f"{name}.error.txt").read_text(), f"{name} is in failed/", 60)

    def untraced(data):
        return data[TRACE.match(data).end():]

    for how, smtp in (("STARTTLS", STARTTLS), ("implicit TLS", IMPLICIT)):
        @suite.case(f"{how}: it is in the mounted INBOX by itself, byte for byte what was prepared")
        def _(how=how, smtp=smtp):
            home = sender(smtp)
            mount = home.mount()
            mount.names()
            before = len(postfix.logins())
            texts = {f"by {how}": "Hello.\n", f"dots by {how}": ".\n..\n.x\n" + "y" * 998 + "\n", f"letters by {how}": "Grüße – ✓\n",
                     f"lines by {how}": ("ü" * 3000 + "\n") * 3 + "no end"}
            for number, (subject, body) in enumerate(texts.items()):
                (mount / f"outbox/{number}.eml").write_text(letter(subject, body=body))
            for subject, body in texts.items():
                data = delivered(subject)
                assert untraced(data) == copies(subject)[0], (data, copies(subject)[0])
                assert parsed(data.replace(b"\r\n", b"\n")).get_content().replace("\r\n", "\n").rstrip("\n") == body.rstrip("\n"), subject
                shown = system.wait_until(lambda: [m for m in mount.messages() if os.getxattr(m, "user.mail.subject") == subject.encode()], f"{subject} is shown", 60)
                assert shown[0].read_bytes() == data
            empty(mount)
            system.wait_until(lambda: len(postfix.logins()) >= before + len(texts), "each was sent by somebody who had logged in", 60)
            assert set(postfix.logins()) == {"alice"}
            assert all(len(stored("INBOX", subject)) == 1 for subject in texts)
            mount.umount()

    @suite.case("some recipients refused: the others get it, and failed/ says who; some put off: tried again later")
    def _():
        mount = sender().mount()
        (mount / "outbox/some.eml").write_text(letter("to some", to="alice@example.org, no@example.org"))
        said = reason(mount, "some.eml")
        assert "no@example.org" in said and "no such user here" in said and "5.7.1" in said, said
        assert "sent to 1 of 2 recipients; no@example.org: 554 5.7.1" in state(mount / "outbox/failed/some.eml"), state(mount / "outbox/failed/some.eml")
        (mount / "outbox/later.eml").write_text(letter("later to one", to="alice@example.org, later@example.org"))
        system.wait_until(lambda: state(mount / "outbox/later.eml").startswith("retrying at"), "it is to be tried again", 60)
        assert "later@example.org: 450 4.7.1" in state(mount / "outbox/later.eml"), state(mount / "outbox/later.eml")
        (mount / "outbox/none.eml").write_text(letter("to none", to="no@example.org"))
        assert "no such user here" in reason(mount, "none.eml")
        for subject, count in (("to some", 1), ("later to one", 1), ("to none", 0)):
            assert not count or delivered(subject)
            assert len(stored("INBOX", subject)) == count, subject
        mount.umount()

    @suite.case("over the server's SIZE: failed/ says so")
    def _():
        mount = sender().mount()
        big = letter("too big", body=("x" * 70 + "\n") * 30000)
        (mount / "outbox/big.eml").write_text(big)
        assert "2000000" in reason(mount, "big.eml")
        assert box(mount) == [] and stored("INBOX", "too big") == []
        assert (mount / "outbox/failed/big.eml").read_text() == big
        mount.umount()

    @suite.case("what waits goes by one connection, in the order of dropping")
    def _():
        home = sender(STARTTLS)
        mount = home.mount()
        home.run("disconnect", "work", check=0)
        for i in range(6):
            (mount / f"outbox/{9 - i}.eml").write_text(letter(f"row {i}", more=f"Message-ID: <row{i}@example.org>\n"))
        home.run("connect", "work", check=0)
        empty(mount)
        system.wait_until(lambda: 6 in postfix.connections(), f"one connection had all six: {postfix.connections()}", 60)
        taken = re.findall(r"message-id=<row(\d)@example.org>", postfix.log())
        assert taken == list("012345"), taken
        for i in range(6):
            delivered(f"row {i}")
        mount.umount()

    @suite.case("an address with letters beyond ASCII: SMTPUTF8")
    def _():
        mount = sender().mount()
        (mount / "outbox/u.eml").write_text(letter("für Müller", to="Jürgen Müller <müller@example.org>"))
        data = delivered("für Müller")
        assert "UTF8SMTPSA" in data.decode() and untraced(data) == copies("für Müller")[0]
        assert "To: =?" in untraced(data).decode() or "To: Jürgen" in untraced(data).decode()
        assert "<müller@example.org>" in untraced(data).decode()
        empty(mount)
        mount.umount()

    @suite.case("a delivery status notification, as the field asks for it; none without")
    def _():
        mount = sender().mount()
        (mount / "outbox/a.eml").write_text(letter("nothing to be told"))
        delivered("nothing to be told")
        (mount / "outbox/b.eml").write_text(letter("to be told", more="X-DSN-Notify: success\n"))
        report = delivered("Successful Mail Delivery Report")
        assert parsed(report).get_content_type() == "multipart/report" and b"Subject: to be told" in report, report
        assert b"X-DSN" not in delivered("to be told") and len(stored("INBOX", "Successful Mail Delivery Report")) == 1
        mount.umount()

    @suite.case("programs that have sendmail: git send-email, mail, mutt")
    def _():
        home = sender()
        sendmail = home.folder / "mailfs-sendmail"
        sendmail.symlink_to(PROGRAM)
        mount = home.mount()
        patch = home.folder / "0001-x.patch"
        patch.write_text("From 0123456789012345678901234567890123456789 Mon Sep 17 00:00:00 2001\nFrom: Alice <alice@example.org>\n"
                         "Date: Thu, 26 Nov 2026 10:00:00 +0000\nSubject: [PATCH] a change\n\nMessage with ü\n---\n x | 1 +\n")
        (home.folder / "mailrc").write_text(f"set sendmail={sendmail}\n")
        (home.folder / "muttrc").write_text(f'set sendmail="{sendmail} -oem -oi"\nset use_from=yes\nset from=alice@example.org\nset copy=no\n'
                                            "set charset=utf-8\n")
        programs = {
            "[PATCH] a change": ["git", "send-email", "--quiet", "--confirm=never", "--suppress-cc=all", f"--smtp-server={sendmail}",
                                 "--from=Alice <alice@example.org>", "--to=alice@example.org", "--8bit-encoding=UTF-8", str(patch)],
            "by mail": ["mail", "-s", "by mail", "alice@example.org"],
            "by mutt, ü": ["mutt", "-F", str(home.folder / "muttrc"), "-s", "by mutt, ü", "-a", str(patch), "--", "alice@example.org"],
        }
        missing = [argv[0] for argv in programs.values() if not shutil.which(argv[0])]
        if missing and not os.environ.get("CI"):
            raise Skip(f"not installed: {missing}")
        for subject, argv in programs.items():
            answer = subprocess.run(argv, input=b"text with \xc3\xbc\n.\nafter the dot\n", capture_output=True, cwd=home.folder,
                                    timeout=60 * system.SLOW, env=home.environment(MAILRC=str(home.folder / "mailrc"), TERM="dumb"))
            assert answer.returncode == 0, (argv, answer)
            message = parsed(delivered(subject).replace(b"\r\n", b"\n"))
            text = message.get_body().get_content()
            assert "ü\n" in text and ("PATCH" in subject or text.endswith(".\nafter the dot\n")), (subject, text)
            assert "alice@example.org" in str(message["From"]), message["From"]
        assert next(parsed(delivered("by mutt, ü")).iter_attachments()).get_filename() == patch.name
        mount.umount()

    @suite.case("kill -9 at any moment: each is sent once and filed once, or held as maybe sent")
    def _():
        home = sender()
        promised = []
        for turn in range(20 if suite.long else 5):
            mount = home.mount()
            for i in range(3):
                try:
                    (mount / f"outbox/{turn}-{i}.eml").write_text(letter(f"kill {turn}-{i}"))
                    promised.append(f"kill {turn}-{i}")
                except OSError:
                    pass
            time.sleep(suite.random.random() * 0.3)
            mount.kill()
        mount = home.mount()
        system.wait_until(lambda: not any(home.status()["outbox"][k] for k in ("waiting", "queued", "sending", "unfiled")), "nothing is under way", 120)
        maybe = {os.getxattr(mount / "outbox" / name, "user.mail.subject").decode() for name in box(mount)}
        suite.say(f"{len(promised)} promised, {len(maybe)} maybe sent")
        home.run("sync", "--wait", check=0)
        for subject in promised:
            if subject not in maybe:
                delivered(subject)
                assert len(copies(subject)) == 1, subject
        system.wait_until(lambda: not postfix.queued(), "Postfix has nothing left to deliver", 120)
        for subject in promised:
            assert len(stored("INBOX", subject)) <= 1, subject
        mount.umount()
