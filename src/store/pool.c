/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE 1 /* syscall */
#include "pool.h"

#include <sys/mman.h>
#include <sys/syscall.h>

#include "fan.h"
#include "memory.h"
#include "pool_int.h"
#include "ready.h"
#include "reconnect.h"
#include "timer.h"

#define PAGE 4096u

struct part {
	struct emf_io io;     /* first: lists are of these */
	struct emf_io *whole; /* its scratch[0]: how many parts are left */
	unsigned member;
	uint32_t place; /* to be given back at the end of a trim, or 0 */
};

struct pool_queue {
	struct emf_queue q;
	struct pool *pool;
	unsigned depth;
	int64_t credit[STORE_LEAVES]; /* what was due to a member of the columns so far */
	struct pool_queues of;
	bool closing;
	int ended; /* transfers, counted for the result of poll */
	struct io_list refused;
	struct fan fan;
};

/* --- places --- */

/* Where the stripe link would have it, 0: it has no home. */
static uint32_t home(const struct pool *p, uint64_t slot, unsigned column)
{
	uint64_t u = slot * p->columns + column;

	return slot < p->homes ? PLACE(u % p->nhome, (uint32_t)(u / p->nhome)) : 0;
}

/* May this queue write to it? */
static bool takes(const struct pool_queue *pq, unsigned member)
{
	const struct emf_queue *mq = pq->fan.member[member];

	return pool_is_open(pq->pool, member) && mq && reconnect_is_up(mq);
}

/* Each in its turn, as often as its weight is of all; one that has no room is passed over. */
static uint32_t choose_by_weight(struct pool_queue *pq, uint64_t now)
{
	struct pool *p = pq->pool;
	uint32_t n = atomic_load(&p->n), full = 0, at = 0;
	int best;

	do {
		int64_t sum = 0;

		best = -1;
		for (unsigned i = 0; i < n; i++) {
			if (full >> i & 1 || !takes(pq, i))
				continue;
			uint32_t weight = pool_weight(p, i) * pool_share(p, i, now);

			sum += weight;
			pq->credit[i] += weight;
			if (best < 0 || pq->credit[i] > pq->credit[best])
				best = (int)i;
		}
		if (best < 0)
			break;
		pq->credit[best] -= sum;
		full |= 1u << best;
		at = pool_claim(p, (unsigned)best);
	} while (!at);
	return at;
}

static uint32_t choose(struct pool_queue *pq, uint64_t slot, unsigned column)
{
	struct pool *p = pq->pool;
	uint32_t at = home(p, slot, column);

	if (!atomic_load(&p->shared->changed) && at &&
	    pool_claim_at(p, PLACE_MEMBER(at), PLACE_INDEX(at)))
		return at;
	/* Somebody else may have it since that has changed. */
	return atomic_load(&p->shared->changed) ? choose_by_weight(pq, timer_now()) : 0;
}

/* A place for what is written anew, where members by now have much less than this; 0: none. */
static uint32_t choose_lighter(struct pool_queue *pq, uint32_t than)
{
	struct pool *p = pq->pool;
	unsigned best = PLACE_MEMBER(than);
	uint64_t now;

	if (!atomic_load(&p->shared->changed))
		return 0;
	now = timer_now();
	for (unsigned i = 0; i < atomic_load(&p->n); i++)
		if (pool_is_lighter(p, i, best) && pool_share(p, i, now) == RAMP_STEPS &&
		    takes(pq, i))
			best = i;
	return best == PLACE_MEMBER(than) ? 0 : pool_claim(p, best);
}

/* --- transfers --- */

static void leave(struct pool *p, const struct emf_io *io)
{
	_Atomic uint32_t *users = &p->users[io->offset / SLOT];

	if (io->op == EMF_READ)
		atomic_fetch_sub(users, READER);
	else if (io->op == EMF_WRITE)
		atomic_fetch_sub(users, WRITER);
}

static void end_whole(struct pool_queue *pq, struct emf_io *io)
{
	struct pool *p = pq->pool;

	if (io->op == EMF_WRITE)
		atomic_store(&p->extent[io->offset / SLOT],
			     io->status ? 0
					: (uint32_t)(io->offset % SLOT / PAGE) |
					      (uint32_t)(io->length / PAGE) << 16);
	leave(p, io);
	pq->ended++;
	io_end(&pq->q, io, io->status);
}

