#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# tiers.sh BUILD [OUT]: blocks on three simulated tiers (bench/tiers.c) under four loads; in OUT
# (BUILD/tiers) the numbers and, where gnuplot is, tiers.svg: hits of each tier beside an oracle's
# placement, and how often blocks were moved. On standard output, of the last tenth of each load, how
# far the hits of a tier are from the oracle's at most, and the moves until then.
set -eu
BUILD=$(cd "${1:?usage: tiers.sh BUILD [OUT]}" && pwd)
out=${2:-$BUILD/tiers}
mkdir -p "$out"
EMFATIER_RUN_DIR=$(mktemp -d)
export EMFATIER_RUN_DIR EMF_PROVIDERS=$BUILD/providers
trap 'rm -rf "$EMFATIER_RUN_DIR"' EXIT
loads="zipf shift uniform sweep"
printf '%-8s %-24s %-20s %s\n' LOAD 'POINTS FROM THE ORACLE' 'MOVES OF EACH BLOCK' 'MOST OF ONE'
for load in $loads; do
	"$BUILD/bench/tiers" "$load" >"$out/$load.tiers"
	tail -n 20 "$out/$load.tiers" | awk -v name="$load" '
		{ for (t = 0; t < 3; t++) { got[t] += $(2 + 2 * t); best[t] += $(3 + 2 * t) }; moves = $8; most = $9 }
		END {
			for (t = 0; t < 3; t++) { d = (got[t] - best[t]) / NR; d = d < 0 ? -d : d; far = d > far ? d : far }
			printf "%-8s %-24.1f %-20.2f %d\n", name, far, moves, most
		}'
done
command -v gnuplot >/dev/null || { echo "no plot: no gnuplot here (apt-get install gnuplot-nox)"; exit 0; }
gnuplot <<-END
	set terminal svg size 1360,620 font 'sans,12' background 'white'
	set output '$out/tiers.svg'
	set multiplot layout 2,4 columnsfirst title 'Three tiers: room for 10%, 25% and the rest of the blocks'
	set border 3; set tics nomirror; set grid ytics lc rgb '#dddddd'
	set xtics 50; set key opaque samplen 1 font ',11'; colours = '#2b6cb0 #c05621 #2f855a'
	do for [load in '$loads'] {
		name = '$out/'.load.'.tiers'
		set title load.(load eq 'shift' ? ': others are hot from 100 on' : '')
		set xlabel ''; set ylabel 'share of the reads, %'; set yrange [0:100]; set key top right Left reverse maxrows 2 width -1
		plot for [t = 1:3] name u 1:(column(2 * t)) w l lc rgb word(colours, t) lw 1.5 t 'tier '.t, \\
			for [t = 1:3] '' u 1:(column(2 * t + 1)) w l lc 'black' dt 2 t (t == 1 ? 'oracle' : '')
		unset title
		set xlabel 'reads, thousands'; set ylabel 'moves until then'; set yrange [0:7]; set key top left Left reverse maxrows 2 width 0
		plot name u 1:9 w steps lc rgb '#888888' lw 1.5 t 'most of one block', \\
			'' u 1:8 w l lc 'black' lw 2 t 'mean of all'
	}
END
echo "$out/tiers.svg"
