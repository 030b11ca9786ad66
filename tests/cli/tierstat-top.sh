#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# tierstat top in a terminal of tmux: its screen, compared, and its keys.
# shellcheck source=tests/cli/common
. "$(dirname "$0")/common"

cd "$WORK" || exit 1
export LC_ALL=C.UTF-8
unset NO_COLOR TMUX
mkdir -m 700 run
if ! command -v tmux >/dev/null || ! ${CC:-cc} -I "$ROOT/include" -o fake "$HERE/fake_segment.c" 2>err; then
	skipped "tierstat top" "no tmux, or no compiler for the helper"
	done_testing
fi
export TMUX_TMPDIR=$WORK
tmux() { command tmux -f /dev/null -L top "$@"; }
session=
screen() { tmux capture-pane -p -t "$session" >"$WORK/out" 2>"$WORK/err"; }

sleep 300 &
one=$!
sleep 300 &
two=$!
STARTED="$one $two"
./fake run $one llama serve &
STARTED="$STARTED $!"
./fake run $two redis
status=0

# until_seen PATTERN: is it on the screen, sooner or later?
seen() {
	screen
	grep -qE -- "$1" "$WORK/out"
}
until_seen() { wait_for 10 seen "$1"; }
keys() { tmux send-keys -t "$session" "$@"; }
start() {
	# the server stays: one that ends and one that starts would meet
	session=s$((${session#s} + 1))
	tmux new-session -d -s "$session" -x "$1" -y "$2" "env $3 '$BUILD/tierstat' top 0.3; echo status=\$?; sleep 300"
}

start 142 20 EMFATIER_RUN_DIR="$WORK/run"
until_seen "^ *$two redis"
verdict "top: starts"
# PIDs and the time of day differ from run to run
sed -e "s/^ *$one /    ONE /; s/^ *$two /    TWO /; s/[0-9][0-9]:[0-9][0-9]:[0-9][0-9]/HH:MM:SS/; s/ *$//" out >seen
cat >want <<'SCREEN'
tierstat top  HH:MM:SS  2 processes  fetch 0/s  write 0/s  stall 0.0%
    PID COMMAND      MODE    LIMIT  LOCAL    FAR STALL% TIERS            FETCH/s WRITE/s FAULT/s stall        fetch        STORE
    ONE llama        thread   512M   500M   600M    0.0 ███████░░░░░░░░░       0       0       0 ▂▂▂▂▂▂▂▂▂▂▂▂ ████████████ ok
    TWO redis        thread   512M   500M   600M    0.0 ███████░░░░░░░░░       0       0       0 ▂▂▂▂▂▂▂▂▂▂▂▂ ████████████ ok
SCREEN
for ((i = 0; i < 15; i++)); do echo; done >>want
echo 'q quit  h help  s sort: stall  / filter  Enter regions  w why  p pause' >>want
diff want seen >out 2>&1
verdict "top: the screen"

keys Enter
until_seen '^regions of .* llama' && until_seen '7f0000000000 +512M weights +128M +128M +254M ████▓▓▓▓░░░░░░░░$' &&
	grep -q 'kept' out
verdict "top: regions"
keys Enter
closed() { ! seen '^regions of'; }
wait_for 10 closed
verdict "top: regions, closed"
keys Down w
until_seen "^what limits $two nothing"
verdict "top: the next process, and why"
keys w / l l a
until_seen '^/lla_'
verdict "top: the filter is typed"
keys Enter
until_seen '1 process .*only: lla' && ! grep -q redis out
verdict "top: filtered"
keys / Escape
until_seen '2 processes'
verdict "top: not filtered any more"
keys s r
until_seen 'sort: fetch reversed'
verdict "top: sort"
# reversed: the later PID first
[ "$(grep -nE "^ *$two redis" out | cut -d: -f1)" -lt "$(grep -nE "^ *$one llama" out | cut -d: -f1)" ]
verdict "top: the other way round"
keys h
until_seen 'choose a process'
verdict "top: help"
keys h p
until_seen PAUSED
verdict "top: pause"
keys p
tmux resize-window -t "$session" -x 80 -y 10
until_seen 'STALL% TIERS'
# nothing runs over into the next line
screen
[ "$(grep -c . out)" -le 5 ] && grep -qE "^ *$one llama .*█" out
verdict "top: a small screen"
tmux capture-pane -e -p -t "$session" >out
grep -q $'\033\\[3[0-7]m' out
verdict "top: colours on a terminal"
keys q
until_seen '^status=0'
verdict "top: quits"

start 100 12 "EMFATIER_RUN_DIR='$WORK/run' NO_COLOR=1"
until_seen "^ *$two redis"
tmux capture-pane -e -p -t "$session" >out
grep -q redis out && ! grep -q $'\033\\[[34][0-7]m' out
verdict "top: NO_COLOR"
keys q
until_seen '^status=0'
verdict "top: quits without colours"

start 100 12 "EMFATIER_RUN_DIR='$WORK/none'"
until_seen 'no managed process in'
verdict "top: nothing runs"
tmux kill-server

done_testing
