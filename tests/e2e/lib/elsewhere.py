"""Another client renames and removes mailboxes that changes made here wait for, and moves messages."""
import os
import subprocess

from .mailfs import read
from .system import wait_until
from .writing import message, sha


def with_a_number_of_its_own(world, mailbox):
    """Makes it at the server. Cyrus takes UIDVALIDITY from the clock: two that are made in one second have the same."""
    raw = world.raw(mailbox)
    with world.server.client() as client:
        def number(name):
            client.select(name, readonly=True)
            return client.uidvalidity()
        others = {number(world.raw(name)) for name in world.mailboxes() | {"INBOX"}}

        def made():
            client.create(raw)
            if number(raw) not in others:
                return True
            client.select("INBOX", readonly=True)
            client.command("delete", raw)
            return False
        wait_until(made, f"{mailbox} has a UIDVALIDITY of its own")
    world.home.run("sync", "work", check=0)


def renamed_elsewhere(suite, world, label):
    mount, top = world.mount, world.top

    @suite.case(f"{label}: another client renames a mailbox: what waits for it goes where it is now, inodes and names stay")
    def _():
        mine, theirs, archive = mount / (top + "Mine"), mount / (top + "Theirs"), mount / (top + "Archive")
        bodies = [message(f"mine {label} {i}") for i in range(6)]
        new, second, inside = (message(f"mine {label}, {what}") for what in ("new", "second version", "inside"))
        with_a_number_of_its_own(world, top + "Mine")
        for i, data in enumerate(bodies):
            (mine / f"{i}.eml").write_bytes(data)
        world.settle()
        archived, trashed = world.at_server(top + "Archive"), world.at_server(top + "Trash")
        inodes = [os.stat(mine).st_ino, os.stat(mine / "0.eml").st_ino, os.stat(mine / "5.eml").st_ino]
        world.home.run("disconnect", "work", check=0)
        os.setxattr(mine / "0.eml", "user.mail.flags", b"\\Flagged")
        os.rename(mine / "1.eml", archive / "mine1.eml")
        os.unlink(mine / "2.eml")
        subprocess.run(["cp", mine / "3.eml", archive / "mine3.eml"], check=True)
        (mine / "4.eml").write_bytes(second)
        (mine / "new.eml").write_bytes(new)
        os.mkdir(mine / "Inside")
        (mine / "Inside/in.eml").write_bytes(inside)
        with world.server.client() as client:
            client.command("rename", world.raw(top + "Mine"), world.raw(top + "Theirs"))
        world.home.run("connect", "work", check=0)
        world.settle()
        world.home.run("sync", "work", check=0)
        assert not mine.exists()
        assert [os.stat(theirs).st_ino, os.stat(theirs / "0.eml").st_ino, os.stat(theirs / "5.eml").st_ino] == inodes
        assert sorted(os.listdir(theirs)) == ["0.eml", "3.eml", "4.eml", "5.eml", "Inside", "new.eml"]
        assert world.at_server(top + "Theirs") == sorted(map(sha, [bodies[0], bodies[3], second, bodies[5], new]))
        assert world.flags(top + "Theirs")[sha(bodies[0])] == {"\\Flagged"}
        assert world.at_server(top + "Theirs/Inside") == [sha(inside)]
        assert world.at_server(top + "Archive") == sorted([*archived, sha(bodies[1]), sha(bodies[3])])
        assert world.at_server(top + "Trash") == sorted([*trashed, sha(bodies[2]), sha(bodies[4])])
        assert top + "Mine" not in world.mailboxes()
        world.same(*(top + name for name in ("Theirs", "Theirs/Inside", "Archive", "Trash")))


