#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# emfatier ctl without a process: what is wrong is said in one line, with its status.
# shellcheck source=tests/cli/common
. "$(dirname "$0")/common"

cd "$WORK" || exit 1
emfatier=$BUILD/emfatier

# wrong STATUS TEXT ARG...
wrong() {
	local want=$1 text=$2

	shift 2
	call "$emfatier" ctl "$@"
	says "$want" "$text" && grep -q '^emfatier: ctl: ' err
	verdict "ctl $*"
}

wrong 2 'which PID? usage: emfatier ctl PID set SECTION.KEY=VALUE'
wrong 2 'abc is no PID' abc set local.limit=1G
wrong 2 '0 is no PID' 0 set local.limit=1G
wrong 2 '-5 is no PID' -5 set local.limit=1G
wrong 2 '99999999999 is no PID' 99999999999 set local.limit=1G
wrong 2 'what is to be done?' $$
wrong 2 'the commands are set and store' $$ get local.limit
wrong 2 'one SECTION.KEY=VALUE' $$ set
wrong 2 'one SECTION.KEY=VALUE' $$ set local.limit=1G local.high=90
wrong 2 "local.limit: '1X' is not a size" $$ set local.limit=1X
wrong 2 'unknown key' $$ set local.limt=1G
wrong 2 "can't be changed in a running process" $$ set engine.min_region=4K
wrong 4 "no managed process with PID $$" $$ set local.limit=1G
mkdir -m 700 run
wrong 4 "no managed process with PID $$" $$ set local.limit=1G
echo x >run/$$.stats
wrong 1 'runs with another version' $$ set local.limit=1G
rm run/$$.stats
mkdir run/$$.stats
wrong 1 "PID $$: " $$ set local.limit=1G
rmdir run/$$.stats
chmod 777 run
wrong 1 'refused' $$ set local.limit=1G
chmod 700 run
wrong 4 'no managed process with PID 2147483647' 2147483647 set local.limit=1G

call "$emfatier" --help
[ "$status" -eq 0 ] && grep -q 'emfatier ctl PID set' out
verdict "ctl: in the help"

# Statistics without what is behind them, as another version may write them.
if ! ${CC:-cc} -I "$ROOT/include" -o fake "$HERE/fake_segment.c" 2>err; then
	skipped "ctl: a process without a mailbox" "no compiler for the helper"
	done_testing
fi
sleep 300 &
one=$!
STARTED=$one
./fake run $one other
wrong 1 "PID $one: it runs with another version" $one set local.limit=1G

done_testing
