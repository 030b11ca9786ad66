#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What programs rely on (tests/prog: syscalls, processes, mappings, heap, threads, found, window, allocator, weights, guarded),
# row by row: without us, with a quarter of the memory local, and under chaos with
# the smallest regions. A row that uses cold memory must have had some.
# FAULT=signal tests engine.fault=signal. ROWS="fork mremap-grow" runs only these, PROGRAMS="processes" only those.
# shellcheck source-path=SCRIPTDIR source=lib.bash
. "$(dirname "$0")/lib.bash"

# one DIR NAME CONF COLD PROGRAM ROW: CONF empty runs it plain; DIR is for its files
one() {
	local dir=$1 name=$2 conf=$3 cold=$4 prog=$5 row=$6 status why

	rm -f "$dir/stats"
	# Another process reads by its own system call, which nobody dispatches to this one.
	if [ "${FAULT:-}" = signal ] && [ -n "$conf" ] && [ "$row" = vm-readv-other ]; then
		skipped "$name" "engine.fault=signal can't have it"
		return
	fi
	if [ -n "$conf" ]; then
		TIERSTAT_OUT=$dir/stats LIMIT=120 managed "$conf" "$PROG/$prog" "$row" 128M \
			</dev/null >"$dir/out" 2>"$dir/err"
	else
		LIMIT=120 plain "$PROG/$prog" "$row" 128M </dev/null >"$dir/out" 2>"$dir/err"
	fi
	status=$?
	if [ $status -eq 77 ]; then
		skipped "$name" "$(gist "$dir/out")"
		return
	fi
	why=$(went_wrong $status "$dir/err")
	if [ -z "$why" ] && [ -n "$conf" ] && [ "$cold" = cold ]; then
		why=$(not_tiered "$dir/stats" 16M)
		# Chaos and file stores are slower than a populating kernel is.
		[[ $row != populate && $row != messages ]] || why=${why:-$(over_budget "$dir/stats" 32M)}
	fi
	result "$name" "$why"
}

# all SUFFIX CONF: every row in one way
all() {
	local prog row cold

	mkdir "$T/$1"
	for prog in ${PROGRAMS:-syscalls processes mappings heap threads found window allocator weights guarded}; do
		while read -r row cold; do
			[ -z "${ROWS:-}" ] || [[ " $ROWS " == *" $row "* ]] || continue
			one "$T/$1" "$prog $row $1" "$2" "$cold" "$prog" "$row"
		done < <("$PROG/$prog" list)
	done
	return $failed
}

# Two at a time: most rows have one thread.
(
	trap - EXIT
	all plain ""
	all tiered "local.limit=32M;store.uri=mem:"
) &
other=$!
# The default file store: its descriptors and its threads are in play.
all chaos "local.limit=32M;engine.min_region=4K;engine.chaos=2000"
# The smallest budget, of which each thread needs as much at once as there is.
if [ -z "${ROWS:-}" ] || [[ " $ROWS " == *" crowd "* ]]; then
	mkdir "$T/tiny"
	tiny='local.limit=8M;engine.min_region=4K;store.uri=mem:'
	one "$T/tiny" "threads crowd with 8M" "$tiny" cold threads crowd
	one "$T/tiny" "threads crowd with 8M, without MOVE" "$tiny;engine.move=off" cold threads crowd
fi
if [ -z "${ROWS:-}" ] || [[ " $ROWS " == *" fork-near "* ]]; then
	mkdir -p "$T/tiny"
	one "$T/tiny" "window fork-near without MOVE" "local.limit=16M;engine.min_region=4K;store.uri=mem:;engine.move=off" \
		cold window fork-near
fi
# With several fault threads, as where there are cores for them (src/lead.h).
if [ -z "${ROWS:-}" ] || [[ " $ROWS " == *" several "* ]]; then
	mkdir "$T/several"
	while read -r prog row; do
		EMFATIER_FAULT_THREADS=3 one "$T/several" "$prog $row with three fault threads" \
			"local.limit=32M;engine.min_region=4K;engine.chaos=2000" cold "$prog" "$row"
	done <<-END
		processes fork
		processes fork-threads
		processes fork-again
		window fork-move
		window fork-discard
		window fork-reuse
		threads same-page
		threads lost-writes
	END
fi
wait $other || failed=1
finish
