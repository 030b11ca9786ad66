#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# tiers-llama.sh URI: in a guest of the lab (tiers.sh): llama.cpp with some of its MODEL in URI says
# the same tokens, with the same probability of each, as with all of it local.
set -u
uri=$1
: "${BUILD:?}" "${MODEL:?}"
export EMFATIER_RUN_DIR=/run/emfatier-vm
mkdir -p "$EMFATIER_RUN_DIR"
demo=$(cd "$(dirname "$0")/../../bench/demo" && pwd)
cd "$demo" || exit 1
decode=(node decode.mjs --model "$MODEL" --tokens 4 --prompt 4 --context 64 --threads 1)

"${decode[@]}" >/run/plain.out 2>/run/plain.err
one=$(grep -oE '"digest":"[0-9a-f]+"' /run/plain.out)
"$BUILD/emfatier" run --local 8M --store "$uri" --summary -- "${decode[@]}" >/run/far.out 2>/run/far.err
echo "$one"
[ -n "$one" ] && grep -qF "$one" /run/far.out &&
	grep -Eq '\(ok\): [0-9.]+[KMG]* read' /run/far.err && ! grep -Eq '\(ok\): 0 read' /run/far.err && exit
tail -n 3 /run/plain.err /run/far.out /run/far.err
exit 1
