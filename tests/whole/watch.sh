#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What tierstat says of real processes: the map adds up, why names the cause, a summary at the
# end, and all of that of forked children, too.
. "$(dirname "$0")/lib.bash"

tierstat=$BUILD/tierstat
export LC_ALL=C.UTF-8

# begin LOCAL STORE HOW SIZE SECONDS: $pid is the process, once it has filled its memory
begin() {
	: >"$T/out"
	LD_PRELOAD=$LIB EMFATIER_CONF="local.limit=$1;store.uri=$2" "$PROG/walk" "$3" $(($4 << 20)) "$5" >"$T/out" 2>"$T/err" &
	walker=$!
	started+=("$walker")
	for ((i = 0; i < 1200; i++)); do
		[ -s "$T/out" ] && break
		kill -0 $walker 2>/dev/null || break
		sleep 0.05
	done
	pid=$(head -n 1 "$T/out")
}
end() {
	kill "$walker" 2>/dev/null
	wait "$walker" 2>/dev/null
}

# cause NAME WANT...: one of these is what why says, at the second look if need be
cause() {
	local name=$1 said want
	shift
	for try in 1 2 3; do
		said=$("$tierstat" why --json "$pid" 1 | sed -n 's/.*"cause": "\([a-z-]*\)".*/\1/p')
		for want; do
			if [ "$said" = "$want" ]; then
				ok "why: $name"
				return
			fi
		done
	done
	not_ok "why: $name" "'$said' instead of '$*': $("$tierstat" why "$pid" 1 | head -n 4 | tr '\n' ' ')"
}

begin 64M 'mem:?bandwidth=60M' read 256 600
cause "the bandwidth of a link" link
"$tierstat" regions --json "$pid" >"$T/map"
why=$(python3 - "$T/map" <<'PY'
import json, sys
d = json.load(open(sys.argv[1]))
big = [r for r in d["regions"] if r["bytes"] >= 256 << 20]
assert len(big) == 1, d["regions"]
r = big[0]
cells = bytes.fromhex(r["cells"])
assert len(cells) in (128, 129), len(cells)
states = [c & 15 for c in cells]
far = states.count(4) + states.count(3)
# LOCAL, STANDBY, MOVING, FAR: of all that was filled nothing is empty or lost
assert set(states) <= {1, 2, 3, 4}, states
total = r["local_bytes"] + r["standby_bytes"] + r["far_bytes"]
assert total == r["bytes"], (total, r["bytes"])
assert 180 << 20 <= r["far_bytes"] <= 232 << 20, r["far_bytes"]
assert abs(far * (2 << 20) - r["far_bytes"]) <= 32 << 20
# it is swept all the time: everything was in use lately
assert min(c >> 4 for c in cells) >= 6, cells.hex()
assert r["hot_percent"] > 50
PY
) 2>"$T/err2" || why=$(tail -n 1 "$T/err2")
result "regions: the map adds up" "$why"
"$tierstat" heatmap "$pid" -o "$T/map.svg"
result "heatmap of a process" "$(grep -q '256M: ' "$T/map.svg" || echo 'no picture')"
sleep 2
"$tierstat" plot "$pid" -o "$T/plot.svg"
result "plot of a process" "$(grep -q polyline "$T/plot.svg" || echo 'no picture')"
# stopped, it gives no map: said, not waited for
kill -STOP "$walker"
said=$("$tierstat" regions "$pid" 2>&1)
kill -CONT "$walker"
case $said in *"gives no map: it is stopped"*) ok "regions: a stopped process" ;; *) not_ok "regions: a stopped process" "$said" ;; esac
end

begin 64M 'mem:?bandwidth=2G' random 512 600
cause "random access" random
end
begin 64M 'mem:?bandwidth=60M' write 256 600
cause "what is written back" write-back
end
begin 16M 'mem:?bandwidth=1G' read 256 600
cause "a budget without room" budget
end
begin 64M 'mem:?latency=30ms' read 256 600
cause "a store that answers late" slow-store link
end
begin 1G mem: read 64 600
cause "nothing" nothing
end

out=$(EMFATIER_RUN_DIR=$EMFATIER_RUN_DIR "$BUILD/emfatier" run --summary --local 64M --store mem: -- "$PROG/walk" read $((128 << 20)) 1 2>&1 >/dev/null)
case $out in *'ended with status 0'*'walk (PID '*'budget 64.0M'*' fetched, '*'mem: (ok)'*) why= ;; *) why=$out ;; esac
result "run --summary" "$why"

exit $failed
