"""What a person does to mail, on any server, and what the server must have then."""
import hashlib
import os
import re
import shutil
import subprocess

from . import corpus
from .mailfs import digest, errno_of, read
from .system import wait_until


def sha(data):
    return hashlib.sha256(data).hexdigest()


def message(subject, body="Hello.", mid=None):
    return corpus.message(subject=subject, body=body.encode() + b"\r\n", mid=mid)


class World:
    """One account on one server, and an independent client that says what the server has.

    A mailbox is named as in the tree. `top` is the folder for the ones beside INBOX: "INBOX/" where the server has all of them
    inside it. `ends_lines`: the server ends the last line of what it is given."""
    top, ends_lines = "", False

    def __init__(self, server, home):
        self.server, self.home = server, home
        self.mount = home.mount()
        self.box = self.mount / "INBOX"

    def raw(self, mailbox):
        """its name at the server"""
        return mailbox.replace("/", self.server.delimiter)

    def settle(self):
        said = self.home.run("sync", "--wait", "work")
        assert said.returncode == 0, (said.stderr, self.home.run("pending", "work").stdout)

    def at_server(self, mailbox):
        with self.server.client() as client:
            return sorted(sha(body) for body in client.bodies(self.raw(mailbox)).values())

    def flags(self, mailbox="INBOX"):
        with self.server.client() as client:
            found, bodies = client.flags(self.raw(mailbox)), client.bodies(self.raw(mailbox))
        return {sha(bodies[uid]): set(flags) - {"\\Recent"} for uid, flags in found.items()}

    def in_tree(self, mailbox):
        return sorted(digest(p) for p in self.mount.messages(mailbox))

    def same(self, *mailboxes):
        for mailbox in mailboxes:
            assert self.in_tree(mailbox) == self.at_server(mailbox), mailbox

    def internal_date(self, mailbox, digest):
        """ "14-Jul-2017 02:40:00 +0000" """
        with self.server.client() as client:
            uid = next(uid for uid, body in client.bodies(self.raw(mailbox)).items() if sha(body) == digest)
            return re.search(rb'INTERNALDATE "(.*?)"', client.command("uid", "FETCH", str(uid), "(INTERNALDATE)")[0]).group(1).decode()

    def mailboxes(self):
        """those beside INBOX or in it, as the tree names them but for modified UTF-7"""
        with self.server.client() as client:
            names = {re.match(rb'\(.*?\) "." "?(.*?)"?$', row).group(1).decode() for row in client.imap.list()[1]}
        return {name.replace(self.server.delimiter, "/") for name in names}


