#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# emfatier run: everything that is wrong is said before the command starts, and
# what is right becomes the command.
# shellcheck source=tests/cli/common
. "$(dirname "$0")/common"

cd "$WORK" || exit 1
emfatier=$BUILD/emfatier
# must never run in what follows
command=(touch "$WORK/started")

# refused NAME TEXT ARG...: exit 2, one line with TEXT, the command did not start
refused() {
	local name=$1 text=$2

	shift 2
	call "$emfatier" run "$@"
	says 2 "$text" && grep -q '^emfatier: ' err && [ ! -e started ]
	verdict "run: $name"
	rm -f started
}

refused "no command" 'no command; usage: emfatier run'
refused "no command behind --" 'no command' --local 1G --
refused "unknown option" 'unknown option --fast; known are --local' --fast "${command[@]}"
refused "option without value" '--local needs a SIZE' --local
refused "option without value before --" '--store needs a URI' --store -- "${command[@]}"
refused "empty value" '--local is empty' --local= "${command[@]}"
refused "bad size" "--local 12Q: local.limit: '12Q' is not a size" --local 12Q "${command[@]}"
refused "zero" "'0' leaves no local memory" --local 0 "${command[@]}"
refused "unknown key" 'store.uir: unknown key; known are: uri' --set store.uir=mem: "${command[@]}"
refused "unknown section" '[stroe]: unknown section' --set stroe.uri=mem: "${command[@]}"
refused "no setting" 'not a setting; write section.key=value' --set limit "${command[@]}"
refused "semicolon" "can't hold ';'" --set 'store.uri=mem:;x' "${command[@]}"
refused "between keys" 'local.low: 96 is above local.high, 50' --set local.high=50 "${command[@]}"
refused "second store" "--store mem2: store.uri: 'mem2' is not a URI" \
	--store mem: --store mem2 "${command[@]}"
refused "no such policy" 'nosuch: no such policy in ' --policy nosuch "${command[@]}"
refused "no such policy file" './x.conf: no such policy file' --policy ./x.conf "${command[@]}"
printf '[local]\nlow = 99\n' >bad.conf
refused "bad policy" 'bad.conf:2: local.low: 99 is above' --policy bad.conf "${command[@]}"
EMFATIER_CONF='local.limit=1G;local.limit=x' \
	refused "bad EMFATIER_CONF" "EMFATIER_CONF:2: local.limit: 'x'" "${command[@]}"
EMFATIER_POLICY=./x.conf refused "bad EMFATIER_POLICY" 'EMFATIER_POLICY: ./x.conf' "${command[@]}"
refused "command not found" 'no-such-command-here: command not found' no-such-command-here
refused "path not found" './none: command not found' ./none
printf 'x' >plain
refused "not executable" "plain: can't be executed: Permission denied" ./plain
refused "a directory" "can't be executed" /tmp
refused "empty command" 'command not found' ''

if [ ! -e "$BUILD/libemfatier.so" ] || ! ls "$BUILD"/providers/mem.so >/dev/null 2>&1; then
	skipped "run: commands that start" "no libemfatier.so or no providers in $BUILD"
	done_testing
fi
refused "no such provider" 'nosuch:/x' --store nosuch:/x "${command[@]}"
refused "store that can't be reached" 'nbd://127.0.0.1:1' \
	--store nbd://127.0.0.1:1 --set store.timeout=2s "${command[@]}"
refused "stripe member that can't be reached" 'nbd://127.0.0.1:1' \
	--store mem: --store nbd://127.0.0.1:1 --set store.timeout=2s "${command[@]}"
refused "file store that can't be made" 'file:/proc/none/x' --store file:/proc/none/x "${command[@]}"

# As somebody else, with a copy that he may read: root is allowed everything.
if [ "$(id -u)" -ne 0 ]; then
	skipped "run: no permission for userfaultfd" "needs root to become somebody without it"
elif [ "$(cat /proc/sys/vm/unprivileged_userfaultfd)" = 1 ] ||
	setpriv --reuid 65534 test -w /dev/userfaultfd; then
	skipped "run: no permission for userfaultfd" "everybody has it here"
elif ! setpriv --reuid 65534 test -x "$emfatier"; then
	skipped "run: no permission for userfaultfd" "$BUILD is not open to other users"
else
	chmod 755 "$WORK"
	call setpriv --reuid 65534 --clear-groups env -u EMFATIER_RUN_DIR "$emfatier" run -- echo hi
	says 2 'emfatier: no permission for userfaultfd but for faults in user mode; run as root, or'
	verdict "run: no permission for userfaultfd"
