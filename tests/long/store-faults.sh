#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A random schedule of faults (FAULTS, 200 for each way) while integrity runs again and
# again: servers are killed and come back empty, are frozen, and lie and fail all the time
# by store.inject; one at a time, with parity:2+2 two. No wrong byte, no hang. SEED repeats one.
# shellcheck source-path=SCRIPTDIR source=../whole/lib.bash
. "$(dirname "$0")/../whole/lib.bash"
# shellcheck source=../whole/faults.bash
. "$(dirname "$0")/../whole/faults.bash"

if ! have nbdkit; then
	skipped "store faults" "no nbdkit"
	finish
fi
RANDOM=${SEED:-$((SECONDS + $$))}
seed=$RANDOM
RANDOM=$seed
echo "seed $seed"
names=(a b c d)
for name in "${names[@]}"; do
	server "$name" 256M
done

# fault NAME
fault() {
	case $((RANDOM % 3)) in
	0)
		kill_server "$1"
		sleep 0.$((RANDOM % 9))
		server "$1" 256M
		;;
	1)
		kill -STOP "${pid_of[$1]}"
		sleep 0.$((RANDOM % 9))
		kill -CONT "${pid_of[$1]}"
		;;
	2)
		kill -STOP "${pid_of[$1]}"
		sleep 2
		kill_server "$1"
		server "$1" 256M
		;;
	esac
}

# schedule NAME CONF N TOGETHER: over the first N servers
schedule() {
	local name=$1 conf=$2 n=$3 together=$4 done_so_far=0 pid='' why='' uris='' i runs=0 begin slow=0
	for ((i = 0; i < n; i++)); do uris+=${uri_of[${names[i]}]},; done
	while [ $done_so_far -lt "${FAULTS:-200}" ] && [ -z "$why" ]; do
		if [ -z "$pid" ]; then
			LIMIT=600 managed "local.limit=20M;store.uri=$uris;store.timeout=20s;$conf" \
				"$PROG/integrity" 64M 4 10 "$RANDOM" mmap >"$T/out" 2>"$T/err" &
			pid=$!
			runs=$((runs + 1))
			wait_for 30 is_far 20
		fi
		i=$((RANDOM % n))
		fault "${names[i]}" &
		local one=$! two=''
		# The array is the parent's: what the child starts is found again by its socket.
		if [ "$together" -eq 2 ]; then
			fault "${names[(i + 1) % n]}" &
			two=$!
		fi
		wait $one $two
		local name_of
		for name_of in "${names[@]}"; do
			pid_of[$name_of]=$(cat "$T/$name_of.pid")
			started+=("${pid_of[$name_of]}")
		done
		done_so_far=$((done_so_far + together))
		begin=$SECONDS
		while kill -0 "$pid" 2>/dev/null && ! is_whole; do
			sleep 0.05
			[ $((SECONDS - begin)) -lt 60 ] || why="not whole again after a minute"
			[ -z "$why" ] || break
		done
		[ $((SECONDS - begin)) -gt $slow ] && slow=$((SECONDS - begin))
		if ! kill -0 "$pid" 2>/dev/null; then
			wait "$pid" || why="status $?: $(gist "$T/err")"
			pid=''
		fi
	done
	if [ -n "$pid" ]; then
		[ -n "$why" ] && kill "$pid" 2>/dev/null
		wait "$pid" || why=${why:-"status $?: $(gist "$T/err")"}
	fi
	echo "$name: $done_so_far faults, $runs runs, at most $slow s until whole again"
	if [ -n "$why" ]; then not_ok "$name" "seed $seed: $why"; else ok "$name"; fi
}

schedule "mirror" "store.redundancy=mirror" 3 1
schedule "mirror, encrypted" "store.redundancy=mirror;store.encrypt=on" 2 1
schedule "parity" "store.redundancy=parity" 4 1
schedule "parity that fails as well" "store.redundancy=parity:2+2;store.inject=1:corrupt=0.01,1:error=0.01" 4 1
schedule "parity, two together" "store.redundancy=parity:2+2" 4 2
finish
