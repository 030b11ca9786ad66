#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# check.sh BUILD: all that needs a machine of the lab; the last line is as that of make check. With
# CHECK_VM_MINUTES what would take longer than that in all is skipped.
set -u
here=$(cd "$(dirname "$0")" && pwd)
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if [ -n "${CHECK_VM_MINUTES:-}" ]; then
	LAB_UNTIL=$(($(date +%s) + CHECK_VM_MINUTES * 60))
	export LAB_UNTIL
fi
# Where it can't be had at all this says so once.
timeout 1200 "$here/vmlab" run --no-rdma -- true >"$log" 2>&1 </dev/null
case $? in
124 | 125 | 137)
	echo "SKIPPED vm: no machine of the lab can be had here: $(tail -n 1 "$log")"
	echo "0 passed, 0 failed, 1 skipped"
	exit 0
	;;
esac
: >"$log"
for part in rdma tiers; do
	"$here/$part.sh" "${1:?usage: check.sh BUILD}" | tee -a "$log"
	# It ends badly only with a line that says so.
	[ "${PIPESTATUS[0]}" -eq 0 ] || grep -q '^not ok' "$log" || echo "not ok vm $part: ended badly" | tee -a "$log"
done
bad=$(grep -c '^not ok' "$log")
echo "$(grep -c '^ok' "$log") passed, $bad failed, $(grep -c '^SKIPPED' "$log") skipped"
[ "$bad" -eq 0 ]
