#!/usr/bin/env node
// bench.mjs [--build DIR] [quick] [NAME...]: all benchmarks, or those named, each in all the
// ways that this machine has, turn about in rounds. Prints tables; writes results.json and an
// SVG for each benchmark to DIR/bench-results.

import {mkdirSync, readFileSync, writeFileSync} from "node:fs";
import {cpus, release, totalmem} from "node:os";
import {join, resolve} from "node:path";
import {output, stop} from "./demo/children.mjs";
import {install} from "./demo/install.mjs";
import {SHAPE, defaultCache, makeModel} from "./demo/make-model.mjs";
import {line, makeScratch, program, signal} from "./demo/program.mjs";
import {startServers} from "./demo/servers.mjs";
import {HERE, findArms} from "./arms.mjs";
import {runMechanism, runModel, runRedis, runTrue, runWork} from "./measure.mjs";
import {plot} from "./plot.mjs";
import {number, summarize, table} from "./summary.mjs";

const MIB = 2 ** 20;

// size: MiB of bench/work.c; a model of fewer layers is as much like a real one, only smaller
const FULL = {quick: false, rounds: 5, size: 1024, seconds: 4, keys: 400000, tokens: 32, layers: SHAPE.layers.default};
const QUICK = {quick: true, rounds: 3, size: 256, seconds: 0.8, keys: 100000, tokens: 12, layers: 4};

const work = (name, what, unit, more = {}) => ({
	what, unit, only: more.only,
	run: (context, arm, o) => runWork(context, arm, {work: name, bytes: o.size * MIB, seconds: o.seconds, threads: more.threads})
});

const decode = (what, {mapped = false, only} = {}) => ({
	what, unit: "tokens/s", needs: prepareModel, only,
	run: (context, arm, o) => runModel(context, arm, {
		model: context.model, tokens: o.tokens, threads: Math.min(cpus().length, 2), mapped
	})
});

const BENCHMARKS = {
	copy: work("copy", "memcpy of all memory, the limit", "GB/s", {only: (arm) => arm.kind === "alone"}),
	fill: work("fill", "first writes, from end to end", "GB/s"),
	sweep: work("sweep", "reads from end to end, 1 thread", "GB/s"),
	"sweep-2": work("sweep", "reads from end to end, 2 threads", "GB/s", {threads: 2}),
	fits: work("fits", "reads of an eighth again and again: nothing has to move", "GB/s"),
	read: work("read", "reads of 4 KiB at random", "1/s"),
	write: work("write", "writes of 4 KiB at random, all alike", "1/s"),
	skewed: work("skewed", "writes of 4 KiB at random, 90% on a scattered tenth", "1/s"),
	decode: decode("llama.cpp decodes (node-llama-cpp)"),
	"decode-mapped": decode("the same, the model's file mapped; beside the page cache of a control group of that size",
		{mapped: true, only: (arm) => arm.mode !== "signal"}),
	redis: {
		what: "redis-benchmark GET of 1 KiB at random, engine.heap=all", unit: "1/s", needs: needRedis,
		run: (context, arm, o) => runRedis(context, arm, o)
	},
	true: {
		what: "start and end of `true`", unit: "ms", lower: true,
		arms: [{name: "alone", kind: "alone"}, {name: "mem-preload", kind: "preload"}],
		run: (context, arm, o) => runTrue(context, arm, {runs: o.quick ? 60 : 200})
	}
};
const NAMES = [...Object.keys(BENCHMARKS), "mechanism"];

const usage = `usage: bench.mjs [--build DIR] [quick] [NAME...]
benchmarks: ${NAMES.join(", ")}`;

function readArguments(argv) {
	const o = {build: resolve(HERE, "../build"), options: FULL, names: []};
	for (let i = 0; i < argv.length; i++) {
		if (argv[i] === "--build" && argv[i + 1])
			o.build = resolve(argv[++i]);
		else if (argv[i] === "quick")
			o.options = QUICK;
		else if (NAMES.includes(argv[i]))
			o.names.push(argv[i]);
		else if (argv[i] === "--help" || argv[i] === "-h") {
			console.log(usage);
			process.exit(0);
		} else
			throw Object.assign(new Error(`${argv[i]}?\n${usage}`), {exitCode: 2});
	}
	if (!o.names.length)
		o.names = NAMES;
	return o;
}

// null, or why it can't be run here.
async function prepareModel(context, o) {
	try {
		await install({say: (text) => line.say(text), progress: (text) => line.update(text), signal});
	} catch (error) {
		signal.throwIfAborted();
		return error.message;
	}
	const shape = Object.fromEntries(Object.entries(SHAPE).map(([name, {default: value}]) => [name, value]));
	shape.layers = o.layers;
	line.begin();
	context.model = await makeModel(defaultCache(), shape, {
		progress: (done, total) => line.bytes("writing the model", done, total), signal
	});
	return null;
}

async function needRedis() {
	for (const name of ["redis-server", "redis-benchmark", "redis-cli"])
		if ((await output(name, ["--version"], 10000)).code !== 0)
			return `no ${name}`;
	return null;
}

