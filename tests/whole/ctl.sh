#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# emfatier ctl: what it changes in a running process, and what it refuses; local.limit=auto and
# PERCENT, which change by themselves with the memory there is (made-up files, and a control
# group where there is root).
. "$(dirname "$0")/lib.bash"
# shellcheck source=hold.bash
. "$(dirname "$0")/hold.bash"

groups=()
end_groups() {
	local dir
	for dir in "${groups[@]}"; do
		for _ in 1 2 3 4 5 6 7 8 9 10; do
			rmdir "$dir" 2>/dev/null && break
			sleep 0.2
		done
	done
}
trap 'cleanup; end_groups' EXIT

mode() {
	"$TIERSTAT" --json -p "$pid" 2>/dev/null | grep -o '"uffd_mode": "[a-z]*"' |
		grep -o '[a-z]*"$' | tr -d '"'
}

# fits SIZE: local_bytes and local_limit are at most that, the limit not zero
fits() {
	local local limit
	local=$(stat_of local_bytes) limit=$(stat_of local_limit)
	[ -n "$local" ] && [ "$limit" -gt 0 ] && [ "$limit" -le "$(bytes "$1")" ] &&
		[ "$local" -le "$(bytes "$1")" ]
}

# --- a program with a malloc of its own: nobody in it takes changes up once memory moves ---

LD_PRELOAD="$LIB" EMFATIER_CONF='local.limit=32M;store.uri=mem:' "$PROG/allocator" threads 512M \
	>"$T/own.out" 2>&1 &
pid=$!
started+=("$pid")
moves() {
	[ "$(mode)" = thread ]
}
wait_for 30 moves
refused "ctl: a malloc of its own" 1 'a malloc of its own takes up no change' set local.limit=64M
wait "$pid" && ok "ctl: a malloc of its own, it goes on" ||
	not_ok "ctl: a malloc of its own, it goes on" "$(gist "$T/own.out")"

# --- idle, shrunk, grown, shrunk while it is swept, forked ---

hold_start hold 'local.limit=1G;store.uri=mem:;class.big.match=size>=4M' 96
[ "$(mode)" = idle ] && ok "ctl: it is idle at first" || not_ok "ctl: it is idle at first" "it is $(mode)"
ctl set local.limit=32M
if [ $status -eq 0 ] && [ "$(mode)" = thread ] && fits 32M && [ "$(stat_of far_bytes)" -ge "$(bytes 64M)" ]; then
	ok "ctl: an idle process is shrunk"
else
	not_ok "ctl: an idle process is shrunk" "status $status, $(gist "$T/ctl.err") $(gist "$T/hold.err") $(cat "$T/stat")"
fi
say check
[ "$(answer 2)" = right ] && ok "ctl: shrunk, all is there" || not_ok "ctl: shrunk, all is there" "$(gist "$T/hold.err")"
[ "$(stat_of peak_local_bytes)" -gt 0 ] && fits 34M && ok "ctl: the budget is kept" ||
	not_ok "ctl: the budget is kept" "$(cat "$T/stat")"
ctl set local.limit=200M
say check
if [ $status -eq 0 ] && [ "$(answer 3)" = right ] && [ "$(stat_of local_bytes)" -ge "$(bytes 90M)" ]; then
	ok "ctl: grown, all becomes local"
else
	not_ok "ctl: grown, all becomes local" "status $status, $(gist "$T/hold.err") $(cat "$T/stat")"
fi
say sweep
bad=''
for size in 24M 80M 8M 48M 16M; do
	ctl set local.limit=$size
	[ $status -eq 0 ] && fits $size || bad+=" $size: status $status, $(gist "$T/ctl.err")$(stat_of local_bytes)"
done
say check
if [ -z "$bad" ] && [[ $(answer 4) == swept* ]] && [ "$(answer 5)" = right ]; then
	ok "ctl: changed again and again while it is swept"
else
	not_ok "ctl: changed again and again while it is swept" "$bad $(gist "$T/hold.err")"
fi
say fork
[ "$(answer 6)" = right ] && ok "ctl: a fork afterwards" || not_ok "ctl: a fork afterwards" "$(gist "$T/hold.err")"

evicted=$(stat_of evicted_blocks)
ctl set engine.chaos=2000
chaotic() {
	[ "$(stat_of evicted_blocks)" -gt $((evicted + 20)) ]
}
ctl set local.limit=200M
say sweep
[ $status -eq 0 ] && wait_for 20 chaotic && ok "ctl: engine.chaos" || not_ok "ctl: engine.chaos" "$(gist "$T/ctl.err")"
ctl set engine.chaos=0
say check
[[ $(answer 7) == swept* ]] && [ "$(answer 8)" = right ] || not_ok "ctl: after chaos" "$(gist "$T/hold.err")"

bad=''
for setting in store.timeout=3s local.low=80 local.high=90 class.big.window=3 class.big.resident=20 \
	class.big.prefetch=off class.big.evict=loop local.limit=1G; do
	ctl set "$setting"
	[ $status -eq 0 ] || bad+=" $setting: $(gist "$T/ctl.err")"
