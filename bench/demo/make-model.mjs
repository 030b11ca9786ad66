#!/usr/bin/env node
// Makes a llama-architecture model of reproducible random weights. The demo needs
// the memory behaviour of a real engine on a real model's shapes, not its wisdom,
// and so no weights have to be fetched from anywhere.

import {createCipheriv, createHash} from "node:crypto";
import {mkdirSync, statSync, statfsSync} from "node:fs";
import {dirname, join} from "node:path";
import {fileURLToPath} from "node:url";
import {parseArgs} from "node:util";
import {F32, Q8_0, ggufBytes, tensorBytes, writeGguf} from "./gguf.mjs";
import {Progress, mib} from "./progress.mjs";

// Part of the file's name: raise it when the same shape gets other bytes.
const GENERATION = 1;

export const SHAPE = {
	layers: {default: 16, help: "transformer layers"},
	width: {default: 2048, help: "embedding width"},
	ffn: {default: 5632, help: "feed-forward width"},
	heads: {default: 32, help: "attention heads"},
	"kv-heads": {default: 8, help: "heads that have keys and values"},
	vocab: {default: 32000, help: "tokens in the vocabulary"},
	seed: {default: 1, help: "seed of the weights"},
	experts: {default: 0, least: 0, help: "experts of each layer, each as wide as ffn; 0: dense"},
	"used-experts": {default: 0, least: 0, help: "experts that one token uses; 0: a quarter"}
};

const FIRST_WORD = 3 + 256;

export class ShapeError extends Error {}

export function defaultCache(env = process.env) {
	return env.XDG_CACHE_HOME ? join(env.XDG_CACHE_HOME, "emfatier") : "/var/tmp/emfatier-demo";
}

export function checkShape(s) {
	for (const [name, {least = 1}] of Object.entries(SHAPE))
		if (!Number.isSafeInteger(s[name]) || s[name] < least)
			throw new ShapeError(`${name} must be a whole number from ${least} up`);
	if (s.width % Q8_0.block || s.ffn % Q8_0.block)
		throw new ShapeError(`width and ffn must be multiples of ${Q8_0.block}`);
	if (s.width % s.heads || s.heads % s["kv-heads"])
		throw new ShapeError("heads must divide width, and kv-heads must divide heads");
	if ((s.width / s.heads) % Q8_0.block)
		throw new ShapeError(`width / heads must be a multiple of ${Q8_0.block}`);
	if (s.vocab <= FIRST_WORD)
		throw new ShapeError(`vocab must be over ${FIRST_WORD}: control and byte tokens come first`);
	if (s["used-experts"] > s.experts)
		throw new ShapeError("used-experts must not be more than experts");
	return s;
}

const used = (s) => s["used-experts"] || Math.ceil(s.experts / 4);

export function modelPath(cache, s) {
	const shape = Object.keys(SHAPE).filter((name) => s.experts || SHAPE[name].least !== 0)
		.map((name) => name[0] + s[name]).join("-");
	return join(cache, `random-llama-${shape}-g${GENERATION}.gguf`);
}

function metadata(s) {
	const key = (name) => `llama.${name}`;
	const tokens = ["<unk>", "<s>", "</s>"];
	const types = [2, 3, 3];

	for (let byte = 0; byte < 256; byte++) {
		tokens.push(`<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`);
		types.push(6);
	}
	for (let id = FIRST_WORD; id < s.vocab; id++) {
		tokens.push(`\u2581w${id}`);
		types.push(1);
	}
	return [
		["general.architecture", "string", "llama"],
		["general.name", "string", "emfatier demo: random weights"],
		["general.file_type", "u32", 7],
		[key("block_count"), "u32", s.layers],
		[key("context_length"), "u32", 4096],
		[key("embedding_length"), "u32", s.width],
		[key("feed_forward_length"), "u32", s.ffn],
		[key("attention.head_count"), "u32", s.heads],
		[key("attention.head_count_kv"), "u32", s["kv-heads"]],
		[key("attention.layer_norm_rms_epsilon"), "f32", 1e-5],
		[key("rope.dimension_count"), "u32", s.width / s.heads],
		[key("rope.freq_base"), "f32", 10000],
		[key("vocab_size"), "u32", s.vocab],
		...s.experts ? [[key("expert_count"), "u32", s.experts], [key("expert_used_count"), "u32", used(s)]] : [],
		["tokenizer.ggml.model", "string", "llama"],
		["tokenizer.ggml.tokens", "array", ["string", tokens]],
		["tokenizer.ggml.scores", "array", ["f32", tokens.map((_, id) => -id)]],
		["tokenizer.ggml.token_type", "array", ["i32", types]],
		["tokenizer.ggml.unknown_token_id", "u32", 0],
		["tokenizer.ggml.bos_token_id", "u32", 1],
		["tokenizer.ggml.eos_token_id", "u32", 2]
	];
}

