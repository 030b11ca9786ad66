/* SPDX-License-Identifier: Apache-2.0 */
/* What the guard's helper does; its command line is made in guard.c. */
#define _GNU_SOURCE 1 /* getline */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "guard.h"

#define DEPTH 16u
#define ATTEMPTS 5
/*
 * What the process had sent before it died may still be on its way into the
 * server: the trims should come after it.
 */
#define SETTLE_MS 200u

struct reap {
	int slots, life, uris;
	uint64_t nslots, slot_bytes;
	bool whole; /* each store by itself, all of it */
	struct store_options opt;
	char *uri[STORE_LEAVES];
};

static void sleep_ms(unsigned ms)
{
	struct timespec ts = { .tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000 };

	while (nanosleep(&ts, &ts) && errno == EINTR)
		;
}

static int parse(struct reap *r, int argc, char **argv)
{
	static const struct option options[] = {
		{ "slots", required_argument, NULL, 's' },
		{ "life", required_argument, NULL, 'l' },
		{ "uris", required_argument, NULL, 'u' },
		{ "nslots", required_argument, NULL, 'n' },
		{ "slot-bytes", required_argument, NULL, 'b' },
		{ "stripe", required_argument, NULL, 'S' },
		{ "timeout-ms", required_argument, NULL, 't' },
		{ "data", required_argument, NULL, 'd' },
		{ "more", required_argument, NULL, 'm' },
		{ "whole", no_argument, NULL, 'w' },
		{ "generation", required_argument, NULL, 'g' },
		{ "providers", required_argument, NULL, 'p' },
		{ 0 },
	};
	int c;

	*r = (struct reap){ .slots = -1, .life = -1, .uris = -1 };
	optind = 0;
	while ((c = getopt_long(argc, argv, "", options, NULL)) >= 0) {
		uint64_t v = c != 'p' && c != 'w' && c != '?' ? strtoull(optarg, NULL, 10) : 0;

		switch (c) {
		case 's':
			r->slots = (int)v;
			break;
		case 'l':
			r->life = (int)v;
			break;
		case 'u':
			r->uris = (int)v;
			break;
		case 'n':
			r->nslots = v;
			break;
		case 'b':
			r->slot_bytes = v;
			break;
		case 'S':
			r->opt.stripe_unit = v;
			break;
		case 't':
			r->opt.timeout_ms = (unsigned)v;
			break;
		case 'd':
			r->opt.data = (unsigned)v;
			break;
		case 'm':
			r->opt.more = (unsigned)v;
			break;
		case 'g':
			r->opt.generation = v;
			break;
		case 'w':
			r->whole = true;
			break;
		case 'p':
			r->opt.provider_dir = optarg;
			break;
		default:
			return -EINVAL;
		}
	}
	return r->slots < 0 || r->life < 0 || r->uris < 0 || !r->nslots || !r->slot_bytes ? -EINVAL
											  : 0;
}

static int read_uris(struct reap *r)
{
	size_t size = 0;
	ssize_t n;
	FILE *f;

	lseek(r->uris, 0, SEEK_SET);
	f = fdopen(r->uris, "r");
	if (!f)
		return -errno;
	while (r->opt.nuri < STORE_LEAVES) {
		char *line = NULL;

		n = getline(&line, &size, f);
		if (n <= 0) {
			free(line);
			break;
		}
		line[strcspn(line, "\n")] = '\0';
		r->uri[r->opt.nuri++] = line;
		size = 0;
	}
	fclose(f);
	r->opt.uri = (const char *const *)r->uri;
	return r->opt.nuri ? 0 : -EINVAL;
}

