#!/usr/bin/python3
"""The contract of sync/remote.h (tests/contract) on a real server, with more and with less of what servers can."""
import os
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lib import PROGRAM, Suite  # noqa: E402

VARIANTS = [("maildir", []), ("mdbox", ["UIDPLUS", "MOVE", "QRESYNC"]), ("maildir", ["LITERAL+", "UNSELECT", "QRESYNC", "CONDSTORE"]),
            ("mdbox", ["NOTIFY", "LITERAL+", "LIST-EXTENDED", "ESEARCH"])]

with Suite("the contract of the IMAP back-end on a real server", timeout=400) as suite:
    program = PROGRAM.parent / "tests/contract/test_remote_imap"
    for variant, without in VARIANTS:
        server = suite.dovecot(variant=variant, without=without)

        @suite.case(f"{variant} without {', '.join(without) or 'nothing'}")
        def _():
            environment = dict(os.environ, MAILFS_TEST_IMAP_URL=f"imap://{server.user}@127.0.0.1:{server.imap_port}",
                               MAILFS_TEST_IMAP_PASSWORD=server.password, MAILFS_TEST_IMAP_TLS="none")
            done = subprocess.run([program], env=environment, capture_output=True, text=True, timeout=200)
            assert done.returncode == 0 and "PASSED" in done.stdout + done.stderr, done.stdout + done.stderr
