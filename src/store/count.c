/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE 1 /* clock_gettime */
#include <errno.h>
#include <string.h>
#include <time.h>

#include "../arena.h"
#include "count.h"
#include "link.h"

struct count {
	struct link link;
	struct emf_store_stats *stats;
};

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void add(emf_stat *s, uint64_t n)
{
	atomic_fetch_add_explicit(s, n, memory_order_relaxed);
}

static void raise_to(emf_stat *s, uint64_t v)
{
	uint64_t old = atomic_load_explicit(s, memory_order_relaxed);

	while (old < v && !atomic_compare_exchange_weak_explicit(s, &old, v, memory_order_relaxed,
								 memory_order_relaxed))
		;
}

static void before(struct link *l, struct link_io *lio)
{
	(void)l;
	lio->note = lio->low.op == EMF_READ || lio->low.op == EMF_WRITE ? now_ns() : 0;
}

static void taken(struct link *l, struct link_io *lio)
{
	struct emf_store_stats *s = ((struct count *)l)->stats;

	if (lio->note && !atomic_fetch_add_explicit(&s->inflight, 1, memory_order_relaxed))
		atomic_store_explicit(&s->busy_since, lio->note, memory_order_relaxed);
}

/* Two queues may meet here: then a moment is counted twice, or not at all. */
static void idle_again(struct emf_store_stats *s, uint64_t now)
{
	uint64_t since = atomic_load_explicit(&s->busy_since, memory_order_relaxed);

	if (atomic_fetch_sub_explicit(&s->inflight, 1, memory_order_relaxed) == 1 && now > since)
		add(&s->busy_ns, now - since);
}

/* A connection that is lost stays lost, so DOWN stays; FULL ends with a write that fits. */
static void set_state(struct emf_store_stats *s, const struct emf_io *io)
{
	uint32_t state = atomic_load_explicit(&s->state, memory_order_relaxed), to = state;

	switch (io->status) {
	case 0:
		if (io->op == EMF_WRITE && state == EMF_STORE_FULL)
			to = EMF_STORE_OK;
		break;
	case -ENOSPC:
	case -EDQUOT:
		if (state == EMF_STORE_OK)
			to = EMF_STORE_FULL;
		break;
	case -ENOTCONN:
	case -ETIMEDOUT:
	case -ESHUTDOWN:
	case -ECONNRESET:
	case -EPIPE:
		to = EMF_STORE_DOWN;
		break;
	}
	if (to != state)
		atomic_store_explicit(&s->state, to, memory_order_relaxed);
}

static void ended(struct link *l, struct link_io *lio)
{
	struct emf_store_stats *s = ((struct count *)l)->stats;
	const struct emf_io *io = &lio->low;
	uint64_t now = lio->note ? now_ns() : 0;

	if (now)
		idle_again(s, now);
	if (io->status == -ECANCELED)
		return;
	set_state(s, io);
	if (io->status) {
		add(&s->errors, 1);
	} else if (io->op == EMF_WRITE) {
		add(&s->written_bytes, io->length);
	} else if (io->op == EMF_READ) {
		uint64_t ns = now - lio->note;

		add(&s->read_bytes, io->length);
		add(&s->read_latency.bucket[emf_hist_bucket(ns)], 1);
		raise_to(&s->read_latency.max, ns);
	}
}

static void count_close(struct link *l)
{
	arena_free(l, sizeof(struct count));
}

int count_open(struct emf_backend *next, struct emf_store_stats *stats, struct emf_backend **out)
{
	struct count *c = arena_alloc(sizeof(*c));

	if (!c)
		return -ENOMEM;
	link_init(&c->link, next);
	c->link.before = before;
	c->link.taken = taken;
	c->link.ended = ended;
	c->link.close = count_close;
	c->stats = stats;
	*out = &c->link.be;
	return 0;
}

void count_forked(struct emf_backend *be, struct emf_store_stats *stats)
{
	struct count *c = (struct count *)be;

	memcpy(stats->uri, c->stats->uri, sizeof(stats->uri));
	atomic_store(&stats->state, atomic_load(&c->stats->state));
	c->stats = stats;
}
