#!/usr/bin/python3
import contextlib
import errno
import fcntl
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib import PROGRAM, Suite, corpus, require_fuse, wait_until  # noqa: E402
from lib import mailfs, system, terminal  # noqa: E402

with Suite("the command", timeout=400) as suite:
    require_fuse()
    server = suite.dovecot()
    server.fill("INBOX", corpus.small(10))
    server.fill("Archive", corpus.small(5))
    home = suite.home(server)

    def where():
        path = suite.path("mnt")
        suite.callback(lambda: system.fuse_device(path) and mailfs.lazy_umount(path))
        return path

    def one_line(answer, code, *words):
        assert answer.returncode == code, (answer.returncode, answer.stdout, answer.stderr)
        text = answer.stderr.strip()
        assert text and len(text.split("\n")) == 1, answer.stderr
        for word in words:
            assert word in text, (word, text)

    @suite.case("--version, --help, help, help COMMAND")
    def _():
        for words in ["--version"], ["-V"], ["--trace", "net", "-V"], ["status", "--version"], ["-V", "status"]:
            assert re.match(r"mailfs \d+\.\d+.*\n$", home.run(*words, check=0).stdout), words
        for arguments in (["--help"], ["help"], ["-h"]):
            text = home.run(*arguments, check=0).stdout
            assert "mount" in text and "status" in text
        for verb in ("mount", "umount", "status", "sync", "list", "connect", "disconnect", "events", "check"):
            assert verb in home.run("help", verb, check=0).stdout
        assert home.run().returncode == 1

    @suite.case("what cannot be understood is exit 1 and one line")
    def _():
        one_line(home.run("mount"), 1) if home.run("mount").returncode == 1 else one_line(home.run("mount"), 2)
        one_line(home.run("statsu"), 1, "statsu")
        one_line(home.run("status", "--nonsense"), 1)
        answer = home.run("mount", "-o", "nonsense=1", "work", where())
        assert answer.returncode in (1, 3) and "nonsense" in answer.stderr, answer

    @suite.case("a password on the command line is refused, and not repeated")
    def _():
        answer = home.run("mount", "-o", "password=hunter2", "work", where())
        assert answer.returncode in (1, 3) and "password" in answer.stderr and "hunter2" not in answer.stderr, answer
        answer = home.run("mount", "imaps://me:hunter2@127.0.0.1", where())
        assert answer.returncode in (1, 3) and "hunter2" not in answer.stderr, answer

    @suite.case("mount detaches when the mount answers; umount ends it")
    def _():
        m = where()
        home.run("mount", "work", m, check=0)
        assert len([n for n in os.listdir(m / "INBOX")]) == 10
        assert os.listdir(m / "Archive")
        assert home.link() in ("online", "connecting")
        home.run("umount", m, check=0)
        assert not system.fuse_device(m)
        wait_until(lambda: home.run("list").returncode in (0, 8, 10) and not (home.folder / "run/mailfs/work.sock").exists(), "the socket is gone")

    @suite.case("started with nothing open, it has no file of its own where output goes")
    def _():
        m = where()
        closed = ["sh", "-c", 'exec "$0" mount work "$1" <&- >&- 2>&-', str(PROGRAM), str(m)]
        assert subprocess.run(closed, env=home.environment(), timeout=60 * system.SLOW).returncode == 0
        lock = next(home.state.rglob("lock"))
        pid = int(lock.read_text())
        assert {os.readlink(f"/proc/{pid}/fd/{n}") for n in range(3)} == {"/dev/null"}
        with open(lock) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                raise AssertionError("the state is not locked")
            except BlockingIOError:
                pass
        home.run("umount", m, check=0)

    @suite.case("the bare form, mount.mailfs, mount.fuse.mailfs, and options of fstab")
    def _():
        m = where()
        home.run("work", m, "-o", "ro,_netdev,nofail,x-systemd.automount,noauto,user,defaults,rw", check=0)
        home.run("umount", m, check=0)
        for name in ("mount.mailfs", "mount.fuse.mailfs"):
            link = suite.folder / name
            link.symlink_to(PROGRAM)
            m = where()
            answer = subprocess.run([str(link), "work", str(m), "-o", "rw,_netdev,noauto"], env=home.environment(), capture_output=True, text=True, timeout=60)
            assert answer.returncode == 0, answer
            assert len(os.listdir(m / "INBOX")) == 10
            home.run("umount", m, check=0)
        helper, m = str(suite.folder / "mount.mailfs"), where()
        bad = subprocess.run([helper, "nosuch", str(where())], env=home.environment(), capture_output=True, text=True)
        assert bad.returncode in (1, 2, 32) and bad.stderr, bad
        sloppy = subprocess.run([helper, "work", str(m), "-s", "-o", "frobnicate,colour=red,ro,user=bob"], env=home.environment(), capture_output=True, text=True)
        assert sloppy.returncode == 0, sloppy
        try:
            (m / "INBOX/x.tmp").touch()
            raise AssertionError("what stands behind an unknown option does not count")
        except OSError as error:
            assert error.errno == errno.EROFS, error
        home.run("umount", m, check=0)
        other = home.run("mount", "-o", "user=bob", "work", m, check=3)
        assert "bob" in other.stderr, other.stderr

    @suite.case("no core file, nor one for a program that takes them whatever the limit is")
    def _():
        mount = home.mount()
        with open(f"/proc/{mount.pid}/limits", encoding="ascii") as limits:
            core = next(line for line in limits if line.startswith("Max core file size"))
        assert core.split()[4:6] == ["1", "1"], core
        mount.umount()

    @suite.case("without SOURCE every account is a directory of the root")
    def _():
        mount = home.mount(source=None)
        assert os.listdir(mount.where) == ["work"] or set(os.listdir(mount.where)) - {".nomedia"} == {"work"}, os.listdir(mount.where)
        assert len(mount.names("work/INBOX")) == 10
        mount.umount()

    @suite.case("a URL as SOURCE; the password is asked for at the terminal, and not shown")
    def _():
        bare = suite.home()
        bare.config.unlink()
        m = where()
        pid, fd = pty.fork()
        if pid == 0:
            os.execve(str(PROGRAM), [str(PROGRAM), "mount", "-o", f"tls-ca-file={server.authority.ca}", f"imaps://{server.user}@127.0.0.1:{server.port}", str(m)], bare.environment())
        shown, typed, deadline = b"", False, time.monotonic() + system.PATIENCE * system.SLOW
        while time.monotonic() < deadline:
            ready, _, _ = select.select([fd], [], [], .1)
            if ready:
                try:
                    data = os.read(fd, 4096)
                except OSError:
                    break
                if not data:
                    break
                shown += data
            if not typed and b"assword" in shown:
                os.write(fd, server.password.encode() + b"\n")
                typed = True
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        assert typed and code == 0, (code, shown)
        assert server.password.encode() not in shown
        assert len(os.listdir(m / "INBOX")) == 10
        bare.run("umount", m, check=0)

    @suite.case("a wrong password is exit 9, at once, in one line")
    def _():
        wrong = suite.home(server, password="wrong")
        m = where()
        one_line(wrong.run("mount", "work", m), 9)
        assert not system.fuse_device(m)

    @suite.case("a mount that failed has let go of the account when it returns")
    def _():
        for _ in range(8):
            away = suite.home(server, tls_ca_file=None)
            with open(suite.folder / "said", "w+", encoding="utf-8") as said:   # whoever reads from a pipe waits for the process in the background by that
                first, then = (subprocess.run([str(PROGRAM), *words], env=away.environment(), stdin=subprocess.DEVNULL, stdout=said, stderr=said).returncode
                               for words in (["mount", "work", str(where())], ["check", "--local"]))
                said.seek(0)
                assert (first, then) == (12, 0), (first, then, said.read())

    @suite.case("password-command; its failure is told")
    def _():
        good = suite.home(server, password=None, password_command=f"printf '{server.password}\\nsecond line\\n'")
        mount = good.mount()
        assert len(mount.names()) == 10
        mount.umount()
        adopted = ["env", "--ignore-signal=CHLD", str(PROGRAM), "sync"]    # by who does not wait for what it starts
        assert subprocess.run(adopted, env=good.environment(), stdin=subprocess.DEVNULL, timeout=60 * system.SLOW).returncode == 0
        bad = suite.home(server, password=None, password_command="exit 3")
        answer = bad.run("mount", "work", where())
        assert answer.returncode in (3, 9) and answer.stderr, answer

    @suite.case("who is ended while a password-command runs leaves none behind")
    def _():
        sleep = f"sleep 4321.{os.getpid()}"      # nobody else's
        slow = suite.home(server, password=None, password_command=sleep)

        def commands():
            return subprocess.run(["pgrep", "-f", f"^{sleep}$"], capture_output=True, text=True).stdout.split()

        for words, number in ((["mount", "work", str(where())], signal.SIGINT), (["sync"], signal.SIGINT), (["sync"], signal.SIGTERM)):
            process = subprocess.Popen([str(PROGRAM), *words], env=slow.environment(), stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            wait_until(commands, "the command runs")
            process.send_signal(number)
            process.wait(system.PATIENCE * system.SLOW)
            wait_until(lambda: not commands(), f"it ends with {words}")

    @suite.case("mistakes in the config file are told with line and reason")
    def _():
        broken = suite.home(server)
        text = broken.config.read_text()
        for addition, words in (("imapp = x\n", ("imapp", "imap")), ("poll = often\n", ("poll",)), ("connections = 99\n", ("connections",)), ("nonsense\n", ()), ("[account a/b]\n", ())):
            broken.config.write_text(text + addition)
            answer = broken.run("mount", "work", where())
            assert answer.returncode == 3, (addition, answer)
            assert re.search(rf"config:{text.count(chr(10)) + 1}\b", answer.stderr), (addition, answer.stderr)
            for word in words:
                assert word in answer.stderr, (word, answer.stderr)
        broken.config.write_text(text)
        broken.config.chmod(0o644)
        answer = broken.run("mount", "work", where())
        assert answer.returncode == 3 and "password" in answer.stderr, answer
        answer = home.run("mount", "nosuch", where())
        assert answer.returncode in (3, 8) and "nosuch" in answer.stderr, answer
        answer = home.run("statsu", "work")             # read as SOURCE MOUNTPOINT
        assert answer.returncode == 8 and "no account statsu" in answer.stderr, answer
        broken.config.chmod(0o600)
        broken.set(tls_ca_file="/nonexistent/ca.pem")
        answer = broken.run("mount", "work", where())
        assert answer.returncode == 3 and "tls-ca-file" in answer.stderr and "/nonexistent/ca.pem" in answer.stderr, answer

    @suite.case("what this machine does not permit is a local failure, not one of the server")
    def _():
        here = suite.home(server, smtp=f"smtp://127.0.0.1:{server.port}", **{"from": "alice@example.org"})
        unreadable = suite.folder / "unreadable.eml"
        unreadable.write_bytes(corpus.message())
        unreadable.chmod(0)
        plain = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.getuid() == 0 else []     # root, without what lets it read everything
        for words in (["send", unreadable], ["send", "-t", "bob@example.org", "-a", unreadable]):
            answer = subprocess.run([*plain, str(PROGRAM), *map(str, words)], env=here.environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
            one_line(answer, 7, "unreadable.eml", "Permission denied")
        (here.folder / "run/mailfs").write_text("in the way")
        one_line(here.run("mount", "work", where()), 7, "not a directory")

    @suite.case("mount points that cannot be used are told")
    def _():
        answer = home.run("mount", "work", suite.folder / "missing")
        assert answer.returncode == 2 and "missing" in answer.stderr, answer
        file = suite.folder / "a-file"
        file.write_text("x")
        assert home.run("mount", "work", file).returncode == 2

    mount = home.mount()
    home.wait_link("online")

    @suite.case("a second mount of the account says who holds it")
    def _():
        answer = home.run("mount", "work", where())
        assert answer.returncode == 13, (answer.returncode, answer.stderr)
        assert str(mount.pid) in answer.stderr or str(mount.where) in answer.stderr, answer.stderr

    @suite.case("status, as text and as JSON, by command and by file")
    def _():
        text = home.run("status", check=0).stdout
        assert "work" in text and "online" in text and "INBOX" in text
        assert all(len(line) <= 100 for line in text.split("\n"))
        answer = json.loads(home.run("status", "--json", check=0).stdout)
        account, = answer["accounts"]
        assert account["account"] == "work" and account["cache"]["messages"] == 15
        assert server.password not in json.dumps(answer) + text
        from_file = json.loads((mount / ".mailfs/status.json").read_text())
        assert from_file["accounts"][0]["account"] == "work"
        assert "online" in (mount / ".mailfs/status").read_text()

    @suite.case("status --watch draws what is mounted, and no more than the terminal has rows for")
    def _():
        both = suite.home(server)
        both.config.write_text(both.config.read_text() + both.config.read_text().replace("[account work]", "[account other]"))
        mounted = both.mount()
        argv = ["sh", "-c", 'stty rows 6 cols 60; exec "$0" status --watch', str(PROGRAM)]
        shown, code = terminal.in_terminal(argv, b"\x03", both.environment())
        assert code == -signal.SIGINT and b"work: " in shown and b"not mounted" not in shown, (code, shown)
        assert shown.split(b"\x1b[J")[0].count(b"\n") == 5, shown     # the cursor stands in the last row, and goes back from there
        shown, code = terminal.in_terminal([str(PROGRAM), "status", "--watch", "other"], b"\x03", both.environment())
        assert code == 8 and b"other is not mounted" in shown, (code, shown)
        mounted.umount()
        shown, code = terminal.in_terminal([str(PROGRAM), "status", "--watch"], b"\x03", both.environment())
        assert code == 8 and b"work is not mounted" in shown, (code, shown)

    @suite.case("list shows the mailboxes")
    def _():
        listed = home.run("list", check=0).stdout
        assert "INBOX" in listed and "Archive" in listed and "Trash" in listed

    @suite.case("sync of one mailbox, of an unknown one, populate")
    def _():
        home.run("sync", "INBOX", check=0)
        assert home.run("sync", "Nowhere").returncode in (8, 14)
        home.run("sync", "--populate", "Archive", check=0)
        wait_until(lambda: home.status()["cache"]["bodies"] == 5, "the bodies of Archive are here")

    @suite.case("a mailbox that the server does not open: sync says so, the log says which and why, once; the others are read")
    def _():
        text = "on (SELECT|EXAMINE) .?Locked:\n\t{tag} NO [SERVERBUG] its index is broken\n"
        locked = suite.scripted(mailboxes={"INBOX": [corpus.message()], "Locked": [corpus.message()]}, script=text)
        its_home = suite.home(**locked.settings(), poll="24h")
        mounted = its_home.mount()
        for _ in range(2):
            said = its_home.run("sync")
            assert said.returncode == 14 and "a mailbox could not be read" in said.stderr, said
        its_home.run("sync", "INBOX", check=0)
        said = its_home.run("sync", "Locked")
        assert said.returncode == 15 and said.stderr.count("not permitted") == 1, said
        log = mounted.log.read_text()
        assert log.count("the mailbox Locked cannot be read: not permitted by the server: ") == 1 and "its index is broken" in log, log
        assert len(mounted.names()) == 1
        mounted.umount()

    @suite.case("disconnect, connect, check")
    def _():
        home.run("disconnect", check=0)
        wait_until(lambda: home.link() == "waiting", "disconnected")
        home.run("connect", check=0)
        home.wait_link("online")
        home.run("check", check=0)

    @suite.case("check finds a damaged body, and it is fetched again")
    def _():
        path = mount.messages("Archive")[0]
        right = path.read_bytes()
        for body in home.bodies():
            data = bytearray(body.read_bytes())
            data[len(data) // 2] ^= 0xff
            body.chmod(0o600)
            body.write_bytes(data)
        answer = home.run("check", timeout=60)
        assert answer.returncode == 14, (answer.returncode, answer.stdout, answer.stderr)
        home.run("check", check=0)
        subprocess.run(["sh", "-c", "echo 1 >/proc/sys/vm/drop_caches"], stderr=subprocess.DEVNULL)
        assert path.read_bytes() == right

    @suite.case("ctl takes the same words")
    def _():
        with open(mount / ".mailfs/ctl", "w") as ctl:
            ctl.write("disconnect\n")
        wait_until(lambda: home.link() == "waiting", "disconnected")
        with open(mount / ".mailfs/ctl", "w") as ctl:
            ctl.write("connect\n")
        home.wait_link("online")
        assert mailfs.errno_of(lambda: os.write(os.open(mount / ".mailfs/ctl", os.O_WRONLY), b"nonsense\n")) == "EINVAL"

    @suite.case("ctl: a line that is too long is EFBIG, and one command too many EBUSY; the next is taken")
    def _():
        proxy = suite.proxy(server.port)
        account = suite.home(server, port=proxy.port, poll="24h", io_timeout="10m")
        ctl = account.mount() / ".mailfs/ctl"

        def command(line):
            with open(ctl, "wb", buffering=0) as file:
                file.write(line)
        with open(ctl, "wb", buffering=0) as file:
            file.write(b"sync " + b"x" * 40000)
            assert mailfs.errno_of(file.write, b"x" * 40000) == "EFBIG"
        with open(ctl, "wb", buffering=0) as file:
            assert mailfs.errno_of(file.write, b"check \0") == "EINVAL"
        proxy.do("pause")
        taken = 0
        while not (refused := mailfs.errno_of(command, b"sync\n")):
            taken += 1
            assert taken < 1000, "never too many"
        assert refused == "EBUSY" and taken > 1, (refused, taken)
        proxy.do("resume")
        wait_until(lambda: mailfs.errno_of(command, b"sync\n") == "", "there is room for another")
        log = (ctl.parent / "log").read_text()
        assert "ctl: sync" in log and "ctl: sync x" not in log and "ctl: check" not in log, log

    @suite.case("SIGHUP reads the config again; the mount stays")
    def _():
        os.kill(mount.pid, signal.SIGHUP)
        wait_until(lambda: home.link() == "online", "still there")
        assert len(mount.names()) == 10

    @suite.case("SIGUSR1 to all that are called mailfs: the mount connects anew, and who follows events goes on")
    def _():
        follower = subprocess.Popen([str(PROGRAM), "events", "--all", "work"], env=home.environment(), stdout=subprocess.PIPE)
        before = home.status()["traffic"]["connections"]
        assert follower.stdout.readline()
        for process in (mount.process, follower):
            process.send_signal(signal.SIGUSR1)
        follower.terminate()
        assert follower.wait(system.PATIENCE * system.SLOW) == -signal.SIGTERM, follower.returncode
        wait_until(lambda: home.link() == "online" and home.status()["traffic"]["connections"] > before, "connected anew")

    @suite.case("the socket and everything kept are for the owner only")
    def _():
        for path in [*home.state.rglob("*"), *home.cache.rglob("*"), home.state, home.cache, *(home.folder / "run/mailfs").rglob("*")]:
            with contextlib.suppress(FileNotFoundError):     # files of a mount that runs come and go
                assert path.is_symlink() or path.stat().st_mode & 0o077 == 0, path

    @suite.case("no secret in log, trace, arguments, state or cache")
    def _():
        traced = suite.home(server)
        second = traced.mount(arguments=["-d", "--trace", "imap,net,sync"])
        second.names()
        arguments = open(f"/proc/{second.pid}/cmdline").read() + open(f"/proc/{second.pid}/environ").read()
        second.umount()
        log = second.log.read_text(errors="replace")
        import base64
        secrets = [server.password, base64.b64encode(f"\0{server.user}\0{server.password}".encode()).decode(), base64.b64encode(server.password.encode()).decode()]
        for secret in secrets:
            assert secret not in log and secret not in arguments
            for path in [*traced.state.rglob("*"), *traced.cache.rglob("*")]:
                assert not path.is_file() or secret.encode() not in path.read_bytes(), path
        assert "LIST" in log or "list" in log, "nothing was traced"

    @suite.case("SIGTERM and SIGINT unmount cleanly")
    def _():
        mount.process.send_signal(signal.SIGTERM)
        mount.wait_end()
        again = home.mount()
        again.process.send_signal(signal.SIGINT)
        again.wait_end()

    @suite.case("umount by others: umount(8) or fusermount3 ends the process")
    def _():
        again = home.mount()
        command = ["umount"] if os.getuid() == 0 else ["fusermount3", "-u"]
        subprocess.run([*command, str(again.where)], check=True)
        again.wait_end()
        answer = home.run("umount", again.where)
        assert answer.returncode in (4, 8) and answer.stderr, answer

    @suite.case("sync --once works without a mount")
    def _():
        server.deliver(corpus.message(subject="for cron"))
        home.run("sync", "--once", "work", check=0) if home.run("sync", "--once").returncode else None
        server.stop()
        again = home.mount()
        assert [n for n in again.names() if "for-cron" in n]
        again.umount()
        assert home.run("sync", "--once").returncode == 10
        server.start()

    @suite.case("a file that grows to the limit of the process does not end it: it is told as a full disk is")
    def _():
        large = suite.dovecot()
        large.deliver(corpus.message(subject="large", body=b"x" * 78 + b"\r\n" * 40000))
        account = suite.home(large)
        account.run("sync", check=0)
        limited = ["sh", "-c", 'ulimit -f 100; exec "$0" sync --populate', str(PROGRAM)]
        answer = subprocess.run(limited, env=account.environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60 * system.SLOW)
        one_line(answer, 7)

    @suite.case("a signal that it was started to ignore does not end what it does without a mount")
    def _():
        proxy = suite.proxy(server.port)
        account = suite.home(server, port=proxy.port)
        account.run("sync", check=0)
        before = proxy.stats()["connections"]
        proxy.do("pause")
        ignoring = ["sh", "-c", "trap '' INT TERM; exec \"$0\" sync", str(PROGRAM)]      # as what a script runs in the background does
        process = subprocess.Popen(ignoring, env=account.environment(), stdin=subprocess.DEVNULL)
        wait_until(lambda: proxy.stats()["connections"] > before, "it connects")
        for number in (signal.SIGINT, signal.SIGTERM):
            process.send_signal(number)
        proxy.do("resume")
        assert process.wait(system.PATIENCE * system.SLOW) == 0, process.returncode

    @suite.case("status and list without a running mailfs work in-process")
    def _():
        assert "INBOX" in home.run("list", check=0).stdout
        assert home.run("status").returncode in (0, 8)

    @suite.case("an account that points elsewhere than its state is refused")
    def _():
        elsewhere = suite.dovecot(user="bob")
        home.set(user="bob", imap=f"imaps://localhost:{elsewhere.port}", **{"tls-ca-file": str(elsewhere.authority.ca)})
        answer = home.run("mount", "work", where())
        assert answer.returncode == 3 and "bob" in answer.stderr and "state" in answer.stderr, answer
