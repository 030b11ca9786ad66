#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# tiers-llama.sh URI [IN-PLACE]: in a guest of the lab (tiers.sh): llama.cpp with some of its MODEL in URI
# (so much of it in place, every second block of weights for good) says the same tokens, with the same
# probability of each, as with all of it local.
set -u
uri=$1
more=() used='\(ok\): [1-9][0-9.]*[KMG]* read'
if [ $# -gt 1 ]; then
	more=(--set store.in_place="$2" --set class.all.match='size>=4M' --set class.all.place=interleave)
	used='in place .* on a slow node at the end; [1-9][0-9]* blocks copied there'
	echo 0 >/proc/sys/kernel/numa_balancing
fi
: "${BUILD:?}" "${MODEL:?}"
export EMFATIER_RUN_DIR=/run/emfatier-vm
mkdir -p "$EMFATIER_RUN_DIR"
demo=$(cd "$(dirname "$0")/../../bench/demo" && pwd)
cd "$demo" || exit 1
decode=(node decode.mjs --model "$MODEL" --tokens 4 --prompt 4 --context 64 --threads 1)

"${decode[@]}" >/run/plain.out 2>/run/plain.err
one=$(grep -oE '"digest":"[0-9a-f]+"' /run/plain.out)
"$BUILD/emfatier" run --local 8M "${more[@]}" --store "$uri" --summary -- "${decode[@]}" >/run/far.out 2>/run/far.err
echo "$one"
[ -n "$one" ] && grep -qF "$one" /run/far.out && grep -Eq "$used" /run/far.err && exit
tail -n 3 /run/plain.err /run/far.out /run/far.err
exit 1
