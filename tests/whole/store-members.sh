#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# emfatier ctl PID store add|drain: members join and leave while a program has its memory on them; no
# wrong byte, also when the server that was drained is killed; the same of redundant sets, of which
# another may be killed then; what is refused, and why; forked children; and that far space is given
# back after SIGKILL wherever it lies by then.
# shellcheck source-path=SCRIPTDIR source=lib.bash
. "$(dirname "$0")/lib.bash"
# shellcheck source=faults.bash
. "$(dirname "$0")/faults.bash"
# shellcheck source=hold.bash
. "$(dirname "$0")/hold.bash"

if ! have nbdkit || ! have nbdcopy; then
	skipped "members" "no nbdkit or nbdcopy"
	finish
fi

# begin NAME CONF COMMAND...: the program in the background, its pid in $pid
begin() {
	local name=$1 conf=$2
	shift 2
	rm -f "$T/stats" "$T/poll"
	TIERSTAT_OUT=$T/stats LD_PRELOAD=$LIB EMFATIER_CONF="local.limit=20M;$conf" "$@" \
		>"$T/$name.out" 2>"$T/$name.err" &
	pid=$!
	started+=("$pid")
}

# changed NAME add|drain URI
changed() {
	ctl store "$2" "$3"
	[ $status -eq 0 ] && ok "$1" || not_ok "$1" "status $status: $(gist "$T/ctl.err" 99) $(gist "$T/$running.err")"
}

# state_of N: of the N-th store
state_of() {
	"$TIERSTAT" --json -p "$pid" 2>/dev/null | grep -o '"state": "[a-z]*"' | sed -n "$1s/.*: \"\(.*\)\"/\1/p"
}

# store_stat N NAME: a number of the N-th store
store_stat() {
	"$TIERSTAT" --json -p "$pid" 2>/dev/null | sed '1,/"stores"/d' | grep -o "\"$2\": [0-9]*" |
		grep -o '[0-9]*$' | sed -n "$1p"
}

written() {
	store_stat "$1" written_bytes
}

# moves_away MIB: the first is drained, less than that is left on it
moves_away() {
	local left
	left=$(store_stat 1 rebuild_bytes)
	[ "$(state_of 1)" = draining ] && [ "${left:-0}" -gt 0 ] && [ "$left" -lt $(($1 << 20)) ]
}

# Of integrity, as $name: it ends, and has found what it wrote, of which enough was far.
last_round() {
	local why
	kill -USR1 "$pid"
	wait "${started[-1]}"
	status=$?
	why=$(not_tiered "$T/stats" 30M)
	if [ $status -ne 0 ] || [ -n "$why" ]; then
		not_ok "$name: no wrong byte" "status $status, seed $seed: $why $(gist "$T/main.err")"
	else
		ok "$name: no wrong byte"
	fi
}

server a 256M
server b 256M
server c 256M

# --- the main case: a third joins, the first is drained and killed, under load ---

for conf in '' ';store.encrypt=on'; do
	running=main seed=${SEED:-$RANDOM}
	begin main "store.uri=${uri_of[a]},${uri_of[b]}$conf" \
		timeout -k 5 300 "$PROG/integrity" 64M 4 1000 "$seed" mmap
	wait_for 30 is_far 30
	# timeout is managed, too; the one that has the memory is its child.
	pid=$(pgrep -P "$pid" -x integrity)
	name="members$conf"
	changed "$name: one joins" add "${uri_of[c]}"
	[ "$(written 3)" -gt 0 ] && ok "$name: it is used" || not_ok "$name: it is used" "$("$TIERSTAT" stores "$pid")"
	changed "$name: one is drained" drain "${uri_of[a]}"
	[ "$(state_of 1)" = drained ] && ok "$name: tierstat tells" || not_ok "$name: tierstat tells" "$(state_of 1)"
	grep -q 'refuses writes' "$T/main.err" && not_ok "$name: every write finds a place" "$(gist "$T/main.err")"
	kill_server a
	last_round
	server a 256M
done

# --- redundancy: what was drained, or is, and then another, is killed under load ---

