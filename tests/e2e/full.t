#!/usr/bin/python3
import os
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib import Skip, Suite, corpus, digest, errno_of, read, require_fuse, wait_until  # noqa: E402
from lib import system  # noqa: E402
from lib.smtp import SmtpServer  # noqa: E402
from lib.writing import sha  # noqa: E402


def message(subject, size=3000):
    return corpus.message(subject=subject, body=b"x" * 70 * (size // 70) + b"\r\n", mid=f"<{subject.replace(' ', '-')}@full>")


def letter(subject):
    return f"To: bob@example.org\nSubject: {subject}\n\nHello.\n".encode()


def write(path, data):
    with open(path, "wb", buffering=0) as file:
        file.write(data)


def says(*command):
    """whether the command failed for want of room, and said so"""
    answer = subprocess.run(list(map(str, command)), capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"})
    assert answer.returncode == 0 or "No space left on device" in answer.stderr, (command, answer.returncode, answer.stderr)
    return answer.returncode != 0


if os.getuid() == 0:
    system.private_mounts()

with Suite("a full local disk: ENOSPC, nothing by halves, and all is well when there is room", timeout=600) as suite:
    require_fuse()
    if os.getuid() != 0:
        raise Skip("needs root, for a small disk")

    class Full:
        """A home with its state, cache or both on a small disk; a server with mail, some of it cached; one that takes mail"""

        def __init__(self, *small):
            self.smtp = SmtpServer()
            suite.callback(self.smtp.stop)
            self.server = suite.dovecot()
            self.server.fill("INBOX", corpus.realistic(30, seed=5))
            self.server.fill("Archive", [(message(f"old {n}"), corpus.BASE + n, "") for n in range(3)])
            self.server.fill("Empty", [])
            self.server.fill("Uncached", [(message(f"uncached {n}", 50000), corpus.BASE + n, "") for n in range(8)])
            self.proxy = suite.proxy(self.server.imap_port)
            self.home = suite.home(self.server, poll="24h", cache_min_free="0", send_delay="0", tls="none",
                                   imap=f"imap://127.0.0.1:{self.proxy.port}", smtp=f"smtp://127.0.0.1:{self.smtp.port}", **{"from": "alice@example.org"})
            self.disk = system.SmallDisk(self.home.folder / "disk", 24)
            suite.callback(self.disk.end)
            for name in small:
                (self.disk.where / name).mkdir()
                (self.home.folder / name).symlink_to(self.disk.where / name)
            self.mount = self.home.mount()
            self.cached = {path.name: digest(path) for path in self.mount.messages() + self.mount.messages("Archive")}
            self.settle()

        def again(self):
            """mounted anew: its write-ahead log is empty, so that whatever is written needs room"""
            self.mount.umount()
            self.mount = self.home.mount()
            self.home.wait_link("online")
            self.settle()

        def settle(self):
            said = self.home.run("sync", "--wait", "work")
            assert said.returncode == 0, (said.stderr, self.home.run("pending", "work").stdout, self.mount.log_tail())

        def tree(self, *mailboxes):
            """what there is, and how long"""
            return {f"{box}/{entry.name}": entry.stat().st_size for box in mailboxes for entry in os.scandir(self.mount / box)}

        def at_server(self, mailbox):
            with self.server.client() as client:
                return sorted(sha(body) for body in client.bodies(mailbox).values())

        def same(self, *mailboxes):
            for mailbox in mailboxes:
                assert self.mount.digests(mailbox) == self.at_server(mailbox), mailbox

        def has_cached(self):
            found = {path.name: digest(path) for box in ("INBOX", "Archive") for path in self.mount.messages(box) if path.name in self.cached}
            assert found == self.cached

    @suite.case("state and cache: every change is refused with ENOSPC, and what was there stays, and can be read")
    def _():
        full = Full("state", "cache")
        full.again()
        mount, disk, boxes = full.mount, full.disk, ("INBOX", "Archive", "outbox")
        over, sed, saved = mount.messages("Archive")
        outside, note = full.home.folder / "outside", full.home.folder / "letter"
        outside.write_bytes(message("from outside"))
        note.write_bytes(letter("dropped"))
        attempts = {
            "cp": lambda: says("cp", outside, mount / "INBOX/cp.eml"),
            "overwriting": lambda: says("cp", outside, over),
            "sed -i": lambda: says("sed", "-i", "s/old/new/", sed),
            "an editor's save": lambda: says("sh", "-c", f"cp {outside} {saved}.tmp && mv {saved} {saved}~ && mv {saved}.tmp {saved}"),
            "setfattr": lambda: says("setfattr", "-n", "user.mail.flags", "-v", "+\\Flagged", over),
            "mv within a mailbox": lambda: says("mv", over, mount / "Archive/name.eml"),
            "mv": lambda: says("mv", sed, mount / "INBOX/moved.eml"),
            "rm": lambda: says("rm", saved),
            "mkdir": lambda: says("mkdir", mount / "Made"),
            "rmdir": lambda: says("rmdir", mount / "Empty"),
            "mv of a mailbox": lambda: says("mv", mount / "Archive", mount / "Elsewhere"),
            "outbox/": lambda: says("cp", note, mount / "outbox/letter.eml"),
        }
        before = full.tree(*boxes)
        for name, attempt in attempts.items():
            disk.fill()
            assert attempt(), f"{name} is not refused"
        after = full.tree(*boxes)
        # cp leaves a file without bytes, as on any full disk
        assert before.items() <= after.items() and all(after[name] == 0 for name in after if name not in before), (before, after)
        full.has_cached()
        assert full.home.status()["changes"]["pending"] == 0

        for name, attempt in attempts.items():
            disk.make_room()
            assert not attempt(), f"{name} is refused, and there is room"
        full.settle()
        assert sorted(os.listdir(mount / "Elsewhere")) == sorted(["name.eml", saved.name + "~"])
        assert full.at_server("Elsewhere") == [sha(message("from outside"))]
        wait_until(lambda: full.at_server("Sent") == mount.digests("Sent") != [], "the letter is in Sent")
        assert full.smtp.accepted == ["dropped"]
        full.same("INBOX", "Trash", "Elsewhere")
        with full.server.client() as client:
            assert "Made" in str(client.imap.list()[1]) and "Empty" not in str(client.imap.list()[1])

    @suite.case("half of a message is none, even if there is room again before it is closed")
    def _():
        full = Full("state", "cache")
        mount, rejected, size = full.mount, full.mount / ".mailfs/rejected", 400000
        old = mount.messages("Archive")[0]
        for path, data in ((mount / "INBOX/half.eml", message("half", size)), (old, message("half over", size)),
                           (mount / "outbox/half.eml", letter("half") + b"x\n" * (size // 2))):
            full.disk.fill()
            full.disk.make_room(size // 2)
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            refused = [errno_of(os.write, fd, data[at:at + 65536]) for at in range(0, size, 65536)]
            full.disk.make_room()
            assert "ENOSPC" in refused and errno_of(os.close, fd) == "ENOSPC", (path, refused)
        wait_until(lambda: not (mount / "INBOX/half.eml").exists(), "it is no message")
        wait_until(lambda: sorted(name for name in os.listdir(rejected) if not name.endswith(".reason.txt")) == sorted([old.name, "half.eml"]), "both are put aside")
        assert "no space" in (rejected / "half.eml.reason.txt").read_text()
        wait_until(lambda: os.listdir(mount / "outbox/failed"), "it is not sent")
        assert "whole" in (mount / "outbox/failed/half.eml.error.txt").read_text() and full.smtp.accepted == []
        full.has_cached()
        full.settle()
        full.same("INBOX", "Archive")

    @suite.case("what was written is not thrown away where there is no room to accept it")
    def _():
        full = Full("state", "cache")
        mount, data = full.mount, message("written", 300000)
        full.disk.fill()
        full.disk.make_room(len(data) + 100000)
        with open(mount / "INBOX/written.eml", "wb", buffering=0) as file:
            for at in range(0, len(data), 65536):
                file.write(data[at:at + 65536])
            full.disk.fill()
            refused = errno_of(file.close)       # a shell would not see it
        assert refused == "ENOSPC"
        wait_until(lambda: (mount / ".mailfs/rejected/written.eml").exists(), "it is kept")
        assert read(mount / ".mailfs/rejected/written.eml") == data
        full.disk.make_room()
        full.settle()
        assert sha(data) not in full.at_server("INBOX")

    @suite.case("new mail and bodies are not stored: ENOSPC, and by itself when there is room")
    def _():
        full = Full("state", "cache")
        full.again()
        mount = full.mount
        full.disk.fill()
        full.server.deliver(message("came meanwhile"))
        assert full.home.run("sync", "work").returncode == 7
        for path in mount.messages("Uncached"):
            assert errno_of(digest, path) == "ENOSPC", path
        full.has_cached()
        assert "no space" in (mount / ".mailfs/status").read_text()
        full.disk.make_room()
        full.home.wait_link("online", 120)
        full.settle()
        full.same("INBOX", "Archive", "Uncached")
        assert len(mount.names()) == 31

    @suite.case("changes that wait are carried out once when there is room, and not before")
    def _():
        full = Full("state", "cache")
        mount, new = full.mount, message("written while offline")
        full.home.run("disconnect", "work", check=0)
        write(mount / "INBOX/new.eml", new)
        os.unlink(mount.messages("Archive")[0])
        os.mkdir(mount / "Made")
        os.rename(mount.messages("Archive")[0], mount / "Made/moved.eml")
        full.disk.fill()
        assert full.home.run("connect", "work").returncode == 7
        assert full.home.status()["changes"]["pending"] == 4
        full.disk.make_room()
        full.home.wait_link("online", 120)
        full.settle()
        assert full.at_server("INBOX").count(sha(new)) == 1 and len(full.at_server("Trash")) == len(full.at_server("Made")) == 1
        full.same("INBOX", "Archive", "Made", "Trash")

    @suite.case("the server's answer comes when the disk is full: once there")
    def _():
        full = Full("state", "cache")
        full.again()
        mount, new = full.mount, message("its answer comes too late", 300000)
        full.proxy.do("delay 500")
        write(mount / "INBOX/new.eml", new)
        wait_until(lambda: sha(new) in full.at_server("INBOX"), "the server has it")
        full.disk.fill()
        full.proxy.do("delay 0")
        wait_until(lambda: full.home.link() != "online" or not full.home.status()["changes"]["pending"], "the answer has come")
        full.disk.make_room()
        full.home.wait_link("online", 120)
        full.settle()
        assert full.at_server("INBOX").count(sha(new)) == 1
        full.same("INBOX")

    @suite.case("a letter is taken when the disk is full: it is sent once, and filed when there is room")
    def _():
        full = Full("state", "cache")
        full.again()
        full.smtp.taken = lambda data: full.disk.fill()
        write(full.mount / "outbox/x.eml", letter("once"))
        wait_until(lambda: full.smtp.accepted and full.home.status()["outbox"]["sending"] == 0, "it is sent")
        full.disk.make_room()
        full.home.run("connect", "work", check=0)
        wait_until(lambda: full.at_server("Sent") == full.mount.digests("Sent") != [], "the letter is in Sent")
        assert full.smtp.accepted == ["once"] and os.listdir(full.mount / "outbox") == ["failed"]

    @suite.case("... and where mailfs is killed then, it is maybe sent, and not sent again")
    def _():
        full = Full("state", "cache")
        full.again()
        full.smtp.taken = lambda data: full.disk.fill()
        write(full.mount / "outbox/x.eml", letter("once"))
        wait_until(lambda: full.smtp.accepted and full.home.status()["outbox"]["sending"] == 0, "it is sent")
        full.mount.kill()
        full.disk.make_room()
        full.mount = full.home.mount()
        full.home.wait_link("online")
        full.settle()
        assert os.getxattr(full.mount / "outbox/x.eml", "user.mail.state").startswith(b"maybe sent")
        assert full.smtp.accepted == ["once"]

    @suite.case("the cache alone: every change is made; a body that does not fit is ENOSPC, and can be read when there is room")
    def _():
        full = Full("cache")
        mount = full.mount
        full.disk.fill()
        for path in mount.messages("Uncached"):
            assert errno_of(digest, path) == "ENOSPC", path
        full.has_cached()
        new = message("cache full")
        write(mount / "INBOX/new.eml", new)
        os.mkdir(mount / "Made")
        os.rename(mount.messages("Archive")[0], mount / "Made/moved.eml")
        os.unlink(mount.messages("Archive")[0])
        write(mount / "outbox/x.eml", letter("cache full"))
        full.settle()
        wait_until(lambda: full.smtp.accepted and not os.path.exists(mount / "outbox/x.eml"), "the letter is sent")
        full.settle()
        assert sha(new) in full.at_server("INBOX") and len(full.at_server("Made")) == len(full.at_server("Trash")) == len(full.at_server("Sent")) == 1
        assert full.home.run("sync", "--populate", "work").returncode == 7
        assert full.home.link() == "online"
        full.disk.make_room()
        full.home.run("sync", "--populate", "work", check=0)
        full.same("INBOX", "Archive", "Uncached", "Made", "Trash", "Sent")
