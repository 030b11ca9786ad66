#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A far store smaller than needed: a warning, the memory stays local, the program
# goes on and ends right.
# shellcheck source-path=SCRIPTDIR source=lib.bash
. "$(dirname "$0")/lib.bash"

# full NAME URI
full() {
	local name=$1 why='' status

	rm -f "$T/stats"
	TIERSTAT_OUT=$T/stats managed "local.limit=32M;store.uri=$2" \
		"$PROG/integrity" 200M 4 1 $RANDOM mmap >"$T/out" 2>"$T/err"
	status=$?
	if [ $status -ne 0 ]; then
		why="status $status: $(gist "$T/err")"
	elif ! grep -qi emfatier "$T/err"; then
		why="no warning on stderr: $(gist "$T/err")"
	elif [ "$(wc -l <"$T/err")" -gt 5 ]; then
		why="$(wc -l <"$T/err") lines of warnings: $(gist "$T/err")"
	else
		# The part that fits did go far.
		why=$(not_tiered "$T/stats" 32M)
	fi
	result "$name" "$why"
}

mkdir "$T/small"
full "file of 64M" "file:$T/small?size=64M"
if have nbdkit; then
	nbd_start small 64M
	full "nbd export of 64M" "$nbd_uri"
	nbd_start other 64M
	full "stripe of nbd and file, 64M each" "$nbd_uri,file:$T/small?size=64M"
else
	skipped "nbd export of 64M" "no nbdkit"
fi

# The disk itself is full, sooner than the size promises.
mkdir "$T/disk"
if mount -t tmpfs -o size=64M none "$T/disk" 2>/dev/null; then
	full "file on a full disk" "file:$T/disk?size=1G"
	umount -l "$T/disk"
else
	skipped "file on a full disk" "can't mount a tmpfs"
fi
finish
