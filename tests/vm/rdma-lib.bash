# SPDX-License-Identifier: Apache-2.0
# What the tests of RDMA in the lab share; to be sourced, in a guest, as root of its own.
: "${BUILD:?}"
. "${BASH_SOURCE[0]%/*}/../common.bash"
# Where servers are, and where their metrics are.
SERVER=$VMLAB_SELF METRICS=127.0.0.1
T=/run/rdma-test
mkdir -m 700 -p $T
cd $T || exit 1
umask 077
export EMFATIER_RUN_DIR=$T/run XDG_CACHE_HOME=$T
head -c 32 /dev/urandom | base64 >secret
head -c 32 /dev/urandom | base64 >other
chmod 755 $T # the server's user must come by, no further

verdict() { # STATUS NAME WHY
	if [ "$1" -eq 0 ]; then ok "rdma${KERNEL:+ ($KERNEL)} $2"; else not_ok "rdma${KERNEL:+ ($KERNEL)} $2" "$3"; fi
}
gist() { tail -n 4 "$@" 2>/dev/null | tr '\n' ' '; }
answers() { (exec 3<>"/dev/tcp/$METRICS/$1") 2>/dev/null; }
# metric SERVER NAME: of the server on this port
metric() {
	exec 3<>"/dev/tcp/$METRICS/$((10000 + $1))" || return 1
	printf 'GET /metrics HTTP/1.0\r\n\r\n' >&3
	timeout 10 sed -n "s/^emfatierd_$2 //p" <&3 | tr -d '\r'
	exec 3<&-
}
is() { [ "$(metric "$1" "$2" 2>/dev/null)" = "$3" ]; }
# server PORT OPTION...: its metrics are on port 10000 more; its PID is pid[PORT]
declare -A pid
server() {
	local port=$1
	shift
	"$BUILD/emfatierd" --listen "$SERVER:$port" --secret-file secret --metrics $((10000 + port)) "$@" \
		2>"server-$port.err" &
	pid[$port]=$!
	wait_for 120 answers $((10000 + port))
}
stop() { # PORT [SIGNAL]
	kill "-${2:-TERM}" "${pid[$1]}" 2>/dev/null
	wait "${pid[$1]}" 2>/dev/null
}
uri() { # PORT SIZE
	echo "rdma://$SERVER:$1?secret-file=$T/secret&size=$2"
}
# Every page that came back was counted by the store.
was_read() { grep -Eq '\(ok\): [0-9.]+[KMG]* read' "$1" && ! grep -Eq '\(ok\): 0 read' "$1"; }

# words NAME RUN-OPTION...: starts tests/words over a store; it waits for go
words() {
	rm -f words.ready words.go
	timeout 500 "$BUILD/emfatier" run --local 8M "$@" -- "$BUILD/tests/words" "${WORDS:-24M}" words >words.out 2>words.err &
	client=$!
	wait_for 240 test -e words.ready
}
# words_end NAME all|some: none is wrong; all are right, or some lost and others not
words_end() {
	local status said
	touch words.go
	wait $client
	status=$?
	said=$(cat words.out)
	[ $status -eq 0 ] && case $2 in
	all) grep -qx 'right [1-9][0-9]* lost 0 wrong 0' <<<"$said" ;;
	some) grep -qx 'right [1-9][0-9]* lost [1-9][0-9]* wrong 0' <<<"$said" ;;
	esac
	verdict $? "$1" "status $status: $said $(gist words.err)"
}

