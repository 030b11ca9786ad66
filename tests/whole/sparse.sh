#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Memory that is read at random comes by the cluster (src/sparse.h): no wrong byte, whatever else is done
# to it, and far fewer bytes than by the block.
# shellcheck source-path=SCRIPTDIR source=lib.bash
. "$(dirname "$0")/lib.bash"

reads=6000

# one NAME CONF WORK [SIZE]
one() {
	local seed=${SEED:-$RANDOM} why=''

	rm -f "$T/stats"
	TIERSTAT_OUT=$T/stats managed "local.limit=32M;$2" "$PROG/sparse" "$3" "${4:-128M}" $reads "$seed" \
		>"$T/out" 2>"$T/err"
	local status=$?
	if [ $status -eq 124 ]; then
		why="hung (seed $seed): $(gist "$T/err")"
	elif [ $status -ne 0 ]; then
		why="status $status (seed $seed): $(gist "$T/err")"
	elif [ -s "$T/err" ]; then
		why="says: $(gist "$T/err")"
	else
		why=$(not_faulted "$T/stats")
		why=${why:-$(over_budget "$T/stats" 32M)}
	fi
	if [ -n "$why" ]; then
		not_ok "$1" "$why"
		return 1
	fi
	ok "$1"
}

# fetched NAME CONF: bytes that reads at random fetched, per read
fetched() {
	one "$1" "store.uri=mem:;$2" read || return
	echo $(($(json "$T/stats" fetched_bytes) / reads)) >"$T/each"
}

if plain "$PROG/sparse" write 16M 1000 1 >"$T/out" 2>&1; then
	ok "plain"
else
	not_ok "plain" "$(gist "$T/out")"
fi
if fetched "by the block" "class.all.match=size>=4M;class.all.granule=2M"; then
	block=$(<"$T/each")
	if fetched "by the cluster" "class.all.match=size>=4M;class.all.granule=64K"; then
		each=$(<"$T/each")
		if [ "$each" -le $((96 << 10)) ] && [ "$block" -ge $((8 * each)) ]; then
			ok "bytes by the cluster"
		else
			not_ok "bytes by the cluster" "$each a read, by the block $block"
		fi
	fi
	if fetched "as it is seen" ""; then
		each=$(<"$T/each")
		if [ "$block" -ge $((3 * each)) ]; then
			ok "bytes as it is seen"
		else
			not_ok "bytes as it is seen" "$each a read, by the block $block"
		fi
	fi
fi
cluster="class.all.match=size>=4M;class.all.granule=64K"
for work in write punch move protect fork sweep; do
	one "$work" "store.uri=mem:;$cluster" $work
	one "$work chaos" "store.uri=mem:;$cluster;engine.chaos=3000" $work
done
one "file, as it is seen" "engine.chaos=0" punch
one "encrypted" "store.uri=mem:;store.encrypt=on;$cluster" write
one "parity" "store.uri=mem:,mem:,mem:;store.redundancy=parity:2+1;$cluster" write
one "tiers" "store.uri=mem:?size=32M | mem:?latency=3us;$cluster" write
finish
