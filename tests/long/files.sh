#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Programs whose far memory is given to the kernel: fio with all kinds of I/O and
# verification, memtester, sqlite3, redis-benchmark, gcc. ONLY="sqlite3" runs only these.
# shellcheck source-path=SCRIPTDIR source=../whole/lib.bash source=../whole/observe.bash
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../whole/lib.bash"
. "$here/../whole/observe.bash"

export PLAIN_OK=0 LIMIT=${LIMIT:-120} CONF='store.uri=mem:'
CHAOS=${FILES_CHAOS:-200}

# wanted NAME TOOL
wanted() {
	[ -z "${ONLY:-}" ] || [[ " $ONLY " == *" ${1%% *} "* ]] || return 1
	have "$2" || { skipped "$1" "no $2"; return 1; }
}

# Buffers of 64 MiB in all, written, read back and verified.
fio_row() {
	local engine=$1 mem=$2
	shift 2
	COMPARE=status same "fio $engine $mem" 8M fio --name=v --directory="$T" --size=48M --bs=1M \
		--rw=randwrite --verify=crc32c --verify_state_save=0 --verify_fatal=1 --do_verify=1 --ioengine="$engine" \
		--iodepth=24 --mem="$mem" --thread --group_reporting --output="$T/fio.log" "$@"
}
if wanted fio fio; then
	for engine in psync libaio io_uring mmap vsync; do
		for mem in malloc mmap; do
			fio_row $engine $mem
			[ $engine = mmap ] || fio_row $engine $mem --direct=1
		done
	done
	# The kernel holds the pages themselves.
	fio_row io_uring malloc --fixedbufs --direct=1
	[ "$(cat /proc/sys/vm/nr_hugepages)" -gt 32 ] && fio_row psync mmaphuge
fi

wanted memtester memtester && COMPARE=status same memtester 8M memtester 24M 1

if wanted sqlite3 sqlite3; then
	for db in :memory: "$T/far.db"; do
		cat >"$T/sql" <<-SQL
			.bail on
			PRAGMA cache_size = -131072;
			PRAGMA mmap_size = 0;
			DROP TABLE IF EXISTS t;
			CREATE TABLE t (id INTEGER PRIMARY KEY, k INTEGER, s TEXT);
			BEGIN;
			WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200000)
			INSERT INTO t SELECT i, (i * 7919) % 100003, printf('row %d %.40c', i, 'x') FROM n;
			COMMIT;
			CREATE INDEX tk ON t (k, s);
			UPDATE t SET s = s || k WHERE id % 3 = 0;
			DELETE FROM t WHERE k % 10 = 4;
			SELECT count(*), sum(k), sum(length(s)), max(s) FROM t;
			SELECT k, count(*) FROM t GROUP BY k % 7 ORDER BY 1;
			PRAGMA integrity_check;
			VACUUM;
			PRAGMA integrity_check;
		SQL
		same "sqlite3 ${db##*/}" 48M sqlite3 "$db" ".read $T/sql"
	done
	# One large block of its own for all pages, which its many small ones are not.
	same "sqlite3 page cache" 48M sqlite3 -pagecache 4200 20000 :memory: ".read $T/sql"
fi

cat >"$T/redis.sh" <<'SH'
sock=$1/r.sock
redis-server --port 0 --unixsocket "$sock" --save "" --dir "$1" --enable-debug-command yes >"$1/redis.log" 2>&1 &
server=$!
for _ in $(seq 200); do [ -S "$sock" ] && break; sleep 0.1; done
redis-cli -s "$sock" debug populate 2000 big 20000
redis-cli -s "$sock" debug populate 100000 key 100
redis-benchmark -s "$sock" -q -n 2000 -c 8 -d 100000 -r 300 -t set,get,lpush,lpop,mset >"$1/bench.log" 2>&1
echo "benchmark $?"
redis-cli -s "$sock" flushall
redis-cli -s "$sock" debug populate 2000 big 20000
redis-cli -s "$sock" setrange string 40000000 end
for i in $(seq 5); do redis-cli -s "$sock" append string "$i"; done
redis-cli -s "$sock" debug digest
redis-cli -s "$sock" bgsave >/dev/null
for _ in $(seq 300); do
	redis-cli -s "$sock" info persistence | grep -q rdb_bgsave_in_progress:0 && break
	sleep 0.1
done
redis-cli -s "$sock" info persistence | grep rdb_last_bgsave_status
redis-cli -s "$sock" debug reload
redis-cli -s "$sock" debug digest
redis-cli -s "$sock" shutdown nosave
wait $server
echo "server $?"
SH
wanted redis redis-benchmark && same redis 48M bash "$T/redis.sh" "$T"

if wanted gcc gcc; then
	{
		for i in $(seq 1 500); do
			echo "int f$i(int x, int *p) { for (int i = 0; i < x; i++) { x ^= i * $i; p[i & 7] += x / (i + 1); } return x; }"
		done
	} >"$T/big.c"
	same "gcc" 48M bash -c "cd '$T' && gcc -O2 -g -c big.c -o big.o && sha256sum big.o"
	for f in engine block kernel; do
		same "gcc $f.c" 16M bash -c "cd '$here/../..' && gcc -std=gnu11 -O2 -g -fPIC -Iinclude -Isrc -c src/$f.c -o '$T/ours.o' && sha256sum '$T/ours.o'"
	done
	have g++ && same "g++" 64M bash -c "cd '$T' && g++ -O2 -std=c++17 -c '$here/src/containers.cc' -o cc.o && sha256sum cc.o"
fi
finish
