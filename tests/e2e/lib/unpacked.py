"""Servers whose packages cannot be installed beside those of the tests: unpacked into a folder of the build, and run from there.

In CI it is a failure when they cannot be had, elsewhere a reason to skip."""
import fcntl
import os
import subprocess

from .suite import ROOT, Skip

ATTEMPTS = 3


def _run(*argv, folder):
    subprocess.run(argv, cwd=folder, check=True, capture_output=True, timeout=120, stdin=subprocess.DEVNULL)


def _fetch(name, folder):
    """A mirror that is busy is asked again; so is one of which nothing is known yet."""
    for attempt in range(ATTEMPTS):
        try:
            return _run("apt-get", "-q", "download", name, folder=folder)
        except (OSError, subprocess.SubprocessError):
            if attempt == ATTEMPTS - 1:
                raise
        if os.getuid() == 0:
            subprocess.run(["apt-get", "-qq", "update"], capture_output=True, timeout=120, stdin=subprocess.DEVNULL, check=False)
    return None


def _unpack(name, folder, root):
    (folder / name).mkdir(exist_ok=True)
    _fetch(name, folder / name)
    for package in (folder / name).glob("*.deb"):
        _run("dpkg", "-x", str(package), str(root), folder=folder)
    (folder / f"{name}.done").touch()


def unpack(*names):
    """Where these packages are unpacked; downloads them at first use."""
    folder = ROOT / "build/unpacked"
    root = folder / "root"
    root.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for name in names:
            if (folder / f"{name}.done").exists():
                continue
            try:
                _unpack(name, folder, root)
            except (OSError, subprocess.SubprocessError) as error:
                unavailable(f"the package {name} cannot be had: {error} {getattr(error, 'stderr', b'')}")
    return root


def unavailable(why):
    if os.environ.get("CI"):
        raise AssertionError(why)
    raise Skip(why)
