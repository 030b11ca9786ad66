#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Stores that are killed, frozen, lie and fail while a program has its memory there:
# no wrong byte, no hang; and what a server can see of it when it is encrypted.
# tests/long/store-faults.sh does the same hundreds of times, at random.
# shellcheck source-path=SCRIPTDIR source=lib.bash
. "$(dirname "$0")/lib.bash"
# shellcheck source=faults.bash
. "$(dirname "$0")/faults.bash"

# during NAME CONF COMMAND...: integrity under CONF while COMMAND does its worst
during() {
	local name=$1 conf=$2 seed=${SEED:-$RANDOM} pid why='' status
	shift 2
	rm -f "$T/stats"
	TIERSTAT_OUT=$T/stats LIMIT=120 managed "local.limit=20M;$conf" \
		"$PROG/integrity" "${SIZE:-64M}" 4 "${ROUNDS:-2}" "$seed" mmap >"$T/out" 2>"$T/err" &
	pid=$!
	"$@"
	wait $pid
	status=$?
	if [ $status -ne 0 ]; then
		why="status $status (seed $seed): $(gist "$T/err")"
	else
		# Where writes fail memory stays local for a while.
		why=$(not_tiered "$T/stats" 8M)
	fi
	result "$name" "$why"
}

# What is wrong with one member of a store, by the line of settings.
during "mirror, one corrupts" "store.uri=mem:,mem:;store.redundancy=mirror;store.inject=1:corrupt=0.2" true
during "mirror, one fails" "store.uri=mem:,mem:;store.redundancy=mirror;store.inject=2:error=0.2" true
during "parity 3+2, two are bad" \
	"store.uri=mem:,mem:,mem:,mem:,mem:;store.redundancy=parity:3+2;store.inject=1:corrupt=0.2,2:error=0.2;store.encrypt=on" true
# The default seed has four bad reads in a row, and what is bad four times is lost, rightly.
during "one, damaged on the way" "store.uri=mem:;store.inject=corrupt=0.05,seed=7" true

if ! have nbdkit || ! have nbdcopy; then
	skipped "servers" "no nbdkit or nbdcopy"
	finish
fi

# Each loses all it has, one after the other.
kill_each() {
	local each
	wait_for 20 is_far 30
	for each; do
		kill_server "$each"
		# Who does not read or write at that time does not know of it, and so neither of the loss.
		wait_for 10 is_hurt || echo "the end of $each was not noticed" >>"$T/err"
		server "$each" 256M
		wait_for 30 is_whole || echo "not whole again" >>"$T/err"
	done
}

freeze() {
	wait_for 20 is_far 30
	kill -STOP "${pid_of[$1]}"
	sleep 1
	kill -CONT "${pid_of[$1]}"
}

server a 256M
server b 256M
server c 256M
three="${uri_of[a]},${uri_of[b]},${uri_of[c]}"
ROUNDS=5 during "mirror, servers killed" "store.uri=$three;store.redundancy=mirror;store.timeout=5s" kill_each a b
ROUNDS=5 during "parity, servers killed" "store.uri=$three;store.redundancy=parity:2+1;store.timeout=5s" kill_each c a
during "parity, frozen" "store.uri=$three;store.redundancy=parity;store.timeout=4s" freeze b
# filtered NAME FILTER PARAMETER...
filtered() {
	local name=$1 filter=$2
	shift 2
	nbdkit -f -t 1 -U "$T/$name.sock" --filter="$filter" memory 256M "$@" >"$T/$name.log" 2>&1 &
	started+=($!)
	uri_of[$name]="nbd+unix:///?socket=$T/$name.sock"
	wait_for 10 test -S "$T/$name.sock"
}
filtered d error error-pread-rate=10% error-pwrite-rate=5%
filtered e delay rdelay=2ms wdelay=2ms
during "parity, nbdkit's filters" \
	"store.uri=${uri_of[d]},${uri_of[e]},${uri_of[a]};store.redundancy=parity" true

# Of the connections to port $1: bytes that are still to be sent, hexadecimal, one line each.
to_send() {
	awk -v port="$(printf ':%04X' "$1")" '$3 ~ port "$" { split($5, q, ":"); if (q[1] !~ /^0*$/) print q[1] }' /proc/net/tcp
}
is_to_send() {
	[ -n "$(to_send "$port")" ]
}

