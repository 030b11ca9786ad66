#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# tierstat over segments that a helper writes: list, rates, JSON, exit statuses.
# shellcheck source=tests/cli/common
. "$(dirname "$0")/common"

cd "$WORK" || exit 1
tierstat=$BUILD/tierstat
mkdir -m 700 run

call "$tierstat"
[ "$status" -eq 0 ] && grep -q '^ *PID COMMAND' out && [ "$(wc -l <out)" -eq 1 ] &&
	grep -q 'no managed process in' err
verdict "tierstat: nothing runs"

call "$tierstat" --json
[ "$status" -eq 0 ] && [ "$(cat out)" = '{"processes": []}' ] && [ ! -s err ]
verdict "tierstat --json: nothing runs"

rmdir run
call "$tierstat" --json
[ "$status" -eq 0 ] && [ "$(cat out)" = '{"processes": []}' ] && [ ! -e run ]
verdict "tierstat --json: no run directory"
mkdir -m 700 run

call "$tierstat" -p 1
says 4 'tierstat: no managed process with PID 1'
verdict "tierstat -p: no managed process"

# wrong TEXT ARG...
wrong() {
	local text=$1

	shift
	call "$tierstat" "$@"
	says 2 "$text"
	verdict "tierstat $*"
}

wrong '-p needs a PID' -p
wrong '-p needs a PID' -p abc
wrong '-p needs a PID' -p 0
wrong '-p needs a PID' -p -5
wrong '-p needs a PID' -p 99999999999
wrong 'unknown option --yaml' --yaml
wrong 'the list takes no --listen' --listen 9464
wrong 'unknown command walk' walk
wrong '0 is no DELAY' -p 1 0
wrong 'x is no DELAY' -p 1 x
wrong '0 is no COUNT' -p 1 1 0
wrong 'too many arguments' -p 1 1 1 1
wrong '--json takes no DELAY' --json -p 1 1

call "$tierstat" --help
[ "$status" -eq 0 ] && grep -q 'usage: tierstat' out
verdict "tierstat --help"
call "$tierstat" --version
[ "$status" -eq 0 ] && grep -q '^tierstat [0-9]' out
verdict "tierstat --version"

chmod 777 run
call "$tierstat"
[ "$status" -eq 1 ] && grep -q 'refused' err
verdict "tierstat: a directory that all can write to"
chmod 700 run

if ! ${CC:-cc} -I "$ROOT/include" -o fake "$HERE/fake_segment.c" 2>err; then
	skipped "tierstat: with processes" "no compiler for the helper"
	done_testing
fi
sleep 300 &
one=$!
sleep 300 &
two=$!
STARTED="$one $two"
./fake run $one 'llama "x"'
./fake run $two "$(printf 'b\001\377\303\244')"

call "$tierstat"
[ "$status" -eq 0 ] && [ "$(wc -l <out)" -eq 3 ] && [ ! -s err ] &&
	grep -qE "^ *$one llama \"x\" +thread +512M +500M +600M +1.1G +1.2M +3.0G +700M +12.3s ok$" out
verdict "tierstat: list"
! awk 'length($0) > 100' out | grep -q .
verdict "tierstat: list fits 100 columns"
! LC_ALL=C grep -q '[^ -~]' out
verdict "tierstat: nothing unprintable"

call "$tierstat" -p $one
[ "$status" -eq 0 ] && [ "$(wc -l <out)" -eq 3 ] && ! awk 'length($0) > 100' out | grep -q . &&
	sed -n 3p out | grep -qE '^ +512 +500 +600 +1100 '
verdict "tierstat -p"

if command -v python3 >/dev/null; then
	call "$tierstat" --json -p $one
	[ "$status" -eq 0 ] && python3 - "$one" out >err 2>&1 <<'EOF'
