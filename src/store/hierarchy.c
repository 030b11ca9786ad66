/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE 1 /* syscall */
#include "hierarchy.h"

#include <sys/mman.h>
#include <sys/syscall.h>

#include "fan.h"
#include "hierarchy_int.h"
#include "memory.h"
#include "ready.h"
#include "timer.h"

#define PAGE 4096u
#define AVOID_NS 1000000000ull

struct tier_io {
	struct emf_io low;
	struct emf_io *up; /* NULL: a place is given back, and nobody waits for that */
	struct tier_queue *tq;
	uint64_t slot;
	struct place at;
	bool fresh; /* a write to a place that becomes the slot's by it */
};

struct tier_queue {
	struct emf_queue q;
	struct hierarchy *h;
	unsigned depth;
	bool closing;
	int ended;
	struct io_list refused;
	struct fan fan;
};

/* --- places --- */

bool hierarchy_claim(struct hierarchy *h, unsigned tier, uint32_t *index)
{
	struct tier *t = &h->tier[tier];
	uint32_t words = (t->slots + 63) / 64, hand = atomic_load(&t->hand);

	if (atomic_load(&t->used) >= t->slots)
		return false;
	for (uint32_t i = 0; i < words; i++) {
		uint32_t at = (hand + i) % words;
		uint64_t bits = atomic_load(&t->taken[at]);

		while (~bits) {
			unsigned b = (unsigned)__builtin_ctzll(~bits);

			if (at * 64 + b >= t->slots)
				break;
			bits = atomic_fetch_or(&t->taken[at], 1ull << b);
			if (bits >> b & 1)
				continue;
			atomic_fetch_add(&t->used, 1);
			atomic_store(&t->hand, at);
			*index = at * 64 + b;
			return true;
		}
	}
	return false;
}

void hierarchy_release(struct hierarchy *h, struct place p)
{
	struct tier *t = &h->tier[p.tier];

	atomic_fetch_and(&t->taken[p.index / 64], ~(1ull << p.index % 64));
	atomic_fetch_sub(&t->used, 1);
}

bool hierarchy_works(const struct hierarchy *h, unsigned tier, uint64_t now)
{
	return atomic_load(&h->tier[tier].avoid_until) <= now;
}

int hierarchy_tier_of(const struct emf_backend *be, uint64_t slot)
{
	const struct hierarchy *h = (const struct hierarchy *)be;
	uint64_t w = atomic_load(&h->word[slot]);

	return WORD_IS_PLACED(w) ? (int)WORD_TIER(w) : -1;
}

/* --- transfers --- */

static void low_done(struct emf_io *io);

static struct tier_io *get(struct tier_queue *tq, struct emf_io *up)
{
	struct tier_io *ti = fan_part(&tq->fan);

	if (ti)
		*ti = (struct tier_io){ .up = up, .tq = tq };
	return ti;
}

static void end_up(struct tier_queue *tq, struct emf_io *up, int status)
{
	tq->ended++;
	io_end(&tq->q, up, status);
}

static void start(struct tier_io *ti, enum emf_op op, uint64_t within, size_t length, void *buf)
{
	ti->low = (struct emf_io){
		.op = op,
		.offset = (uint64_t)ti->at.index * SLOT + within,
		.length = length,
		.buf = buf,
		.done = low_done,
	};
	fan_add(&ti->tq->fan, ti->at.tier, &ti->low);
	fan_flush(&ti->tq->fan, ti->at.tier);
}

static void start_up(struct tier_io *ti)
{
	start(ti, ti->up->op, ti->up->offset % SLOT, ti->up->length, ti->up->buf);
}

/* Gives the place back: trimmed, where the tier can. ti is used up. */
static void drop(struct tier_io *ti, struct place p)
{
	struct hierarchy *h = ti->tq->h;

	ti->at = p;
	if (h->tier[p.tier].is.be->caps & EMF_CAP_TRIM && !ti->tq->closing) {
		start(ti, EMF_TRIM, 0, SLOT, NULL);
		return;
	}
	hierarchy_release(h, p);
	if (ti->up) /* not inside the submit */
		io_push(&ti->tq->refused, ti->up);
	fan_part_done(&ti->tq->fan, &ti->low);
}

