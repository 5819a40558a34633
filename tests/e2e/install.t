#!/usr/bin/python3
import os
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib import ROOT, Suite  # noqa: E402

with Suite("make install and make uninstall", timeout=400) as suite:
    target = suite.folder / "root"

    def make(goal):
        environment = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "SAN")}
        subprocess.run(["make", "-C", str(ROOT), goal, f"DESTDIR={target}", "PREFIX=/usr"], check=True, capture_output=True, text=True, env=environment)

    @suite.case("everything is where Debian looks for it")
    def _():
        make("install")
        for name in ("usr/bin/mailfs", "usr/share/man/man1/mailfs.1", "usr/share/man/man5/mailfs.conf.5", "usr/share/man/man7/mailfs.7",
                     "usr/share/bash-completion/completions/mailfs", "usr/share/zsh/site-functions/_mailfs", "usr/lib/systemd/user/mailfs@.service"):
            assert (target / name).is_file(), name
        for name in ("mount.mailfs", "mount.fuse.mailfs"):
            assert os.readlink(target / "sbin" / name) == "/usr/bin/mailfs"
        assert os.readlink(target / "usr/bin/mailfs-sendmail") == "mailfs"
        unit = (target / "usr/lib/systemd/user/mailfs@.service").read_text()
        assert "/usr/bin/mailfs" in unit and "@PREFIX@" not in unit and "Type=notify" in unit
        version = subprocess.run([str(target / "usr/bin/mailfs"), "--version"], check=True, capture_output=True, text=True).stdout
        assert version.startswith("mailfs ")

    @suite.case("the completion of bash knows the commands")
    def _():
        for name in ("mailfs", "mailfs-sendmail"):
            script = f"source {target}/usr/share/bash-completion/completions/{name}; complete -p {name}"
            subprocess.run(["bash", "-c", script], check=True, capture_output=True)
        script = (f"source {target}/usr/share/bash-completion/completions/mailfs-sendmail; COMP_WORDS=(mailfs-sendmail -R h) COMP_CWORD=2; "
                  "_mailfs_sendmail; echo ${COMPREPLY[@]}")
        assert subprocess.run(["bash", "-c", script], check=True, capture_output=True, text=True).stdout == "hdrs\n"

    @suite.case("the completion of bash runs nothing of what a server, or another user, has named so")
    def _():
        traces = [suite.folder / f"completed-{n}" for n in range(3)]
        mailboxes = ["INBOX", "Two Words", f"$(touch {traces[0]})", f"a`touch {traces[1]}`", "$HOME", "Grüße", "~root", "a:b=c"]
        place = f"/mnt/$(touch\\040{traces[2]})"
        script = f"""
            mailfs() {{ case $* in *mailboxes) printf '%s\\n' {' '.join("'" + m + "'" for m in mailboxes)} ;; *accounts) echo work ;; esac; }}
            awk() {{ printf '%s\\n' '{place}' /mnt/plain; }}
            source {target}/usr/share/bash-completion/completions/mailfs
            for command in sync subscribe umount; do
                COMP_WORDS=(mailfs $command '') COMP_CWORD=2
                _mailfs
                for word in "${{COMPREPLY[@]}}"; do
                    eval "printf '%s\\n' $word"
                done
            done
            COMP_WORDS=(mailfs sync 'Two\\ W') COMP_CWORD=2
            _mailfs; printf '%s\\n' "${{COMPREPLY[@]}}"
            COMP_WORDS=(mailfs sync "'Two W") COMP_CWORD=2
            _mailfs; printf '%s\\n' "${{COMPREPLY[@]}}"
            COMP_WORDS=(mailfs sync '"$') COMP_CWORD=2
            _mailfs; printf '%s\\n' "${{#COMPREPLY[@]}}" """
        shown = subprocess.run(["bash", "-c", script], check=True, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C.UTF-8"}).stdout.splitlines()
        assert shown == 2 * ["work", *mailboxes] + [place.replace("\\040", " "), "/mnt/plain", "Two\\ Words", "Two Words", "0"], shown
        assert not [trace for trace in traces if trace.exists()], traces

    @suite.case("uninstall leaves nothing")
    def _():
        make("uninstall")
        assert not [p for p in target.rglob("*") if not p.is_dir()], list(target.rglob("*"))
