"""Servers whose packages cannot be installed beside those of the tests: unpacked into a folder of the build, and run from there.

In CI it is a failure when they cannot be had, elsewhere a reason to skip."""
import fcntl
import os
import subprocess

from .suite import ROOT, Skip

ATTEMPTS = 3


def _run(*argv, folder):
    subprocess.run(argv, cwd=folder, check=True, capture_output=True, timeout=120, stdin=subprocess.DEVNULL)


def _fetch(names, folder):
    """A mirror that is busy is asked again; so is one of which nothing is known yet."""
    for attempt in range(ATTEMPTS):
        try:
            return _run("apt-get", "-q", "download", *names, folder=folder)
        except (OSError, subprocess.SubprocessError):
            if attempt == ATTEMPTS - 1:
                raise
        if os.getuid() == 0:
            subprocess.run(["apt-get", "-qq", "update"], capture_output=True, timeout=120, stdin=subprocess.DEVNULL, check=False)
    return None


def unpack(*names):
    """Where these packages are unpacked, with nothing else; downloads them at first use."""
    folder = ROOT / "build/unpacked" / names[0]
    folder.mkdir(parents=True, exist_ok=True)
    done, wanted = folder / "done", " ".join(names)
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists() or done.read_text() != wanted:
            try:
                _fetch(names, folder)
                for package in folder.glob("*.deb"):
                    _run("dpkg", "-x", str(package), str(folder / "root"), folder=folder)
            except (OSError, subprocess.SubprocessError) as error:
                unavailable(f"the packages {wanted} cannot be had: {error} {getattr(error, 'stderr', b'')}")
            done.write_text(wanted)
    return folder / "root"


def libraries(root):
    """LD_LIBRARY_PATH for a program of that tree"""
    return ":".join(map(str, [root / "usr/lib", *(root / "usr/lib").glob("*-linux-gnu"), *(root / "lib").glob("*-linux-gnu")]))


def unavailable(why):
    if os.environ.get("CI"):
        raise AssertionError(why)
    raise Skip(why)
