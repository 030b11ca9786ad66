#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# true.sh BUILD [RUNS]: what the library adds to the start of a program that does
# nothing: `true` with and without it, turn about, medians.
set -u

BUILD=$(cd "${1:?usage: true.sh BUILD [RUNS]}" && pwd)
runs=${2:-200}
T=$(mktemp -d)
export EMFATIER_RUN_DIR=$T/run
trap 'rm -rf "$T"' EXIT
trap 'exit 130' INT TERM
cmd=$(type -P true)

# One run of "$@"; its microseconds go to standard output.
clock() {
	local begin=${EPOCHREALTIME/./}
	"$@" || exit 1
	echo $((${EPOCHREALTIME/./} - begin))
}

median() {
	sort -g "$1" | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'
}

# env is in both, so that only the library differs.
for _ in $(seq 1 "$runs"); do
	clock env LD_LIBRARY_PATH= "$cmd" >>"$T/without"
	clock env LD_PRELOAD="$BUILD/libemfatier.so" "$cmd" >>"$T/with"
done
a=$(median "$T/without") b=$(median "$T/with")
echo "true: $a us without, $b us with the library, $((b - a)) us more (medians of $runs)"