server d 256M
for kind in mirror parity:2+1; do
	running=main seed=${SEED:-$RANDOM} name="members, $kind"
	uris=${uri_of[a]},${uri_of[b]}
	[ $kind = mirror ] || uris+=,${uri_of[d]}
	begin main "store.uri=$uris;store.redundancy=$kind;store.rebuild=16M" \
		timeout -k 5 300 "$PROG/integrity" 64M 4 1000 "$seed" mmap
	wait_for 30 is_far 30
	pid=$(pgrep -P "$pid" -x integrity)
	changed "$name: one joins" add "${uri_of[c]}"
	grep -q '^room for [0-9]* MiB, before for [0-9]* MiB$' "$T/ctl.out" && ok "$name: ctl tells of the room" ||
		not_ok "$name: ctl tells of the room" "$(gist "$T/ctl.out")"
	timeout 60 "$EMFATIER" ctl "$pid" store drain "${uri_of[a]}" >"$T/ctl.out" 2>"$T/ctl.err" &
	ctl_pid=$!
	if [ $kind != mirror ]; then # in the middle
		wait_for 20 moves_away 24 || not_ok "$name: in the middle" "$("$TIERSTAT" stores "$pid")"
		kill_server a
	fi
	wait $ctl_pid && ok "$name: one is drained" || not_ok "$name: one is drained" "$(gist "$T/ctl.err")"
	[ "$(state_of 1)" = drained ] && ok "$name: tierstat tells" || not_ok "$name: tierstat tells" "$(state_of 1)"
	[ $kind != mirror ] || kill_server a
	wait_for 30 is_whole || not_ok "$name: all is there twice" "$("$TIERSTAT" stores "$pid")"
	kill_server b
	last_round
	server a 256M
	server b 256M
done

# --- redundancy: one that is lost is replaced by one that joins, and let go of ---

hold_start replaced "local.limit=20M;store.uri=${uri_of[a]},${uri_of[b]};store.redundancy=mirror;store.timeout=3s" 64
wait_for 30 is_far 30
kill_server a
right "replaced: degraded, nothing is lost"
changed "replaced: another joins" add "${uri_of[c]}"
changed "replaced: the one that is lost is drained" drain "${uri_of[a]}"
kill_server b
right "replaced: the next one is lost"
right "replaced: a child finds all" fork
hold_end
server a 256M
server b 256M

# --- what is refused, in one line, and changes nothing ---

server small 16M
hold_start refused "local.limit=20M;store.uri=${uri_of[a]};store.timeout=3s" 64
wait_for 30 is_far 30
refused "refused: the last store" 2 "it is the last one" store drain "${uri_of[a]}"
refused "refused: a store that it has" 2 "it is one of the stores already" store add "${uri_of[a]}"
refused "refused: a store that it has not" 2 "it is none of the stores" store drain "${uri_of[b]}"
refused "refused: a server that is not there" 2 "nowhere" store add "nbd+unix:///?socket=$T/nowhere"
refused "refused: no provider" 2 "no provider 'what'" store add what:ever
changed "a small one joins" add "${uri_of[small]}"
refused "refused: more than there is room for" 2 "the others have room for" store drain "${uri_of[a]}"
right "refused: nothing is lost"
# Forked children share what was there at the fork: so no other members until they have ended.
right "a child finds all, wherever it lies" fork
alone() {
	ctl store add "${uri_of[b]}"
	[ $status -eq 0 ]
}
wait_for 20 alone && ok "one joins after the child has ended" ||
	not_ok "one joins after the child has ended" "status $status: $(gist "$T/ctl.err")"
changed "the small one is drained" drain "${uri_of[small]}"
kill_server small
right "drained after a fork: nothing is lost"
refused "refused: it is drained already" 2 "" store drain "${uri_of[small]}"
hold_end

