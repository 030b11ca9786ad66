#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# sweep.sh BUILD [SIZE_MIB [REPETITIONS]]: sequential reads of SIZE_MIB MiB (1024),
# all of it local, 50% and 25%, under emfatier with a `mem:` store and under the
# kernel's swap on zram with the same limit. All arms in one run, turn about;
# medians and the spread of all passes but each run's first, which finds what the
# fill left. Ratios are to the program alone.
set -u

here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source-path=SCRIPTDIR source=libswap.bash
. "$here/libswap.bash"
BUILD=$(cd "${1:?usage: sweep.sh BUILD [SIZE_MIB [REPETITIONS]]}" && pwd)
size=${2:-1024} reps=${3:-3} passes=5
export TIERSTAT=$BUILD/tierstat
T=$(mktemp -d)
export EMFATIER_RUN_DIR=$T/run
trap 'swap_stop; rm -rf "$T"' EXIT
trap 'exit 130' INT TERM

# arm NAME CMD...: one run; appends its passes to $T/NAME
arm() {
	local name=$1
	shift
	printf '  %-22s' "$name"
	rm -f "$T/stats"
	if ! "$@" "$BUILD/bench/sweep" "${size}M" $passes >"$T/out" 2>"$T/err"; then
		echo "failed: $(head -n 2 "$T/err" | tr '\n' ' ')"
		echo "$name" >>"$T/failed"
		return 1
	fi
	awk '$1 == "pass" && $2 > 1 { print $3 }' "$T/out" >>"$T/$name"
	awk '{ print $NF }' "$T/out" >>"$T/sums"
	[ ! -s "$T/stats" ] || grep -o '"peak_local_bytes": *[0-9]*' "$T/stats" |
		grep -o '[0-9]*$' >>"$T/$name.peak"
	awk '$1 == "pass" { printf " %s", $3 } END { print " GB/s" }' "$T/out"
}

# tiered NAME LIMIT_MIB
tiered() {
	arm "$1" env LD_PRELOAD="$BUILD/libemfatier.so" TIERSTAT_OUT="$T/stats" \
		EMFATIER_CONF="local.limit=${2}M;store.uri=mem:"
}

# swapped NAME LIMIT_MIB
swapped() {
	if swap_start $(($2 << 20)) $((size * 2 << 20)); then
		arm "$1" swap_run
		swap_stop
	else
		echo "  $1: left out, $swap_why"
	fi
}

for rep in $(seq 1 "$reps"); do
	echo "sweep, ${size} MiB, repetition $rep of $reps:"
	arm "alone" env
	tiered "emfatier-fits" $((size + size / 4))
	tiered "emfatier-50" $((size / 2))
	tiered "emfatier-25" $((size / 4))
	swapped "zram-50" $((size / 2))
	swapped "zram-25" $((size / 4))
done

median() {
	sort -g "$1" | awk '{ v[NR] = $1 } END { print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'
}

base=$(median "$T/alone")
echo
printf '%-16s %10s %17s %8s %8s %12s\n' "" "GB/s" "min-max" "x alone" "x zram" "peak/budget"
for name in alone emfatier-fits emfatier-50 emfatier-25 zram-50 zram-25; do
	[ -s "$T/$name" ] || continue
	m=$(median "$T/$name")
	zram=- peak=-
	case $name in
	emfatier-50 | emfatier-25)
		percent=${name#*-}
		[ ! -s "$T/zram-$percent" ] ||
			zram=$(awk -v a="$m" -v b="$(median "$T/zram-$percent")" 'BEGIN { printf "%.1f", a / b }')
		[ ! -s "$T/$name.peak" ] ||
			peak=$(sort -g "$T/$name.peak" | tail -n 1 |
				awk -v b=$((size * percent / 100)) '{ printf "%.3f", $1 / b / 1048576 }')
		;;
	esac
	sort -g "$T/$name" | awk -v name="$name" -v m="$m" -v base="$base" -v zram="$zram" -v peak="$peak" '
		NR == 1 { lo = $1 }
		{ hi = $1 }
		END { printf "%-16s %10.2f %8.2f-%-8.2f %8.2f %8s %12s\n", name, m, lo, hi, m / base, zram, peak }'
done
echo "sums: $(sort -u "$T/sums" | wc -l) different (1 is right)"
[ ! -s "$T/failed" ] && [ "$(sort -u "$T/sums" | wc -l)" -eq 1 ]
