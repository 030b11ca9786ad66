#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A random schedule of faults (FAULTS, 170 for each way, 40 while decoding) while integrity, or llama.cpp's decoding,
# runs again and again: servers are killed and come back empty, are stopped, are full, and the way
# to them corrupts, delays, or passes nothing; one at a time, with parity:2+2 two. No wrong byte or
# token, no wait over store.timeout, and all is whole again afterwards. Prints how long that takes,
# and how much less was transferred meanwhile. SEED repeats one; WAYS (mirror parity two, and
# llama-mirror llama-parity llama-two where `make demo` has installed it) chooses.
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

# --- what runs meanwhile: NAME_start CONF leaves $pid; NAME_wrong says why its outcome is not right ---

integrity_start() {
	LIMIT=900 managed "local.limit=16M;$1" "$PROG/integrity" 48M 2 40 "$RANDOM" mmap >"$T/out" 2>"$T/err" &
	pid=$!
}

integrity_wrong() {
	:
}

demo=$(dirname "$0")/../../bench/demo
model='' wanted=''

# decode CMD...: of CMD's tokens and probabilities, as one line
decode() {
	"$@" node "$demo/decode.mjs" --model "$model" --tokens "${TOKENS:-100}" --prompt 16 --context 256 \
		--threads "${THREADS:-2}"
}

# Makes the model, and knows what comes out of it with all memory local.
llama_ready() {
	[ -z "$model" ] || return 0
	have node && [ -d "$demo/node_modules" ] || return 1
	model=$(node "$demo/make-model.mjs" --cache "$T" --layers 8 --width 1024 --ffn 2816 --heads 8 \
		--kv-heads 4 --vocab 8000 2>/dev/null) || return 1
	LIMIT=300 decode plain >"$T/all-local" 2>"$T/err" || return 1
	wanted=$(digest "$T/all-local")
	[ -n "$wanted" ]
}

digest() {
	grep -o '"digest":"[0-9a-f]*"' "$1"
}

llama_start() {
	LIMIT=900 decode managed "local.limit=56M;$1" >"$T/out" 2>"$T/err" &
	pid=$!
}

llama_wrong() {
	[ "$(digest "$T/out")" = "$wanted" ] || echo "other tokens or probabilities: $(head -c 300 "$T/out")"
	grep -o '"tokens_per_second":[0-9.]*' "$T/out" >>"$T/speeds"
}

# --- the schedule ---

# Milliseconds, and what was transferred by then: KiB.
look() {
	far_mib >/dev/null
	local fetched written
	fetched=$(json "$T/poll" fetched_bytes)
	written=$(json "$T/poll" written_bytes)
	echo "$(now_ms) $(((${fetched:-0} + ${written:-0}) >> 10))"
}

# rate FROM TO: KiB in a second between two looks
rate() {
	local from=($1) to=($2)
	echo $(((to[1] - from[1]) * 1000 / (to[0] > from[0] ? to[0] - from[0] : 1)))
}

# The longest that a thread waited for a page, in ms.
longest() {
	echo $(($(grep -o '"fault_latency_us": {[^}]*' "$T/poll" | grep -o '"max": [0-9]*' | grep -o '[0-9]*$' || echo 0) / 1000))
}

# at SHARE COLUMN: of the numbers in that column of $T/rows; 50 is the median
at() {
	awk -v c="$2" '$c >= 0 { print $c }' "$T/rows" | sort -n |
		awk -v share="$1" '{ v[NR] = $1 } END { print NR ? v[int((NR - 1) * share / 100) + 1] : "-" }'
}

report() {
	printf '  %-10s %5s   %s\n' fault n 'ms until whole again; transferred, % of before:'
	printf '  %-10s %5s %8s %8s %8s %8s\n' '' '' median most meanwhile 'until whole'
	local kind
	for kind in "${kinds[@]}" all; do
		awk -v kind="$kind" '$1 == kind || kind == "all"' "$T/times" >"$T/rows"
		[ -s "$T/rows" ] && printf '  %-10s %5d %8s %8s %8s %8s\n' "$kind" "$(wc -l <"$T/rows")" \
			"$(at 50 2)" "$(at 100 2)" "$(at 50 3)" "$(at 50 4)"
	done
}