is_sent() {
	! is_to_send
}

# What a process that ends has not sent by then must not come later: its slots are another's by then.
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
nbdkit -f -t 1 -i 127.0.0.1 -p "$port" memory 1G >"$T/tcp.log" 2>&1 &
tcp_pid=$!
started+=($tcp_pid)
wait_for 10 nbdinfo --size "nbd://127.0.0.1:$port" >/dev/null 2>&1
env LD_PRELOAD="$LIB" EMFATIER_CONF="local.limit=20M;store.uri=nbd://127.0.0.1:$port" \
	"$PROG/integrity" 512M 2 999 1 mmap >"$T/out" 2>"$T/err" &
pid=$!
started+=($pid)
wait_for 20 is_far 4 # it still fills its memory, so it writes
kill -STOP $tcp_pid
why=''
wait_for 20 is_to_send || why='nothing waited to be sent: the test sees nothing'
kill -KILL $pid
wait $pid 2>/dev/null
[ -z "$why" ] && ! wait_for 10 is_sent && why="still to be sent: $(to_send "$port" | tr '\n' ' ')"
result "killed while it sends" "$why"
kill -CONT $tcp_pid
kill $tcp_pid

# words NAME CONF: leaves a program with far memory; sets pid
words() {
	rm -f "$T/$1.go" "$T/$1.ready"
	LIMIT=60 managed "local.limit=20M;$2" "$PROG/words" 64M "$T/$1" >"$T/$1.out" 2>"$T/$1.err" &
	pid=$!
	wait_for 20 test -e "$T/$1.ready"
}

# The number of secrets that the server of that name holds.
seen() {
	nbdcopy "${uri_of[$1]}" - 2>/dev/null | grep -ao 'far-memory-secret' | wc -l
}

# Encrypted or not: what the memory of a server has of the program's.
for how in off on; do
	words crypt "store.uri=${uri_of[a]};store.encrypt=$how"
	wait_for 10 is_far 30
	found=$(seen a)
	touch "$T/crypt.go"
	wait $pid
	if ! grep -q "right 16384 lost 0 wrong 0" "$T/crypt.out"; then
		not_ok "encrypt=$how" "$(gist "$T/crypt.out") $(gist "$T/crypt.err")"
	elif [ $how = off ] && [ "$found" -eq 0 ]; then
		not_ok "encrypt=$how" "the server has none of the words: the test sees nothing"
	elif [ $how = on ] && [ "$found" -ne 0 ]; then
		not_ok "encrypt=$how" "the server has $found of the words"
	else
		ok "encrypt=$how"
	fi
done

# Nothing redundant: a server that comes back with its data costs the wait ...
truncate -s 256M "$T/disk"
disk() {
	nbdkit -f -t 1 -U "$T/disk.sock" file "$T/disk" >"$T/disk.log" 2>&1 &
	pid_of[disk]=$!
	started+=("${pid_of[disk]}")
	wait_for 10 test -S "$T/disk.sock"
}
disk
uri_of[disk]="nbd+unix:///?socket=$T/disk.sock"
words back "store.uri=${uri_of[disk]};store.timeout=20s"
wait_for 10 is_far 30
kill_server disk
touch "$T/back.go"
sleep 0.5
disk
wait $pid
if grep -q "right 16384 lost 0 wrong 0" "$T/back.out"; then
	ok "back in time"
else
	not_ok "back in time" "$(gist "$T/back.out") $(gist "$T/back.err")"
fi

# ... one that comes back empty, what was there alone and nothing else.
words empty "store.uri=${uri_of[b]};store.timeout=5s"
wait_for 10 is_far 30
far=
wait_for 10 far_rests
kill_server b
server b 256M
touch "$T/empty.go"
wait $pid
if read -r _ right _ lost _ wrong <"$T/empty.out" && [ "$wrong" -eq 0 ] && [ "$lost" -gt 0 ] &&
	[ $((right + lost)) -eq 16384 ] && [ "$lost" -le $((far * 256)) ]; then
	ok "exactly the lost pages"
else
	not_ok "exactly the lost pages" "far $far MiB; $(gist "$T/empty.out") $(gist "$T/empty.err")"
fi
finish
