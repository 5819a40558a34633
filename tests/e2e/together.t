#!/usr/bin/python3
"""Two mounts of one account on two state folders, and another client, all changing the same mailboxes."""
import collections
import hashlib
import imaplib
import os
import re
import sys
import threading

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib import Suite, corpus, digest, require_fuse, wait_until  # noqa: E402

BOXES = ["INBOX", "One", "Two"]
STEPS = 400 if os.environ.get("MAILFS_TEST_LONG") else 80
TELL = """
protocol imap {
 mail_plugins = zlib imap_zlib notify mail_log
}
plugin {
 mail_log_events = save copy expunge
 mail_log_fields = uid box msgid
}
"""
TOLD = re.compile(r"><(\S+)>: Info: (?:save|(expunge)|copy from (.+?)): box=(.+?), uid=\d+, msgid=<(.+?)>")


def sha(data):
    return hashlib.sha256(data).hexdigest()


def made_two_of(log):
    """{Message-ID: how often the server moved it for one client while it did so for another}. Dovecot's MOVE is a copy and an expunge,
    and what two clients move at the same time is then in both places."""
    where, moving, found = collections.Counter(), {}, collections.Counter()
    for client, expunged, source, box, mid in TOLD.findall(log):
        if source:
            found[mid] += where[mid, source] < 1 or moving.get((mid, source), client) != client
            moving[mid, source] = client
        where[mid, box] += -1 if expunged else 1
        if expunged:
            moving.pop((mid, box), None)
    return found


class Actor(threading.Thread):
    """Makes messages of its own, and moves, flags and removes whatever it meets."""

    def __init__(self, suite, name):
        super().__init__()
        self.random = type(suite.random)(suite.random.random())
        self.name, self.made, self.count, self.failure = name, {}, 0, None

    def run(self):
        try:
            for _ in range(STEPS):
                self.step()
        except BaseException as error:  # told by the main thread
            self.failure = error

    def message(self):
        self.count += 1
        mid = f"{self.name}-{self.count}@x"
        data = corpus.message(subject=f"{self.name} {self.count}", mid=f"<{mid}>")
        self.made[sha(data)] = mid
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
    server = suite.dovecot(extra=TELL)
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
        made = {key: mid for actor in actors for key, mid in actor.made.items()}
        assert made.keys() - counts.keys() == set(), f"{len(made.keys() - counts.keys())} lost"
        twos = made_two_of((server.folder / "log").read_text(errors="replace"))
        twice = {made[key]: n for key, n in counts.items() if n > 1 + twos[made[key]]}
        assert twice == {}, twice
        suite.say(f"{sum(counts.values())} messages, {sum(counts.values()) - len(counts)} of them there twice by the server")
        for mount in mounts:
            wait_until(lambda: in_tree(mount) == truth, "the tree is what the server has")
        for home in homes:
            said = home.run("check", "work")
            assert said.returncode == 0, said.stdout
