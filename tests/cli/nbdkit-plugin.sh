#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The plugin of nbdkit: each export a space of its own, zero at first, within its quota, and gone
# (and overwritten) when its clients are.
# shellcheck source=tests/cli/common
. "$(dirname "$0")/common"

cd "$WORK" || exit 1
plugin=$BUILD/nbdkit/nbdkit-emfatier-plugin.so
if ! command -v nbdkit >/dev/null || ! command -v nbdcopy >/dev/null || [ ! -e "$plugin" ]; then
	skipped "nbdkit plugin" "needs nbdkit, nbdkit-plugin-dev and libnbd-bin"
	done_testing
fi

# wrong TEXT SETTING...
wrong() {
	local text=$1
	shift
	call nbdkit -f -U "$WORK/no.sock" "$plugin" "$@"
	[ "$status" -eq 1 ] && grep -qF -- "$text" err
	verdict "nbdkit plugin $*: $text"
	rm -f no.sock
}
wrong 'say how much memory'
wrong 'is not a size of 2M' size=1M
wrong 'is not a size of 2M' size=x
wrong 'is not a size of 2M' size=8M lease=1
wrong 'unknown parameter' size=8M speed=1
wrong 'write NAME:SIZE' size=8M quota=alice
wrong 'write NAME:SIZE' size=8M quota=a:1M quota=a:2M
wrong 'write NAME:SIZE' size=8M quota=a/b:1M
wrong 'lease= is more than size=' size=8M lease=16M
wrong 'quota=a is less than lease=' size=32M lease=16M quota=a:8M
wrong 'node= or dax=' dax=/dev/null node=0
wrong 'not a number or a time' size=8M lasts=1
wrong 'not a number or a time' size=8M node=x
wrong 'No such file' dax=/dev/no-dax
wrong 'is not a DAX device' dax=/dev/null

tls=()
# serve SETTING...: on $WORK/sock
serve() {
	rm -f pid sock
	nbdkit -f -U "$WORK/sock" -P pid "${tls[@]}" "$plugin" "$@" 2>server.err &
	server=$!
	STARTED="$STARTED $server"
	wait_for 5 test -e pid
}
stop() {
	kill $server
	wait $server
}
uri() {
	echo "nbd+unix:///$1?socket=$WORK/sock"
}
size_of() {
	nbdinfo --size "$(uri "$1")" 2>>err
}
head -c 8M /dev/urandom >data
head -c 8M /dev/zero >zero

serve size=32M lease=8M lasts=1s
[ "$(size_of one)" = $((8 << 20)) ] && [ "$(size_of '')" = $((8 << 20)) ]
verdict "nbdkit plugin: exports are of the size that was set"
# One connection stays, and with it the space.
mkfifo more
exec 9<>more
nbdcopy - "$(uri one)" <more >/dev/null 2>&1 9>&- &
holder=$!
STARTED="$STARTED $holder"
call nbdcopy data "$(uri one)"
[ "$status" -eq 0 ] && nbdcopy "$(uri two)" back && cmp -s back zero && nbdcopy "$(uri one)" back && cmp -s back data
verdict "nbdkit plugin: each export is a space of its own"
# The space of one whose clients are gone is zero, and free.
call nbdcopy data "$(uri gone)"
[ "$status" -eq 0 ] && nbdcopy "$(uri gone)" back && cmp -s back data
verdict "nbdkit plugin: back in time"
sleep 2.5
nbdcopy "$(uri gone)" back && cmp -s back zero
verdict "nbdkit plugin: gone, and zero for the next"
# 32M are four exports of 8M; the fifth is refused, until some are gone.
for name in a b c d e; do size_of $name >>sizes; done
[ "$(grep -c . sizes)" -lt 5 ]
verdict "nbdkit plugin: no more than there is"
sleep 2.5
[ "$(size_of f)" = $((8 << 20)) ]
verdict "nbdkit plugin: and then there is room again"
for name in 01234567890123456 a/b/c nobody/x; do
	call nbdinfo --size "$(uri $name)"
	[ "$status" -ne 0 ]
	verdict "nbdkit plugin: no export $name"
done
exec 9>&-
kill $holder
wait $holder
stop

serve size=32M lease=8M quota=alice:8M quota=bob:16M lasts=30s
[ "$(size_of alice/1)" = $((8 << 20)) ] && [ -z "$(size_of alice/2)" ] && [ "$(size_of bob/1)" = $((8 << 20)) ] &&
	[ "$(size_of bob/2)" = $((8 << 20)) ] && [ -z "$(size_of bob/3)" ] && [ -z "$(size_of 1)" ]
verdict "nbdkit plugin: quotas"
grep -q 'Disk quota exceeded' server.err
verdict "nbdkit plugin: says why"
stop

# Who is let in, and that nobody listens, is nbdkit's matter.
(umask 077 && echo "alice:$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')" >keys && echo "alice:$(printf '%064d' 7)" >others)
tls_uri() { # KEYS
	echo "nbds+unix://alice@/one?socket=$WORK/sock&tls-psk-file=$WORK/$1"
}
if nbdkit --dump-config | grep -qx tls=yes; then
	tls=(--tls=require --tls-psk="$WORK/keys")
	serve size=32M lease=8M
	call nbdcopy data "$(tls_uri keys)"
	[ "$status" -eq 0 ] && nbdcopy "$(tls_uri keys)" back && cmp -s back data
	verdict "nbdkit plugin: TLS"
	call nbdinfo --size "$(tls_uri others)"
	[ "$status" -ne 0 ] && [ -z "$(size_of one)" ]
	verdict "nbdkit plugin: not with another key, nor without TLS"
	stop
	tls=()
else
	skipped "nbdkit plugin: TLS" "this nbdkit has none"
fi

serve size=64M lease=48M
if [ -x "$BUILD/tests/integrity" ]; then
	call "$BUILD/emfatier" run --local 16M --store "$(uri job)" --summary -- "$BUILD/tests/integrity" 32M 2 1 7 mmap 16
	[ "$status" -eq 0 ] && grep -Eq '\(ok\): [1-9][0-9.]*[KMG]* read' err
	verdict "nbdkit plugin: far memory"
else
	skipped "nbdkit plugin: far memory" "tests/prog is not built"
fi
stop
verdict "nbdkit plugin: ends when told"

done_testing
