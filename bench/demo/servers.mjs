// Memory servers for the run over NBD: stock nbdkit on Unix sockets.

import {chmodSync} from "node:fs";
import {connect} from "node:net";
import {join} from "node:path";
import {start} from "./children.mjs";

const READY = 10000;
const SOCKET_PATH_MAX = 107;

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

const answers = (path) => new Promise((resolve) => {
	const socket = connect(path, () => { socket.destroy(); resolve(true); });
	socket.once("error", () => resolve(false));
});

// Returns [{uri, child}].
export async function startServers(directory, number, bytes) {
	const servers = [];

	for (let i = 0; i < number; i++) {
		const socket = join(directory, `${i}.sock`);
		if (Buffer.byteLength(socket) > SOCKET_PATH_MAX)
			throw new Error(`${socket}: too long for a socket, set TMPDIR to a shorter folder`);
		// --exit-with-parent: not even a killed demo leaves its memory behind
		const child = start("nbdkit", ["-f", "-t", "1", "--exit-with-parent", "-U", socket, "memory", String(bytes)],
			{stdio: ["ignore", "ignore", "pipe"]});
		child.stderr.setEncoding("utf8").on("data", (text) => { child.words = (child.words ?? "") + text; });
		servers.push({uri: `nbd+unix:///?socket=${socket}`, socket, child});
	}

	const limit = Date.now() + READY;
	for (const {socket, child} of servers) {
		let end;
		child.ended.then((result) => { end = result; });
		while (!await answers(socket)) {
			if (end)
				throw new Error(`nbdkit ended: ${end.error?.message ?? child.words?.trim() ?? end.signal ?? end.code}`);
			if (Date.now() > limit)
				throw new Error("nbdkit does not answer");
			await pause(20);
		}
		chmodSync(socket, 0o600);
	}
	return servers;
}
