#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# engine.heap=all and fork, short: programs whose data is small objects, and their children,
# with a small budget and chaos. tests/long/heap-all.sh has the rest.
# shellcheck source-path=SCRIPTDIR source=lib.bash source=observe.bash
. "$(dirname "$0")/lib.bash"
. "$(dirname "$0")/observe.bash"

export PLAIN_OK=0 LIMIT=${LIMIT:-60} CONF='store.uri=mem:;engine.heap=all'
CHAOS=1000

# bash's getenv is its own, over variables that are small objects; in a child that has just
# begun they may be far. The pauses are for chaos: what is used all the time is never far.
cat >"$T/shell" <<'SH'
declare -a a
for ((i = 0; i < 15000; i++)); do a[i]="value $i $((i * 7919 % 10007)) and some more text of it"; done
exec 9<> <(:)
for n in 1 2 3 4 5 6 7; do
	read -r -t 0.1 -u 9
	(s=0; for ((i = n; i < 15000; i += 17)); do x=${a[i]}; s=$((s + ${#x})); done; echo "$n $s")
	read -r -t 0.1 -u 9
	set | grep '^a=' | cksum
done
SH
same "heap=all: bash and its children" 8M bash "$T/shell"

cat >"$T/forks.py" <<'PY'
import gc, os, time
gc.disable()
gc.freeze()
data = {i: ["value %d" % i * 4, str(i * i)] for i in range(30000)}
def child(k):
    n = sum(len(data[i][0]) + len(data[i][1]) for i in range(k, 30000, 5))
    for i in range(k, 30000, 9):
        data[i] = (k, "changed %d" % i)
    return n + sum(len(data[i][1]) for i in range(k, 30000, 3))
for k in range(3):
    time.sleep(0.1)
    r, w = os.pipe()
    pid = os.fork()
    if not pid:
        os.write(w, b"%d" % child(k))
        os._exit(0)
    os.close(w)
    print(k, os.read(r, 100), os.waitpid(pid, 0)[1], len(data[k][0]))
PY
if have python3; then
	PYTHONMALLOC=malloc same "heap=all: python3 and its children" 12M /usr/bin/python3 "$T/forks.py"
else
	skipped "heap=all: python3 and its children" "no python3"
fi
finish
