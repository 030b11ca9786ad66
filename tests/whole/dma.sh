#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Memory that a device or a socket holds stays local: tests/whole/dma/dma.c, with real
# io_uring and sockets and libraries that stand in for those of devices, where the kernel
# moves pages and where they are copied. ROWS="ring" runs only that.
# shellcheck source-path=SCRIPTDIR source=lib.bash
. "$(dirname "$0")/lib.bash"

here=$(cd "$(dirname "$0")" && pwd)
cc=${CC:-gcc}
if ! have "$cc" || [ ! -e /usr/include/liburing.h ]; then
	skipped dma "needs $cc and liburing's header"
	exit 0
fi

# fake PART SONAME MAP
fake() {
	echo "$3" >"$T/map"
	$cc -shared -fPIC -D"$1" "$here/dma/fake.c" -Wl,-soname,"$2" -Wl,--version-script="$T/map" -o "$T/$2"
}

if ! {
	fake VERBS libibverbs.so.1 'IBVERBS_1.0 { local: *; };
		IBVERBS_1.1 { global: ibv_reg_mr; ibv_dereg_mr; };
		IBVERBS_1.7 { global: ibv_reg_mr_iova; }; IBVERBS_1.8 { global: ibv_reg_mr_iova2; };' &&
		fake CUDART libcudart.so.12 'libcudart.so.12 { global: cuda*; local: *; };' &&
		$cc -shared -fPIC -DMODULE "$here/dma/fake.c" "$T/libibverbs.so.1" -o "$T/libmodule.so" &&
		$cc -std=gnu11 -O2 -g -pthread -I"$here/../prog" -DLINKED "$here/dma/dma.c" "$T/libibverbs.so.1" \
			"$T/libcudart.so.12" -luring -o "$T/linked" &&
		$cc -std=gnu11 -O2 -g -pthread -I"$here/../prog" "$here/dma/dma.c" -o "$T/bare"
} >"$T/cc.log" 2>&1; then
	not_ok dma "cannot build: $(gist "$T/cc.log" 10)"
	finish
fi
export LD_LIBRARY_PATH=$T

# all NAME CONF: no CONF runs them plain
all() {
	local prog row cold why status
	for prog in linked bare; do
		while read -r row cold; do
			[ -z "${ROWS:-}" ] || [[ " $ROWS " == *" $row "* ]] || continue
			rm -f "$T/stats"
			if [ -n "$2" ]; then
				TIERSTAT_OUT=$T/stats managed "$2" "$T/$prog" "$row" 64M
			else
				plain "$T/$prog" "$row" 64M
			fi >"$T/out" 2>"$T/err"
			status=$?
			if [ $status -eq 77 ]; then
				skipped "$row $1" "$(gist "$T/out")"
				continue
			fi
			why=$(went_wrong $status "$T/err")
			if [ -n "$2" ] && [ "$cold" = cold ]; then
				why=${why:-$(not_tiered "$T/stats" 8M)}
			fi
			result "$row $1" "$why"
		done < <("$T/$prog" list)
	done
}

all plain ""
all tiered "local.limit=32M;engine.min_region=1M;store.uri=mem:"
all chaos "local.limit=32M;engine.min_region=4K;engine.chaos=2000"
all "chaos, copied" "local.limit=32M;engine.min_region=4K;engine.chaos=2000;engine.move=off"
finish
