#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# faults.sh BUILD [WORK [ROUNDS]]: engine.fault=thread and signal beside each other, turn about: random
# reads of 4 KiB (or `write`, `touch`; work.c), half of 256 MiB local, the rest in this process's
# memory. For each: accesses a second (the median of a round's samples), and CPU time an access.
set -u
BUILD=$(cd "${1:?usage: faults.sh BUILD [WORK [ROUNDS]]}" && pwd)
work=${2:-read} rounds=${3:-3} seconds=3
export EMFATIER_RUN_DIR
EMFATIER_RUN_DIR=$(mktemp -d)
trap 'rm -rf "$EMFATIER_RUN_DIR"' EXIT

ticks() {
	sed 's/.*) //' "/proc/$1/stat" | awk '{ print $12 + $13 }'
}

for round in $(seq "$rounds"); do
	for fault in thread signal; do
		coproc RUN {
			LD_PRELOAD=$BUILD/libemfatier.so \
				EMFATIER_CONF="local.limit=128M;store.uri=mem:;engine.fault=$fault" \
				exec "$BUILD/bench/work" "$work" 256 $seconds
		}
		pid=$RUN_PID to=${RUN[1]} from=${RUN[0]}
		read -r ready <&"$from" && [ "$ready" = ready ] || exit 1
		before=$(ticks "$pid")
		echo go >&"$to"
		read -r line <&"$from" || exit 1
		after=$(ticks "$pid")
		echo "$line" | sed 's/.*"values": \[//; s/\].*//' | tr ',' '\n' | sort -g |
			awk -v r="$round" -v f="$fault" -v t=$((after - before)) -v s=$seconds -v hz="$(getconf CLK_TCK)" '
			NF { v[++n] = $1; sum += $1 }
			END { printf "round %d %-6s %8.0f a second, %5.2f us of CPU each\n", r, f, v[int((n + 1) / 2)],
				t / hz * 1e6 / (sum / n * s) }'
		exec {to}>&-
		wait "$pid"
	done
done
