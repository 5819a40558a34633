#!/usr/bin/python3
"""Changes under kill -9 and cut lines: at the end each message is where it was put, once."""
import os
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib import Suite, require_fuse, wait_until  # noqa: E402
from lib.changes import BOXES, Model, check, settle  # noqa: E402
from lib.proxy import TOOLS  # noqa: E402

ROUNDS = 60 if os.environ.get("MAILFS_TEST_LONG") else 12

with Suite("changes that are interrupted", timeout=800) as suite:
    require_fuse()

    def world(prefix, **options):
        server = suite.dovecot(**options)
        with server.client() as client:
            for box in BOXES[1:]:
                client.create(box)
        return server

    def now_and_then_settle(home, mount):
        """what is in doubt is looked for twice, and nothing is sent between"""
        if not suite.random.randrange(3):
            settle(home, mount)

    def kill_hard(label, server, prefix):
        home = suite.home(server, poll="24h", expunge_delay="0s")
        mount = home.mount()
        model = Model(suite, mount, prefix)

        @suite.case(f"{label}: kill -9 at any moment, {ROUNDS} times")
        def _():
            for _ in range(ROUNDS):
                now_and_then_settle(home, mount)
                for _ in range(suite.random.randrange(1, 12)):
                    model.step()
                time.sleep(suite.random.random() * 0.5)  # the moment is the point, not a synchronisation
                mount.kill_hard()
                mount.start()
            settle(home, mount)
            check(model, server, mount)
        mount.umount()

    def ends(label, server, prefix):
        home = suite.home(server, poll="24h", expunge_delay="0s")
        mount = home.mount()
        home.run("sync", check=0)
        home.run("disconnect", check=0)
        model = Model(suite, mount, prefix)

        def over():
            try:
                return mount.process.poll() is not None or not os.listdir(mount / ".mailfs/pending")
            except OSError:
                return False            # not mounted yet

        @suite.case(f"{label}: it ends at a write to its journal, or at a write to or a read from the server, {ROUNDS * 2 // 3} times")
        def _():
            ended = 0
            for _ in range(ROUNDS * 2 // 3):
                for _ in range(suite.random.randrange(1, 12)):
                    model.step()
                mount.umount()
                mount.options, mount.wait = (), False
                mount.environment = {"LD_PRELOAD": f"{TOOLS}/ends.so", "END_AT": str(suite.random.randrange(1, 80))}
                mount.start()
                wait_until(over, "it has ended, or nothing waits", 60)
                ended += mount.process.poll() == 77
                mount.kill_hard()
                mount.options, mount.wait, mount.environment = ("offline",), True, {}
                mount.start()
            home.run("connect", check=0)
            settle(home, mount)
            check(model, server, mount)
            suite.say(f"it ended so {ended} times")
        mount.umount()

    def cut(label, server, prefix):
        line = suite.proxy(server.port)
        home = suite.home(server, port=line.port, poll="24h", expunge_delay="0s", connect_timeout="5s", io_timeout="10s")
        mount = home.mount()
        model = Model(suite, mount, prefix)

        @suite.case(f"{label}: the line is cut at any moment, {ROUNDS} times")
        def _():
            for _ in range(ROUNDS):
                now_and_then_settle(home, mount)
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
    ends("all capabilities", server, "ends")
    cut("all capabilities", server, "cutt")
    server.stop()
    server = world("bare", without=["UIDPLUS", "MOVE", "LITERAL+", "CONDSTORE", "QRESYNC"])
    kill_hard("no UIDPLUS and MOVE", server, "klbr")
    ends("no UIDPLUS and MOVE", server, "enbr")
    cut("no UIDPLUS and MOVE", server, "ctbr")
