#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What is left behind after a normal end and after SIGKILL: nothing in a file store's
# directory, no space on a memory server, no statistics of a process that is gone.
# shellcheck source-path=SCRIPTDIR source=lib.bash
. "$(dirname "$0")/lib.bash"

far_bytes() {
	"$TIERSTAT" --json -p "$1" >"$T/poll" 2>/dev/null && json "$T/poll" far_bytes
}

has_far() {
	local n
	n=$(far_bytes "$1")
	[ "${n:-0}" -gt $((32 << 20)) ]
}

# start URI: a program that has memory far and will go on for a long time; sets pid
start() {
	env LD_PRELOAD="$LIB" EMFATIER_CONF="local.limit=32M;store.uri=$1" \
		"$PROG/integrity" 128M 2 100000 1 mmap >"$T/out" 2>"$T/err" &
	pid=$!
	started+=("$pid")
	wait_for 20 has_far "$pid"
}

kill_it() {
	kill -KILL "$pid"
	wait "$pid" 2>/dev/null
}

is_empty() {
	[ -z "$(names "$1")" ]
}

# The first names in a directory, on one line.
names() {
	find "$1" -mindepth 1 -printf '%P\n' 2>/dev/null | sort | head -n 3 | tr '\n' ' '
}

mkdir "$T/store"
if ! start "file:$T/store"; then
	not_ok "file store in use" "nothing went far: $(gist "$T/err")"
elif ! is_empty "$T/store"; then
	not_ok "file store in use" "the directory has $(names "$T/store")"
else
	ok "file store in use"
fi
kill_it
if is_empty "$T/store"; then
	ok "file store after SIGKILL"
else
	not_ok "file store after SIGKILL" "the directory has $(names "$T/store")"
fi

"$TIERSTAT" >"$T/list" 2>&1
"$TIERSTAT" --json >"$T/list.json" 2>&1
if grep -qw "$pid" "$T/list" "$T/list.json"; then
	not_ok "statistics after SIGKILL" "tierstat shows $pid: $(gist "$T/list")"
elif [[ $(names "$EMFATIER_RUN_DIR") =~ (^|\ )$pid ]]; then
	not_ok "statistics after SIGKILL" "left: $(names "$EMFATIER_RUN_DIR")"
else
	ok "statistics after SIGKILL"
fi
"$TIERSTAT" --json -p "$pid" >"$T/out" 2>"$T/err"
status=$?
if [ $status -eq 4 ]; then
	ok "tierstat of a process that is gone"
else
	not_ok "tierstat of a process that is gone" "status $status instead of 4"
fi

# The default store's directory.
TIERSTAT_OUT=$T/stats managed "local.limit=32M" "$PROG/integrity" 128M 2 1 1 mmap >"$T/out" 2>"$T/err"
why=$(not_tiered "$T/stats" 32M)
if [ -n "$why" ]; then
	not_ok "nothing left after a normal end" "$why"
elif [ -z "$(find "$XDG_CACHE_HOME" -type f 2>/dev/null)" ] && is_empty "$EMFATIER_RUN_DIR"; then
	ok "nothing left after a normal end"
else
	not_ok "nothing left after a normal end" \
		"$(find "$XDG_CACHE_HOME" "$EMFATIER_RUN_DIR" -type f | head -n 3 | tr '\n' ' ')"
fi

# Bytes that the memory server holds.
held() {
	nbdinfo --map --totals "$nbd_uri" 2>/dev/null | awk '$NF == "data" { n = $1 } END { print n + 0 }'
}

holds_much() {
	[ "$(held)" -gt $((32 << 20)) ]
}

holds_nothing() {
	[ "$(held)" -eq 0 ]
}

if ! have nbdkit || ! have nbdinfo; then
	skipped "memory server" "no nbdkit or nbdinfo"
	finish
fi
nbd_start server 512M
if ! start "$nbd_uri" || ! wait_for 5 holds_much; then
	not_ok "memory server in use" "holds $(held) bytes: $(gist "$T/err")"
else
	ok "memory server in use"
fi
kill_it
if wait_for 30 holds_nothing; then
	ok "memory server after SIGKILL"
else
	not_ok "memory server after SIGKILL" "it still holds $(held) bytes"
fi

# At once again, while the first one's space may not be given back yet.
start "$nbd_uri" || not_ok "memory server in use again" "nothing went far: $(gist "$T/err")"
kill_it
rm -f "$T/stats"
TIERSTAT_OUT=$T/stats managed "local.limit=32M;store.uri=$nbd_uri" "$PROG/integrity" 128M 2 1 1 mmap \
	>"$T/out" 2>"$T/err"
why=$(went_wrong $? "$T/err")
result "memory server used again after SIGKILL" "${why:-$(not_tiered "$T/stats" 32M)}"
if wait_for 30 holds_nothing; then
	ok "memory server after a normal end"
else
	not_ok "memory server after a normal end" "it still holds $(held) bytes"
fi

# A region that ends gives its space back while the program lives on.
if ! TIERSTAT_OUT=$T/stats managed "local.limit=32M;store.uri=$nbd_uri" \
	"$PROG/heap" churn 128M >"$T/out" 2>"$T/err"; then
	not_ok "freed memory" "$(gist "$T/err")"
elif [ "$(json "$T/stats" far_bytes)" -gt $((16 << 20)) ]; then
	not_ok "freed memory" "everything is freed, but far_bytes is $(json "$T/stats" far_bytes)"
else
	ok "freed memory"
fi
finish