fi

call "$emfatier" doctor
if [ "$status" -ne 0 ]; then
	skipped "run: commands that start" "programs can't be managed on this machine"
	done_testing
fi

# Environment and identity of the command.
call "$emfatier" run --local 1G --store mem: --store 'mem:?latency=1us' --policy llm-decode \
	--set engine.min_region=8M -- sh -c 'echo "$LD_PRELOAD|$EMFATIER_CONF|$EMFATIER_POLICY"'
[ "$status" -eq 0 ] && [ "$(cat out)" = "$BUILD/libemfatier.so|local.limit=1G;store.uri=mem:,mem:?latency=1us;engine.min_region=8M|$ROOT/policies/llm-decode.conf" ]
verdict "run: environment"

LD_PRELOAD=/nonexistent.so EMFATIER_CONF=engine.chaos=0 \
	call "$emfatier" run --local=1G sh -c 'echo "$LD_PRELOAD|$EMFATIER_CONF"'
[ "$status" -eq 0 ] && [ "$(cat out)" = "$BUILD/libemfatier.so:/nonexistent.so|engine.chaos=0;local.limit=1G" ]
verdict "run: goes before what is inherited"

# the inner one must take the outer one's budget and add its own settings
call "$emfatier" run --local 1G -- "$emfatier" run --set engine.chaos=1 -- \
	sh -c 'echo "$LD_PRELOAD|$EMFATIER_CONF"'
[ "$status" -eq 0 ] && [ "$(cat out)" = "$BUILD/libemfatier.so|local.limit=1G;engine.chaos=1" ]
verdict "run: within run"

call "$emfatier" run --local 50 --store mem: -- echo ran
[ "$status" -eq 0 ] && [ "$(cat out)" = ran ] && grep -q 'local.limit: 50 bytes are too few to work with; it is 8M' err
verdict "run: a budget that was meant to be another"

call "$emfatier" run --local 1G --store mem: -- sh -c 'exit 7'
[ "$status" -eq 7 ] && [ ! -s err ]
verdict "run: the command's exit status"

call "$emfatier" run --store mem: sh -c 'printf "%s|" "$@"' name --local 'a b' '' --
[ "$status" -eq 0 ] && [ "$(cat out)" = "--local|a b||--|" ]
verdict "run: the command's arguments"

call sh -c 'echo $$; exec "$0" run --store mem: -- sh -c "echo \$\$"' "$emfatier"
[ "$status" -eq 0 ] && [ "$(sort -u out | wc -l)" -eq 1 ]
verdict "run: is the command, same PID"

printf '#!/bin/sh\necho script "$1"\n' >script
printf 'echo no interpreter\n' >bare
chmod +x script bare
PATH=$WORK:$PATH call "$emfatier" run --store mem: script x
[ "$status" -eq 0 ] && [ "$(cat out)" = "script x" ] && [ ! -s err ]
verdict "run: a script from PATH"
call "$emfatier" run --store mem: ./bare
[ "$status" -eq 0 ] && [ "$(cat out)" = "no interpreter" ]
verdict "run: a script without #!"

# unmanaged NAME REASON COMMAND...: it runs, and one line says why unmanaged
unmanaged() {
	local name=$1 reason=$2

	shift 2
	call "$emfatier" run --store mem: "$@"
	[ "$status" -eq 0 ] && [ "$(cat out)" = static ] && [ "$(wc -l <err)" -eq 1 ] &&
		grep -qF "$reason; it runs unmanaged" err
	verdict "run: $name"
}

printf '#include <stdio.h>\nint main(void) { puts("static"); }\n' >static.c
if ${CC:-cc} -static -o static static.c 2>/dev/null; then
	unmanaged "a static program" 'static: it is statically linked' ./static
	printf '#!%s\n' "$WORK/static" >wrapped
	chmod +x wrapped
	unmanaged "a script of a static program" 'it is statically linked' ./wrapped
else
	skipped "run: a static program" "can't link one here"
fi
if [ "$(id -u)" -eq 0 ] && ${CC:-cc} -o setuid static.c 2>/dev/null; then
	chown 65534 setuid
	chmod 4755 setuid "$WORK"
	unmanaged "a setuid program" "another user's rights (setuid)" ./setuid
else
	skipped "run: a setuid program" "needs root and a compiler"
fi

call "$BUILD/emfatier" run --store mem: --set store.redundancy=mirror -- true
says 2 "mirror needs 2 stores, store.uri names 1"
verdict "run: a mirror of one store"

done_testing
