#!/usr/bin/python3
import ctypes
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib import Suite, errno_of, require_fuse  # noqa: E402
from lib import system  # noqa: E402
from lib.smtp import SmtpServer  # noqa: E402

with Suite("files of outbox/: numbers and attributes that last, several writers, exports", timeout=300) as suite:
    require_fuse()
    dovecot = suite.dovecot()
    libc = ctypes.CDLL(None, use_errno=True)

    def sender(server, **settings):
        suite.callback(server.stop)
        return suite.home(dovecot, smtp=f"smtp://127.0.0.1:{server.port}", tls="none", save_sent="no", poll="1h",
                          imap=f"imap://127.0.0.1:{dovecot.imap_port}", **{"from": "Alice <alice@example.org>", **settings})

    def letter(subject, more="", body="Hello.\n"):
        return f"To: bob@example.org\n{more}Subject: {subject}\n\n{body}"

    def state(path):
        return os.getxattr(path, "user.mail.state").decode()

    class Handle(ctypes.Structure):
        _fields_ = [("size", ctypes.c_uint), ("type", ctypes.c_int), ("bytes", ctypes.c_char * 128)]

    def handle_of(path):
        handle, mount_id = Handle(size=128), ctypes.c_int()
        assert libc.name_to_handle_at(-100, os.fsencode(path), ctypes.byref(handle), ctypes.byref(mount_id), 0) == 0, ctypes.get_errno()
        return handle

    def read_handle(mount, handle):
        root = os.open(mount.where, os.O_RDONLY)
        fd = libc.open_by_handle_at(root, ctypes.byref(handle), os.O_RDONLY)
        os.close(root)
        if fd < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        with open(fd, "rb") as f:
            return f.read()

    @suite.case("numbers: the same after a remount and a crash, found without the name, and not given again")
    def _():
        server = SmtpServer()
        home = sender(server, send_delay="1h")
        mount = home.mount()
        out = mount / "outbox"
        (out / "queued.eml").write_text(letter("queued"))
        (out / "notes~").write_text("a scratch file")
        assert errno_of((out / "unfit.eml").write_text, "no header\n") == "EINVAL"
        names = ["queued.eml", "notes~", "failed/unfit.eml", "failed/unfit.eml.error.txt"]
        numbers = {name: os.stat(out / name).st_ino for name in names}
        assert len(set(numbers.values())) == len(names)
        handles = {name: handle_of(out / name) for name in names[:3]}
        for end in (lambda: mount.umount(), lambda: mount.kill()):
            end()
            mount = home.mount()
            out = mount / "outbox"
            if os.getuid() == 0:    # by number, before the name is asked for
                assert read_handle(mount, handles["queued.eml"]) == letter("queued").encode()
                assert read_handle(mount, handles["notes~"]) == b"a scratch file"
                assert read_handle(mount, handles["failed/unfit.eml"]) == b"no header\n"
            assert {name: os.stat(out / name).st_ino for name in names} == numbers
            assert {e.name: e.inode() for e in os.scandir(out) if e.name != "failed"} == {name: numbers[name] for name in names[:2]}
        (out / "queued.eml").write_text(letter("queued, again"))
        assert os.stat(out / "queued.eml").st_ino == numbers["queued.eml"]
        home.run("send", "--retry", "queued.eml", check=0)
        system.wait_until(lambda: "queued, again" in server.accepted and "queued.eml" not in os.listdir(out), "it is sent", 60)
        os.remove(out / "notes~")
        for turn in range(3):
            (out / f"new{turn}.eml").write_text(letter("new"))
            (out / f"new{turn}~").write_text("new")
            assert not {os.stat(out / f"new{turn}{end}").st_ino for end in (".eml", "~")} & set(numbers.values())
            mount.umount()
            mount = home.mount()
            out = mount / "outbox"
            if os.getuid() == 0:
                assert errno_of(read_handle, mount, handles["queued.eml"]) == errno_of(read_handle, mount, handles["notes~"]) == "ESTALE"
        mount.umount()

    @suite.case("user.mail.notify: kept over a remount, and when an editor renames a new version into place")
    def _():
        server = SmtpServer(extensions=("8BITMIME", "PIPELINING", "SIZE 10000000", "DSN"))
        home = sender(server, send_delay="1h")
        mount = home.mount()
        path = mount / "outbox/x.eml"
        path.write_text(letter("told"))
        os.setxattr(path, "user.mail.notify", b"success")
        mount.umount()
        mount = home.mount()
        path = mount / "outbox/x.eml"
        assert os.getxattr(path, "user.mail.notify") == b"SUCCESS"
        (mount / "outbox/.x.eml.tmp").write_text(letter("told, better"))
        os.rename(mount / "outbox/.x.eml.tmp", path)
        assert os.getxattr(path, "user.mail.notify") == b"SUCCESS"
        home.run("send", "--retry", "x.eml", check=0)
        system.wait_until(lambda: server.accepted == ["told, better"], "it is sent", 60)
        assert [c for c in server.commands if c.startswith("RCPT")] == ["RCPT TO:<bob@example.org> NOTIFY=SUCCESS"], server.commands
        mount.umount()
