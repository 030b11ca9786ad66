#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# mapped.sh BUILD [SIZE_MIB [PERCENT [SECONDS]]]: a plain program (mapped.c) sweeps a file of
# weights of which PERCENT fit: all in the page cache, under emfatier, and by the kernel's page
# cache in a memory cgroup (v1 or v2) of the same size. Root.
set -eu

build=$(cd "${1:?usage: mapped.sh BUILD [SIZE_MIB [PERCENT [SECONDS]]]}" && pwd)
size=${2:-1024} percent=${3:-50} seconds=${4:-20}
dir=$(mktemp -d /var/tmp/emfatier-mapped.XXXXXX)
file=$dir/model.gguf group=''
limit=$((size * percent / 100))M

cleanup() {
	rm -rf "$dir"
	[ -z "$group" ] || rmdir "$group"
}
trap cleanup EXIT

memory_group() {
	local root
	if [ -d /sys/fs/cgroup/memory ]; then
		root=/sys/fs/cgroup/memory name=memory.limit_in_bytes
	else
		root=/sys/fs/cgroup name=memory.max
	fi
	group=$root/emfatier-mapped-$$
	mkdir "$group" && echo "$limit" >"$group/$name"
}

head -c "${size}M" /dev/urandom >"$file"
sync "$file"
echo "all local: the page cache"
"$build/bench/mapped" "$file" "$seconds"
echo "$percent% local: emfatier"
"$build/emfatier" run --local "$limit" --store mem: -- "$build/bench/mapped" "$file" "$seconds"
echo "of that in the page cache: $(fincore -nb -o RES "$file") bytes"
echo "$percent% local: the page cache in a control group"
memory_group
dd if="$file" iflag=nocache count=0 2>/dev/null # what is cached is nobody's of the group
(
	echo "$BASHPID" >"$group/cgroup.procs"
	exec "$build/bench/mapped" "$file" "$seconds"
)
