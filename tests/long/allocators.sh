#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Programs with an allocator, a collector or a heap of their own: the same output as
# without us while most of their memory is far. ONLY="go rust" runs only these.
# shellcheck source-path=SCRIPTDIR source=../whole/lib.bash source=../whole/observe.bash
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../whole/lib.bash"
. "$here/../whole/observe.bash"

src=$here/src
export PLAIN_OK=0 LIMIT=${LIMIT:-180} CONF='store.uri=mem:'
# Of 16 blocks in all, more evictions a second leave no time to run in.
CHAOS=300

# program NAME TOOL COMPILE: whether it is wanted, its tool is there and it compiles
program() {
	[ -z "${ONLY:-}" ] || [[ " $ONLY " == *" $1 "* ]] || return 1
	if ! have "$2"; then
		skipped "$1" "no $2"
		return 1
	fi
	[ -z "$3" ] || (cd "$T" && plain bash -c "$3" >"$T/compile" 2>&1) && return 0
	skipped "$1" "does not compile: $(gist "$T/compile")"
	return 1
}

# churn NAME LIBRARIES: alone, and with children that are made while others allocate
churn() {
	program "$1" gcc "gcc -O2 -pthread -DROUNDS=${ROUNDS:-10} '$src/churn.c' -o $1 $2 &&
		gcc -O2 -pthread -DROUNDS=1 -DBLOCKS=150 '$src/churn.c' -o $1-forks $2" || return
	TIERED=no same "$1 forks" 32M "$T/$1-forks" forks
	same "$1" 16M "$T/$1"
}

# Works, but need not be tiered: mimalloc reserves, tcmalloc maps past libc's symbols.
churn_untiered() {
	TIERED=no churn "$@" || return
	[ "$(json "$T/far.stats" evicted_blocks)" -gt 0 ] || skipped "$1 far memory" "its mappings are not managed yet"
}

churn glibc ""
# Static: its malloc is the program's own symbol, which a preload does not replace.
archive() {
	echo "-Wl,--whole-archive $(gcc -print-file-name="$1") -Wl,--no-whole-archive"
}
# All that it maps is managed, and each object that is touched brings 2 MiB with it.
ROUNDS=${ROUNDS:-2} churn_untiered jemalloc "$(archive libjemalloc.a) -lstdc++ -lm -ldl"
churn_untiered mimalloc "-DMIMALLOC -lmimalloc"
TCMALLOC_SKIP_SBRK=1 churn_untiered tcmalloc "$(archive libtcmalloc_minimal.a) -lstdc++ -lm"
churn_untiered tcmalloc-sbrk "$(archive libtcmalloc_minimal.a) -lstdc++ -lm"
# Preloaded before us it is as if linked into the program.
shared=$(gcc -print-file-name=libmimalloc.so)
[ ! -e "$shared" ] || LIB=$shared:$LIB churn_untiered mimalloc-preloaded ""
program containers g++ "g++ -O2 -std=c++17 '$src/containers.cc' -o containers" && same containers 16M "$T/containers"
program rust rustc "rustc -O '$src/containers.rs' -o rust" && same rust 16M "$T/rust"
program go go "cp '$src/collected.go' . && GO111MODULE=off GOCACHE=$T/gocache go build -o go collected.go" &&
	same go 32M "$T/go"
program node node "" && same node 32M node "$src/buffers.js"
program python3 /usr/bin/python3 "" && same python3 32M /usr/bin/python3 "$src/objects.py"
program java javac "javac -d . '$src/Heap.java'" &&
	same java 32M java -Xmx200m -Xms200m -XX:+UseSerialGC -cp "$T" Heap
program java-g1 javac "javac -d . '$src/Heap.java'" &&
	same java-g1 32M java -Xmx200m -XX:+UseG1GC -XX:ParallelGCThreads=2 -cp "$T" Heap
if [ -n "${ONLY:-}" ] || /usr/bin/python3 -c 'import torch' 2>/dev/null; then
	program torch /usr/bin/python3 "" && same torch 32M /usr/bin/python3 "$src/inference.py"
else
	skipped torch "no python3-torch"
fi
finish
