#!/usr/bin/python3
"""What ordinary tools change reaches servers that are not Dovecot: Cyrus and Courier, as Debian has them."""
import os
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib import Suite, require_fuse, wait_until, writing  # noqa: E402
from lib import system  # noqa: E402
from lib.changes import Model, check, settle  # noqa: E402
from lib.courier import CourierImap  # noqa: E402
from lib.cyrus import Cyrus  # noqa: E402
from lib.elsewhere import flagged_meanwhile, moved_elsewhere, removed_elsewhere, renamed_elsewhere, renamed_past_recognition  # noqa: E402
from lib.writing import changes_of_two, changes_offline, copying_tools, message, news_is_read, ordinary_use, sha  # noqa: E402

ROUNDS = 30 if os.environ.get("MAILFS_TEST_LONG") else 4


class World(writing.World):
    def __init__(self, suite, server):
        self.top, self.ends_lines, self.server = server.top, server.ends_lines, server
        with server.client() as client:
            client.create(self.raw(self.top + "Archive"))
            for mailbox, word, count in (("INBOX", "start", 12), (self.top + "Archive", "old", 3)):
                for i in range(count):
                    client.append(self.raw(mailbox), message(f"{word} {i}"))
        super().__init__(server, suite.home(None, poll="24h", expunge_delay="0s", **server.settings()))


def in_place(suite, world, label):
    box, top = world.box, world.top

    @suite.case(f"{label}: sed -i, touch, an editor's rename: one new version, the flags of the old one, which is in Trash")
    def _():
        path, first = box / "edited.eml", message(f"edited one {label}")
        path.write_bytes(first)
        os.setxattr(path, "user.mail.flags", b"\\Flagged")
        world.settle()
        before = world.at_server("INBOX")
        subprocess.run(["sed", "-i", "s/edited one/edited two/", path], check=True)
        subprocess.run(["touch", path], check=True)
        second = first.replace(b"edited one", b"edited two")
        world.settle()
        assert world.at_server("INBOX") == sorted([*(d for d in before if d != sha(first)), sha(second)])
        assert sha(first) in world.at_server(top + "Trash") and world.flags()[sha(second)] == {"\\Flagged"}
        os.rename(path, box / "edited.eml~")
        path.write_bytes(first)
        os.unlink(box / "edited.eml~")
        world.settle()
        assert world.at_server("INBOX") == before and world.flags()[sha(first)] == {"\\Flagged"}
        assert sha(second) in world.at_server(top + "Trash")


def at_the_same_time(suite, world, label):
    box, mount, top = world.box, world.mount, world.top

    @suite.case(f"{label}: another client changes the mailbox while we do")
    def _():
        theirs, ours, failed = [message(f"theirs {label} {i}") for i in range(10)], [message(f"ours {label} {i}") for i in range(10)], []

        def other():
            try:
                with world.server.client() as client:
                    for data in theirs:
                        client.append("INBOX", data)
                    uids = {sha(body): uid for uid, body in client.bodies("INBOX").items()}
                    client.store("INBOX", uids[sha(theirs[0])], "+FLAGS", "\\Flagged")
                    client.expunge("INBOX", uids[sha(theirs[1])])
            except Exception as error:
                failed.append(error)
        thread = threading.Thread(target=other)
        thread.start()
        for i, data in enumerate(ours):
            (box / f"ours{i}.eml").write_bytes(data)
        os.setxattr(box / "ours0.eml", "user.mail.flags", b"+\\Answered")
        os.rename(box / "ours1.eml", mount / (top + "Archive") / "ours1.eml")
        (box / "ours2.eml").unlink()
        thread.join(120 * system.SLOW)
        assert not thread.is_alive() and not failed, failed
        world.settle()
        world.home.run("sync", "work", check=0)
        expected = {sha(data) for data in theirs + ours} - {sha(theirs[1]), sha(ours[1]), sha(ours[2])}
        found = [d for d in world.at_server("INBOX") if d in {sha(data) for data in theirs + ours}]
        assert sorted(found) == sorted(expected)
        flags = world.flags()
        assert flags[sha(theirs[0])] == {"\\Flagged"} and flags[sha(ours[0])] == {"\\Answered"}
        world.same("INBOX", top + "Archive", top + "Trash")


def everything(suite, world, label):
    @suite.case(f"{label}: everything in the tree is what the server has")
    def _():
        world.settle()
        world.home.run("sync", "work", check=0)
        for mailbox in world.mailboxes():
            world.same(mailbox)
        said = world.home.run("check", "work")
        assert said.returncode == 0, said.stdout + said.stderr


def interrupted(suite, server, label):
    boxes = ["INBOX", server.top + "One", server.top + "Two"]
    with server.client() as client:
        for box in boxes[1:]:
            client.create(box.replace("/", server.delimiter))

    def run(how, prefix, line):
        port = line.port if line else None
        home = suite.home(None, poll="24h", expunge_delay="0s", connect_timeout="10s", io_timeout="20s", **server.settings(port))
        mount = home.mount()
        model = Model(suite, mount, prefix, boxes, server.top + "Trash")

        @suite.case(f"{label}: {how} at any moment, {ROUNDS} times")
        def _():
            for _ in range(ROUNDS):
                if suite.random.randrange(2):
                    settle(home, mount)
                for _ in range(suite.random.randrange(1, 12)):
                    model.step()
                time.sleep(suite.random.random() * 0.4)  # the moment is the point, not a synchronisation
                if line:
                    line.do("mode reset")
                    line.do("drop")
                    server.wait_idle()
                    line.do("mode normal")
                    home.run("connect", "work")
                else:
                    mount.kill_hard()
                    server.wait_idle()
                    mount.start()
            wait_until(lambda: home.link() == "online", "the server is there again", 60)
            settle(home, mount)
            check(model, server, mount)
        mount.umount()

    run("kill -9", "kill", None)
    run("the line is cut", "cutt", suite.proxy(server.port))


with Suite("other servers", timeout=600) as suite:
    require_fuse()
    for label, serve, short in (("Courier", CourierImap, False), ("Cyrus", Cyrus, False), ("Cyrus, '/'", lambda suite: Cyrus(suite, internal=False), True)):
        server = serve(suite)
        world = World(suite, server)
        ordinary_use(suite, world, label)
        news_is_read(suite, world, label)
        in_place(suite, world, label)
        if not short:
            copying_tools(suite, world, label)
            changes_offline(suite, world, label)
            changes_of_two(suite, world, label)
            (renamed_past_recognition if serve is CourierImap else renamed_elsewhere)(suite, world, label)
            removed_elsewhere(suite, world, label)
            moved_elsewhere(suite, world, label)
            flagged_meanwhile(suite, world, label, lambda port, **settings: suite.home(None, **server.settings(port), **settings))
        at_the_same_time(suite, world, label)
        everything(suite, world, label)
        world.mount.umount()
        if not short:
            interrupted(suite, server, label)
