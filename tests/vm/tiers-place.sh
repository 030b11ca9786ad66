#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# tiers-place.sh: in a guest of the lab with a slow node (tiers.sh): what leaves local memory is used in
# place there, so nothing is written to or read from a store; with too little room for that, some is.
set -u
: "${BUILD:?}"
export EMFATIER_RUN_DIR=/run/emfatier-vm
mkdir -p "$EMFATIER_RUN_DIR"

place() { # IN-PLACE SUMMARY
	"$BUILD/emfatier" run --local 12M --store numa:1 --set store.in_place="$1" --summary -- \
		"$BUILD/tests/integrity" 32M 2 1 42 mmap 64 2>/run/summary
	status=$?
	cat /run/summary
	[ $status -eq 0 ] && grep -Eq "$2" /run/summary
}

"$BUILD/emfatier" topo
echo 1 >/proc/sys/kernel/numa_balancing
place 64M 'store.in_place needs kernel.numa_balancing = 0' || exit 1
echo 0 >/proc/sys/kernel/numa_balancing
place 64M '\(ok\): 0 read, 0 written' || exit 1
place 8M '\(ok\): [1-9].* read' || exit 1
