/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The chain  checksum -> stripe -> count  of store/store.c over leaves that live in
 * arrays: a page of them is the 8 bytes that a page of the simulation has. They end
 * transfers late, in any order, in pieces, wrong, or never.
 */
#include "store/store.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "block.h"
#include "engine.h"
#include "sim.h"
#include "store/count.h"

#define QUEUES 16
#define NEVER_WRITTEN 0xdeadbeefull
#define PAGE 4096u

struct leaf {
	struct emf_backend be;
	uint64_t *pages;
};

struct leaf_queue {
	struct emf_queue q;
	struct leaf *leaf;
	unsigned depth;
	struct emf_io *head;
	struct co *user; /* of the one thread that may use it at a time */
};

/* In an io's scratch: when it ends; how many of its pages are through. */
enum { DUE, THROUGH };

static struct leaf_queue queues[QUEUES];
static unsigned nqueues;
unsigned store_failures;

static bool is_due(const struct leaf_queue *q)
{
	for (const struct emf_io *io = q->head; io; io = io->next)
		if (io->scratch[DUE] <= sim_now)
			return true;
	return false;
}

bool store_fd_ready(int fd)
{
	return is_due(queues + (fd - STORE_FD));
}

uint64_t store_next_due(uint64_t now)
{
	uint64_t next = UINT64_MAX;

	for (unsigned i = 0; i < nqueues; i++)
		for (struct emf_io *io = queues[i].head; io; io = io->next)
			if (io->scratch[DUE] > now && io->scratch[DUE] < next)
				next = io->scratch[DUE];
	return next;
}

bool store_quiet(void)
{
	for (unsigned i = 0; i < nqueues; i++)
		if (queues[i].head)
			return false;
	return true;
}

bool store_pins(uintptr_t addr)
{
	for (unsigned i = 0; plan.io_pins && i < nqueues; i++)
		for (const struct emf_io *io = queues[i].head; io; io = io->next)
			if (io->op != EMF_TRIM && addr >= (uintptr_t)io->buf &&
			    addr < (uintptr_t)io->buf + io->length)
				return true;
	return false;
}

/* Some more pages of it, up to n. */
static void go_on(const struct leaf_queue *q, struct emf_io *io, uint64_t n)
{
	uint64_t *p = q->leaf->pages + io->offset / PAGE;

	if (io->op == EMF_READ && n > io->scratch[THROUGH] + 1) /* for speed alone */
		madvise((char *)io->buf + io->scratch[THROUGH] * PAGE,
			(n - io->scratch[THROUGH]) * PAGE, MADV_POPULATE_WRITE);
	for (uint64_t i = io->scratch[THROUGH]; i < n; i++) {
		uint64_t *buf = (uint64_t *)(void *)((char *)io->buf + i * PAGE);
		if (io->op == EMF_READ)
			*buf = p[i];
		else if (io->op == EMF_WRITE)
			p[i] = *buf;
		else
			p[i] = NEVER_WRITTEN;
	}
	if (n > io->scratch[THROUGH])
		io->scratch[THROUGH] = n;
}

static void finish(struct leaf_queue *q, struct emf_io *io)
{
	uint64_t n = io->length / PAGE;
	int status = 0;

	if (io->op == EMF_READ && chance(plan.read_errors)) {
		status = -EIO;
	} else if (io->op == EMF_WRITE && chance(plan.write_errors)) {
		status = chance(2) ? -ENOSPC : -EIO;
	}
	go_on(q, io, status ? rnd_below(n) : n);
	if (io->op == EMF_READ && !status && chance(plan.corruptions)) {
		((uint64_t *)io->buf)[rnd_below(n) * (PAGE / 8)] ^= 1;
		status = 1;
	}
	if (io->op == EMF_READ && status)
		store_failures++;
	trace("transfer %u of %zu pages at %#lx ends: %d", io->op, (size_t)n,
	      (unsigned long)io->offset, status);
	io->status = status > 0 ? 0 : status;
	q->q.inflight--;
	io->done(io);
}

/* Others may run while it is used. */
static struct co *use(struct leaf_queue *q)
{
	struct co *before = q->user;

	if (before && before != co_self)
		sim_fail("a queue is used by %s, too", before->name);
	q->user = co_self;
	co_point();
	return before;
}

static int leaf_submit(struct emf_queue *eq, struct emf_io *io)
{
	struct leaf_queue *q = (struct leaf_queue *)eq;

	q->user = use(q);
	if (eq->inflight >= q->depth)
		return -EAGAIN;
	uint64_t ns = plan.sync ? 0 : rnd_below(plan.delay_us * 1000ull);
	/* What is read wrong is read again after a while (retry.c). */
	if (plan.sync && io->op == EMF_READ && chance(plan.rereads))
		ns = rnd_below(2 * SIM_MS);
	if (chance(plan.stuck_ios)) {
		ns = rnd_below(20 * SIM_S);
		store_failures++;
	}
	io->scratch[DUE] = sim_now + ns;
	io->scratch[THROUGH] = 0;
	io->next = q->head;
	q->head = io;
	eq->inflight++;
	trace("transfer %u of %zu pages at %#lx", io->op, io->length / PAGE,
	      (unsigned long)io->offset);
	return 0;
}

