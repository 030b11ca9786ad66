#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# tiers-place.sh [ROW...]: in a guest of the lab with a slow node (tiers.sh): what leaves local memory is used
# in place there, so nothing is written to or read from a store; with too little room for that, some is. Then
# the rows of tests/prog/place.c, with room for all and for some.
set -u
: "${BUILD:?}"
export EMFATIER_RUN_DIR=/run/emfatier-vm
mkdir -p "$EMFATIER_RUN_DIR"
bad=0
SET=()

run() { # IN-PLACE COMMAND...: its standard error is in /run/err
	local in_place=$1
	shift
	"$BUILD/emfatier" run --local "${LOCAL:-12}M" "${SET[@]}" --store "${STORE:-numa:1}" --set store.in_place="$in_place" --summary -- \
		"$@" 2>/run/err
}

place() { # IN-PLACE SUMMARY
	run "$1" "$BUILD/tests/integrity" 32M 2 1 42 mmap 64
	status=$?
	cat /run/err
	[ $status -eq 0 ] && grep -Eq "$2" /run/err
}

row() { # IN-PLACE ROW
	if BUDGET=$((${LOCAL:-12} << 20)) NODE=1 run "$1" "$BUILD/tests/place" "$2" 36M; then
		echo "ok place $2, room for $1${STORE:+, $STORE}"
	else
		cat /run/err
		echo "not ok place $2, room for $1${STORE:+, $STORE}"
		bad=1
	fi
}

"$BUILD/emfatier" topo
if [ $# -eq 0 ]; then
	echo 1 >/proc/sys/kernel/numa_balancing
	place 64M 'store.in_place needs kernel.numa_balancing = 0' || exit 1
fi
echo 0 >/proc/sys/kernel/numa_balancing
if [ $# -eq 0 ]; then
	place 64M '\(ok\): 0 read, 0 written' || exit 1
	place 8M '\(ok\): [1-9].* read' || exit 1
	set -- weighted $("$BUILD/tests/place" list | cut -d' ' -f1)
fi
for r in "$@"; do
	case $r in
	weighted) # measured by all CPUs at once
		SET=(--set class.all.match='size>=4M' --set class.all.place=weighted)
		EMFATIER_LOG=info place 64M ' node 1 at [1-9].*% of what is swept belong' || bad=1
		;;
	interleave)
		SET=(--set class.all.match='size>=4M' --set class.all.place=interleave)
		LOCAL=32 row 128M "$r"
		;;
	*)
		row 128M "$r"
		;;
	esac
	SET=()
done
# With too little room; it must not come and go without end.
if [[ " $* " == *" read-only "* ]]; then
	if run 16M timeout 60 "$BUILD/tests/mappings" mprotect-read 36M; then
		echo "ok read-only memory rests"
	else
		cat /run/err
		echo "not ok read-only memory"
		bad=1
	fi
fi
# With tiers a child begins anew.
for r in fork fork-often; do
	[[ " $* " != *" $r "* ]] || ANEW=1 STORE='numa:1|mem:' row 128M "$r"
done
exit $bad
