#!/usr/bin/python3
import os
import re
import sys
import unicodedata

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib import Suite, corpus, digest, errno_of, read, require_fuse  # noqa: E402
from lib.scripted import Mailbox  # noqa: E402

KEY = re.compile(r"[a-z2-7]{8}(-\d+)?$")


def name_is_kept(char):
    return unicodedata.category(char)[0] in "LMN" or char in ".@+-_"


with Suite("names: of messages and of mailboxes", timeout=400) as suite:
    require_fuse()
    zoo = corpus.names_zoo()
    server = suite.scripted(mailboxes={"INBOX": zoo})
    home = suite.home(**server.settings())
    mount = home.mount()

    @suite.case("every message has one file, and its name obeys the rules")
    def _():
        names = mount.names()
        assert len(names) == len(zoo) == len(set(names)) == len(os.listdir(mount / "INBOX")), (len(names), len(zoo))
        for name in names:
            stem = name.removesuffix(".eml")
            assert len(name.encode()) <= 200, name
            assert not name.startswith(("-", ".")) and "/" not in name and "\0" not in name
            assert unicodedata.is_normalized("NFC", name), name
            assert all(name_is_kept(c) for c in stem), (name, [c for c in stem if not name_is_kept(c)])
            assert "--" not in stem.rsplit("_", 1)[0], name
            assert KEY.search(stem.rsplit("_", 1)[-1]), name
            assert re.match(r"\d{4}-\d\d-\d\d_", name), name

    def name_of(mid):
        for path in mount.messages():
            if os.getxattr(path, "user.mail.message-id").decode().strip("<>") == mid:
                return path.name
        raise AssertionError(mid)

    @suite.case("subjects become what a person expects")
    def _():
        texts = {i: s for i, s in enumerate(zoo)}
        assert "a-b-c" in name_of("s2@zoo")
        assert "etc-passwd" in name_of("s5@zoo")
        assert "中文主题-预算" in name_of("s12@zoo"), name_of("s12@zoo")
        assert "مرحبا-بالعالم" in name_of("s13@zoo")
        assert "\u202e" not in name_of("s15@zoo") and "evil" in name_of("s15@zoo")
        assert name_of("s0@zoo").startswith("2020-09-13_Zoo_")
        assert len(name_of("s20@zoo").encode()) <= 200 and "漢漢漢" in name_of("s20@zoo")
        assert len(texts) == len(zoo)

    @suite.case("dates: the Date field's day in UTC, the internal date where it is missing or absurd")
    def _():
        assert name_of("d9@zoo").startswith("2026-11-21_"), name_of("d9@zoo")     # 23:30 -0800
        for missing in (0, 1, 2, 3, 8, 10):
            assert name_of(f"d{missing}@zoo").startswith("2020-09-13_"), (missing, name_of(f"d{missing}@zoo"))

    @suite.case("twins are told apart in the order they came, and both can be read")
    def _():
        twins = [path for path in mount.messages() if "_twins_" in path.name]
        assert len(twins) == 3, twins
        keys = sorted(path.name.removesuffix(".eml").rsplit("_", 1)[-1] for path in twins)
        assert keys[1] == keys[0] + "-2" and keys[2] == keys[0] + "-3", keys
        assert b"one" in read(next(p for p in twins if "-2." not in p.name and "-3." not in p.name))

    @suite.case("names are the same on a second machine, whatever the order of arrival")
    def _():
        reordered = Mailbox()
        for data in reversed(zoo):
            reordered.add(data)
        elsewhere = suite.scripted(mailboxes={"INBOX": reordered})
        second = suite.home(**elsewhere.settings()).mount()
        different = [n for n in set(second.names()) ^ set(mount.names()) if "_twins_" not in n]
        assert not different, different[:6]
        second.umount()

    @suite.case("every name can be looked up anew and has the right content")
    def _():
        mount.umount()
        again = home.mount()
        for uid, path in again.by_uid().items():
            with open(path, "rb") as f:
                assert f.read() == zoo[uid - 1], path
        again.umount()

    # --- mailboxes

    printable = "".join(map(chr, range(0x20, 0x7f)))
    boxes = {"INBOX": [b"Subject: i\r\n\r\nx\r\n"]}
    odd = [f"c{c}c" for c in printable if c != "/"] + [
        "&", "%", "*", '"', "\\", "a&b", "&-", "~", "Grüße", "中文", "🎉", "e\u0301", ".hidden", "..dots", "-rf", "x" * 200, "ü" * 100,
        "Case", "CASE", "case", " leading", "trailing ", "a b", "outbox", "search", "outbox/failed", "new\nline"[:3]]
    for name in odd:
        boxes.setdefault(name, [corpus.message(subject="in " + name.encode("ascii", "replace").decode())])
    boxes["/".join(["deep"] * 20)] = [corpus.message(subject="deep")]
    boxes["empty"] = []
    boxes["parent"] = Mailbox(attributes="\\Noselect \\HasChildren")
    boxes["parent/child"] = [corpus.message(subject="child")]
    expected = {name: len(box.messages) if isinstance(box, Mailbox) else len(box) for name, box in boxes.items()}

    boxes_server = suite.scripted(mailboxes=boxes)
    boxes_home = suite.home(**boxes_server.settings())
    boxed = boxes_home.mount()

    def shown(name):
        parts = name.split("/")
        if parts[0] in ("outbox", "search"):
            parts[0] += "~mailbox"
        return "/".join(parts)

    @suite.case("mailbox names: printable ASCII, quotes, percent, stars, backslashes, other scripts, 200 bytes, 20 levels")
    def _():
        wrong = {}
        for name, count in expected.items():
            where = boxed.where / shown(name)
            try:
                found = len([n for n in os.listdir(where) if n.endswith(".eml")])
            except OSError as error:
                found = repr(error)
            if found != count:
                wrong[name] = found
        assert not wrong, wrong

    @suite.case("and their messages are theirs")
    def _():
        for name, box in boxes_server.mailboxes.items():
            if box.messages:
                path, = [p for p in (boxed.where / shown(name)).iterdir() if p.name.endswith(".eml")]
                assert path.read_bytes() == box.messages[0].data, name

    @suite.case("two that differ in case only, an empty one, a parent without messages")
    def _():
        assert {"Case", "CASE", "case"} <= set(os.listdir(boxed.where))
        assert os.listdir(boxed / "empty") == []
        assert os.listdir(boxed / "parent") == ["child"]
        assert errno_of(os.stat, boxed / "cAsE") == "ENOENT"

    @suite.case("names that no file can have are escaped reversibly")
    def _():
        hostile = suite.scripted(mailboxes={"INBOX": [], "a": [], ".": [corpus.message(subject="dot")], "..": [corpus.message(subject="dots")], "y" * 300: [corpus.message(subject="long")]})
        third = suite.home(**hostile.settings()).mount()
        names = os.listdir(third.where)
        assert len(set(names) - {".nomedia"}) == 5 and all(len(n.encode()) <= 255 for n in names), names
        for name in set(names) - {".nomedia"}:
            assert os.path.isdir(third / name) and os.path.realpath(third / name) == str(third / name)
        third.umount()

    @suite.case("2,000 mailboxes")
    def _():
        many = {"INBOX": []} | {f"lists/group {i // 100}/list {i}": [] for i in range(2000)}
        crowd = suite.scripted(mailboxes=many)
        fourth = suite.home(**crowd.settings()).mount()
        found = sum(len(folders) for _, folders, _ in os.walk(fourth.where))
        assert found == 2000 + 20 + 2, found
        fourth.umount()

    @suite.case("from Dovecot: what it can name, comes through", when=not suite.short)
    def _():
        dovecot = suite.dovecot(variant="mdbox")
        wanted = ["a&b", "100%", "q\"uote", "back\\slash", "Grüße/Ärger", "中文", "sp ace", "(paren)", "{brace}", "[x]", "a'b", "x;y", "🎉"]
        with dovecot.client() as other:
            created = []
            for name in wanted:
                try:
                    other.create(name)
                    other.append(name, corpus.message(subject="in"))
                    created.append(name)
                except AssertionError:
                    suite.say(f"Dovecot does not want {name!r}")
            assert len(created) > 8
        fifth = suite.home(dovecot).mount()
        for name in created:
            assert len(fifth.names(name)) == 1, name
            assert digest(fifth.messages(name)[0])
        fifth.umount()