def ordinary_use(suite, world, label):
    box, mount, archive, trash = world.box, world.mount, world.top + "Archive", world.top + "Trash"

    @suite.case(f"{label}: cp into a mailbox stores it, bytes and date as they are")
    def _():
        data = message(f"copied in {label}")
        source = suite.path("in") / "new.eml"
        source.parent.mkdir(exist_ok=True)
        source.write_bytes(data)
        source.chmod(0o600)
        os.utime(source, (1_500_000_000, 1_500_000_000))
        subprocess.run(["cp", "-p", source, box / "new.eml"], check=True)
        assert read(box / "new.eml") == data
        world.settle()
        assert sha(data) in world.at_server("INBOX")
        assert (box / "new.eml").exists() and read(box / "new.eml") == data
        assert os.stat(box / "new.eml").st_mtime == 1_500_000_000
        assert os.getxattr(box / "new.eml", "user.mail.state") == b"synchronised"
        assert "14-Jul-2017" in world.internal_date("INBOX", sha(data))

    @suite.case(f"{label}: bare LF becomes CRLF, and nothing else changes")
    def _():
        text = f"Subject: unix {label}\n\none\ntwo\r\nthree"
        (box / "unix.eml").write_text(text, newline="")
        expected = text.replace("\r\n", "\n").replace("\n", "\r\n").encode()
        wait_until(lambda: read(box / "unix.eml") == expected, "it is shown as it is stored")
        world.settle()
        stored = expected + (b"\r\n" if world.ends_lines else b"")
        assert sha(stored) in world.at_server("INBOX")
        wait_until(lambda: read(box / "unix.eml") == stored, "it is shown as the server has it")

    @suite.case(f"{label}: mv between mailboxes keeps name, flags and inode")
    def _():
        path = world.mount.messages("INBOX")[0]
        before, inode = digest(path), os.stat(path).st_ino
        os.setxattr(path, "user.mail.flags", b"+\\Flagged +$Work")
        subprocess.run(["mv", path, mount / archive], check=True)
        there = mount / archive / path.name
        assert not path.exists() and os.stat(there).st_ino == inode
        world.settle()
        assert before in world.at_server(archive) and before not in world.at_server("INBOX")
        assert {"\\Flagged", "$Work"} <= world.flags(archive)[before]
        assert there.exists() and os.stat(there).st_ino == inode and digest(there) == before

    @suite.case(f"{label}: mv within a mailbox changes nothing at the server")
    def _():
        path = world.mount.messages("INBOX")[0]
        before, server = digest(path), world.at_server("INBOX")
        os.rename(path, box / "renamed by me.eml")
        world.settle()
        assert digest(box / "renamed by me.eml") == before and world.at_server("INBOX") == server

    @suite.case(f"{label}: rm moves to Trash, and in Trash it is expunged")
    def _():
        path = world.mount.messages("INBOX")[0]
        before = digest(path)
        path.unlink()
        world.settle()
        assert before in world.at_server(trash) and before not in world.at_server("INBOX")
        there = [p for p in world.mount.messages(trash) if digest(p) == before]
        assert len(there) == 1
        there[0].unlink()
        assert not there[0].exists()
        world.settle()
        wait_until(lambda: before not in world.at_server(trash), "it is expunged")

    @suite.case(f"{label}: cp between mailboxes is COPY, with no message data")
    def _():
        path = world.mount.messages("INBOX")[0]
        before = digest(path)
        subprocess.run(["cp", path, mount / archive / "copy.eml"], check=True)
        assert digest(mount / archive / "copy.eml") == before
        world.settle()
        large = message(f"large {label}", body=200 * ("x" * 998 + "\r\n"))
        with world.server.client() as client:
            client.append("INBOX", large)
        world.home.run("sync", "INBOX", check=0)
        uncached = next(p for p in world.mount.messages("INBOX") if os.stat(p).st_size == len(large))
        moved = world.home.status()["traffic"]
        subprocess.run(["cp", uncached, mount / archive / "large.eml"], check=True)
        world.settle()
        traffic = {k: v - moved[k] for k, v in world.home.status()["traffic"].items()}
        if not world.ends_lines:        # then its sizes are not what it sends, and a message is measured when it is opened
            assert traffic["fetched_bytes"] == 0 and traffic["sent"] + traffic["received"] < 100_000, traffic
        assert sha(large) in world.at_server(archive)
        for p in (uncached, mount / archive / "large.eml"):
            p.unlink()
        assert before in world.at_server(archive) and before in world.at_server("INBOX")
        assert digest(mount / archive / "copy.eml") == before

    @suite.case(f"{label}: overwriting replaces, keeps flags, and the old version goes to Trash")
    def _():
        path = world.mount.messages("INBOX")[0]
        before = digest(path)
        os.setxattr(path, "user.mail.flags", b"+\\Seen")
        world.settle()
        data = message(f"new version {label}")
        path.write_bytes(data)
        assert read(path) == data
        world.settle()
        assert sha(data) in world.at_server("INBOX")
        assert before not in world.at_server("INBOX"), (before in world.at_server(trash), world.home.run("pending", "work").stdout, world.flags().get(before))
        assert before in world.at_server(trash)
        assert "\\Seen" in world.flags()[sha(data)]
        assert read(path) == data
        world.same("INBOX", trash, archive)

    @suite.case(f"{label}: flags by attribute and by mailfs flag, set and cleared")
    def _():
        paths = world.mount.messages("INBOX")[:3]
        world.home.run("flag", "+seen", "+$Label", *map(str, paths), check=0)
        assert all(b"\\Seen" in os.getxattr(p, "user.mail.flags") for p in paths)
        world.settle()
        flags = world.flags()
        assert all({"\\Seen", "$Label"} <= flags[digest(p)] for p in paths)
        os.setxattr(paths[0], "user.mail.flags", b"\\Answered")
        world.settle()
        assert world.flags()[digest(paths[0])] == {"\\Answered"}
        os.removexattr(paths[0], "user.mail.flags")
        world.settle()
        assert world.flags()[digest(paths[0])] == set()

    @suite.case(f"{label}: mailboxes are made, renamed with what is in them, and removed")
    def _():
        projects, work = (mount / (world.top + name) for name in ("Projects", "Work"))
        os.makedirs(projects / "Größe & Co" / "2024")
        (projects / "Größe & Co" / "2024" / "a.eml").write_bytes(message(f"deep {label}"))
        world.settle()
        assert any(name.endswith("/2024") for name in world.mailboxes()), world.mailboxes()
        os.rename(projects, work)
        assert read(work / "Größe & Co" / "2024" / "a.eml") == message(f"deep {label}")
        world.settle()
        names = world.mailboxes()
        assert world.top + "Work" in names and world.top + "Projects" not in names, names
        assert world.in_tree(world.top + "Work/Größe & Co/2024") == [sha(message(f"deep {label}"))]
        assert errno_of(os.rmdir, work / "Größe & Co" / "2024") == "ENOTEMPTY"
        shutil.rmtree(work)
        world.settle()
        assert not any(name.startswith(world.top + "Work") for name in world.mailboxes()), world.mailboxes()
        assert sha(message(f"deep {label}")) in world.at_server(trash)


