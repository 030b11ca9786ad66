#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# tiers.sh BUILD [NAME...]: far memory on a CPU-less NUMA node and on emulated CXL memory, as a node and as
# a DAX device, each in a machine of the lab (README.md): integrity, what is refused, llama, or those that
# are named; and what is used in place on the node (place). A few MiB: emulated CXL memory is slow.
set -u
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lab.bash"
BUILD=$(cd "${1:?usage: tiers.sh BUILD [NAME...]}" && pwd)
shift
wanted=" ${*:-integrity place refused llama} "
T=$(mktemp -d /tmp/emf-tiers-XXXXXX)
trap 'rm -rf "$T"' EXIT
export BUILD
bad=0

# check NAME LAB-OPTION LISTED COMMAND...: a line that emfatier topo, or topo --json, must print
# matches LISTED
check() {
	local name=$1 option=$2 listed=$3 out status
	shift 3
	[[ $wanted == *" ${name##* } "* ]] || return
	in_lab "${LIMIT:-420}" --no-rdma "$option" -- env BUILD="$BUILD" MODEL="${MODEL:-}" "$@"
	if [ $status -eq 0 ] && ! grep -qE "$listed" <<<"$out"; then
		echo "not ok $name: emfatier topo does not list $listed"
		bad=1
	elif [ $status -eq 0 ]; then
		echo "ok $name"
	elif ! unlucky "$name"; then
		echo "not ok $name: status $status: $(tail -n 3 <<<"$out" | tr '\n' ' ')"
		bad=1
	fi
}

check "vm numa integrity" --numa '^node1 +no .*HMAT' "$here/tiers-guest.sh" numa:1 24M 12M 2 16
LIMIT=${LIMIT:-900} check "vm numa place" --numa '^node1 +no ' "$here/tiers-place.sh"
check "vm CXL node integrity" --cxl '^region +region0 +256M +- ram, 1 way, on mem0$' "$here/tiers-guest.sh" numa:1 10M 8M 1 512
check "vm CXL node in place integrity" --cxl . "$here/tiers-guest.sh" numa:1 10M 8M 1 512 64M
check "vm CXL dax integrity" --cxl=dax '"dax0.0", "bytes": 268435456, .* "devdax", "source": "libdaxctl"' "$here/tiers-guest.sh" dax:/dev/dax0.0 10M 8M 1 512
check "vm CXL dax refused" --cxl=dax '^dax +dax0.0 ' "$here/tiers-refused.sh"
check "vm CXL node refused" --cxl '^dax +dax0.0 .* system-ram$' "$here/tiers-refused.sh" node
# A llama of 11 MiB, where the demo was installed.
demo=$here/../../bench/demo
if [[ $wanted != *" llama "* ]]; then
	:
elif command -v node >/dev/null && [ -e "$demo/node_modules/node-llama-cpp" ]; then
	MODEL=$(node "$demo/make-model.mjs" --cache "$T" --layers 2 --width 512 --ffn 1536 --heads 8 --kv-heads 4 --vocab 4000)
	export MODEL
	: "${LIMIT:=900}"
	check "vm CXL node llama" --cxl . "$here/tiers-llama.sh" numa:1
	check "vm numa in place llama" --numa . "$here/tiers-llama.sh" numa:1 64M
	check "vm CXL dax llama" --cxl=dax . "$here/tiers-llama.sh" dax:/dev/dax0.0
else
	echo "SKIPPED vm llama: no node, or no node-llama-cpp (make demo installs it)"
fi
exit $bad
