#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# record.sh BUILD [NAME...]: makes the traces of this directory (redis dense moe context) anew. With
# a budget of a few blocks nearly every touch is a fault, so that the trace is the whole tour.
# redis: values of 8000 bytes, asked for by a popularity that falls with their rank, then a scan.
# The others: llama.cpp (make demo has installed it) reads a model of bench/demo and decodes.
#   dense: the demo's own model, 865 MiB, two threads; loading, a short prompt, 40 tokens.
#   moe: 16 experts of which 4 are used, in two blocks and more each, 866 MiB; 240 tokens.
#   context: a prompt of 3000 tokens, 128 at a time, that fills 216 MiB of keys and values beside
#   260 MiB of weights, then 24 tokens.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
BUILD=$(cd "${1:?usage: record.sh BUILD [NAME...]}" && pwd)
shift
T=$(mktemp -d)
export EMFATIER_RUN_DIR=$T/run
server=''
trap '[ -z "$server" ] || kill $server 2>/dev/null; rm -rf "$T"' EXIT

# preloaded BUDGET TRACE CONF COMMAND...
preloaded() {
	local conf="local.limit=$1;store.uri=mem:;engine.trace=$2;$3"
	shift 3
	EMFATIER_CONF=$conf LD_PRELOAD=$BUILD/libemfatier.so exec "$@"
}

redis() {
	local cli="redis-cli -s $T/redis.sock"
	preloaded 16M "$T/redis" engine.heap=all redis-server --port 0 --unixsocket "$T/redis.sock" \
		--save '' --appendonly no --daemonize no >"$T/log" 2>&1 &
	server=$!
	until $cli ping >/dev/null 2>&1; do sleep 0.1; done
	# 20000 values, 153 MiB; 30000 requests with ranks by Zipf (0.9) over shuffled keys.
	awk 'BEGIN { srand(1); v = sprintf("%8000s", ""); gsub(" ", "x", v)
		for (i = 0; i < 20000; i++) print "SET k" i " " v }' | $cli --pipe >/dev/null
	awk 'BEGIN { srand(2); n = 20000
		for (i = 0; i < n; i++) { s += (i + 1) ^ -0.9; c[i] = s }
		for (i = 0; i < n; i++) { k = int(rand() * (i + 1)); p[i] = p[k]; p[k] = i }
		for (q = 0; q < 30000; q++) {
			x = rand() * s; lo = 0; hi = n - 1
			while (lo < hi) { m = int((lo + hi) / 2); if (c[m] < x) lo = m + 1; else hi = m }
			print "STRLEN k" p[lo]; print "GETRANGE k" p[lo] " 0 100" }
		for (i = 0; i < n; i++) print "GETRANGE k" i " 0 1" }' | $cli >/dev/null
	sleep 1
	$cli shutdown nosave || true
	wait $server || true
	server=''
}

# llama MODEL-OPTIONS DECODE-OPTIONS
llama() {
	local demo=$here/../demo model
	[ -d "$demo/node_modules" ] || { echo "$name: run make demo first" >&2; return 1; }
	model=$(node "$demo/make-model.mjs" --cache "$T" $1)
	(preloaded 32M "$T/$name" "" node "$demo/decode.mjs" --model "$model" $2) >"$T/log" 2>&1 ||
		{ cat "$T/log" >&2; return 1; }
	rm "$model"
}

dense() {
	llama "" "--tokens 40 --prompt 8"
}

moe() {
	llama "--layers 4 --width 1024 --ffn 4096 --heads 16 --kv-heads 4 --vocab 8000 --experts 16 --used-experts 4" \
		"--tokens 240 --prompt 8 --threads 1"
}

context() {
	llama "--layers 12 --width 1536 --ffn 2048 --heads 24 --kv-heads 24 --vocab 8000" \
		"--tokens 24 --prompt 3000 --batch 128 --context 4096 --threads 1"
}

[ $# -gt 0 ] || set -- redis dense moe context
for name; do
	$name
	xz -9e -c "$T/$name" >"$here/$name.trace.xz"
	ls -l "$here/$name.trace.xz"
done
