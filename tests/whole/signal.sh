#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# engine.fault=signal: where it is refused, and with it a choice of what is tested of the other mode.
# All rows, and any other of these tests: FAULT=signal tests/run.sh build semantics
# shellcheck source-path=SCRIPTDIR source=lib.bash
. "$(dirname "$0")/lib.bash"
here=$(cd "$(dirname "$0")" && pwd)

# refused NAME CONF LINE: runs in the other mode, after that line
refused() {
	managed "engine.fault=signal;local.limit=16M;$2" "$PROG/integrity" 32M 2 1 1 mmap 4 >"$T/out" 2>"$T/err"
	local status=$?
	if [ $status -ne 0 ]; then
		not_ok "$1" "status $status: $(gist "$T/err")"
	elif [ "$(grep -c "engine.fault" "$T/err")" -ne 1 ] || ! grep -q "engine.fault=signal: $3" "$T/err"; then
		not_ok "$1" "says: $(gist "$T/err")"
	else
		ok "$1"
	fi
}
refused "refused without MOVE" "store.uri=mem:;engine.move=off" "needs engine.move"
refused "refused with memory in place" "store.uri=mem:;store.in_place=16M" "not with store.in_place"

# What ran by signal has no fault that was read from the handle.
TIERSTAT_OUT=$T/stats managed "engine.fault=signal;local.limit=16M;store.uri=mem:" \
	"$PROG/integrity" 64M 4 2 1 mmap >"$T/out" 2>"$T/err"
why=$(went_wrong $? "$T/err")
why=${why:-$(not_tiered "$T/stats" 64M)}
[ -n "$why" ] || grep -q '"uffd_mode": "signal"' "$T/stats" || why="tierstat tells another mode"
result "integrity" "$why"

export FAULT=signal
# in_turn NAME VARIABLE=VALUE... SCRIPT: its results as our own
in_turn() {
	local name=$1
	shift
	env "${@:1:$#-1}" "$here/${!#}" >"$T/result" 2>&1 || failed=1
	sed -E "s/^(ok|not ok|SKIPPED) /\\1 $name /" "$T/result"
}
in_turn semantics PROGRAMS="syscalls threads guarded" semantics.sh
in_turn "past libc" PROGRAMS="window weights" ROWS="instructions-read weights-remap-past-libc" semantics.sh
in_turn model MODES="tiered chaos tiered-threads" MODEL_SECONDS=3 model.sh
finish
