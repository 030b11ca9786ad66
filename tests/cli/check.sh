#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# emfatier check, --help, --version and what is no command.
# shellcheck source=tests/cli/common
. "$(dirname "$0")/common"

for policy in "$ROOT"/policies/*.conf; do
	call "$BUILD/emfatier" check "$policy"
	[ "$status" -eq 0 ] && [ "$(cat "$WORK/out")" = "$policy: ok" ] && [ ! -s "$WORK/err" ]
	verdict "check $(basename "$policy")"
done

cd "$WORK" || exit 1
printf '[local]\nlimit = 1G\n\nlimt = 2G\n' >typo.conf
call "$BUILD/emfatier" check typo.conf
says 1 'typo.conf:4: local.limt: unknown key; known are: limit, high, low (did you mean limit?)'
verdict "check: unknown key"

printf '[local]\nlimit = 12Q\n' >size.conf
call "$BUILD/emfatier" check size.conf
says 1 "size.conf:2: local.limit: '12Q' is not a size"
verdict "check: bad size"

printf '[nosuch]\n' >section.conf
call "$BUILD/emfatier" check -- section.conf
says 1 'section.conf:1: [nosuch]: unknown section'
verdict "check: unknown section"

call "$BUILD/emfatier" check none.conf
says 1 'none.conf: No such file or directory'
verdict "check: no such file"

mkfifo pipe
call "$BUILD/emfatier" check pipe
says 1 'pipe: not a regular file'
verdict "check: a pipe does not hang"

call "$BUILD/emfatier" check
says 2 'usage: emfatier check FILE'
verdict "check: without FILE"

call "$BUILD/emfatier" check typo.conf size.conf
says 2 'usage: emfatier check FILE'
verdict "check: two files"

call "$BUILD/emfatier" check --fast
says 2 'unknown option --fast'
verdict "check: unknown option"

call "$BUILD/emfatier" --version
[ "$status" -eq 0 ] && grep -q '^emfatier [0-9]' "$WORK/out"
verdict "--version"

call "$BUILD/emfatier" --help
[ "$status" -eq 0 ] && grep -q 'store.timeout' "$WORK/out" && [ ! -s "$WORK/err" ]
verdict "--help has the settings"

call "$BUILD/emfatier" run --help
[ "$status" -eq 0 ] && grep -q 'usage: emfatier run' "$WORK/out"
verdict "run --help"

call "$BUILD/emfatier"
[ "$status" -eq 2 ] && grep -q 'usage: emfatier run' "$WORK/err" && [ ! -s "$WORK/out" ]
verdict "without a command"

for word in walk top --fast; do
	call "$BUILD/emfatier" $word
	says 2 "emfatier: unknown command $word"
	verdict "unknown command $word"
done

done_testing
