// SPDX-License-Identifier: Apache-2.0
// V8: ArrayBuffers outside its heap, many objects within, workers that share memory.
const { Worker, isMainThread, parentPort, workerData } = require('worker_threads');
const crypto = require('crypto');

function fill(bytes, seed) {
	const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length >> 2);
	for (let i = 0; i < words.length; i += 16)
		words[i] = Math.imul(i + seed, 2654435761);
}

if (isMainThread) {
	const shared = new SharedArrayBuffer(8 << 20);
	const buffers = Array.from({ length: 12 }, (_, i) => {
		const b = new Uint8Array(new ArrayBuffer(8 << 20));
		fill(b, i);
		return b;
	});
	let list = null;
	for (let i = 0; i < 400000; i++)
		list = { next: i % 1000 ? list : null, i, name: 'n' + i, a: [i, i + 1] };
	const wasm = new WebAssembly.Memory({ initial: 200, maximum: 400 });
	fill(new Uint8Array(wasm.buffer), 99);
	wasm.grow(100);
	let ended = 0;
	const results = [];
	for (let w = 0; w < 3; w++) {
		const given = new ArrayBuffer(4 << 20);
		fill(new Uint8Array(given), 1000 + w);
		new Worker(__filename, { workerData: { w, shared, given }, transferList: [given] })
			.on('message', (m) => results.push(m))
			.on('exit', () => {
				if (++ended < 3)
					return;
				const hash = crypto.createHash('sha256');
				for (const b of buffers)
					hash.update(b);
				hash.update(new Uint8Array(wasm.buffer));
				for (const b of buffers.reverse())
					hash.update(b);
				let n = 0;
				for (let p = list; p; p = p.next)
					n += p.i + p.a[1];
				const counts = new Int32Array(shared);
				console.log(hash.digest('hex'), n, counts[0], results.sort().join(' '));
			});
	}
} else {
	const { w, shared, given } = workerData;
	const counts = new Int32Array(shared);
	const hash = crypto.createHash('sha256').update(new Uint8Array(given));
	let held = [];
	for (let i = 0; i < 30; i++) {
		const b = Buffer.alloc(1 << 20, i + w);
		held.push(b);
		hash.update(b);
		if (i % 10 === 9)
			held = [];
		Atomics.add(counts, 0, 1);
	}
	parentPort.postMessage(w + hash.digest('hex'));
}
