# SPDX-License-Identifier: Apache-2.0
# The kernel's own way, for comparison: a memory cgroup (v1 or v2) and swap on zram.
# Source it, then
#   swap_start LIMIT_BYTES SWAP_BYTES || echo "$swap_why"
#   swap_run CMD...          runs CMD inside
#   swap_stop                puts everything back; also call it from an EXIT trap
# Nothing that existed before is changed: a zram device of its own, taken by
# hot_add, and a cgroup of its own.

swap_why='' swap_dev='' swap_on='' swap_group='' swap_version=''

swap_find_cgroup() {
	local dir
	if dir=$(awk '$3 == "cgroup" && $4 ~ /(^|,)memory(,|$)/ { print $2; exit }' /proc/mounts) &&
		[ -n "$dir" ]; then
		swap_version=1
	elif dir=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts) && [ -n "$dir" ] &&
		grep -qw memory "$dir/cgroup.controllers"; then
		swap_version=2
		# Our children get the controller only when their parent hands it on.
		grep -qw memory "$dir/cgroup.subtree_control" ||
			echo +memory >"$dir/cgroup.subtree_control" || return 1
	else
		return 1
	fi
	swap_group=$dir/emfatier-bench-$$
}

swap_start() {
	local limit=$1 size=$2 n
	swap_why=''
	if [ "$(id -u)" -ne 0 ]; then
		swap_why="needs root"
		return 1
	fi
	if ! swap_find_cgroup || ! mkdir "$swap_group"; then
		swap_group=
		swap_why="no memory cgroup"
		return 1
	fi
	if [ $swap_version = 1 ]; then
		echo "$limit" >"$swap_group/memory.limit_in_bytes" || swap_why="can't set a limit"
	else
		echo "$limit" >"$swap_group/memory.max" || swap_why="can't set a limit"
		echo max >"$swap_group/memory.swap.max" 2>/dev/null
	fi
	if [ -z "$swap_why" ] && ! n=$(cat /sys/class/zram-control/hot_add 2>/dev/null); then
		swap_why="no zram (/sys/class/zram-control/hot_add)"
	fi
	if [ -n "$swap_why" ]; then
		swap_stop
		return 1
	fi
	swap_dev=$n
	# The highest priority: if the host has other swap, it is not used here.
	if wait_dev "/dev/zram$n" && echo "$size" >"/sys/block/zram$n/disksize" &&
		mkswap "/dev/zram$n" >/dev/null && swapon -p 32767 "/dev/zram$n"; then
		swap_on=1
		return 0
	fi
	swap_why="can't swap on /dev/zram$n"
	swap_stop
	return 1
}

# udev may take a moment; where there is none, the node is made here.
wait_dev() {
	local sys=/sys/block/${1#/dev/}/dev
	for _ in 1 2 3 4 5; do
		[ -b "$1" ] && return 0
		sleep 0.1
	done
	mknod "$1" b "$(cut -d: -f1 "$sys")" "$(cut -d: -f2 "$sys")"
}

swap_run() {
	(
		echo "$BASHPID" >"$swap_group/cgroup.procs" || exit 1
		exec "$@"
	)
}

swap_stop() {
	# The group goes first: its processes have ended, what they had in swap is free.
	if [ -n "$swap_group" ]; then
		for _ in 1 2 3 4 5 6 7 8 9 10; do
			rmdir "$swap_group" 2>/dev/null && break
			sleep 0.2
		done
	fi
	[ -z "$swap_on" ] || swapoff "/dev/zram$swap_dev"
	if [ -n "$swap_dev" ]; then
		echo 1 >"/sys/block/zram$swap_dev/reset"
		echo "$swap_dev" >/sys/class/zram-control/hot_remove
		rm -f "/dev/zram$swap_dev"
	fi
	swap_group='' swap_on='' swap_dev=''
}
