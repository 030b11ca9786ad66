#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# build.sh BUILD VERSION: makes BUILD/emfatier_VERSION_ARCH.deb and BUILD/emfatier-dev_... out of
# what `make install` installs. Needs dpkg-deb only.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
top=$here/../..
build=$(cd "$1" && pwd) version=$2
arch=$(dpkg --print-architecture)
work=$build/deb
rm -rf "$work"
umask 022

make -C "$top" --no-print-directory -o all install BUILD="$build" DESTDIR="$work/emfatier" PREFIX=/usr \
	UDEVDIR=/usr/lib/udev/rules.d SYSUSERSDIR=/usr/lib/sysusers.d >/dev/null

# what only those need who build against it
dev=$work/emfatier-dev
mkdir -p "$dev/usr/lib" "$dev/usr/share/doc/emfatier-dev"
mv "$work/emfatier/usr/include" "$dev/usr"
mv "$work/emfatier/usr/lib/pkgconfig" "$dev/usr/lib"

find "$work/emfatier/usr/share/man" -type f -exec gzip -9n {} +
# the aliases name the page as it is called now
for page in "$work"/emfatier/usr/share/man/man1/*-*.1.gz; do
	name=$(zcat "$page" | sed 's|.*/||')
	ln -sf "$name.gz" "$page"
done
strip --strip-unneeded "$work/emfatier/usr/lib/libemfatier.so" "$work"/emfatier/usr/lib/emfatier/providers/*.so
strip "$work"/emfatier/usr/bin/*

for package in emfatier emfatier-dev; do
	root=$work/$package
	mkdir -p "$root/DEBIAN" "$root/usr/share/doc/$package"
	{
		echo "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/"
		echo
		echo "Files: *"
		echo "Copyright: the emfatier authors"
		echo "License: Apache-2.0"
		echo " On Debian systems: /usr/share/common-licenses/Apache-2.0"
	} >"$root/usr/share/doc/$package/copyright"
	size=$(du -sk --exclude=DEBIAN "$root" | cut -f1)
	sed -e "s/@VERSION@/$version/; s/@ARCH@/$arch/; s/@SIZE@/$size/" "$here/$package.control" >"$root/DEBIAN/control"
	(cd "$root" && find usr -type f -exec md5sum {} +) >"$root/DEBIAN/md5sums"
	for script in postinst prerm postrm; do
		if [ -e "$here/$package.$script" ]; then
			install -m 755 "$here/$package.$script" "$root/DEBIAN/$script"
		fi
	done
	dpkg-deb --root-owner-group --build "$root" "$build/${package}_${version}_$arch.deb" >/dev/null
	echo "$build/${package}_${version}_$arch.deb"
done
rm -rf "$work"
