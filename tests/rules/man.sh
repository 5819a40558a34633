#!/bin/sh
# Manual pages without a warning of groff's, where it is installed.
set -eu
cd "$(dirname "$0")/../.." || exit 1
command -v groff >/dev/null || exit 0
bad=0
for page in man/*.[1-8]; do
	[ -e "$page" ] || continue
	said=$(groff -man -Tutf8 -ww -z "$page" 2>&1) || true
	[ -z "$said" ] || { echo "$said" >&2; bad=1; }
done
exit $bad
