#!/bin/sh
# Shell scripts by shellcheck, Python by its compiler.
set -eu
cd "$(dirname "$0")/../.." || exit 1
python=${PYTHON:-/usr/bin/python3}
"$python" -B - <<'EOF'
import pathlib, sys
bad = 0
for path in sorted(pathlib.Path("tests").rglob("*")):
    if path.suffix in (".py", ".t") or (path.is_file() and path.suffix == "" and path.read_bytes()[:40].find(b"python") > 0):
        try:
            compile(path.read_text(), str(path), "exec")
        except SyntaxError as error:
            print(error, file=sys.stderr)
            bad = 1
sys.exit(bad)
EOF
command -v shellcheck >/dev/null || exit 0
grep -rlE '^#!/bin/(ba)?sh' tests .ci | xargs shellcheck --severity=warning
