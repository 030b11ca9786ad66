// What a program of many steps has: a line of progress, a directory of its own, and an end in
// order, with all that it has started, when it is told to stop.

import {chmodSync, mkdtempSync, rmSync} from "node:fs";
import {constants as os, tmpdir} from "node:os";
import {join} from "node:path";
import {killAll, stopAll} from "./children.mjs";
import {Progress} from "./progress.mjs";

export const line = new Progress();
const abort = new AbortController();
export const signal = abort.signal;
let scratch;

export function makeScratch(name) {
	scratch = mkdtempSync(join(tmpdir(), `emfatier-${name}-`));
	chmodSync(scratch, 0o700);
	return scratch;
}

function cleanUp() {
	line.end();
	if (scratch)
		rmSync(scratch, {recursive: true, force: true});
	scratch = undefined;
}

function onSignal(name) {
	// told twice: at once
	if (signal.aborted) {
		killAll();
		process.exit(128 + os.signals[name]);
	}
	abort.abort(Object.assign(new Error("stopped"), {exitCode: 128 + os.signals[name]}));
	stopAll();
}

// main resolves to the exit status, or fails; an error may have an exitCode.
export function program(name, main) {
	for (const each of ["SIGINT", "SIGTERM", "SIGHUP"])
		process.on(each, onSignal);
	process.on("exit", () => { killAll(); cleanUp(); });
	main().then((code) => {
		process.exitCode = code;
	}, async (error) => {
		await stopAll();
		line.end();
		console.error(`${name}: ${error.message}`);
		process.exitCode = error.exitCode ?? 1;
	});
}
