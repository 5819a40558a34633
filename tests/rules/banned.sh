#!/bin/sh
# Functions that nobody needs: unbounded copies, hidden static state, numbers without errors, shells; and unfinished business.
set -u
cd "$(dirname "$0")/../.." || exit 1
functions='strcpy|strcat|stpcpy|sprintf|vsprintf|gets|strtok|localtime|gmtime|asctime|ctime|atoi|atol|atoll|atof|tmpnam|mktemp|tempnam|system|popen|alloca|signal'
bad=$(
	grep -rnE "(^|[^A-Za-z0-9_>.\"])($functions)[[:space:]]*\(" src --include='*.[ch]' | grep -vE '^[^:]*:[0-9]+:[[:space:]]*(\*|/[*/])' |
		grep -vE 'st[rp]cpy\([^,()]+, "'   # of a literal: its length is seen
	grep -rnE '\b(TODO|FIXME|XXX|HACK)\b' src man tests --include='*.[ch]' --include='*.t' --include='*.py' --include='*.[1-8]' 2>/dev/null
)
[ -z "$bad" ] || { echo "$bad" >&2; exit 1; }
