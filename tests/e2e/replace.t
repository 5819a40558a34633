#!/usr/bin/python3
import os
import subprocess
import sys
import threading

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib import Suite, read, require_fuse, wait_until, writing  # noqa: E402
from lib import system  # noqa: E402
from lib.replacing import Replacing  # noqa: E402
from lib.writing import message, sha  # noqa: E402


def version(body):
    return message("a draft", body, mid="<draft@example.org>")


with Suite("a draft that is saved again takes one REPLACE", timeout=180) as suite:
    require_fuse()
    server = suite.dovecot()
    front = Replacing(suite, server.imap_port)
    home = suite.home(server, poll="24h", imap=f"imap://127.0.0.1:{front.port}", tls="none")
    world = writing.World(server, home)
    drafts = world.mount / "Drafts"
    draft = drafts / "letter.eml"

    def is_the_only_one(text):
        wait_until(lambda: world.at_server("Drafts") == [sha(text)], "the server has the one version")
        assert world.in_tree("Drafts") == [sha(text)] and os.listdir(drafts) == ["letter.eml"]
        assert world.at_server("Trash") == []

    draft.write_bytes(version("one"))
    world.settle()
    assert front.count == 0
    inode = os.stat(draft).st_ino

    @suite.case("overwritten, edited in place, or replaced by a renamed file: each is one command")
    def _():
        os.setxattr(draft, "user.mail.flags", b"+\\Flagged")
        world.settle()
        draft.write_bytes(version("two"))
        world.settle()
        assert front.count == 1, front.count
        is_the_only_one(version("two"))
        assert os.stat(draft).st_ino == inode
        subprocess.run(["sed", "-i", "s/^two/three/", draft], check=True)
        world.settle()
        assert front.count == 2, front.count
        is_the_only_one(version("three"))
        (drafts / ".letter.eml.new").write_bytes(version("four"))
        os.rename(drafts / ".letter.eml.new", draft)
        world.settle()
        assert front.count == 3, front.count
        is_the_only_one(version("four"))
        assert "\\Flagged" in world.flags("Drafts")[sha(version("four"))]

    @suite.case("the connection is lost behind it: it is not done again")
    def _():
        lost = iter((True,))
        front.before_answer = lambda: next(lost, False)
        draft.write_bytes(version("five"))
        world.settle()
        assert front.count == 4 and next(lost, None) is None, front.count
        is_the_only_one(version("five"))

    @suite.case("mailfs is killed behind it: it is not done again")
    def _():
        over = threading.Event()

        def killed():
            world.mount.kill()
            over.set()
            return True
        front.before_answer = killed
        draft.write_bytes(version("six"))
        assert over.wait(system.PATIENCE * system.SLOW), "it is killed, and the dead mount is away"
        front.before_answer = lambda: False
        world.mount.start()
        world.settle()
        assert front.count == 5, front.count
        is_the_only_one(version("six"))

    @suite.case("another client removed the old version meanwhile: the new one is stored all the same")
    def _():
        world.home.run("disconnect", "work")
        with server.client() as other:
            other.select("Drafts")
            other.expunge("Drafts", other.uids()[0])
        draft.write_bytes(version("seven"))
        world.home.run("connect", "work")
        world.settle()
        is_the_only_one(version("seven"))
        assert read(draft) == version("seven")
