#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# rdma.sh BUILD [NAME...]: emfatierd and rdma:// in machines of the lab with soft-RoCE: the parts of
# rdma-guest.sh that are named, or all of it in one machine, some of it with other kernels, and rdma-two.sh in
# two machines.
set -u
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lab.bash"
BUILD=$(cd "${1:?usage: rdma.sh BUILD [NAME...]}" && pwd)
shift
bad=0

# lab NAME VMLAB-OPTION... -- COMMAND...
lab() {
	local name=$1 out status
	shift
	in_lab "${LIMIT:-900}" --share "$SHARED" "$@"
	grep -aE '^(ok|not ok|SKIPPED) ' <<<"$out"
	if grep -q '^not ok ' <<<"$out"; then
		bad=1
	elif [ "$status" -ne 0 ] && ! unlucky "$name"; then
		echo "not ok $name: status $status: $(tail -n 3 <<<"$out" | tr '\n' ' ')"
		bad=1
	fi
}

# What guests may write: for what two of them share.
SHARED=$(mktemp -d /tmp/emf-rdma-XXXXXX)
trap 'rm -rf "$SHARED"' EXIT
# A llama of 18 MiB, where the demo was installed.
demo=$here/../../bench/demo
MODEL=
if command -v node >/dev/null && [ -e "$demo/node_modules/node-llama-cpp" ]; then
	MODEL=$(node "$demo/make-model.mjs" --cache "$SHARED" --layers 3 --width 512 --ffn 1536 --heads 8 --kv-heads 4 \
		--vocab 8000 2>/dev/null)
fi
lab rdma -- env MODEL="$MODEL" BUILD="$BUILD" SHARED="$SHARED" "$here/rdma-guest.sh" "$@"
[ $# -eq 0 ] || exit $bad
lab "rdma, two machines" --guests 2 -- env BUILD="$BUILD" SHARED="$SHARED" "$here/rdma-two.sh"
# Debian 12's own kernel has no UFFDIO_MOVE; soft-RoCE of the next release's backports has on-demand paging.
lab "rdma (copies)" --kernel release -- env KERNEL=copies BUILD="$BUILD" "$here/rdma-guest.sh" copies integrity
lab "rdma (odp)" --kernel trixie-backports -- env KERNEL=odp BUILD="$BUILD" "$here/rdma-guest.sh" odp
exit $bad
