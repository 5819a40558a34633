#!/usr/bin/python3
import errno
import os
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib import Suite, corpus, errno_of, read, require_fuse, wait_until  # noqa: E402

LIMIT = 100_000
CONFIG = f"""
mail_plugins = zlib quota
protocol imap {{
 mail_plugins = zlib imap_zlib quota imap_quota
}}
plugin {{
 quota = count:User quota
 quota_vsizes = yes
 quota_rule = *:storage=1M
 quota_rule2 = Trash:ignore
 quota_max_mail_size = {LIMIT}
}}
imap_capability = +APPENDLIMIT={LIMIT}
"""

ACL = """
mail_plugins = zlib acl
protocol imap {
 mail_plugins = zlib imap_zlib acl imap_acl
}
plugin {
 acl = vfile::cache_secs=0
}
"""


def message(subject, size):
    head = corpus.message(subject=subject, body=b"")
    line = b"x" * 70 + b"\r\n"
    return (head + line * (size // len(line) + 1))[:size]


def write(path, data):
    """the error of open(2), write(2) or close(2); "" where there is none"""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    except OSError as error:
        return errno.errorcode[error.errno]
    refused = errno_of(os.write, fd, data)
    return errno_of(os.close, fd) or refused


def rejected(mount, name):
    """its bytes, once it has been put aside"""
    wait_until(lambda: not (mount / "INBOX" / name).exists(), "it is no message")
    return read(mount / ".mailfs/rejected" / name)


with Suite("what the server does not take, or permit, is told at once; and reading marks as seen", timeout=400) as suite:
    require_fuse()
    server = suite.dovecot(extra=CONFIG)
    home = suite.home(server, poll="24h")
    mount = home.mount()
    box = mount / "INBOX"

    def at_server(mailbox="INBOX"):
        with server.client() as client:
            return sorted(client.bodies(mailbox).values())

    @suite.case("larger than APPENDLIMIT is EFBIG, and the bytes are kept")
    def _():
        fits, large = message("fits", LIMIT), message("large", LIMIT + 1)
        assert write(box / "fits.eml", fits) == ""
        assert write(box / "large.eml", large) == "EFBIG"
        assert rejected(mount, "large.eml") == large
        assert "size" in (mount / ".mailfs/rejected/large.eml.reason.txt").read_text()
        home.run("sync", "--wait", "work", check=0)
        assert at_server() == [fits]

    @suite.case("over the quota is EDQUOT, and the bytes are kept; what was stored before counts")
    def _():
        wait_until(lambda: home.status().get("quota"), "the quota is known")
        stored, n, refused = at_server(), 0, ""
        while not refused:
            data = message(f"number {n}", LIMIT - n)
            refused = write(box / f"{n}.eml", data)
            n += 1
            if not refused:
                stored.append(data)
                home.run("sync", "--wait", "work", check=0)
                wait_until(lambda: home.status()["quota"]["used"] >= sum(map(len, stored)) - 1024, "it counts")
        assert refused == "EDQUOT" and len(stored) >= 9, (refused, len(stored))
        assert rejected(mount, f"{n - 1}.eml") == data
        assert at_server() == sorted(stored)
        assert home.run("pending", "work").stdout.count("parked") == 0

    @suite.case("where there is room again it is taken")
    def _():
        with server.client() as client:
            client.select("INBOX")
            client.expunge("INBOX", client.uids()[0])
        data = message("after room was made", LIMIT // 2)
        wait_until(lambda: write(box / "again.eml", data) == "", "there is room")
        home.run("sync", "--wait", "work", check=0)
        assert data in at_server()

    @suite.case("mark-seen = read: who reads a message marks it, at the server too; listing it does not")
    def _():
        other = suite.dovecot()
        other.fill("INBOX", [(corpus.message(subject=f"mail {i}"), corpus.BASE + i, "") for i in range(4)])
        account = suite.home(other, poll="24h", mark_seen="read")
        reading = account.mount()

        def seen():
            with other.client() as client:
                return sorted(uid for uid, flags in client.flags("INBOX").items() if "\\Seen" in flags)
        account.run("sync", "--populate", "work", check=0)
        account.run("check", "work", check=0)
        subprocess.run(["ls", "-lR", reading.where], check=True, stdout=subprocess.DEVNULL)
        subprocess.run(["grep", "-q", "mail 2", reading.by_uid()[3]], check=True)
        assert os.getxattr(reading.by_uid()[3], "user.mail.flags") == b"\\Seen"
        account.run("sync", "--wait", "work", check=0)
        assert seen() == [3]
        os.setxattr(reading.by_uid()[3], "user.mail.flags", b"-\\Seen")
        account.run("sync", "--wait", "work", check=0)
        assert seen() == []
        for path in reading.messages():
            read(path)
        account.run("sync", "--wait", "work", check=0)
        assert seen() == [1, 2, 3, 4]

    guarded = suite.dovecot(extra=ACL)
    for name, rights in (("Read", "lrsa"), ("Drop", "lipa"), ("All", "lrswipkxtea")):
        guarded.fill(name, [(corpus.message(subject=f"mail {i} in {name}"), corpus.BASE + i, "") for i in range(3)])
        with guarded.client() as client:
            client.command("setacl", name, "owner", rights)
    account = suite.home(guarded, poll="24h")
    ours = account.mount()

    def mode(name):
        return os.stat(ours / name).st_mode & 0o777

    @suite.case("directories have the modes that the rights make, and a change that is not permitted is EACCES at once")
    def _():
        account.run("sync", "work", check=0)
        wait_until(lambda: (mode("Read"), mode("Drop"), mode("All"), mode("INBOX")) == (0o500, 0o300, 0o700, 0o700), "the modes")
        path, new = ours.messages("Read")[0], ours / "Read/new.eml"
        assert write(new, message("new", 1000)) == "EACCES"
        assert write(path, message("new", 1000)) == "EACCES"
        assert errno_of(os.unlink, path) == errno_of(os.rename, path, ours / "All" / path.name) == "EACCES"
        assert errno_of(os.mkdir, ours / "Read/within") == errno_of(os.rmdir, ours / "Read") == "EACCES"
        assert errno_of(os.rename, ours / "Read", ours / "Other") == "EACCES"
        assert errno_of(os.setxattr, path, "user.mail.flags", b"+\\Flagged") == "EACCES"
        assert errno_of(os.listdir, ours / "Drop") == "EACCES"
        assert account.status()["changes"]["pending"] == 0
        assert len(read(path)) == path.stat().st_size

    @suite.case("what is permitted is done")
    def _():
        path = ours.messages("Read")[0]
        os.setxattr(path, "user.mail.flags", b"+\\Seen")
        subprocess.run(["cp", path, ours / "All" / "copy.eml"], check=True)
        account.run("sync", "--wait", "work", check=0)
        with guarded.client() as client:
            assert "\\Seen" in {flag for flags in client.flags("Read").values() for flag in flags}
            assert len(client.bodies("All")) == 4

    @suite.case("rights that change are noticed when the mailbox is looked at")
    def _():
        with guarded.client() as client:
            client.command("setacl", "Read", "owner", "lrswitea")
        account.run("sync", "work", "Read", check=0)
        wait_until(lambda: mode("Read") == 0o700, "it can be written to")
        data = message("now", 1000)
        assert write(ours / "Read/new.eml", data) == ""
        account.run("sync", "--wait", "work", check=0)
        with guarded.client() as client:
            assert data in client.bodies("Read").values()
