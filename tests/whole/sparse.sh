#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Memory that is hit at random comes by the page or the cluster (src/sparse.h): no wrong byte, whatever
# else is done to it, and far fewer bytes than by the block.
# shellcheck source-path=SCRIPTDIR source=lib.bash
. "$(dirname "$0")/lib.bash"

reads=6000
page="class.all.match=size>=4M;class.all.granule=4K"
cluster="class.all.match=size>=4M;class.all.granule=64K"

# one NAME CONF WORK [SIZE]
one() {
	local seed=${SEED:-$RANDOM} why

	rm -f "$T/stats"
	TIERSTAT_OUT=$T/stats managed "local.limit=32M;$2" "$PROG/sparse" "$3" "${4:-128M}" $reads "$seed" \
		>"$T/out" 2>"$T/err"
	why=$(went_wrong $? "$T/err" "seed $seed")
	why=${why:-$(not_tiered "$T/stats" 1M)}
	why=${why:-$(not_faulted "$T/stats")}
	why=${why:-$(over_budget "$T/stats" 32M)}
	result "$1" "$why"
	[ -z "$why" ]
}

# fetched NAME CONF [WORK]: bytes that reads at random fetched, per read
fetched() {
	one "$1" "store.uri=mem:;$2" "${3:-read}" || return
	echo $(($(json "$T/stats" fetched_bytes) / reads)) >"$T/each"
}

# fewer NAME TIMES: bytes than by the block, by so many times
fewer() {
	local each
	each=$(<"$T/each")
	if [ "$block" -ge $(($2 * each)) ]; then
		ok "$1"
	else
		not_ok "$1" "$each a read, by the block $block"
	fi
}

plain "$PROG/sparse" write 16M 1000 1 >"$T/out" 2>"$T/err"
result "plain" "$(went_wrong $? "$T/err")"
if fetched "by the block" "class.all.match=size>=4M;class.all.granule=2M"; then
	block=$(<"$T/each")
	fetched "by the cluster" "$cluster" && fewer "bytes by the cluster" 8
	fetched "by the page" "$page" && fewer "bytes by the page" 64
	fetched "written by the page" "$page" write && fewer "bytes written by the page" 4
	fetched "as it is seen" "" && fewer "bytes as it is seen" 3
	fetched "some lie together" "" runs && fewer "bytes where some lie together" 2
fi
if one "pieces" "store.uri=mem:" shared 64M; then
	faults=$(json "$T/stats" faults_demand)
	# 64 tours of 32 blocks, of which half are local
	why=
	[ "$faults" -le 3072 ] || why="$faults faults"
	result "pieces come by the block" "$why"
fi
for work in write punch move protect fork sweep beside; do
	one "$work" "store.uri=mem:;$page" $work
	one "$work chaos" "store.uri=mem:;$page;engine.chaos=3000" $work
	one "$work chaos cluster" "store.uri=mem:;$cluster;engine.chaos=3000" $work
done
# Faults of one thread are served on its core (src/follow.h), which others may use as well.
policy=$(sed 's/.*) //' /proc/$$/stat | cut -d ' ' -f 39) # proc(5)
if [ "$(nproc)" -lt 2 ] || [ -n "${FAULT:-}" ] || [ "$policy" != 0 ]; then
	skipped "served nearby" "one core only, faults are resolved by signal, or this is not SCHED_OTHER"
elif one "alone" "store.uri=mem:;$page" alone; then
	near=$(sed -n 's/^near //p' "$T/out")
	why=
	[ "${near:-0}" -ge 10 ] || why="the thread for that was given a core ${near:-0} times"
	result "served nearby" "$why"
	before=$(sed -n 's/^before //p' "$T/out")
	if [ "$(nice -n -10 nice 2>/dev/null)" != $(($(nice) - 10)) ]; then
		skipped "emf-fault and emf-mover go first" "no lower nice value is allowed here"
	else
		# As many as src/lead.c makes.
		servers=${EMFATIER_FAULT_THREADS:-$(($(nproc) / 2))}
		servers=$((servers < 1 ? 1 : servers > 4 ? 4 : servers))
		why=
		[ "${before:-0}" -eq $((1 + servers)) ] || why="${before:-0} threads do"
		result "emf-fault and emf-mover go first" "$why"
	fi
fi
for ((i = 0; i < 2 * $(nproc); i++)); do
	while :; do :; done &
	started+=($!)
done
one "alone, all cores busy" "store.uri=mem:;$page" alone
kill "${started[@]}"
wait "${started[@]}" 2>/dev/null
started=()
one "file, as it is seen" "engine.chaos=0" punch
one "dax, as it is seen" "store.uri=dax:$T/dax?size=512M" write
one "dax chaos cluster" "store.uri=dax:$T/dax?size=512M;$cluster;engine.chaos=3000" write
one "encrypted" "store.uri=mem:;store.encrypt=on;$page" write
one "parity" "store.uri=mem:,mem:,mem:;store.redundancy=parity:2+1;$page" write
one "tiers" "store.uri=mem:?size=32M | mem:?latency=3us;$page" write
finish
