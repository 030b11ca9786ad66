// The demo's settings: one table; flags win over the environment.

import {cpus} from "node:os";
import {resolve} from "node:path";
import {fileURLToPath} from "node:url";
import {parseArgs} from "node:util";
import {SHAPE, checkShape, defaultCache} from "./make-model.mjs";

export const HERE = fileURLToPath(new URL(".", import.meta.url));

class UsageError extends Error {
	exitCode = 2;
}

const count = (text, least = 1) => {
	const n = Number(text);
	return Number.isSafeInteger(n) && n >= least ? n : undefined;
};

// "all-local", "50" (percent of the model, default file store), "50-nbd" (on memory servers), "50-mapped" (its file mapped)
function parseRuns(text) {
	const runs = text.split(",").map((name) => {
		if (name === "all-local")
			return {name, store: null};
		const [, percent, how] = /^([1-9]\d?)(-nbd|-mapped)?$/.exec(name) ?? [];
		return percent && {name, share: percent / 100, store: how === "-nbd" ? "nbd" : "file", mapped: how === "-mapped"};
	});

	// the others are compared with it
	if (runs.every(Boolean) && runs[0].share === undefined)
		return runs;
}

const TABLE = {
	tokens: {default: "64", parse: count, help: "tokens to decode in each run"},
	prompt: {default: "16", parse: count, help: "tokens of the prompt"},
	context: {default: "512", parse: count, help: "tokens of the context"},
	threads: {default: String(Math.min(cpus().length, 2)), parse: count, help: "compute threads"},
	runs: {default: "all-local,50,25,50-nbd,50-mapped", parse: parseRuns, help: "which runs: all-local first, then PERCENT, PERCENT-nbd or PERCENT-mapped"},
	servers: {default: "2", parse: count, help: "nbdkit memory servers of an nbd run"},
	policy: {default: "", parse: String, help: "policy for emfatier run; none: its default"},
	timeout: {default: "180", parse: count, help: "seconds that one run may take"},
	cache: {default: defaultCache(), parse: resolve, help: "folder of the model"},
	build: {default: resolve(HERE, "../../build"), parse: resolve, help: "folder of what make built"},
	json: {default: "", parse: String, help: "file for results and statistics as JSON"}
};
for (const [name, {default: value, least, help}] of Object.entries(SHAPE))
	TABLE[name] = {default: String(value), parse: (text) => count(text, least), help: `model: ${help}`};

const variable = (name) => `DEMO_${name.toUpperCase().replace("-", "_")}`;

export function usage() {
	const lines = Object.entries(TABLE).map(([name, {default: value, help}]) =>
		`  --${name.padEnd(9)} ${variable(name).padEnd(14)} ${help}${value && ` (${value})`}`);
	return `usage: demo.mjs [--SETTING VALUE]...   each also from the environment
${lines.join("\n")}`;
}

// Null when help was asked for.
export function readSettings(argv, env) {
	const options = {help: {type: "boolean"}};
	for (const name of Object.keys(TABLE))
		options[name] = {type: "string"};

	let values;
	try {
		({values} = parseArgs({args: argv, options}));
	} catch (error) {
		throw new UsageError(error.message);
	}
	if (values.help)
		return null;

	const settings = {};
	for (const [name, {default: value, parse}] of Object.entries(TABLE)) {
		const source = values[name] !== undefined ? `--${name}` : variable(name);
		const text = values[name] ?? (env[variable(name)] || value);
		settings[name] = parse(text);
		if (settings[name] === undefined)
			throw new UsageError(`${source}: bad value '${text}'`);
	}
	if (settings.prompt + settings.tokens > settings.context)
		throw new UsageError("prompt and tokens do not fit into the context");

	settings.shape = Object.fromEntries(Object.keys(SHAPE).map((name) => [name, settings[name]]));
	try {
		checkShape(settings.shape);
	} catch (error) {
		throw new UsageError(error.message);
	}
	return settings;
}