// A cipher's key stream: random enough, the same everywhere, and faster than the
// disk. Each tensor has its own, so that its bytes do not hang on its neighbours.
function* keyStream(seed, name, total, chunk) {
	const secret = createHash("sha256").update(`${seed}/${name}`).digest();
	const cipher = createCipheriv("aes-128-ctr", secret.subarray(0, 16), secret.subarray(16));
	const zeros = Buffer.alloc(Math.min(chunk, total));

	for (let left = total; left > 0; left -= chunk)
		yield cipher.update(left < zeros.length ? zeros.subarray(0, left) : zeros);
}

function toHalf(value) {
	const exponent = Math.max(Math.floor(Math.log2(value)), -14);
	const mantissa = Math.round(value / 2 ** (exponent - 10));
	// a mantissa that rounds up to 2048 carries into the exponent by itself
	return mantissa + (exponent + 14) * 1024;
}

function* weights(seed, name, bytes, deviation) {
	// uniform over -128..127: this is its standard deviation
	const scale = toHalf(deviation / Math.sqrt((256 ** 2 - 1) / 12));

	for (const chunk of keyStream(seed, name, bytes, Q8_0.bytes << 18)) {
		const words = new Uint16Array(chunk.buffer, chunk.byteOffset, chunk.length / 2);
		for (let i = 0; i < words.length; i += Q8_0.bytes / 2)
			words[i] = scale;
		yield chunk;
	}
}

function* norms(seed, name, bytes) {
	for (const chunk of keyStream(seed, name, bytes, 1 << 20)) {
		const words = new Uint32Array(chunk.buffer, chunk.byteOffset, chunk.length / 4);
		const values = new Float32Array(words.length);
		for (let i = 0; i < words.length; i++)
			values[i] = 0.9 + 0.2 * words[i] / 2 ** 32;
		yield Buffer.from(values.buffer);
	}
}

// What all tokens have in common, and a router can go by: the first values of each row of
// the embedding are the greatest there are.
const COMMON = Q8_0.block;

function* embedding(seed, name, bytes, deviation, width) {
	const row = width / Q8_0.block * Q8_0.bytes;
	let at = 0;

	for (const chunk of weights(seed, name, bytes, deviation)) {
		for (let first = (row - at % row) % row; first < chunk.length; first += row)
			chunk.fill(127, first + 2, first + Q8_0.bytes);
		at += chunk.length;
		yield chunk;
	}
}

// Near enough to a normal distribution, of deviation 1.
function normals(seed, name, count) {
	const [bytes] = keyStream(seed, name, 12 * 2 * count, 12 * 2 * count);
	const parts = new Uint16Array(bytes.buffer, bytes.byteOffset, 12 * count);
	return Float32Array.from({length: count}, (_, i) =>
		parts.subarray(12 * i, 12 * i + 12).reduce((a, b) => a + b / 65536, -6));
}

// An expert's score is what it is worth in general, which it has from what all tokens have in
// common, plus what this token adds. So far apart that some experts serve nearly every token and
// others hardly any, as those of real models do.
const EXPERT_SPREAD = 2;

function* router(seed, name, bytes, width) {
	const count = bytes / 4 / width;
	const worth = normals(seed, `${name}/worth`, count);

	for (let e = 0; e < count; e++) {
		const row = normals(seed, `${name}/${e}`, width).map((v) => v / Math.sqrt(width));
		for (let i = 0; i < COMMON; i++)
			row[i] = EXPERT_SPREAD * worth[e] / COMMON;
		yield Buffer.from(row.buffer);
	}
}

// A matrix with deviation 1/sqrt(inputs) keeps the size of what goes through it.
// Gains above that: attention must prefer some positions over others, else keys
// and values hardly count; and the best token must stand clear of the next.
const ATTENTION_GAIN = 1.5;
const LOGIT_GAIN = 3;

