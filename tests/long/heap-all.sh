#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# engine.heap=all: small objects are tiered. The rows of tests/prog/small plain, with a quarter
# of their memory local and under chaos; then real programs whose data is many small objects
# and several times the budget: the same output as without us, and memory that was far.
# ROWS="fork-storm" runs only these rows, and no programs.
# shellcheck source-path=SCRIPTDIR source=../whole/lib.bash
. "$(dirname "$0")/../whole/lib.bash"

ALL="store.uri=mem:;engine.heap=all"

# row NAME SIZE CONF COLD ROW: CONF empty runs it plain
row() {
	local name=$1 size=$2 conf=$3 cold=$4 row=$5 why='' status

	rm -f "$T/stats"
	if [ -n "$conf" ]; then
		TIERSTAT_OUT=$T/stats LIMIT=120 managed "$conf" "$PROG/small" "$row" "$size" \
			</dev/null >"$T/out" 2>"$T/err"
	else
		LIMIT=120 plain "$PROG/small" "$row" "$size" </dev/null >"$T/out" 2>"$T/err"
	fi
	status=$?
	if [ $status -eq 124 ]; then
		why="hung: $(gist "$T/err")"
	elif [ $status -ne 0 ]; then
		why="status $status: $(gist "$T/err")"
	elif [ -s "$T/err" ]; then
		why="says: $(gist "$T/err")"
	elif [ -n "$conf" ] && [ "$cold" = cold ]; then
		why=$(not_tiered "$T/stats" 2M)
	fi
	if [ -n "$why" ]; then
		not_ok "$name" "$why"
	else
		ok "$name"
	fi
}

while read -r name cold; do
	[ -z "${ROWS:-}" ] || [[ " $ROWS " == *" $name "* ]] || continue
	row "small $name plain" 48M "" "$cold" "$name"
	row "small $name tiered" 64M "local.limit=24M;$ALL" "$cold" "$name"
	# Each eviction costs a block of 2 MiB: fewer than where there are small regions.
	row "small $name chaos" 48M "local.limit=32M;engine.min_region=4K;engine.chaos=200;$ALL" \
		"$cold" "$name"
	[[ " table calloc realloc threads fork-cold " != *" $name "* ]] ||
		row "small $name copies" 32M "local.limit=24M;engine.move=off;$ALL" - "$name"
done < <("$PROG/small" list)
# Freed memory is given back at once, also while another thread forks.
export MALLOC_CONF=dirty_decay_ms:0
for name in calloc fork-storm; do
	[ -z "${ROWS:-}" ] || [[ " $ROWS " == *" $name "* ]] || continue
	row "small $name purging" 48M "local.limit=16M;$ALL" - "$name"
done
unset MALLOC_CONF
[ -z "${ROWS:-}" ] || finish

# same NAME CONF FETCHED CMD...: output and status as without us, statistics before the end
same() {
	local name=$1 conf=$2 fetched=$3 want got why
	shift 3
	LIMIT=60 plain "$@" >"$T/want.out" 2>"$T/want.err" </dev/null
	want=$?
	LIMIT=${SAME_LIMIT:-60} managed "$conf" "$@" >"$T/got.out" 2>"$T/got.err" </dev/null
	got=$?
	if [ $got -ne $want ]; then
		not_ok "$name" "status $got instead of $want: $(gist "$T/got.err")"
	elif ! cmp -s "$T/want.out" "$T/got.out" || ! cmp -s "$T/want.err" "$T/got.err"; then
		not_ok "$name" "other output: $(gist "$T/got.out") $(gist "$T/got.err")"
	elif [ -n "$fetched" ] && why=$(not_tiered "$T/stats" "$fetched") && [ -n "$why" ]; then
		not_ok "$name" "$why"
	else
		ok "$name"
	fi
	rm -f "$T/stats"
}

# CPython has an allocator of its own for small objects; this makes them malloc's.
cat >"$T/dict.py" <<'PY'
import gc, hashlib, os, subprocess
gc.disable() # each collection would fetch everything
d = {}
for i in range(60000):
    d["key%d" % i] = [str(i) * 5, {"n": i, "text": "x%d" % (i * i)}]
for i in range(0, 60000, 3):
    del d["key%d" % i]
for i in range(0, 60000, 6):
    d["key%d" % i] = (i, bytes(i % 500))
digest = hashlib.sha256()
for k, v in d.items():
    digest.update(repr((k, v)).encode())
print(digest.hexdigest(), len(d))
subprocess.run("LD_PRELOAD= \"$TIERSTAT\" --json -p %d > '%s/stats' 2>&1" % (os.getpid(), os.environ["TEST_DIR"]),
               shell=True)
PY
if have python3; then
	export PYTHONMALLOC=malloc
	same "python3" "local.limit=32M;$ALL" 16M python3 "$T/dict.py"
	same "python3 chaos" "local.limit=48M;engine.min_region=4K;engine.chaos=100;$ALL" 2M \
		python3 "$T/dict.py"
	same "python3 with processes" "local.limit=16M;$ALL" "" python3 -c '
import multiprocessing
data = {i: "value %d" % i * 10 for i in range(80000)}
def part(k):
    return sum(len(data[i]) for i in range(k * 20000, k * 20000 + 20000))
if __name__ == "__main__":
    multiprocessing.set_start_method("fork")
    with multiprocessing.Pool(2) as pool:
        print(pool.map(part, range(4)))
'
	unset PYTHONMALLOC
	# Its own allocator's arenas are mappings of 1 MiB.
	same "python3's own allocator" "local.limit=32M;engine.min_region=256K;$ALL" 16M \
		python3 "$T/dict.py"
