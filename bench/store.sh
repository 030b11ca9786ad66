#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What copies, parity and encryption cost: the time of integrity over memory of
# four times the budget, as ratios to the same stores without (all have the checksum).
# The stores are a simulated link each; the same work in the same run. bench/store.sh BUILD
set -eu
BUILD=$(cd "${1:?usage: store.sh BUILD}" && pwd)
link='mem:?latency=20us&bandwidth=3G'

# seconds CONF: of integrity, which writes and reads all of it at random, by the block
seconds() {
	local begin end
	begin=$(date +%s%N)
	LD_PRELOAD=$BUILD/libemfatier.so EMFATIER_CONF="local.limit=64M;$1" \
		"$BUILD/tests/integrity" 256M 2 2 1 mmap 512 >/dev/null
	end=$(date +%s%N)
	echo $(((end - begin) / 1000000))
}

one() {
	local ms best=0
	for _ in 1 2 3; do
		ms=$(seconds "$2")
		if [ $best -eq 0 ] || [ "$ms" -lt $best ]; then best=$ms; fi
	done
	[ -n "${base:-}" ] || base=$best
	awk -v n="$1" -v ms="$best" -v b="$base" 'BEGIN { printf "%-24s %6d ms  %.2fx\n", n, ms, ms / b }'
}

five=$link,$link,$link,$link,$link
base=''
one "one store" "store.uri=$link"
one "encrypted" "store.uri=$link;store.encrypt=on"
base=''
one "stripe of 2" "store.uri=$link,$link"
one "mirror of 2" "store.uri=$link,$link;store.redundancy=mirror"
base=''
one "stripe of 5" "store.uri=$five"
one "parity 4+1 of 5" "store.uri=$five;store.redundancy=parity:4+1"
one "parity 4+1, one fails" "store.uri=$five;store.redundancy=parity:4+1;store.inject=1:error=1"
