#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# emfatier ctl PID store add|drain: members join and leave while a program has its memory on them; no
# wrong byte, also when the server that was drained is killed; what is refused, and why; forked
# children; and that far space is given back after SIGKILL wherever it lies by then.
# shellcheck source-path=SCRIPTDIR source=lib.bash
. "$(dirname "$0")/lib.bash"
# shellcheck source=faults.bash
. "$(dirname "$0")/faults.bash"

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

# ctl add|drain URI: leaves $status, $T/ctl.out, $T/ctl.err
ctl() {
	timeout 60 "$EMFATIER" ctl "$pid" store "$1" "$2" >"$T/ctl.out" 2>"$T/ctl.err"
	status=$?
}

# changed NAME add|drain URI
changed() {
	ctl "$2" "$3"
	[ $status -eq 0 ] && ok "$1" || not_ok "$1" "status $status: $(gist "$T/ctl.err") $(gist "$T/$running.err")"
}

# refused NAME STATUS WORDS add|drain URI: one line that has WORDS
refused() {
	ctl "$4" "$5"
	if [ $status -eq "$2" ] && [ "$(wc -l <"$T/ctl.err")" -eq 1 ] && grep -qF -- "$3" "$T/ctl.err"; then
		ok "$1"
	else
		not_ok "$1" "status $status: $(gist "$T/ctl.err")"
	fi
}

# state_of N: of the N-th store
state_of() {
	"$TIERSTAT" --json -p "$pid" 2>/dev/null | grep -o '"state": "[a-z]*"' | sed -n "$1s/.*: \"\(.*\)\"/\1/p"
}

# written N: bytes, by the statistics
written() {
	"$TIERSTAT" --json -p "$pid" 2>/dev/null | sed 's/.*"stores"//' | grep -o '"written_bytes": [0-9]*' |
		grep -o '[0-9]*$' | sed -n "$1p"
}

server a 256M
server b 256M
server c 256M

# --- the main case: a third joins, the first is drained and killed, under load ---

for conf in '' ';store.encrypt=on' ';engine.move=off'; do
	running=main seed=${SEED:-$RANDOM}
	begin main "store.uri=${uri_of[a]},${uri_of[b]}$conf" \
		timeout -k 5 300 "$PROG/integrity" 64M 4 "${ROUNDS:-6}" "$seed" mmap
	wait_for 30 is_far 30
	# timeout is managed, too; the one that has the memory is its child.
	pid=$(pgrep -P "$pid" -x integrity)
	name="members$conf"
	changed "$name: one joins" add "${uri_of[c]}"
	[ "$(written 3)" -gt 0 ] && ok "$name: it is used" || not_ok "$name: it is used" "$("$TIERSTAT" stores "$pid")"
	changed "$name: one is drained" drain "${uri_of[a]}"
	[ "$(state_of 1)" = drained ] && ok "$name: tierstat tells" || not_ok "$name: tierstat tells" "$(state_of 1)"
	kill_server a
	wait "${started[-1]}"
	status=$?
	why=$(not_tiered "$T/stats" 30M)
	if [ $status -ne 0 ] || [ -n "$why" ]; then
		not_ok "$name: no wrong byte" "status $status, seed $seed: $why $(gist "$T/main.err")"
	else
		ok "$name: no wrong byte"
	fi
	[ -s "$T/main.err" ] && cat "$T/main.err"
	server a 256M
done

finish
