#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# fork while memory is on memory servers: what is far is brought home through libnbd,
# which allocates, while the forking thread holds the allocator's locks. A child can't
# have its parent's export and says so; its data must be right all the same.
# shellcheck source-path=SCRIPTDIR source=lib.bash
. "$(dirname "$0")/lib.bash"

if ! have nbdkit; then
	skipped "fork with memory servers" "no nbdkit"
	finish
fi
nbd_start one 256M
one=$nbd_uri
nbd_start two 256M
for row in fork fork-again many-children fork-threads fork-threads fork-threads; do
	rm -f "$T/stats"
	TIERSTAT_OUT=$T/stats LIMIT=30 managed "local.limit=32M;store.stripe=256K;store.uri=$one,$nbd_uri" \
		"$PROG/processes" "$row" 128M >"$T/out" 2>"$T/err" </dev/null
	status=$?
	why=''
	# What children say of the export is no fault.
	[ $status -eq 0 ] || why=$(went_wrong $status "$T/err")
	result "$row with memory servers" "${why:-$(not_tiered "$T/stats" 16M)}"
	[ $status -ne 124 ] || break # the servers are still in use
done

# libnbd allocates, by the program's malloc if it has one of its own.
LIMIT=60 managed "local.limit=32M;store.uri=$one" "$PROG/allocator" threads 96M >"$T/out" 2>"$T/err" </dev/null
status=$?
if [ $status -ne 0 ]; then
	not_ok "an allocator of the program's own, with a memory server" "status $status: $(gist "$T/err")"
elif [ "$(wc -l <"$T/err")" -ne 1 ] || ! grep -q 'needs malloc.*running unmanaged' "$T/err"; then
	not_ok "an allocator of the program's own, with a memory server" "says: $(gist "$T/err")"
else
	ok "an allocator of the program's own, with a memory server"
fi
finish
