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

    @suite.case("uninstall leaves nothing")
    def _():
        make("uninstall")
        assert not [p for p in target.rglob("*") if not p.is_dir()], list(target.rglob("*"))
