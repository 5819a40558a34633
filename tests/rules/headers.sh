#!/bin/sh
# Every header compiles alone.
set -eu
cd "$(dirname "$0")/../.." || exit 1
cflags=$(pkg-config --cflags fuse3 openssl sqlite3 glib-2.0 libgsasl libidn2 zlib json-c mount)
bad=0
for header in $(find src -name '*.h' | sort); do
	# shellcheck disable=SC2086
	"${CC:-cc}" -std=gnu17 -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -DFUSE_USE_VERSION=312 -Isrc $cflags -fsyntax-only -Wall -x c "$header" \
		-Wno-pragma-once-outside-header 2>&1 || { echo "$header: does not compile alone" >&2; bad=1; }
done
exit $bad
