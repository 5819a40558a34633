#!/usr/bin/python3
import hashlib
import os
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib import Suite, corpus, digest, require_fuse  # noqa: E402
from lib import system  # noqa: E402

COUNT, MESSAGES = (100, 400)

with Suite("kill -9 at random points", timeout=400) as suite:
    require_fuse()
    content = [data.replace(b"\n", b"\r\n") for data, _, _ in corpus.realistic(MESSAGES, seed=21)]
    truth = {hashlib.sha256(data).hexdigest() for data in content}
    kills = 1000 if suite.long else 20 if suite.short else COUNT

    def read_until(mount, deadline, complete, server):
        """Reads in random order until killed at the deadline; returns how many bodies were wrong."""
        wrong, unnamed = 0, []      # what a reader was given may still lack its name
        stop = threading.Timer(max(0, deadline - time.monotonic()), lambda: mount.process.kill())
        stop.start()
        try:
            while not system.fuse_device(mount.where):
                if time.monotonic() > deadline:
                    return 0
                time.sleep(.001)
            mount.device = system.fuse_device(mount.where)
            paths = mount.messages()
            suite.random.shuffle(paths)
            for path in paths:
                with open(path, "rb", buffering=0) as f:
                    data = b"".join(iter(lambda: f.read(1 << 20), b""))
                if hashlib.sha256(data).hexdigest() not in truth:
                    wrong += 1
                unnamed.append(path)
                for named in [p for p in unnamed if os.getxattr(p, "user.mail.cached") == b"yes"]:
                    uid = int(os.getxattr(named, "user.mail.uid"))
                    complete.setdefault(uid, server.fetched.count(uid))
                    unnamed.remove(named)
        except OSError:
            pass            # the mount died under us
        finally:
            stop.join()
        return wrong

    @suite.case(f"{kills} times, during the first sync and during downloads: the next mount is right, and nothing complete is fetched twice")
    def _():
        done = 0
        torn = twice = 0
        while done < kills:
            server = suite.scripted(mailboxes={"INBOX": content, "Other": content[:50]})
            home = suite.home(**server.settings())
            complete = {}                       # uid: how often it had been fetched when all of it was here
            while done < kills:
                mount = home.mount(wait=False)
                life = suite.random.choice((.01, .03, .06, .1, .2, .35)) * suite.random.random() * 2 * system.SLOW
                deadline = time.monotonic() + life
                torn += read_until(mount, deadline, complete, server)
                mount.kill()
                done += 1
                if len(complete) == MESSAGES or done % 25 == 0:
                    break
            final = home.mount()
            names = final.names()
            assert len(names) == MESSAGES, len(names)
            found = {digest(path) for path in final.messages()}
            assert found == truth, (len(found - truth), len(truth - found))
            again = [uid for uid, times in complete.items() if server.fetched.count(uid) > times]
            assert len(final.digests("Other")) == 50
            checked = home.run("check")
            assert checked.returncode == 0, (checked.returncode, checked.stdout[-800:], checked.stderr[-800:])
            final.umount()
            twice += len(again)
            server.stop()
        assert torn == 0, f"{torn} torn bodies"
        assert twice == 0, f"{twice} bodies that were complete were fetched again"
        suite.say(f"{done} kills")

    @suite.case("the index is lost or damaged: rebuilt, and the tree is the same")
    def _():
        server = suite.scripted(mailboxes={"INBOX": content[:30]})
        home = suite.home(**server.settings())
        mount = home.mount()
        names, digests = mount.names(), mount.digests()
        mount.umount()
        database = next(home.state.glob("*.db"))
        for damage in ("garbage", "truncated", "gone"):
            for extra in home.state.glob("*.db-*"):
                extra.unlink()
            if damage == "garbage":
                with open(database, "r+b") as f:
                    f.seek(0)
                    f.write(os.urandom(8192))
            elif damage == "truncated":
                os.truncate(database, 3000)
            else:
                database.unlink()
            mount = home.mount()
            assert mount.names() == names and mount.digests() == digests, damage
            mount.umount()

    @suite.case("a state written by a newer version is refused, untouched")
    def _():
        import sqlite3
        server = suite.scripted(mailboxes={"INBOX": content[:3]})
        home = suite.home(**server.settings())
        home.mount().umount()
        database = next(home.state.glob("*.db"))
        with sqlite3.connect(database) as db:
            version = db.execute("PRAGMA user_version").fetchone()[0]
            db.execute(f"PRAGMA user_version = {version + 1000}")
        db.close()
        before = database.read_bytes()
        answer = home.run("mount", "work", suite.path("mnt"))
        assert answer.returncode not in (0, 1) and "newer" in answer.stderr, (answer.returncode, answer.stderr)
        assert database.read_bytes() == before

    @suite.case("kill -9 of a mount leaves nothing that a new one stumbles over")
    def _():
        server = suite.scripted(mailboxes={"INBOX": content[:3]})
        home = suite.home(**server.settings())
        mount = home.mount()
        mount.kill()
        again = home.mount()
        assert len(again.digests()) == 3
        again.umount()