else
	skipped "python3" "no python3"
fi
same "bash" "local.limit=8M;engine.min_region=4K;engine.chaos=500;$ALL" "" bash -c '
declare -A a
for ((i = 0; i < 20000; i++)); do a[k$i]=v$((i * i)); done
s=0; for k in "${!a[@]}"; do s=$((s + ${#a[$k]})); done; echo $s
seq 1 20000 | sort -r | tail -n 2; x=$(seq 1 20000 | cksum); echo "$x"; (exit 7)'

if have sqlite3; then
	cat >"$T/db.sql" <<-SQL
		create table t(id integer primary key, word text, body blob);
		with recursive n(i) as (select 1 union all select i + 1 from n where i < 50000)
		insert into t select i, 'word' || (i * 7919 % 50000), hex(i) || zeroblob(0) ||
			substr(hex(i * i * 1103515245) || hex(i * 12345) || hex(i * 777), 1, 60) || printf('%0900d', i * i) from n;
		create index words on t(word);
		delete from t where id % 5 = 0;
		update t set body = body || 'changed' where id % 7 = 0;
		select count(*), sum(length(body)), min(word), max(word) from t;
		select group_concat(id) from (select id from t where word > 'word2' order by word limit 50);
		pragma integrity_check;
		.system LD_PRELOAD= "\$TIERSTAT" --json -p \$PPID > "\$TEST_DIR/stats" 2>&1; true
	SQL
	same "sqlite3 in memory" "local.limit=16M;$ALL" 2M sqlite3 -batch :memory: ".read $T/db.sql"
	same "sqlite3 in memory, chaos" "local.limit=32M;engine.min_region=64K;engine.chaos=100;$ALL" 2M \
		sqlite3 -batch :memory: ".read $T/db.sql"
else
	skipped "sqlite3" "no sqlite3"
fi

# About 250 MiB of values and 6 MiB of structure.
cat >"$T/feed.py" <<'PY'
import random, sys
random.seed(7)
noise = random.randbytes(1 << 20)
def cmd(*a):
    sys.stdout.buffer.write(b"*%d\r\n" % len(a) + b"".join(b"$%d\r\n%s\r\n" % (len(x), x) for x in a))
for i in range(15000):
    at = random.randrange(1 << 19)
    cmd(b"SET", b"doc:%d" % i, b"%d:" % i + noise[at:at + random.randrange(4000, 29000)])
    cmd(b"HSET", b"user:%d" % (i % 1000), b"field:%d" % i, b"%x" % random.getrandbits(200))
    if i % 5 == 0:
        cmd(b"RPUSH", b"log", b"entry %d " % i + noise[at:at + 300])
PY

cli() {
	timeout 60 redis-cli -s "$T/redis.sock" "$@"
}

redis_up() {
	"$@" redis-server --port 0 --unixsocket "$T/redis.sock" --save "" --dir "$T" --dbfilename test.rdb \
		--enable-debug-command yes >>"$T/redis.log" 2>&1 &
	server=$!
	started+=("$server")
	wait_for 20 bash -c "redis-cli -s '$T/redis.sock' ping 2>/dev/null | grep -q PONG"
}

redis_down() {
	cli shutdown nosave
	wait "$server"
	echo "server: $?"
}

# redis_run STATS LAUNCHER...: the steps and what the data looks like after each
redis_run() {
	local stats=$1 server
	shift
	rm -f "$T/redis.sock" "$T/test.rdb" "$T/redis.log"
	if ! redis_up "$@"; then
		echo "the server did not start: $(gist "$T/redis.log")"
		return
	fi
	python3 "$T/feed.py" | cli --pipe | tail -n 1
	cli debug digest
	timeout 60 redis-benchmark -s "$T/redis.sock" -q -n 20000 -d 100 -t set,get,lpush,mset,hset \
		>"$T/bench" 2>&1
	echo "benchmark: $?, $(tr '\r' '\n' <"$T/bench" | grep -c 'requests per second')"
	cli del mylist key:__rand_int__ myhash
	# What is written meanwhile must not be in the child's dump.
	cli bgsave
	for i in $(seq 0 40 14999); do
		echo "APPEND doc:$i more"
		echo "SETRANGE doc:$((i + 1)) 3000 other"
	done | cli | cksum
	wait_for 60 bash -c "redis-cli -s '$T/redis.sock' info persistence | grep -q rdb_bgsave_in_progress:0"
	cli info persistence | grep rdb_last_bgsave_status
	cli debug digest
	"$TIERSTAT" --json -p "$server" >"$stats" 2>&1
	redis_down
	if ! redis_up "$@"; then
		echo "the server did not start again: $(gist "$T/redis.log")"
		return
	fi
	cli debug digest
	redis_down
}

if have redis-server && have redis-benchmark && have redis-cli && have python3; then
	redis_run "$T/none" env >"$T/want" 2>&1
	redis_run "$T/stats" env LD_PRELOAD="$LIB" EMFATIER_CONF="local.limit=64M;$ALL" >"$T/got" 2>&1
	why=$(not_tiered "$T/stats" 64M)
	if ! grep -q 'rdb_last_bgsave_status:ok' "$T/want"; then
		skipped "redis" "does not work without us: $(gist "$T/want" 9)"
	elif ! cmp -s "$T/want" "$T/got"; then
		not_ok "redis" "$(diff "$T/want" "$T/got" | head -n 6 | tr '\n' ' ')"
	elif [ -n "$why" ]; then
		not_ok "redis" "$why"
	else
		ok "redis"
	fi
else
	skipped "redis" "no redis-server, redis-benchmark, redis-cli or python3"
fi
finish
