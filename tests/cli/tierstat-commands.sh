#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# tierstat's commands over segments that a helper writes: what is shown, drawn and recorded.
# shellcheck source=tests/cli/common
. "$(dirname "$0")/common"

cd "$WORK" || exit 1
export LC_ALL=C.UTF-8 TZ=UTC
unset NO_COLOR
tierstat=$BUILD/tierstat
mkdir -m 700 run

# wrong TEXT ARG...
wrong() {
	local text=$1

	shift
	call "$tierstat" "$@"
	says 2 "$text"
	verdict "tierstat $*"
}

wrong 'why needs a PID' why
wrong 'regions needs a PID' regions
wrong 'x is no PID' why x
wrong 'replay needs a FILE' replay
wrong 'plot needs a PID or a record' plot
wrong 'heatmap needs a file' heatmap 1
wrong 'plot needs a file' plot 1
wrong 'record needs a file' record
wrong 'regions takes no -t' regions 1 -t
wrong 'prom takes no --json' prom --json
wrong "-o: no column 'nosuch'" -o pid,nosuch
wrong "-o: no column ''" -o pid,
wrong '--json takes no -o' --json -o pid
wrong '-c needs a NAME' -c
wrong 'too many arguments' regions 1 2
wrong 'too many arguments' why 1 1 1
wrong 'not both' prom --listen 1 --textfile x
wrong 'top needs a terminal' top
wrong '--listen needs an ADDRESS' prom --listen
for command in why regions stores hist; do
	call "$tierstat" $command 1
	says 4 'no managed process with PID 1'
	verdict "tierstat $command: no such process"
done

if ! ${CC:-cc} -I "$ROOT/include" -o fake "$HERE/fake_segment.c" 2>err; then
	skipped "tierstat: commands" "no compiler for the helper"
	done_testing
fi
sleep 300 &
one=$!
sleep 300 &
two=$!
./fake run $one 'llama "x"' serve &
server=$!
STARTED="$one $two $server"
./fake run $two redis
wait_for 5 "$tierstat" -p $one >/dev/null 2>&1

call "$tierstat" -c 'llama*'
[ "$status" -eq 0 ] && [ "$(wc -l <out)" -eq 2 ] && grep -q 'llama "x"' out
verdict "tierstat -c"
call "$tierstat" -c nobody
[ "$status" -eq 0 ] && grep -q 'no managed process with the name nobody' err
verdict "tierstat -c: nobody"
call "$tierstat" -o pid,far,p99 -c redis
[ "$status" -eq 0 ] && [ "$(sed -n 1p out)" = '    PID    FAR    P99' ] &&
	[ "$(sed -n 2p out)" = "$(printf '%7d   600M  100us' $two)" ]
verdict "tierstat -o"
call "$tierstat" -b -o pid,far -p $two
[ "$status" -eq 0 ] && sed -n 2p out | grep -qE " 629145600$"
verdict "tierstat -b"
call "$tierstat" -t -c redis
[ "$status" -eq 0 ] && grep -q '^TIME  *PID' out && grep -qE '^[0-9]{2}:[0-9]{2}:[0-9]{2}  *[0-9]+ redis' out
verdict "tierstat -t"
call "$tierstat" -t -p $two 0.1 2
[ "$status" -eq 0 ] && [ "$(grep -cE '^[0-9]{2}:[0-9]{2}:[0-9]{2} ' out)" -eq 2 ] &&
	[ "$(sed -n 1p out | wc -m)" -le 110 ]
verdict "tierstat -t -p"
call "$tierstat" 0.1 2
[ "$status" -eq 0 ] && [ "$(grep -c COMMAND out)" -eq 2 ]
verdict "tierstat DELAY COUNT"

call "$tierstat" stores $one
[ "$status" -eq 0 ] && [ "$(wc -l <out)" -eq 3 ] && grep -qE '^ok +300M +3.0G .* 1ms +2ms nbd://host/"quoted"$' out
verdict "tierstat stores"
./fake run $two redis rebuilding
call "$tierstat" -c redis
[ "$status" -eq 0 ] && grep -q ' rebuilding$' out && call "$tierstat" stores $two &&
	grep -q '^rebuilding .*nbd' out && grep -q '40.0M of it are still to be made good' out
verdict "tierstat: a store is being rebuilt"
./fake run $two redis degraded
call "$tierstat" -c redis
[ "$status" -eq 3 ] && grep -q ' degraded$' out && call "$tierstat" stores $two && [ "$status" -eq 3 ]
verdict "tierstat: a store lacks something"
./fake run $two redis
call "$tierstat" hist $one
[ "$status" -eq 0 ] && grep -q '^faults, until the thread goes on: 100, half within' out &&
	grep -qE '^ +66us +3[0-9] .*█' out && grep -q '^reads of nbd' out && ! grep -q $'\033' out
verdict "tierstat hist"
LC_ALL=C call "$tierstat" hist $one
[ "$status" -eq 0 ] && grep -q '##' out && ! LC_ALL=C grep -q '[^ -~]' out
verdict "tierstat hist: without UTF-8"

call "$tierstat" regions $one
[ "$status" -eq 0 ] && [ "$(sed -n 2p out)" = '    7f0000000000    512M weights        128M    128M   254M   43 ██████▓▓▓▓▓▓░░░░░░░░░░░░' ] &&
	sed -n 3p out | grep -q 'locked' && grep -q 'and 5 regions more' out
