#!/usr/bin/python3
"""Changes under kill -9 and cut lines: at the end each message is where it was put, once."""
import collections
import hashlib
import os
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib import Suite, corpus, digest, require_fuse, wait_until  # noqa: E402

ROUNDS = 60 if os.environ.get("MAILFS_TEST_LONG") else 12
BOXES = ["INBOX", "One", "Two"]


def sha(data):
    return hashlib.sha256(data).hexdigest()


class Model:
    """What was done through the mount, and so what the server has in the end: {sha: mailbox}."""

    def __init__(self, suite, mount, prefix):
        self.random, self.mount, self.prefix = suite.random, mount, prefix
        self.where = {}         # sha: (mailbox, name) as the tree has it
        self.trashed = set()    # each is in Trash, or was there
        self.count = 0
        self.flagged = {}

    def message(self):
        self.count += 1
        return corpus.message(subject=f"{self.prefix} {self.count}", body=b"x" * self.random.randrange(20000) + b"\r\n",
                              mid=f"<{self.prefix}-{self.count}@crash>")

    def make(self):
        data, box, name = self.message(), self.random.choice(BOXES), f"{self.prefix}{self.count}.eml"
        path = self.mount / box / name
        with open(path, "wb", buffering=0) as file:
            file.write(data)
        self.where[sha(data)] = (box, name)

    def some(self):
        return self.random.choice(list(self.where)) if self.where else None

    def move(self):
        key = self.some()
        if key:
            box, name = self.where[key]
            to = self.random.choice([b for b in BOXES if b != box])
            os.rename(self.mount / box / name, self.mount / to / name)
            self.where[key] = (to, name)

    def remove(self):
        key = self.some()
        if key:
            box, name = self.where[key]
            os.unlink(self.mount / box / name)
            del self.where[key]
            self.trashed.add(key)

    def overwrite(self):
        key = self.some()
        if key:
            box, name = self.where[key]
            data = self.message()
            with open(self.mount / box / name, "wb", buffering=0) as file:
                file.write(data)
            del self.where[key]
            self.trashed.add(key)
            self.where[sha(data)] = (box, name)

    def flag(self):
        key = self.some()
        if key:
            box, name = self.where[key]
            os.setxattr(self.mount / box / name, "user.mail.flags", b"+\\Flagged")
            self.flagged[key] = True

    def step(self):
        self.random.choice([self.make, self.make, self.make, self.move, self.move, self.remove, self.overwrite, self.flag])()


def check(model, server, mount, uidplus=True):
    at = collections.defaultdict(list)
    with server.client() as client:
        for box in BOXES + ["Trash"]:
            for body in client.bodies(box).values():
                if model.prefix.encode() in body[:400]:
                    at[sha(body)].append(box)
    for key, (box, name) in model.where.items():
        assert at[key].count(box) == 1, f"{name} should be once in {box}: {at[key]}"
        others = [b for b in at[key] if b != box]
        assert not others, f"{name} is in {box}, and in {others} too"
        assert digest(mount / box / name) == key, name
    for key in at:
        if key not in model.where:
            assert key in model.trashed, f"nobody made {key}: {at[key]}"
            assert at[key] == ["Trash"], f"removed, and {at[key]}"
    for box in BOXES:
        mine = sorted(k for k, (b, _) in model.where.items() if b == box)
        tree = sorted(digest(p) for p in mount.messages(box) if p.name.startswith(model.prefix))
        assert tree == mine, box


def settle(home, mount):
    said = home.run("sync", "--wait", "work", timeout=120)
    assert said.returncode == 0, (said.stderr, home.run("pending", "work").stdout[:3000], mount.log_tail())


with Suite("changes that are interrupted", timeout=400) as suite:
    require_fuse()

    def world(prefix, **options):
        server = suite.dovecot(**options)
        with server.client() as client:
            for box in BOXES[1:]:
                client.create(box)
        return server

    def kill_hard(label, server, prefix):
        home = suite.home(server, poll="24h")
        mount = home.mount()
        model = Model(suite, mount, prefix)

        @suite.case(f"{label}: kill -9 at any moment, {ROUNDS} times")
        def _():
            for _ in range(ROUNDS):
                for _ in range(suite.random.randrange(1, 12)):
                    model.step()
                time.sleep(suite.random.random() * 0.5)  # the moment is the point, not a synchronisation
                mount.kill_hard()
                mount.start()
            settle(home, mount)
            check(model, server, mount)
        mount.umount()

    def cut(label, server, prefix):
        line = suite.proxy(server.port)
        home = suite.home(server, port=line.port, poll="24h", connect_timeout="5s", io_timeout="10s")
        mount = home.mount()
        model = Model(suite, mount, prefix)

        @suite.case(f"{label}: the line is cut at any moment, {ROUNDS} times")
        def _():
            for _ in range(ROUNDS):
                for _ in range(suite.random.randrange(1, 12)):
                    model.step()
                time.sleep(suite.random.random() * 0.4)
                line.do("drop")
                for _ in range(suite.random.randrange(3)):
                    model.step()
                home.run("connect", "work")
            wait_until(lambda: home.link() == "online", "the line is there again")
            settle(home, mount)
            check(model, server, mount)
        mount.umount()

    server = world("plain")
    kill_hard("all capabilities", server, "kill")
    cut("all capabilities", server, "cutt")
    server.stop()
    server = world("bare", without=["UIDPLUS", "MOVE", "LITERAL+", "CONDSTORE", "QRESYNC"])
    kill_hard("no UIDPLUS and MOVE", server, "klbr")
    cut("no UIDPLUS and MOVE", server, "ctbr")
