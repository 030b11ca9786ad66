#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# policysim.sh BUILD [OUT [TRACE|NAME...]]: the policies beside the optimum on the traces of
# bench/traces and on those that are made up; in OUT (BUILD/policysim) the numbers and, where
# gnuplot is, for each an .svg: hit rates by share, and token by token at half of it local.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
BUILD=$(cd "${1:?usage: policysim.sh BUILD [OUT [TRACE|NAME...]]}" && pwd)
out=${2:-$BUILD/policysim}
shift $(($# < 2 ? $# : 2))
mkdir -p "$out"
[ $# -gt 0 ] || set -- dense moe moe-turn kv redis recent uniform second-model random-phase prefill \
	"$here"/traces/*.trace.xz
"$BUILD/bench/policysim" -o "$out/" "$@"
command -v gnuplot >/dev/null || { echo "no plots: no gnuplot here (apt-get install gnuplot-nox)"; exit 0; }
for hits in "$out"/*.hits; do
	name=${hits%.hits}
	two=''
	[ ! -s "$name.time" ] || two="set title 'at 50% local, from mark to mark (token, tour; else as many touches as blocks)'; set xlabel 'mark'
		plot '$name.time' u 1:2 w l lc 'grey' lw 3 t 'optimum', '' u 1:3 w l lc 'black' t 'auto'"
	gnuplot <<-END
		set terminal svg size 1000,400 background 'white'
		set output '$name.svg'
		set multiplot layout 1,2 title '${name##*/}' noenhanced
		set yrange [0:102]; set ylabel 'hits, %'; set key bottom right
		set title 'by the share that is local'; set xlabel 'local, %'
		plot '$hits' u 1:2 w lp lc 'grey' lw 3 t 'optimum', '' u 1:4 w lp lc 'black' t 'auto', \
			'' u 1:5 w lp t 'loop', '' u 1:6 w lp t 'lfu', '' u 1:7 w lp t 'lru', '' u 1:3 w lp dt 2 t 'exact lru'
		$two
	END
	echo "$name.svg"
done
