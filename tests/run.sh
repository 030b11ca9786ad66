#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# run.sh BUILD [NAME...]: runs all tests (or those whose file name holds a NAME; with
# TESTS=long those of tests/long) one
# after the other and ends with "N passed, N failed, N skipped"; status 1 when
# something failed. What each of them says is kept in BUILD/test-logs.
#
# Unit tests are cmocka binaries (BUILD/tests/unit); cli/*.sh and whole/*.sh print a
# line for each result: ok NAME, not ok NAME: WHY, SKIPPED NAME: WHY.
set -u

here=$(cd "$(dirname "$0")" && pwd)
BUILD=$(cd "${1:?usage: run.sh BUILD [NAME...]}" && pwd)
shift
export BUILD
# A unit binary speaks TAP: ok N - NAME, not ok N - NAME, ok N # SKIP NAME.
export CMOCKA_MESSAGE_OUTPUT=TAP
logs=$BUILD/test-logs
mkdir -p "$logs"

passed=0 bad=0 skips=0

wanted() {
	local file=$1 name
	shift
	[ $# -eq 0 ] && return 0
	for name; do
		[[ ${file##*/} == *$name* ]] && return 0
	done
	return 1
}

# run LIMIT KIND FILE
run() {
	local limit=$1 name=$2/${3##*/} begin=$SECONDS log pid status p b s
	log=$logs/${name//\//-}.log
	printf '%s ...\n' "$name"
	timeout -k 10 "$limit" "$3" >"$log" 2>&1 </dev/null &
	pid=$!
	# A word now and then from those that take long.
	while kill -0 $pid 2>/dev/null; do
		sleep 0.2
		if [ $((SECONDS - begin)) -ge "${next:-15}" ]; then
			printf '  %d s, %d results so far\n' $((SECONDS - begin)) \
				"$(grep -cE '^(ok|not ok|SKIPPED)' "$log")"
			next=$((SECONDS - begin + 15))
		fi
	done
	unset next
	wait $pid
	status=$?
	s=$(grep -cE '^SKIPPED|^ok [0-9]+ # SKIP' "$log")
	p=$(($(grep -c '^ok' "$log") - $(grep -cE '^ok [0-9]+ # SKIP' "$log")))
	b=$(grep -c '^not ok' "$log")
	case $status in
	0) [ $((p + b + s)) -gt 0 ] || p=1 ;;
	77) s=$((s + 1)) ;;
	124 | 137)
		b=$((b + 1))
		echo "not ok $name: still running after $limit s" >>"$log"
		;;
	*)
		if [ "$b" -eq 0 ]; then
			b=1
			echo "not ok $name: ended with status $status" >>"$log"
			tail -n 20 "$log" | sed 's/^/  /'
		fi
		;;
	esac
	grep -aE '^(not ok|SKIPPED)' "$log" | sed 's/^/  /'
	printf '%s: %d passed, %d failed, %d skipped (%d s)\n' "$name" "$p" "$b" "$s" $((SECONDS - begin))
	passed=$((passed + p)) bad=$((bad + b)) skips=$((skips + s))
}

if [ "${TESTS:-}" = long ]; then
	for file in "$here"/long/*.sh; do
		wanted "$file" "$@" && run 3600 long "$file"
	done
	echo "$passed passed, $bad failed, $skips skipped"
	[ $bad -eq 0 ]
	exit
fi
for file in "$BUILD"/tests/unit/*; do
	[ -f "$file" ] && [ -x "$file" ] && wanted "$file" "$@" && run 120 unit "$file"
done
for file in "$here"/cli/*.sh; do
	[ -f "$file" ] && wanted "$file" "$@" && run 120 cli "$file"
done
for file in "$here"/whole/*.sh; do
	[ -f "$file" ] && wanted "$file" "$@" && run 900 whole "$file"
done

echo "$passed passed, $bad failed, $skips skipped"
[ $bad -eq 0 ]
