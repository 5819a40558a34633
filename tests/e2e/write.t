#!/usr/bin/python3
import ctypes
import errno
import os
import re
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib import Skip, Suite, corpus, digest, errno_of, read, require_fuse, wait_until, writing  # noqa: E402
from lib import system  # noqa: E402
from lib.terminal import in_terminal  # noqa: E402
from lib.writing import changes_of_two, changes_offline, copying_tools, message, ordinary_use, sha  # noqa: E402


class World(writing.World):
    """on a Dovecot"""

    def __init__(self, suite, settings=None, **options):
        server = suite.dovecot(**options)
        server.fill("Archive", [(message(f"old {i}"), corpus.BASE + i, "") for i in range(3)])
        server.fill("INBOX", [(message(f"start {i}"), corpus.BASE + i, "") for i in range(12)])
        super().__init__(server, suite.home(server, poll="24h", **(settings or {})))


with Suite("writing", timeout=600) as suite:
    require_fuse()
    world = World(suite, settings={"expunge_delay": "0s"})
    ordinary_use(suite, world, "Maildir")
    box, mount = world.box, world.mount

    @suite.case("a message with a NUL, which IMAP does not carry, is refused at close, and kept as it is")
    def _():
        file = os.open(box / "nul.eml", os.O_WRONLY | os.O_CREAT, 0o600)
        os.write(file, message("nul") + b"one\0two\r\n")
        assert errno_of(os.close, file) == "EINVAL"
        kept = mount / ".mailfs" / "rejected"
        wait_until(lambda: "nul.eml" in os.listdir(kept) and not (box / "nul.eml").exists(), "its bytes are kept")
        assert read(kept / "nul.eml") == message("nul") + b"one\0two\r\n"
        assert b"NUL" in read(kept / "nul.eml.reason.txt")
        os.unlink(kept / "nul.eml")
        os.unlink(kept / "nul.eml.reason.txt")

    @suite.case("what is not a message is refused at close, and kept")
    def _():
        file = os.open(box / "junk.eml", os.O_WRONLY | os.O_CREAT, 0o600)
        os.write(file, b"\x00\x01 this is no mail\n")
        assert errno_of(os.close, file) == "EINVAL"
        wait_until(lambda: not (box / "junk.eml").exists(), "the file is gone")
        kept = mount / ".mailfs" / "rejected"
        wait_until(lambda: "junk.eml" in os.listdir(kept), "its bytes are kept")
        assert read(kept / "junk.eml") == b"\x00\x01 this is no mail\n"
        assert b"header" in read(kept / "junk.eml.reason.txt")
        assert world.home.status()["changes"]["rejected"] == 1
        os.unlink(kept / "junk.eml")
        os.unlink(kept / "junk.eml.reason.txt")
        assert os.listdir(kept) == []
        path = world.mount.messages("INBOX")[0]
        before = read(path)
        with open(path, "r+b") as file:
            file.truncate(0)
            file.write(b"no header here\n")
            assert errno_of(os.fsync, file.fileno()) == ""
            try:
                file.close()
            except OSError as error:
                assert error.errno == 22
        wait_until(lambda: read(path) == before, "the old one is as it was")
        world.settle()
        assert sha(before) in world.at_server("INBOX")

    @suite.case("scratch files never reach the server; renaming one to a real name does")
    def _():
        server = world.at_server("INBOX")
        for name in (".hidden", "x~", "a.swp", "4913", "#x#", "y.tmp", "sedAbCdEf"):
            (box / name).write_bytes(b"anything")
        world.settle()
        assert world.at_server("INBOX") == server
        data = message("renamed into place")
        (box / ".new.eml.AbCdEf").write_bytes(data)
        os.rename(box / ".new.eml.AbCdEf", box / "rsynced.eml")
        world.settle()
        assert sorted(server + [sha(data)]) == world.at_server("INBOX")
        for name in (".hidden", "x~", "a.swp", "4913", "#x#", "y.tmp", "sedAbCdEf"):
            assert read(box / name) == b"anything"
            os.unlink(box / name)
        assert errno_of(os.rename, box / "rsynced.eml", box / "outside") == ""
        os.rename(box / "outside", box / "rsynced.eml")

    @suite.case("editors: a backup by renaming, a temporary file over the old one, in place")
    def _():
        path = box / "edited.eml"
        first, second, third = message("edited 1"), message("edited 2"), message("edited 3")
        fourth, fifth = (third.replace(b"edited 3", b"edited %d" % i) for i in (4, 5))
        path.write_bytes(first)
        os.setxattr(path, "user.mail.flags", b"\\Flagged")
        world.settle()
        os.rename(path, box / "edited.eml~")          # vim, emacs
        path.write_bytes(second)
        os.unlink(box / "edited.eml~")
        world.settle()
        assert sha(second) in world.at_server("INBOX") and sha(first) not in world.at_server("INBOX")
        assert sha(first) in world.at_server("Trash")
        assert "\\Flagged" in world.flags()[sha(second)]
        (box / ".goutputstream-X").write_bytes(third)  # GLib
        os.rename(box / ".goutputstream-X", path)
        world.settle()
        assert sha(third) in world.at_server("INBOX") and sha(second) not in world.at_server("INBOX")
        assert "\\Flagged" in world.flags()[sha(third)]
        subprocess.run(["sed", "-i", "s/edited 3/edited 4/", path], check=True)
        world.settle()
        assert sha(fourth) in world.at_server("INBOX") and sha(third) not in world.at_server("INBOX")
        subprocess.run(["vim", "-u", "NONE", "-i", "NONE", "-es", "-c", "%s/edited 4/edited 5/", "-c", "wq", str(path)], check=True,
                       stdin=subprocess.DEVNULL)
        world.settle()
        assert sha(fifth) in world.at_server("INBOX")
        with open(path, "ab") as file:
            file.write(b"one more line\r\n")
        world.settle()
        assert sha(fifth + b"one more line\r\n") in world.at_server("INBOX")
        world.same("INBOX", "Trash")

    copying_tools(suite, world, "Maildir")

    @suite.case("modes of other places: cp -a, tar and rsync copy files that are not 0600")
    def _():
        source = suite.path("modes")
        (source / "sub").mkdir(mode=0o755)
        for i in range(3):
            (source / "sub" / f"{i}.eml").write_bytes(message(f"mode {i}"))
            (source / "sub" / f"{i}.eml").chmod((0o644, 0o444, 0o600)[i])
        archive = suite.path("t") / "m.tar"
        subprocess.run(["tar", "-C", source, "-cf", archive, "sub"], check=True)
        for name in ("ByCp", "ByTar", "ByRsync"):
            os.mkdir(mount / name)
        subprocess.run(["cp", "-a", source / "sub", mount / "ByCp"], check=True)
        subprocess.run(["tar", "-C", mount / "ByTar", "-xf", archive], check=True)
        subprocess.run(["rsync", "-a", source / "sub", mount / "ByRsync"], check=True)
        world.settle()
        for name in ("ByCp", "ByTar", "ByRsync"):
            assert world.at_server(f"{name}/sub") == sorted(sha(message(f"mode {i}")) for i in range(3)), name
        subprocess.run(["rm", "-r", mount / "ByCp", mount / "ByTar", mount / "ByRsync"], check=True)
        world.settle()

    @suite.case("listing a directory while its files are written: nobody waits for the other")
    def _():
        lister = subprocess.Popen(["sh", "-c", f"for i in $(seq 60); do ls -l {box} >/dev/null; done"])
        for i in range(60):
            (box / "busy.eml").write_bytes(message(f"busy {i}"))
        assert lister.wait(120 * system.SLOW) == 0
        os.unlink(box / "busy.eml")
        world.settle()

    @suite.case("a message on its way to another mailbox is read")
    def _():
        for word in ("unread", "unopened"):
            world.server.fill("INBOX", [(message(f"{word} {i}"), corpus.BASE + i, "") for i in range(5)])
            world.home.run("sync", "work", check=0)
            paths = [p for p in world.mount.messages("INBOX") if os.getxattr(p, "user.mail.subject").startswith(word.encode())]
            for path in paths:
                assert os.getxattr(path, "user.mail.cached") == b"no"
                os.rename(path, mount / "Archive" / path.name)
                assert f"Subject: {word}".encode() in read(mount / "Archive" / path.name)
                os.rename(mount / "Archive" / path.name, path)
            assert len(paths) == 5
            world.home.run("disconnect", "work")         # and once more on a connection that was made anew
            world.home.run("connect", "work")
            world.settle()

    @suite.case("many removed or moved at once are a handful of commands")
    def _():
        with world.server.client() as client:
            client.create("Many")
            for i in range(300):
                client.append("Many", message(f"many {i}"))
        world.home.run("sync", "work", check=0)
        names = os.listdir(mount / "Many")
        assert len(names) == 300
        os.mkdir(mount / "Elsewhere")
        world.settle()
        for name in names[:200]:
            os.rename(mount / "Many" / name, mount / "Elsewhere" / name)
        for name in names[200:]:
            os.unlink(mount / "Many" / name)
        world.settle()
        assert len(world.at_server("Elsewhere")) == 200 and world.at_server("Many") == []
        assert sorted(os.listdir(mount / "Elsewhere")) == sorted(names[:200])

    @suite.case("errors say what is wrong")
    def _():
        path = world.mount.messages("INBOX")[0]
        assert errno_of(os.link, path, box / "linked") == "EPERM"
        assert errno_of(os.symlink, path, box / "linked") == "EPERM"
        assert errno_of(os.mkfifo, box / "fifo") == "EPERM"
        assert errno_of(os.chmod, path, 0o400) == "EPERM"
        os.chmod(path, 0o600)
        assert errno_of(os.chown, path, 12345, -1) == "EPERM"
        assert errno_of(os.mkdir, mount / "INBOX") == "EEXIST"
        assert errno_of(os.mkdir, mount / ".Trash-1000") == "EPERM"
        assert errno_of(os.rmdir, mount / "INBOX") in ("ENOTEMPTY", "EPERM")
        assert errno_of(os.rename, mount / "INBOX", mount / "In") == "EPERM"
        assert errno_of(os.mkdir, mount / ("x" * 256)) == "ENAMETOOLONG"
        assert errno_of(os.rename, mount / "Archive", mount / "Archive" / "Inside") == "EINVAL"
        assert errno_of(os.setxattr, path, "user.mail.uid", b"1") == "EPERM"
        assert errno_of(os.setxattr, path, "user.mail.flags", b"\\Nonsense") == "EINVAL"
        assert errno_of(os.setxattr, path, "security.x", b"1") == "ENOTSUP"
        assert errno_of(os.open, mount / "file-at-the-root", os.O_CREAT | os.O_WRONLY) == "EPERM"
        assert errno_of(os.rename, path, mount / "at-the-root.eml") == errno_of(os.rename, path, mount / ".mailfs/x") == "EPERM"
        assert errno_of(os.rmdir, mount / ".mailfs") == errno_of(os.unlink, mount / ".mailfs/log") == errno_of(os.mkdir, mount / "search") == "EPERM"
        assert errno_of(open, mount / ".mailfs/status", "w") == errno_of(open, mount / ".nomedia", "w") == "EROFS"
        assert errno_of(os.setxattr, path, "user.mail.flags", b"+\\Seen \\Flagged") == "EINVAL"
        assert errno_of(os.setxattr, path, "user.mail.flags", " ".join(f"$K{i}" for i in range(5000)).encode()) == "EFBIG"
        assert errno_of(os.setxattr, box, "user.mail.sync", b"now and then") == "EINVAL"
        deep = mount / "Deep"
        refused = ""
        while not refused and len(deep.parts) < 200:
            refused, deep = errno_of(os.mkdir, deep), deep / "d"
        assert refused == "ENAMETOOLONG", refused
        shutil.rmtree(mount / "Deep")
        libc = ctypes.CDLL(None, use_errno=True)
        names = [os.fsencode(p) for p in world.mount.messages("INBOX")[:2]]
        for flags, error in ((2, errno.EINVAL), (1, errno.EEXIST)):        # RENAME_EXCHANGE, RENAME_NOREPLACE
            assert libc.renameat2(-100, names[0], -100, names[1], flags) == -1 and ctypes.get_errno() == error, flags
        with open(path, "r+b") as file:
            assert libc.fallocate(file.fileno(), 0, 0, 4096) == -1 and ctypes.get_errno() == errno.ENOTSUP
        world.home.run("disconnect", "work", check=0)
        os.setxattr(path, "user.mail.flags", b"+$Waits")
        waits = mount / ".mailfs/pending" / os.listdir(mount / ".mailfs/pending")[0]
        assert errno_of(open, waits, "w") == "EACCES"
        os.unlink(waits)
        world.home.run("connect", "work", check=0)
        os.utime(path)

    @suite.case("a change can be seen, taken back and tried again")
    def _():
        world.home.run("disconnect", "work", check=0)
        path, other, third = world.mount.messages("INBOX")[:3]
        before = {p.name: digest(p) for p in (path, other, third)}
        server = world.at_server("INBOX")
        path.unlink()
        os.rename(other, mount / "Archive" / other.name)
        os.setxattr(third, "user.mail.flags", b"+$Later")
        (box / "never.eml").write_bytes(message("never sent"))
        os.mkdir(mount / "Nowhere")
        pending = os.listdir(mount / ".mailfs" / "pending")
        assert len(pending) == 5, pending
        assert len(os.listdir(mount / ".mailfs" / "pending")) == 5
        texts = [read(mount / ".mailfs" / "pending" / name).decode() for name in pending]
        assert any("move INBOX/" in text for text in texts), texts
        assert "5" in world.home.run("status", check=0).stdout
        assert other.name in world.home.run("pending", check=0).stdout
        flags = next(name for name in pending if name.endswith("-flags"))
        os.unlink(mount / ".mailfs" / "pending" / flags)
        assert flags not in os.listdir(mount / ".mailfs" / "pending")
        assert b"$Later" not in os.getxattr(third, "user.mail.flags")
        answer = world.home.run("flag", "+$Later", "/etc/hostname", box, third)
        assert answer.returncode == 8 and answer.stderr.count("not a message") == 2, answer
        assert b"$Later" in os.getxattr(third, "user.mail.flags")
        answer = world.home.run("flag", "+$La(ter", third, third)
        assert answer.returncode == 1 and answer.stderr.count("no flag") == 1, answer
        world.home.run("cancel", "work", "all", check=0)
        assert os.listdir(mount / ".mailfs" / "pending") == []
        assert path.exists() and other.exists() and not (box / "never.eml").exists() and not (mount / "Nowhere").exists()
        assert {p.name: digest(p) for p in (path, other, third)} == before
        assert read(mount / ".mailfs" / "rejected" / "never.eml") == message("never sent")
        world.home.run("connect", "work", check=0)
        world.settle()
        assert world.at_server("INBOX") == server

    @suite.case("what the server refuses is parked with its reason, and stays as it is here")
    def _():
        os.mkdir(mount / "Refused")
        world.settle()
        world.home.run("disconnect", "work", check=0)
        (mount / "Refused" / "late.eml").write_bytes(message("into a mailbox that goes"))
        with world.server.client() as client:
            client.imap.delete("Refused")
        world.home.run("connect", "work", check=0)
        said = world.home.run("sync", "--wait", "work")
        assert said.returncode != 0 and "pending" in said.stderr, said
        assert read(mount / "Refused" / "late.eml") == message("into a mailbox that goes")
        parked = world.home.run("pending", "work", check=0).stdout
        assert "parked" in parked and "another client" in parked, parked
        number = re.search(r"(\d+)  parked", parked).group(1)
        assert f"mailfs retry {number} tries again, mailfs cancel {number} takes it back" in parked, parked
        world.home.run("retry", "work", "all", check=0)
        world.settle()
        assert world.at_server("Refused") == [sha(message("into a mailbox that goes"))]

    changes_offline(suite, world, "Maildir")
    changes_of_two(suite, world, "Maildir")

    def edited_by(name, edit):
        """edit(path) saves twice, and inserts "X-First: 1" and "X-Second: 2" before all other lines"""
        path, first = box / f"{name}.eml", message(f"saved by {name}")
        path.write_bytes(first)
        os.setxattr(path, "user.mail.flags", b"\\Flagged")
        world.settle()
        server, trash = world.at_server("INBOX"), world.at_server("Trash")
        world.home.run("disconnect", "work", check=0)       # so that only the last version is ever sent, however slow the editor
        edit(path)
        second = b"X-First: 1\r\nX-Second: 2\r\n" + first
        assert read(path) == second
        world.home.run("connect", "work", check=0)
        world.settle()
        assert world.at_server("INBOX") == sorted([*(d for d in server if d != sha(first)), sha(second)])
        assert world.at_server("Trash") == sorted([*trash, sha(first)])
        assert world.flags()[sha(second)] == {"\\Flagged"}
        assert read(path) == second
        left = [n for n in os.listdir(box) if name in n and n != path.name]
        for n in left:
            os.unlink(box / n)
        world.settle()
        world.same("INBOX", "Trash")
        return left

    @suite.case("emacs saves twice, with its backup and its lock: one new version, the old one in Trash")
    def _():
        emacs = shutil.which("emacs")
        if not emacs:
            raise Skip("emacs is not installed")

        def edit(path):
            # of what is in /tmp, where this mount is, it would make no backup
            script = f'''(progn (setq backup-enable-predicate (lambda (_) t)) (find-file "{path}") (goto-char (point-min)) (insert "X-First: 1\\n") (save-buffer)
                            (insert "X-Second: 2\\n") (save-buffer) (kill-buffer))'''
            said = subprocess.run([emacs, "-Q", "--batch", "--eval", script], capture_output=True, text=True, stdin=subprocess.DEVNULL,
                                  env=world.home.environment(), timeout=120)
            assert said.returncode == 0, said
        assert edited_by("emacs", edit) == ["emacs.eml~"]

    @suite.case("nano saves twice: one new version, the old one in Trash")
    def _():
        nano = shutil.which("nano")
        if not nano:
            raise Skip("nano is not installed")

        def edit(path):
            shown, code = in_terminal([nano, str(path)], b"X-First: 1\r\x13X-Second: 2\r\x13\x18", world.home.environment())
            assert code == 0, shown
        assert edited_by("nano", edit) == []

    @suite.case("nano with a backup and a lock saves twice")
    def _():
        nano = shutil.which("nano")
        if not nano:
            raise Skip("nano is not installed")

        def edit(path):
            shown, code = in_terminal([nano, "-B", "-G", str(path)], b"X-First: 1\r\x13X-Second: 2\r\x13\x18", world.home.environment())
            assert code == 0, shown
        assert edited_by("nanobackup", edit) == ["nanobackup.eml~"]

    @suite.case("everything in the tree is what the server has")
    def _():
        world.settle()
        for mailbox in ("INBOX", "Archive", "Trash", "New"):
            world.same(mailbox)
        said = world.home.run("check", "work")
        assert said.returncode == 0, said.stdout + said.stderr

    plain = World(suite, settings={"expunge_delay": "0s"}, without=["UIDPLUS", "MOVE", "LITERAL+", "CONDSTORE", "QRESYNC"])
    ordinary_use(suite, plain, "no UIDPLUS, MOVE, LITERAL+")
    mdbox = World(suite, settings={"expunge_delay": "0s"}, variant="mdbox", without=["MOVE"])
    ordinary_use(suite, mdbox, "mdbox")

    gone = World(suite, settings={"delete": "expunge", "expunge_delay": "1h"})

    @suite.case("rm -rf of everything by mistake: each expunge can be taken back within the hour")
    def _():
        before = gone.at_server("INBOX")
        names = sorted(os.listdir(gone.box))
        subprocess.run(["find", gone.box, "-type", "f", "-delete"], check=True)
        assert os.listdir(gone.box) == []
        gone.settle()
        assert gone.at_server("INBOX") == before
        gone.home.run("cancel", "work", "all", check=0)
        assert sorted(os.listdir(gone.box)) == names
        gone.same("INBOX")
