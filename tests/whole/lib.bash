# SPDX-License-Identifier: Apache-2.0
# What the whole-process tests share, beside tests/common.bash. Source it first. It gives
#   BUILD, PROG     the outputs and the test programs, absolute
#   T               a directory of this test's own, removed at the end
#   managed CONF CMD...     runs CMD with the library preloaded
#   nbd_start NAME SIZE     a real memory server on a Unix socket; sets nbd_uri, nbd_pid
# and ends only processes that were started here.

set -u
# shellcheck source-path=SCRIPTDIR source=../common.bash
. "${BASH_SOURCE[0]%/*}/../common.bash"

BUILD=$(cd "${BUILD:?the directory of the build outputs}" && pwd)
PROG=$BUILD/tests
LIB=$BUILD/libemfatier.so
EMFATIER=$BUILD/emfatier
export TIERSTAT=$BUILD/tierstat

# Not in /tmp, which may be memory: the default file store is kept here as well.
T=$(mktemp -d "${TEST_TMP:-/var/tmp}/emfatier-test.XXXXXX")
export EMFATIER_RUN_DIR=$T/run XDG_CACHE_HOME=$T/cache TEST_DIR=$T
unset EMFATIER_CONF EMFATIER_POLICY EMFATIER_LOG EMFATIER_DISABLE LD_PRELOAD

started=()
nbd_uri='' nbd_pid=''

cleanup() {
	local pid
	for pid in "${started[@]}"; do
		kill -CONT "$pid"
		kill "$pid"
	done 2>/dev/null
	wait 2>/dev/null
	rm -rf "$T"
}
trap cleanup EXIT
trap 'exit 1' INT TERM

# managed CONF CMD...: only CMD is preloaded, not what times it. FAULT=signal: with that, where it
# can be had.
managed() {
	local conf=$1
	shift
	[ -z "${FAULT:-}" ] || [[ $conf == *engine.move=off* ]] || conf="engine.fault=$FAULT;$conf"
	timeout -k 5 "${LIMIT:-60}" env LD_PRELOAD="$LIB" EMFATIER_CONF="$conf" "$@"
}

plain() {
	timeout -k 5 "${LIMIT:-60}" "$@"
}

# A number of a tierstat document; nothing when there is no such key.
json() {
	grep -o "\"$2\": *[0-9]*" "$1" 2>/dev/null | head -n 1 | grep -o '[0-9]*$'
}

bytes() {
	case $1 in
	*G) echo $((${1%G} << 30)) ;;
	*M) echo $((${1%M} << 20)) ;;
	*K) echo $((${1%K} << 10)) ;;
	*) echo "$1" ;;
	esac
}

# The first lines of a file as one, for messages.
gist() {
	head -n "${2:-3}" "$1" 2>/dev/null | tr '\n' ' '
}

# went_wrong STATUS ERR [NOTE]: why a program that ended so, with ERR on standard error, did not
# end well and in silence; nothing when it did.
went_wrong() {
	if [ "$1" -eq 124 ]; then
		echo "hung${3:+ ($3)}: $(gist "$2")"
	elif [ "$1" -ne 0 ]; then
		echo "status $1${3:+ ($3)}: $(gist "$2")"
	elif [ -s "$2" ]; then
		echo "says: $(gist "$2")"
	fi
}

# Why FILE (tierstat --json) does not prove that memory went far and that at least
# SIZE of it came back; nothing when it does.
not_tiered() {
	local evicted fetched
	evicted=$(json "$1" evicted_blocks)
	fetched=$(json "$1" fetched_bytes)
	if [ -z "$evicted" ] || [ -z "$fetched" ]; then
		echo "no statistics, or no evicted_blocks or fetched_bytes in them"
	elif [ "$evicted" -eq 0 ]; then
		echo "nothing was evicted"
	elif [ "$fetched" -lt "$(bytes "$2")" ]; then
		echo "only $fetched bytes were fetched"
	fi
}

# Why FILE shows no fault that had to wait for its page; nothing when it does.
not_faulted() {
	local demand standby
	demand=$(json "$1" faults_demand)
	standby=$(json "$1" faults_standby)
	[ $((${demand:-0} + ${standby:-0})) -gt 0 ] || echo "no fault found its page away"
}

# Why FILE shows that a budget of SIZE was exceeded; nothing when it was kept. Where a thread could
# not go on otherwise, as when the machine stood still, it is a block more, and counted.
over_budget() {
	local peak limit overruns
	peak=$(json "$1" peak_local_bytes)
	overruns=$(json "$1" overruns)
	limit=$(($(bytes "$2") * 105 / 100 + (${overruns:-0} < 2 ? ${overruns:-0} : 2) * 2097152))
	if [ -z "$peak" ]; then
		echo "tierstat lacks peak_local_bytes"
	elif [ "$peak" -gt "$limit" ]; then
		echo "peak_local_bytes $peak is over 1.05 x $2 and $overruns overruns = $limit"
	fi
}

# nbd_start NAME SIZE [NBDKIT OPTION...]
nbd_start() {
	local name=$1 size=$2
	shift 2
	# One thread a connection: with more, nbdkit 1.32 can abort (an assertion on its socket)
	# when a client ends while requests are in flight.
	nbdkit -f -t 1 -U "$T/$name.sock" "$@" memory "$size" >"$T/$name.log" 2>&1 &
	nbd_pid=$!
	started+=("$nbd_pid")
	nbd_uri="nbd+unix:///?socket=$T/$name.sock"
	wait_for 10 test -S "$T/$name.sock"
}

finish() {
	exit $failed
}
