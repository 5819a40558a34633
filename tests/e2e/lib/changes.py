"""Random changes to three mailboxes, and where each message must be in the end, whatever interrupted them."""
import collections
import contextlib
import os

from . import corpus
from .mailfs import digest
from .writing import sha

BOXES = ["INBOX", "One", "Two"]


class Model:
    """What was done through the mount, and so what the server has in the end: {sha: mailbox}."""

    def __init__(self, suite, mount, prefix, boxes=BOXES, trash="Trash"):
        self.random, self.mount, self.prefix, self.boxes, self.trash = suite.random, mount, prefix, boxes, trash
        self.where = {}         # sha: (mailbox, name) as the tree has it
        self.trashed = set()    # each is in Trash, or was there
        self.purged = set()     # removed from there
        self.latest = None      # made or chosen last: often the same one again, while what was done to it before is under way
        self.count = 0
        self.flagged = {}

    def message(self):
        self.count += 1
        return corpus.message(subject=f"{self.prefix} {self.count}", body=b"x" * self.random.randrange(20000) + b"\r\n",
                              mid=f"<{self.prefix}-{self.count}@crash>")

    def make(self):
        data, box, name = self.message(), self.random.choice(self.boxes), f"{self.prefix}{self.count}.eml"
        path = self.mount / box / name
        with open(path, "wb", buffering=0) as file:
            file.write(data)
        self.latest = sha(data)
        self.where[self.latest] = (box, name)

    def some(self):
        if self.where and (self.latest not in self.where or self.random.randrange(2)):
            self.latest = self.random.choice(list(self.where))
        return self.latest if self.where else None

    def move(self):
        key = self.some()
        if key:
            box, name = self.where[key]
            to = self.random.choice([b for b in self.boxes if b != box])
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
            self.latest = sha(data)
            self.where[self.latest] = (box, name)

    def flag(self):
        key = self.some()
        if key:
            box, name = self.where[key]
            os.setxattr(self.mount / box / name, "user.mail.flags", b"+\\Flagged")
            self.flagged[key] = True

    def purge(self):
        """rm of one that lies in Trash, if its bytes can be read just now"""
        box = self.mount / self.trash
        names = [name for name in self.mount.names(self.trash) if name.startswith(self.prefix)] if box.exists() else []
        if names:
            path = box / self.random.choice(names)
            with contextlib.suppress(OSError):
                key = digest(path)
                os.unlink(path)
                self.purged.add(key)

    def step(self):
        self.random.choice([self.make, self.make, self.make, self.move, self.move, self.remove, self.overwrite, self.flag, self.purge])()


def check(model, server, mount):
    at = collections.defaultdict(list)
    with server.client() as client:
        for box in model.boxes + [model.trash]:
            for body in client.bodies(box.replace("/", server.delimiter)).values():
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
            assert at[key] == [model.trash] * (key not in model.purged), f"removed, and {at[key]}"
    for box in model.boxes:
        mine = sorted(k for k, (b, _) in model.where.items() if b == box)
        tree = sorted(digest(p) for p in mount.messages(box) if p.name.startswith(model.prefix))
        assert tree == mine, box


def settle(home, mount):
    said = home.run("sync", "--wait", "work", timeout=120)
    assert said.returncode == 0, (said.stderr, home.run("pending", "work").stdout[:3000], mount.log_tail())
