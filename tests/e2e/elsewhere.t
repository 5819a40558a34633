#!/usr/bin/python3
"""Other clients rename and remove mailboxes, and move messages, while changes of ours wait for them."""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib import Suite, corpus, require_fuse, writing  # noqa: E402
from lib.elsewhere import flagged_meanwhile, moved_elsewhere, removed_elsewhere, renamed_elsewhere  # noqa: E402
from lib.writing import message  # noqa: E402


class World(writing.World):
    def __init__(self, suite, **options):
        server = suite.dovecot(**options)
        server.fill("Archive", [(message(f"old {i}"), corpus.BASE + i, "") for i in range(3)])
        super().__init__(server, suite.home(server, poll="24h"))


with Suite("renamed and removed elsewhere", timeout=240) as suite:
    require_fuse()
    for label, options in (("Maildir", {}), ("mdbox", {"variant": "mdbox"}), ("without UIDPLUS and MOVE", {"without": ["UIDPLUS", "MOVE"]}),
                           ("without QRESYNC and CONDSTORE", {"without": ["QRESYNC", "CONDSTORE"]})):
        world = World(suite, **options)
        renamed_elsewhere(suite, world, label)
        removed_elsewhere(suite, world, label)
        moved_elsewhere(suite, world, label)
        flagged_meanwhile(suite, world, label, lambda port, **settings: suite.home(world.server, port, **settings))
        world.mount.umount()
