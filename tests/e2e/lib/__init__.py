"""The harness of the end-to-end tests: see tests/README.md."""
from .mailfs import MountFailed, digest, errno_of, read, require_fuse
from .suite import PROGRAM, ROOT, Skip, Suite
from .system import wait_until

__all__ = ["MountFailed", "PROGRAM", "ROOT", "Skip", "Suite", "digest", "errno_of", "read", "require_fuse", "wait_until"]
