#!/usr/bin/env node
// The main job: one engine, one model, the same tokens, with all memory local and
// with most of it far away. Everything it needs it makes or installs first.

import {accessSync, constants, writeFileSync} from "node:fs";
import {join} from "node:path";
import {output, stop} from "./children.mjs";
import {install} from "./install.mjs";
import {makeModel} from "./make-model.mjs";
import {line, makeScratch, program, signal} from "./program.mjs";
import {mib} from "./progress.mjs";
import {judge, table} from "./report.mjs";
import {runDecode} from "./run.mjs";
import {startServers} from "./servers.mjs";
import {readSettings, usage} from "./settings.mjs";

const GIB = 2 ** 30;

async function check(settings) {
	if (process.platform !== "linux" || process.arch !== "x64")
		throw new Error("needs Linux on x86-64, for which llama.cpp's binaries are pinned");
	for (const name of ["emfatier", "tierstat", "libemfatier.so"]) {
		const path = join(settings.build, name);
		try {
			accessSync(path, constants.R_OK);
		} catch {
			throw new Error(`${path} is missing: run make first`);
		}
	}
	if (settings.runs.some(({store}) => store === "nbd") && (await output("nbdkit", ["--version"], 10000)).code !== 0)
		throw new Error("nbdkit is missing: apt-get install nbdkit");
}

async function model(settings) {
	line.begin();
	const made = await makeModel(settings.cache, settings.shape, {
		progress: (done, total) => line.bytes("writing the model", done, total),
		signal
	});
	line.say(`model: ${made.path}, ${mib(made.bytes)} MiB${made.made ? "" : ", already there"}`);
	return made;
}

function title({share, store, mapped}, servers) {
	if (!share)
		return "all-local";
	if (mapped)
		return `${share * 100}% local, weights mapped`;
	return `${share * 100}% local, ${store === "nbd" ? `${servers} memory servers` : "file"}`;
}

async function perform(run, settings, {path, bytes}, scratch) {
	let servers = [];

	if (run.store === "nbd")
		// sparse: each could hold the model twice over, and uses what it is given
		servers = await startServers(scratch, settings.servers, Math.ceil(2 * bytes / GIB) * GIB);
	try {
		return await runDecode(run, settings, path, servers.map(({uri}) => uri), (text) =>
			line.update(`${run.title}: ${text}`));
	} finally {
		await Promise.all(servers.map(({child}) => stop(child)));
	}
}

async function main() {
	const settings = readSettings(process.argv.slice(2), process.env);
	if (!settings) {
		console.log(usage());
		return 0;
	}
	await check(settings);
	await install({say: (text) => line.say(text), progress: (text) => line.update(text), signal});
	line.end();
	const made = await model(settings);
	const scratch = makeScratch("demo");

	const outcomes = [];
	for (const [i, run] of settings.runs.entries()) {
		run.title = title(run, settings.servers);
		run.budget = run.share && Math.floor(made.bytes * run.share);
		line.say(`run ${i + 1} of ${settings.runs.length}: ${run.title}`);
		line.begin();
		const outcome = await perform(run, settings, made, scratch);
		signal.throwIfAborted();
		outcomes.push({run, ...outcome});
		// without a reference the others would say nothing
		if (i === 0 && outcome.error)
			break;
	}
	line.end();
	judge(outcomes);
	console.log(table(outcomes, process.stdout));
	if (settings.json)
		writeFileSync(settings.json, `${JSON.stringify({model_bytes: made.bytes, runs: outcomes}, null, "\t")}\n`);

	const failures = outcomes.flatMap((o) => o.failures.map((text) => `${o.run.title}: ${text}`));
	for (const text of failures)
		console.error(`demo: ${text}`);
	return failures.length ? 1 : 0;
}

program("demo", main);
