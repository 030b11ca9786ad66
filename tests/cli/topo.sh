#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# emfatier topo: what it reads from a made-up /sys, and that its [store] section is a valid one.
# shellcheck source=tests/cli/common
. "$(dirname "$0")/common"

sys=$WORK/sys
# put FILE TEXT
put() {
	mkdir -p "$sys/$(dirname "$1")"
	printf '%s\n' "$2" >"$sys/$1"
}
# a node: ID CPUS KIB-TOTAL KIB-FREE
node() {
	put "devices/system/node/node$1/cpulist" "$2"
	put "devices/system/node/node$1/meminfo" "Node $1 MemTotal: $3 kB
Node $1 MemFree: $4 kB"
}
node 0 0-7 67108864 33554432
node 1 '' 134217728 134217728
node 2 '' 16777216 16777216
node 10 '' 0 0
for n in '1 300 25600' '2 180 30000'; do
	read -r id latency bandwidth <<<"$n"
	put "devices/system/node/node$id/access0/initiators/read_latency" "$latency"
	put "devices/system/node/node$id/access0/initiators/read_bandwidth" "$bandwidth"
	put "devices/system/node/node$id/access0/initiators/write_bandwidth" "$bandwidth"
done
put bus/cxl/devices/mem0/ram/size 0x2000000000
put bus/cxl/devices/mem0/pmem/size 0x0
put bus/cxl/devices/mem0/numa_node 0
put bus/cxl/devices/mem0/firmware_version 'BWFW "1"'
put bus/cxl/devices/region0/size 0x2000000000
put bus/cxl/devices/region0/mode ram
put bus/cxl/devices/decoder0.0/size 0x4000000000
put bus/cxl/devices/root0/uport x
put bus/dax/devices/dax0.0/size 274877906944
put bus/dax/devices/dax0.0/target_node 3
put bus/dax/devices/dax1.0/size 137438953472
put bus/dax/devices/dax1.0/target_node 1
mkdir -p "$sys/bus/dax/drivers/kmem" "$sys/bus/dax/drivers/device_dax"
ln -s ../../drivers/device_dax "$sys/bus/dax/devices/dax0.0/driver"
ln -s ../../drivers/kmem "$sys/bus/dax/devices/dax1.0/driver"
put class/infiniband/mlx5_0/ports/1/state '4: ACTIVE'

call "$BUILD/emfatier" topo --sysfs "$sys"
[ "$status" -eq 0 ]
verdict "topo: exit status"
# The faster node first; no node with CPUs, none without memory, no dax device that is a node already.
grep -qx 'uri = numa:2 | numa:1 | dax:/dev/dax0.0 | file:/var/tmp' "$WORK/out"
verdict "topo: store.uri"
for line in 'node0 +yes +64.0G +32.0G' 'node1 +no +128G +128G +300 ns 25600 MB/s 25600 MB/s \(HMAT\)' \
	'memdev +mem0 +128G +0 BWFW \?1\?' 'region +region0 +128G +- ram' 'decoder +decoder0.0 +256G' \
	'dax +dax0.0 +256G +3 devdax' 'dax +dax1.0 +128G +1 system-ram' 'rdma +mlx5_0 +- +- ACTIVE' \
	'# an RDMA device is up'; do
	grep -qE "^$line" "$WORK/out"
	verdict "topo: $line"
done
sed -n '/^\[store\]/,$p' "$WORK/out" >"$WORK/topo.conf"
call "$BUILD/emfatier" check "$WORK/topo.conf"
[ "$status" -eq 0 ]
verdict "topo: its section is valid"

call "$BUILD/emfatier" topo --json --sysfs "$sys"
if command -v python3 >/dev/null; then
	python3 - "$WORK/out" <<'PY' 2>"$WORK/err"
import json, sys
t = json.load(open(sys.argv[1]))
assert [n["node"] for n in t["nodes"]] == [0, 1, 2, 10], t["nodes"]
assert t["nodes"][2]["read_latency_ns"] == 180 and t["nodes"][2]["source"] == "HMAT"
assert {d["name"]: d["bytes"] for d in t["devices"]}["mem0"] == 128 << 30
assert t["store"]["uri"].startswith("numa:2 | ")
PY
	verdict "topo: JSON"
