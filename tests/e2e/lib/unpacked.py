"""Servers of packages that cannot be installed beside those of tests/packages/check: unpacked into a folder of the build."""
import fcntl
import hashlib
import os
import shutil
import subprocess

from .suite import ROOT, Skip

LIST = ROOT / "tests/packages/unpacked"


def unpack():
    """Where the packages are unpacked; downloads them at first use, and when their list has changed. Skips loudly where they
    cannot be had; with CI in the environment that is a failure."""
    folder = ROOT / "build/unpacked"
    folder.mkdir(parents=True, exist_ok=True)
    wanted = hashlib.sha256(LIST.read_bytes()).hexdigest()
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = folder / "done"
        if not done.exists() or done.read_text() != wanted:
            try:
                _download(folder)
            except (OSError, subprocess.SubprocessError) as error:
                text = f"the packages of {LIST.name} cannot be had: {error} {getattr(error, 'stderr', b'')!r:.500}"
                if os.environ.get("CI"):
                    raise AssertionError(text) from error
                raise Skip(text) from error
            done.write_text(wanted)
    return folder / "root"


def _download(folder):
    def run(*argv, **kwargs):
        subprocess.run(argv, check=True, capture_output=True, stdin=subprocess.DEVNULL, **kwargs)

    shutil.rmtree(folder / "root", ignore_errors=True)
    for package in folder.glob("*.deb"):
        package.unlink()
    names = [line for line in LIST.read_text().split("\n") if line and not line.startswith("#")]
    try:
        run("apt-get", "-q", "download", *names, cwd=folder, timeout=120)
    except subprocess.CalledProcessError:
        if os.getuid() != 0:
            raise
        run("apt-get", "-qq", "update", timeout=120)      # lists that are missing, or older than the archive
        run("apt-get", "-q", "download", *names, cwd=folder, timeout=120)
    for package in folder.glob("*.deb"):
        run("dpkg", "-x", package, folder / "root", timeout=60)


def libraries(root):
    """LD_LIBRARY_PATH for a program of that tree"""
    return ":".join(map(str, [root / "usr/lib", *(root / "usr/lib").glob("*-linux-gnu"), *(root / "lib").glob("*-linux-gnu")]))
