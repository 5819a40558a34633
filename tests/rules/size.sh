#!/bin/sh
# No source file over 900 lines: beyond that it holds two ideas.
set -u
cd "$(dirname "$0")/../.." || exit 1
bad=$(find src tests -name '*.[ch]' -exec wc -l {} + | awk '$2 != "total" && $1 > 900 { print $2 ": " $1 " lines" }')
[ -z "$bad" ] || { echo "$bad" >&2; exit 1; }
