#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# make install: what a package needs, where it looks for it.
# shellcheck source=tests/cli/common
. "$(dirname "$0")/common"

call make -C "$ROOT" --no-print-directory install BUILD="$BUILD" DESTDIR="$WORK/root" PREFIX=/usr \
	-o all
[ "$status" -eq 0 ]
verdict "install"

for file in bin/emfatier bin/tierstat bin/emfatierd lib/libemfatier.so lib/emfatier/providers/file.so \
	include/emfatier-stats.h share/emfatier/policies/default.conf \
	lib/udev/rules.d/60-emfatier.rules lib/sysusers.d/emfatier.conf share/man/man1/tierstat.1 \
	share/man/man1/emfatier-run.1 share/man/man5/emfatier.conf.5 share/man/man8/emfatierd.8 lib/pkgconfig/emfatier.pc \
	lib/systemd/system/emfatier-prom.service lib/systemd/system/emfatierd.service share/bash-completion/completions/tierstat share/bash-completion/completions/emfatierd \
	share/emfatier/grafana/emfatier.json share/doc/emfatier/examples/pod.yaml; do
	[ -s "$WORK/root/usr/$file" ]
	verdict "install: $file"
done

# The rule's group is the one that is made, and the device is what the library opens.
rule=$WORK/root/usr/lib/udev/rules.d/60-emfatier.rules
group=$(sed -n 's/.*GROUP="\([^"]*\)".*/\1/p' "$rule")
[ -n "$group" ] && grep -qx "g $group -" "$WORK/root/usr/lib/sysusers.d/emfatier.conf" &&
	grep -q '^KERNEL=="userfaultfd".*MODE="0660"' "$rule"
verdict "install: the group of /dev/userfaultfd"

mkdir -p "$WORK/root/etc"
if command -v systemd-sysusers >/dev/null; then
	call systemd-sysusers --root="$WORK/root" "$WORK/root/usr/lib/sysusers.d/emfatier.conf"
	[ "$status" -eq 0 ] && grep -q "^$group:" "$WORK/root/etc/group"
	verdict "install: systemd-sysusers makes the group"
else
	skipped "install: systemd-sysusers makes the group" "no systemd-sysusers"
fi

if command -v udevadm >/dev/null && udevadm verify --help >/dev/null 2>&1; then
	call udevadm verify --resolve-names=never "$rule"
	[ "$status" -eq 0 ]
	verdict "install: udevadm verify"
else
	skipped "install: udevadm verify" "no udevadm that can (254)"
fi

call "$WORK/root/usr/bin/emfatier" doctor
grep -q "libemfatier.so *ok *$WORK/root/usr/lib/libemfatier.so" "$WORK/out"
verdict "install: doctor finds the library"

done_testing
