#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Bad input gives one clear line: `emfatier run` ends with status 2 before the
# command starts; with a bare LD_PRELOAD the program runs unmanaged. Nothing hangs.
# shellcheck source-path=SCRIPTDIR source=lib.bash
. "$(dirname "$0")/lib.bash"

# not_clear PATTERN: why $T/err is not one line that has PATTERN; nothing when it is
not_clear() {
	local n
	n=$(wc -l <"$T/err")
	if [ "$n" -ne 1 ]; then
		echo "$n lines on stderr: $(gist "$T/err")"
	elif ! grep -Eqi -- "$1" "$T/err"; then
		echo "unclear: $(gist "$T/err")"
	fi
}

# refused NAME PATTERN ARG...: emfatier run ARG... must say PATTERN and not run the command
refused() {
	local name=$1 pattern=$2 status why
	shift 2
	LIMIT=20 plain "$EMFATIER" run "$@" >"$T/out" 2>"$T/err" </dev/null
	status=$?
	if [ $status -ne 2 ]; then
		why="status $status: $(gist "$T/err")"
	elif [ -s "$T/out" ]; then
		why="the command ran"
	else
		why=$(not_clear "$pattern")
	fi
	result "$name" "$why"
}

# unmanaged NAME PATTERN CONF: under a bare LD_PRELOAD the same is one line, and the
# program (which needs far memory) goes on without us
unmanaged() {
	local name="bare: $1" pattern=$2 conf=$3 status why
	LIMIT=20 managed "$conf" "$PROG/integrity" 64M 2 1 5 heap >"$T/out" 2>"$T/err" </dev/null
	status=$?
	plain "$PROG/integrity" 64M 2 1 5 heap >"$T/want" 2>/dev/null
	if [ $status -ne 0 ]; then
		why="status $status: $(gist "$T/err")"
	elif ! cmp -s "$T/out" "$T/want"; then
		why="other output: $(gist "$T/out")"
	else
		why=$(not_clear "$pattern")
	fi
	result "$name" "$why"
}

# both NAME PATTERN SETTING [SETTING...]
both() {
	local name=$1 pattern=$2 conf="local.limit=16M" args=(--local 16M) setting
	shift 2
	for setting; do
		conf+=";$setting"
		args+=(--set "$setting")
	done
	refused "$name" "$pattern" "${args[@]}" -- echo ran
	unmanaged "$name" "$pattern" "$conf"
}

both "unknown key" "nosuch" "engine.nosuch=1"
both "unknown section" "nosuch" "nosuch.key=1"
both "no section" "limit" "limit=1"
both "bad size" "limit" "local.limit=12Q"
both "negative size" "limit" "local.limit=-5M"
both "empty size" "limit" "local.limit="
both "bad percentage" "limit" "local.limit=170%"
both "bad choice" "fault" "engine.fault=perhaps"
both "low above high" "low" "local.low=99" "local.high=50"
both "bad share of the slow node" "'node' is not known; use auto, bind, interleave or weighted" "class.a.place=node"
# A share of a node that is not used is ignored, in one line.
managed "local.limit=16M;store.uri=mem:;class.a.match=size>=4M;class.a.place=bind" "$PROG/integrity" 64M 2 1 5 mmap >"$T/out" 2>"$T/err"
result "a share without a slow node" "$(went_wrong $? /dev/null)$(not_clear "class a: place needs store.in_place")"
refused "bad --local" "1x" --local 1x -- echo ran
refused "unknown option" "frobnicate" --frobnicate -- echo ran
refused "--set without a value" "engine.chaos" --set engine.chaos -- echo ran
refused "--local without a value" "local" --local

both "no provider of that name" "nosuch" "store.uri=nosuch:/x"
both "no URI" "plain-name" "store.uri=plain-name"
both "bad option of a provider" "mem:" "store.uri=mem:?latency=soon"
both "no such directory" "no-such" "store.uri=file:$T/no-such/directory"
both "no socket" "sock" "store.uri=nbd+unix:///?socket=$T/no.sock"
both "connection refused" "127.0.0.1" "store.uri=nbd://127.0.0.1:1"
both "unknown host" "invalid" "store.uri=nbd://no-such-host.invalid"
both "one of two can't be reached" "sock" "store.uri=mem:,nbd+unix:///?socket=$T/no.sock"
refused "--store can't be reached" "sock" --store "nbd+unix:///?socket=$T/no.sock" -- echo ran
if have nbdkit; then
	# Accepts connections (the kernel does), never answers.
	nbd_start silent 64M
	kill -STOP "$nbd_pid"
	both "a silent server" "sock" "store.timeout=1s" "store.uri=$nbd_uri"
	kill -CONT "$nbd_pid"
else
	skipped "a silent server" "no nbdkit"
fi

refused "no policy of that name" "nosuch" --policy nosuch -- echo ran
printf '[local]\nlimit = 64M\n[engine]\nmin_regoin = 4K\n' >"$T/bad.conf"
refused "policy file with an error" "bad.conf:4.*min_regoin" --policy "$T/bad.conf" -- echo ran
refused "no command" "command" --local 64M
refused "no command after --" "command" --local 64M --
refused "no such command" "no-such-command" --local 64M -- "$T/no-such-command"
refused "not executable" "bad.conf" --local 64M -- "$T/bad.conf"

# A user who may not use userfaultfd. The outputs are copied to where everybody may read.
if [ "$(id -u)" -ne 0 ] || ! have setpriv; then
	skipped "no permission for userfaultfd" "needs root and setpriv"
elif [ "$(cat /proc/sys/vm/unprivileged_userfaultfd 2>/dev/null)" != 0 ]; then
	skipped "no permission for userfaultfd" "vm.unprivileged_userfaultfd is not 0"
else
	chmod 755 "$T"
	mkdir -p "$T/all/tests" "$T/nobody"
	cp -r "$LIB" "$EMFATIER" "$BUILD/providers" "$T/all/"
	cp "$PROG/integrity" "$T/all/tests/"
	chmod -R a+rX "$T/all"
	chown 65534:65534 "$T/nobody"
	EMFATIER=$T/all/emfatier LIB=$T/all/libemfatier.so PROG=$T/all/tests
	as_nobody=(setpriv --reuid 65534 --regid 65534 --clear-groups --
		env "EMFATIER_RUN_DIR=$T/nobody/run" "XDG_CACHE_HOME=$T/nobody/cache" "HOME=$T/nobody")

	plain "${as_nobody[@]}" "$EMFATIER" run --local 16M -- echo ran >"$T/out" 2>"$T/err"
	status=$?
	if [ $status -ne 2 ]; then
		not_ok "no permission" "status $status: $(gist "$T/err")"
	elif [ -s "$T/out" ]; then
		not_ok "no permission" "the command ran"
	else
		result "no permission" "$(not_clear userfaultfd)"
	fi

	plain "${as_nobody[@]}" LD_PRELOAD="$LIB" EMFATIER_CONF="local.limit=16M" \
		"$PROG/integrity" 64M 2 1 5 mmap >"$T/out" 2>"$T/err"
	status=$?
	if [ $status -ne 0 ]; then
		not_ok "bare: no permission" "status $status: $(gist "$T/err")"
	else
		result "bare: no permission" "$(not_clear userfaultfd)"
	fi
fi
finish
