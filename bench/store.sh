#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What the checksum, copies, parity and encryption cost, as ratios to the same stores without: of
# writing and reading by the store alone (bench/store.c), and of a whole program (integrity, over
# memory of four times the budget; all have the checksum there). ROUNDS (5) rounds, turn about; each
# ratio is of two times of the same round: their median, least and most. The stores are a simulated
# link each, or where nbdkit is, with LINK=nbd, memory servers. bench/store.sh BUILD
set -eu
BUILD=$(cd "${1:?usage: store.sh BUILD}" && pwd)
export EMF_PROVIDERS=$BUILD/providers
T=$(mktemp -d)
servers=()
trap 'kill "${servers[@]}" 2>/dev/null; rm -rf "$T"' EXIT

uris=()
for i in 1 2 3 4 5; do
	if [ "${LINK:-}" = nbd ]; then
		nbdkit -f -t 1 -U "$T/$i.sock" memory 1G &
		servers+=($!)
		uris+=("nbd+unix:///?socket=$T/$i.sock")
	else
		uris+=("mem:?size=1G&latency=20us&bandwidth=3G")
	fi
done
[ "${#servers[@]}" -eq 0 ] || sleep 1

# NAME STORES WAY BASE SETTING: ways of bench/store.c; what it is compared with
arms=(
	"one store, no checksum|1|bare||"
	"one store|1|plain|one store, no checksum|"
	"one store, encrypted|1|encrypt|one store|store.encrypt=on"
	"stripe of 2, no checksum|2|bare||"
	"stripe of 2|2|plain|stripe of 2, no checksum|"
	"mirror of 2|2|mirror|stripe of 2|store.redundancy=mirror"
	"stripe of 5, no checksum|5|bare||"
	"stripe of 5|5|plain|stripe of 5, no checksum|"
	"parity 4+1 of 5|5|parity|stripe of 5|store.redundancy=parity:4+1"
)

# ms of integrity, which writes and reads all of its memory at random, by the block
program() {
	local IFS=, begin
	begin=$(date +%s%N)
	LD_PRELOAD=$BUILD/libemfatier.so EMFATIER_CONF="local.limit=32M;store.uri=${uris[*]:0:$1};$2" \
		"$BUILD/tests/integrity" 128M 2 2 1 mmap 512 >/dev/null
	echo $((($(date +%s%N) - begin) / 1000000))
}

for ((round = 0; round < ${ROUNDS:-5}; round++)); do
	for ((i = 0; i < ${#arms[@]}; i++)); do
		arm=${arms[(i + round * 2) % ${#arms[@]}]}
		IFS='|' read -r name n way base setting <<<"$arm"
		numbers=$("$BUILD/bench/store" "${MIB:-512}" "$way" "${uris[@]:0:n}")
		if [ "$way" != bare ]; then numbers+=" $(program "$n" "$setting")"; fi
		echo "$round|$name|$base|${numbers// /|}" >>"$T/all"
	done
	echo "round $((round + 1)): load $(cut -d' ' -f1-3 /proc/loadavg)" >&2
done

# ratios NAME BASE COLUMN: "median (least-most)", nothing where there is nothing to compare
ratios() {
	awk -F'|' -v name="$1" -v base="$2" -v c="$3" '
		$2 == name && $c { is[$1] = $c }
		$2 == base && $c { was[$1] = $c }
		END { for (r in is) if (was[r]) print is[r] / was[r] }' "$T/all" | sort -n |
		awk '{ v[NR] = $1 } END { if (NR) printf "%.2fx (%.2f-%.2f)", v[int((NR + 1) / 2)], v[1], v[NR]; else printf "-" }'
}

# middle NAME COLUMN
middle() {
	awk -F'|' -v name="$1" -v c="$2" '$2 == name { print $c }' "$T/all" | sort -n |
		awk '{ v[NR] = $1 } END { printf "%.0f", v[int((NR + 1) / 2)] }'
}

printf '%-26s %-20s %-20s %-20s %s\n' '' write read program 'us of CPU for a MiB: write, read'
for arm in "${arms[@]}"; do
	IFS='|' read -r name n way base setting <<<"$arm"
	printf '%-26s %-20s %-20s %-20s %4s %4s\n' "$name" "$(ratios "$name" "$base" 4)" "$(ratios "$name" "$base" 5)" \
		"$(ratios "$name" "$base" 8)" "$(middle "$name" 6)" "$(middle "$name" 7)"
done