static int leaf_poll(struct emf_queue *eq)
{
	struct leaf_queue *q = (struct leaf_queue *)eq;
	struct co *before = use(q);
	int n = 0;

	for (struct emf_io *io = q->head; io; io = io->next)
		if (chance(4))
			go_on(q, io, rnd_below(io->length / PAGE));
	while (is_due(q)) {
		struct emf_io **link = &q->head, *io;
		while ((*link)->scratch[DUE] > sim_now || (is_due(q) && chance(3)))
			link = (*link)->next ? &(*link)->next : &q->head;
		io = *link;
		*link = io->next;
		finish(q, io);
		n++;
	}
	q->user = before;
	return n;
}

static int leaf_pollfds(struct emf_queue *eq, struct pollfd *fds, int max)
{
	if (plan.sync || !eq->inflight || max < 1)
		return 0;
	fds[0] = (struct pollfd){ .fd = STORE_FD + (int)((struct leaf_queue *)eq - queues),
				  .events = POLLIN };
	return 1;
}

static void leaf_queue_close(struct emf_queue *eq)
{
	(void)eq;
}

static const struct emf_queue_ops queue_ops = {
	.submit = leaf_submit,
	.poll = leaf_poll,
	.pollfds = leaf_pollfds,
	.close = leaf_queue_close,
};

static int leaf_queue_open(struct emf_backend *be, enum emf_queue_kind kind, unsigned depth,
			   struct emf_queue **out)
{
	struct leaf_queue *q = queues + nqueues++;

	(void)kind;
	q->q.ops = &queue_ops;
	q->leaf = (struct leaf *)be;
	q->depth = depth;
	*out = &q->q;
	return 0;
}

static void leaf_close(struct emf_backend *be)
{
	(void)be;
}

static const struct emf_backend_ops leaf_ops = { .queue_open = leaf_queue_open,
						 .close = leaf_close };

static struct emf_backend *leaf_open(uint64_t size)
{
	struct leaf *l = calloc(1, sizeof(*l));

	l->pages = malloc(size / PAGE * sizeof(*l->pages));
	for (uint64_t i = 0; i < size / PAGE; i++)
		l->pages[i] = NEVER_WRITTEN;
	l->be = (struct emf_backend){ .ops = &leaf_ops,
				      .size = size,
				      .caps = (plan.trim ? EMF_CAP_TRIM : 0u) |
					      (plan.sync ? EMF_CAP_SYNC | EMF_CAP_BYTES : 0u),
				      .max_length = 64u << 20 };
	return &l->be;
}

void store_load(const struct store_options *opt)
{
	(void)opt;
}

int store_open(struct store *st, const struct store_options *opt, char *err, size_t errlen)
{
	uint64_t size = ((uint64_t)plan.slots << BLOCK_SHIFT) / plan.leaves;

	(void)err;
	(void)errlen;
	*st = (struct store){ .nleaves = plan.leaves };
	for (unsigned i = 0; i < plan.leaves; i++) {
		st->leaf[i] = leaf_open(size - size % STORE_CLUSTER);
		if (count_open(st->leaf[i], opt->stats + i, &st->count[i]))
			return -ENOMEM;
	}
	struct emf_backend *below = st->count[0];
	if (plan.leaves > 1 && stripe_open(st->count, plan.leaves, STORE_CLUSTER, &st->stripe[0]))
		return -ENOMEM;
	if (st->stripe[0])
		below = st->stripe[0];
	st->unit = STORE_UNIT;
	if (checksum_open(below, st->unit, &st->checksum))
		return -ENOMEM;
	st->top = st->checksum;
	return 0;
}

void store_close(struct store *st)
{
	(void)st;
}

int store_descriptors(const struct store *st, int *fds, unsigned max)
{
	(void)st;
	(void)fds;
	(void)max;
	return 0;
}

int store_forked(struct store *st, const int *fds, struct emf_store_stats *stats)
{
	(void)st;
	(void)stats;
	(void)fds;
	return -ENOTSUP;
}

bool store_needs_work(const struct store *st)
{
	(void)st;
	return false;
}

void store_work(struct store *st)
{
	(void)st;
}

void store_forget(struct store *st)
{
	(void)st;
}

uint64_t store_capacity(const struct store *st)
{
	return st->top->size;
}

uint64_t store_used(const struct store *st, unsigned member, uint64_t all)
{
	(void)member;
	return all / st->nleaves;
}

const char *store_uri(const struct store *st, const struct store_options *opt, unsigned i)
{
	(void)st;
	return i < opt->nuri ? opt->uri[i] : NULL;
}

bool store_change_ask(struct store *st, bool drain, const char *uri)
{
	(void)st;
	(void)drain;
	(void)uri;
	return false;
}

bool store_change_answer(struct store *st, int *rc, unsigned *index, char *text, size_t length)
{
	(void)st;
	(void)rc;
	(void)index;
	(void)text;
	(void)length;
	return false;
}

/* Whatever goes wrong may have been a loss: what is local is written anew. */
uint32_t store_losses(const struct store *st)
{
	(void)st;
	return store_failures;
}

bool store_matches(struct store *st, uint64_t offset, size_t length, const void *buf)
{
	return checksum_matches(st->checksum, offset, length, buf);
}
