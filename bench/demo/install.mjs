// node-llama-cpp, once.

import {createHash} from "node:crypto";
import {existsSync, readFileSync, writeFileSync} from "node:fs";
import {join} from "node:path";
import {start, stop} from "./children.mjs";
import {HERE} from "./settings.mjs";

const INSTALL_LIMIT = 600;

// The mark names the lock file it was installed from, and comes last: a half-done
// or an old install is done again.
export async function install({say, progress, signal}) {
	const mark = join(HERE, "node_modules", ".emfatier-lock");
	const lock = createHash("sha256").update(readFileSync(join(HERE, "package-lock.json"))).digest("hex");
	if (existsSync(mark) && readFileSync(mark, "utf8") === lock)
		return;

	const began = Date.now();
	const words = [];
	say("installing node-llama-cpp");
	// no scripts: the binaries are in the packages, nothing is to be built or fetched;
	// no optional packages: those are the binaries of all other machines, 1 GB
	const npm = start("npm", ["ci", "--omit=optional", "--ignore-scripts"], {
		cwd: HERE, stdio: ["ignore", "ignore", "pipe"]
	});
	npm.stderr.setEncoding("utf8").on("data", (text) => words.push(text));
	const clock = setInterval(() => {
		const seconds = Math.round((Date.now() - began) / 1000);
		progress(`installing node-llama-cpp, ${seconds} s`);
		if (seconds > INSTALL_LIMIT)
			stop(npm);
	}, 250);
	const end = await npm.ended;
	clearInterval(clock);
	signal.throwIfAborted();
	if (end.code !== 0) {
		const why = words.join("").split("\n").filter((text) => /err/i.test(text)).slice(0, 3).join("; ");
		throw new Error(`npm ci failed: ${end.error?.message ?? (why || `exit status ${end.code}`)}`);
	}
	writeFileSync(mark, lock);
}
