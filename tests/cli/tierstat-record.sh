#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# tierstat on processes that change and end: records of them, and what is seen meanwhile.
# shellcheck source=tests/cli/common
. "$(dirname "$0")/common"

cd "$WORK" || exit 1
export LC_ALL=C.UTF-8 TZ=UTC
tierstat=$BUILD/tierstat
mkdir -m 700 run
if ! ${CC:-cc} -I "$ROOT/include" -o fake "$HERE/fake_segment.c" 2>err; then
	skipped "tierstat record" "no compiler for the helper"
	done_testing
fi
sleep 300 &
one=$!
sleep 300 &
two=$!
STARTED="$one $two"
./fake run $two redis
./fake run $one grower grow &
server=$!
STARTED="$one $two $server"
wait_for 10 "$tierstat" -p $one >/dev/null 2>&1
call "$tierstat" record $one -o one.rec 0.2 5
[ "$status" -eq 0 ] && [ ! -s out ] && [ "$(stat -c %s one.rec)" -lt 4000 ]
verdict "tierstat record"
call "$tierstat" replay one.rec
[ "$status" -eq 0 ] && [ "$(wc -l <out)" -eq 6 ] &&
	tail -n 4 out | grown && tail -n 4 out | awk '$1 != 512 { bad = 1 } END { exit bad }'
verdict "tierstat replay"
call "$tierstat" replay -t -o pid,fetched,stall one.rec
[ "$status" -eq 0 ] && [ "$(grep -cE "^[0-9]{2}:[0-9]{2}:[0-9]{2} +$one +[0-9.]+M +[0-9.]+%$" out)" -eq 4 ]
verdict "tierstat replay -o"
call "$tierstat" record -o all.rec 0.1 4
[ "$status" -eq 0 ] && call "$tierstat" replay all.rec && grep -q 'choose by -p' err &&
	call "$tierstat" replay -p $two all.rec && [ "$status" -eq 0 ] && [ "$(wc -l <out)" -eq 5 ]
verdict "tierstat record: all"
call "$tierstat" plot one.rec -o rec.svg
[ "$status" -eq 0 ] && grep -q polyline rec.svg
verdict "tierstat plot: a record"
call "$tierstat" replay -p 1 one.rec
says 4 'nothing in it of PID 1' || { [ "$status" -eq 4 ] && grep -q 'nothing in it of PID 1' err; }
verdict "tierstat replay: another process"
head -c $(($(stat -c %s one.rec) - 7)) one.rec >cut.rec
call "$tierstat" replay cut.rec
[ "$status" -eq 0 ] && [ "$(wc -l <out)" -eq 5 ]
verdict "tierstat replay: a record that was cut short"
call "$tierstat" replay fake
says 1 'is no record of this version'
verdict "tierstat replay: no record"
call "$tierstat" why $one 0.3
[ "$status" -eq 0 ] && grep -q '^limit ' out && grep -q '^because ' out && grep -q '^change ' out
verdict "tierstat why: a process that waits"
call "$tierstat" top -b $one 0.2 2
[ "$status" -eq 0 ] && [ "$(grep -c '^tierstat top' out)" -eq 2 ] && grep -qE "^ +$one grower" out &&
	grep -q '^regions of' out && grep -q ' weights ' out
verdict "tierstat top -b"

# It dies while it is read, and its file is another's: none of the readers may.
sleep 1 &
short=$!
./fake run $short short
for command in "top -b" "record -o dead.rec" "stores" "hist"; do
	call "$tierstat" ${command%% *} ${command#"${command%% *}"} $short 0.3 5
	[ "$status" -le 4 ]
	verdict "tierstat $command: the process ends"
done
kill $server
wait $server 2>/dev/null
# bare of its map, or with one that lies about its tables
truncate -s 60000 run/$one.stats
call "$tierstat" regions $one
[ "$status" -eq 1 ] || [ "$status" -eq 4 ]
verdict "tierstat regions: a file cut short"


done_testing