def news_is_read(suite, world, label):
    @suite.case(f"{label}: what arrives after others have been read can be read, and changed")
    def _():
        for path in world.mount.messages("INBOX"):
            digest(path)
        for do in (lambda path: None, lambda path: os.setxattr(path, "user.mail.flags", b"\\Flagged")):
            data = message(f"news {label}")
            with world.server.client() as client:
                client.append("INBOX", data)
            world.home.run("sync", "INBOX", check=0)
            path, = (p for p in world.mount.messages("INBOX") if "_news-" in p.name)
            assert digest(path) == sha(data)
            do(path)
            path.unlink()
            world.settle()
            assert sha(data) not in world.at_server("INBOX") and sha(data) in world.at_server(world.top + "Trash")


def copying_tools(suite, world, label):
    mount, top = world.mount, world.top

    @suite.case(f"{label}: rsync, tar, cp -a, find -delete, rm -r")
    def _():
        source = suite.path("tools")
        sums = set()
        rsynced, tarred, copied = (mount / (top + name) for name in ("Rsynced", "Tarred", "Copied"))
        for i in range(20):
            (source / f"m{i}.eml").write_bytes(message(f"by tools {i}"))
            (source / f"m{i}.eml").chmod(0o600)
            os.utime(source / f"m{i}.eml", (1_400_000_000 + i, 1_400_000_000 + i))
            sums.add(sha(message(f"by tools {i}")))
        subprocess.run(["rsync", "-rt", f"{source}/", rsynced], check=True)
        world.settle()
        assert world.at_server(top + "Rsynced") == sorted(sums)
        again = subprocess.run(["rsync", "-rtnOi", f"{source}/", rsynced], check=True, capture_output=True, text=True).stdout
        assert again == "", (again, [os.stat(rsynced / name).st_mtime for name in os.listdir(rsynced)])
        archive = suite.path("t") / "t.tar"
        subprocess.run(["tar", "-C", source, "-cf", archive, *os.listdir(source)], check=True)
        os.mkdir(tarred)
        subprocess.run(["tar", "-C", tarred, "--no-same-permissions", "-xf", archive], check=True)
        subprocess.run(["cp", "-a", tarred, copied], check=True)
        world.settle()
        assert set(world.at_server(top + "Tarred")) == sums and set(world.at_server(top + "Copied")) == sums
        assert "13-May-2014" in world.internal_date(top + "Tarred", sha(message("by tools 1")))
        subprocess.run(["find", copied, "-name", "*.eml", "-delete"], check=True)
        subprocess.run(["rm", "-r", copied, tarred, rsynced], check=True)
        world.settle()
        assert not {top + "Copied", top + "Tarred", top + "Rsynced"} & world.mailboxes()


def changes_offline(suite, world, label):
    box, mount, top = world.box, world.mount, world.top

    @suite.case(f"{label}: offline changes are carried out when the server is back, also after a remount")
    def _():
        server = set(world.at_server("INBOX"))
        world.home.run("disconnect", "work", check=0)
        added = [message(f"offline {i}") for i in range(5)]
        for i, data in enumerate(added):
            (box / f"offline{i}.eml").write_bytes(data)
        gone = [p for p in world.mount.messages("INBOX") if not p.name.startswith("offline")][:2]
        lost = {digest(p) for p in gone}
        for path in gone:
            path.unlink()
        os.mkdir(mount / (top + "New"))
        os.rename(box / "offline0.eml", mount / (top + "New") / "moved.eml")
        mount.umount()
        mount.start()
        assert read(mount / (top + "New") / "moved.eml") == added[0]
        world.settle()
        assert world.at_server(top + "New") == [sha(added[0])]
        assert set(world.at_server("INBOX")) == (server - lost) | {sha(data) for data in added[1:]}
        assert lost <= set(world.at_server(top + "Trash"))
        world.same("INBOX", top + "New", top + "Trash")


def changes_of_two(suite, world, label):
    mount, top = world.mount, world.top

    @suite.case(f"{label}: another client's changes and ours merge")
    def _():
        path, other = world.mount.messages("INBOX")[:2]
        uid, other_uid = (os.getxattr(p, "user.mail.uid").decode() for p in (path, other))
        kept, moved = digest(path), digest(other)
        world.home.run("disconnect", "work", check=0)
        os.setxattr(path, "user.mail.flags", b"+\\Flagged")
        os.rename(other, mount / (top + "Archive") / "taken.eml")
        with world.server.client() as client:
            client.store("INBOX", uid, "+FLAGS", "\\Answered")
            client.expunge("INBOX", other_uid)
        world.home.run("connect", "work", check=0)
        world.settle()
        world.home.run("sync", "work", check=0)              # what others did is read by that
        assert {"\\Flagged", "\\Answered"} <= world.flags()[kept]
        assert b"\\Answered" in os.getxattr(path, "user.mail.flags")
        assert not (mount / (top + "Archive") / "taken.eml").exists()
        assert moved not in world.at_server(top + "Archive")
