#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Random memory calls against a model of what every page must hold (tests/prog/model.c):
# without us, and with an eighth of the memory local in several ways.
#   SEED=N              repeats a run; the seed of each is in its result
#   MODEL_SECONDS=100   so long each; here 4, which is half a minute in all
#   MODES="chaos"       only those
#   MODEL_RAW=PERCENT   so many calls past libc
# shellcheck source-path=SCRIPTDIR source=lib.bash
. "$(dirname "$0")/lib.bash"

seconds=${MODEL_SECONDS:-4}

# one NAME CONF THREADS [OPTION...]: CONF empty runs it plain
one() {
	local name=$1 conf=$2 threads=$3 seed=${SEED:-$((RANDOM << 15 | RANDOM))} why dir=$T/$1
	shift 3
	# Enough for anything to become cold, on a slow machine, too.
	local args=("$seed" "$seconds" 64M "$threads" --steps 200 "$@")

	[ -z "${MODES:-}" ] || [[ " $MODES " == *" $name "* ]] || return
	# Where pages are copied, nothing can hold such a call up meanwhile: see the README.
	[ "${MODEL_RAW:-0}" -eq 0 ] || [[ " $* " == *" --copy "* ]] || args+=(--raw "$MODEL_RAW")
	mkdir "$dir"
	if [ -n "$conf" ]; then
		TIERSTAT_OUT=$dir/stats LIMIT=$((seconds + 100)) managed "local.limit=8M;$conf" \
			"$PROG/model" "${args[@]}" </dev/null >"$dir/out" 2>"$dir/err"
	else
		LIMIT=$((seconds + 100)) plain "$PROG/model" "${args[@]}" </dev/null >"$dir/out" 2>"$dir/err"
	fi
	why=$(went_wrong $? "$dir/err" "seed $seed")
	[ -z "$conf" ] || why=${why:-$(not_tiered "$dir/stats" 1M)}
	if [ -n "$why" ]; then
		not_ok "$name" "$why"
		# The last operations of those who took part.
		head -n 300 "$dir/err" | cut -c 1-300 | sed 's/^/    /'
	else
		ok "$name (seed $seed, $(sed -n 's/ steps//p' "$dir/out") steps)"
	fi
}

# Two at a time: they mostly have one thread.
(
	trap - EXIT
	one plain "" 1
	one plain-threads "" 3
	one tiered "store.uri=mem:" 1
	one move-off "store.uri=mem:;engine.move=off" 2 --copy
	exit $failed
) &
other=$!
one tiered-threads "engine.chaos=0" 3
one chaos "store.uri=mem:;engine.min_region=4K;engine.chaos=2000" 1
EMFATIER_FAULT_THREADS=3 one fault-threads "engine.min_region=4K;engine.chaos=2000" 3
one chaos-pages "store.uri=mem:;engine.min_region=4K;engine.chaos=2000;class.all.match=size>=4K;class.all.granule=4K" 2
one chaos-file "engine.min_region=4K;engine.chaos=500" 2
one chaos-move-off "engine.min_region=64K;engine.chaos=500;engine.move=off" 1 --copy
wait $other || failed=1
finish