static void part_done(struct emf_io *io)
{
	struct part *part = (struct part *)io;
	struct pool_queue *pq = io->user;
	struct emf_io *whole = part->whole;

	if (part->place)
		pool_release(pq->pool, part->place);
	fan_part_done(&pq->fan, io);
	/* That the old place of what is written was not trimmed is no failure of the write. */
	if (io->status && !whole->status && io->op == whole->op)
		whole->status = io->status;
	if (!--whole->scratch[0])
		end_whole(pq, whole);
}

static struct part *add_part(struct pool_queue *pq, struct io_list *parts, struct emf_io *whole,
			     uint32_t place, uint64_t within, size_t length, char *buf)
{
	struct part *part = fan_part(&pq->fan);

	if (!part)
		return NULL;
	*part = (struct part){
		.io = {
			.op = whole->op,
			.offset = PLACE_INDEX(place) * pq->pool->unit + within,
			.length = length,
			.buf = buf,
			.done = part_done,
			.user = pq,
		},
		.whole = whole,
		.member = PLACE_MEMBER(place),
	};
	io_push(parts, &part->io);
	whole->scratch[0]++;
	return part;
}

/* --- writes find places --- */

/* What is at a place ends with a write elsewhere. No memory for a trim: it stays untrimmed. */
static void give_up(struct pool_queue *pq, struct emf_io *io, struct io_list *parts, uint32_t place)
{
	const struct emf_queue *mq = pq->fan.member[PLACE_MEMBER(place)];
	struct part *part = NULL;

	if (mq && reconnect_is_up(mq))
		part = add_part(pq, parts, io, place, 0, pq->pool->unit, NULL);
	if (!part) {
		pool_release(pq->pool, place);
		return;
	}
	part->io.op = EMF_TRIM;
	part->place = place;
}

/*
 * A place for a column that is written. What lies on a member that this queue can't write to now
 * goes elsewhere. False: no room.
 */
static bool settle_column(struct pool_queue *pq, struct emf_io *io, struct io_list *parts,
			  unsigned column)
{
	struct pool *p = pq->pool;
	uint64_t slot = io->offset / SLOT;
	_Atomic uint32_t *place = pool_place(p, slot, column);
	uint32_t at = atomic_fetch_and(place, ~PLACE_MOVES) & ~PLACE_MOVES, old, lighter;

	lighter = at ? choose_lighter(pq, at) : 0;
	if (lighter) {
		at = lighter;
		old = atomic_exchange(place, at) & ~PLACE_MOVES;
		if (old)
			give_up(pq, io, parts, old);
	}
	/* Looked at once more when the table has it: a drain that has begun since may have passed
	 * by here already. */
	while (!at || (atomic_load(&p->shared->changed) && !takes(pq, PLACE_MEMBER(at)))) {
		old = at;
		at = choose(pq, slot, column);
		if (!at) /* where it lies it fails, but not for want of room */
			return old && !pool_is_state(p, PLACE_MEMBER(old), MEMBER_DRAINING);
		old = atomic_exchange(place, at) & ~PLACE_MOVES;
		if (old)
			give_up(pq, io, parts, old);
	}
	return true;
}

static bool settle(struct pool_queue *pq, struct emf_io *io, struct io_list *parts)
{
	struct pool *p = pq->pool;
	uint64_t slot = io->offset / SLOT;
	size_t from = io->offset % SLOT, to = from + io->length;

	pool_note_high(p, slot);
	for (unsigned c = (unsigned)(from / p->unit); c * p->unit < to; c++)
		if (!settle_column(pq, io, parts, c))
			return false;
	return true;
}

/* Columns that follow each other on a member, too, make one part. */
static int cut(struct pool_queue *pq, struct emf_io *io, struct io_list *parts)
{
	struct pool *p = pq->pool;
	uint64_t slot = io->offset / SLOT;
	size_t at = io->offset % SLOT, end = at + io->length;
	char *buf = io->buf;

	while (at < end) {
		unsigned c = (unsigned)(at / p->unit), more = 1;
		size_t within = at % p->unit, n = p->unit - within;
		uint32_t place = pool_look(p, slot, c), limit;

		if (!place)
			return -EIO;
		if (!pq->fan.member[PLACE_MEMBER(place)]) /* no memory for it yet */
			return -ENOTCONN;
		while (at + n < end && pool_look(p, slot, c + more) == place + more) {
			n += p->unit;
			more++;
		}
		if (n > end - at)
			n = end - at;
		limit = p->member[PLACE_MEMBER(place)].be->max_length;
		if (n > limit)
			n = limit;
		if (!add_part(pq, parts, io, place, within, n, buf))
			return -ENOMEM;
		at += n;
		buf += n;
	}
	return 0;
}