hold_start tiers 'local.limit=20M;store.uri=mem: | mem:' 64
wait_for 30 is_far 30
refused "refused: tiers" 2 "with tiers stores can't come or go" store add mem:
hold_end
hold_start mirror "local.limit=20M;store.uri=${uri_of[a]},${uri_of[b]};store.redundancy=mirror" 64
wait_for 30 is_far 30
refused "refused: what redundancy needs" 2 "the redundancy needs 2 stores" store drain "${uri_of[a]}"
hold_end
hold_start idle 'local.limit=1G' 64
refused "refused: no store is open" 1 "no store is open yet" store add mem:
hold_end

# --- one that is away while it gets its share: it has joined when it has that, not before ---

disk() {
	nbdkit -f -t 1 -U "$T/disk.sock" file "$T/disk" >"$T/disk.log" 2>&1 9>&- &
	pid_of[disk]=$!
	started+=("${pid_of[disk]}")
	wait_for 10 test -S "$T/disk.sock"
}
truncate -s 256M "$T/disk"
disk
hold_start away "local.limit=20M;store.uri=${uri_of[a]};store.timeout=4s;store.rebuild=8M" 64
wait_for 30 is_far 30
far=
wait_for 10 far_rests
timeout 60 "$EMFATIER" ctl "$pid" store add "nbd+unix:///?socket=$T/disk.sock" >"$T/ctl.out" 2>"$T/ctl.err" &
ctl_pid=$!
fills() {
	[ "$(state_of 2)" = rebuilding ] && [ "$(written 2)" -gt 0 ]
}
is_down() {
	[ "$(state_of 2)" = down ]
}
wait_for 10 fills
kill_server disk
wait_for 10 is_down && sleep 0.5
if is_down && kill -0 $ctl_pid 2>/dev/null; then
	ok "away: ctl waits"
else
	not_ok "away: ctl waits" "$(state_of 2): $(gist "$T/ctl.err") $(gist "$T/away.err")"
fi
disk
wait $ctl_pid
status=$?
[ $status -eq 0 ] && [ "$(state_of 2)" = ok ] && ok "away: it joins when it is back" ||
	not_ok "away: it joins when it is back" "status $status, $(state_of 2): $(gist "$T/ctl.err")"
right "away: nothing is lost"
hold_end

# --- room: a store that is full has some again ---

mkdir "$T/one" "$T/two"
hold_start full "local.limit=20M;store.uri=file:$T/one?size=16M" 96
over() {
	[ "$("$TIERSTAT" --json -p "$pid" 2>/dev/null | grep -o '"local_bytes": [0-9]*' | grep -o '[0-9]*$')" "$1" $((24 << 20)) ]
}
wait_for 20 over -gt
changed "a file joins a file that is full" add "file:$T/two?size=128M"
say sweep
wait_for 60 over -lt && ok "the budget is kept again" ||
	not_ok "the budget is kept again" "$("$TIERSTAT" -p "$pid") $("$TIERSTAT" stores "$pid") $(gist "$T/full.err")"
say check
wait_for 60 grep -q right "$T/full.out" && ok "full, and not any more: nothing is lost" ||
	not_ok "full, and not any more: nothing is lost" "$(gist "$T/full.out") $(gist "$T/full.err")"
hold_end

# --- stores that differ: the room of all is used, and one that is slow gets less ---

server little 16M
server large 256M
hold_start room "local.limit=20M;store.uri=${uri_of[little]},${uri_of[large]}" 96
wait_for 30 over -lt && ok "room: of the smallest and more" ||
	not_ok "room: of the smallest and more" "$("$TIERSTAT" -p "$pid") $("$TIERSTAT" stores "$pid") $(gist "$T/room.err")"
right "room: nothing is lost"
right "room: a child finds all" fork
hold_end