verdict "tierstat regions"
# What is in place on a slow node is neither local nor far.
./fake run $two redis placed &
placed=$!
STARTED="$STARTED $placed"
wait_for 5 "$tierstat" regions $two >/dev/null 2>&1
call "$tierstat" regions $two
[ "$status" -eq 0 ] && sed -n 1p out | grep -q ' FAR PLACED HOT% .* ▤ in place$' &&
	[ "$(sed -n 2p out)" = '    7f0000000000    512M weights        128M    128M   126M   128M   43 ██████▓▓▓▓▓▓▤▤▤▤▤▤░░░░░░' ]
verdict "tierstat regions: in place"
LC_ALL=C call "$tierstat" regions $two
[ "$status" -eq 0 ] && grep -q 'LLLLLLssssssPPPPPP------$' out && ! LC_ALL=C grep -q '[^ -~]' out
verdict "tierstat regions: in place, without UTF-8"
call "$tierstat" -o local,placed,placing,promoted,far -c redis
[ "$status" -eq 0 ] && [ "$(sed -n 2p out)" = '  500M   128M      70       6   600M' ]
verdict "tierstat -o: in place"
call "$tierstat" why $two 0.1
[ "$status" -eq 0 ] && sed -n 1p out | grep -q '; 500M local of 512M, in place on a slow node 128M$'
verdict "tierstat why: in place"
call "$tierstat" prom
[ "$status" -eq 0 ] && grep -q "^emfatier_placed_bytes{pid=\"$two\",command=\"redis\"} 134217728$" out &&
	grep -q "^emfatier_placed_bytes{pid=\"$one\",.*} 0$" out &&
	grep -q "^emfatier_promoted_blocks_total{pid=\"$two\",.*} 6$" out
verdict "tierstat prom: in place"
call "$tierstat" heatmap $two -o placed.svg
[ "$status" -eq 0 ] && grep -q '128M in place, 126M far' placed.svg && grep -qi '54278f\|dadaeb' placed.svg
verdict "tierstat heatmap: in place"
kill $placed
wait $placed 2>/dev/null
./fake run $two redis
call "$tierstat" regions $two
says 1 'gives no map'
verdict "tierstat regions: nobody answers"
./fake run $two redis idle
call "$tierstat" regions $two
says 1 'all of it fits (mode idle)'
verdict "tierstat regions: idle"
call "$tierstat" why $two
[ "$status" -eq 0 ] && grep -q '^limit  *nothing: all of it fits' out
verdict "tierstat why: idle"
call "$tierstat" plot $two -o x.svg
[ "$status" -eq 0 ] && [ -s x.svg ]
verdict "tierstat plot: what was before"
./fake run $two redis

call "$tierstat" why $one 0.2
[ "$status" -eq 0 ] && grep -q '^limit  *nothing: threads hardly ever wait' out
verdict "tierstat why: nothing"

call "$tierstat" heatmap $one -o map.svg
[ "$status" -eq 0 ] && [ ! -s out ] && [ ! -s err ]
verdict "tierstat heatmap"
call "$tierstat" plot $one -o plot.svg
[ "$status" -eq 0 ] && [ ! -s out ] && [ ! -s err ]
verdict "tierstat plot"
call "$tierstat" plot $one -o plot.gif
says 2 'must end in .svg or .png'
verdict "tierstat plot: a name that says nothing"
call "$tierstat" heatmap $one -o none/map.svg
says 1 'none/map.svg: No such file'
verdict "tierstat heatmap: no such directory"
call "$tierstat" heatmap $one -o map.png
if grep -q 'needs libcairo' err; then
	skipped "tierstat heatmap: PNG" "no libcairo"
else
	[ "$status" -eq 0 ] && [ "$(head -c 8 map.png | od -An -tx1)" = ' 89 50 4e 47 0d 0a 1a 0a' ]
	verdict "tierstat heatmap: PNG"
fi

if command -v python3 >/dev/null; then
	python3 - >err 2>&1 <<'PY'
import xml.etree.ElementTree as X
ns = "{http://www.w3.org/2000/svg}"
m = X.parse("map.svg").getroot()
text = [t.text for t in m.iter(ns + "text")]
assert any("llama" in t and "600M far" in t for t in text), text
assert any(t.startswith("7f0000000000  512M  class weights") for t in text), text
assert any("1 smaller region" in t for t in text), text
fills = {r.get("fill") for r in m.iter(ns + "rect")}
assert len(fills) > 40, fills  # states by heat
h = float(m.get("height")); w = float(m.get("width"))
for r in m.iter(ns + "rect"):
    assert 0 <= float(r.get("x")) and float(r.get("x")) + float(r.get("width")) <= w + .01
    assert float(r.get("y")) + float(r.get("height")) <= h + .01
p = X.parse("plot.svg").getroot()
lines = list(p.iter(ns + "polyline"))
assert len(lines) == 9, len(lines)
# the fetch curve is flat: 256 MiB/s
ys = {pt.split(",")[1] for pt in lines[3].get("points").split()}
assert len(lines[3].get("points").split()) == 179 and len(ys) <= 3, ys
PY
	status=$?
	: >out
	[ $status -eq 0 ]
	verdict "tierstat heatmap, plot: what is drawn"
	for what in "regions" "why"; do
		call "$tierstat" $what --json $one
		[ "$status" -eq 0 ] && python3 -c '
import json, sys
d = json.load(open("out"))
assert d["pid"] == int(sys.argv[1])
if "regions" in d:
    assert len(d["regions"]) == 2 and d["regions"][0]["cells"].startswith("011121")
    assert d["regions"][1]["kept"] == "locked" and d["regions_total"] == 7
else:
    assert d["cause"] == "nothing" and d["stall_share"] == 0
' $one 2>err
		verdict "tierstat $what --json"
	done
else
	skipped "tierstat: pictures and JSON" "no python3 to read them"
fi

done_testing