# Of the faults, and of what it said but for stores that come and go.
last_words() {
	tail -n 4 "$T/times" | tr '\n' ';'
	grep -vE 'does not answer; trying|is back$' "$T/err" | tail -n 4 | tr '\n' ' '
}

# schedule NAME CONF N TOGETHER [WORK]: over the first N servers
schedule() {
	local name=$1 conf=$2 n=$3 together=$4 work=${5:-integrity}
	local faults=0 pid='' why='' uris='' i kind runs=0 begin wait_ms=0 ms before fault after whole healthy
	local jobs=() wanted_faults=${FAULTS:-170}
	[ "$work" = integrity ] || wanted_faults=${FAULTS:-40}
	for ((i = 0; i < n; i++)); do uris+=${uri_of[${names[i]}]},; done
	: >"$T/times"
	: >"$T/speeds"
	while [ $faults -lt "$wanted_faults" ] && [ -z "$why" ]; do
		if [ -z "$pid" ]; then
			"${work}_start" "store.uri=$uris;store.timeout=20s;$conf"
			runs=$((runs + 1))
			wait_for 60 is_far 16
			whole_again "$pid"
		fi
		before=$(look)
		sleep 0.3
		fault=$(look)
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
		after=$(look)
		start_missing
		faults=$((faults + together))
		begin=$(now_ms)
		whole_again "$pid" || why="not whole again a minute after $kind: $(gist "$T/poll" 99)"
		if kill -0 "$pid" 2>/dev/null; then
			whole=$(look)
			healthy=$(rate "$before" "$fault")
			ms=$(longest)
			[ "$ms" -gt $wait_ms ] && wait_ms=$ms
			# Where it moved next to nothing before there is nothing to compare with.
			if [ "$healthy" -gt 4096 ]; then
				echo "${kind%% *} $((${whole% *} - begin)) $(($(rate "$fault" "$after") * 100 / healthy)) $(($(rate "$after" "$whole") * 100 / healthy))"
			else
				echo "${kind%% *} $((${whole% *} - begin)) -1 -1"
			fi >>"$T/times"
		else
			wait "$pid" || why="status $? after $kind: $(last_words)"
			why=${why:-$("${work}_wrong")}
			pid=''
		fi
	done
	if [ -n "$pid" ]; then
		[ -n "$why" ] && kill "$pid" 2>/dev/null
		wait "$pid" || why=${why:-"status $?: $(last_words)"}
		why=${why:-$("${work}_wrong")}
	fi
	[ $wait_ms -lt 20000 ] || why=${why:-"a thread waited for $wait_ms ms"}
	echo "$name: $faults faults, $runs runs; nobody waited longer than $wait_ms ms; load $(cut -d' ' -f1-3 /proc/loadavg)"
	report
	if [ -s "$T/speeds" ]; then
		echo "  tokens/s of the runs: $(cut -d: -f2 "$T/speeds" | sort -n | tr '\n' ' ')"
	fi
	if [ -n "$why" ]; then not_ok "$name" "seed $seed: $why"; else ok "$name"; fi
}

llama() {
	if llama_ready; then
		echo "all local: $(grep -o '"tokens_per_second":[0-9.]*' "$T/all-local" | cut -d: -f2) tokens/s"
		schedule "$@" llama
	else
		skipped "$1" "node or llama.cpp is missing (make demo installs it) $(gist "$T/err")"
	fi
}

for way in ${WAYS:-mirror parity two llama-mirror llama-parity llama-two}; do
	case $way in
	mirror) schedule "mirror" "store.redundancy=mirror" 3 1 ;;
	parity) schedule "parity" "store.redundancy=parity;store.encrypt=on" 4 1 ;;
	two) schedule "parity, two together" "store.redundancy=parity:2+2" 4 2 ;;
	llama-mirror) llama "decoding, mirror" "store.redundancy=mirror" 3 1 ;;
	llama-parity) llama "decoding, parity" "store.redundancy=parity;store.encrypt=on" 4 1 ;;
	llama-two) llama "decoding, two together" "store.redundancy=parity:2+2" 4 2 ;;
	esac
done
finish
