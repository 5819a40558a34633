#!/usr/bin/python3
import email
import email.policy
import hashlib
import os
import socket
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib import Suite, require_fuse  # noqa: E402
from lib import system  # noqa: E402
from lib.exim import Exim  # noqa: E402
from lib.smtp import SmtpServer  # noqa: E402
from lib.suite import PROGRAM, Skip  # noqa: E402

with Suite("sending: a real server, and faults", timeout=600) as suite:
    require_fuse()
    dovecot = suite.dovecot(extra="auth_username_format = %Ln")
    exim = Exim(suite, dovecot)

    def sender(**settings):
        settings = {"smtp": f"smtps://127.0.0.1:{exim.tls_port}", "from": "Alice Ünïcode <alice@example.org>", **settings}
        return suite.home(dovecot, **settings)

    def delivered(subject):
        """The message with this subject, as the server has it; waits for it"""
        def look():
            for path in sorted((dovecot.mail / "Maildir").glob("*/*")):
                if path.is_file() and path.parent.name in ("new", "cur"):
                    data = path.read_bytes()
                    found = email.message_from_bytes(data, policy=email.policy.default)
                    if str(found["Subject"]) == subject:
                        return data, found
            return None
        return system.wait_until(look, f"{subject!r} is delivered: {exim.log()[-1500:]}", 30)

    def sendmail(home, *arguments, text=b"", timeout=60):
        link = home.folder / "mailfs-sendmail"
        if not link.exists():
            link.symlink_to(PROGRAM)
        return subprocess.run([str(link), *arguments], input=text, env=home.environment(), capture_output=True, timeout=timeout * system.SLOW)

    def outbox(home):
        return home.status()["outbox"]

    @suite.case("without a mount: a message of two lines, by implicit TLS")
    def _():
        home = sender()
        answer = subprocess.run([str(PROGRAM), "send"], input=b"To: alice@example.org\nBcc: alice@secret.example\nSubject: least\n\nGr\xc3\xbc\xc3\x9fe\n.\n..two\n",
                                env=home.environment(), capture_output=True, timeout=60 * system.SLOW)
        assert answer.returncode == 0, (answer.stdout, answer.stderr)
        data, message = delivered("least")
        assert message["From"].addresses[0].display_name == "Alice Ünïcode"
        assert message.get_content() == "Grüße\n.\n..two\n"
        assert b"secret" not in data and message["Message-ID"] and message["Date"]
        assert "A=plain:alice" in exim.received()[-1] and "X=TLS" in exim.received()[-1], exim.received()

    @suite.case("by STARTTLS, built by options, with attachments")
    def _():
        home = sender(smtp=f"smtp://127.0.0.1:{exim.port}")
        attachment = home.folder / "Übersicht, neu.bin"
        attachment.write_bytes(os.urandom(300000))
        text = home.folder / "text"
        text.write_text("Hällo\n")
        home.run("send", "--to", "Älice <alice@example.org>", "-s", "with parts – all", "-a", attachment, "-a", text, text, check=0)
        _, message = delivered("with parts – all")
        parts = list(message.iter_attachments())
        assert parts[0].get_filename() == attachment.name and parts[0].get_content() == attachment.read_bytes()
        assert message.get_body().get_content() == "Hällo\n", message.get_body().get_content()
        assert len(parts) == 2

    @suite.case("a server that does not offer STARTTLS gets no password and no mail")
    def _():
        home = sender(smtp=f"smtp://127.0.0.1:{dovecot.lmtp_port}", connect_timeout="3s")
        answer = home.run("send", "--to", "alice@example.org", stdin=subprocess.DEVNULL)
        assert answer.returncode in (12, 15, 10), (answer.returncode, answer.stderr)
        assert "stays in the outbox" in answer.stderr, answer.stderr
        assert outbox(home)["queued"] == 1

    @suite.case("a wrong password: the message waits, nothing is lost")
    def _():
        home = sender(password="wrong")
        home.set(imap=f"imaps://127.0.0.1:{dovecot.port}")
        answer = home.run("send", "--to", "alice@example.org", "-s", "after the password")
        assert answer.returncode == 9, (answer.returncode, answer.stderr)
        home.set(password=dovecot.password)
        system.wait_until(lambda: not home.run("send", "--list", check=0).stderr, "the outbox can be listed")
        home_answer = subprocess.run([str(PROGRAM), "send", "--list"], env=home.environment(), capture_output=True, text=True)
        assert "after the password" in home_answer.stdout, home_answer
        sent = sendmail(home, "-q")
        assert sent.returncode == 0, sent
        delivered("after the password")

    @suite.case("some recipients refused, some put off: sent to the others")
    def _():
        home = sender()
        answer = home.run("send", "--to", "alice@example.org, no@example.org", "-s", "to some")
        assert answer.returncode == 14, (answer.returncode, answer.stderr, answer.stdout)
        delivered("to some")
        assert outbox(home)["failed"] == 1
        listing = home.run("send", "--list", check=0).stdout
        assert "failed/" in listing and "1 of 2" in listing, listing
        name = listing.split()[1]
        home.run("send", "--remove", name, check=0)
        assert outbox(home)["failed"] == 0
        answer = home.run("send", "--to", "later@example.org", "-s", "not now")
        assert answer.returncode == 14 and "greylisted" in answer.stderr, (answer.returncode, answer.stderr)
        assert outbox(home)["retrying"] == 1

    @suite.case("what is no message is refused at once, and what is too large")
    def _():
        home = sender()
        for text, words in ((b"Subject: x\n\nx\n", "no recipient"), (b"To: bob\n\n", "no @"), (b"just text\n", "header")):
            answer = subprocess.run([str(PROGRAM), "send"], input=text, env=home.environment(), capture_output=True)
            assert answer.returncode == 1 and words in answer.stderr.decode(), (text, answer)
        answer = home.run("send")               # as from cron
        assert answer.returncode == 1 and "mailfs-sendmail -q" in answer.stderr, answer
        assert sum(value for value in outbox(home).values() if isinstance(value, int)) == 0
        big = home.folder / "big"
        big.write_bytes(os.urandom(3000000))
        answer = home.run("send", "--to", "alice@example.org", "-s", "big", "-a", big)
        assert answer.returncode == 15 and "at most" in answer.stderr, (answer.returncode, answer.stderr)   # now the limit is known
        answer = home.run("send", "--to", "alice@example.org", "-s", "big", "-a", big)
        assert answer.returncode == 1 and "at most" in answer.stderr, (answer.returncode, answer.stderr)

    @suite.case("through a mount: it rests, can be taken back, then goes; many in order")
    def _():
        home = sender(send_delay="1h")
        mount = home.mount()
        home.run("send", "--to", "alice@example.org", "-s", "mistake", check=0)
        assert outbox(home)["waiting"] == 1
        name = home.run("send", "--list", check=0).stdout.split()[1]
        home.run("send", "--remove", name, check=0)
        mount.umount()
        home.set(send_delay="2s")
        mount = home.mount()
        for i in range(20):
            home.run("send", "--to", "alice@example.org", "-s", f"row {i}", check=0)
        system.wait_until(lambda: sum(v for v in outbox(home).values() if isinstance(v, int)) == 0, "the outbox is empty", 60)
        for i in range(20):
            delivered(f"row {i}")
        text = home.run("status", check=0).stdout
        assert "outbox: empty" in text, text
        assert not any("mistake" in line for line in exim.received())
        mount.umount()

    @suite.case("sync --wait FILE of outbox/ returns when it is sent, or says why it is not")
    def _():
        home = sender(send_delay="2s")
        mount = home.mount()
        path = mount / "outbox/waited.eml"
        path.write_text("To: alice@example.org\nSubject: waited\n\nx\n")
        answer = home.run("sync", path)
        assert answer.returncode == 15 and "waiting until" in answer.stderr, answer
        answer = home.run("sync", "--wait", "waited.eml", cwd=mount / "outbox", check=0)
        assert answer.stderr == "" and "waited.eml" in answer.stdout, answer
        assert not path.exists()
        delivered("waited")
        several = [mount / f"outbox/several-{i}.eml" for i in range(3)]
        for i, one in enumerate(several):
            one.write_text(f"To: alice@example.org\nSubject: several {i}\n\nx\n")
        answer = home.run("sync", "--wait", *several, check=0)     # they go together: the others are gone when it is their turn
        assert answer.stderr == "" and "several-0.eml" in answer.stdout, answer
        assert not any(one.exists() for one in several)
        path.write_text("To: alice@example.org\nSubject: taken\n\nx\n")
        asked = system.spawn([str(PROGRAM), "sync", "--wait", str(path)], env=home.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        path.unlink()
        said = asked.communicate(timeout=60 * system.SLOW)[1].decode()
        assert asked.returncode in (8, 14) and said, (asked.returncode, said)   # it was asked for before, or behind that
        answer = home.run("sync", "--wait", path)
        assert answer.returncode == 8 and "no message waited.eml" in answer.stderr, answer   # the last one of that name was not sent
        path.with_name("early.eml").write_text("To: alice@example.org\nSubject: early\n\nx\n")
        delivered("early")
        system.wait_until(lambda: not path.with_name("early.eml").exists(), "it has left")
        for where, name in ((None, path.with_name("early.eml")), (mount / "outbox", "early.eml")):
            answer = home.run("sync", "--wait", name, cwd=where)
            assert answer.returncode == 0 and not answer.stderr, answer
        answer = home.run("sync", path.with_name("early.eml"))
        assert answer.returncode == 8 and "No such file" in answer.stderr, answer
        (mount / "outbox/half.eml").touch()
        answer = home.run("sync", "--wait", mount / "outbox/half.eml")
        assert answer.returncode == 15 and "empty: not sent" in answer.stderr, answer
        mount.umount()

    @suite.case("who holds the account ends before it has answered: whether the message was taken is told all the same")
    def _():
        home = sender()
        folder = home.folder / "run/mailfs"
        folder.mkdir(mode=0o700, parents=True)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(folder / "work.sock"))
            listener.listen()

            def ask(takes, *arguments, answer=b""):
                """the exit code and the words, where the holder has taken the message or not, and says no more than that"""
                asked = system.spawn(arguments, env=home.environment(), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
                asked.stdin.write(b"To: alice@example.org\n\nx\n")
                asked.stdin.close()
                holder, _ = listener.accept()
                with holder, holder.makefile() as lines:
                    left = home.folder / "state/mailfs/work/outbox" / lines.readline().split()[-1]
                    assert left.is_file()
                    if takes:
                        left.unlink()
                    holder.sendall(answer)
                said = asked.stderr.read().decode()
                assert asked.wait(60 * system.SLOW) is not None and not left.exists()
                return asked.returncode, said

            link = home.folder / "mailfs-sendmail"
            link.symlink_to(PROGRAM)
            code, said = ask(True, str(PROGRAM), "send")
            assert code == 7 and "in the outbox all the same" in said, (code, said)
            code, said = ask(False, str(PROGRAM), "send")
            assert code == 7 and "ended before" in said and "all the same" not in said, (code, said)
            code, said = ask(True, str(PROGRAM), "send", "--draft")
            assert code == 7 and "a draft all the same" in said, (code, said)
            code, said = ask(True, str(PROGRAM), "send", answer=b'{"exit":14,"error":"taken out again"}\n')
            assert code == 14 and "taken out again" in said and "all the same" not in said, (code, said)
            code, said = ask(True, str(link), "alice@example.org")
            assert code == 0, (code, said)                      # else it would be handed in once more
            code, said = ask(False, str(link), "alice@example.org")
            assert code == 74, (code, said)

    @suite.case("send = manual, and mailfs send's release by a running mount")
    def _():
        home = sender(send="manual", send_delay="0")
        mount = home.mount()
        home.run("send", "--to", "alice@example.org", "-s", "by hand", check=0)
        time.sleep(0.5)
        assert outbox(home)["queued"] == 1
        waiting = next(path for path in (mount / "outbox").iterdir() if path.is_file())
        answer = home.run("sync", "--wait", waiting)
        assert answer.returncode == 15 and "until \"mailfs send\"" in answer.stderr, answer
        assert sendmail(home, "-q").returncode == 0
        delivered("by hand")
        mount.umount()

    @suite.case("a message in one of several outboxes is settled by its name")
    def _():
        home = sender(smtp="smtps://127.0.0.1:1")
        text = home.config.read_text()
        home.config.write_text(text + text.replace("[account work]", "[account other]").replace("<alice@", "<other@"))
        for author in ("alice", "other"):
            home.run("send", stdin=None, input=f"From: {author}@example.org\nTo: bob@example.org\nSubject: {author}\n\nx\n", check=10)
        name = home.run("--account", "other", "send", "--list", check=0).stdout.split()[1]
        gone = home.run("send", "--remove", name, check=0)
        assert gone.stderr == "" and name in gone.stdout, gone
        assert name in home.run("send", "--remove", name, check=8).stderr
        assert "alice" in home.run("send", "--list", check=0).stdout

    @suite.case("mailfs-sendmail: -t, -i, -f, -F, recipients as arguments, a local name")
    def _():
        home = sender()
        assert sendmail(home, "-t", text=b"To: alice@example.org\nSubject: dash t\n\nbody\n.\nnot this\n").returncode == 0
        assert delivered("dash t")[1].get_content() == "body\n"
        assert sendmail(home, "-oi", "-FCron Daemon", "-B8BITMIME", "-oem", "root", text=b"From: root (Cron Daemon)\nTo: root\nSubject: cron\n\na\n.\nb\n").returncode == 0
        _, message = delivered("cron")
        assert message.get_content() == "a\n.\nb\n" and message["From"].addresses[0].display_name == "Cron Daemon"
        answer = sendmail(home, "-i", "-f", "alice@example.org", "--", "alice@example.org", text=b"Subject: args\n\nx\n")
        assert answer.returncode == 0, answer
        delivered("args")
        assert sendmail(home, "root", text=b"no header, no empty line\n").returncode == 0
        assert system.wait_until(lambda: any(b"\nno header, no empty line\n" in path.read_bytes() for path in (dovecot.mail / "Maildir").glob("[nc][eu][wr]/*")),
                                 "text alone is delivered", 30)
        # cronie, and what else says so in the fields alone
        answer = sendmail(home, "-FCronDaemon", "-i", "-odi", "-oem", "-oi", "-t", "-f", "root", text=b"From: (Cron Daemon) <root>\nTo: root\nSubject: cronie\n\nx\n")
        assert answer.returncode == 0, answer
        _, message = delivered("cronie")
        assert message["From"].addresses[0].addr_spec == "alice@example.org" and str(message["To"]) == "root", message
        for name, null in ("word", "<>"), ("nothing", ""):
            answer = sendmail(home, "-i", "-f", null, "--", "alice@example.org", text=f"Subject: null as {name}\n\nx\n".encode())
            assert answer.returncode == 0, answer
            data, message = delivered(f"null as {name}")
            assert message["From"].addresses[0].addr_spec == "alice@example.org" and data.startswith(b"Return-Path: <>"), data
        assert sendmail(home, "-bs").returncode == 64
        assert sendmail(home, "-i", text=b"x").returncode == 64
        assert sendmail(home, "-t", text=b"To: nobody here\n\n").returncode == 65
        assert sendmail(home, "no@example.org", text=b"Subject: x\n\n").returncode == 69
        assert "args" not in sendmail(home, "-bp").stdout.decode()

    def drafts():
        """[(flags, message)] of Drafts at the server"""
        with dovecot.client() as client:
            flags = client.flags("Drafts")
            return [(flags[uid], email.message_from_bytes(data.replace(b"\r\n", b"\n"), policy=email.policy.default)) for uid, data in sorted(client.bodies("Drafts").items())]

    def draft(home, *arguments, text=b"", code=0):
        answer = subprocess.run([str(PROGRAM), "send", "--draft", *arguments], input=text, env=home.environment(), capture_output=True,
                                timeout=60 * system.SLOW)
        assert answer.returncode == code, answer
        return answer

    @suite.case("--draft: into Drafts, without a mount, to nobody yet; by an account that only has IMAP too")
    def _():
        home = sender()
        before = len(exim.received())
        answer = draft(home, "-s", "plan – one", text="Grüße\n".encode())
        assert answer.stdout.startswith(b"draft      Drafts/"), answer
        flags, message = drafts()[-1]
        assert {"\\Draft", "\\Seen"} <= flags and message["Subject"] == "plan – one" and message.get_content() == "Grüße\n"
        assert message["From"].addresses[0].addr_spec == "alice@example.org" and message["Date"] and message["Message-ID"]
        home.set(smtp=None)
        draft(home, text=b"To: bob, somebody else\nBcc: carol\nSubject: plan two\nMessage-ID: <plan@example.org>\n\nx\n")
        draft(home, text=b"To: bob, somebody else\nBcc: carol\nSubject: plan two\nMessage-ID: <plan@example.org>\n\nx and y\n")
        assert [m.get_content() for _, m in drafts() if m["Subject"] == "plan two"] == ["x\n", "x and y\n"]
        assert str(drafts()[-1][1]["Bcc"]) == "carol"
        assert b"header" in draft(home, text=b"just text\n", code=1).stderr
        assert len(exim.received()) == before

    @suite.case("--draft: through a mount, shown at once, and offline: there with the next connection")
    def _():
        home = sender(poll="1h")
        mount = home.mount()
        draft(home, "--to", "bob@example.org", "-s", "plan three", "-a", "/etc/hostname", text=b"soon\n")
        name = next(n for n in mount.names("Drafts") if "plan-three" in n)
        assert set(os.getxattr(mount / "Drafts" / name, "user.mail.flags").split()) == {b"\\Draft", b"\\Seen"}
        system.wait_until(lambda: any(m["Subject"] == "plan three" for _, m in drafts()), "the server has it", 30)
        home.run("disconnect", "work", check=0)
        draft(home, "-s", "plan four", text=b"later\n")
        assert any("plan-four" in n for n in mount.names("Drafts")) and not any(m["Subject"] == "plan four" for _, m in drafts())
        home.run("connect", "work", check=0)
        system.wait_until(lambda: [m["Subject"] for _, m in drafts()].count("plan four") == 1, "the server has that too", 60)
        mount.umount()
        imap = home.settings["imap"]
        home.set(imap=f"imaps://127.0.0.1:{system.free_ports(1)[0]}")     # nobody is there, and nobody is mounted
        draft(home, "-s", "plan five", text=b"still later\n")
        home.set(imap=imap)
        home.run("sync", "--once", "--wait", check=0)
        system.wait_until(lambda: [m["Subject"] for _, m in drafts()].count("plan five") == 1, "and that one", 60)

    @suite.case("git send-email")
    def _():
        home = sender()
        if b"options" not in subprocess.run(["git", "send-email", "-h"], capture_output=True).stdout:
            raise Skip("no git send-email")
        assert sendmail(home, "-bp").returncode in (0, 78)   # makes the link
        patch = home.folder / "0001-x.patch"
        patch.write_text("From 0123456789012345678901234567890123456789 Mon Sep 17 00:00:00 2001\nFrom: Alice <alice@example.org>\n"
                         "Date: Thu, 26 Nov 2026 10:00:00 +0000\nSubject: [PATCH] a change\n\nMessage with ü\n---\n x | 1 +\n")
        answer = subprocess.run(["git", "send-email", "--quiet", "--confirm=never", "--suppress-cc=all", f"--smtp-server={home.folder}/mailfs-sendmail",
                                 "--from=Alice <alice@example.org>", "--to=alice@example.org", "--8bit-encoding=UTF-8", str(patch)],
                                env=home.environment(), capture_output=True, cwd=home.folder, timeout=60 * system.SLOW)
        assert answer.returncode == 0, answer
        assert "ü" in delivered("[PATCH] a change")[1].get_content()

    @suite.case("kill -9 of a mount with mail waiting: it goes out once with the next one")
    def _():
        home = sender(send_delay="1h")    # none is under way when it is killed: what is in doubt waits for a person
        mount = home.mount()
        for i in range(5):
            home.run("send", "--to", "alice@example.org", "-s", f"killed {i}", check=0)
        mount.kill()
        mount = home.mount()
        assert outbox(home)["waiting"] == 5
        assert sendmail(home, "-q").returncode == 0
        system.wait_until(lambda: sum(v for v in outbox(home).values() if isinstance(v, int)) == 0, "the outbox is empty", 60)
        for i in range(5):
            delivered(f"killed {i}")
        time.sleep(0.5)
        for i in range(5):
            assert len(dovecot.stored("INBOX", f"killed {i}")) == 1
        mount.umount()

    @suite.case("100 MB of attachment in little memory")
    def _():
        big = Exim(suite, dovecot, options="")
        big.stop()
        big.options = ""
        text = big.configuration().replace("message_size_limit = 2M", "message_size_limit = 300M")
        big.configuration = lambda: text
        big.start()
        home = sender(smtp=f"smtps://127.0.0.1:{big.tls_port}")
        attachment = home.folder / "big.bin"
        attachment.write_bytes(os.urandom(1 << 20) * 100)
        started = time.monotonic()
        process = subprocess.Popen([str(PROGRAM), "send", "--to", "alice@example.org", "-s", "100 MB", "-a", str(attachment)], stdin=subprocess.DEVNULL,
                                   env=home.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        peak = 0
        while process.poll() is None:
            try:
                peak = max(peak, system.anonymous_kb(process.pid))
            except OSError:
                pass
            time.sleep(0.02)
        assert process.returncode == 0, process.stderr.read()
        suite.say(f"{time.monotonic() - started:.1f} s, {peak} KiB")
        assert peak < 40000 or system.SLOW > 1, peak
        _, message = delivered("100 MB")
        assert hashlib.sha256(next(message.iter_attachments()).get_content()).digest() == hashlib.sha256(attachment.read_bytes()).digest()

    def faulty(**options):
        server = SmtpServer(**options)
        suite.callback(server.stop)
        return server

    def by(server, **settings):
        return sender(smtp=f"smtp://127.0.0.1:{server.port}", tls="none", send_delay="0", **settings)

    def send(home, subject, code=0):
        answer = home.run("send", "--to", "bob@example.org", "-s", subject)
        assert code is None or answer.returncode == code, (answer.returncode, answer.stderr)
        return answer

    @suite.case("cut at every stage: nothing is lost, nothing is sent twice")
    def _():
        for stage in ("greeting", "mail", "rcpt", "data", "dot", "answer"):
            cuts = [stage]

            def fail(where, subject):
                return "close" if cuts and where == cuts[0] and cuts.pop() else None

            server = faulty(fail=fail)
            home = by(server)
            answer = send(home, stage, code=None)
            counts = outbox(home)
            if stage in ("dot", "answer"):      # the end had left: for the user to say
                assert answer.returncode == 15 and counts["maybe_sent"] == 1, (stage, answer, counts)
                sendmail(home, "-q")
                assert server.accepted == ([stage] if stage == "answer" else [])
                name = home.run("send", "--list", check=0).stdout.split()[1]
                home.run("send", "--sent" if stage == "answer" else "--retry", name, check=0)
            sendmail(home, "-q")
            assert server.accepted == [stage], (stage, server.accepted)
            assert sum(v for v in outbox(home).values() if isinstance(v, int)) == 0

    @suite.case("one message that waits holds up no other, and 421 in the middle")
    def _():
        said = {"later": "451 4.3.0 later", "gone": "421 4.3.2 going down"}
        server = faulty(fail=lambda stage, subject: said.pop(subject, None) if stage == "dot" else None)
        home = by(server, send="manual")
        mount = home.mount()
        for subject in ("gone", "later", "third"):
            send(home, subject)
        sendmail(home, "-q")
        system.wait_until(lambda: server.accepted == ["third"] and outbox(home)["retrying"] == 2, "the third is sent", 30)
        sendmail(home, "-q")
        system.wait_until(lambda: sorted(server.accepted) == ["gone", "later", "third"], "all are sent", 30)
        mount.umount()

    @suite.case("who tells a running mount to send hears of the attempt made for him, not of the last one")
    def _():
        said = ["421 4.3.2 closed for now"]
        server = faulty(fail=lambda stage, subject: said[-1] if stage == "greeting" else None)
        home = by(server, send="manual")
        mount = home.mount()
        send(home, "late")
        for words in ("closed for now", "closed for good"):
            said.append(f"421 4.3.2 {words}")
            answer = sendmail(home, "-q")
            assert answer.returncode == 75 and words in answer.stderr.decode(), answer
        said.append(None)
        answer = sendmail(home, "-q")
        assert answer.returncode == 0 and server.accepted == ["late"], answer
        mount.umount()

    @suite.case("kill -9 at any moment: each message is sent once, or held as maybe sent")
    def _():
        server = faulty(delay=0.05)
        home = by(server)
        promised = []
        for turn in range(40 if suite.long else 12):
            mount = home.mount()
            for i in range(3):
                subject = f"{turn}-{i}"
                if send(home, subject, code=None).returncode == 0:
                    promised.append(subject)
            time.sleep(suite.random.random() * 0.15)
            mount.kill()
        mount = home.mount()
        system.wait_until(lambda: not any(outbox(home)[k] for k in ("waiting", "queued", "sending")), "nothing is under way", 60)
        listing = home.run("send", "--list", check=0).stdout
        held = [line for line in listing.split("\n") if line.startswith("maybe-sent")]
        maybe = {line.split("recipients")[1].split()[0] for line in held}
        suite.say(f"{len(promised)} promised, {len(maybe)} maybe sent")
        assert all(server.accepted.count(s) == 1 for s in promised if s not in maybe), (server.accepted, maybe)
        assert all(server.accepted.count(s) <= 1 for s in set(server.accepted)), server.accepted
        assert outbox(home)["failed"] == 0, listing
        mount.umount()

    @suite.case("unmounting while the server thinks: its answer is waited for")
    def _():
        server = faulty(delay=2.0)
        home = by(server)
        mount = home.mount()
        send(home, "slow")
        system.wait_until(lambda: server.accepted == ["slow"], "the server has the message", 30)
        mount.umount()
        assert sum(v for v in outbox(home).values() if isinstance(v, int)) == 0