else
	echo "SKIPPED topo: JSON: no python3"
fi

call "$BUILD/emfatier" topo --sysfs "$WORK/nothing"
says 1 'no NUMA nodes in'
verdict "topo: no sysfs"
call "$BUILD/emfatier" topo --jason
says 2 'topo: --jason is unknown'
verdict "topo: unknown option"
call "$BUILD/emfatier" topo --measure --sysfs "$sys"
says 2 'works on this host only'
verdict "topo: measuring another host"

if [ -d /sys/devices/system/node/node0 ]; then
	call "$BUILD/emfatier" topo --measure
	[ "$status" -eq 0 ] && grep -qE '^node0 .*[1-9][0-9]* ns +[1-9][0-9]* MB/s +[1-9][0-9]* MB/s \((HMAT|measured)\)' "$WORK/out"
	verdict "topo: this host, measured"
	none=$(compgen -G '/sys/bus/cxl/devices/mem*' >/dev/null || compgen -G '/sys/bus/dax/devices/dax*' >/dev/null ||
		echo 'no CXL memory devices and no DAX devices here')
	mkdir "$WORK/libraries"
	for way in installed broken; do
		call env LD_LIBRARY_PATH="$WORK/libraries" "$BUILD/emfatier" topo
		[ "$status" -eq 0 ] && [ ! -s "$WORK/err" ] && { [ -z "$none" ] || grep -qx "$none" "$WORK/out"; }
		verdict "topo: this host, libraries $way"
		: >"$WORK/libraries/libcxl.so.1"
		: >"$WORK/libraries/libdaxctl.so.1"
	done
	if ${CC:-cc} -shared -fPIC -o "$WORK/libraries/libcxl.so.1" "$HERE/fake_ndctl.c" 2>"$WORK/err"; then
		cp "$WORK/libraries/libcxl.so.1" "$WORK/libraries/libdaxctl.so.1"
		call env LD_LIBRARY_PATH="$WORK/libraries" "$BUILD/emfatier" topo
		for line in 'memdev +mem0 +64.0G +0 FW \?1\?' 'memdev +mem2 .*, not enabled' \
			'region +region0 +128G +- ram, 2 ways, on mem0\+mem1' 'decoder +decoder0.0 +128G +- root, 2 ways' \
			'decoder +decoder1.0 +- +- port, for region0' \
			'decoder +decoder3.0 +128G +- ram, 2 ways, on mem1, for region0' \
			'dax +dax0.0 +64.0G +2 system-ram' 'dax +dax0.1 +64.0G +2 devdax'; do
			[ "$status" -eq 0 ] && grep -qxE "$line" "$WORK/out"
			verdict "topo: libraries: $line"
		done
		[ "$(grep -c '^decoder' "$WORK/out")" -eq 4 ] && grep -q '^uri = .*dax:/dev/dax0.1 | ' "$WORK/out" &&
			! grep -q '^uri = .*dax0.0' "$WORK/out"
		verdict "topo: libraries: each once, and store.uri"
	fi
	if [ -s "$WORK/libraries/libdaxctl.so.1" ] && command -v python3 >/dev/null; then
		call env LD_LIBRARY_PATH="$WORK/libraries" "$BUILD/emfatier" topo --json
		python3 - "$WORK/out" <<'PY' 2>"$WORK/err"
import json, sys
d = {d["name"]: d for d in json.load(open(sys.argv[1]))["devices"]}
assert d["region0"]["memdevs"] == ["mem0", "mem1"] and d["region0"]["interleave_ways"] == 2, d["region0"]
assert d["mem2"]["enabled"] is False and d["mem1"]["enabled"] is True and d["mem1"]["source"] == "libcxl"
assert d["decoder2.0"]["region"] == "region0" and d["dax0.1"]["source"] == "libdaxctl"
PY
		verdict "topo: libraries: JSON"
	fi
else
	echo "SKIPPED topo: this host: no NUMA in sysfs"
fi
done_testing