/* A part of a slot is trimmed where it lies; a whole one lies nowhere then. */
static int cut_trim(struct pool_queue *pq, struct emf_io *io, struct io_list *parts)
{
	struct pool *p = pq->pool;
	uint64_t slot = io->offset / SLOT;
	size_t from = io->offset % SLOT, to = from + io->length;
	bool whole = io->length == SLOT;

	if (whole)
		atomic_store(&p->extent[slot], 0);
	for (unsigned c = (unsigned)(from / p->unit); c * p->unit < to; c++) {
		size_t begin = c * p->unit, within = from > begin ? from - begin : 0;
		size_t end = to - begin < p->unit ? to - begin : p->unit;
		uint32_t place = whole ? atomic_exchange(pool_place(p, slot, c), 0) & ~PLACE_MOVES
				       : pool_look(p, slot, c);
		struct part *part;

		if (!place)
			continue;
		part = pq->fan.member[PLACE_MEMBER(place)]
			   ? add_part(pq, parts, io, place, within, end - within, NULL)
			   : NULL;
		if (part)
			part->place = whole ? place : 0;
		else if (whole) /* no memory: it stays untrimmed */
			pool_release(p, place);
	}
	return 0;
}

static int begin(struct pool_queue *pq, struct emf_io *io, struct io_list *parts)
{
	if (io->op == EMF_TRIM)
		return cut_trim(pq, io, parts);
	if (io->op == EMF_WRITE && !settle(pq, io, parts))
		return -ENOSPC;
	return cut(pq, io, parts);
}

static void see_members(struct pool_queue *pq, bool may_close)
{
	pool_see_members(pq->pool, &pq->of, pq->fan.member, pq->fan.waiting, may_close);
	pq->fan.n = atomic_load(&pq->pool->n);
}

static int pool_submit(struct emf_queue *q, struct emf_io *io)
{
	struct pool_queue *pq = (struct pool_queue *)q;
	struct pool *p = pq->pool;
	struct io_list parts = { 0 };
	struct emf_io *part;
	uint32_t asked = 0;

	if (pq->closing || q->inflight >= pq->depth)
		return -EAGAIN;
	see_members(pq, false);
	pool_weigh(p, timer_now());
	q->inflight++;
	io->scratch[0] = 0;
	io->status = io_check(io, p->be.size);
	if (!io->status && io->length > SLOT - io->offset % SLOT)
		io->status = -EINVAL;
	if (io->status) {
		io->scratch[1] = 1; /* nobody is at a slot for it */
		io_push(&pq->refused, io);
		return 0;
	}
	io->scratch[1] = 0;
	/* From here on the store's thread knows of it; a write leaves nothing known behind if it
	 * fails. */
	if (io->op != EMF_TRIM)
		atomic_fetch_add(&p->users[io->offset / SLOT],
				 io->op == EMF_READ ? READER : WRITER);
	io->status = begin(pq, io, &parts);
	if (io->status || !parts.head) {
		while ((part = io_pop(&parts))) {
			if (((struct part *)part)->place)
				pool_release(p, ((struct part *)part)->place);
			fan_part_done(&pq->fan, part);
		}
		io_push(&pq->refused, io);
		return 0;
	}
	while ((part = io_pop(&parts))) {
		unsigned m = ((struct part *)part)->member;

		asked |= 1u << m;
		fan_add(&pq->fan, m, part);
	}
	for (unsigned i = 0; asked >> i; i++)
		if (asked >> i & 1)
			fan_flush(&pq->fan, i);
	return 0;
}

static void end_refused(struct pool_queue *pq, struct emf_io *io)
{
	if (!io->scratch[1]) {
		end_whole(pq, io);
		return;
	}
	pq->ended++;
	io_end(&pq->q, io, io->status);
}

static int pool_poll(struct emf_queue *q)
{
	struct pool_queue *pq = (struct pool_queue *)q;
	struct io_list refused;
	struct emf_io *io;

	see_members(pq, true);
	refused = io_take(&pq->refused);
	pq->ended = 0;
	while ((io = io_pop(&refused)))
		end_refused(pq, io);
	fan_poll(&pq->fan);
	return pq->ended;
}

static int pool_pollfds(struct emf_queue *q, struct pollfd *fds, int max)
{
	struct pool_queue *pq = (struct pool_queue *)q;
	struct pool *p = pq->pool;

	if (!q->inflight || p->be.caps & EMF_CAP_SYNC)
		return 0;
	return fan_pollfds(&pq->fan, fds, max, pq->refused.head, p->ready_fd);
}

