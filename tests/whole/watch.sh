#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What tierstat says of real processes: the map adds up, why names each cause that a process can
# be given here, a summary at the end.
. "$(dirname "$0")/lib.bash"

tierstat=$BUILD/tierstat
export LC_ALL=C.UTF-8

# begin CONF HOW MIB: $pid is tests/prog/walk, once it has filled its memory
begin() {
	: >"$T/out"
	LD_PRELOAD=$LIB EMFATIER_CONF="$1" "$PROG/walk" "$2" $(($3 << 20)) 600 >"$T/out" 2>"$T/err" &
	pid=$!
	started+=("$pid")
	wait_for 60 test -s "$T/out"
}
end() {
	kill "$pid" 2>/dev/null
	wait "$pid" 2>/dev/null
}

# says WANT: that is what why says limits it
says() {
	said=$("$tierstat" why --json "$pid" 1 | sed -n 's/.*"cause": "\([a-z-]*\)".*/\1/p')
	[ "$said" = "$1" ]
}

# cause WANT NAME: named, sooner or later: on a busy machine a second may show something else
cause() {
	for _ in {1..12}; do
		says "$1" && ok "why: $2" && return
	done
	local text
	text=$("$tierstat" why "$pid" 1 | head -n 4 | tr '\n' ' ')
	case $text in
	*"no time left"*"others use them"*) skipped "why: $2" "other programs use the cores here: $text" ;;
	*) not_ok "why: $2" "'$said' instead of '$1': $text $(gist "$T/err")" ;;
	esac
}

begin 'local.limit=64M;store.uri=mem:?bandwidth=60M' read 256
cause link "the bandwidth of a link"
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
# it takes two samples, a second apart
plotted() { "$tierstat" plot "$pid" -o "$T/plot.svg" && grep -q polyline "$T/plot.svg"; }
wait_for 10 plotted && ok "plot of a process" || not_ok "plot of a process" "no picture"
# stopped, it gives no map: said, not waited for
kill -STOP "$pid"
said=$("$tierstat" regions "$pid" 2>&1)
kill -CONT "$pid"
case $said in *"gives no map: it is stopped"*) ok "regions: a stopped process" ;; *) not_ok "regions: a stopped process" "$said" ;; esac
end

# one WANT NAME CONF HOW MIB
one() {
	begin "$3" "$4" "$5"
	cause "$1" "$2"
	end
}
one random "random access" 'local.limit=64M;store.uri=mem:?bandwidth=2G' random 512
one write-back "what is written back" 'local.limit=64M;store.uri=mem:?bandwidth=60M' write 256
one budget "a budget without room" 'local.limit=16M;store.uri=mem:?bandwidth=1G' read 256
one slow-store "a store that answers late" 'local.limit=128M;store.uri=mem:?latency=100ms' read 256
one slow-store "one store of three is slow" \
	'local.limit=64M;store.uri=mem:?latency=1ms,mem:?latency=1ms,mem:?latency=20ms' read 256
one read-ahead "asked for too late" \
	'local.limit=128M;store.uri=mem:?latency=3ms;class.all.match=size>=4M;class.all.prefetch=off' think 256
one movers "the mover's own time" 'local.limit=64M;store.uri=mem:;store.encrypt=on' write 256
one first-touch "new memory" 'local.limit=64M;store.uri=mem:' fresh 256
one store-full "a store that is full" 'local.limit=64M;store.uri=mem:?size=64M' read 256
one nothing "nothing" 'local.limit=1G;store.uri=mem:' read 64
one unmanaged "a store that can't be had" "local.limit=16M;store.uri=nbd+unix:///?socket=$T/no.sock" read 64

begin 'local.limit=64M;store.uri=mem:?bandwidth=500M' pin 512
if grep -q 'cannot pin' "$T/out"; then
	skipped "why: pinned memory" "no io_uring here"
else
	cause pinned "pinned memory"
fi
end

if have nbdkit; then
	nbd_start a 256M
	a=$nbd_uri a_pid=$nbd_pid
	nbd_start b 256M
	begin "local.limit=64M;store.uri=$a,$nbd_uri;store.redundancy=mirror" read 192
	kill "$a_pid"
	cause store-down "a store that is down"
	"$tierstat" why "$pid" 1 >"$T/why"
	status=$?
	[ $status -eq 3 ] && ok "why: its exit status then" || not_ok "why: its exit status then" "$status: $(gist "$T/why")"
	end
	nbd_start c 256M
	begin "local.limit=64M;store.uri=$nbd_uri;store.timeout=60s" read 192
	kill -STOP "$nbd_pid"
	cause slow-store "a store that does not answer"
	kill -CONT "$nbd_pid"
	end
else
	skipped "why: memory servers" "no nbdkit"
fi

out=$("$EMFATIER" run --summary --local 64M --store mem: -- "$PROG/walk" read $((128 << 20)) 1 2>&1 >/dev/null)
case $out in *'ended with status 0'*'walk (PID '*'budget 64.0M'*' fetched, '*'mem: (ok)'*) why= ;; *) why=$out ;; esac
result "run --summary" "$why"

finish
