#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Each fuzz target of tests/fuzz for some seconds (FUZZ_SECONDS); `make fuzz` runs them for longer.
# shellcheck source=tests/cli/common
. "$(dirname "$0")/common"

seconds=${FUZZ_SECONDS:-5}
for source in "$ROOT"/tests/fuzz/*.c; do
	name=$(basename "$source" .c)
	call make -C "$ROOT" --no-print-directory BUILD="$BUILD" "$BUILD/fuzz/$name"
	if [ "$status" -ne 0 ] && ! command -v clang-14 >/dev/null; then
		skipped "fuzz $name" "no clang-14"
		continue
	elif [ "$status" -ne 0 ] && grep -q 'libclang_rt.fuzzer' "$WORK/err"; then
		skipped "fuzz $name" "no libFuzzer (libclang-rt-14-dev)"
		continue
	elif [ "$status" -ne 0 ] && grep -q "'nbdkit-plugin.h' file not found" "$WORK/err"; then
		skipped "fuzz $name" "no nbdkit-plugin-dev"
		continue
	fi
	[ "$status" -eq 0 ]
	verdict "fuzz $name: builds"
	mkdir -p "$WORK/corpus"
	timeout $((seconds + 50)) "$BUILD/fuzz/$name" -max_total_time="$seconds" -timeout=20 -max_len=2000 \
		-artifact_prefix="$WORK/" "$WORK/corpus" >"$WORK/out" 2>"$WORK/log" </dev/null
	status=$?
	tail -n 30 "$WORK/log" >"$WORK/err"
	# It got somewhere: far more than the message's head is covered.
	[ "$status" -eq 0 ] && [ "$(grep -oE 'cov: [0-9]+' "$WORK/log" | tail -n 1 | tr -dc 0-9)" -gt 150 ]
	verdict "fuzz $name: $(grep -oE '^Done [0-9]+ runs in [0-9]+' "$WORK/log") s"
	rm -rf "$WORK/corpus"
done

done_testing
