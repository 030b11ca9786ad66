// Tells a person that a long step goes on: one line that is rewritten on a
// terminal, now and then a plain line elsewhere, nothing for what is over at once.

const QUIET = 1000;
const REDRAW = 100;
const PLAIN = 5000;

export const mib = (bytes) => Math.round(bytes / 2 ** 20);

export const colour = (stream) => stream.isTTY && !process.env.NO_COLOR && process.env.TERM !== "dumb";

export class Progress {
	#stream;
	#live;
	#start = Date.now();
	#last = 0;
	#drawn = false;

	constructor(stream = process.stderr) {
		this.#stream = stream;
		// rewriting a line takes escape sequences that a dumb terminal lacks
		this.#live = stream.isTTY && process.env.TERM !== "dumb";
	}

	// A new step: its clock starts here.
	begin() {
		this.end();
		this.#start = Date.now();
		this.#last = 0;
	}

	update(text) {
		const now = Date.now();

		if (now - this.#start < QUIET || now - this.#last < (this.#live ? REDRAW : PLAIN))
			return;
		this.#last = now;
		if (!this.#live) {
			this.#stream.write(`${text}\n`);
			return;
		}
		// a line that wraps could not be rewritten
		const room = (this.#stream.columns || 80) - 1;
		this.#stream.write(`\r\x1b[K${text.slice(0, room)}`);
		this.#drawn = true;
	}

	bytes(what, done, total) {
		this.update(`${what}: ${mib(done)} of ${mib(total)} MiB`);
	}

	// A line that stays.
	say(text) {
		this.end();
		this.#stream.write(`${text}\n`);
	}

	end() {
		if (this.#drawn)
			this.#stream.write("\r\x1b[K");
		this.#drawn = false;
	}
}
