#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# include/emfatier.h, and traces: engine.trace with marks, read by policysim.
# shellcheck source-path=SCRIPTDIR source=lib.bash
. "$(dirname "$0")/lib.bash"

if plain "$PROG/hints" plain >"$T/out" 2>&1; then
	ok "hints without the library"
else
	not_ok "hints without the library" "$(gist "$T/out")"
fi

# hint NAME [CONF]
hint() {
	local why
	rm -f "$T/stats"
	TIERSTAT_OUT=$T/stats managed "local.limit=20M;store.uri=mem:;${2:-}" "$PROG/hints" "$1" >"$T/out" 2>"$T/err"
	why=$(went_wrong $? "$T/err")
	result "hint $1${2:+, ${2%%=*}}" "${why:-$(not_tiered "$T/stats" 16M)}"
}

hint pin
hint pin "engine.move=off"
hint name "class.w.match=name=weights*;class.w.resident=100%"
hint name "class.w.match=name=weights*;class.w.resident=100%;engine.move=off"
hint blocks "engine.trace=$T/trace-%p"

trace=$(echo "$T"/trace-*)
if ! said=$("$BUILD/bench/policysim" "$trace" 2>&1); then
	not_ok "trace" "$said"
elif ! grep -q "of 3[2-4] blocks in 1 regions, 6 marks" <<<"$said"; then
	not_ok "trace" "$(head -n 1 <<<"$said")"
else
	ok "trace"
fi
# It goes on without, after one line.
managed "local.limit=20M;store.uri=mem:;engine.trace=$T/none/x" "$PROG/hints" blocks >"$T/out" 2>&1
status=$?
if [ $status -eq 0 ] && [ "$(grep -c 'engine.trace: .*cannot be written' "$T/out")" -eq 1 ]; then
	ok "trace that can't be written"
else
	not_ok "trace that can't be written" "status $status: $(gist "$T/out")"
fi
finish
