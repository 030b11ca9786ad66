#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Without root: what may handle faults (vm.unprivileged_userfaultfd, access to
# /dev/userfaultfd, or only faults in user mode), and what runs untouched or unmanaged: setuid,
# static, not dumpable, no /proc. Both permissions are put back at the end, whatever happens.
# shellcheck source-path=SCRIPTDIR source=lib.bash
. "$(dirname "$0")/lib.bash"

dev=/dev/userfaultfd
knob=/proc/sys/vm/unprivileged_userfaultfd
conf="local.limit=32M;store.uri=mem:"

if [ "$(id -u)" -ne 0 ] || ! have setpriv; then
	skipped "no root" "needs root to become somebody else, and setpriv"
	exit 0
elif [ ! -w $knob ]; then
	skipped "no root" "$knob can't be changed here"
	exit 0
fi

knob_was=$(cat $knob)
dev_was=''
[ ! -c $dev ] || dev_was=$(stat -c '%u:%g %a' $dev)

# shellcheck disable=SC2317 # called by the trap
back() {
	echo "$knob_was" >$knob
	if [ -n "$dev_was" ]; then
		chown "${dev_was% *}" $dev
		chmod "${dev_was#* }" $dev
	fi
}
trap 'back; cleanup' EXIT

# allow KNOB MODE: the device is for group 65534
allow() {
	echo "$1" >$knob
	if [ -n "$dev_was" ]; then
		chown 0:65534 $dev
		chmod "$2" $dev
	fi
}

# Where everybody may read.
chmod 755 "$T"
mkdir -p "$T/all/tests" "$T/nobody"
cp -r "$LIB" "$EMFATIER" "$TIERSTAT" "$BUILD/providers" "$T/all/"
cp "$PROG"/{syscalls,processes} "$T/all/tests/"
chmod -R a+rX "$T/all"
chown 65534:65534 "$T/nobody"
EMFATIER=$T/all/emfatier LIB=$T/all/libemfatier.so PROG=$T/all/tests
# as CMD...: by user and group 65534, with nothing that root has
as=(setpriv --reuid 65534 --regid 65534 --clear-groups --
	env "EMFATIER_RUN_DIR=$T/nobody/run" "XDG_CACHE_HOME=$T/nobody/cache" "HOME=$T/nobody"
	"TEST_DIR=$T/nobody" "TIERSTAT_OUT=$T/nobody/stats" "TIERSTAT=$T/all/tierstat")

# it CONF PROGRAM ROW: by nobody, preloaded; leaves $status, $T/out and $T/err
it() {
	rm -f "$T/nobody/stats"
	plain "${as[@]}" LD_PRELOAD="$LIB" EMFATIER_CONF="$1" "$PROG/$2" "$3" 64M >"$T/out" 2>"$T/err"
	status=$?
}

# managed_now NAME: the last was, silently
managed_now() {
	local why
	why=$(went_wrong $status "$T/err")
	result "$1" "${why:-$(not_tiered "$T/nobody/stats" 8M)}"
}

# unmanaged NAME TEXT: it ran well, and said so in one line with TEXT
unmanaged() {
	if [ $status -ne 0 ]; then
		not_ok "$1" "status $status: $(gist "$T/err")"
	elif [ "$(wc -l <"$T/err")" -ne 1 ] || ! grep -q "running unmanaged$" "$T/err" ||
		! grep -qF -- "$2" "$T/err"; then
		not_ok "$1" "not one line with '$2': $(gist "$T/err")"
	else
		ok "$1"
	fi
}

# untouched NAME: it ran well and silently
untouched() {
	result "$1" "$(went_wrong $status "$T/err")"
}

# doctor NAME STATUS TEXT
doctor() {
	plain "${as[@]}" "$EMFATIER" doctor >"$T/out" 2>"$T/err"
	local s=$?
	if [ $s -ne "$2" ] || ! grep -q -- "$3" "$T/out"; then
		not_ok "$1" "status $s, $(grep -A2 ^userfaultfd "$T/out" | tr -s ' \n' ' ')"
	else
		ok "$1"
	fi
}

