#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# rdma-two.sh: in guest 1 of two (rdma.sh): servers on guest 2, and a network between that can fail.
#
# It fails by filters that drop RoCE's packets where they arrive; and by a link that is set down and up
# while nothing is to be sent. (What soft-RoCE cannot send, because the interface is down or a filter drops
# it on its way out, breaks its own queue pair for connection management for good: a fault of that driver.)
set -u
. "$(dirname "$0")/rdma-lib.bash"
SERVER=$VMLAB_PEER
cd "$SHARED" || exit 1 # peer runs its commands in the same directory
cp $T/secret "$SHARED/secret"

# The server's own part of `server`; its metrics are reached over the network.
server() {
	local port=$1
	shift
	peer setsid -f bash -c "exec '$BUILD/emfatierd' --listen $SERVER:$port --secret-file '$SHARED/secret' \
		--metrics $SERVER:$((10000 + port)) $* 2>'$SHARED/server-$port.err'"
	METRICS=$SERVER wait_for 30 answers $((10000 + port))
}
both() {
	"$@" && peer "$@"
}
# link_fails [MATCH...]: for what matches this, too
link_fails() {
	both tc qdisc add dev eth0 clsact &&
		both tc filter add dev eth0 ingress protocol ip u32 match ip dport 4791 0xffff "$@" action drop
}
link_works() { both tc qdisc del dev eth0 clsact; }
METRICS=$SERVER
for module in sch_ingress cls_u32 act_gact; do
	both modprobe $module
done

# For two clients: what the first of them had is kept for a while, see the man page.
server 5000 --size 128M
words --store "$(uri 5000 48M)" --set store.timeout=40s
link_fails
(
	sleep 6
	link_works
) &
words_end "two machines: the network fails for six seconds" all

words --store "$(uri 5000 48M)" --set store.timeout=20s
sleep 3 # what was on its way has arrived
ip link set eth0 down
sleep 4
ip link set eth0 up
words_end "two machines: the client's link is down for four seconds, and up again" all

server 5001 --size 64M --lease 1s
words --store "$(uri 5001 48M)" --set store.timeout=5s
link_fails
wait_for 60 is 5001 leases_expired_total 1
verdict $? "two machines: the lease of a client out of reach ends" "$(metric 5001 leases_expired_total)"
link_works
words_end "two machines: a lease has ended: SIGBUS and no wrong page" some

# A second address of the server is a second path; what comes from it is lost.
other=10.99.0.12
peer ip addr add $other/24 dev eth0
server 5002 --size 64M --listen $other:5002
words --store "$(uri 5002 48M)&path=$other:5002" --set store.timeout=20s
# The one that holds the lease, those of two queues, and more: the second path of a queue in use.
wait_for 10 eval '[ "$(metric 5002 clients)" -ge 4 ]'
verdict $? "two machines: connections over both paths" "$(metric 5002 clients)"
link_fails match ip src $other/32
words_end "two machines: one of two paths fails" all
link_works

words --store "$(uri 5000 48M)" --set store.timeout=5s
peer sh -c 'echo o > /proc/sysrq-trigger'
words_end "two machines: the server's machine is gone: SIGBUS and no wrong page" some
exit $failed
