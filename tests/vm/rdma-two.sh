#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# rdma-two.sh: in guest 1 of two (rdma.sh): servers on guest 2, and a network between that can fail.
#
# It fails by filters that drop RoCE's packets where they arrive, and by the virtual cable (`cable`), whose
# loss the interface and the card see as that of a link. (Not by `ip link set down`: what soft-RoCE cannot send
# breaks its own queue pair for connection management for good: a fault of that driver.)
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
	METRICS=$SERVER wait_for 120 answers $((10000 + port))
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

# For more clients than there are at once: what one had is kept for a while after the network failed, see
# the man page.
server 5000 --size 192M
words --store "$(uri 5000 48M)" --set store.timeout=40s
link_fails
(
	sleep 6
	link_works
) &
words_end "two machines: the network fails for six seconds" all

# The link goes down where the network card's cable is, in the middle of transfers: of this machine, and of
# the server's.
cut() { # GUEST
	until [ -e words.go ]; do sleep 0.05; done
	sleep 0.05
	cable off "$1"
	[ -s words.out ] || touch words.cut
	sleep 6
	cable on "$1"
}
for side in 1 2; do
	rm -f words.cut
	for try in 1 2 3; do # it may be done before the cable is off
		WORDS=36M words --store "$(uri 5000 48M)" --set store.timeout=40s
		cut $side &
		cutter=$!
		words_end "two machines: the link of guest $side is down for six seconds, under load" all >cut.out
		wait $cutter
		[ ! -e words.cut ] && [ $try -lt 3 ] && ! grep -q '^not ok' cut.out || break
	done
	cat cut.out
	test -e words.cut
	verdict $? "two machines: there was load when it went down" "$(cat words.out)"
done

server 5001 --size 64M --lease 1s
words --store "$(uri 5001 48M)" --set store.timeout=5s
link_fails
wait_for 120 is 5001 leases_expired_total 1
verdict $? "two machines: the lease of a client out of reach ends" "$(metric 5001 leases_expired_total)"
link_works
words_end "two machines: a lease has ended: SIGBUS and no wrong page" some

# A second address of the server is a second path; what comes from it is lost.
other=10.99.0.12
peer ip addr add $other/24 dev eth0
server 5002 --size 64M --listen $other:5002
words --store "$(uri 5002 48M)&path=$other:5002" --set store.timeout=20s
# The one that holds the lease, those of two queues, and more: the second path of a queue in use.
wait_for 60 eval '[ "$(metric 5002 clients)" -ge 4 ]'
verdict $? "two machines: connections over both paths" "$(metric 5002 clients)"
link_fails match ip src $other/32
words_end "two machines: one of two paths fails" all
link_works

words --store "$(uri 5000 48M)" --set store.timeout=5s
peer sh -c 'echo o > /proc/sysrq-trigger'
words_end "two machines: the server's machine is gone: SIGBUS and no wrong page" some
exit $failed
