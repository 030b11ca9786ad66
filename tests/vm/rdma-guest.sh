#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# rdma-guest.sh [NAME...]: in a guest of the lab with soft-RoCE (rdma.sh): emfatierd and rdma:// as
# they are used, with what can go wrong on the way. Says ok, not ok or SKIPPED for each.
set -u
. "$(dirname "$0")/rdma-lib.bash"

t_provider() {
	local status
	server 4000 --size 64M
	EMF_TEST_RDMA="rdma://$VMLAB_SELF:4000?secret-file=$T/secret" CMOCKA_MESSAGE_OUTPUT=TAP \
		timeout 600 "$BUILD/tests/unit/test_rdma" >unit.out 2>&1
	status=$?
	[ $status -eq 0 ] && [ "$(grep -c '^ok' unit.out)" -ge 7 ]
	verdict $? "provider, $(grep -c '^ok' unit.out) tests" "status $status: $(grep -v '^ok' unit.out | head -n 5 | tr '\n' ' ')"
	wait_for 30 is 4000 'leased_bytes{tenant="default"}' 0 && is 4000 clean_bytes $((64 << 20))
	verdict $? "all memory is back, and clean" "$(metric 4000 clean_bytes)"
	grep -q '^Seccomp:.*2$' /proc/"${pid[4000]}"/status && grep -q '^Uid:.65534.65534' /proc/"${pid[4000]}"/status &&
		grep -q '^CapEff:.0*$' /proc/"${pid[4000]}"/status && grep -q '^NoNewPrivs:.1' /proc/"${pid[4000]}"/status
	verdict $? "the server has no privileges" "$(grep -E 'Uid|Seccomp|Cap|NoNew' /proc/"${pid[4000]}"/status | tr '\n' ' ')"
	stop 4000
	verdict $? "the server ends when told" "$(gist server-4000.err)"
}

# Of a kernel without UFFDIO_MOVE.
t_copies() {
	"$BUILD/emfatier" doctor >doctor.out 2>&1
	grep -i move doctor.out | grep -qi 'no'
	verdict $? "Linux $(uname -r) has no UFFDIO_MOVE" "$(grep -i move doctor.out)"
}

t_integrity() {
	local together=16 # pages; without UFFDIO_MOVE each place that is touched costs a whole block
	[ -z "${KERNEL:-}" ] || together=512
	server 4001 --size 64M
	server 4002 --size 64M
	"$BUILD/emfatier" run --local 8M --store "$(uri 4001 48M)" --summary -- \
		"$BUILD/tests/integrity" 20M 2 1 42 mmap "$together" >out 2>&1 && was_read out
	verdict $? "integrity, one server" "$(gist out)"
	"$BUILD/emfatier" run --local 8M --store "$(uri 4001 32M)" --store "$(uri 4002 32M)" --summary -- \
		"$BUILD/tests/integrity" 20M 2 1 43 mmap "$together" >out 2>&1 && [ "$(grep -c 'read' out)" -ge 2 ] && was_read out
	verdict $? "integrity, two servers" "$(gist out)"
	stop 4001
	stop 4002
}

# A card that takes page faults reaches frames itself: the driver is asked whether it did.
t_odp() {
	if ! ibv_devinfo -v | grep -A1 rc_odp_caps | grep -q SUPPORT_SEND; then
		echo "SKIPPED rdma (odp): Linux $(uname -r) has no on-demand paging for soft-RoCE"
		return
	fi
	mount -t tracefs tracefs /sys/kernel/tracing
	echo 'p:copied rxe_odp_mr_copy' >>/sys/kernel/tracing/kprobe_events
	echo 'p:taken rxe_ib_invalidate_range' >>/sys/kernel/tracing/kprobe_events
	echo 1 >/sys/kernel/tracing/events/kprobes/enable
	server 4011 --size 64M
	"$BUILD/emfatier" run --local 8M --store "$(uri 4011 48M)&odp=on" --summary -- \
		"$BUILD/tests/integrity" 20M 2 1 44 mmap 512 >out 2>&1 && was_read out
	verdict $? "integrity" "$(gist out)"
	# How often depends on which of the ten blocks have faults; each is moved once at the least.
	awk '$1 == "copied" && $2 > 1000 { n++ } $1 == "taken" && $2 > 10 { n++ } END { exit n != 2 }' \
		/sys/kernel/tracing/kprobe_profile
	verdict $? "the card reached frames, and their pages were moved" "$(tr -s " \n" " " </sys/kernel/tracing/kprobe_profile) $(gist out)"
	stop 4011
}

t_killed() {
	server 4003 --size 64M
	server 4004 --size 64M
	words --store "$(uri 4003 48M)" --store "$(uri 4004 48M)" --set store.redundancy=mirror
	stop 4004 KILL
	words_end "mirror, a server is killed" all
	words --store "$(uri 4003 48M)" --set store.timeout=3s
	stop 4003 KILL
	words_end "one server, killed: SIGBUS and no wrong page" some
}

