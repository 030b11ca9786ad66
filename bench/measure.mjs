// One run of one benchmark in one way: what it reached, and what the runtime counted meanwhile.

import {randomBytes} from "node:crypto";
import {existsSync} from "node:fs";
import {join} from "node:path";
import {createInterface} from "node:readline";
import {Readable} from "node:stream";
import {pipeline} from "node:stream/promises";
import {output, start, stop} from "./demo/children.mjs";
import {runDecode} from "./demo/run.mjs";
import {limitOf, wrap} from "./arms.mjs";
import {median} from "./summary.mjs";

const MIB = 2 ** 20;
const PROBE = 10000;
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

export class RunError extends Error {}

async function tierstat(build, pid) {
	const {code, stdout} = await output(join(build, "tierstat"), ["--json", "-p", String(pid)], PROBE);
	if (code !== 0 && code !== 3)
		throw new RunError("tierstat does not show it: it was not managed");
	return JSON.parse(stdout);
}

const difference = (after, before) => Object.fromEntries(Object.entries(after)
	.filter(([, v]) => typeof v === "number").map(([k, v]) => [k, v - (before?.[k] ?? 0)]));

// What a child says, a line at a time; its error is the end of all waiting.
function listen(child, limit) {
	const lines = [];
	const errors = [];
	const waiting = [];
	let over = null;
	const settle = () => {
		while (waiting.length && (lines.length || over))
			waiting.shift()(lines.length ? lines.shift() : null);
	};
	createInterface({input: child.stdout}).on("line", (line) => { lines.push(line); settle(); });
	createInterface({input: child.stderr}).on("line", (line) => errors.push(line));
	child.ended.then((end) => { over = end; settle(); });
	const timer = setTimeout(() => { errors.unshift(`not done after ${limit} s`); stop(child); }, limit * 1000);
	child.ended.finally(() => clearTimeout(timer));

	const next = async () => {
		const line = await new Promise((resolve) => { waiting.push(resolve); settle(); });
		if (line === null)
			throw new RunError(errors[0] ?? over.error?.message ?? `ended with ${over.signal ?? `status ${over.code}`}`);
		return line;
	};
	const finish = async () => {
		child.stdin.end();
		const end = await child.ended;
		if (end.code !== 0)
			throw new RunError(errors[0] ?? `ended with ${end.signal ?? `status ${end.code}`}`);
	};
	return {next, finish, errors};
}

// Of bench/work.c.
export async function runWork(context, arm, {work, bytes, threads = 1, seconds, settings}) {
	const {build} = context;
	const {command, env} = wrap(arm, {...context, settings}, bytes,
		[join(build, "bench/work"), work, String(bytes / MIB), String(seconds), String(threads)]);
	const child = start(command[0], command.slice(1), {env, stdio: ["pipe", "pipe", "pipe"]});
	child.stdin.on("error", () => {});
	const talk = listen(child, context.limit);

	try {
		const line = await talk.next();
		if (line !== "ready")
			throw new RunError(line);
		const tiered = arm.kind === "tiered";
		// before its first byte there may be nothing that is managed
		const before = tiered && work !== "fill" ? await tierstat(build, child.pid) : null;
		child.stdin.write("\n");
		const result = JSON.parse(await talk.next());
		const after = tiered ? await tierstat(build, child.pid) : null;
		await talk.finish();
		return {
			...result,
			value: result.values && median(result.values),
			...after && {counts: difference(after, before), latency: after.fault_latency_us, tierstat: after}
		};
	} finally {
		await stop(child);
	}
}

// Of demo/decode.mjs.
export async function runModel(context, arm, {model, tokens, threads, mapped = false}) {
	const settings = {
		build: context.build, tokens, prompt: 16, context: 512, threads, timeout: context.limit, policy: ""
	};
	const run = {mapped};
	if (arm.kind === "tiered") {
		run.budget = limitOf(arm, model.bytes);
		run.settings = arm.mode === "signal" ? ["engine.fault=signal"] : [];
	} else if (arm.kind === "swapped") {
		run.wrap = wrap(arm, context, model.bytes, []).command;
	}
	const uris = arm.store === "mem" ? ["mem:"] : context.uris;
	const {result, tierstat: stats, settled, error, errors} = await runDecode(run, settings, model.path, uris, context.show);
	if (error)
		throw new RunError(errors[0] ?? error);
	if (run.budget && !stats)
		throw new RunError("tierstat never showed it: it was not managed");
	return {
		value: result.tokens_per_second, check: result.digest, needed: (tokens + 1) * model.bytes,
		...stats && {counts: difference(stats, null), latency: stats.fault_latency_us},
		...stats && settled && {ahead: difference(stats, settled)}
	};
}

async function redis(socket, args, limit = 600000) {
	const {code, stdout} = await output("redis-cli", ["-s", socket, ...args], limit);
	if (code !== 0)
		throw new RunError(`redis-cli ${args[0]}: status ${code}`);
	return stdout;
}

const VALUE = 1024;
const NOISE = randomBytes(1 << 20).toString("latin1").replace(/[\r\n]/g, " ").slice(0, 1 << 20);

