#!/usr/bin/python3
"""What ordinary tools change reaches servers that are not Dovecot: Cyrus and Courier, as Debian has them."""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib import Suite, corpus, digest, errno_of, read, require_fuse, wait_until, writing  # noqa: E402
from lib.courier import CourierImap  # noqa: E402
from lib.cyrus import Cyrus  # noqa: E402
from lib.writing import message, ordinary_use, sha  # noqa: E402


class World(writing.World):
    def __init__(self, suite, server, **settings):
        self.top = server.top
        with server.client() as client:
            client.create(self.raw_at(server, "Archive"))
            for mailbox, word, count in (("INBOX", "start", 12), (self.raw_at(server, "Archive"), "old", 3)):
                for i in range(count):
                    client.append(mailbox, message(f"{word} {i}"))
        super().__init__(server, suite.home(None, poll="24h", expunge_delay="0s", **server.settings(), **settings))

    @staticmethod
    def raw_at(server, name):
        return (server.top + name).replace("/", server.delimiter)


with Suite("other servers", timeout=300) as suite:
    require_fuse()
    for label, serve in (("Courier", CourierImap), ("Cyrus", Cyrus), ("Cyrus, '/'", lambda suite: Cyrus(suite, internal=False))):
        world = World(suite, serve(suite))
        ordinary_use(suite, world, label)
