# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# A program that holds memory and does what it is told (tests/prog/hold.c), and what changes it
# from outside; source it after lib.bash. $pid is the program that was started last.

# hold_start NAME CONF SIZE_MIB [COMMAND...]: started, and all of it filled; $T/NAME.out has what it
# says, $T/NAME.err its errors. COMMAND goes in front of it, for its environment.
hold_start() {
	local conf=$2 size=$3
	running=$1
	shift 3
	rm -f "$T/$running.in"
	mkfifo "$T/$running.in"
	: >"$T/$running.out"
	"$@" env LD_PRELOAD="$LIB" EMFATIER_CONF="$conf" "$PROG/hold" "$size" \
		<"$T/$running.in" >"$T/$running.out" 2>"$T/$running.err" &
	pid=$!
	started+=("$pid")
	exec 9>"$T/$running.in"
	answer 1 30 >/dev/null
}

# say WORDS: a line of its input
say() {
	echo "$*" >&9
}

answers() {
	[ "$(wc -l <"$T/$running.out")" -ge "$1" ]
}

# answer N [SECONDS]: the n-th line of what it says, once it is there
answer() {
	wait_for "${2:-60}" answers "$1" && sed -n "$1p" "$T/$running.out"
}

# right NAME [WORDS]: it says so of all its memory, asked by WORDS
right() {
	local n=$(($(wc -l <"$T/$running.out") + 1))
	say "${2:-check}"
	[ "$(answer $n)" = right ] && ok "$1" || not_ok "$1" "$(gist "$T/$running.out") $(gist "$T/$running.err")"
}

# Its input ends, and so does it; its status.
hold_end() {
	exec 9>&-
	wait "$pid"
}

# stat_of NAME: a number of its statistics; all of them are in $T/stat
stat_of() {
	"$TIERSTAT" --json -p "$pid" >"$T/stat" 2>/dev/null
	json "$T/stat" "$1"
}

# ctl ARG...: leaves $status, $T/ctl.out, $T/ctl.err
ctl() {
	timeout 60 "$EMFATIER" ctl "$pid" "$@" >"$T/ctl.out" 2>"$T/ctl.err"
	status=$?
}

# refused NAME STATUS WORDS ARG...: by emfatier ctl, in one line that has WORDS
refused() {
	local name=$1 want=$2 words=$3
	shift 3
	ctl "$@"
	if [ $status -eq "$want" ] && [ "$(wc -l <"$T/ctl.err")" -eq 1 ] && grep -qF -- "$words" "$T/ctl.err"; then
		ok "$name"
	else
		not_ok "$name" "status $status: $(gist "$T/ctl.err")"
	fi
}
