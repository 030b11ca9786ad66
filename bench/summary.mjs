// Medians, ratios and their spread; the table.

import {colour} from "./demo/progress.mjs";

export function median(values) {
	const v = [...values].sort((a, b) => a - b);
	const half = v.length >> 1;
	return v.length % 2 ? v[half] : (v[half - 1] + v[half]) / 2;
}

export function spread(values) {
	return {median: median(values), min: Math.min(...values), max: Math.max(...values), n: values.length};
}

const COUNTS = ["faults_demand", "faults_standby", "faults_zero", "faults_write_protect"];

// runs: of one arm, one a round; base: of the arm "alone", by round. lower: less is better.
export function summarize(runs, base, lower) {
	const good = runs.filter((run) => run?.value !== undefined);
	if (!good.length)
		return null;
	// only what was run in the same round is compared
	const ratios = good.filter((run) => base[run.round] !== undefined)
		.map((run) => lower ? base[run.round] / run.value : run.value / base[run.round]);
	const row = {value: spread(good.map((run) => run.value)), ratio: ratios.length ? spread(ratios) : null};

	const counted = good.filter((run) => run.counts);
	if (counted.length) {
		row.counts = {};
		for (const name of [...COUNTS, "fetched_bytes", "written_bytes", "prefetch_issued", "prefetch_wasted"])
			row.counts[name] = median(counted.map((run) => run.counts[name] ?? 0));
		row.moved_per_needed = median(counted.map(({counts, needed}) =>
			needed ? (counts.fetched_bytes + counts.written_bytes) / needed : 0));
		row.fault_us = {
			p50: median(counted.map(({latency}) => latency.p50)), p99: median(counted.map(({latency}) => latency.p99))
		};
	}
	// fetched ahead since the program has repeated itself, and of that what was used
	const ahead = good.filter((run) => run.ahead?.prefetch_issued);
	if (ahead.length)
		row.ahead_used = median(ahead.map((run) => run.ahead.prefetch_useful / run.ahead.prefetch_issued));
	return row;
}

export const number = (x) => x >= 1e6 ? `${(x / 1e6).toFixed(2)}M` : x >= 1e4 ? `${(x / 1e3).toFixed(0)}k`
	: x >= 100 ? x.toFixed(0) : x >= 10 ? x.toFixed(1) : x.toFixed(2);

export const ratio = (x) => x < 0.01 ? x.toPrecision(1) : x.toFixed(x < 0.1 ? 3 : 2);

const COLUMNS = [
	["run", (r) => r.arm],
	["value", (r) => r.value && number(r.value.median)],
	["min-max", (r) => r.value && `${number(r.value.min)}-${number(r.value.max)}`],
	["x alone", (r) => r.ratio && ratio(r.ratio.median)],
	["min-max", (r) => r.ratio && `${ratio(r.ratio.min)}-${ratio(r.ratio.max)}`],
	["far", (r) => r.counts && number(r.counts.faults_demand)],
	["frame", (r) => r.counts && number(r.counts.faults_standby)],
	["zero", (r) => r.counts && number(r.counts.faults_zero)],
	["wprot", (r) => r.counts && number(r.counts.faults_write_protect)],
	["moved/needed", (r) => r.moved_per_needed?.toFixed(2)],
	["ahead used", (r) => r.ahead_used?.toFixed(2)],
	["p50/p99 us", (r) => r.fault_us && `${number(r.fault_us.p50)}/${number(r.fault_us.p99)}`]
];

export function table(title, rows) {
	const cells = [COLUMNS.map(([name]) => name), ...rows.map((r) => COLUMNS.map(([, cell]) => cell(r) || "-"))];
	const widths = COLUMNS.map((_, i) => Math.max(...cells.map((row) => row[i].length)));
	const bold = (text) => colour(process.stdout) ? `\x1b[1m${text}\x1b[0m` : text;
	const lines = cells.map((row, i) => {
		const line = row.map((cell, k) => k ? cell.padStart(widths[k]) : cell.padEnd(widths[k])).join("  ").trimEnd();
		return i ? line : bold(line);
	});
	const why = rows.filter((r) => r.failures?.length).map((r) => `  ${r.arm}: ${r.failures[0]}`);
	return [bold(title), ...lines, ...why].join("\n");
}
