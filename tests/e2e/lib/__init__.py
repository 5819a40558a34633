"""The harness of the end-to-end tests: see tests/README.md."""
from .suite import Suite, Skip
from .system import wait_until

__all__ = ["Suite", "Skip", "wait_until"]
