#!/usr/bin/python3
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib import Suite, corpus, require_fuse, wait_until  # noqa: E402

MISSING = [[], ["QRESYNC"], ["QRESYNC", "CONDSTORE"], ["LIST-STATUS"], ["IDLE", "NOTIFY"], ["ESEARCH"], ["UIDPLUS"], ["SPECIAL-USE"],
           ["NAMESPACE", "ID", "ENABLE", "QRESYNC"], ["LITERAL+", "SASL-IR", "COMPRESS=DEFLATE", "UNSELECT"]]
BARE = "IMAP4rev1"

with Suite("servers that can less", timeout=600) as suite:
    require_fuse()

    def same(mount, server, mailboxes):
        with server.client() as other:
            for mailbox in mailboxes:
                on_server = mailbox.replace("/", server.delimiter)
                assert mount.digests(mailbox) == other.digests(on_server), mailbox
                truth = {uid: flags - {"\\Recent"} for uid, flags in other.flags(on_server).items()}
                found = {uid: set(os.getxattr(p, "user.mail.flags").decode().split()) for uid, p in mount.by_uid(mailbox).items()}
                assert found == truth, (mailbox, found, truth)

    def change(server, mailboxes, step):
        """one added, one gone, one flagged, everywhere"""
        with server.client() as other:
            for mailbox in mailboxes:
                on_server = mailbox.replace("/", server.delimiter)
                other.append(on_server, corpus.message(subject=f"added {step}", when=corpus.BASE + step))
                other.select(on_server)
                uids = other.uids()
                other.store(on_server, uids[1], "+FLAGS", "\\Flagged")
                other.store(on_server, uids[2], "-FLAGS", "\\Seen")
                other.expunge(on_server, uids[0])

    def examine(label, **options):
        server = suite.dovecot(**options)
        mailboxes = ["INBOX", "INBOX/Lists/Deep"] if server.variant == "maildir++" else ["INBOX", "Lists/Deep"]
        server.fill("INBOX", corpus.small(40, seed=2))
        with server.client() as other:
            other.create(mailboxes[1].replace("/", server.delimiter))
            for i in range(6):
                other.append(mailboxes[1].replace("/", server.delimiter), corpus.message(subject=f"list {i}", when=corpus.BASE + i))
        home = suite.home(server, poll="24h")
        mount = home.mount()
        home.wait_link("online")
        same(mount, server, mailboxes)
        change(server, mailboxes, 1)
        home.run("sync", check=0)
        same(mount, server, mailboxes)
        mount.umount()
        change(server, mailboxes, 2)       # while nobody looks
        again = home.mount()
        home.wait_link("online")
        home.run("sync", check=0)
        same(again, server, mailboxes)
        server.kill()
        server.start()
        home.run("connect", check=0)
        home.wait_link("online")
        change(server, mailboxes, 3)
        home.run("sync", check=0)
        wait_until(lambda: same(again, server, mailboxes) is None, "everything is as the server has it")
        again.umount()

    for missing in MISSING[:2] if suite.short else MISSING:
        @suite.case("without " + " ".join(missing) if missing else "with everything")
        def _():
            examine("", without=[name for name in missing if name != "SPECIAL-USE"], special_use="SPECIAL-USE" not in missing)

    @suite.case("flags alone, changed by another client, where no number tells of them: sync sees them, with a mount and without")
    def _():
        server = suite.dovecot(without=["NOTIFY", "IDLE", "CONDSTORE", "QRESYNC"])
        for mailbox in ("INBOX", "Quiet"):
            server.fill(mailbox, corpus.small(5, seed=4))
        home = suite.home(server, poll="24h")
        mount = home.mount()
        home.run("sync", check=0)
        for flag, mounted in (("\\Answered", True), ("\\Flagged", False)):
            with server.client() as other:
                for mailbox in ("INBOX", "Quiet"):
                    other.select(mailbox)
                    other.store(mailbox, other.uids()[0], "+FLAGS", flag)
            if not mounted:
                mount.umount()
            home.run("sync", check=0)
            if not mounted:
                home.set(imap="imaps://127.0.0.1:1")        # what is seen now is from the index
                mount = home.mount("offline")
            for mailbox in ("INBOX", "Quiet"):
                assert sum(flag.encode() in os.getxattr(path, "user.mail.flags") for path in mount.messages(mailbox)) == 1, (mailbox, flag)
        mount.umount()

    @suite.case("IMAP4rev1 and nothing else")
    def _():
        examine("", extra=f"protocol imap {{\n imap_capability = {BARE}\n}}")

    @suite.case("delimiter '.' and everything below INBOX.")
    def _():
        examine("", variant="maildir++")

    @suite.case("delimiter '.' and INBOX., IMAP4rev1 and nothing else", when=not suite.short)
    def _():
        examine("", variant="maildir++", extra=f"protocol imap {{\n imap_capability = {BARE}\n}}")

    @suite.case("mdbox, without CONDSTORE", when=not suite.short)
    def _():
        examine("", variant="mdbox", without=["CONDSTORE", "QRESYNC"])

    @suite.case("every way to log in that Dovecot has", when=not suite.short)
    def _():
        server = suite.dovecot()
        server.fill("INBOX", corpus.small(3))
        for auth in ("plain", "login", "cram-md5", "scram-sha-1", "scram-sha-256"):
            mount = suite.home(server, auth=auth).mount()
            assert len(mount.names()) == 3, auth
            mount.umount()

    @suite.case("whoever answers, over TLS that is not verified, is not told the password")
    def _():
        server = suite.dovecot()
        server.fill("INBOX", corpus.small(3))
        for settings, method in (({}, "PLAIN"), ({"tls": "none", "tls_ca_file": None}, "SCRAM-SHA-256")):
            mount = suite.home(server, **settings).mount()
            assert len(mount.names()) == 3
            mount.umount()
            wait_until(lambda: f"method={method}," in (server.folder / "log").read_text(errors="replace"), f"the server says {method}")

    @suite.case("XOAUTH2 and OAUTHBEARER with a token from a command")
    def _():
        for auth in ("xoauth2", "oauthbearer"):
            server = suite.scripted(capabilities="IMAP4rev1 SASL-IR IDLE AUTH=XOAUTH2 AUTH=OAUTHBEARER", password="token-1",
                                    mailboxes={"INBOX": [corpus.message(subject="oauth")]})
            settings = {**server.settings(), "password": None, "password-command": "printf 'token-1\\n'"}
            mount = suite.home(**settings, auth=auth).mount()
            assert len(mount.digests()) == 1
            mount.umount()
            assert any(auth.upper() in line for line in server.commands("AUTHENTICATE")), server.commands()[:5]

    @suite.case("a message that cannot be parsed has a file all the same")
    def _():
        boxes = {"INBOX": [corpus.message(subject=f"m{i}", when=corpus.BASE + i) for i in range(5)]}
        server = suite.scripted(mailboxes=boxes)
        normal = type(server)  # rows of uid 3 are broken unless only little is asked for
        del normal
        from lib.scripted import Session
        row = Session.row

        def broken(self, number, message, items):
            if message.uid == 3 and "HEADER" in items.upper() and self.server is server:
                return b'* 3 FETCH (UID 3 FLAGS () INTERNALDATE "broken (\r\n'
            return row(self, number, message, items)
        Session.row = broken
        try:
            mount = suite.home(**server.settings()).mount()
            assert len(mount.names()) == 5, mount.names()
            assert sorted(mount.by_uid()) == [1, 2, 3, 4, 5]
            mount.umount()
        finally:
            Session.row = row
