// What the runs must show, and the table that shows it.

import {colour, mib} from "./progress.mjs";

const OVERSHOOT = 1.05;

const same = (a, b) => JSON.stringify(a.tokens) === JSON.stringify(b.tokens) && a.digest === b.digest;

// Fills outcome.failures for each outcome; the first is the reference.
export function judge(outcomes) {
	const reference = outcomes[0].result;

	for (const o of outcomes) {
		o.failures = o.error ? [o.error, ...o.errors] : [];
		if (o.result && reference) {
			o.identical = same(o.result, reference);
			if (!o.identical)
				o.failures.push(JSON.stringify(o.result.tokens) === JSON.stringify(reference.tokens)
					? "same tokens, but their probabilities differ: wrong bytes were read"
					: "the tokens differ from the all-local run's");
		}
		if (!o.run.budget) {
			if (o.tierstat)
				o.failures.push("it was managed, though it should show the bare program");
			continue;
		}
		if (!o.tierstat) {
			o.failures.push("tierstat never showed it: it was not managed", ...o.error ? [] : o.errors);
			continue;
		}
		if (!o.error && o.farPeak === 0)
			o.failures.push("nothing was ever far: it proved nothing");
		if (!Number.isFinite(o.tierstat.peak_local_bytes))
			o.failures.push("tierstat shows no peak_local_bytes");
		else if (o.tierstat.peak_local_bytes > OVERSHOOT * o.run.budget)
			o.failures.push(`peak ${mib(o.tierstat.peak_local_bytes)} MiB is over ${OVERSHOOT} x the budget of ${mib(o.run.budget)} MiB`);
	}
}

const COLUMNS = [
	["run", (o) => o.run.title],
	["tokens/s", (o) => o.result?.tokens_per_second?.toFixed(2)],
	["ratio", (o, first) => o.result?.tokens_per_second && first.result?.tokens_per_second
		&& (o.result.tokens_per_second / first.result.tokens_per_second).toFixed(2)],
	["first token ms", (o) => o.result && String(Math.round(o.result.first_token_ms))],
	["budget MiB", (o) => o.run.budget && String(mib(o.run.budget))],
	["peak local MiB", (o) => o.tierstat?.peak_local_bytes && String(mib(o.tierstat.peak_local_bytes))],
	["far MiB", (o) => o.tierstat && String(mib(o.farPeak))],
	["prefetch hits", (o) => o.tierstat?.prefetch_issued
		&& `${(100 * o.tierstat.prefetch_useful / o.tierstat.prefetch_issued).toFixed(1)}%`],
	["identical", (o) => o.identical === undefined ? undefined : o.identical ? "yes" : "NO"]
];

export function table(outcomes, stream) {
	const rows = [COLUMNS.map(([name]) => name),
		...outcomes.map((o) => COLUMNS.map(([, cell]) => cell(o, outcomes[0]) || "-"))];
	const widths = COLUMNS.map((_, i) => Math.max(...rows.map((row) => row[i].length)));
	const paint = (text, code) => colour(stream) ? `\x1b[${code}m${text}\x1b[0m` : text;

	return rows.map((row, r) => row.map((cell, i) => {
		const padded = i === 0 ? cell.padEnd(widths[i]) : cell.padStart(widths[i]);
		if (r === 0)
			return paint(padded, 1);
		return cell === "NO" ? paint(padded, 31) : cell === "yes" ? paint(padded, 32) : padded;
	}).join("  ")).join("\n");
}