def renamed_past_recognition(suite, world, label):
    """The server numbers what it renames anew, and has no MAILBOXID."""
    mount, top = world.mount, world.top

    @suite.case(f"{label}: another client renames a mailbox, and nothing tells which it was: no message is lost or doubled")
    def _():
        mine, archive, new = mount / (top + "Mine"), mount / (top + "Archive"), message(f"mine {label}, new")
        bodies = [message(f"mine {label} {i}") for i in range(4)]
        os.mkdir(mine)
        for i, data in enumerate(bodies):
            (mine / f"{i}.eml").write_bytes(data)
        world.settle()
        world.home.run("disconnect", "work", check=0)
        os.setxattr(mine / "0.eml", "user.mail.flags", b"\\Flagged")
        os.rename(mine / "1.eml", archive / "mine1.eml")
        os.unlink(mine / "2.eml")
        (mine / "new.eml").write_bytes(new)
        with world.server.client() as client:
            client.command("rename", world.raw(top + "Mine"), world.raw(top + "Theirs"))
        world.home.run("connect", "work", check=0)
        assert "wait for you" in world.home.run("sync", "--wait", "work").stderr
        assert "another client has removed this mailbox" in world.home.run("pending", "work").stdout
        assert read(mine / "new.eml") == new
        world.home.run("retry", "work", "all", check=0)
        world.settle()
        world.home.run("sync", "work", check=0)
        boxes = [top + name for name in ("Mine", "Theirs", "Archive", "Trash")]
        assert world.at_server(boxes[0]) == [sha(new)]
        everywhere = [d for name in boxes for d in world.at_server(name)]
        assert [everywhere.count(sha(data)) for data in bodies] == [1] * len(bodies)
        world.same(*boxes)


def removed_elsewhere(suite, world, label):
    mount, top = world.mount, world.top

    @suite.case(f"{label}: another client removes a mailbox: what was taken out is stored anew, or shown with the reason; nothing goes")
    def _():
        doomed, archive = mount / (top + "Doomed"), mount / (top + "Archive")
        here, unread, new = (message(f"doomed {label}, {what}") for what in ("read", "unread", "new"))
        os.mkdir(doomed)
        world.settle()
        with world.server.client() as client:
            client.append(world.raw(top + "Doomed"), here)
            client.append(world.raw(top + "Doomed"), unread)
        world.home.run("sync", "work", check=0)
        paths = {os.getxattr(path, "user.mail.subject").decode(): path for path in mount.messages(top + "Doomed")}
        path, unread_path = (next(p for subject, p in paths.items() if subject.endswith(end)) for end in (", read", ", unread"))
        assert read(path) == here and os.getxattr(unread_path, "user.mail.cached") == b"no"
        archived = world.at_server(top + "Archive")
        world.home.run("disconnect", "work", check=0)
        os.rename(path, archive / "here.eml")
        os.rename(unread_path, archive / "unread.eml")
        (doomed / "new.eml").write_bytes(new)
        with world.server.client() as client:
            client.command("delete", world.raw(top + "Doomed"))
        world.home.run("connect", "work", check=0)
        assert "wait for you" in world.home.run("sync", "--wait", "work").stderr
        pending = world.home.run("pending", "work").stdout
        assert pending.count("another client has removed") == 2, pending
        assert world.at_server(top + "Archive") == sorted([*archived, sha(here)])
        assert (archive / "unread.eml").exists() and read(doomed / "new.eml") == new
        world.home.run("retry", "work", "all", check=0)
        assert "wait for you" in world.home.run("sync", "--wait", "work").stderr
        assert world.at_server(top + "Doomed") == [sha(new)]
        assert world.home.run("pending", "work").stdout.count("another client has removed") == 1
        world.home.run("cancel", "work", "all", check=0)
        world.settle()
        world.home.run("sync", "work", check=0)
        assert not (archive / "unread.eml").exists()
        world.same(top + "Doomed", top + "Archive")


def move(client, mailbox, uid, to):
    client.select(mailbox)
    if "MOVE" in client.capabilities():
        client.command("uid", "MOVE", uid, client.quote(to))
        return
    client.command("uid", "COPY", uid, client.quote(to))
    client.expunge(mailbox, uid)


