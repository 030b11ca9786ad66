#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Operations by the state that the memory is in (tests/prog/matrix.c): one after the
# other, where each state must have been reached, and in threads that disturb each
# other. Here a third of the cells, some states of each operation and others with MOVE than
# without; ONLY=mremap-grow or ONLY=mremap-grow/far runs these cells. MATRIX=all
# (tests/long/matrix.sh): all of them, those that go past libc, in threads and under chaos, too.
# shellcheck source-path=SCRIPTDIR source=lib.bash
. "$(dirname "$0")/lib.bash"

# Which state FILE (what matrix says) shows to be reached too rarely; nothing when none is.
not_reached() {
	local word state reached tried

	while read -r word state reached tried; do
		[ "$word" = state ] || continue
		[ $((reached * 2)) -ge "$tried" ] ||
			echo "the state $state was reached in $reached of $tried cells"
	done <"$1"
}

# one NAME CONF THREADS [OPTION...]: CONF empty runs it plain. With one thread it goes on
# behind a cell that failed.
one() {
	local name=$1 conf=$2 threads=$3 why cell after='' dir=$T/$1 status args rounds=0
	shift 3

	mkdir "$dir"
	while :; do
		args=(6M 24M "$threads" "$@" ${after:+"after=$after"})
		[ -z "${ONLY:-}" ] || args+=("only=$ONLY")
		if [ -n "$conf" ]; then
			TIERSTAT_OUT=$dir/stats LIMIT=600 managed "local.limit=16M;$conf" \
				"$PROG/matrix" "${args[@]}" </dev/null >"$dir/out" 2>"$dir/err"
		else
			LIMIT=600 plain "$PROG/matrix" "${args[@]}" </dev/null >"$dir/out" 2>"$dir/err"
		fi
		status=$?
		why=$(went_wrong $status "$dir/err")
		if [ -z "$why" ] && [ -n "$conf" ] && [ -z "${ONLY:-}$after" ]; then
			why=$(not_tiered "$dir/stats" 100M)
			[ "$threads" -gt 1 ] || why=${why:-$(not_reached "$dir/out")}
		fi
		[ -n "$why" ] || break
		not_ok "$name" "$why"
		cell=$(grep -oE '^[a-z-]+/[a-z]+' "$dir/err" | tail -n 1)
		[ "$threads" -eq 1 ] && [ $status -eq 1 ] && [ -n "$cell" ] && [ "$cell" != "$after" ] || return
		[ $((++rounds)) -lt 20 ] || return
		after=$cell
	done
	[ -n "$after" ] ||
		ok "$name ($(tail -n 1 "$dir/out"); $(sed -n 's/^state //p' "$dir/out" | tr '\n' ' '))"
}

# raw: a call past libc can't be held up while what it changes is being copied.
if [ "${MATRIX:-}" = all ]; then
	(
		trap - EXIT
		one copied "store.uri=mem:;engine.move=off" 1 copy
		one copied-threads "engine.move=off" 3 copy
		exit $failed
	) &
	other=$!
	one plain "" 3 raw
	one plain-serial "" 1 raw
	one moved "store.uri=mem:" 1 raw
	one moved-threads "engine.chaos=0" 3 raw
	one chaos "engine.chaos=1000;engine.min_region=4K" 2 raw
elif [ -n "${ONLY:-}" ]; then
	(
		trap - EXIT
		one copied "store.uri=mem:;engine.move=off" 1 copy
		exit $failed
	) &
	other=$!
	one plain "" 1
	one moved "store.uri=mem:" 1
else
	(
		trap - EXIT
		one copied "store.uri=mem:;engine.move=off" 1 copy share=1/3
		exit $failed
	) &
	other=$!
	one moved "store.uri=mem:" 1 share=0/3
	one moved-threads "engine.chaos=0" 2 share=2/12
fi
wait $other || failed=1
finish