// The keys that redis-benchmark asks for, in order: what it sets itself comes at random.
function* sets(keys) {
	const head = `*3\r\n$3\r\nSET\r\n$16\r\nkey:`;
	for (let i = 0; i < keys;) {
		let text = "";
		for (const end = Math.min(keys, i + 256); i < end; i++) {
			const at = i * 7919 % (NOISE.length - VALUE);
			text += `${head}${String(i).padStart(12, "0")}\r\n$${VALUE}\r\n${NOISE.slice(at, at + VALUE)}\r\n`;
		}
		yield Buffer.from(text, "latin1");
	}
}

async function load(socket, keys) {
	const cli = start("redis-cli", ["-s", socket, "--pipe"], {stdio: ["pipe", "ignore", "ignore"]});
	await pipeline(Readable.from(sets(keys)), cli.stdin);
	const {code} = await cli.ended;
	if (code !== 0)
		throw new RunError(`redis-cli --pipe: status ${code}`);
}

// GETs at random for so many seconds, in pieces as redis-benchmark knows no time. {n, rate}
async function gets(socket, keys, seconds, limit) {
	let n = 0, time = 0;
	for (let piece = 100; time < seconds; piece = Math.min(8 * piece, 100000)) {
		const get = await output("redis-benchmark", ["-s", socket, "--csv", "-t", "get", "-c", "16",
			"-r", String(keys), "-n", String(piece)], limit * 1000);
		const said = /"GET","([^"]+)"/.exec(get.stdout)?.[1];
		if (get.code !== 0 || !said)
			throw new RunError(`redis-benchmark: status ${get.code}`);
		// a piece that took no time by its clock
		if (said === "inf")
			continue;
		const rate = Number(said);
		if (!(rate > 0))
			throw new RunError(`redis-benchmark: ${said} a second`);
		n += piece;
		time += piece / rate;
	}
	return {n, rate: n / time};
}

// Values of 1 KiB, all of malloc's memory managed; GETs of keys at random.
export async function runRedis(context, arm, {keys, seconds}) {
	const socket = join(context.scratch, "redis.sock");
	const bytes = context.redisBytes ?? keys * 1200;
	const {command, env} = wrap(arm, {...context, settings: ["engine.heap=all"]}, bytes,
		["redis-server", "--port", "0", "--unixsocket", socket, "--save", "", "--appendonly", "no"]);
	const child = start(command[0], command.slice(1), {env, cwd: context.scratch, stdio: ["ignore", "pipe", "pipe"]});
	const said = [];
	for (const stream of [child.stdout, child.stderr])
		createInterface({input: stream}).on("line", (line) => said.push(line));
	let over = false;
	child.ended.then(() => { over = true; });

	try {
		for (let i = 0; !existsSync(socket); i++) {
			if (over || i > 200)
				throw new RunError(said.at(-1) ?? "redis-server does not start");
			await pause(50);
		}
		await load(socket, keys);
		if (arm.kind === "alone")
			context.redisBytes = Number(/used_memory:(\d+)/.exec(await redis(socket, ["info", "memory"]))[1]);
		const tiered = arm.kind === "tiered";
		// the first ones find the budget as the load left it
		await gets(socket, keys, seconds / 2, context.limit);
		const warm = tiered ? await tierstat(context.build, child.pid) : null;
		const {n, rate} = await gets(socket, keys, seconds, context.limit);
		const after = tiered ? await tierstat(context.build, child.pid) : null;
		return {
			value: rate, needed: n * VALUE,
			...after && {counts: difference(after, warm), latency: after.fault_latency_us}
		};
	} finally {
		await redis(socket, ["shutdown", "nosave"], 5000).catch(() => {});
		await stop(child);
	}
}

// Milliseconds from the start to the end of `true`.
export async function runTrue(context, arm, {runs}) {
	const set = arm.kind === "alone" ? "EMFATIER_NOTHING=" : `LD_PRELOAD=${join(context.build, "libemfatier.so")}`;
	// env in both, so that only the library differs
	const {code, stdout} = await output("bash", ["-c", `true=$(type -P true)
for _ in $(seq ${runs}); do b=\${EPOCHREALTIME/./}; env "$1" "$true" || exit 1; echo $((\${EPOCHREALTIME/./} - b)); done`,
	"bash", set], context.limit * 1000);
	if (code !== 0)
		throw new RunError(`true: status ${code}`);
	return {value: median(stdout.trim().split("\n").map(Number)) / 1000};
}

const LINK = "mem:?latency=20us&bandwidth=2G";

// The cost of what the kernel does at the least, beside what the runtime's own histogram says.
export async function runMechanism(context, {bytes, seconds}) {
	const bare = await output(join(context.build, "bench/mechanism"), ["100"], PROBE);
	const arm = (store, share) => ({name: `${store}-${share}`, kind: "tiered", store, share, mode: "thread"});
	const sweep = await runWork(context, arm("mem", 50), {work: "sweep", bytes, seconds});
	// memory servers share the cores with all that is measured, a link that is simulated doesn't
	const far = [{store: LINK, uris: [LINK]}, ...context.uris.length ? [{store: "nbd", uris: context.uris}] : []];
	const demand = [];
	for (const {store, uris} of far) {
		const run = (work) => runWork({...context, uris}, arm("far", 25), {work, bytes, seconds});
		demand.push({store, alone: await run("touch"), beside: await run("touched")});
	}
	return {
		bare: bare.code === 0 ? JSON.parse(bare.stdout) : {why: bare.stdout.trim()},
		standby_p50_us: sweep.tierstat.standby_latency_us.p50, standby_hits: sweep.tierstat.faults_standby,
		demand
	};
}