static void leave(struct hierarchy *h, uint64_t slot)
{
	atomic_fetch_sub(&h->word[slot], WORD_USER);
}

/*
 * The same after a write to where it is: what was read of it since that began, be it for a move,
 * may be the content before it.
 */
static void leave_written(struct hierarchy *h, uint64_t slot)
{
	atomic_fetch_add(&h->word[slot], WORD_VERSION - WORD_USER);
}

/*
 * The first tier from `from` on that takes the slot; where it is, no other place is needed.
 * False: none does.
 */
static bool choose(struct hierarchy *h, struct tier_io *ti, unsigned from)
{
	uint64_t w = atomic_load(&h->word[ti->slot]), now = timer_now();

	for (unsigned t = from; t < h->n; t++) {
		ti->at.tier = t;
		ti->at.index = WORD_INDEX(w);
		ti->fresh = !WORD_IS_PLACED(w) || WORD_TIER(w) != t;
		if (!ti->fresh)
			return true;
		if (hierarchy_works(h, t, now) && hierarchy_claim(h, t, &ti->at.index))
			return true;
	}
	return false;
}

static void wrote(struct tier_io *ti)
{
	struct hierarchy *h = ti->tq->h;
	uint64_t high = atomic_load(&h->high);
	uint64_t w = atomic_load(&h->word[ti->slot]), to;

	while (high <= ti->slot && !atomic_compare_exchange_weak(&h->high, &high, ti->slot + 1))
		;
	atomic_store(&h->extent[ti->slot], (uint32_t)(ti->low.offset % SLOT / PAGE) |
					       (uint32_t)(ti->low.length / PAGE) << 16);
	if (!WORD_IS_PLACED(w))
		atomic_store(&h->heat[ti->slot], atomic_load(&h->usual));
	if (!ti->fresh) {
		leave_written(h, ti->slot);
		return;
	}
	do {
		to = ((w & ~WORD_PLACE_MASK) | WORD_PLACE(ti->at.tier, ti->at.index)) - WORD_USER +
		     WORD_VERSION;
	} while (!atomic_compare_exchange_weak(&h->word[ti->slot], &w, to));
	struct tier_io *old = WORD_IS_PLACED(w) ? get(ti->tq, NULL) : NULL;
	if (old)
		drop(old, (struct place){ WORD_TIER(w), WORD_INDEX(w) });
	else if (WORD_IS_PLACED(w)) /* no memory for a trim */
		hierarchy_release(h, (struct place){ WORD_TIER(w), WORD_INDEX(w) });
}

/* True: it goes on, at another tier. */
static bool write_failed(struct tier_io *ti)
{
	struct tier_queue *tq = ti->tq;
	struct hierarchy *h = tq->h;

	if (ti->low.status != -ECANCELED)
		atomic_store(&h->tier[ti->at.tier].avoid_until, timer_now() + AVOID_NS);
	if (ti->fresh)
		hierarchy_release(h, ti->at);
	if (ti->low.status != -ECANCELED && !tq->closing && choose(h, ti, ti->at.tier + 1)) {
		start_up(ti);
		return true;
	}
	leave_written(h, ti->slot);
	return false;
}

static void low_done(struct emf_io *io)
{
	struct tier_io *ti = (struct tier_io *)io;
	struct tier_queue *tq = ti->tq;
	struct hierarchy *h = tq->h;
	struct emf_io *up = ti->up;
	int status = io->status;

	switch (io->op) {
	case EMF_READ:
		if (!status) {
			atomic_fetch_add_explicit(&h->tier[ti->at.tier].hits, 1,
						  memory_order_relaxed);
			if ((atomic_load(&h->heat[ti->slot]) & HEAT_READS) < HEAT_READS)
				atomic_fetch_add(&h->heat[ti->slot], 1);
		}
		leave(h, ti->slot);
		break;
	case EMF_WRITE:
		if (status && write_failed(ti))
			return;
		if (!status)
			wrote(ti);
		break;
	case EMF_TRIM:
		hierarchy_release(h, ti->at);
		break;
	}
	fan_part_done(&tq->fan, io);
	if (up)
		end_up(tq, up, status);
}

