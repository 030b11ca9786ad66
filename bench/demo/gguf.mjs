// Writes GGUF version 3 files front to back: the header needs the offset of every
// tensor, all of which follow from the shapes, so nothing is ever held or sought.

import {open, rename, rm} from "node:fs/promises";

export const F32 = {id: 0, block: 1, bytes: 4};
export const Q8_0 = {id: 8, block: 32, bytes: 34};

const MAGIC = 0x46554747;
const ALIGNMENT = 32;
const CODE = {u32: 4, i32: 5, f32: 6, string: 8, array: 9};

const encode = {
	u32(v) { const b = Buffer.alloc(4); b.writeUInt32LE(v); return b; },
	i32(v) { const b = Buffer.alloc(4); b.writeInt32LE(v); return b; },
	f32(v) { const b = Buffer.alloc(4); b.writeFloatLE(v); return b; },
	u64(v) { const b = Buffer.alloc(8); b.writeBigUInt64LE(BigInt(v)); return b; },
	string(v) { const s = Buffer.from(v, "utf8"); return Buffer.concat([encode.u64(s.length), s]); },
	array([type, values]) {
		return Buffer.concat([encode.u32(CODE[type]), encode.u64(values.length), ...values.map(encode[type])]);
	}
};

const align = (n) => Math.ceil(n / ALIGNMENT) * ALIGNMENT;

export function tensorBytes({type, dims}) {
	return dims.reduce((a, b) => a * b, 1) / type.block * type.bytes;
}

function header(metadata, tensors) {
	const parts = [encode.u32(MAGIC), encode.u32(3), encode.u64(tensors.length), encode.u64(metadata.length)];

	for (const [key, type, value] of metadata)
		parts.push(encode.string(key), encode.u32(CODE[type]), encode[type](value));

	let offset = 0;
	for (const t of tensors) {
		parts.push(encode.string(t.name), encode.u32(t.dims.length), ...t.dims.map(encode.u64),
			encode.u32(t.type.id), encode.u64(offset));
		offset += align(tensorBytes(t));
	}
	const head = Buffer.concat(parts);
	return Buffer.concat([head, Buffer.alloc(align(head.length) - head.length)]);
}

export function ggufBytes(metadata, tensors) {
	return tensors.reduce((sum, t) => sum + align(tensorBytes(t)), header(metadata, tensors).length);
}

// Each tensor brings chunks(): an iterable of buffers that add up to its size.
// The file appears under its name only when it is whole.
export async function writeGguf(path, metadata, tensors, {progress = () => {}, signal} = {}) {
	const total = ggufBytes(metadata, tensors);
	const temporary = `${path}.${process.pid}.part`;
	const file = await open(temporary, "wx");
	let written = 0;

	const put = async (buffer) => {
		signal?.throwIfAborted();
		await file.writeFile(buffer);
		written += buffer.length;
		progress(written, total);
	};

	try {
		await put(header(metadata, tensors));
		for (const t of tensors) {
			const end = written + align(tensorBytes(t));
			for (const chunk of t.chunks())
				await put(chunk);
			if (written < end)
				await put(Buffer.alloc(end - written));
			if (written !== end)
				throw new Error(`${t.name}: chunks do not add up to its shape`);
		}
		await file.close();
		await rename(temporary, path);
	} catch (error) {
		await file.close().catch(() => {});
		await rm(temporary, {force: true});
		throw error;
	}
}
