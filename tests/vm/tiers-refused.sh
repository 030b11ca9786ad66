#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# tiers-refused.sh [node]: in a guest of the lab (tiers.sh) with a DAX device, or with node: with that
# online as memory of node 1: what can't be used is refused before the command starts, in one line.
set -u
: "${BUILD:?}"
export EMFATIER_RUN_DIR=/run/emfatier-vm
mkdir -p "$EMFATIER_RUN_DIR"
chmod 1777 "$EMFATIER_RUN_DIR"
failed=0

# refused WHAT WORDS URI [COMMAND...]: by the launcher that COMMAND runs; WORDS are in its line
refused() {
	local what=$1 words=$2 uri=$3 status
	shift 3
	"$@" "$BUILD/emfatier" run --local 8M --store "$uri" -- echo started >/run/out 2>/run/err
	status=$?
	if [ $status -ne 2 ] || [ -s /run/out ] || [ "$(wc -l </run/err)" -ne 1 ] || ! grep -qF "$words" /run/err; then
		echo "$what: status $status: $(cat /run/out /run/err)"
		failed=1
	fi
}

"$BUILD/emfatier" topo
if [ "${1:-}" = node ]; then
	refused 'online as memory' 'use numa:N' dax:/dev/dax0.0
	refused 'a node with CPUs' 'node 0 has CPUs' numa:0
	refused 'no such node' 'there is no node 7' numa:7
	exit $failed
fi
flock /dev/dax0.0 sleep 60 &
holder=$!
for _ in {1..100}; do
	flock -n /dev/dax0.0 true || break
	sleep 0.1
done
refused 'in use' 'in use by another process' dax:/dev/dax0.0
kill $holder
wait $holder 2>/dev/null
sysctl -qw vm.unprivileged_userfaultfd=1
chmod 600 /dev/dax0.0
refused 'no permission' 'its mode or group must let you write' dax:/dev/dax0.0 setpriv --reuid=65534 --regid=65534 --clear-groups
exit $failed
