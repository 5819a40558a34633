#!/usr/bin/python3
"""Two mounts of one account on two state folders, and another client, all changing the same mailboxes."""
import collections
import hashlib
import imaplib
import os
import sys
import threading

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib import Suite, corpus, digest, require_fuse, wait_until  # noqa: E402

BOXES = ["INBOX", "One", "Two"]
STEPS = 400 if os.environ.get("MAILFS_TEST_LONG") else 80


def sha(data):
    return hashlib.sha256(data).hexdigest()


class Actor(threading.Thread):
    """Makes messages of its own, and moves, flags and removes whatever it meets."""

    def __init__(self, suite, name):
        super().__init__()
        self.random = type(suite.random)(suite.random.random())
        self.name, self.made, self.count, self.failure = name, set(), 0, None

    def run(self):
        try:
            for _ in range(STEPS):
                self.step()
        except BaseException as error:  # told by the main thread
            self.failure = error

    def message(self):
        self.count += 1
        data = corpus.message(subject=f"{self.name} {self.count}", mid=f"<{self.name}-{self.count}@x>")
        self.made.add(sha(data))
        return data


class Mounted(Actor):
    def __init__(self, suite, name, mount):
        super().__init__(suite, name)
        self.mount = mount

    @staticmethod
    def at_server(path):
        """One that is not there yet would be forgotten at once."""
        try:
            return os.getxattr(path, "user.mail.uid")
        except OSError:
            return None

    def step(self):
        box, to = self.random.sample(BOXES, 2)
        what = self.random.random()
        try:
            names = self.mount.names(box)
            if what < .4 or not names:
                (self.mount / box / f"{self.name}-{self.count}.eml").write_bytes(self.message())
                return
            path = self.mount / box / self.random.choice(names)
            if what < .6:
                os.rename(path, self.mount / to / path.name)
            elif what < .8:
                os.setxattr(path, "user.mail.flags", self.random.choice([b"+\\Seen", b"-\\Seen", b"+\\Flagged", b"+$Label"]))
            elif self.at_server(path):
                os.unlink(path)
        except (FileNotFoundError, OSError) as error:
            # another has been quicker: the kernel may know a name that is gone
            assert isinstance(error, FileNotFoundError) or error.errno in (116, 2), error


class Other(Actor):
    def __init__(self, suite, name, server):
        super().__init__(suite, name)
        self.server = server

    def step(self):
        box, to = self.random.sample(BOXES, 2)
        with self.server.client() as client:
            if self.random.random() < .4:
                client.append(box, self.message())
                return
            client.select(box)
            uids = client.uids()
            if not uids:
                return
            uid = str(self.random.choice(uids))
            try:
                if self.random.random() < .5:
                    client.command("uid", "MOVE", uid, to)
                else:
                    client.command("uid", "STORE", uid, "+FLAGS", "\\Answered")
            except (imaplib.IMAP4.error, AssertionError):
                pass  # gone meanwhile


with Suite("three at the same mailboxes", timeout=400) as suite:
    require_fuse()
    server = suite.dovecot()
    with server.client() as client:
        for box in BOXES[1:]:
            client.create(box)
    homes = [suite.home(server, poll="2s") for _ in range(2)]
    mounts = [home.mount() for home in homes]

    def at_server():
        found = {}
        with server.client() as client:
            for box in BOXES + ["Trash"]:
                bodies, flags = client.bodies(box), client.flags(box)
                found[box] = sorted((sha(body), tuple(sorted(flags[uid] - {"\\Recent"}))) for uid, body in bodies.items())
        return found

    def in_tree(mount):
        found = {}
        for box in BOXES + ["Trash"]:
            found[box] = sorted((digest(p), tuple(sorted(os.getxattr(p, "user.mail.flags").decode().split()))) for p in mount.messages(box))
        return found

    @suite.case(f"each of them does {STEPS} things; at the end all agree, and nothing is lost or doubled")
    def _():
        actors = [Mounted(suite, "left", mounts[0]), Mounted(suite, "right", mounts[1]), Other(suite, "other", server)]
        for actor in actors:
            actor.start()
        for actor in actors:
            actor.join()
        for actor in actors:
            if actor.failure:
                raise actor.failure
        for _ in range(2):
            for home in homes:
                said = home.run("sync", "--wait", "work", timeout=120)
                assert said.returncode == 0, (said.stderr, home.run("pending", "work").stdout)
        truth = at_server()
        counts = collections.Counter(key for rows in truth.values() for key, _ in rows)
        made = set().union(*(actor.made for actor in actors))
        assert made - set(counts) == set(), f"{len(made - set(counts))} lost"
        assert [key for key, n in counts.items() if n > 1] == [], f"{sum(n > 1 for n in counts.values())} are there twice"
        for mount in mounts:
            wait_until(lambda: in_tree(mount) == truth, "the tree is what the server has")
        for home in homes:
            said = home.run("check", "work")
            assert said.returncode == 0, said.stdout