done
[ -z "$bad" ] && ok "ctl: every other key" || not_ok "ctl: every other key" "$bad"
ctl set local.limit=1K
[ $status -eq 0 ] && fits 8M && grep -q 'it is 8M' "$T/ctl.out" && ok "ctl: the smallest" ||
	not_ok "ctl: the smallest" "status $status $(gist "$T/ctl.err")"
ctl set local.limit=1000000G
[ $status -eq 0 ] && grep -q 'the host has no more' "$T/ctl.out" && ok "ctl: more than there is" ||
	not_ok "ctl: more than there is" "status $status $(gist "$T/ctl.out")"
refused "ctl: a key that is fixed" 2 "store.uri: can't be changed in a running process" set store.uri=mem:
refused "ctl: a class key that is fixed" 2 "can't be changed in a running process" set 'class.big.match=size>=1M'
refused "ctl: a class that it has not" 2 "no class of that name" set class.other.window=3
refused "ctl: a wrong value" 2 "'much' is not a size" set local.limit=much
refused "ctl: no setting" 2 "not a setting" set local
refused "ctl: what does not go together" 2 "local.low: 95 is above local.high, 90" set local.low=95
say check
[ "$(answer 9)" = right ] && ok "ctl: all is there at the end" || not_ok "ctl: all is there at the end" "$(gist "$T/hold.err")"
hold_end
refused "ctl: a process that has ended" 4 "no managed process" set local.limit=1G

# The runtime's threads of an idle process do not keep it alive, nor does its child lack them.
hold_start leave 'local.limit=1G;store.uri=mem:' 64
[ "$(mode)" = idle ] && [ "$(ls "/proc/$pid/task" | wc -l)" -gt 1 ] && say fork && [ "$(answer 2)" = right ] ||
	not_ok "ctl: an idle process has its watch" "$(mode), $(ls "/proc/$pid/task" | wc -l) threads"
say leave
left() {
	! kill -0 "$pid" 2>/dev/null
}
wait_for 20 left && hold_end && ok "ctl: an idle process ends with its last thread" ||
	not_ok "ctl: an idle process ends with its last thread" "it still runs, or ended with another status than 0"

# --- who may not, what is not ---

hold_start small 'local.limit=1G' 8
ctl set local.limit=2G
[ $status -eq 0 ] && grep -q noted "$T/ctl.out" && ok "ctl: a process that manages little" ||
	not_ok "ctl: a process that manages little" "status $status $(gist "$T/ctl.err")"
say more 8
answer 2 >/dev/null
[ "$(stat_of local_limit)" = $((2 << 30)) ] && ok "ctl: it takes it up with its next memory" ||
	not_ok "ctl: it takes it up with its next memory" "$(cat "$T/stat")"
# Anything in the mailbox but what ctl writes: 0xff over its page, behind the statistics.
size=$(stat -c %s "$EMFATIER_RUN_DIR/$pid.stats")
head -c $((size % 4096)) /dev/zero | tr '\0' '\377' |
	dd of="$EMFATIER_RUN_DIR/$pid.stats" bs=1 seek=$((size - size % 4096)) conv=notrunc 2>/dev/null
say more 8
if [ "$(answer 3)" = ready ] && say check && [ "$(answer 4)" = right ]; then
	ok "ctl: nonsense in the mailbox harms nobody"
else
	not_ok "ctl: nonsense in the mailbox harms nobody" "$(gist "$T/small.err")"
fi
if [ "$(id -u)" -eq 0 ] && have setpriv; then
	cp "$EMFATIER" "$T/emfatier"
	chmod 755 "$T" "$T/emfatier" "$EMFATIER_RUN_DIR"
	setpriv --reuid 65534 --regid 65534 --clear-groups "$T/emfatier" ctl "$pid" set local.limit=1G \
		>"$T/ctl.out" 2>"$T/ctl.err"
	status=$?
	[ $status -eq 1 ] && grep -q 'belongs to another user (uid 0)' "$T/ctl.err" && ok "ctl: another user's process" ||
		not_ok "ctl: another user's process" "status $status $(gist "$T/ctl.err")"
else
	skipped "ctl: another user's process" "needs root and setpriv"
fi
hold_end

# --- by itself: made-up files ---

root=$T/root
mkdir -p "$root/proc/self" "$root/proc/pressure" "$root/sys/fs/cgroup/a/b"
echo 'MemTotal: 16777216 kB
MemAvailable: 16000000 kB' >"$root/proc/meminfo"
echo '100000 1024 0 0 0 0 0' >"$root/proc/self/statm"
echo 0::/a/b >"$root/proc/self/cgroup"
group=$root/sys/fs/cgroup/a/b
echo 1073741824 >"$group/memory.max"
echo 104857600 >"$group/memory.current"
# In place of the old file at once: it is read at any time.
put() {
	echo "$2" >"$1.new"
	mv "$1.new" "$1"
}
put "$group/memory.pressure" 'some avg10=0.00 avg60=0.00 avg300=0.00 total=1000'
hold_start auto 'local.limit=auto;store.uri=mem:' 96 env EMFATIER_MEMORY_ROOT="$root"
limit=$(stat_of local_limit)
[ "$(mode)" = idle ] && [ "${limit:-0}" -gt "$(bytes 700M)" ] && [ "$limit" -le "$(bytes 820M)" ] &&
	ok "auto: 80% of the group's memory" || not_ok "auto: 80% of the group's memory" "$limit, $(mode)"
