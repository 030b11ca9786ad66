#!/usr/bin/env node
// Loads a model with node-llama-cpp into memory (or maps its file) and decodes greedily from
// a fixed prompt. It knows nothing of emfatier: it is the unmodified program.

import {createHash} from "node:crypto";
import {parseArgs} from "node:util";

const OPTIONS = {
	model: {help: "the GGUF file"},
	tokens: {default: 64, help: "tokens to decode"},
	prompt: {default: 16, help: "tokens of the prompt"},
	batch: {default: 0, least: 0, help: "tokens of the prompt at once, 64 at least; 0: all"},
	context: {default: 512, help: "tokens of the context"},
	threads: {default: 2, help: "compute threads"},
	mapped: {flag: true, help: "map the model's file instead of reading it"},
	progress: {flag: true, help: "report on stderr, one JSON object a line"},
	wait: {flag: true, help: "when done, stay until standard input ends"}
};

class UsageError extends Error {}

function usage() {
	const lines = Object.entries(OPTIONS).map(([name, {default: value, help, flag}]) =>
		`  --${(name + (flag ? "" : " VALUE")).padEnd(16)} ${help}${value ? ` (${value})` : ""}`);
	return `usage: decode.mjs --model FILE [OPTION]...\n${lines.join("\n")}`;
}

function readOptions() {
	const options = {help: {type: "boolean"}};
	for (const [name, {flag}] of Object.entries(OPTIONS))
		options[name] = {type: flag ? "boolean" : "string"};

	const {values} = parseArgs({options});
	if (values.help)
		return values;
	for (const [name, {default: value, least = 1}] of Object.entries(OPTIONS)) {
		if (value === undefined)
			continue;
		values[name] = Number(values[name] ?? value);
		if (!Number.isSafeInteger(values[name]) || values[name] < least)
			throw new UsageError(`--${name} must be a whole number from ${least} up`);
	}
	if (!values.model)
		throw new UsageError("--model is missing");
	if (values.prompt + values.tokens > values.context)
		throw new UsageError("prompt and tokens do not fit into the context");
	return values;
}

async function main() {
	const options = readOptions();
	if (options.help)
		return console.log(usage());

	const report = (phase, done, total, seconds) => {
		if (options.progress)
			process.stderr.write(`${JSON.stringify({phase, done, total, seconds})}\n`);
	};

	// must be set before the module is loaded, and keeps it from the network
	process.env.NODE_LLAMA_CPP_SKIP_DOWNLOAD = "true";
	const {getLlama, LlamaLogLevel} = await import("node-llama-cpp");
	const llama = await getLlama({
		gpu: false, build: "never", skipDownload: true, progressLogs: false,
		maxThreads: options.threads,
		// it warns that random words make a poor tokenizer
		logLevel: LlamaLogLevel.error
	});

	const loadStart = performance.now();
	let percent = -1;
	report("load", 0, 100);
	const model = await llama.loadModel({
		modelPath: options.model,
		useMmap: options.mapped ?? false,
		gpuLayers: 0,
		// it judges by free memory, which says little about far memory
		ignoreMemorySafetyChecks: true,
		onLoadProgress(share) {
			if (Math.floor(share * 100) > percent)
				report("load", percent = Math.floor(share * 100), 100);
		}
	});
	const context = await model.createContext({
		contextSize: options.context,
		// llama.cpp takes no less than 64
		batchSize: Math.max(64, options.batch || options.prompt),
		threads: {ideal: options.threads, min: options.threads},
		ignoreMemorySafetyChecks: true
	});
	const loaded = performance.now();

	const sequence = context.getSequence();
	const digest = createHash("sha256");

	// controlledEvaluate never stops at an end-of-text token
	const next = async (input) => {
		const last = input.length - 1;
		const items = input.map((token, i) => i < last ? token :
			[token, {generateNext: {token: true, confidence: true, options: {temperature: 0}}}]);
		const result = (await sequence.controlledEvaluate(items))[last].next;
		if (!Number.isFinite(result.confidence))
			throw new Error("the model's output is not finite");
		digest.update(`${result.token} ${result.confidence}\n`);
		return result;
	};

	// spread over the plain words, after the control and byte tokens
	const first = 3 + 256;
	const words = model.fileInfo.metadata.tokenizer.ggml.tokens.length - first;
	const prompt = Array.from({length: options.prompt}, (_, i) =>
		i === 0 ? 1 : first + i * 7919 % words);

	const tokens = [];
	const ends = [];
	const confidence = [];
	const decodeStart = performance.now();
	for (let input = prompt; tokens.length < options.tokens; input = [tokens.at(-1)]) {
		const result = await next(input);
		tokens.push(result.token);
		confidence.push(result.confidence);
		ends.push(performance.now() - decodeStart);
		report("decode", tokens.length, options.tokens, ends.at(-1) / 1000);
	}

	const round = (value, digits) => Number(value.toFixed(digits));
	const rest = (ends.at(-1) - ends[0]) / 1000;
	const line = JSON.stringify({
		tokens,
		// depends on every logit of every step, so on every weight and key and value
		digest: digest.digest("hex"),
		tokens_per_second: rest > 0 ? round((tokens.length - 1) / rest, 3) : null,
		first_token_ms: round(ends[0], 1),
		load_ms: round(loaded - loadStart, 1),
		token_ms: ends.map((end, i) => round(end - (ends[i - 1] ?? 0), 1)),
		threads: options.threads,
		context: options.context
	});
	process.stdout.write(`${line}\n`);

	if (options.wait)
		await new Promise((resolve) => process.stdin.on("end", resolve).on("error", resolve).resume());
	await llama.dispose();
}

main().catch((error) => {
	console.error(`decode: ${error.message}`);
	process.exitCode = error instanceof UsageError || error.code?.startsWith("ERR_PARSE_ARGS") ? 2 : 1;
});
