#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# make deb: the packages install, work, and go away without a trace, on a copy of this machine
# that nobody keeps.
# shellcheck source=tests/cli/common
. "$(dirname "$0")/common"

if ! command -v dpkg-deb >/dev/null; then
	skipped "deb" "no dpkg"
	done_testing
fi
call make -C "$ROOT" --no-print-directory deb BUILD="$BUILD" -o all
[ "$status" -eq 0 ] && [ -s "$BUILD"/emfatier_*.deb ]
verdict "deb: built"
dpkg-deb -c "$BUILD"/emfatier_*.deb >"$WORK/out"
! grep -vE '^(d|-|l)[rwx-]{9} root/root ' "$WORK/out" | grep -q . && grep -q ' ./usr/bin/tierstat$' "$WORK/out" &&
	! grep -q '/usr/local\|\.h$' "$WORK/out"
verdict "deb: what is in it"

cat >"$WORK/try.sh" <<'EOF2'
set -e
mkdir "$1/new" && mount -t tmpfs tmpfs "$1/new" && mkdir "$1/new/upper" "$1/new/work" "$1/new/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/new/upper,workdir=$1/new/work" "$1/new/root" || exit 77
root=$1/new/root
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
cp "$2"/emfatier_*.deb "$2"/emfatier-dev_*.deb "$root/opt/"
chroot "$root" sh -ec '
	dpkg --no-triggers -i /opt/*.deb >/dev/null
	rm /opt/*.deb
	getent group emfatier >/dev/null
	emfatier --version
	emfatier check /usr/share/emfatier/policies/default.conf
	emfatier doctor | grep -E "^(libemfatier.so|providers) +ok +/usr/lib"
	tierstat --version
	[ -L /usr/share/man/man1/tierstat-why.1.gz ]
	if command -v pkg-config >/dev/null; then pkg-config --exists emfatier; fi
	dpkg --no-triggers -P emfatier-dev emfatier >/dev/null'
# what is left is the group, and what dpkg itself notes
! find "$1/new/upper" -name '*emfatier*' | grep -v /var/lib/dpkg/ | grep .
echo gone
EOF2
if [ "$(id -u)" -ne 0 ] || [ -e /usr/bin/emfatier ] || ! unshare -m true 2>/dev/null; then
	skipped "deb: installed and removed" "needs root, mount namespaces, and no emfatier in /usr"
	done_testing
fi
EMFATIER_RUN_DIR=/run/emf-deb-none call unshare -m --propagation private bash "$WORK/try.sh" "$WORK" "$BUILD"
if [ "$status" -eq 77 ]; then
	skipped "deb: installed and removed" "no overlay file system here"
else
	[ "$status" -eq 0 ] && tail -n 1 "$WORK/out" | grep -qx gone
	verdict "deb: installed and removed"
fi

done_testing
