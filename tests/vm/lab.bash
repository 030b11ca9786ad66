# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# To be sourced: commands in machines of the lab, and what becomes of them.
lab=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# in_lab LIMIT VMLAB-OPTION... -- COMMAND...: what it said is in $out, its status in $status; 125: the lab
# failed; 77: check.sh has no time left for it, or not as much as LIMIT, and that was not enough.
in_lab() {
	local limit=$1 left=$1
	shift
	[ -z "${LAB_UNTIL:-}" ] || left=$((LAB_UNTIL - $(date +%s)))
	[ "$left" -le "$limit" ] || left=$limit
	out='there is no time left'
	status=77
	[ "$left" -ge 60 ] || return 0
	out=$(nice -n 5 "$lab/vmlab" run --timeout "$left" "$@" 2>&1)
	status=$?
	[ $status -ne 124 ] || [ "$left" -eq "$limit" ] || status=77
}

# unlucky NAME: true, and said: none of it, or not all of it, could be tried
unlucky() {
	case $status in
	77) echo "SKIPPED $1: no time is left: $(tail -n 1 <<<"$out")" ;;
	125)
		# A machine that ends in the middle is no bad luck.
		! grep -qE '^(ok|not ok) ' <<<"$out" || return 1
		echo "SKIPPED $1: the lab does not start: $(tail -n 1 <<<"$out")"
		;;
	*) return 1 ;;
	esac
}