static int begin_read(struct tier_io *ti)
{
	struct hierarchy *h = ti->tq->h;
	uint64_t w = atomic_load(&h->word[ti->slot]);

	do {
		if (!WORD_IS_PLACED(w))
			return -EIO;
	} while (!atomic_compare_exchange_weak(&h->word[ti->slot], &w, w + WORD_USER));
	ti->at = (struct place){ WORD_TIER(w), WORD_INDEX(w) };
	start_up(ti);
	return 0;
}

static int begin_write(struct tier_io *ti)
{
	struct hierarchy *h = ti->tq->h;

	/* From here on the store's thread leaves it where it is. */
	atomic_fetch_add(&h->word[ti->slot], WORD_USER + WORD_VERSION);
	if (!choose(h, ti, 0)) {
		leave(h, ti->slot);
		return -ENOSPC;
	}
	start_up(ti);
	return 0;
}

static int begin_trim(struct tier_io *ti)
{
	struct hierarchy *h = ti->tq->h;
	uint64_t w = atomic_load(&h->word[ti->slot]);

	if (ti->up->length < SLOT || !WORD_IS_PLACED(w)) {
		io_push(&ti->tq->refused, ti->up);
		fan_part_done(&ti->tq->fan, &ti->low);
		return 0;
	}
	while (!atomic_compare_exchange_weak(&h->word[ti->slot], &w,
					     (w & ~WORD_PLACE_MASK) + WORD_VERSION))
		;
	atomic_store(&h->heat[ti->slot], 0);
	drop(ti, (struct place){ WORD_TIER(w), WORD_INDEX(w) });
	return 0;
}

static int tier_submit(struct emf_queue *q, struct emf_io *io)
{
	struct tier_queue *tq = (struct tier_queue *)q;
	struct tier_io *ti = NULL;
	int rc;

	if (tq->closing || q->inflight >= tq->depth)
		return -EAGAIN;
	q->inflight++;
	rc = io_check(io, tq->h->be.size);
	if (!rc && io->length > SLOT - io->offset % SLOT)
		rc = -EINVAL;
	if (!rc && !(ti = get(tq, io)))
		rc = -ENOMEM;
	io->status = 0;
	if (!rc) {
		ti->slot = io->offset / SLOT;
		rc = io->op == EMF_READ	   ? begin_read(ti)
		     : io->op == EMF_WRITE ? begin_write(ti)
					   : begin_trim(ti);
	}
	if (rc) {
		if (ti)
			fan_part_done(&tq->fan, &ti->low);
		io->status = rc;
		io_push(&tq->refused, io);
	}
	return 0;
}

static int tier_poll(struct emf_queue *q)
{
	struct tier_queue *tq = (struct tier_queue *)q;
	struct io_list refused = io_take(&tq->refused);
	struct emf_io *io;

	tq->ended = 0;
	while ((io = io_pop(&refused)))
		end_up(tq, io, io->status);
	fan_poll(&tq->fan);
	return tq->ended;
}

static int tier_pollfds(struct emf_queue *q, struct pollfd *fds, int max)
{
	struct tier_queue *tq = (struct tier_queue *)q;

	if (!q->inflight || tq->h->be.caps & EMF_CAP_SYNC)
		return 0;
	return fan_pollfds(&tq->fan, fds, max, tq->refused.head, tq->h->ready_fd);
}

static void tier_queue_close(struct emf_queue *q)
{
	struct tier_queue *tq = (struct tier_queue *)q;

	tq->closing = true;
	fan_close(&tq->fan);
	io_end_all(q, &tq->refused, -ECANCELED);
	arena_free(tq, sizeof(*tq));
}

static const struct emf_queue_ops queue_ops = {
	.submit = tier_submit,
	.poll = tier_poll,
	.pollfds = tier_pollfds,
	.close = tier_queue_close,
};

