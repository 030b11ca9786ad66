#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What is loaded with RTLD_DEEPBIND has the program's malloc all the same (preload/load.c); what the
# program calls by names of libc's is its own affair (preload/kernels.c), and by names of isa-l's
# (src/store/store.c).
# shellcheck source-path=SCRIPTDIR source=lib.bash
. "$(dirname "$0")/lib.bash"

here=$(cd "$(dirname "$0")" && pwd)
cc=${CC:-gcc}
if ! have "$cc"; then
	skipped load "needs $cc"
	exit 0
fi
mkdir "$T/modules"
if ! {
	$cc -shared -fPIC "$here/load/module.c" -o "$T/modules/libmodule.so" &&
		# shellcheck disable=SC2016
		$cc -std=gnu11 -O2 -I"$here/../prog" "$here/load/load.c" -Wl,-rpath,'$ORIGIN/modules' \
			-Wl,--enable-new-dtags -o "$T/load" &&
		$cc -std=gnu11 -O2 -rdynamic -I"$here/../prog" "$here/load/names.c" -o "$T/names"
} >"$T/cc.log" 2>&1; then
	not_ok load "cannot build: $(gist "$T/cc.log" 10)"
	finish
fi

plain "$T/load" >"$T/out" 2>"$T/err"
result "plain" "$(went_wrong $? "$T/err")"
for conf in local.limit=2G "local.limit=8M;engine.min_region=4K;engine.chaos=1000" \
	"local.limit=8M;engine.min_region=4K;engine.heap=all"; do
	managed "$conf" "$T/load" >"$T/out" 2>"$T/err"
	result "deepbind $conf" "$(went_wrong $? "$T/err")"
done
EMFATIER_DISABLE=1 managed local.limit=2G "$T/load" >"$T/out" 2>"$T/err"
result "deepbind disabled" "$(went_wrong $? "$T/err")"

plain "$T/names" >"$T/out" 2>"$T/err"
result "names plain" "$(went_wrong $? "$T/err")"
for conf in "" ";engine.move=off" ";engine.heap=all;engine.chaos=300"; do
	managed "local.limit=16M;store.uri=mem:$conf" "$T/names" >"$T/out" 2>"$T/err"
	result "names managed${conf//;/, }" "$(went_wrong $? "$T/err")"
done

isal=$(ldd "$BUILD/providers/link-parity.so" | awk '$1 ~ /^libisal/ { print $3 }')
echo 'void abort(void);' >"$T/isal.c"
nm -D --defined-only "$isal" | awk '$2 == "T" { sub(/@.*/, "", $3); print "void " $3 "(void); void " $3 "(void) { abort(); }" }' >>"$T/isal.c"
if ! $cc -std=gnu11 -O1 -pthread -rdynamic "$here/../prog/integrity.c" "$T/isal.c" -o "$T/isal" >"$T/cc.log" 2>&1; then
	not_ok "names of isa-l" "cannot build: $(gist "$T/cc.log" 10)"
	finish
fi
# Half of what the first store is asked for fails: so there is something to compute.
managed "local.limit=16M;store.uri=mem:?size=64M,mem:?size=64M,mem:?size=64M;store.redundancy=parity;store.inject=1:error=0.5" \
	"$T/isal" 48M 2 2 1 mmap >"$T/out" 2>"$T/err"
result "names of isa-l" "$(went_wrong $? "$T/err")"
finish
