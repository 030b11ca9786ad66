#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Any program as a test: a short choice of what `make check-long` runs, with the
# smallest regions, chaos, and most of the memory far.
# shellcheck source-path=SCRIPTDIR source=lib.bash source=observe.bash
. "$(dirname "$0")/lib.bash"
. "$(dirname "$0")/observe.bash"
src=$(cd "$(dirname "$0")/../long/src" && pwd)

export PLAIN_OK=0 LIMIT=${LIMIT:-60} CONF='store.uri=mem:'
CHAOS=300

# same_if NAME LOCAL CMD...: when the command is there
same_if() {
	if have "$3"; then
		same "$@"
	else
		skipped "$1" "no $3"
	fi
}

if have gcc; then
	plain gcc -O2 -pthread -DROUNDS=1 "$src/churn.c" -o "$T/churn" && LIMIT=180 same "malloc from threads" 24M "$T/churn"
	same "gcc" 24M bash -c "cd '$src' && gcc -O2 -pthread -DROUNDS=4 -c churn.c -o '$T/churn.o' && sha256sum <'$T/churn.o'"
else
	skipped "malloc from threads" "no gcc"
fi
if have g++; then
	plain g++ -O2 -std=c++17 "$src/containers.cc" -o "$T/containers" && same "C++ containers" 16M "$T/containers"
fi
same_if "node with workers" 32M node "$src/buffers.js"
same_if "python3" 64M /usr/bin/python3 "$src/objects.py"
have javac && plain javac -d "$T" "$src/Heap.java" &&
	same "java" 64M java -Xmx200m -Xms200m -XX:+UseSerialGC -cp "$T" Heap

# What there is only with the packages of check-long.
if have sqlite3; then
	cat >"$T/sql" <<-SQL
		CREATE TABLE t (id INTEGER PRIMARY KEY, k INTEGER, s TEXT);
		WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000)
		INSERT INTO t SELECT i, (i * 7919) % 10007, printf('row %d %.40c', i, 'x') FROM n;
		CREATE INDEX tk ON t (k);
		SELECT count(*), sum(k), sum(length(s)) FROM t;
		PRAGMA integrity_check;
	SQL
	same "sqlite3" 24M sqlite3 :memory: ".read $T/sql"
fi
[ "${FAULT:-}" != signal ] && have fio && COMPARE=status same "fio" 8M fio --name=v --directory="$T" --size=32M --bs=1M \
	--rw=randwrite --verify=crc32c --verify_state_save=0 --verify_fatal=1 --do_verify=1 --ioengine=io_uring \
	--iodepth=24 --mem=mmap --thread --direct=1 --output="$T/fio.log"
if have stress-ng; then
	for s in mmapmany mremap vm-addr pagemove; do
		TIERED=no COMPARE=status same "stress-ng $s" 8M stress-ng "--$s" 1 --timeout 1 --verify \
			--temp-path "$T" --mremap-bytes 32M
	done
fi

sums='x = [bytearray(b"x" * (8 << 20)) for i in range(4)]; print(sum(sum(y[::4096]) for y in x))'
managed 'local.limit=8M;store.uri=mem:' bash -c "ulimit -f 0; /usr/bin/python3 -c '$sums'" 2>&1 | cat >"$T/out"
if grep -q 983040 "$T/out"; then
	ok "no file may be written"
else
	not_ok "no file may be written" "$(gist "$T/out")"
fi

# No room for statistics: none, and the program goes on.
mkdir "$T/full"
if mount -t tmpfs -o size=64K,mode=755 none "$T/full" 2>/dev/null; then
	head -c 61440 /dev/zero >"$T/full/fill"
	if EMFATIER_RUN_DIR=$T/full managed 'local.limit=8M;store.uri=mem:' \
		/usr/bin/python3 -c "$sums" >"$T/out" 2>&1 &&
		grep -q 983040 "$T/out"; then
		ok "full run directory"
	else
		not_ok "full run directory" "$(gist "$T/out")"
	fi
	umount "$T/full"
else
	skipped "full run directory" "cannot mount"
fi
finish
