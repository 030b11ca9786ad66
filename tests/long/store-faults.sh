#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A random schedule of faults (FAULTS, 170 for each of three ways) while integrity runs again
# and again: servers are killed and come back empty, are stopped, are full, and the way to
# them corrupts, delays, or passes nothing; one at a time, with parity:2+2 two. No wrong byte,
# no hang, and all is whole again afterwards. SEED repeats one; WAYS (mirror parity two) chooses.
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

# start_server NAME: empty; it is full while $T/NAME.full exists
start_server() {
	rm -f "$T/$1.sock"
	nbdkit -f -t 1 -U "$T/$1.sock" --filter=error memory 256M error=ENOSPC \
		error-pwrite-rate=100% error-pwrite-file="$T/$1.full" >"$T/$1.log" 2>&1 &
	pid_of[$1]=$!
	disown $!
	wait_for 10 test -S "$T/$1.sock"
}

# Those that a fault has killed.
start_missing() {
	local each
	for each in "${names[@]}"; do
		[ -e "$T/$each.killed" ] && rm "$T/$each.killed" && start_server "$each"
	done
}

end_servers() {
	kill -CONT "${pid_of[@]}"
	kill "${pid_of[@]}"
} 2>/dev/null

for name in "${names[@]}"; do
	start_server "$name"
	"$PROG/relay" "$T/$name.relay" "$T/$name.sock" "$T/$name.mode" &
	started+=($!)
	uri_of[$name]="nbd+unix:///?socket=$T/$name.relay"
done
trap 'end_servers; cleanup' EXIT

kinds=(kill stop hang corrupt delay fill partition)
# fault KIND NAME SECONDS MS: does it for so long (a hang: longer than any patience)
fault() {
	local pid=${pid_of[$2]}
	case $1 in
	kill)
		kill -KILL "$pid"
		touch "$T/$2.killed"
		sleep "$3"
		;;
	stop)
		kill -STOP "$pid"
		sleep "$3"
		kill -CONT "$pid"
		;;
	hang)
		kill -STOP "$pid"
		sleep 2
		kill -KILL "$pid"
		touch "$T/$2.killed"
		;;
	fill)
		touch "$T/$2.full"
		sleep "$3"
		rm "$T/$2.full"
		;;
	*)
		echo "$1 $4" >"$T/$2.mode"
		sleep "$3"
		rm "$T/$2.mode"
		;;
	esac
}

now_ms() {
	echo $(($(date +%s%N) / 1000000))
}

# whole_again PID: within a minute, or PID has ended by itself
whole_again() {
	local end=$((SECONDS + 60))
	until is_whole || ! kill -0 "$1" 2>/dev/null; do
		[ $SECONDS -lt $end ] || return 1
		sleep 0.05
	done
}

# schedule NAME CONF N TOGETHER: over the first N servers
schedule() {
	local name=$1 conf=$2 n=$3 together=$4 faults=0 pid='' why='' uris='' i kind runs=0 begin
	local jobs=()
	for ((i = 0; i < n; i++)); do uris+=${uri_of[${names[i]}]},; done
	: >"$T/times"
	while [ $faults -lt "${FAULTS:-170}" ] && [ -z "$why" ]; do
		if [ -z "$pid" ]; then
			LIMIT=900 managed "local.limit=16M;store.uri=$uris;store.timeout=20s;$conf" \
				"$PROG/integrity" 48M 2 40 "$RANDOM" mmap >"$T/out" 2>"$T/err" &
			pid=$!
			runs=$((runs + 1))
			wait_for 30 is_far 16
			whole_again "$pid"
		fi
		i=$((RANDOM % n))
		kind=${kinds[RANDOM % ${#kinds[@]}]}
		jobs=()
		fault "$kind" "${names[i]}" 0.$((RANDOM % 9 + 1)) $((RANDOM % 50 + 5)) &
		jobs+=($!)
		if [ "$together" -eq 2 ]; then
			kind+=" with ${kinds[RANDOM % ${#kinds[@]}]}"
			fault "${kind##* }" "${names[(i + 1) % n]}" 0.$((RANDOM % 9 + 1)) $((RANDOM % 50 + 5)) &
			jobs+=($!)
		fi
		wait "${jobs[@]}"
		start_missing
		faults=$((faults + together))
		begin=$(now_ms)
		whole_again "$pid" || why="not whole again a minute after $kind: $(gist "$T/poll" 99)"
		if kill -0 "$pid" 2>/dev/null; then
			echo "${kind%% *} $(($(now_ms) - begin))" >>"$T/times"
		else
			wait "$pid" || why="status $? after $kind: $(gist "$T/err")"
			pid=''
		fi
	done
	if [ -n "$pid" ]; then
		[ -n "$why" ] && kill "$pid" 2>/dev/null
		wait "$pid" || why=${why:-"status $?: $(gist "$T/err")"}
	fi
	echo "$name: $faults faults, $runs runs; ms until whole again:"
	for kind in "${kinds[@]}"; do
		grep "^$kind " "$T/times" | sort -k2n | awk -v kind="$kind" '{ ms[NR] = $2 }
			END { if (NR) printf "  %-10s %4d  median %5d  most %5d\n", kind, NR, ms[int((NR + 1) / 2)], ms[NR] }'
	done
	if [ -n "$why" ]; then not_ok "$name" "seed $seed: $why"; else ok "$name"; fi
}

for way in ${WAYS:-mirror parity two}; do
	case $way in
	mirror) schedule "mirror" "store.redundancy=mirror" 3 1 ;;
	parity) schedule "parity" "store.redundancy=parity;store.encrypt=on" 4 1 ;;
	two) schedule "parity, two together" "store.redundancy=parity:2+2" 4 2 ;;
	esac
done
finish