server quick 256M
nbdkit -f -t 1 -U "$T/slow.sock" --filter=delay memory 256M delay-read=20ms delay-write=20ms >"$T/slow.log" 2>&1 9>&- &
started+=($!)
wait_for 10 test -S "$T/slow.sock"
uri_of[slow]="nbd+unix:///?socket=$T/slow.sock"
hold_start speed "local.limit=20M;store.uri=${uri_of[slow]},${uri_of[quick]}" 64
# moved MIB: to and from the first
moved() {
	[ $((($(store_stat 1 read_bytes) + $(written 1)) >> 20)) -ge "$1" ]
}
say sweep
wait_for 120 moved 96
slow=$(written 1) fast=$(written 2)
say "more 64"
more_written() {
	[ $((($(written 1) + $(written 2) - slow - fast) >> 20)) -ge 40 ]
}
wait_for 60 more_written
slow=$(($(written 1) - slow)) fast=$(($(written 2) - fast))
[ "$slow" -lt $((fast / 2)) ] && ok "speed: the slow one gets less" ||
	not_ok "speed: the slow one gets less" "$slow of $((slow + fast)) bytes; $("$TIERSTAT" stores "$pid")"
answer 3 >/dev/null # it has the 64
right "speed: nothing is lost"
hold_end

# --- space is given back after SIGKILL, wherever it lies by then ---

held() {
	nbdinfo --map --totals "${uri_of[$1]}" 2>/dev/null | awk '$NF == "data" { n = $1 } END { print n + 0 }'
}
holds_nothing() {
	[ "$(held "$1")" -eq 0 ]
}
# killed NAME SERVER...: the program is, and has held something on each
killed() {
	local name=$1 each
	shift
	for each in "$@"; do
		[ "$(held "$each")" -gt 0 ] || not_ok "$name: before SIGKILL" "$each holds nothing"
	done
	exec 9>&-
	kill -KILL "$pid"
	wait "$pid" 2>/dev/null
	for each in "$@"; do
		wait_for 30 holds_nothing "$each" && ok "$name: after SIGKILL $each holds nothing" ||
			not_ok "$name: after SIGKILL $each holds nothing" "$(held "$each")"
	done
}
if have nbdinfo; then
	for each in a b c; do
		wait_for 60 holds_nothing $each || not_ok "after an end: $each holds nothing" "$(held $each)"
	done
	for each in little large quick slow; do
		wait_for 60 holds_nothing $each || not_ok "after an end: $each holds nothing" "$(held $each)"
	done
	hold_start room "local.limit=20M;store.uri=${uri_of[little]},${uri_of[large]}" 96
	wait_for 30 over -lt
	killed "room" little large
	hold_start speed "local.limit=20M;store.uri=${uri_of[slow]},${uri_of[quick]}" 64
	say sweep
	wait_for 120 moved 96
	say "more 64"
	wait_for 60 answers 3
	killed "speed" slow quick
	hold_start killed "local.limit=20M;store.uri=${uri_of[a]}" 64
	wait_for 30 is_far 30
	changed "before SIGKILL: one joins" add "${uri_of[b]}"
	changed "before SIGKILL: another" add "${uri_of[c]}"
	changed "before SIGKILL: the first leaves" drain "${uri_of[a]}"
	holds_nothing a && ok "drained: its space is given back" || not_ok "drained: its space is given back" "$(held a)"
	killed "members" b c
	hold_start killed "local.limit=20M;store.uri=${uri_of[a]},${uri_of[b]};store.redundancy=mirror" 64
	wait_for 30 is_far 30
	changed "mirror, before SIGKILL: one joins" add "${uri_of[c]}"
	changed "mirror, before SIGKILL: the first leaves" drain "${uri_of[a]}"
	holds_nothing a && ok "mirror, drained: its space is given back" ||
		not_ok "mirror, drained: its space is given back" "$(held a)"
	killed "mirror" b c
	# In the middle of a drain, when nothing has joined before.
	for more in '' ';store.redundancy=mirror'; do
		hold_start amid "local.limit=20M;store.uri=${uri_of[a]},${uri_of[b]},${uri_of[c]};store.rebuild=4M$more" 64
		wait_for 30 is_far 30
		timeout 60 "$EMFATIER" ctl "$pid" store drain "${uri_of[a]}" >"$T/ctl.out" 2>&1 9>&- &
		started+=($!)
		wait_for 20 moves_away 11 || not_ok "amid a drain" "$("$TIERSTAT" stores "$pid")"
		killed "amid a drain$more" a b c
	done
else
	skipped "after SIGKILL" "no nbdinfo"
fi

finish
