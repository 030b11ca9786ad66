#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# tiers-guest.sh URI SIZE BUDGET THREADS TOGETHER: in a guest of the lab (tiers.sh): the integrity
# test with its far memory in URI, which must have been used.
set -u
uri=$1 size=$2 budget=$3 threads=$4 together=$5
: "${BUILD:?}"
export EMFATIER_RUN_DIR=/run/emfatier-vm
mkdir -p "$EMFATIER_RUN_DIR"

"$BUILD/emfatier" topo
"$BUILD/emfatier" topo --json
"$BUILD/emfatier" run --local "$budget" --store "$uri" --summary -- \
	"$BUILD/tests/integrity" "$size" "$threads" 1 42 mmap "$together" 2>/run/summary
status=$?
cat /run/summary
[ $status -eq 0 ] || exit 1
# The summary's line of the store: bytes were read from it.
grep -Eq '\(ok\): [0-9.]+[KMG]* read' /run/summary && ! grep -Eq '\(ok\): 0 read' /run/summary
