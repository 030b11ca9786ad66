/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store MIB WAY URI...: writes so much to a store of these URIs by blocks of 2 MiB, eight at once,
 * and reads it back; the first time is not counted. WAY: bare (without the checksum), plain,
 * encrypt, mirror, parity (all but one data). One line: seconds of the write, of the read, and
 * microseconds of CPU for each MiB of either.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "store/retry.h"
#include "store/store.h"

#define BLOCK (2u << 20)
#define DEPTH 8u
#define TIMEOUT_MS 10000

static unsigned blocks, next, failed;
static char *buf;

static double seconds(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void die(const char *what)
{
	fprintf(stderr, "store: %s\n", what);
	exit(1);
}

static void done(struct emf_io *io)
{
	failed += io->status != 0;
	io->user = NULL;
}

static void pass(struct emf_queue *q, enum emf_op op)
{
	struct emf_io io[DEPTH] = { 0 };

	next = 0;
	do {
		struct pollfd fds[64];
		int n;

		for (unsigned i = 0; i < DEPTH && next < blocks; i++) {
			if (io[i].user)
				continue;
			io[i] = (struct emf_io){
				.op = op,
				.offset = (uint64_t)next++ * BLOCK,
				.length = BLOCK,
				.buf = buf + (size_t)i * BLOCK,
				.done = done,
				.user = q,
			};
			if (q->ops->submit(q, &io[i]))
				die("the queue takes less than it was asked for");
		}
		n = q->ops->pollfds(q, fds, 64);
		if (n > 0)
			poll(fds, (nfds_t)n, TIMEOUT_MS);
		q->ops->poll(q);
	} while (q->inflight || next < blocks);
}

int main(int argc, char **argv)
{
	struct store_options opt = {
		.uri = (const char *const *)argv + 3,
		.nuri = argc > 3 ? (unsigned)argc - 3 : 0,
		.stripe_unit = 512 << 10,
		.timeout_ms = TIMEOUT_MS,
		.provider_dir = getenv("EMF_PROVIDERS"),
	};
	double wall[2], cpu[2];
	struct emf_backend *top;
	struct emf_queue *q;
	struct store st;
	char err[512];

	if (argc < 4 || !(blocks = (unsigned)atoi(argv[1]) / 2))
		die("usage: store MIB bare|plain|encrypt|mirror|parity URI...");
	opt.encrypt = !strcmp(argv[2], "encrypt");
	if (!strcmp(argv[2], "mirror"))
		opt.data = opt.more = 1;
	if (!strcmp(argv[2], "parity")) {
		opt.data = opt.nuri - 1;
		opt.more = 1;
	}
	if (store_open(&st, &opt, err, sizeof(err)))
		die(err);
	top = st.top;
	if (!strcmp(argv[2], "bare") &&
	    retry_open(opt.nuri > 1 ? st.stripe[0] : st.reconnect[0], TIMEOUT_MS, &top))
		die("out of memory");
	if (top->ops->queue_open(top, EMF_QUEUE_BULK, DEPTH, &q))
		die("no queue");
	buf = mmap(NULL, DEPTH * BLOCK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (buf == MAP_FAILED)
		die("out of memory");
	srandom(1);
	for (size_t i = 0; i < DEPTH * BLOCK; i += sizeof(long))
		*(long *)(void *)(buf + i) = random();
	for (int round = 0; round < 2; round++)
		for (int op = 0; op < 2; op++) {
			wall[op] = seconds(CLOCK_MONOTONIC);
			cpu[op] = seconds(CLOCK_PROCESS_CPUTIME_ID);
			pass(q, op ? EMF_READ : EMF_WRITE);
			wall[op] = seconds(CLOCK_MONOTONIC) - wall[op];
			cpu[op] = seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu[op];
		}
	if (failed)
		die("transfers failed");
	printf("%.4f %.4f %.1f %.1f\n", wall[0], wall[1], cpu[0] * 1e6 / (blocks * 2),
	       cpu[1] * 1e6 / (blocks * 2));
	q->ops->close(q);
	if (top != st.top)
		top->ops->close(top);
	store_close(&st);
	return 0;
}