import json, sys
d = json.load(open(sys.argv[2]))
want = """pid command local_limit local_bytes far_bytes managed_bytes peak_local_bytes
faults_demand faults_standby faults_write_protect faults_zero fetched_bytes written_bytes
dropped_clean_bytes prefetch_issued prefetch_useful prefetch_wasted stall_seconds
fault_latency_us standby_latency_us stores regions uffd_mode move evicted_blocks dropped_zero_bytes
standby_bytes free_frame_bytes lost_bytes overruns faults_starved stuck_bytes
placed_bytes placed_blocks promoted_blocks""".split()
assert not set(want) ^ set(d), set(want) ^ set(d)
assert d["pid"] == int(sys.argv[1]) and d["command"] == 'llama "x"'
assert d["uffd_mode"] == "thread" and d["move"] is True
assert d["local_limit"] == 512 << 20 and abs(d["stall_seconds"] - 12.345679) < 1e-9
l = d["fault_latency_us"]
assert set(l) == {"p50", "p90", "p99", "p999", "max"} and l["max"] == 100
assert set(d["standby_latency_us"]) == set(l)
assert 50 <= l["p50"] <= 57 and 90 <= l["p90"] <= 100 and l["p999"] == 100, l
s = d["stores"]
assert len(s) == 2 and s[1]["uri"] == 'nbd://host/"quoted"' and s[1]["state"] == "ok"
assert set(s[0]) == {"uri", "state", "used_bytes", "read_bytes", "written_bytes",
                     "read_latency_us", "errors", "busy_seconds", "rebuild_bytes",
                     "looked_bytes", "mended_bytes", "tier", "hits",
                     "promoted", "demoted"}
assert set(s[0]["read_latency_us"]) == {"p50", "p99"}
EOF
	verdict "tierstat --json -p"
	call "$tierstat" --json
	[ "$status" -eq 0 ] && python3 - out >err 2>&1 <<'EOF'
import json, sys
d = json.load(open(sys.argv[1], encoding="utf-8"))
assert len(d["processes"]) == 2
assert {p["command"] for p in d["processes"]} == {'llama "x"', "b\x01\ufffd\u00e4"}
EOF
	verdict "tierstat --json"
else
	skipped "tierstat --json" "no python3 to read it"
fi

# A delay that is the number of a process, or more than a day.
timeout 1 "$tierstat" $one >out 2>err
grep -qE "the process is shown by tierstat -p $one\$|a process is chosen by -p PID\$" err
verdict "tierstat: a PID in the place of a delay"

# Rates: the first line is since the start, the next ones are of the last interval.
./fake run $two grower grow &
grower=$!
STARTED="$STARTED $grower"
growing() { "$tierstat" -c grower -o demand | tail -n 1 | grep -qv ' 1.2M$'; }
wait_for 5 growing
call "$tierstat" -p $two 0.5 4
[ "$status" -eq 0 ] && [ "$(wc -l <out)" -eq 6 ] &&
	tail -n 3 out | grown
verdict "tierstat -p PID DELAY COUNT"
kill $grower
wait $grower 2>/dev/null

# a process that ends while it is watched
sleep 1.5 &
short=$!
./fake run $short short
call "$tierstat" -p $short 0.4
[ "$status" -eq 0 ] && [ "$(wc -l <out)" -ge 4 ] && [ ! -e "run/$short.stats" ]
verdict "tierstat -p: the process ends"

./fake run $two x down
call "$tierstat"
[ "$status" -eq 3 ] && grep -q 'down$' out
verdict "tierstat: a store is down"
call "$tierstat" -p $two
[ "$status" -eq 3 ]
verdict "tierstat -p: a store is down"
call "$tierstat" --json -p $two
[ "$status" -eq 3 ] && grep -q '"state": "down"' out
verdict "tierstat --json: a store is down"

./fake run $two x version
call "$tierstat" -p $two
says 1 "PID $two runs with another version"
verdict "tierstat -p: another version"
call "$tierstat"
[ "$status" -eq 1 ] && [ "$(wc -l <out)" -eq 2 ] && grep -q 'another version' err
verdict "tierstat: another version beside ours"

kill $two
wait $two 2>/dev/null
call "$tierstat"
[ "$status" -eq 0 ] && [ "$(wc -l <out)" -eq 2 ] && [ ! -e "run/$two.stats" ] &&
	[ -e "run/$one.stats" ]
verdict "tierstat: leftovers are removed"

if [ -e /dev/full ]; then
	"$tierstat" >/dev/full 2>err
	status=$?
	: >out
	says 1 'standard output: No space left'
	verdict "tierstat: output can't be written"
fi

done_testing