static void pool_queue_close(struct emf_queue *q)
{
	struct pool_queue *pq = (struct pool_queue *)q;
	struct io_list refused;
	struct emf_io *io;

	pq->closing = true;
	fan_close(&pq->fan);
	pool_leave_queues(pq->pool, pq->fan.member);
	refused = io_take(&pq->refused);
	while ((io = io_pop(&refused))) {
		io->status = -ECANCELED;
		end_refused(pq, io);
	}
	arena_free(pq, sizeof(*pq));
}

static const struct emf_queue_ops queue_ops = {
	.submit = pool_submit,
	.poll = pool_poll,
	.pollfds = pool_pollfds,
	.close = pool_queue_close,
};

static int pool_queue_open(struct emf_backend *be, enum emf_queue_kind kind, unsigned depth,
			   struct emf_queue **out)
{
	struct pool *p = (struct pool *)be;
	struct pool_queue *pq = arena_alloc(sizeof(*pq));
	int rc;

	if (!pq)
		return -ENOMEM;
	pq->q.ops = &queue_ops;
	pq->pool = p;
	pq->depth = depth ? depth : 1;
	pq->of.kind = kind;
	pq->of.depth = fan_depth(pq->depth, p->columns / p->nhome + 1); /* as a stripe */
	pq->fan.part = sizeof(struct part);
	pq->fan.n = atomic_load(&p->n);
	rc = pool_open_queues(p, &pq->of, pq->fan.member);
	if (rc) {
		pool_queue_close(&pq->q);
		return rc;
	}
	*out = &pq->q;
	return 0;
}

/* --- the link --- */

static void pool_close(struct emf_backend *be)
{
	struct pool *p = (struct pool *)be;

	if (p->extent)
		syscall(SYS_munmap, p->extent, p->slots * sizeof(*p->extent));
	pool_end(p);
	store_free(p);
}

static int pool_link_forked(struct emf_backend *be, const int *fds)
{
	(void)fds;
	return pool_go_on((struct pool *)be);
}

void pool_forked(struct emf_backend *be, struct emf_store_stats *stats, int wake_fd)
{
	struct pool *p = (struct pool *)be;

	p->o.stats = stats;
	p->o.wake_fd = wake_fd;
}

static const struct emf_backend_ops backend_ops = {
	.queue_open = pool_queue_open,
	.close = pool_close,
	.forked = pool_link_forked,
};

int pool_open(struct emf_backend *const *member, unsigned n, const struct spread_options *o,
	      struct emf_backend **out)
{
	struct pool *p = store_alloc(1, sizeof(*p));
	uint64_t size = UINT64_MAX, most = 0, total = 0;
	uint32_t any = 0, all = UINT32_MAX;
	int rc;

	if (!p)
		return -ENOMEM;
	p->ready_fd = -1;
	p->o = *o;
	p->nhome = n;
	p->unit = o->unit < SLOT ? o->unit : SLOT;
	p->columns = (unsigned)(SLOT / p->unit);
	for (unsigned i = 0; i < n; i++) {
		uint64_t units = member[i]->size / p->unit;

		units = units < 1u << PLACE_SHIFT ? units : (1u << PLACE_SHIFT) - 1;
		size = units < size ? units : size;
		most = units > most ? units : most;
		total += units;
		any |= member[i]->caps;
		all &= member[i]->caps;
	}
	p->homes = size * n / p->columns;
	p->slots = pool_slots_ever(total / p->columns);
	p->be = (struct emf_backend){
		.ops = &backend_ops,
		.size = p->slots * SLOT,
		.caps = (all & (EMF_CAP_SYNC | EMF_CAP_BYTES)) |
			(any & (EMF_CAP_TRIM | EMF_CAP_OUTLIVES)),
		.max_length = SLOT,
	};
	rc = total >= p->columns ? pool_init(p, member, n) : -ENOSPC;
	p->extent = rc ? NULL : store_table(p->slots, sizeof(*p->extent), MAP_PRIVATE);
	if (!rc && !p->extent)
		rc = -ENOMEM;
	/* A stripe would leave room unused. */
	if (!rc && most > size)
		atomic_store(&p->shared->changed, 1);
	if (rc)
		pool_close(&p->be);
	else
		*out = &p->be;
	return rc;
}

void pool_set_sums(struct emf_backend *be, struct emf_backend *sums)
{
	((struct pool *)be)->sums = sums;
}
