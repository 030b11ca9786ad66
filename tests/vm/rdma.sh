#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# rdma.sh BUILD [NAME...]: emfatierd and rdma:// in machines of the lab with soft-RoCE: the parts of
# rdma-guest.sh that are named, or all of it in one machine, and rdma-two.sh in two.
set -u
here=$(cd "$(dirname "$0")" && pwd)
BUILD=$(cd "${1:?usage: rdma.sh BUILD [NAME...]}" && pwd)
shift
bad=0

# lab NAME VMLAB-OPTION... -- COMMAND...
lab() {
	local name=$1 out status
	shift
	out=$(cd "$SHARED" && nice -n 5 "$here/vmlab" run --timeout "${LIMIT:-900}" "$@" 2>&1)
	status=$?
	grep -aE '^(ok|not ok|SKIPPED) ' <<<"$out"
	if [ $status -eq 125 ] && ! grep -qE '^(ok|not ok) ' <<<"$out"; then
		echo "SKIPPED $name: the lab does not start: $(tail -n 1 <<<"$out")"
	elif [ $status -ne 0 ] && ! grep -q '^not ok ' <<<"$out"; then
		echo "not ok $name: status $status: $(tail -n 3 <<<"$out" | tr '\n' ' ')"
	fi
	[ $status -eq 0 ] || [ $status -eq 125 ] || bad=1
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
[ $# -gt 0 ] || lab "rdma, two machines" --guests 2 -- env BUILD="$BUILD" SHARED="$SHARED" "$here/rdma-two.sh"
exit $bad
