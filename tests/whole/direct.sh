#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Reads with O_DIRECT into memory that comes and goes (tests/prog/direct.c): nothing that the kernel
# writes late is lost, where it moves pages and where they are copied. What goes on behind the call
# keeps all memory local there, and one line says so. ROWS="pread" runs only that.
# shellcheck source-path=SCRIPTDIR source=lib.bash
. "$(dirname "$0")/lib.bash"

here=$(cd "$(dirname "$0")" && pwd)
progs=("$PROG/direct")
aio=$(${CC:-gcc} -print-file-name=libaio.so.1)
if [ -e /usr/include/liburing.h ] && [ -e "$aio" ] &&
	${CC:-gcc} -std=gnu11 -O2 -g -pthread -DLINKED -I"$here/../prog" "$here/../prog/direct.c" \
		-luring "$aio" -o "$T/linked" 2>"$T/cc.log"; then
	progs=("$T/linked")
else
	skipped "liburing, libaio" "not here: $(gist "$T/cc.log")"
fi

behind=" liburing libaio libaio-queue aio ring ring-first posix-aio "

# one NAME CONF ROW: no CONF runs it plain
one() {
	local why='' dir=$T/${1%% *} status said=

	rm -f "$dir/stats"
	if [ -n "$2" ]; then
		TIERSTAT_OUT=$dir/stats managed "$2" "${progs[0]}" "$3" 64M
	else
		plain "${progs[0]}" "$3" 64M
	fi >"$dir/out" 2>"$dir/err"
	status=$?
	if [[ $2 == *move=off* && $behind == *" $3 "* ]]; then
		said=$(grep -c 'UFFDIO_MOVE.*O_DIRECT' "$dir/err")
		sed -i '/UFFDIO_MOVE.*O_DIRECT/d' "$dir/err"
	fi
	if [ $status -eq 77 ]; then
		skipped "$3 $1" "$(gist "$dir/out")"
		return
	elif [ $status -ne 0 ]; then
		why="status $status: $(gist "$dir/err")"
	elif [ -s "$dir/err" ]; then
		why="says: $(gist "$dir/err")"
	elif [ -n "$said" ] && [ "$said" -ne 1 ]; then
		why="says $said times that nothing can leave"
	elif [ -n "$said" ] && [ "$(json "$dir/stats" stuck_bytes)" = 0 ]; then
		why="no stuck bytes"
	elif [ -n "$2" ] && [ -z "$said" ]; then
		why=$(not_tiered "$dir/stats" 8M)
	fi
	if [ -n "$why" ]; then not_ok "$3 $1" "$why"; else ok "$3 $1"; fi
}

# all NAME CONF
all() {
	local row rest
	mkdir "$T/${1%% *}"
	while read -r row rest; do
		[ -z "${ROWS:-}" ] || [[ " $ROWS " == *" $row "* ]] || continue
		# Nothing can hold up another process where all is copied: see the README.
		[ "$row" = remote ] && [[ $2 == *move=off* ]] && continue
		one "$1" "$2" "$row"
	done < <("${progs[0]}" list)
	return $failed
}

(
	trap - EXIT
	all plain ""
	all tiered "local.limit=16M;store.uri=mem:"
	all chaos "local.limit=16M;engine.min_region=4K;engine.chaos=2000"
) &
other=$!
all copied "local.limit=16M;store.uri=mem:;engine.move=off"
all copied-chaos "local.limit=16M;engine.min_region=4K;engine.chaos=2000;engine.move=off"
wait $other || failed=1
finish
