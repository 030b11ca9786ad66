#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# tiers-guest.sh URI SIZE BUDGET THREADS TOGETHER [IN-PLACE]: in a guest of the lab (tiers.sh): the integrity
# test with its far memory in URI (so much of it in place), which must have been used.
set -u
uri=$1 size=$2 budget=$3 threads=$4 together=$5
: "${BUILD:?}"
export EMFATIER_RUN_DIR=/run/emfatier-vm
mkdir -p "$EMFATIER_RUN_DIR"

more=() used='\(ok\): [1-9][0-9.]*[KMG]* read'
if [ $# -gt 5 ]; then
	more=(--set store.in_place="$6")
	used='on a slow node at the end; [1-9][0-9]* blocks copied there'
	echo 0 >/proc/sys/kernel/numa_balancing
fi
"$BUILD/emfatier" topo
"$BUILD/emfatier" topo --json
"$BUILD/emfatier" run --local "$budget" "${more[@]}" --store "$uri" --summary -- \
	"$BUILD/tests/integrity" "$size" "$threads" 1 42 mmap "$together" 2>/run/summary
status=$?
cat /run/summary
[ $status -eq 0 ] || exit 1
# The summary's line of the store, or of what is in place.
grep -Eq "$used" /run/summary