put "$group/memory.max" $((64 << 20))
put "$group/memory.current" $((32 << 20))
wait_for 20 fits 52M && ok "auto: follows the group's limit" ||
	not_ok "auto: follows the group's limit" "$(mode) $(cat "$T/stat")"
before=$(stat_of local_limit)
put "$group/memory.max" 1073741824
grown() {
	[ "$(stat_of local_limit)" -gt $((before + (8 << 20))) ]
}
wait_for 30 grown && ok "auto: grows back" || not_ok "auto: grows back" "$(cat "$T/stat")"
say check
[ "$(answer 2)" = right ] && ok "auto: all is there" || not_ok "auto: all is there" "$(gist "$T/auto.err")"
hold_end

# The process has 100 MiB of a group that has 224 MiB left: a budget of 269 MiB. Then somebody waits
# for memory all the time.
put "$root/proc/self/statm" '100000 25600 0 0 0 0 0'
put "$group/memory.max" $((1 << 30))
put "$group/memory.current" $((800 << 20))
hold_start pressed 'local.limit=auto;store.uri=mem:' 96 env EMFATIER_MEMORY_ROOT="$root"
settled() {
	[ "$(stat_of local_limit)" -le $((285 << 20)) ]
}
wait_for 30 settled && ok "auto: leaves the room that there is" ||
	not_ok "auto: leaves the room that there is" "$(cat "$T/stat")"
n=1000
pressed() {
	n=$((n + 500000))
	put "$group/memory.pressure" "some avg10=9.00 avg60=0.00 avg300=0.00 total=$n"
	[ "$(stat_of local_limit)" -lt $((250 << 20)) ]
}
wait_for 30 pressed && ok "auto: gives way to pressure" || not_ok "auto: gives way to pressure" "$(cat "$T/stat")"
say check
[ "$(answer 2)" = right ] || not_ok "auto: under pressure" "$(gist "$T/pressed.err")"
hold_end

hold_start percent 'local.limit=25%;store.uri=mem:' 64 env EMFATIER_MEMORY_ROOT="$root"
put "$group/memory.max" $((128 << 20))
wait_for 20 fits 32M && ok "auto: PERCENT follows the group's limit" ||
	not_ok "auto: PERCENT follows the group's limit" "$(cat "$T/stat")"
hold_end

# --- by itself: a real group, and others in it ---

mount=$(awk '$3 == "cgroup" && $4 ~ /(^|,)memory(,|$)/ { print $2; exit }' /proc/mounts)
if [ "$(id -u)" -eq 0 ] && [ -n "$mount" ] && mkdir "$mount/emfatier-test-$$" 2>/dev/null; then
	real=$mount/emfatier-test-$$
	groups+=("$real")
	echo $((328 << 20)) >"$real/memory.limit_in_bytes"
	inside() {
		echo "$BASHPID" >"$real/cgroup.procs"
		exec "$@"
	}
	# Its store is not in the group's memory.
	hold_start group 'local.limit=auto' 160 inside
	limit=$(stat_of local_limit)
	[ "${limit:-0}" -gt "$(bytes 160M)" ] && [ "$limit" -le "$(bytes 263M)" ] &&
		ok "auto: a real group's limit" || not_ok "auto: a real group's limit" "${limit:-none} $(gist "$T/group.err")"
	(inside "$PROG/hold" 156 < <(sleep 300 & echo $! >"$T/sleep"; wait) >"$T/neighbour.out" 2>&1) &
	neighbour=$!
	wait_for 60 grep -q ready "$T/neighbour.out"
	roomy() {
		[ "$(stat_of far_bytes)" -gt 0 ] && [ "$(stat_of local_limit)" -le $((158 << 20)) ]
	}
	wait_for 30 roomy && kill -0 "$neighbour" && ok "auto: makes room for a neighbour in the group" ||
		not_ok "auto: makes room for a neighbour in the group" \
			"$(cat "$real/memory.usage_in_bytes") used, $(gist "$T/neighbour.out") $(cat "$T/stat")"
	say check
	[ "$(answer 2)" = right ] && ok "auto: all is there, in the group" ||
		not_ok "auto: all is there, in the group" "$(gist "$T/group.err")"
	kill "$(cat "$T/sleep")"
	wait "$neighbour"
	hold_end
else
	skipped "auto: a real group's limit" "needs root and a control group of memory, version 1"
fi

finish