/* The end of a service or a terminal is meant for the program; our work comes after it. */
static void detach(void)
{
	static const int ignored[] = { SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGPIPE };
	sigset_t none;

	setsid();
	for (size_t i = 0; i < sizeof(ignored) / sizeof(ignored[0]); i++)
		signal(ignored[i], SIG_IGN);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

/* The pipe's other end is open in every process that uses the store, until it ends or calls exec.
 */
static void wait_for_end(const struct reap *r)
{
	struct pollfd fds = { .fd = r->life, .events = POLLIN };

	while (poll(&fds, 1, -1) < 0 && errno == EINTR)
		;
}

static void done(struct emf_io *io)
{
	io->user = NULL;
}

/* Polls once; waits for something to happen first, if that takes time. */
static void turn(struct emf_queue *q)
{
	struct pollfd fds[4 * STORE_LEAVES];
	int n = q->ops->pollfds(q, fds, (int)(sizeof(fds) / sizeof(fds[0])));

	if (n > 0)
		poll(fds, (nfds_t)n, 1000);
	q->ops->poll(q);
}

/* used NULL: all. */
static int trim(struct reap *r, const uint64_t *used, uint64_t nslots, struct store *st)
{
	struct emf_io io[DEPTH] = { 0 };
	struct emf_queue *q;
	unsigned at = 0;
	int rc = st->top->ops->queue_open(st->top, EMF_QUEUE_BULK, DEPTH, &q);

	if (rc)
		return rc;
	for (uint64_t slot = 0; slot < nslots; slot++) {
		struct emf_io *t;

		if (used && !used[slot])
			continue;
		for (t = &io[at++ % DEPTH]; t->user; t = &io[at++ % DEPTH])
			if (at % DEPTH == 0)
				turn(q);
		if (t->status)
			rc = t->status;
		*t = (struct emf_io){
			.op = EMF_TRIM,
			.offset = slot * r->slot_bytes,
			.length = (size_t)r->slot_bytes,
			.done = done,
			.user = r,
		};
		while (q->ops->submit(q, t) == -EAGAIN)
			turn(q);
	}
	while (q->inflight)
		turn(q);
	for (unsigned i = 0; i < DEPTH; i++)
		if (io[i].status)
			rc = io[i].status;
	q->ops->close(q);
	return rc;
}

static bool any_used(const uint64_t *used, uint64_t n)
{
	for (uint64_t i = 0; i < n; i++)
		if (used[i])
			return true;
	return false;
}

static int clean_store(struct reap *r, const uint64_t *used)
{
	struct store st;
	char err[512];
	int rc = store_open(&st, &r->opt, err, sizeof(err));

	if (rc)
		return rc;
	if (!r->whole || st.outlives)
		rc = trim(r, used, used ? r->nslots : st.top->size / r->slot_bytes, &st);
	store_close(&st);
	return rc;
}

static int clean_each(struct reap *r)
{
	int rc = 0;

	r->opt.nuri = 1;
	r->opt.data = r->opt.more = 0;
	for (unsigned i = 0; i < STORE_LEAVES && r->uri[i]; i++) {
		r->opt.uri = (const char *const *)r->uri + i;
		int e = clean_store(r, NULL);
		rc = e ? e : rc;
	}
	return rc;
}

static int clean_up(struct reap *r)
{
	const char *map = mmap(NULL, STORE_SLOTS_HEADER + (size_t)r->nslots * sizeof(uint64_t),
			       PROT_READ, MAP_SHARED, r->slots, 0);
	int rc = 0;

	if (map == MAP_FAILED)
		return -errno;
	const uint64_t *used = (const uint64_t *)(map + STORE_SLOTS_HEADER);
	if (*(const uint64_t *)(map + STORE_SLOTS_GENERATION) != r->opt.generation)
		return 0; /* another one does it */
	if (!any_used(used, r->nslots))
		return 0;
	if (*(const uint64_t *)(map + STORE_SLOTS_SCATTERED))
		r->whole = true;
	sleep_ms(SETTLE_MS);
	for (int i = 0; i < ATTEMPTS; i++) {
		if (i)
			sleep_ms(1000u << i);
		rc = r->whole ? clean_each(r) : clean_store(r, used);
		if (!rc)
			break;
	}
	return rc;
}

int guard_main(int argc, char **argv)
{
	struct reap r;

	if (parse(&r, argc, argv)) {
		fprintf(stderr, "emfatier reap: started by the runtime only\n");
		return 2;
	}
	detach();
	if (read_uris(&r))
		return 1;
	wait_for_end(&r);
	return clean_up(&r) ? 1 : 0;
}
