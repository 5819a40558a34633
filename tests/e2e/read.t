#!/usr/bin/python3
import errno
import os
import re
import stat
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib import Suite, corpus, digest, errno_of, read, require_fuse, wait_until  # noqa: E402

NAME = re.compile(r"^\d{4}-\d\d-\d\d_[^_/]+_.*_?[a-z2-7]{8}(-\d+)?\.eml$")


def fill(server):
    inner = "INBOX/Projects" if server.variant == "maildir++" else "Projects"
    deeper = inner + "/Deep/Deeper"
    server.fill("INBOX", corpus.realistic(30, seed=3))
    with server.client() as other:
        for name, seed in ((inner, 4), (deeper, 5)):
            other.create(name.replace("/", server.delimiter))
            for data, when, flags in corpus.realistic(5, seed=seed):
                other.append(name.replace("/", server.delimiter), data.replace(b"\n", b"\r\n"), "(\\Seen)" if flags else "")
    return ["INBOX", inner, deeper]


with Suite("reading: Dovecot with Maildir, with mdbox, and with an INBOX. namespace", timeout=400) as suite:
    require_fuse()

    def examine(variant):
        server = suite.dovecot(variant=variant)
        mailboxes = fill(server)
        home = suite.home(server)
        mount = home.mount()

        @suite.case(f"{variant}: mailboxes are directories")
        def _():
            with server.client() as other:
                listed = other.command("list")
            assert os.path.isdir(mount / "INBOX")
            found = {os.path.relpath(folder, mount.where) for folder, _, _ in os.walk(mount.where)} - {"."}
            assert set(mailboxes) <= found, found
            assert len(found) == len(listed) + (1 if variant == "maildir++" else 0) or len(found) >= len(listed), (found, listed)

        @suite.case(f"{variant}: every byte of every message, and its size before it is read")
        def _():
            with server.client() as other:
                for mailbox in mailboxes:
                    truth = other.digests(mailbox.replace("/", server.delimiter))
                    assert len(truth) >= 5
                    assert mount.digests(mailbox) == truth, mailbox

        @suite.case(f"{variant}: read again after the page cache is dropped, and after a remount, without the network")
        def _():
            before = {path.name: digest(path) for path in mount.messages()}
            again = {path.name: (os.stat(path).st_ino, digest(path)) for path in mount.messages()}
            mount.umount()
            server.stop()
            second = home.mount()
            assert {path.name: digest(path) for path in second.messages()} == before
            assert {path.name: (os.stat(path).st_ino, digest(path)) for path in second.messages()} == again
            server.start()
            second.umount()
    for variant in ("maildir",) if suite.short else ("maildir", "mdbox", "maildir++"):
        examine(variant)

    server = suite.dovecot()
    server.fill("INBOX", corpus.realistic(20, seed=9))
    home = suite.home(server)
    mount = home.mount()

    @suite.case("names say date, sender, subject and key")
    def _():
        assert len(mount.names()) == 20
        for name in mount.names():
            assert NAME.match(name), name
            assert len(name.encode()) <= 200

    @suite.case("looking fetches nothing: ls -l, find, stat, du, open")
    def _():
        subprocess.run(["ls", "-lR", str(mount.where)], check=True, capture_output=True)
        subprocess.run(["find", str(mount.where), "-size", "+1"], check=True, capture_output=True)
        subprocess.run(["du", "-s", str(mount.where)], check=True, capture_output=True)
        for path in mount.messages():
            os.close(os.open(path, os.O_RDONLY))
        assert home.status()["traffic"]["fetched_messages"] == 0

    @suite.case("reading marks nothing as seen")
    def _():
        with server.client() as other:
            before = other.flags()
            mount.digests()
            home.run("sync", timeout=30, check=0)
            assert other.flags() == before

    @suite.case("what stat says: modes, owner, links, times, blocks")
    def _():
        folder = os.stat(mount / "INBOX")
        assert stat.S_ISDIR(folder.st_mode) and stat.S_IMODE(folder.st_mode) & 0o077 == 0
        with server.client() as other:
            other.select()
            rows = other._fetch("1:*", "(UID INTERNALDATE RFC822.SIZE)")
        sizes = sorted(int(re.search(rb"RFC822.SIZE (\d+)", head).group(1)) for head, _ in rows)
        found = [os.stat(path) for path in mount.messages()]
        assert sorted(s.st_size for s in found) == sizes
        for s in found:
            assert stat.S_ISREG(s.st_mode) and stat.S_IMODE(s.st_mode) & 0o077 == 0 and s.st_uid == os.getuid()
            assert s.st_blocks * 512 >= s.st_size and s.st_nlink == 1
        assert {int(s.st_mtime) for s in found} == {when for _, when, _ in corpus.realistic(20, seed=9)}

    @suite.case("attributes of a message")
    def _():
        path = mount.messages()[3]
        get = lambda name: os.getxattr(path, "user.mail." + name).decode()
        assert os.listxattr(path) == ["user.mail.flags"], os.listxattr(path)
        head = read(path).split(b"\r\n\r\n")[0].decode()
        assert get("message-id").strip("<>") in head
        assert get("uid").isdigit()
        assert get("subject") and get("from") and get("date") and get("to")
        assert get("cached") in ("yes", "1", "true"), get("cached")
        flags = {p: os.getxattr(p, "user.mail.flags").decode() for p in mount.messages()}
        with server.client() as other:
            truth = other.flags()
        by_uid = {uid: set(flags[p].split()) for uid, p in mount.by_uid().items()}
        assert by_uid == {uid: f - {"\\Recent"} for uid, f in truth.items()}, (by_uid, truth)

    @suite.case("attributes of a mailbox, and other namespaces")
    def _():
        get = lambda name, where="INBOX": os.getxattr(mount / where, "user.mail." + name).decode()
        assert get("total") == "20" and get("uidvalidity").isdigit() and get("complete") in ("yes", "1", "true")
        assert "Trash" in get("special-use", "Trash")
        assert int(get("unseen")) == sum("S" not in f for _, _, f in corpus.realistic(20, seed=9))
        for name in ("security.capability", "trusted.x", "system.posix_acl_access"):
            assert errno_of(os.getxattr, mount / "INBOX", name) in ("ENOTSUP", "EOPNOTSUPP"), name
        assert errno_of(os.getxattr, mount / "INBOX", "user.other") == "ENODATA"

    @suite.case("control files are reachable, and never listed")
    def _():
        assert ".mailfs" not in os.listdir(mount.where)
        assert b"work" in read(mount / ".mailfs/status")
        assert read(mount / ".mailfs/status.json").strip().startswith(b"{")
        assert isinstance(read(mount / ".mailfs/log"), bytes)
        assert os.path.exists(mount / ".nomedia") and read(mount / ".nomedia") == b""
        for probe in (".Trash", ".hidden", "autorun.inf", ".git", ".Trash-0"):
            assert errno_of(os.stat, mount / probe) == "ENOENT", probe

    @suite.case("mounted read-only: every change is EROFS, and nothing changes")
    def _():
        other = suite.home(server, poll="24h")
        mount = other.mount("ro")
        path, before = mount.messages()[0], mount.names()
        inbox = str(mount / "INBOX")
        changes = [
            (os.unlink, path), (os.rename, path, inbox + "/x.eml"), (os.rename, path, str(mount / "Trash") + "/" + path.name),
            (os.truncate, path, 0), (os.chmod, path, 0o777), (os.chown, path, 1, 1), (os.utime, path, (1, 1)), (os.symlink, "a", inbox + "/l"),
            (os.link, path, inbox + "/hard"), (os.mkdir, inbox + "/d"), (os.rmdir, str(mount / "Trash")), (os.mkfifo, inbox + "/f"),
            (os.open, path, os.O_WRONLY), (os.open, path, os.O_RDWR), (os.open, inbox + "/new", os.O_CREAT | os.O_WRONLY),
            (os.setxattr, path, "user.mail.flags", b"\\Seen"), (os.removexattr, path, "user.mail.flags"),
        ]
        answers = {(f.__name__, i): errno_of(f, *a) for i, (f, *a) in enumerate(changes)}
        assert set(answers.values()) == {"EROFS"}, answers
        assert mount.names() == before

    @suite.case("errors of names: ENOENT, ENOTDIR, EISDIR, ENAMETOOLONG")
    def _():
        assert errno_of(os.stat, mount / "INBOX/none.eml") == "ENOENT"
        assert errno_of(os.stat, str(mount.messages()[0]) + "/x") == "ENOTDIR"
        assert errno_of(lambda: open(mount / "INBOX", "rb").read()) == "EISDIR"
        assert errno_of(os.stat, mount / ("INBOX/" + "n" * 256)) == "ENAMETOOLONG"
        assert errno_of(os.stat, mount / ("INBOX/" + "n" * 255)) == "ENOENT"

    @suite.case("seek, pread, mmap, reading past the end")
    def _():
        import mmap
        path = max(mount.messages(), key=lambda p: os.stat(p).st_size)
        whole = read(path)
        assert read(path, 100, 5000) == whole[5000:5100]
        assert read(path, 100, len(whole)) == b"" and read(path, 100, len(whole) + 10_000_000) == b""
        with open(path, "rb") as f, mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ) as m:
            assert m[:] == whole
        suite.say(f"{len(whole)} bytes")

    @suite.case("df shows numbers, never zeros")
    def _():
        v = os.statvfs(mount.where)
        assert v.f_blocks > 0 and v.f_files > 0 and v.f_namemax == 255

    @suite.case("a directory read in small pieces shows every name once")
    def _():
        fd = os.open(mount / "INBOX", os.O_RDONLY)
        with os.scandir(fd) as entries:
            names = [entry.name for entry in entries]
        os.close(fd)
        assert len(names) == len(set(names)) and set(n for n in names if n.endswith(".eml")) == set(mount.names())

    @suite.case("sync = demand lists a mailbox when it is opened, full has every body")
    def _():
        with server.client() as other:
            other.create("Lists")
            for i in range(8):
                other.append("Lists", corpus.message(subject=f"list {i}", when=corpus.BASE + i))
        full = suite.home(server, sync="demand")
        full.mailboxes["Lists"] = {"sync": "full"}
        full.write()
        second = full.mount()
        wait_until(lambda: len(full.bodies()) == 8, "the bodies of the pinned mailbox are here")
        assert len(second.names("INBOX")) == 20
        second.umount()
        server.stop()
        offline = full.mount()
        assert len(offline.digests("Lists")) == 8
        assert errno_of(read, offline.messages()[0]) == "ENETUNREACH"
        offline.umount()
        server.start()

    @suite.case("max-messages shows the newest")
    def _():
        newest = suite.home(server, max_messages=7)
        second = newest.mount()
        assert len(second.names()) == 7
        uids = sorted(second.by_uid())
        with server.client() as other:
            other.select()
            assert uids == other.uids()[-7:]
        second.umount()

    @suite.case("cache-size bounds the bodies that are kept")
    def _():
        with server.client() as other:
            other.create("Large")
            for i in range(40):
                other.append("Large", corpus.message(subject=f"large {i}", when=corpus.BASE + i, body=b"%063d\r\n" % i * 15_000))
            truth = other.digests("Large")
        small = suite.home(server, cache_size="12M")
        second = small.mount()
        assert second.digests("Large") == truth
        held = lambda: sum(p.stat().st_size for p in small.bodies())
        wait_until(lambda: held() <= 20 << 20, "the cache is within its size, or a little above")
        assert second.digests("Large") == truth
        second.umount()

    @suite.case("the cache may vanish under a running mount")
    def _():
        import shutil
        before = mount.digests()
        shutil.rmtree(home.cache)
        subprocess.run(["sh", "-c", "echo 1 >/proc/sys/vm/drop_caches"], stderr=subprocess.DEVNULL)
        assert mount.digests() == before
