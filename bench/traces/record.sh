#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# record.sh BUILD [redis] [llama]: makes the traces of this directory anew. With a budget
# of a few blocks nearly every touch is a fault, so that the trace is the whole tour.
# redis: values of 8000 bytes, asked for by a popularity that falls with their rank, then a scan.
# llama: bench/demo's model decodes some tokens (make demo has been run before).
# What no engine here can run (mixture of experts, long contexts) is made up: policysim NAME.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
BUILD=$(cd "${1:?usage: record.sh BUILD [redis] [llama]}" && pwd)
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

llama() {
	[ -d "$here/../demo/node_modules" ] || { echo "llama: run make demo first" >&2; return 1; }
	local model
	model=$(ls -t "$here"/../demo/*.gguf "${XDG_CACHE_HOME:-$HOME/.cache}"/emfatier/*.gguf 2>/dev/null | head -n 1)
	(preloaded 32M "$T/llama" "" node "$here/../demo/decode.mjs" --model "$model" --tokens 12) >"$T/log" 2>&1
}

for name in "${@:-redis}"; do
	$name
	xz -9e -c "$T/$name" >"$here/$name.trace.xz"
	ls -l "$here/$name.trace.xz"
done
