#!/usr/bin/python3
import hashlib
import os
import subprocess
import sys
import threading

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib import Suite, corpus, digest, read, require_fuse  # noqa: E402
from lib.tls import Authority  # noqa: E402
from lib.scripted import Mailbox, Message  # noqa: E402

MEGABYTE = 1_000_000


def sha(data):
    return hashlib.sha256(data).hexdigest()


with Suite("every byte that a server can hold", timeout=400) as suite:
    require_fuse()
    authority = Authority(suite.folder / "tls")

    @suite.case("from Dovecot: as an independent client sees it")
    def _():
        server = suite.dovecot()
        server.fill("INBOX", ((data, corpus.BASE + i, "") for i, (_, data) in enumerate(corpus.every_byte())))
        server.fill("Zoo", ((data, corpus.BASE + i, "") for i, data in enumerate(corpus.names_zoo())))
        home = suite.home(server)
        mount = home.mount()
        with server.client() as other:
            for mailbox in ("INBOX", "Zoo"):
                truth = {uid: sha(body) for uid, body in other.bodies(mailbox).items()}
                found = {uid: digest(path) for uid, path in mount.by_uid(mailbox).items()}
                assert found == truth, {uid: (found.get(uid), truth.get(uid)) for uid in truth if found.get(uid) != truth[uid]}
        mount.umount()

    corpus_bytes = corpus.every_byte()
    server = suite.scripted(mailboxes={"INBOX": [data for _, data in corpus_bytes], "Zoo": corpus.names_zoo()},
                            authority=authority, certificate=authority.issue())
    home = suite.home(**server.settings())
    mount = home.mount()

    @suite.case("exactly as sent: NUL, bare CR and LF, no final newline, no separator, nothing at all, long, deep")
    def _():
        found = {uid: digest(path) for uid, path in mount.by_uid().items()}
        for uid, (name, data) in enumerate(corpus_bytes, 1):
            assert uid in found, f"{name}: no file"
            assert found[uid] == sha(data), name
        assert mount.digests("Zoo") == sorted(map(sha, corpus.names_zoo()))

    @suite.case("exactly as sent, again from the cache and after a remount")
    def _():
        global mount
        mount.umount()
        server.fetched.clear()
        mount = home.mount()
        assert mount.digests() == sorted(sha(data) for _, data in corpus_bytes)
        assert server.fetched == []

    huge = corpus.every_byte(huge=100 * MEGABYTE if not suite.short else 5 * MEGABYTE)[-1][1]
    server.mailboxes["Huge"] = Mailbox([huge])
    other_home = suite.home(**server.settings())
    second = other_home.mount()

    @suite.case("the head of a huge message moves about what is read")
    def _():
        path, = second.messages("Huge")
        assert os.stat(path).st_size == len(huge)
        server.body_bytes = 0
        head = subprocess.run(["head", "-c", "1000", str(path)], capture_output=True, check=True).stdout
        assert head == huge[:1000]
        assert server.body_bytes < 2 * MEGABYTE, server.body_bytes

    @suite.case("a piece of its middle, and its end")
    def _():
        path, = second.messages("Huge")
        server.body_bytes = 0
        at = len(huge) // 2
        assert read(path, 5000, at) == huge[at:at + 5000]
        assert read(path, 5000, len(huge) - 777) == huge[-777:]
        assert server.body_bytes < 10 * MEGABYTE, server.body_bytes

    @suite.case("a hundred readers of one huge message make one download")
    def _():
        path, = second.messages("Huge")
        server.body_bytes = 0
        truth, answers = sha(huge), []
        threads = [threading.Thread(target=lambda: answers.append(digest(path))) for _ in range(10 if suite.short else 100)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers == [truth] * len(threads), (len(answers), set(answers))
        assert server.body_bytes <= len(huge) * 1.1, server.body_bytes
        suite.say(f"{len(huge)} bytes, {server.body_bytes} moved")
    second.umount()

    @suite.case("a server that lies about sizes: no wrong byte, and the size is corrected")
    def _():
        real = [corpus.message(subject=f"lie {i}", when=corpus.BASE + i, body=b"line\r\n" * 500) for i in range(4)]
        lies = [0, 10, len(real[2]) - 1, len(real[3]) + 5000]
        liar = suite.scripted(mailboxes={"INBOX": Mailbox([Message(i + 1, data, size=size) for i, (data, size) in enumerate(zip(real, lies))])})
        third = suite.home(**liar.settings()).mount()
        paths = third.by_uid()
        for uid, path in sorted(paths.items()):
            first = subprocess.run(["cat", str(path)], capture_output=True).stdout
            assert real[uid - 1].startswith(first), f"uid {uid}: wrong bytes"
            again = subprocess.run(["cat", str(path)], capture_output=True).stdout
            assert again == real[uid - 1], f"uid {uid}: {len(again)} of {len(real[uid - 1])} bytes the second time"
            assert os.stat(path).st_size == len(real[uid - 1])
        third.umount()
