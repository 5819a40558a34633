#!/usr/bin/python3
"""As root: the same file again as nobody, with a /dev/fuse that anyone may open, in a mount namespace of its own."""
import os
import stat
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib import Skip, Suite, corpus, digest, errno_of, require_fuse  # noqa: E402
from lib import mailfs, suite as harness, system  # noqa: E402


def become_nobody():
    """unshare, a device node, setpriv: only what util-linux has"""
    here = os.path.abspath(__file__)
    script = f"""
set -e
mount --make-rprivate / 2>/dev/null || true
if ! [ "$(stat -c %a /dev/fuse)" = 666 ]; then
    node=$(mktemp -u /tmp/mailfs-fuse-XXXXXX)
    mknod -m 666 $node c 10 229
    mount --bind $node /dev/fuse
    rm $node
fi
exec setpriv --reuid=65534 --regid=65534 --clear-groups env HOME=/nonexistent MAILFS_TEST_USER=1 /usr/bin/python3 -B {here}
"""
    os.execvp("unshare", ["unshare", "-m", "sh", "-c", script])


if os.getuid() == 0:
    if not os.path.exists("/dev/fuse") or not (os.stat("/usr/bin/fusermount3").st_mode & stat.S_ISUID):
        print("1..0 # SKIP no /dev/fuse, or fusermount3 is not setuid")
        sys.exit(0)
    reachable = subprocess.run(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "test", "-x", str(harness.PROGRAM)]).returncode == 0
    allowed = subprocess.run(["unshare", "-m", "true"], stderr=subprocess.DEVNULL).returncode == 0
    if not reachable or not allowed:
        print("1..0 # SKIP nobody cannot reach the program, or no mount namespaces here")
        sys.exit(0)
    become_nobody()

with Suite("as an ordinary user", timeout=400) as suite:
    require_fuse()
    if not os.access("/dev/fuse", os.W_OK):
        raise Skip("/dev/fuse is not for ordinary users here")
    server = suite.dovecot()
    server.fill("INBOX", corpus.realistic(20, seed=51))
    home = suite.home(server)

    @suite.case("mount, read, umount through fusermount3")
    def _():
        mount = home.mount()
        with server.client() as other:
            assert mount.digests() == other.digests()
        assert os.stat(mount.messages()[0]).st_uid == os.getuid()
        mount.umount()

    @suite.case("fusermount3 -u by hand ends the process")
    def _():
        mount = home.mount()
        subprocess.run(["fusermount3", "-u", str(mount.where)], check=True)
        mount.wait_end()

    @suite.case("detached, and with SIGTERM")
    def _():
        where = suite.path("mnt")
        home.run("mount", "work", where, check=0)
        assert len(os.listdir(where / "INBOX")) == 20
        assert digest(where / "INBOX" / os.listdir(where / "INBOX")[0])
        home.run("umount", where, check=0)
        assert not system.fuse_device(where)

    @suite.case("allow_other without user_allow_other is told")
    def _():
        if "user_allow_other" in [line.strip() for line in open("/etc/fuse.conf")] if os.path.exists("/etc/fuse.conf") else False:
            raise Skip("user_allow_other is set here")
        answer = home.run("mount", "-o", "allow_other", "work", suite.path("mnt"))
        assert answer.returncode != 0 and "user_allow_other" in answer.stderr, answer

    @suite.case("a mount point of somebody else is told")
    def _():
        answer = home.run("mount", "work", "/usr")
        assert answer.returncode in (2, 4) and answer.stderr.strip(), answer
        assert errno_of(os.stat, "/usr") == ""
        assert not system.fuse_device("/usr") or mailfs.lazy_umount("/usr")
