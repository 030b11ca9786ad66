// The ways in which a program is run beside itself: alone, with this runtime at a share of its
// memory and a kind of store, with the kernel's swap at the same share.

import {join} from "node:path";
import {fileURLToPath} from "node:url";
import {output} from "./demo/children.mjs";

export const HERE = fileURLToPath(new URL(".", import.meta.url));

const PROBE = 20000;
const MIB = 2 ** 20;

// With what this machine and this build have. Returns {arms, left_out: [text]}.
export async function findArms({build, quick}) {
	const shares = quick ? [50, 25] : [75, 50, 25];
	const arms = [{name: "alone", kind: "alone"}];
	const leftOut = [];
	const modes = ["thread"];

	const signal = await output(join(build, "emfatier"), ["run", "--set", "engine.fault=signal", "--", "true"], PROBE);
	if (signal.code === 0)
		modes.push("signal");
	else
		leftOut.push("engine.fault=signal: this build does not take it");
	const nbd = (await output("nbdkit", ["--version"], PROBE)).code === 0;
	if (!nbd)
		leftOut.push("a pair of memory servers: no nbdkit");
	for (const mode of modes)
		for (const store of nbd ? ["mem", "nbd"] : ["mem"])
			for (const share of quick && store === "nbd" ? [50] : shares)
				arms.push({
					name: `${store}-${share}${mode === "signal" ? "-signal" : ""}`,
					kind: "tiered", store, share, mode
				});
	const swap = await output(join(HERE, "swap.sh"), [String(64 * MIB), String(64 * MIB), "check"], PROBE);
	if (swap.code === 0)
		for (const share of quick ? [50] : shares)
			arms.push({name: `zram-${share}`, kind: "swapped", share});
	else
		leftOut.push(`the kernel's swap on zram: ${swap.stdout.trim() || "swap.sh failed"}`);
	return {arms, leftOut};
}

export const limitOf = (arm, bytes) => Math.floor(bytes * arm.share / 100);

// {command, env} that runs the given command that way. bytes: of memory that it uses.
export function wrap(arm, {build, uris, settings = []}, bytes, command) {
	const env = {...process.env};
	for (const name of ["LD_PRELOAD", "EMFATIER_CONF", "EMFATIER_POLICY"])
		delete env[name];
	if (arm.kind === "alone")
		return {command, env};
	const limit = limitOf(arm, bytes);
	if (arm.kind === "swapped")
		return {command: [join(HERE, "swap.sh"), String(limit), String(2 * bytes + 512 * MIB), ...command], env};
	const conf = [`local.limit=${limit}`, `store.uri=${arm.store === "mem" ? "mem:" : uris.join(",")}`, ...settings];
	if (arm.mode === "signal")
		conf.push("engine.fault=signal");
	// what runs is our child itself: its PID is known
	env.LD_PRELOAD = join(build, "libemfatier.so");
	env.EMFATIER_CONF = conf.join(";");
	return {command, env};
}
