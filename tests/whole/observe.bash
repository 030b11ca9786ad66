# SPDX-License-Identifier: Apache-2.0
# Programs that are not ours, with and without the library: source lib.bash first.
#
#   same NAME LOCAL CMD...   the same status and output; memory went far and came back; the
#                            number of mappings stays bounded. Settings, all optional:
#     LIMIT=60         seconds, for each of the two runs
#     CONF             settings behind the usual ones (chaos, smallest regions)
#     COMPARE=out      out, status, or a command that filters the output before it is compared
#     TIERED=yes       yes: evictions and refaults, or it fails; no: it may have had none
#     PLAIN_OK=any     any: whatever the plain run's status is is right; 0: else it is skipped
#
# Each run has its result in $T/plain.* and $T/far.*: status, out, err, stats (of observe).

OBSERVE=$PROG/observe
CHAOS=${CHAOS:-2000}

# A tenth of what programs may map, beyond what they map by themselves.
maps_room=$(($(cat /proc/sys/vm/max_map_count) / 10))

# observed KEY LOCAL CMD...: LOCAL empty runs it plain
observed() {
	local key=$T/$1 limit=$2 env=()
	shift 2
	[ -z "$limit" ] || env=(env LD_PRELOAD="$LIB" EMFATIER_CONF="local.limit=$limit;engine.min_region=4K;engine.chaos=$CHAOS${CONF:+;$CONF}${FAULT:+;engine.fault=$FAULT}")
	rm -f "$key".*
	timeout -k 5 $((${LIMIT:-60} + 15)) \
		"$OBSERVE" -t "${LIMIT:-60}" -o "$key.stats" "${env[@]}" "$@" >"$key.out" 2>"$key.err" </dev/null
	echo $? >"$key.status"
}

# Why the two runs differ, or prove nothing; nothing when all is well.
difference() {
	local want got maps stats=$T/far.stats
	want=$(cat "$T/plain.status")
	got=$(cat "$T/far.status")
	if [ "$got" -ne "$want" ]; then
		echo "status $got instead of $want: $(gist "$T/far.err" 6)"
		return
	fi
	case ${COMPARE:-out} in
	status) ;;
	out)
		if ! cmp -s "$T/plain.out" "$T/far.out"; then
			echo "other output: $(diff -a "$T/plain.out" "$T/far.out" | head -n 4 | tr '\n' ' ')"
			return
		fi
		;;
	*)
		$COMPARE <"$T/plain.out" >"$T/plain.filtered"
		$COMPARE <"$T/far.out" >"$T/far.filtered"
		if ! cmp -s "$T/plain.filtered" "$T/far.filtered"; then
			echo "other output: $(diff -a "$T/plain.filtered" "$T/far.filtered" | head -n 4 | tr '\n' ' ')"
			return
		fi
		;;
	esac
	if [ "${TIERED:-yes}" = yes ]; then
		not_tiered "$stats" "${FETCHED:-1}"
		not_faulted "$stats"
	fi
	[ "$(json "$stats" lost_bytes)" = 0 ] || echo "$(json "$stats" lost_bytes) bytes were lost"
	maps=$(($(json "$stats" maps) - $(json "$T/plain.stats" maps)))
	[ $maps -le $maps_room ] || echo "$maps mappings more than without, $maps_room are allowed"
	return 0
}

figures() {
	echo "$(json "$T/far.stats" evicted_blocks) evicted, $(json "$T/far.stats" faults_demand)+$(json "$T/far.stats" faults_standby) refaults, $(json "$T/far.stats" maps) maps ($(json "$T/plain.stats" maps) without)"
}

same() {
	local name=$1 limit=$2 why
	shift 2
	observed plain '' "$@"
	why=$(cat "$T/plain.status")
	if [ "$why" -eq 124 ] || { [ "${PLAIN_OK:-any}" = 0 ] && [ "$why" -ne 0 ]; }; then
		skipped "$name" "status $why without us: $(gist "$T/plain.err")"
		return
	fi
	observed far "$limit" "$@"
	why=$(difference)
	if [ -n "$why" ]; then
		not_ok "$name" "$why"
		[ -z "${KEEP:-}" ] || { mkdir -p "$KEEP/${name// /-}" && cp "$T"/plain.* "$T"/far.* "$KEEP/${name// /-}/"; }
	else
		ok "$name ($(figures))"
	fi
}
