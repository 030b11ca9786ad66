#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What a policy file says of regions by match= (order, thread, library, size and command, file), and of
# processes by their names, in a running program.
# shellcheck source-path=SCRIPTDIR source=lib.bash
. "$(dirname "$0")/lib.bash"

cat >"$T/policy.conf" <<'END'
[local]
limit = 1G
[class early]
match = order=1
[class loaded]
match = thread=loader*
[class large]
match = size>=64M command=class*
[class mapped]
match = file:*.gguf
[class own]
match = library=classes*
[process nobody]
local.limit = 1M
[process class*]
local.limit = 96M
class.own.evict = lru
END
head -c 32M /dev/zero >"$T/weights.gguf"
mkfifo "$T/in"
LD_PRELOAD=$LIB EMFATIER_CONF='store.uri=mem:;engine.min_region=4M' EMFATIER_POLICY=$T/policy.conf \
	"$PROG/classes" "$T/weights.gguf" <"$T/in" >"$T/out" 2>"$T/err" &
pid=$!
started+=("$pid")
exec 9>"$T/in"
up() {
	[ -s "$T/out" ]
}
wait_for 60 up

# The map is made while somebody looks.
seen() {
	"$TIERSTAT" regions "$pid" 2>/dev/null | awk 'NR > 1 { print $3, $2 }' | sort >"$T/regions"
	diff - "$T/regions" <<<$'early 8.0M\nlarge 64.0M\nloaded 24.0M\nmapped 32.0M\nown 40.0M' >"$T/differ"
}
if wait_for 20 seen; then
	ok "classes by match="
else
	not_ok "classes by match=" "$(gist "$T/differ") $(gist "$T/err")"
fi
"$TIERSTAT" --json -p "$pid" >"$T/stat"
limit=$(json "$T/stat" local_limit)
if [ "$limit" = $((96 << 20)) ]; then
	ok "settings by the name of the process"
else
	not_ok "settings by the name of the process" "limit $limit $(gist "$T/err")"
fi
exec 9>&-
wait "$pid"
status=$?
[ $status -eq 0 ] && ok "classes: the end" || not_ok "classes: the end" "status $status $(gist "$T/err")"
finish