t_refused() {
	local said
	server 4007 --size 64M --tenant alice=16M --tenant bob=64M,other
	timeout 240 "$BUILD/emfatier" run --local 8M --store "rdma://$VMLAB_SELF:4007?secret-file=$T/other&tenant=alice" -- true 2>out
	[ $? -ne 0 ] && grep -q 'denies access' out && ! grep -qFf secret out && ! grep -qFf other out
	verdict $? "wrong secret" "$(gist out)"
	timeout 240 "$BUILD/emfatier" run --local 8M --store "rdma://$VMLAB_SELF:4007" -- true 2>out
	[ $? -ne 0 ] && grep -q 'denies access' out
	verdict $? "no secret" "$(gist out)"
	timeout 240 "$BUILD/emfatier" run --local 8M --store "$(uri 4007 32M)&tenant=alice" -- true 2>out
	[ $? -ne 0 ] && grep -q 'quota' out
	verdict $? "more than the quota" "$(gist out)"
	said=$(metric 4007 denied_total)
	[ "${said:-0}" -ge 1 ] && ! grep -qFf secret server-4007.err && ! grep -qFf other server-4007.err
	verdict $? "the server counts, and says no secret" "$said $(gist server-4007.err)"
	stop 4007
}

t_client() {
	server 4008 --size 64M --lease 2s --drain 300s
	words --store "$(uri 4008 48M)"
	! is 4008 'leased_bytes{tenant="default"}' 0
	verdict $? "a client leases" "$(metric 4008 'leased_bytes{tenant="default"}')"
	kill -KILL "$(pgrep -P $client || echo $client)" $client 2>/dev/null
	wait $client 2>/dev/null
	wait_for 90 is 4008 clean_bytes $((64 << 20))
	verdict $? "a client is killed: its memory comes back, and is cleaned" "$(metric 4008 clean_bytes)"
	words --store "$(uri 4008 48M)"
	kill -TERM "${pid[4008]}"
	wait_for 60 is 4008 draining 1
	timeout 240 "$BUILD/emfatier" run --local 8M --store "$(uri 4008 2M)" -- true 2>out
	[ $? -ne 0 ] && grep -q 'shutting down' out && kill -0 "${pid[4008]}"
	verdict $? "draining: no new client" "$(gist out)"
	words_end "draining: the others go on" all
	wait "${pid[4008]}"
	verdict $? "drained: the server ends" "$(gist server-4008.err)"
}

# The best of each in ours.txt, lat.txt and bw.txt; true: ours are near enough.
best() {
	lat=$(sort -n lat.txt | head -n 1)
	bw=$(sort -rn bw.txt | head -n 1)
	us=$(awk '{ print $2 }' ours.txt | sort -n | head -n 1)
	mib=$(awk '{ print $4 }' ours.txt | sort -rn | head -n 1)
	awk -v a="${us:-0}" -v l="${lat:-0}" -v b="${mib:-0}" -v w="${bw:-0}" 'BEGIN {
		exit !(a > 0 && l > 0 && b > 0 && w > 0 && a <= 1.5 * l && b >= 0.7 * w) }'
}

# Both in turns, three times or, where the machine that emulates this one has other work, more often.
t_speed() {
	local lat bw us mib i=0 a status=1
	command -v ib_read_lat >/dev/null || {
		echo "SKIPPED rdma speed: no perftest"
		return
	}
	server 4009 --size 64M
	: >ours.txt
	: >lat.txt
	: >bw.txt
	while [ $i -lt 3 ] || { [ $i -lt 9 ] && [ $status -ne 0 ]; }; do
		timeout 240 ib_read_lat -R -F -s 4096 -n 400 >/dev/null 2>&1 &
		a=$!
		sleep 1
		timeout 240 ib_read_lat -R -F -s 4096 -n 400 "$VMLAB_SELF" 2>/dev/null | awk '$1 == 4096 { print $5 }' >>lat.txt
		wait $a
		timeout 240 ib_read_bw -R -F -s 131072 -n 384 -t 16 >/dev/null 2>&1 &
		a=$!
		sleep 1
		timeout 240 ib_read_bw -R -F -s 131072 -n 384 -t 16 "$VMLAB_SELF" 2>/dev/null | awk '$1 == 131072 { print $4 }' >>bw.txt
		wait $a
		timeout 300 "$BUILD/tests/vm/speed" "$(uri 4009 32M)" 2>/dev/null | grep '^latency' >>ours.txt
		best
		status=$?
		i=$((i + 1))
	done
	stop 4009
	verdict $status "speed: demand read of 4 KiB ${us:-?} us (ib_read_lat ${lat:-?}), bulk ${mib:-?} MiB/s (ib_read_bw ${bw:-?})" \
		"is not within 1.5 of the latency and 0.7 of the bandwidth, $i rounds"
}

# The same tokens, and the same probability of each, as with all of it local.
t_llama() {
	local demo decode one
	demo=$(cd "$(dirname "$0")/../../bench/demo" && pwd)
	if ! [ -e "${MODEL:-}" ]; then
		echo "SKIPPED rdma llama: no node, or no node-llama-cpp (make demo installs it)"
		return
	fi
	decode=(node "$demo/decode.mjs" --model "$MODEL" --tokens 4 --prompt 4 --context 64 --threads 1)
	server 4010 --size 64M
	(cd "$demo" && timeout 600 "${decode[@]}") >plain.out 2>plain.err
	one=$(grep -oE '"digest":"[0-9a-f]+"' plain.out)
	(cd "$demo" && timeout 600 "$BUILD/emfatier" run --local 8M --store "$(uri 4010 48M)" --summary -- "${decode[@]}") \
		>far.out 2>far.err
	[ -n "$one" ] && grep -qF "$one" far.out && was_read far.err
	verdict $? "llama: the tokens are the same" "$(gist plain.err far.err) $(head -c 200 far.out)"
	stop 4010
}

for name in ${*:-provider integrity killed refused client speed llama}; do
	if declare -F "t_$name" >/dev/null; then t_"$name"; else not_ok "rdma $name" "there is no such part"; fi
done
exit $failed
