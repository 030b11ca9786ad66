# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# Memory servers by name that tests kill and start again; source it after lib.bash.

declare -A pid_of uri_of
# server NAME [OPTION...]
server() {
	local name=$1
	nbd_start "$@"
	pid_of[$name]=$nbd_pid uri_of[$name]=$nbd_uri
	echo "$nbd_pid" >"$T/$name.pid" # for who started a subshell that does this
}

kill_server() {
	kill -KILL "${pid_of[$1]}"
	wait "${pid_of[$1]}" 2>/dev/null
	rm -f "$T/$1.sock"
}

far_mib() {
	local n
	for pid_file in "$EMFATIER_RUN_DIR"/*.stats; do
		pid_file=${pid_file##*/}
		"$TIERSTAT" --json -p "${pid_file%.stats}" >"$T/poll" 2>/dev/null
	done
	n=$(json "$T/poll" far_bytes)
	echo $((${n:-0} >> 20))
}

is_far() {
	[ "$(far_mib)" -ge "$1" ]
}

# As far as it goes: nothing has gone there since the last look.
far_rests() {
	local was=$far
	far=$(far_mib)
	[ "$far" = "$was" ]
}

is_hurt() {
	far_mib >/dev/null
	grep -qE '"state": "(down|rebuilding|degraded)"' "$T/poll"
}

# Every store answers, and nothing is left to be rebuilt.
is_whole() {
	far_mib >/dev/null
	grep -q '"state"' "$T/poll" && ! grep -qE '"state": "(down|rebuilding|degraded)"' "$T/poll" &&
		! grep -q '"rebuild_bytes": [1-9]' "$T/poll"
}
