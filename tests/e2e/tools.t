#!/usr/bin/python3
import email
import mailbox
import os
import shutil
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib import Skip, Suite, corpus, read, require_fuse, wait_until  # noqa: E402
from lib import system  # noqa: E402
from lib.terminal import in_terminal  # noqa: E402

with Suite("the tools that people use", timeout=400) as suite:
    require_fuse()
    server = suite.dovecot()
    server.fill("INBOX", corpus.realistic(60, seed=41))
    server.fill("Lists/Deep", corpus.small(30, seed=42))
    with server.client() as other:
        other.create("Patches")
        for patch in corpus.patches(5):
            other.append("Patches", patch)
        other.append("INBOX", corpus.message(subject="Needle in hay", body=b"the secret word is xyzzy42\r\n" * 3, when=corpus.BASE + 9))
    home = suite.home(server)
    mount = home.mount()
    inbox = str(mount / "INBOX")
    copy = suite.path("copy")

    def run(*argv, code=0, **kwargs):
        kwargs.setdefault("stdin", subprocess.DEVNULL)
        answer = subprocess.run(argv, capture_output=True, timeout=60 * system.SLOW, env=home.environment(), **kwargs)
        assert answer.returncode == code, (argv[:3], answer.returncode, answer.stdout[-500:], answer.stderr[-500:])
        assert not answer.stderr or code, (argv[:3], answer.stderr[-500:])
        return answer.stdout

    def need(tool):
        found = shutil.which(tool)
        if not found:
            raise Skip(f"{tool} is not installed")
        return found

    @suite.case("ls, ls -l, ls -R")
    def _():
        names = run("ls", inbox).decode().split("\n")[:-1]
        assert len(names) == 61 and all(name.endswith(".eml") for name in names)
        assert len(run("ls", "-l", inbox).split(b"\n")) == 61 + 2
        assert b"Deep" in run("ls", "-R", str(mount.where))
        assert len(run("ls", "-ltr", "--time-style=+%F", inbox).split(b"\n")) == 63

    @suite.case("grep -r, grep -l: also on what was never read")
    def _():
        assert run("grep", "-rl", "xyzzy42", str(mount.where)).count(b"\n") == 1
        assert run("grep", "-rc", "xyzzy42", inbox).count(b":3\n") == 1
        run("grep", "-r", "never-anywhere-9x", str(mount.where), code=1)

    @suite.case("find")
    def _():
        assert run("find", str(mount.where), "-name", "*.eml").count(b"\n") == 61 + 30 + 5
        assert run("find", inbox, "-type", "f", "-newermt", "2020-09-13", "-size", "-4k").count(b"\n") > 0
        assert run("find", inbox, "-name", "*Needle*", "-exec", "cat", "{}", ";").count(b"xyzzy42") == 3
        assert b".mailfs" not in run("find", str(mount.where))

    @suite.case("head, tail, wc, sha256sum, file, cat, less")
    def _():
        path = str([p for p in mount.messages() if "Needle" in p.name][0])
        whole = read(path)
        assert run("head", "-c", "20", path) == whole[:20] and run("tail", "-c", "20", path) == whole[-20:]
        assert run("head", "-n", "2", path) == b"".join(whole.splitlines(True)[:2])
        assert run("wc", "-c", path).split()[0] == str(len(whole)).encode()
        assert run("cat", path) == whole
        assert len(run("sha256sum", *map(str, mount.messages())).split(b"\n")) == 62
        assert b"mail" in run(need("file"), path) or b"text" in run("file", path)
        assert b"xyzzy42" in run(need("less"), path)

    @suite.case("du and df")
    def _():
        apparent = int(run("du", "-sb", inbox).split()[0])
        assert apparent >= sum(p.stat().st_size for p in mount.messages())
        assert int(run("du", "-s", inbox).split()[0]) * 1024 >= sum(p.stat().st_size for p in mount.messages())
        assert b"mailfs" in run("df", "-T", str(mount.where)) and b"work" in run("df", str(mount.where))
        assert b"-" not in run("df", "--output=size,used,avail", str(mount.where)).split()

    @suite.case("cp -r, diff -r, tar, rsync: copies are equal")
    def _():
        run("cp", "-r", str(mount.where) + "/.", str(copy / "cp"))
        run("diff", "-r", "-x", ".mailfs", str(mount.where), str(copy / "cp"))
        run("tar", "-C", str(mount.where), "-cf", str(copy / "all.tar"), ".")
        (copy / "tar").mkdir()
        run("tar", "-C", str(copy / "tar"), "-xf", str(copy / "all.tar"))
        run("diff", "-r", str(copy / "cp"), str(copy / "tar"))
        run(need("rsync"), "-a", str(mount.where) + "/", str(copy / "rsync"))
        run("diff", "-r", str(copy / "cp"), str(copy / "rsync"))
        again = run("rsync", "-ain", str(mount.where) + "/", str(copy / "rsync"))
        assert again == b"", again
        assert run("rsync", "-aXin", "--checksum", str(mount.where) + "/INBOX/", str(copy / "rsync/INBOX")).count(b".eml") <= 61

    @suite.case("cp -a keeps times, and flags as the one extended attribute")
    def _():
        source = [p for p in mount.messages() if os.getxattr(p, "user.mail.flags")][0]
        run("cp", "-a", str(source), str(copy / "a.eml"))
        assert int(os.stat(copy / "a.eml").st_mtime) == int(os.stat(source).st_mtime)
        try:
            assert os.listxattr(copy / "a.eml") in (["user.mail.flags"], [])
        except OSError:
            pass

    @suite.case("git am applies a series")
    def _():
        need("git")
        repository = copy / "repository"
        run("git", "init", "-q", str(repository))
        run("git", "-C", str(repository), "config", "user.name", "A")
        run("git", "-C", str(repository), "config", "user.email", "a@example.org")
        patches = sorted((str(p) for p in mount.messages("Patches")), key=lambda p: run("grep", "-m1", "^Subject", p))
        subprocess.run(["git", "-C", str(repository), "am", "-q", *patches], check=True, env=home.environment(), capture_output=True)
        assert (repository / "file.txt").read_text() == "".join(f"line {i}\n" for i in range(1, 6))

    @suite.case("git status and grep in a repository beside it do not look for .git in the mount")
    def _():
        answer = subprocess.run(["git", "-C", inbox, "status"], capture_output=True, env=home.environment(GIT_CEILING_DIRECTORIES="/"), text=True)
        assert answer.returncode == 128 and "not a git repository" in answer.stderr, answer

    @suite.case("python: os.walk, mailbox, email")
    def _():
        assert sum(len(files) for _, _, files in os.walk(mount.where)) == 61 + 30 + 5 + 1   # and .nomedia
        for path in mount.messages():
            with open(path, "rb") as f:
                parsed = email.message_from_binary_file(f)
                assert parsed["Message-ID"] and parsed["Subject"] is not None
        box = mailbox.mbox(str(copy / "box"))
        for path in mount.messages("Lists/Deep"):
            box.add(mailbox.mboxMessage(read(path)))
        box.flush()
        assert len(mailbox.mbox(str(copy / "box"))) == 30

    @suite.case("vim, view: reading a message")
    def _():
        vim = shutil.which("vim.tiny") or shutil.which("vim")
        if not vim:
            raise Skip("vim is not installed")
        path = [p for p in mount.messages() if "Needle" in p.name][0]
        before = os.listdir(inbox)
        shown, code = in_terminal([vim, "-u", "NONE", "-R", str(path)], b"\r:q\r", home.environment())
        assert code == 0 and b"xyzzy42" in shown, (code, shown[-300:])
        shown, code = in_terminal([vim, "-u", "NONE", "-n", str(path)], b"\r:q\r", home.environment())
        assert code == 0 and b"xyzzy42" in shown, (code, shown[-300:])
        assert os.listdir(inbox) == before

    @suite.case("emacs: reading a message")
    def _():
        emacs = need("emacs")
        path = [p for p in mount.messages() if "Needle" in p.name][0]
        run(emacs, "-Q", "--batch", "--eval", f'(progn (find-file "{path}") (goto-char (point-min)) (search-forward "xyzzy42") (kill-emacs 0))')

    @suite.case("less on a terminal, left with q")
    def _():
        path = max(mount.messages(), key=lambda p: p.stat().st_size)
        shown, code = in_terminal(["less", str(path)], b"q", home.environment())
        assert code == 0 and b"Subject" in shown or b"Received" in shown

    @suite.case("gio info and gio list, what file managers call")
    def _():
        gio = need("gio")
        subprocess.run([gio, "info", str(mount.messages()[0])], check=True, capture_output=True, env=home.environment(), timeout=system.PATIENCE)
        listed = subprocess.run([gio, "list", "-l", inbox], check=True, capture_output=True, env=home.environment(), timeout=system.PATIENCE).stdout
        assert listed.count(b".eml") == 61 and b"message/rfc822" in subprocess.run(
            [gio, "info", "-a", "standard::content-type,standard::fast-content-type", str(mount.messages()[0])], capture_output=True, env=home.environment()).stdout

    @suite.case("many readers at once: the whole tree, eight times in parallel")
    def _():
        processes = [system.spawn(["tar", "-C", str(mount.where), "-cf", "-", "."], stdout=subprocess.PIPE) for _ in range(8)]
        sums = set()
        import hashlib
        import threading

        def drain(process):
            sums.add(hashlib.sha256(process.stdout.read()).hexdigest())
        threads = [threading.Thread(target=drain, args=(p,)) for p in processes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all(p.wait() == 0 for p in processes) and len(sums) == 1

    @suite.case("listing while messages come and go: who stays is listed exactly once")
    def _():
        stay = set(mount.names("Lists/Deep"))
        for i in range(10):
            with server.client() as other:
                other.append("Lists/Deep", corpus.message(subject=f"churn {i}", when=corpus.BASE + i))
            home.run("sync", "Lists/Deep", check=0)
            seen = os.listdir(mount / "Lists/Deep")
            assert len(seen) == len(set(seen)) and stay <= set(seen)
        wait_until(lambda: len(mount.names("Lists/Deep")) == 40, "all are listed")
