#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# stress-ng's stressors of memory and processes, with its own verification: the same
# status as without us. STRESSORS="mmap vm" runs only these.
# shellcheck source-path=SCRIPTDIR source=../whole/lib.bash source=../whole/observe.bash
. "$(dirname "$0")/../whole/lib.bash"
. "$(dirname "$0")/../whole/observe.bash"

have stress-ng || { skipped stress-ng "no stress-ng"; finish; }

# Not: what acts on the machine (watchdog, swap, physpage; resources and forkheavy take all of
# the disk for a moment), what grows until something is killed.
never=" watchdog swap physpage resources forkheavy oom-pipe bigheap "
forks="clone daemon exec exit-group fault fork pthread session spawn vfork vforkmany wait zombie"

stressors() {
	local class
	for class in vm memory; do
		stress-ng --class "$class?" 2>&1 | sed 's/.*: //' | tr ' ' '\n'
	done
	echo "$forks" | tr ' ' '\n'
}

# Few enough processes and bytes for a second each.
few=(--vm-bytes 64M --mmap-bytes 64M --mremap-bytes 32M --memrate-bytes 32M --vm-rw-bytes 32M
	--stream-l3-size 4M --malloc-bytes 64M --malloc-max 4096 --bad-altstack-ops 2000
	--fork-max 4 --vfork-max 4 --zombie-max 1000 --clone-max 64 --pthread-max 64
	--exec-max 4)

# Regions of a whole page or two in a thousand places are taken and given all the time; what
# is never large enough to be evicted within a second need not have been.
export LIMIT=${LIMIT:-45} COMPARE=status TIERED=no
any=0 usual_room=$maps_room
# A program's own userfaultfd: the kernel takes one for a mapping, and that is ours.
known=" userfaultfd "
for s in ${STRESSORS:-$(stressors | sort -u)}; do
	[ -n "$s" ] && [[ $never != *" $s "* ]] || continue
	if [[ $known == *" $s "* ]] && [ -z "${STRESSORS:-}" ]; then
		skipped "stress-ng $s" "managed memory can't have another userfaultfd yet"
		continue
	fi
	# It maps as often as it comes to in its second.
	[ "$s" = msyncmany ] && maps_room=32768 || maps_room=$usual_room
	same "stress-ng $s" 8M stress-ng "--$s" 1 --timeout 1 --verify --temp-path "$T" \
		--no-rand-seed "${few[@]}"
	any=$((any + $(json "$T/far.stats" evicted_blocks 2>/dev/null || echo 0)))
done
[ $any -gt 0 ] || not_ok "stress-ng" "nothing was evicted in all of them"
finish
