#!/bin/sh
# Who may include whom: main -> cli -> fs -> control -> {sync, smtp} -> cache -> {mail, net, auth} -> base; and which library
# is whose. Says every breach; exits 1 if there is one.
set -u
cd "$(dirname "$0")/../.." || exit 1
bad=$(
	# $1: a room; the rest: rooms it may include. Other quoted includes of src/ are breaches.
	room() {
		name=$1; shift
		[ -d "src/$name" ] || return 0
		allowed=$(printf '%s|' "$name" "$@" | sed 's/|$//')
		grep -rnE '^#[[:space:]]*include "' "src/$name" --include='*.[ch]' | grep -vE "include \"($allowed)/" |
			grep -E 'include "[a-z0-9]+/' | sed 's/$/   (layer)/'
		grep -rnE '^#[[:space:]]*include "[^/"]*"' "src/$name" --include='*.[ch]' | sed 's/$/   (include as "room\/file.h")/'
	}
	room base
	room config base
	room mail base
	room net config base
	room auth config base
	room cache mail config base
	room sync cache auth mail net config base
	room smtp cache auth mail net config base
	room control sync smtp cache mail config base
	room fs control sync smtp cache mail config base
	room cli fs control sync smtp cache auth mail net config base

	# $1: an include pattern; the rest: where it may stand.
	library() {
		pattern=$1; shift
		grep -rnE "^#[[:space:]]*include <$pattern" src --include='*.[ch]' | grep -vE "^src/($(printf '%s/|' "$@" | sed 's/|$//'))" |
			sed 's/$/   (library)/'
	}
	library 'sqlite3' cache
	library 'openssl/' net mail
	library 'fuse' fs
	library 'libmount/' fs
	library 'glib' mail
	library 'libetpan/' net sync
	library 'gsasl' auth
	library 'idn2' smtp
	library 'json-c/' control cli
)
[ -z "$bad" ] || { echo "$bad" >&2; exit 1; }
