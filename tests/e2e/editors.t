#!/usr/bin/python3
import os
import pty
import shutil
import subprocess
import sys
import threading

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib import Suite, require_fuse  # noqa: E402
from lib import system  # noqa: E402
from lib.smtp import SmtpServer  # noqa: E402
from lib.suite import PROGRAM, Skip  # noqa: E402

with Suite("editors in outbox/: one message however often it is saved, none of what they leave beside it", timeout=300) as suite:
    require_fuse()
    dovecot = suite.dovecot()
    taken = []
    server = SmtpServer(taken=taken.append)
    suite.callback(server.stop)

    class Writing:
        """A mount with a message that rests in its outbox until it is released; what is sent of it goes to `taken`"""

        def __init__(self, subject, program):
            if not shutil.which(program) and not os.environ.get("CI"):
                raise Skip(f"no {program}")
            self.home = suite.home(dovecot, smtp=f"smtp://127.0.0.1:{server.port}", tls="none", send_delay="1h", save_sent="no",
                                   imap=f"imap://127.0.0.1:{dovecot.imap_port}", **{"from": "Alice <alice@example.org>"})
            self.mount = self.home.mount()
            self.subject, self.path = subject, self.mount / "outbox/letter.eml"
            self.told = None
            self.path.write_text(f"To: bob@example.org\nSubject: {subject}\n\nfirst\n")

        def state(self):
            return os.getxattr(self.path, "user.mail.state").decode()

        def counts(self):
            return {key: value for key, value in self.home.status()["outbox"].items() if isinstance(value, int) and value}

        def saved(self, words):
            system.wait_until(lambda: words in self.path.read_text(), f"{words!r} is saved", 60)
            system.wait_until(lambda: self.counts() == {"waiting": 1}, "one message waits", 60)

        def release(self):
            """as mailfs send: what is held by a lock stays"""
            link = self.home.folder / "mailfs-sendmail"
            if not link.exists():
                link.symlink_to(PROGRAM)
            return subprocess.Popen([str(link), "-q"], env=self.home.environment(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

        def is_held_by(self, lock):
            """While the editor is open it is not sent, though it is told to go, and one that was dropped later goes."""
            system.wait_until(lambda: lock in self.state(), f"{lock} holds it", 60)
            (self.mount / "outbox/other.eml").write_text(f"To: bob@example.org\nSubject: beside {self.subject}\n\nx\n")
            self.told = self.release()
            system.wait_until(lambda: f"beside {self.subject}" in server.accepted, "the other one is sent", 60)
            assert self.subject not in server.accepted and lock in self.state()

        def ends(self, sendmail):
            try:
                return sendmail.wait(60 * system.SLOW)
            except subprocess.TimeoutExpired:
                raise AssertionError((self.state() if self.path.exists() else "not there", self.home.status()["outbox"],
                                      os.listdir(self.mount / "outbox"), server.accepted))

        def is_sent(self, words):
            """It goes now, once, as it was saved last; what is left is the editor's, and stays."""
            if self.told:
                self.ends(self.told)                 # what it was told to send is another message by now
            assert self.ends(self.release()) == 0
            left = [name for name in os.listdir(self.mount / "outbox") if name != "failed"]
            assert server.accepted.count(self.subject) == 1, server.accepted
            text = next(data for data in taken if f"\nSubject: {self.subject}\r".encode() in data).replace(b"\r\n", b"\n").decode()
            assert words in text, text
            assert self.counts() == {} and len(taken) == len(server.accepted)
            self.mount.umount()
            return left

    @suite.case("emacs: saves by renaming, locks, saves itself")
    def _():
        w = Writing("by emacs", "emacs")
        script = f"""
(progn
  (setq backup-enable-predicate (lambda (name) t))   ; it makes none below /tmp else
  (find-file "{w.path}")
  (goto-char (point-max)) (insert "second\\n") (save-buffer)
  (goto-char (point-max)) (insert "third\\n") (save-buffer)
  (auto-save-mode 1) (insert "not saved\\n") (do-auto-save)
  (while (not (file-exists-p "{w.home.folder}/go")) (sleep-for 0.05))
  (delete-region (- (point-max) 10) (point-max)) (insert "fourth\\n") (save-buffer))
"""
        emacs = subprocess.Popen(["emacs", "-Q", "--batch", "--eval", script], env=w.home.environment(TERM="dumb"), stdin=subprocess.DEVNULL,
                                 stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            w.saved("third\n")
            w.is_held_by(".#letter.eml")
            (w.home.folder / "go").touch()
            output, _ = emacs.communicate(timeout=60 * system.SLOW)
        finally:
            emacs.kill()
        assert emacs.returncode == 0, output
        assert w.is_sent("first\nsecond\nthird\nfourth\n") == ["letter.eml~"]

    @suite.case("nano: writes in place, with a lock and a backup")
    def _():
        w = Writing("by nano", "nano")
        keys, terminal = pty.openpty()
        screen = bytearray()

        def watch():
            try:
                while data := os.read(keys, 65536):
                    screen.extend(data)
            except OSError:
                pass      # nano has ended

        nano = subprocess.Popen(["nano", "-I", "-G", "-B", "+4,1", str(w.path)], env=w.home.environment(TERM="xterm"), stdin=terminal,
                                stdout=terminal, stderr=terminal, start_new_session=True)
        os.close(terminal)
        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            system.wait_until(lambda: b"first" in screen, "nano shows the file", 60)
            for line in ("second", "third"):
                os.write(keys, f"{line}\r".encode() + b"\x13")
                w.saved(f"{line}\nfirst\n")
            system.wait_until(lambda: ".letter.eml.swp" in w.state(), "its lock holds it", 60)   # made anew for every change: not always
            os.write(keys, b"fourth\r\x13")
            w.saved("fourth\nfirst\n")
            os.write(keys, b"\x18")
            assert nano.wait(60 * system.SLOW) == 0
        except BaseException:
            suite.say(screen.decode(errors="replace")[-1500:])
            raise
        finally:
            nano.kill()
        watcher.join(60 * system.SLOW)               # or it reads what the server's next connection says: that has the number then
        assert not watcher.is_alive()
        os.close(keys)
        assert w.is_sent("second\nthird\nfourth\nfirst\n") == ["letter.eml~"]
