#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# swap.sh LIMIT_BYTES SWAP_BYTES CMD...: CMD in a memory control group of its own with swap on
# zram. Status 77 and a line of why where that can't be had. With "check" instead of CMD
# it only tells whether it can be.
set -u

# shellcheck source-path=SCRIPTDIR source=libswap.bash
. "$(dirname "$0")/libswap.bash"
limit=$1 size=$2
shift 2
trap swap_stop EXIT
trap 'exit 143' INT TERM HUP
if ! swap_start "$limit" "$size"; then
	echo "$swap_why"
	exit 77
fi
[ "$1" = check ] && exit 0
swap_run "$@"