static int tier_queue_open(struct emf_backend *be, enum emf_queue_kind kind, unsigned depth,
			   struct emf_queue **out)
{
	struct hierarchy *h = (struct hierarchy *)be;
	struct tier_queue *tq = arena_alloc(sizeof(*tq));
	struct emf_backend *member[STORE_LEAVES];
	int rc;

	if (!tq)
		return -ENOMEM;
	tq->q.ops = &queue_ops;
	tq->h = h;
	tq->depth = depth ? depth : 1;
	for (unsigned i = 0; i < h->n; i++)
		member[i] = h->tier[i].is.be;
	tq->fan.part = sizeof(struct tier_io);
	rc = fan_open(&tq->fan, member, h->n, kind, tq->depth);
	if (rc) {
		tier_queue_close(&tq->q);
		return rc;
	}
	*out = &tq->q;
	return 0;
}

/* --- the link --- */

static void hierarchy_close(struct emf_backend *be)
{
	struct hierarchy *h = (struct hierarchy *)be;

	migrate_end(h);
	for (unsigned i = 0; i < h->n; i++)
		store_untable(h->tier[i].taken, h->tier[i].slots / 64 + 1, sizeof(uint64_t));
	store_untable(h->word, h->slots, sizeof(*h->word));
	store_untable(h->heat, h->slots, sizeof(*h->heat));
	store_untable(h->extent, h->slots, sizeof(*h->extent));
	if (h->ready_fd >= 0)
		close(h->ready_fd);
	store_free(h);
}

static const struct emf_backend_ops backend_ops = {
	.queue_open = tier_queue_open,
	.close = hierarchy_close,
};

static int add_tier(struct hierarchy *h, const struct hierarchy_tier *is)
{
	uint64_t bytes = is->capacity && is->capacity < is->be->size ? is->capacity : is->be->size;
	uint64_t slots = bytes / SLOT;
	struct tier *t = &h->tier[h->n];

	if (!slots)
		return -ENOSPC;
	if (slots > UINT32_MAX - 64)
		slots = UINT32_MAX - 64;
	t->is = *is;
	t->slots = (uint32_t)slots;
	t->high = (uint32_t)(slots * is->high / 100);
	t->low = (uint32_t)(slots * is->low / 100);
	t->taken = store_table(slots / 64 + 1, sizeof(uint64_t), MAP_PRIVATE);
	h->n++;
	h->slots += slots;
	return t->taken ? 0 : -ENOMEM;
}

int hierarchy_open(const struct hierarchy_tier *tier, unsigned n, unsigned timeout_ms,
		   uint64_t rate, struct emf_backend **out)
{
	struct hierarchy *h = store_alloc(1, sizeof(*h));
	uint32_t any = 0, all = UINT32_MAX;
	int rc = 0;

	if (!h)
		return -ENOMEM;
	h->timeout_ms = timeout_ms;
	h->rate = rate;
	h->ready_fd = ready_open();
	if (h->ready_fd < 0)
		rc = h->ready_fd;
	else if (n > STORE_LEAVES - 1)
		rc = -EINVAL;
	for (unsigned i = 0; i < n && !rc; i++) {
		rc = add_tier(h, &tier[i]);
		any |= tier[i].be->caps;
		all &= tier[i].be->caps;
	}
	h->be = (struct emf_backend){
		.ops = &backend_ops,
		.size = h->slots * SLOT,
		.caps = (all & (EMF_CAP_SYNC | EMF_CAP_BYTES)) | (any & EMF_CAP_OUTLIVES) |
			EMF_CAP_TRIM,
		.max_length = SLOT,
	};
	if (!rc) {
		h->word = store_table(h->slots, sizeof(*h->word), MAP_PRIVATE);
		h->heat = store_table(h->slots, sizeof(*h->heat), MAP_PRIVATE);
		h->extent = store_table(h->slots, sizeof(*h->extent), MAP_PRIVATE);
		rc = h->word && h->heat && h->extent ? 0 : -ENOMEM;
	}
	if (rc)
		hierarchy_close(&h->be);
	else
		*out = &h->be;
	return rc;
}

void hierarchy_set_sums(struct emf_backend *be, struct emf_backend *sums)
{
	((struct hierarchy *)be)->sums = sums;
}