// What 1 is on its axis.
function atAlone({rows, unit}) {
	const alone = rows.find((row) => row.arm === "alone")?.value;
	return alone ? ` (alone: ${number(alone.median)} ${unit})` : "";
}

async function inRounds(name, context, options, arms) {
	const bench = BENCHMARKS[name];
	const runs = Object.fromEntries(arms.map((arm) => [arm.name, []]));
	const failures = Object.fromEntries(arms.map((arm) => [arm.name, []]));
	let check;

	line.begin();
	for (let round = 0; round < options.rounds; round++)
		for (const arm of arms) {
			const where = `${name}, round ${round + 1} of ${options.rounds}: ${arm.name}`;
			context.show = (text) => line.update(`${where}, ${text}`);
			line.update(where);
			// what failed twice does so again
			if (failures[arm.name].length > 1)
				continue;
			try {
				const run = await bench.run(context, arm, options);
				check ??= run.check;
				if (run.check !== check)
					throw new Error("the result is not that of the program alone");
				runs[arm.name].push({round, ...run});
			} catch (error) {
				signal.throwIfAborted();
				failures[arm.name].push(error.message);
			}
		}
	line.end();
	const base = [];
	for (const run of runs.alone ?? [])
		base[run.round] = run.value;
	const rows = arms.map((arm) => ({
		arm: arm.name, ...summarize(runs[arm.name], base, bench.lower), failures: failures[arm.name], runs: runs[arm.name]
	}));
	return {name, what: bench.what, unit: bench.unit, rows};
}

function describeMechanism(m) {
	const {bare} = m;
	const times = (a, b) => a && b ? `${(a / b).toFixed(2)}x` : "-";
	const us = (x) => x === undefined ? "none" : `${x.toFixed(1)} us`;
	return [
		"mechanism: what a fault costs",
		bare.why ? `  2 MiB moved in by a bare handler: ${bare.why}`
			: `  2 MiB moved in by a bare handler: p50 ${us(bare.handler_p50_us)} in the handler, ${us(bare.thread_p50_us)} for the thread`,
		`  the runtime's own, of a block found in a frame: p50 ${us(m.standby_p50_us)}, ${times(m.standby_p50_us, bare.handler_p50_us)} (in a sweep, ${m.standby_hits} of them)`,
		...m.demand.flatMap(({store, alone, beside}) => [
			`  a far touch (${store}), nothing else going on: p50 ${us(alone.p50_us)}, p99 ${us(alone.p99_us)} of ${alone.waits}`,
			`  beside a saturating sweep: p99 ${us(beside.p99_us)} of ${beside.waits}, ${times(beside.p99_us, alone.p50_us)} of that p50`
		])
	].join("\n");
}

async function main() {
	const {build, options, names} = readArguments(process.argv.slice(2));
	const scratch = makeScratch("bench");
	process.env.EMFATIER_RUN_DIR = join(scratch, "run");
	const folder = join(build, "bench-results");
	mkdirSync(folder, {recursive: true});

	const {arms, leftOut} = await findArms({build, quick: options.quick});
	for (const text of leftOut)
		console.log(`left out: ${text}`);
	const context = {build, scratch, uris: [], limit: 300};
	let servers = [];
	if (arms.some((arm) => arm.store === "nbd")) {
		servers = await startServers(scratch, 2, 4096 * MIB);
		context.uris = servers.map(({uri}) => uri);
	}

	const results = {
		when: new Date().toISOString(), kernel: release(), cpu: cpus()[0]?.model, cpus: cpus().length,
		memory_bytes: totalmem(), load: readFileSync("/proc/loadavg", "utf8").trim(), options, left_out: leftOut, benchmarks: []
	};
	const save = () => writeFileSync(join(folder, "results.json"), `${JSON.stringify(results, null, "\t")}\n`);
	let bad = 0;
	for (const name of names) {
		if (name === "mechanism") {
			line.begin();
			line.update(name);
			try {
				results.mechanism = await runMechanism(context, {bytes: options.size * MIB, seconds: options.seconds});
				console.log(`\n${describeMechanism(results.mechanism)}`);
			} catch (error) {
				signal.throwIfAborted();
				console.log(`\nmechanism: ${error.message}`);
				bad++;
			}
			save();
			continue;
		}
		const bench = BENCHMARKS[name];
		const why = await bench.needs?.(context, options);
		if (why) {
			console.log(`\n${name}: left out: ${why}`);
			results.left_out.push(`${name}: ${why}`);
			continue;
		}
		const result = await inRounds(name, context, options, bench.arms ?? arms.filter(bench.only ?? (() => true)));
		results.benchmarks.push(result);
		console.log(`\n${table(`${name}: ${result.what}, ${result.unit}${bench.lower ? ", less is better" : ""}; ${options.rounds} rounds`, result.rows)}`);
		bad += result.rows.filter((row) => row.failures.length).length;
		const error = await plot(folder, name, result.what + atAlone(result), result.rows);
		if (error) {
			console.log(error);
			bad++;
		}
		save();
	}
	await Promise.all(servers.map(({child}) => stop(child)));
	console.log(`\nresults: ${join(folder, "results.json")} and an SVG for each`);
	return bad ? 1 : 0;
}

program("bench", main);
