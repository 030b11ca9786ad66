#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Random access to four times the budget over every provider: no wrong byte, the
# budget is kept, and memory did go far and come back.
# shellcheck source-path=SCRIPTDIR source=lib.bash
. "$(dirname "$0")/lib.bash"

# one NAME CONF METHOD [SIZE BUDGET [ROUNDS [TOGETHER]]]: SIZE bytes, BUDGET of them local
one() {
	local name=$1 conf=$2 method=$3 size=${4:-80M} budget=${5:-20M} rounds=${6:-1} together=${7:-16}
	local seed=${SEED:-$RANDOM} why

	rm -f "$T/stats"
	TIERSTAT_OUT=$T/stats managed "local.limit=$budget;$conf" \
		"$PROG/integrity" "$size" 4 "$rounds" "$seed" "$method" "$together" >"$T/out" 2>"$T/err"
	why=$(went_wrong $? "$T/err" "seed $seed")
	# All was read at least twice, of which no more than the budget could stay.
	why=${why:-$(not_tiered "$T/stats" "$size")}
	why=${why:-$(not_faulted "$T/stats")}
	why=${why:-$(over_budget "$T/stats" "$budget")}
	result "$name" "$why"
}

# one over each way to run the engine
each_way() {
	one "$1" "$2" "$3"
	one "$1 chaos" "$2;engine.chaos=2000;engine.min_region=4K" "$3"
	one "$1 without MOVE" "$2;engine.move=off" "$3"
}

plain "$PROG/integrity" 32M 4 1 1 heap >"$T/out" 2>"$T/err"
result "plain" "$(went_wrong $? "$T/err")"

for method in malloc mmap memalign calloc heap; do
	one "mem $method" "store.uri=mem:" $method
done
one "mem heap chaos" "store.uri=mem:;engine.chaos=2000;engine.min_region=4K" heap 80M 20M 3
one "mem page by page" "store.uri=mem:" mmap 32M 8M 1 1
# It fits: what went far did so by chaos alone.
one "mem chaos that fits" "store.uri=mem:;engine.chaos=2000;engine.min_region=4K" heap 32M 48M 3 1
one "mem 256M" "store.uri=mem:" mmap 256M 64M
each_way "mem" "store.uri=mem:" mmap
# No store named: the default file.
each_way "file" "engine.chaos=0" malloc
each_way "stripe mem+file" "store.uri=mem:,file:$T" calloc

if have nbdkit; then
	nbd_start one 512M
	each_way "nbd" "store.uri=$nbd_uri" mmap
	one "nbd heap" "store.uri=$nbd_uri" heap
	nbd_start two 256M
	two=$nbd_uri
	nbd_start three 256M
	each_way "stripe nbd+nbd" "store.uri=$two,$nbd_uri;store.stripe=256K" memalign
else
	skipped "nbd" "no nbdkit"
fi
tiers='store.uri=mem:?size=16M | mem:?size=24M&latency=3us&bandwidth=8G | mem:?latency=10us&bandwidth=4G'
each_way "tiers" "$tiers" mmap
one "tiers encrypted" "$tiers;store.encrypt=on" heap
# What may not be written any more leaves without being written again, however often it comes.
rm -f "$T/stats"
"$PROG/observe" -t 30 -o "$T/stats" env LD_PRELOAD="$LIB" EMFATIER_CONF="local.limit=16M;store.uri=mem:" \
	"$PROG/walk" sealed $((64 << 20)) 3 >"$T/out" 2>"$T/err"
why=$(went_wrong $? "$T/err")
[ "$(json "$T/stats" fetched_bytes)" -ge $((256 << 20)) ] || why=${why:-"only $(json "$T/stats" fetched_bytes) bytes came back"}
[ "$(json "$T/stats" written_bytes)" -le $((128 << 20)) ] || why=${why:-"$(json "$T/stats" written_bytes) bytes were written for 64 MiB"}
result "read-only" "$why"
# What is done otherwise where there are cores for several fault threads (src/lead.h).
export EMFATIER_FAULT_THREADS=3
each_way "mem, three fault threads" "store.uri=mem:" mmap
one "file, three fault threads" "engine.chaos=500" malloc
have nbdkit && one "nbd, three fault threads" "store.uri=$two" memalign
managed "local.limit=16M;store.uri=mem:;class.all.match=size>=4K;class.all.granule=2M" \
	"$PROG/walk" apart $((64 << 20)) 2 >"$T/out" 2>"$T/err"
why=$(went_wrong $? "$T/err")
if [ -n "$why" ]; then
	result "they take turns" "$why"
elif ! grep -q '^emf-fault [0-9]' "$T/out"; then
	skipped "they take turns" "the kernel does not count what threads read"
elif [ -n "${FAULT:-}" ]; then
	skipped "they take turns" "faults are resolved by signal"
else
	[ "$(sed -n 's/^emf-fault2 //p' "$T/out")" -gt 0 ] || why=${why:-"$(gist "$T/out" 9)"}
	result "they take turns" "$why"
	# And what each has read since: of the first, which is two threads (src/follow.h), and others.
	read -r first others < <(awk '$1 == "alone" { n = 1; name = $2 } $1 != "alone" { n = -1; name = $1 }
		NF > 1 { if (name == "emf-fault") first += n * $NF; else others += n * $NF }
		END { print first, others }' "$T/out")
	why=
	[ "$first" -gt "$others" ] || why="it read $first bytes, the others $others"
	result "one thread alone is served by the first" "$why"
fi
unset EMFATIER_FAULT_THREADS
# Every transfer takes its time: what overlaps in time, overlaps here.
one "mem slow" "store.uri=mem:?latency=300us&bandwidth=1G;engine.chaos=500" mmap 64M 16M
finish
