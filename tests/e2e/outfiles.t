#!/usr/bin/python3
import ctypes
import os
import shutil
import signal
import subprocess
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

    def sent(mount, server, subject):
        system.wait_until(lambda: subject in server.accepted and os.listdir(mount / "outbox") == ["failed"], "it is sent, and has left", 60)

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
        system.wait_until((out / "failed/unfit.eml").exists, "it is in failed/")
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

    class Shared:
        """A shell that writes a file in two parts, each by another program with the shell's descriptor, and waits in between."""

        def __init__(self, home, path, first, second):
            self.go = home.folder / "go"
            self.paused = home.folder / "paused"
            self.paused.unlink(missing_ok=True)
            if not self.go.exists():
                os.mkfifo(self.go)
            script = f"({first}; touch {self.paused}; read x <{self.go}; {second}) >'{path}'"
            self.process = subprocess.Popen(["sh", "-c", script], stderr=subprocess.DEVNULL, start_new_session=True)
            suite.callback(self.kill)
            system.wait_until(self.paused.exists, "the first part is written", 60)

        def resume(self):
            with open(self.go, "w") as f:
                f.write("on\n")
            assert self.process.wait(60 * system.SLOW) == 0

        def kill(self):
            if self.process.poll() is None:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()

    HEAD, REST = "/bin/printf 'To: bob@example.org\\nSubject: {}\\n\\nfirst\\n'", "/bin/printf 'second\\n'"

    @suite.case("one descriptor for several programs: whole when the last has closed it, whichever of them is killed")
    def _():
        taken = []
        server = SmtpServer(taken=taken.append)
        home = sender(server, send_delay="0")
        mount = home.mount()
        killed = "sh -c \"" + HEAD + "; kill -9 \\$\\$\""
        for subject, first in (("shared", HEAD), ("killed", killed)):
            path = mount / f"outbox/{subject}.eml"
            shared = Shared(home, path, first.format(subject), REST)
            assert state(path) == "being written" and "first" in path.read_text()
            home.run("sync", check=0)
            assert not any(home.status()["outbox"][k] for k in ("waiting", "queued", "sending")) and subject not in server.accepted
            shared.resume()
            system.wait_until(lambda: subject in server.accepted, "it is sent", 60)
            assert any(f"Subject: {subject}\r\n".encode() in data and data.endswith(b"first\r\nsecond\r\n") for data in taken), taken
        mount.umount()

    @suite.case("one descriptor for several programs, and mailfs is killed: what is there is not sent by itself")
    def _():
        server = SmtpServer()
        home = sender(server, send_delay="0")
        mount = home.mount()
        shared = Shared(home, mount / "outbox/half.eml", HEAD.format("half"), REST)
        mount.kill()
        shared.kill()
        mount = home.mount()
        (mount / "outbox/whole.eml").write_text(letter("whole"))
        system.wait_until(lambda: "whole" in server.accepted, "another one is sent", 60)
        assert state(mount / "outbox/half.eml").startswith("unfinished") and server.accepted == ["whole"]
        mount.umount()

    @suite.case("all who had the descriptor are killed: nobody can tell that from an end; it rests, and can be taken back")
    def _():
        server = SmtpServer()
        home = sender(server, send_delay="1h")
        mount = home.mount()
        path = mount / "outbox/half.eml"
        shared = Shared(home, path, HEAD.format("half"), REST)
        shared.kill()
        system.wait_until(lambda: state(path).startswith("waiting until"), "it is taken as whole", 60)
        os.remove(path)
        assert home.status()["outbox"]["waiting"] == 0 and server.accepted == []
        mount.umount()

    @suite.case("written by a server of files (smbd, nfsd): sent when it is renamed, and not before")
    def _():
        server = SmtpServer()
        home = sender(server, send_delay="0")
        mount = home.mount()
        for name in ("smbd", "nfsd"):
            program = home.folder / name
            shutil.copy("/bin/sh", program)

            def serve(script):
                subprocess.run([program, "-c", script], cwd=mount / "outbox", check=True, timeout=60 * system.SLOW)

            serve(f"printf 'To: bob@example.org\\nSubject: {name}\\n\\n' >x.eml; printf 'first\\n' >>x.eml; printf 'second\\n' >>x.eml; : >>x.eml")
            assert state(mount / "outbox/x.eml").startswith("written through an export"), state(mount / "outbox/x.eml")
            assert not any(home.status()["outbox"][k] for k in ("waiting", "queued", "sending"))
            os.rename(mount / "outbox/x.eml", mount / "outbox/y.eml")
            sent(mount, server, name)
            serve(f"printf 'To: bob@example.org\\nSubject: {name} by a scratch name\\n\\nx\\n' >x.tmp")
            os.rename(mount / "outbox/x.tmp", mount / "outbox/x.eml")
            sent(mount, server, f"{name} by a scratch name")
            serve(f"printf 'To: bob@example.org\\nSubject: begun by {name}\\n\\n' >x.eml")
            with open(mount / "outbox/x.eml", "a") as f:     # on this machine: an end is an end
                f.write("and ended here\n")
            sent(mount, server, f"begun by {name}")
        mount.umount()