def moved_elsewhere(suite, world, label):
    mount, top = world.mount, world.top

    @suite.case(f"{label}: another client moves messages: flags and moves that wait go after them, nothing is forgotten")
    def _():
        box, archive, third = mount / "INBOX", mount / (top + "Archive"), mount / (top + "Third")
        bodies = {what: message(f"moved {label}, {what}") for what in ("flagged", "moved", "trashed", "same", "gone")}
        os.mkdir(third)
        for what, data in bodies.items():
            (box / f"{what}.eml").write_bytes(data)
        world.settle()
        inode, trashed = os.stat(box / "moved.eml").st_ino, world.at_server(top + "Trash")
        world.home.run("disconnect", "work", check=0)
        for what in ("flagged", "moved", "same", "gone"):
            os.setxattr(box / f"{what}.eml", "user.mail.flags", b"\\Flagged")
        for what in ("moved", "same", "gone"):
            os.rename(box / f"{what}.eml", archive / f"{what}-mine.eml")
        os.setxattr(archive / "moved-mine.eml", "user.mail.flags", b"+\\Answered")
        os.unlink(box / "trashed.eml")
        with world.server.client() as client:
            uids = {sha(body): uid for uid, body in client.bodies("INBOX").items()}
            for what in ("flagged", "moved", "trashed"):
                move(client, "INBOX", str(uids[sha(bodies[what])]), world.raw(top + "Third"))
            move(client, "INBOX", str(uids[sha(bodies["same"])]), world.raw(top + "Archive"))
            client.expunge("INBOX", uids[sha(bodies["gone"])])
        world.home.run("connect", "work", check=0)
        world.settle()
        world.home.run("sync", "work", check=0)
        assert world.at_server(top + "Third") == [sha(bodies["flagged"])]
        assert world.flags(top + "Third")[sha(bodies["flagged"])] == {"\\Flagged"}
        assert world.at_server(top + "Trash") == sorted([*trashed, sha(bodies["trashed"])])
        flags = world.flags(top + "Archive")
        assert flags[sha(bodies["moved"])] == {"\\Flagged", "\\Answered"} and flags[sha(bodies["same"])] == {"\\Flagged"}
        assert world.at_server(top + "Archive").count(sha(bodies["moved"])) == world.at_server(top + "Archive").count(sha(bodies["same"])) == 1
        assert os.stat(archive / "moved-mine.eml").st_ino == inode and (archive / "same-mine.eml").exists()
        assert not (archive / "gone-mine.eml").exists()
        world.same("INBOX", *(top + name for name in ("Third", "Archive", "Trash")))


def flagged_meanwhile(suite, world, label, home_at):
    """home_at: another home of the account, whose server is at that port"""
    top = world.top

    @suite.case(f"{label}: another client moves a message while its flags are on their way: they go after it")
    def _():
        line, other = suite.proxy(world.server.port), top + "Meanwhile"
        # nothing is told of its own changes: a mailbox that is known to have changed would be read first
        home = home_at(line.port, idle="no", poll="24h")
        mount = home.mount()
        box, bodies = mount / "INBOX", {what: message(f"meanwhile {label}, {what}") for what in ("before", "moved", "gone", "flagged", "stays")}

        def settle():
            home.run("sync", "--wait", "work", check=0)
        os.mkdir(mount / other)
        for what, data in bodies.items():
            (box / f"{what}.eml").write_bytes(data)
        settle()
        os.setxattr(box / "before.eml", "user.mail.flags", b"\\Seen")    # the mailbox is selected from here on
        settle()
        line.do("pause")
        try:
            for what in ("moved", "gone", "flagged", "stays"):
                os.setxattr(box / f"{what}.eml", "user.mail.flags", b"\\Flagged")
            wait_until(lambda: home.run("pending", "work", check=0).stdout.count("sent") >= 4, "they are on their way")
            with world.server.client() as client:
                uids = {sha(body): uid for uid, body in client.bodies("INBOX").items()}
                client.select("INBOX")
                client.store("INBOX", uids[sha(bodies["flagged"])], "+FLAGS", "\\Flagged")
                client.store("INBOX", uids[sha(bodies["moved"])], "+FLAGS", "\\Answered")
                move(client, "INBOX", str(uids[sha(bodies["moved"])]), world.raw(other))
                client.expunge("INBOX", uids[sha(bodies["gone"])])
        finally:
            line.do("resume")
        settle()
        flags = world.flags()
        assert flags[sha(bodies["flagged"])] == flags[sha(bodies["stays"])] == {"\\Flagged"}, flags
        assert sha(bodies["moved"]) not in flags and sha(bodies["gone"]) not in flags
        flags = world.flags(other)
        assert flags == {sha(bodies["moved"]): {"\\Flagged", "\\Answered"}}, flags
        home.run("sync", "work", check=0)
        mount.umount()
        world.home.run("sync", "work", check=0)
        world.same("INBOX", other)