# --- faults in user mode only ---
allow 0 600
it "$conf" syscalls write
unmanaged "user mode only" "needs root, vm.unprivileged_userfaultfd=1 or access to /dev/userfaultfd"
doctor "user mode only: doctor" 1 '^userfaultfd  *no .*user mode only'
plain "${as[@]}" "$EMFATIER" run --local 32M -- echo ran >"$T/out" 2>"$T/err"
status=$?
if [ $status -ne 2 ] || [ -s "$T/out" ] || [ "$(wc -l <"$T/err")" -ne 1 ] ||
	! grep -q vm.unprivileged_userfaultfd=1 "$T/err"; then
	not_ok "user mode only: emfatier run" "status $status: $(gist "$T/err")"
else
	ok "user mode only: emfatier run"
fi
# without statistics: the shell that asks for them has the setting as well
stats_of=("${as[@]}")
as+=(TIERSTAT_OUT=)
it "$conf;engine.fault=signal" syscalls write
as=("${stats_of[@]}")
unmanaged "engine.fault=signal" "vm.unprivileged_userfaultfd=1"

# --- vm.unprivileged_userfaultfd=1 ---
allow 1 600
it "$conf" syscalls write
managed_now "vm.unprivileged_userfaultfd=1"
it "local.limit=32M" syscalls read
managed_now "vm.unprivileged_userfaultfd=1, a file"
doctor "vm.unprivileged_userfaultfd=1: doctor" 0 '^userfaultfd  *ok .*vm.unprivileged_userfaultfd=1'

# What nobody may open of its own in /proc.
it "$conf" processes undumpable
unmanaged "not dumpable" "/proc/self/pagemap"
it "$conf" processes undumpable-later
managed_now "not dumpable after the start"

# --- access to the device ---
if [ -z "$dev_was" ]; then
	skipped "/dev/userfaultfd" "not there: it came with Linux 6.1"
else
	allow 0 660
	it "$conf" syscalls write
	managed_now "/dev/userfaultfd"
	doctor "/dev/userfaultfd: doctor" 0 '^userfaultfd  *ok .*/dev/userfaultfd'
	# The same, for somebody who is not in the group.
	allow 0 660
	group=$(getent group 65534 | cut -d: -f1)
	as[4]=65533 # --regid
	doctor "/dev/userfaultfd: doctor names the group" 1 "group ${group:-nogroup} has it"
	as[4]=65534
fi
allow 1 600

# --- what the dynamic linker does not preload into ---
if have "${CC:-gcc}" && echo 'int main(void) { return 0; }' >"$T/static.c" &&
	"${CC:-gcc}" -static -o "$T/all/tests/static" "$T/static.c" 2>/dev/null; then
	it "$conf" static -
	untouched "static"
else
	skipped "static" "cannot build a static program"
fi
cp "$PROG/syscalls" "$PROG/setuid"
chown 65533 "$PROG/setuid"
chmod 4755 "$PROG/setuid"
it "$conf" setuid small
untouched "setuid"
if [ -s "$T/nobody/stats" ] && [ -z "$(json "$T/nobody/stats" evicted_blocks)" ]; then
	ok "setuid: not managed"
else
	not_ok "setuid: not managed" "$(gist "$T/nobody/stats")"
fi
plain "${as[@]}" EMFATIER_CONF="$conf" "$EMFATIER" run -- "$PROG/setuid" small 64M >"$T/out" 2>"$T/err"
status=$?
if [ $status -eq 0 ] && grep -q 'setuid.*runs unmanaged' "$T/err" && [ "$(wc -l <"$T/err")" -eq 1 ]; then
	ok "setuid: emfatier run says so"
else
	not_ok "setuid: emfatier run says so" "status $status: $(gist "$T/err")"
fi

# --- no /proc ---
if ! unshare --mount true 2>/dev/null; then
	skipped "no /proc" "no mount namespace can be made"
else
	plain unshare --mount sh -c "mount -t tmpfs none /proc &&
		LD_PRELOAD='$LIB' EMFATIER_CONF='$conf' exec '$PROG/syscalls' write 64M" >"$T/out" 2>"$T/err"
	status=$?
	unmanaged "no /proc" "mount /proc"
fi
finish
