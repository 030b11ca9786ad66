#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# emfatier doctor: a line a check, and an exit status that agrees with them.
# shellcheck source=tests/cli/common
. "$(dirname "$0")/common"

call "$BUILD/emfatier" doctor
if [ "$status" -eq 0 ]; then
	grep -q '^Programs can be managed here' "$WORK/out"
else
	[ "$status" -eq 1 ] && grep -q "^Programs can't be managed here" "$WORK/out" &&
		grep -q ' no  ' "$WORK/out"
fi
verdict "doctor: verdict"

for what in kernel userfaultfd PAGEMAP_SCAN 'huge pages' vm.max_map_count vm.overcommit memory \
	io_uring libemfatier.so providers 'default store' 'run directory'; do
	grep -qE "^$what +(ok|no) " "$WORK/out"
	verdict "doctor: $what"
done

# those that show a path are as long as it is
! awk 'length($0) > 100 && !/^(libemfatier.so|providers|run directory)/' "$WORK/out" | grep -q .
verdict "doctor: lines fit"

call "$BUILD/emfatier" doctor x
says 2 'doctor: takes no argument'
verdict "doctor: argument"

if [ "$(id -u)" -ne 0 ] || [ "$(cat /proc/sys/vm/unprivileged_userfaultfd)" = 1 ] ||
	! setpriv --reuid 65534 test -x "$BUILD/emfatier"; then
	skipped "doctor: without permission" "needs root, and a user without it"
else
	call setpriv --reuid 65534 --clear-groups env -u EMFATIER_RUN_DIR "$BUILD/emfatier" doctor
	[ "$status" -eq 1 ] && grep -q '^userfaultfd  *no .*user mode only' "$WORK/out" &&
		grep -q ' vm.unprivileged_userfaultfd=1,' "$WORK/out"
	verdict "doctor: without permission"
fi

done_testing
