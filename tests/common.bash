# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# What all tests that are scripts share. Source it. It gives
#   ok NAME, not_ok NAME WHY, skipped NAME WHY    a result, as tests/run.sh counts them
#   result NAME WHY       ok when WHY is empty
#   failed                1 once anything has failed
#   have CMD              is there such a command?
#   wait_for SECONDS CMD...    until CMD succeeds; false: it did not in time
failed=0

ok() {
	echo "ok $1"
}

not_ok() {
	echo "not ok $1: $2"
	# shellcheck disable=SC2034 # for who sources this
	failed=1
}

skipped() {
	echo "SKIPPED $1: $2"
}

result() {
	if [ -z "$2" ]; then ok "$1"; else not_ok "$1" "$2"; fi
}

have() {
	command -v "$1" >/dev/null
}

wait_for() {
	local end=$((SECONDS + $1))
	shift
	until "$@"; do
		[ $SECONDS -lt $end ] || return 1
		sleep 0.05
	done
}
