// One run of decode.mjs: all-local, or under `emfatier run` with tierstat watching.

import {join} from "node:path";
import {createInterface} from "node:readline";
import {output, start, stop} from "./children.mjs";
import {mib} from "./progress.mjs";
import {HERE} from "./settings.mjs";

const POLL = 200;
const POLL_LIMIT = 2000;
const ERRORS_KEPT = 5;
// tokens after which a program repeats itself
const SETTLED = 3;

// tierstat exits 3 for a store that is down, with a document all the same.
async function readTierstat(build, pid) {
	const {code, stdout} = await output(join(build, "tierstat"), ["--json", "-p", String(pid)], POLL_LIMIT);

	if (code !== 0 && code !== 3)
		return null;
	try {
		const document = JSON.parse(stdout);
		const list = Array.isArray(document) ? document : document.processes ?? [document];
		return list.find((d) => d.pid === pid) ?? null;
	} catch {
		return null;
	}
}

// Keeps the last good document: the segment goes away with the process.
function watch(build, pid, onDocument) {
	const state = {last: null, settled: null, farPeak: 0};
	let timer;
	let stopped = false;
	let busy = Promise.resolve();

	const poll = async () => {
		const document = await readTierstat(build, pid);
		if (document) {
			state.last = document;
			state.farPeak = Math.max(state.farPeak, document.far_bytes ?? 0);
			onDocument(document);
		}
	};
	const loop = () => {
		busy = poll().finally(() => { if (!stopped) timer = setTimeout(loop, POLL); });
	};
	loop();

	// the first look from now on shows what came before
	state.settle = async () => {
		await busy;
		await poll();
		state.settled = state.last;
	};
	state.finish = async (final) => {
		stopped = true;
		await busy;
		clearTimeout(timer);
		if (final)
			await poll();
	};
	return state;
}

function command(run, settings, model, uris) {
	const decode = [process.execPath, join(HERE, "decode.mjs"), "--model", model, "--progress", "--wait"];
	for (const name of ["tokens", "prompt", "context", "threads"])
		decode.push(`--${name}`, String(settings[name]));
	if (run.mapped)
		decode.push("--mapped");
	if (!run.budget)
		return [...run.wrap ?? [], ...decode];

	const emfatier = [join(settings.build, "emfatier"), "run", "--local", String(run.budget)];
	for (const uri of uris)
		emfatier.push("--store", uri);
	for (const setting of run.settings ?? [])
		emfatier.push("--set", setting);
	if (settings.policy)
		emfatier.push("--policy", settings.policy);
	return [...emfatier, "--", ...decode];
}

function environment(run) {
	const env = {...process.env};
	if (!run.budget) {
		// what the others are measured against must be the bare program
		delete env.LD_PRELOAD;
		delete env.EMFATIER_CONF;
	}
	return env;
}

function describe({phase, done, total, seconds}) {
	if (phase === "load")
		return `loading the model, ${done}%`;
	return `decoding, token ${done} of ${total}${done > 1 ? `, ${(done / seconds).toFixed(1)}/s` : ""}`;
}

// Returns {result, tierstat, settled, farPeak, error}; result or error is null; settled: tierstat
// after a few tokens.
export async function runDecode(run, settings, model, uris, show) {
	const [program, ...args] = command(run, settings, model, uris);
	const child = start(program, args, {env: environment(run), cwd: HERE, stdio: ["pipe", "pipe", "pipe"]});
	const errors = [];
	let text = "starting";
	let memory = "";
	let timedOut = false;
	let result = null;

	child.stdin.on("error", () => {});
	const timer = setTimeout(() => { timedOut = true; stop(child); }, settings.timeout * 1000);
	// the all-local run too: looking takes time of the cores that decode, and the
	// ratio must not depend on it
	const stats = child.pid !== undefined
		? watch(settings.build, child.pid, (d) => {
			memory = `, local ${mib(d.local_bytes)} MiB, far ${mib(d.far_bytes)} MiB`;
			show(text + memory);
		})
		: {last: null, settled: null, farPeak: 0, settle: async () => {}, finish: async () => {}};

	createInterface({input: child.stderr}).on("line", (line) => {
		try {
			const progress = JSON.parse(line);
			text = describe(progress);
			show(text + memory);
			if (progress.phase === "decode" && progress.done === SETTLED)
				stats.settle();
		} catch {
			errors.push(line);
		}
	});

	const answer = new Promise((resolve) => {
		createInterface({input: child.stdout}).on("line", (line) => {
			try {
				resolve(JSON.parse(line));
			} catch {
				errors.push(line);
			}
		});
		child.ended.then(() => resolve(null));
	});
	result = await answer;
	// it waits for us, so that the last look shows the whole run
	await stats.finish(result !== null);
	child.stdin.end();

	const end = await child.ended;
	clearTimeout(timer);

	let error = null;
	if (timedOut)
		error = `not done after ${settings.timeout} s (DEMO_TIMEOUT)`;
	else if (end.error)
		error = end.error.message;
	else if (end.signal)
		error = `ended by ${end.signal}`;
	else if (end.code !== 0)
		error = `exit status ${end.code}`;
	else if (!result)
		error = "no result";
	return {result, error, errors: errors.slice(-ERRORS_KEPT), tierstat: stats.last, settled: stats.settled, farPeak: stats.farPeak};
}
