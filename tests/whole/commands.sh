#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Ordinary commands under `emfatier run --local 200M`: the same status and output
# as without.
# shellcheck source-path=SCRIPTDIR source=lib.bash
. "$(dirname "$0")/lib.bash"

# The command as it is, then under the launcher.
same() {
	local name=$1 want got
	shift
	plain "$@" >"$T/want.out" 2>"$T/want.err" </dev/null
	want=$?
	LIMIT=120 plain "$EMFATIER" run --local 200M -- "$@" >"$T/got.out" 2>"$T/got.err" </dev/null
	got=$?
	if [ $got -ne $want ]; then
		not_ok "$name" "status $got instead of $want: $(gist "$T/got.err")"
	elif ! cmp -s "$T/want.out" "$T/got.out"; then
		not_ok "$name" "other output: $(diff "$T/want.out" "$T/got.out" | head -n 3 | tr '\n' ' ')"
	elif ! cmp -s "$T/want.err" "$T/got.err"; then
		not_ok "$name" "other errors: $(diff "$T/want.err" "$T/got.err" | head -n 3 | tr '\n' ' ')"
	else
		ok "$name"
	fi
}

# same, when the command is there
same_if() {
	local name=$1 cmd=$2
	shift 2
	if have "$cmd"; then
		same "$name" "$@"
	else
		skipped "$name" "no $cmd"
	fi
}

same "ls" ls -la /etc
same "ls of nothing" ls "$T/no-such-file"
same "true" true
same "false" false
same "a signal" bash -c 'kill -TERM $$'

cat >"$T/big.py" <<'PY'
import array, hashlib, random, sys
random.seed(1)
digest = hashlib.sha256()
# 320 MB in large pieces, 80 MB in lists of small objects, a growing array.
pieces = [bytearray(random.randbytes(16 << 20)) for _ in range(20)]
lists = [[i * j for i in range(100000)] for j in range(20)]
grown = array.array("Q")
for i in range(200):
    grown.extend(range(i, i + 20000))
for turn in range(2):
    for piece in pieces:
        digest.update(piece)
        piece[turn::4096] = bytes(len(range(turn, len(piece), 4096)))
digest.update(repr([sum(x) for x in lists]).encode())
digest.update(grown.tobytes())
print(digest.hexdigest(), len(pieces), len(grown))
sys.exit(3)
PY
same_if "python3" python3 python3 "$T/big.py"
same_if "python3 with processes" python3 python3 -c '
import multiprocessing, hashlib
data = bytearray(b"0123456789abcdef" * (16 << 20))
def part(i):
    return hashlib.sha256(memoryview(data)[i << 25:(i + 1) << 25]).hexdigest()
if __name__ == "__main__":
    multiprocessing.set_start_method("fork")
    with multiprocessing.Pool(2) as pool:
        print(pool.map(part, range(8)))
'

cat >"$T/big.js" <<'JS'
const crypto = require('crypto');
const hash = crypto.createHash('sha256');
const buffers = [];
for (let i = 0; i < 25; i++) {
	const b = Buffer.alloc(16 << 20);
	for (let k = 0; k < b.length; k += 64)
		b.writeUInt32LE((k * 2654435761 + i) >>> 0, k);
	buffers.push(b);
}
for (let turn = 0; turn < 2; turn++)
	for (const b of buffers) {
		hash.update(b);
		b.fill(turn, 4096 * turn, 4096 * turn + 100);
	}
const words = new Map();
for (let i = 0; i < 300000; i++)
	words.set('word' + i, [i, String(i)]);
let sum = 0;
for (const [, v] of words)
	sum += v[0] + v[1].length;
console.log(hash.digest('hex'), sum);
process.exitCode = 4;
JS
same_if "node" node node "$T/big.js"

same "bash with a pipeline" bash -c \
	'set -o pipefail; seq 1 300000 | sort -r | awk "{ s += \$1 * NR } END { print s }"; x=$(seq 1 100000); echo ${#x}; (exit 9) | cat'

if have gcc; then
	{
		echo '#include <stdio.h>'
		for i in $(seq 1 400); do
			echo "static int f$i(int x) { for (int i = 0; i < x; i++) x ^= i * $i; return x; }"
		done
		echo 'int main(void) { int x = 1;'
		for i in $(seq 1 400); do
			echo "x += f$i(x & 15);"
		done
		echo 'return printf("%d\n", x) < 0; }'
	} >"$T/big.c"
	same "gcc" bash -c "gcc -O2 -Wall -o '$T/big' '$T/big.c' && '$T/big' && cksum <'$T/big'"
	same "gcc with an error" bash -c "echo 'int main(void) { return x; }' | gcc -x c -o '$T/big' -"
else
	skipped "gcc" "no gcc"
fi

# redis_run NAME LAUNCHER...: a server, a load and what the data looks like afterwards
redis_run() {
	local name=$1 sock=$T/$1.sock server
	shift
	"$@" redis-server --port 0 --unixsocket "$sock" --save "" --dir "$T" --dbfilename "$name.rdb" \
		--enable-debug-command yes >"$T/$name.log" 2>&1 &
	server=$!
	started+=("$server")
	if ! wait_for 20 test -S "$sock"; then
		echo "the server did not start: $(gist "$T/$name.log")"
		return
	fi
	# DEBUG POPULATE is deterministic; the benchmark's own keys are dropped again.
	timeout 60 redis-cli -s "$sock" debug populate 200000 key 500
	timeout 60 redis-benchmark -s "$sock" -q -n 20000 -d 100 -t set,get,lpush,mset >"$T/$name.bench" 2>&1
	echo "benchmark: $?, $(tr '\r' '\n' <"$T/$name.bench" | grep -c 'requests per second')"
	timeout 60 redis-cli -s "$sock" del mylist key:__rand_int__ >/dev/null
	timeout 60 redis-cli -s "$sock" debug digest
	timeout 60 redis-cli -s "$sock" dbsize
	# Forks, and the child reads all memory.
	timeout 60 redis-cli -s "$sock" bgsave
	wait_for 60 bash -c "redis-cli -s '$sock' info persistence | grep -q rdb_bgsave_in_progress:0"
	timeout 60 redis-cli -s "$sock" info persistence | grep rdb_last_bgsave_status
	timeout 20 redis-cli -s "$sock" shutdown nosave
	wait "$server"
	echo "server: $?"
}

if have redis-server && have redis-benchmark && have redis-cli; then
	redis_run plain >"$T/want" 2>&1
	redis_run managed "$EMFATIER" run --local 200M -- >"$T/got" 2>&1
	if ! grep -q 'benchmark: 0' "$T/want"; then
		skipped "redis" "does not work without us: $(gist "$T/want" 9)"
	elif cmp -s "$T/want" "$T/got"; then
		ok "redis"
	else
		not_ok "redis" "$(diff "$T/want" "$T/got" | head -n 6 | tr '\n' ' ')"
	fi
else
	skipped "redis" "no redis-server, redis-benchmark or redis-cli"
fi
finish
