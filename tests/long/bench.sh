#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The benchmarks run, tell right from wrong content, and leave what they promise.
. "$(dirname "$0")/../whole/lib.bash"

here=$(cd "$(dirname "$0")/../.." && pwd)
names="fill sweep read skewed true mechanism"
if ! have node || ! have gnuplot; then
	skipped "bench" "no node or no gnuplot"
	finish
fi
${MAKE:-make} -s -C "$here" BUILD="$BUILD" "$BUILD/bench/work" "$BUILD/bench/mechanism" >"$T/make" 2>&1 ||
	not_ok "bench: its programs" "$(gist "$T/make")"
# shellcheck disable=SC2086
if node "$here/bench/bench.mjs" --build "$BUILD" quick $names >"$T/out" 2>"$T/err"; then
	ok "bench: quick"
else
	not_ok "bench: quick" "$(tail -n 5 "$T/out" "$T/err" | tr '\n' ' ')"
fi
node -e '
	const r = JSON.parse(require("fs").readFileSync(process.argv[1]));
	for (const b of r.benchmarks)
		for (const row of b.rows)
			if (!(row.value.median > 0) || row.runs.length < 2)
				throw new Error(`${b.name} ${row.arm}`);
	const row = r.benchmarks.find((b) => b.name === "sweep").rows.find((w) => w.arm === "mem-50");
	if (!(row.moved_per_needed > 0 && row.counts.faults_demand + row.counts.faults_standby > 0))
		throw new Error("the sweep moved nothing");
' "$BUILD/bench-results/results.json" 2>"$T/err" && ok "bench: results.json" ||
	not_ok "bench: results.json" "$(gist "$T/err" 8)"
for name in fill sweep read skewed true; do
	grep -q '</svg>' "$BUILD/bench-results/$name.svg" 2>/dev/null && ok "bench: $name.svg" ||
		not_ok "bench: $name.svg" "it is not there or not whole"
done
finish