function tensors(s) {
	const list = [];
	const kvWidth = s.width / s.heads * s["kv-heads"];

	const add = (name, type, dims, chunks) => {
		const tensor = {name: `${name}.weight`, type, dims};
		tensor.chunks = () => chunks(s.seed, name, tensorBytes(tensor));
		list.push(tensor);
	};
	const matrix = (name, inputs, outputs, gain = 1) =>
		add(name, Q8_0, [inputs, outputs], (...a) => weights(...a, gain / Math.sqrt(inputs)));
	const norm = (name) => add(name, F32, [s.width], norms);

	const expertMatrix = (name, inputs, outputs) =>
		add(name, Q8_0, [inputs, outputs, s.experts], (...a) => weights(...a, 1 / Math.sqrt(inputs)));

	// rows of an embedding are looked up, not multiplied: deviation 1 as they are
	if (s.experts)
		add("token_embd", Q8_0, [s.width, s.vocab], (...a) => embedding(...a, 1, s.width));
	else
		matrix("token_embd", s.width, s.vocab, Math.sqrt(s.width));
	for (let i = 0; i < s.layers; i++) {
		const layer = `blk.${i}`;
		norm(`${layer}.attn_norm`);
		matrix(`${layer}.attn_q`, s.width, s.width, ATTENTION_GAIN);
		matrix(`${layer}.attn_k`, s.width, kvWidth, ATTENTION_GAIN);
		matrix(`${layer}.attn_v`, s.width, kvWidth);
		matrix(`${layer}.attn_output`, s.width, s.width);
		norm(`${layer}.ffn_norm`);
		if (s.experts) {
			add(`${layer}.ffn_gate_inp`, F32, [s.width, s.experts], (...a) => router(...a, s.width));
			expertMatrix(`${layer}.ffn_gate_exps`, s.width, s.ffn);
			expertMatrix(`${layer}.ffn_up_exps`, s.width, s.ffn);
			expertMatrix(`${layer}.ffn_down_exps`, s.ffn, s.width);
			continue;
		}
		matrix(`${layer}.ffn_gate`, s.width, s.ffn);
		matrix(`${layer}.ffn_up`, s.width, s.ffn);
		matrix(`${layer}.ffn_down`, s.ffn, s.width);
	}
	norm("output_norm");
	matrix("output", s.width, s.vocab, LOGIT_GAIN);
	return list;
}

// Returns {path, bytes, made}.
export async function makeModel(cache, shape, {progress, signal} = {}) {
	const s = checkShape(shape);
	const path = modelPath(cache, s);
	const meta = metadata(s);
	const list = tensors(s);
	const bytes = ggufBytes(meta, list);

	if (statSync(path, {throwIfNoEntry: false})?.size === bytes)
		return {path, bytes, made: false};

	mkdirSync(dirname(path), {recursive: true});
	const disk = statfsSync(dirname(path));
	if (disk.bavail * disk.bsize < bytes * 1.05)
		throw new Error(`${dirname(path)}: no room for a model of ${mib(bytes)} MiB`);
	await writeGguf(path, meta, list, {progress, signal});
	return {path, bytes, made: true};
}

function usage() {
	const lines = Object.entries(SHAPE).map(([name, {default: value, help}]) =>
		`  --${name.padEnd(14)} ${help} (${value})`);
	return `usage: make-model.mjs [OPTION VALUE]...
${lines.join("\n")}
  --cache DIR      where the model is kept (${defaultCache()})
Prints the path of the model.`;
}

async function main() {
	const options = {cache: {type: "string"}, help: {type: "boolean"}};
	for (const name of Object.keys(SHAPE))
		options[name] = {type: "string"};

	const {values} = parseArgs({options});
	if (values.help)
		return console.log(usage());

	const shape = {};
	for (const [name, {default: value}] of Object.entries(SHAPE))
		shape[name] = values[name] === undefined ? value : Number(values[name]);
	checkShape(shape);

	const abort = new AbortController();
	for (const name of ["SIGINT", "SIGTERM", "SIGHUP"])
		process.once(name, () => abort.abort(new Error("stopped")));

	const line = new Progress();
	const {path} = await makeModel(values.cache ?? defaultCache(), shape, {
		progress: (done, total) => line.bytes("writing the model", done, total),
		signal: abort.signal
	});
	line.end();
	console.log(path);
}

if (process.argv[1] === fileURLToPath(import.meta.url))
	main().catch((error) => {
		console.error(`make-model: ${error.message}`);
		process.exit(error instanceof ShapeError || error.code?.startsWith("ERR_PARSE_ARGS") ? 2 : 1);
	});
