// Every process that the demo starts, so that all of them end with it.

import {execFile, spawn} from "node:child_process";

const GRACE = 3000;

const running = new Set();

// In a group of its own: what it starts in turn ends with it, and the terminal's
// Ctrl-C reaches only the demo, which then ends the rest in order.
export function start(command, args, options = {}) {
	const child = spawn(command, args, {detached: true, ...options});

	running.add(child);
	child.ended = new Promise((resolve) => {
		child.once("error", (error) => resolve({error}));
		child.once("close", (code, signal) => resolve({code, signal}));
	}).finally(() => running.delete(child));
	return child;
}

function signalGroup(child, name) {
	try {
		process.kill(-child.pid, name);
	} catch {
		// it ended by itself
	}
}

export async function stop(child) {
	if (child.pid === undefined || !running.has(child))
		return;
	signalGroup(child, "SIGTERM");
	// a thread that waits for far memory does not get as far as its signals
	const timer = setTimeout(() => signalGroup(child, "SIGKILL"), GRACE);
	await child.ended;
	clearTimeout(timer);
}

export async function stopAll() {
	await Promise.all([...running].map(stop));
}

// When there is no time left to wait.
export function killAll() {
	for (const child of running)
		if (child.pid !== undefined)
			signalGroup(child, "SIGKILL");
}

// Resolves to {code, stdout}, also when the command fails or can't be started.
export function output(command, args, timeout) {
	return new Promise((resolve) => {
		execFile(command, args, {timeout, killSignal: "SIGKILL", maxBuffer: 16 << 20}, (error, stdout) =>
			resolve({code: error ? error.code ?? -1 : 0, stdout}));
	});
}
