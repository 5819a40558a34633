#!/usr/bin/python3
"""What people and their programs do to mail all day, with the programs themselves or with their system calls."""
import json
import os
import re
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib import Skip, Suite, corpus, errno_of, read, require_fuse, wait_until, writing  # noqa: E402
from lib.writing import message, sha  # noqa: E402


class World(writing.World):
    def __init__(self, suite, settings=None, **options):
        server = suite.dovecot(**options)
        for mailbox, count in (("INBOX", 6), ("Archive", 3), ("Archive/Old", 2)):
            server.fill(mailbox, [(message(f"in {mailbox} {i}"), corpus.BASE + i, "") for i in range(count)])
        super().__init__(server, suite.home(server, poll="24h", **(settings or {})))

    def offline(self):
        self.home.run("disconnect", "work", check=0)

    def online(self):
        self.home.run("connect", "work", check=0)
        self.settle()
        self.home.run("sync", "work", check=0)


def run(*command, input=b"", **kwargs):
    done = subprocess.run([str(c) for c in command], capture_output=True, input=input, **kwargs)
    assert done.returncode == 0, (command, done.returncode, done.stdout, done.stderr)
    return done.stdout


with Suite("every day", timeout=300) as suite:
    require_fuse()
    # by NOTIFY Dovecot looks into a mailbox that is being deleted, and now and then makes it anew by that
    world = World(suite, settings={"expunge_delay": "0s"}, without=["NOTIFY"])
    box, mount = world.box, world.mount

    def edited(name, edit, beside=()):
        """edit(path, text) replaces a flagged message by text: there is one new version with its flags, and the old one is in Trash"""
        path, first = box / f"{name}.eml", message(f"first by {name}")
        path.write_bytes(first)
        os.setxattr(path, "user.mail.flags", b"\\Flagged")
        world.settle()
        server, trash = world.at_server("INBOX"), world.at_server("Trash")
        second = first.replace(b"first by", b"second by")
        world.offline()                                 # only the last version is ever sent, however slow the machine
        edit(path, second)
        assert read(path) == second
        world.online()
        assert world.at_server("INBOX") == sorted([*(d for d in server if d != sha(first)), sha(second)])
        assert world.at_server("Trash") == sorted([*trash, sha(first)])
        assert world.flags()[sha(second)] == {"\\Flagged"}
        assert sorted(n for n in os.listdir(box) if name in n) == sorted([path.name, *beside])
        for n in beside:
            os.unlink(box / n)
        world.settle()
        world.same("INBOX", "Trash")

    @suite.case("GLib (gedit): a temporary file over the old one, with a backup and without")
    def _():
        if not shutil.which("gio"):
            raise Skip("gio is not installed")
        environment = world.home.environment()
        edited("gio", lambda path, text: run("gio", "save", path, input=text, env=environment))
        edited("giobackup", lambda path, text: run("gio", "save", "-b", path, input=text, env=environment), ["giobackup.eml~"])

    @suite.case("LibreOffice (7.4, as strace shows it): open to be written all the time, a lock made anew, a temporary file; or in place")
    def _():
        def saves(path, text):
            lock, temporary = box / f".~lock.{path.name}#", box / "lu4711abc.tmp"

            def locks():
                fd = os.open(lock, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
                os.write(fd, b",somebody,here;")
                os.close(fd)
            shown = os.open(path, os.O_RDWR)
            locks()
            for version in (text.replace(b"second by", b"between by"), text):
                os.close(shown)
                os.unlink(lock)
                os.close(os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
                fd = os.open(temporary, os.O_RDWR | os.O_CREAT, 0o666)
                os.write(fd, version)
                os.close(fd)
                shown = os.open(path, os.O_RDWR)
                locks()
                assert errno_of(os.open, path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666) == "EEXIST"
                os.close(shown)
                os.rename(temporary, path)
                os.chmod(path, 0o600)
                shown = os.open(path, os.O_RDWR)
                os.fsync(shown)
            os.close(shown)
            os.unlink(lock)

        def in_place(path, text):
            fd = os.open(path, os.O_RDWR)
            os.ftruncate(fd, 0)
            for at in range(0, len(text), 100):
                os.pwrite(fd, text[at:at + 100], at)
            os.close(fd)
        edited("office", saves)
        edited("inplace", in_place)

    @suite.case("patch, with its backup and without; sed -i with a backup")
    def _():
        def patched(*options):
            def edit(path, text):
                folder = suite.path("patch")
                (folder / "a").write_bytes(read(path))
                (folder / "b").write_bytes(text)
                diff = subprocess.run(["diff", "-u", folder / "a", folder / "b"], capture_output=True).stdout
                run("patch", "--binary", *options, path, input=diff)
            return edit
        edited("patch", patched())
        edited("patchbackup", patched("-b"), ["patchbackup.eml.orig"])
        path, first = box / "kept.eml", message("first by sed")
        path.write_bytes(first)
        run("sed", "-i.bak", "s/first by/second by/", path)
        second = first.replace(b"first by", b"second by")
        assert read(path) == second and read(box / "kept.eml.bak") == first
        world.settle()
        assert {sha(first), sha(second)} <= set(world.at_server("INBOX"))
        assert read(path) == second and read(box / "kept.eml.bak") == first
        os.rename(box / "kept.eml.bak", box / "kept-bak.eml")

    @suite.case("appended to, made shorter, made empty, and written again")
    def _():
        path, first = box / "log.eml", message("a log")
        path.write_bytes(first)
        world.settle()
        run("sh", "-c", f"for i in 1 2 3; do printf 'line %d\\r\\n' $i >>{path}; done")
        second = first + b"line 1\r\nline 2\r\nline 3\r\n"
        assert read(path) == second
        world.settle()
        assert sha(second) in world.at_server("INBOX") and sha(first) not in world.at_server("INBOX")
        run("truncate", "-s", len(first), path)
        assert read(path) == first
        world.settle()
        assert sha(first) in world.at_server("INBOX") and sha(second) not in world.at_server("INBOX")
        run("truncate", "-s", 0, path)
        world.settle()
        assert read(path) == first                      # nothing is no message
        path.write_bytes(second)
        world.settle()
        assert sha(second) in world.at_server("INBOX") and sha(first) not in world.at_server("INBOX")

    def tree_of(where):
        return {str(p.relative_to(where)): sha(read(p)) for p in where.rglob("*.eml")}

    @suite.case("a tree comes in: mkdir -p, tar, rsync -a twice, cp -a; and goes: rm -rf")
    def _():
        source = suite.path("tree")
        for folder in ("a", "a/b", "c"):
            (source / folder).mkdir()
            for i in range(4):
                path = source / folder / f"{i}.eml"
                path.write_bytes(message(f"in {folder} {i}"))
                path.chmod(0o600)
                os.utime(path, (1_450_000_000 + i, 1_450_000_000 + i))
            (source / folder).chmod(0o700)
        whole = tree_of(source)
        run("mkdir", "-p", mount / "In/By/Tar", mount / "In/By/Rsync")
        run("tar", "-C", source, "-cf", suite.folder / "t.tar", ".")
        run("tar", "-C", mount / "In/By/Tar", "-xf", suite.folder / "t.tar")
        for said in (">f", ""):
            changed = run("rsync", "-ai", "--omit-dir-times", f"{source}/", f"{mount.where}/In/By/Rsync/").decode()
            assert changed.startswith("cd") if said else changed == "", changed
            world.settle()
        run("cp", "-a", mount / "In/By/Rsync", mount / "In/Copied")
        world.settle()
        for name in ("In/By/Tar", "In/By/Rsync", "In/Copied"):
            assert tree_of(mount / name) == whole, name
            for folder in ("a", "a/b", "c"):
                assert world.at_server(f"{name}/{folder}") == sorted(v for k, v in whole.items() if os.path.dirname(k) == folder), (name, folder)
            assert "13-Dec-2015" in world.internal_date(f"{name}/a", whole["a/1.eml"])
        run("rm", "-rf", mount / "In")
        assert not (mount / "In").exists()
        world.settle()
        assert not [name for name in world.mailboxes() if name.startswith("In/")] and "In" not in world.mailboxes()
        assert world.at_server("Trash").count(whole["a/1.eml"]) == 3

    @suite.case("a file manager: copies, moves, and cannot put its own trash here")
    def _():
        if not shutil.which("gio"):
            raise Skip("gio is not installed")
        environment = world.home.environment()
        data, source = message("dropped"), suite.path("desk")
        (source / "drop.eml").write_bytes(data)
        run("gio", "copy", "-p", source / "drop.eml", box, env=environment)
        run("gio", "move", box / "drop.eml", mount / "Archive", env=environment)
        run("gio", "copy", mount / "Archive/drop.eml", box / "again.eml", env=environment)
        run("gio", "move", source / "drop.eml", box / "moved-in.eml", env=environment)
        world.settle()
        assert world.at_server("Archive").count(sha(data)) == 1 and world.at_server("INBOX").count(sha(data)) == 2
        run("gio", "mkdir", mount / "Folder", env=environment)
        run("gio", "rename", mount / "Folder", "Renamed", env=environment)
        run("gio", "move", box / "again.eml", mount / "Renamed/again.eml", env=environment)
        said = subprocess.run(["gio", "trash", str(box / "moved-in.eml")], capture_output=True, env=environment, stdin=subprocess.DEVNULL)
        assert said.returncode and (box / "moved-in.eml").exists()
        run("gio", "remove", box / "moved-in.eml", env=environment)
        world.settle()
        assert world.at_server("Renamed") == [sha(data)] and sha(data) in world.at_server("Trash")
        assert not [n for n in world.mailboxes() if "Trash-" in n]

    @suite.case("two mailboxes exchange their names while there is no network")
    def _():
        run("mkdir", "-p", mount / "A/Inside", mount / "B")
        (mount / "A/a.eml").write_bytes(message("in A"))
        (mount / "A/Inside/i.eml").write_bytes(message("in A/Inside"))
        (mount / "B/b.eml").write_bytes(message("in B"))
        world.settle()
        world.offline()
        run("mv", mount / "A", mount / "tmp")
        run("mv", mount / "B", mount / "A")
        run("mv", mount / "tmp", mount / "B")
        waiting = world.home.run("pending", "work").stdout
        assert "rename the mailbox A to B" in waiting and "rename the mailbox B to A" in waiting and "tries again" not in waiting, waiting
        (mount / "B/new.eml").write_bytes(message("new in B"))
        world.online()
        assert world.at_server("A") == [sha(message("in B"))]
        assert world.at_server("B") == sorted([sha(message("in A")), sha(message("new in B"))])
        assert world.at_server("B/Inside") == [sha(message("in A/Inside"))]
        world.same("A", "B", "B/Inside")
        assert not [name for name in world.mailboxes() if "tmp" in name or "moving" in name]
        with world.server.client() as client:
            subscribed = str(client.imap.lsub()[1])
        assert "moving" not in subscribed and "tmp" not in subscribed

    @suite.case("a mailbox is numbered anew while changes of it wait")
    def _():
        os.mkdir(mount / "Again")
        bodies = [message(f"again {i}") for i in range(6)]
        for i, data in enumerate(bodies):
            (mount / "Again" / f"{i}.eml").write_bytes(data)
        world.settle()
        world.offline()
        inode = os.stat(mount / "Again/0.eml").st_ino
        os.setxattr(mount / "Again/0.eml", "user.mail.flags", b"\\Flagged")
        os.rename(mount / "Again/1.eml", mount / "Archive/1.eml")
        os.unlink(mount / "Again/2.eml")
        (mount / "Again/3.eml").write_bytes(message("again 3, edited"))
        (mount / "Again/new.eml").write_bytes(message("again, new"))
        os.unlink(mount / "Again/5.eml")
        with world.server.client() as client:
            client.select("Again", readonly=True)
            was = client.uidvalidity()
            dates = {}
            for uid in client.uids():
                dates[uid] = client.command("uid", "FETCH", str(uid), "(INTERNALDATE BODY.PEEK[])")[0]
            client.imap.close()
            client.command("delete", "Again")
            client.create("Again")
            for uid, (head, body) in sorted(dates.items(), reverse=True):
                if sha(body) != sha(bodies[5]):
                    client.append("Again", body, "", '"' + re.search(rb'INTERNALDATE "(.*?)"', head).group(1).decode() + '"')
            client.select("Again", readonly=True)
            assert client.uidvalidity() != was
        world.home.run("connect", "work", check=0)
        assert "wait for you" in world.home.run("sync", "--wait", "work").stderr
        parked = world.home.run("pending", "work").stdout
        assert "5.eml" in parked and "was not found in it again" in parked and parked.count("parked") == 1, parked
        world.home.run("cancel", "work", "all", check=0)
        world.online()
        assert not (mount / "Again/5.eml").exists()
        assert world.at_server("Again") == sorted(map(sha, [bodies[0], bodies[4], message("again 3, edited"), message("again, new")]))
        assert world.flags("Again")[sha(bodies[0])] == {"\\Flagged"}
        assert sha(bodies[1]) in world.at_server("Archive")
        assert sha(bodies[2]) in world.at_server("Trash") and sha(bodies[3]) in world.at_server("Trash")
        assert sha(bodies[5]) not in world.at_server("Trash")
        assert os.stat(mount / "Again/0.eml").st_ino == inode
        world.same("Again", "Archive", "Trash")

    @suite.case("subscribed and unsubscribed, by attribute and by command")
    def _():
        def lsub():
            with world.server.client() as client:
                return str(client.imap.lsub()[1])
        os.mkdir(mount / "Listed")
        world.settle()
        assert "Listed" in lsub()
        assert os.getxattr(mount / "Listed", "user.mail.subscribed") == b"yes"
        os.setxattr(mount / "Listed", "user.mail.subscribed", b"no")
        world.settle()
        assert "Listed" not in lsub()
        world.home.run("subscribe", "Listed", check=0)
        world.settle()
        assert "Listed" in lsub() and os.getxattr(mount / "Listed", "user.mail.subscribed") == b"yes"
        world.home.run("unsubscribe", "work/Listed", check=0)
        world.settle()
        assert "Listed" not in lsub()

    @suite.case("one is taken back by rm, one is waited for by its name")
    def _():
        world.offline()
        first, second = message("taken back"), message("waited for")
        (box / "taken.eml").write_bytes(first)
        (box / "waited.eml").write_bytes(second)
        pending = mount / ".mailfs/pending"
        one = next(n for n in os.listdir(pending) if b"taken.eml" in read(pending / n))
        assert errno_of(os.unlink, pending / "nothing") == "ENOENT"
        os.unlink(pending / one)
        assert not (box / "taken.eml").exists() and read(mount / ".mailfs/rejected/taken.eml") == first
        os.unlink(mount / ".mailfs/rejected/taken.eml")
        said = world.home.run("sync", "--wait", "INBOX")
        assert said.returncode != 0, said
        world.home.run("connect", "work", check=0)
        world.home.wait_link("online")
        world.home.run("sync", "--wait", box / "waited.eml", check=0)
        for place in (box, ".", box.parent, "../"):
            world.home.run("sync", place, cwd=box, check=0)
        assert world.home.run("sync", "../..", cwd=box).returncode == 8
        assert sha(second) in world.at_server("INBOX") and sha(first) not in world.at_server("INBOX")
        assert os.getxattr(box / "waited.eml", "user.mail.state") == b"synchronised"
        (box / ".scratch.eml").write_bytes(first)
        said = world.home.run("sync", "--wait", box / "waited.eml", box / ".scratch.eml")
        assert said.returncode == 15 and ".scratch.eml is not at the server: local" in said.stderr, said
        os.unlink(box / ".scratch.eml")

    @suite.case("everything in the tree is what the server has")
    def _():
        world.settle()
        world.home.run("sync", "work", check=0)
        for mailbox in world.mailboxes():
            world.same(mailbox)
        said = world.home.run("check", "work")
        assert said.returncode == 0, said.stdout + said.stderr

    @suite.case("between accounts rename is EXDEV, and mv copies and removes")
    def _():
        server = suite.dovecot()
        home = suite.home(world.server, poll="24h")
        with home.config.open("a") as file:
            file.write("\n".join(["[account other]", f"imap = imaps://127.0.0.1:{server.port}", f"user = {server.user}",
                                  f"password = {server.password}", f"tls-ca-file = {server.authority.ca}", ""]))
        both = home.mount(source=None)
        one, other, data = both / "work", both / "other", message("to another account")
        home.run("disconnect", check=0)
        for folder in (one, other):
            os.mkdir(folder / "Neither")
        assert [line.split(":")[0] for line in home.run("pending", check=0).stdout.splitlines()] == ["work", "other"]
        assert [json.loads(line)["pending"]["account"] for line in home.run("pending", "--json", check=0).stdout.splitlines()] == ["work", "other"]
        assert {json.loads(line)["account"] for line in home.run("list", "--json", check=0).stdout.splitlines()} == {"work", "other"}
        assert {"work/INBOX", "other/INBOX"} <= set(home.run("complete", "mailboxes", check=0).stdout.splitlines())
        assert "INBOX" in home.run("complete", "mailboxes", "--account", "work", check=0).stdout.splitlines()
        assert home.run("cancel", "all", check=0).stdout.splitlines() == [f"{name}: 1 taken back, 0 left" for name in ("work", "other")]
        home.run("connect", check=0)
        os.mkdir(one / "Leaving")
        (one / "Leaving/x.eml").write_bytes(data)
        assert errno_of(os.rename, one / "Leaving/x.eml", other / "INBOX/x.eml") == "EXDEV"
        assert errno_of(os.rename, one / "Leaving", other / "Leaving") == "EXDEV"
        run("mv", one / "Leaving/x.eml", other / "INBOX/x.eml")
        (one / "Leaving/y.eml").write_bytes(message("with its folder"))
        run("mv", one / "Leaving", other / "Arrived")
        assert not (one / "Leaving").exists()
        home.run("sync", "--wait", other / "INBOX/x.eml", other / "Arrived/y.eml", check=0)
        home.run("sync", "--wait", check=0)
        home.run("sync", "work/INBOX", "other/INBOX", check=0)
        said = home.run("sync", "work/INBOX", "other/INBOX", "Arrived")
        assert said.returncode == 1 and "other/INBOX" not in said.stderr and "NAME/Arrived" in said.stderr, said
        with server.client() as client:
            assert list(client.bodies("INBOX").values()) == [data]
            assert list(client.bodies("Arrived").values()) == [message("with its folder")]
        both.umount()

    @suite.case("a mailbox is no file, nor a file a mailbox; and who serves the mount has died")
    def _():
        home = suite.home(world.server, poll="24h")
        dying = home.mount()
        path = dying.messages("INBOX")[0]
        assert errno_of(os.rename, path, dying / "Archive") == "EISDIR"
        assert errno_of(os.rename, dying / "Archive", path) == "ENOTDIR"
        assert errno_of(os.rmdir, path) == "ENOTDIR" and errno_of(os.unlink, dying / "Archive") == "EISDIR"
        assert errno_of(os.rmdir, dying / "Archive") == "ENOTEMPTY"
        assert errno_of(os.getxattr, path, "user.nothing") == "ENODATA"
        dying.process.kill()
        dying.process.wait()
        assert errno_of(os.listdir, dying.where) == "ENOTCONN"
        home.run("umount", dying.where, check=0)
        assert os.listdir(dying.where) == []

    @suite.case("what is being carried out cannot be taken back: EBUSY")
    def _():
        line = suite.proxy(world.server.port)
        home = suite.home(world.server, port=line.port, poll="24h", io_timeout="10m")
        slow = home.mount()
        pending = slow / ".mailfs/pending"
        home.run("sync", "--wait", "work", check=0)         # it is not in the middle of something else
        line.do("pause")
        os.mkdir(slow / "Slowly")
        wait_until(lambda: any(b"state: sent" in read(pending / n) for n in os.listdir(pending)), "it is sent", 60)
        making = next(n for n in os.listdir(pending) if b"state: sent" in read(pending / n))
        assert errno_of(os.unlink, pending / making) == "EBUSY"
        assert errno_of(os.rmdir, slow / "Slowly") == "EBUSY"
        line.do("resume")
        home.run("sync", "--wait", "work", check=0)
        os.rmdir(slow / "Slowly")
        home.run("sync", "--wait", "work", check=0)
        slow.umount()

    gone = World(suite, settings={"expunge_delay": "1h"})

    @suite.case("rm -rf of the whole mount by mistake: all is in Trash, or brought back by cancel all")
    def _():
        with gone.server.client() as client:
            for i in range(2):
                client.append("Trash", message(f"trash {i}"))
        gone.home.run("sync", "work", check=0)
        before = {m: gone.at_server(m) for m in ("INBOX", "Archive", "Archive/Old", "Trash")}
        said = subprocess.run(["sh", "-c", 'rm -rf "$0"/*', str(gone.mount.where)], capture_output=True, text=True)
        assert "INBOX" in said.stderr and sorted(os.listdir(gone.mount.where)) == [".nomedia", "INBOX"], said
        gone.settle()
        assert sum(len(gone.at_server(m)) for m in gone.mailboxes()) == sum(map(len, before.values()))
        gone.home.run("cancel", "work", "all", check=0)
        gone.settle()
        gone.home.run("sync", "work", check=0)
        after = [d for m in gone.mailboxes() for d in gone.in_tree(m)]
        assert sorted(after) == sorted(d for found in before.values() for d in found)
        gone.same(*gone.mailboxes())
        assert gone.home.status()["changes"]["pending"] == 0
