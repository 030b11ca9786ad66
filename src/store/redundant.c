/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The transfers. A task is one transfer of whoever is above, a part one of a member.
 *
 * Mirror, read: pieces of a unit, each from one copy; a piece that fails goes to the
 * next copy. Parity, read: one part for each data column; when all have ended, those
 * that failed are computed (a rescue) from k others: what the task has read anyway,
 * and what is read for it into the queue's scratch memory, one rescue at a time.
 *
 * What was not written of a column counts as zeros, and is never read.
 */
#define _GNU_SOURCE 1 /* syscall */
#include "redundant.h"
#include "memory.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../provider/io.h"
#include "ready.h"
#include "reconnect.h"
#include "redundant_int.h"
#include "solo.h"
#include "timer.h"
#include "xxh3.h"

#define MAX_WIDTH PARITY_MAX
#define MAX_MEMBER_DEPTH 1024u
#define PARITY_BUFFERS 4u /* for writes, a queue: with two its links wait for the coder */
#define FIRST_P99_NS 5000000ull
#define TICK_NS 10000000ull /* how often it is looked for what is late */
/* Late is what takes so many times the 99th percentile, within bounds: scheduling is no fault. */
#define LATE_DEMAND 16u
#define GRACE_PART 8u /* of the timeout: how long a write waits for a new connection */
#define LATE_DEMAND_NS 50000000ull
#define LATE_BULK 64u
#define LATE_BULK_NS 500000000ull
/* Another copy is read than the one whose turn it is when that is likely to take so many times as
 * long; a member that is passed by is thought a little faster each time, so that it is tried. */
#define SLOWER 2u
#define MEAN_OF 16
#define FORGIVEN 256u

struct task {
	struct emf_io *up;
	struct task *next;
	uint64_t slot;
	struct range range; /* of the slot */
	unsigned pending;   /* parts */
	uint16_t bad;	    /* columns that failed: of a write, or to be rescued */
	uint16_t cut;	    /* of a write: those of them that only lack a connection */
	uint16_t unsure;    /* of a write: what was cut off before it may come over it */
	bool again;	    /* a write has waited for connections */
	unsigned turn;	    /* of a read of copies */
	int status;	    /* why, the worst */
	void *parity;	    /* a write's buffer */
};

struct part {
	struct emf_io io; /* first: lists are of these */
	struct part_queue *rq;
	struct task *task;
	uint64_t begin;	    /* ns */
	struct range range; /* of the column */
	uint32_t place;	    /* in which it is */
	uint16_t tried;	    /* copies */
	uint8_t member, column;
	bool busy, rescue;
	bool late; /* was so a tick ago */
};

struct rescue {
	struct task *task;  /* NULL: none */
	struct range rows;  /* of the columns */
	uint16_t used, bad; /* columns that are sources; that can't be */
	uint8_t source[MAX_WIDTH];
	unsigned pending;
};

struct part_queue {
	struct emf_queue q;
	struct redundant *r;
	struct pool_queues of;
	bool closing, submitting;
	int ended;
	unsigned turn;
	struct task *idle, *tasks;
	struct task *waiting, **waiting_end;   /* writes without a parity buffer */
	struct task *to_rescue;		       /* read, but for their bad columns */
	struct task *held;		       /* writes that wait for connections */
	uint64_t away_since[STORE_LEAVES + 1]; /* ns: the member has no connection; 0: it has */
	struct io_list refused;
	struct part *parts;
	unsigned nparts;
	struct io_list spare; /* parts */
	struct io_list member_waiting[STORE_LEAVES];
	struct io_list lost;			    /* parts for members that there are not */
	struct emf_queue *member[STORE_LEAVES + 1]; /* NULL: none, as for NOWHERE */
	uint64_t p99[STORE_LEAVES + 1];		    /* ns, of reads, estimated */
	uint64_t mean[STORE_LEAVES + 1];	    /* ns, of reads lately; 0: not known */
	struct timer timer;
	uint64_t tick;
	struct rescue rescue;
	char *scratch; /* k + 1 columns */
	void *coder;
	char *parity[PARITY_BUFFERS];
	unsigned nparity;
	char *pad; /* two clusters */
};

static const uint8_t zeros[STORE_CLUSTER];

static void *map(size_t bytes)
{
	long at = syscall(SYS_mmap, NULL, bytes, PROT_READ | PROT_WRITE,
			  MAP_ANONYMOUS | MAP_PRIVATE | MAP_NORESERVE, -1, 0L);

	return at == -1 ? NULL : (void *)at;
}

static void unmap(void *p, size_t bytes)
{
	if (p)
		syscall(SYS_munmap, p, bytes);
}

/* --- what is known of slots --- */

static uint32_t home(const struct pool *p, uint64_t slot, unsigned column)
{
	const struct redundant *r = (const struct redundant *)p;
	uint64_t offset;
	unsigned member;

	if (slot >= r->layout.slots)
		return 0;
	member = layout_place(&r->layout, slot, column, &offset);
	return PLACE(member, (uint32_t)(offset / r->layout.column));
}

/* A column more, or less. */
static void count_stale_on(struct redundant *r, unsigned member, int n)
{
	if (n > 0) /* it is 0 only when all are: count_anew */
		atomic_fetch_add(&r->all_stale, n);
	atomic_fetch_add(&r->nstale[member], n);
	if (n < 0)
		atomic_fetch_add(&r->all_stale, n);
	/* It wraps, and comes out right; from the first change on the store's thread does it. */
	if (r->p.o.stats && member != NOWHERE && !atomic_load(&r->p.shared->changed))
		atomic_fetch_add(&r->p.o.stats[member].rebuild_bytes,
				 (uint64_t)(int64_t)n * r->layout.column);
}

static void count_stale(struct redundant *r, uint64_t slot, unsigned columns, int n)
{
	for (unsigned c = 0; columns >> c; c++)
		if (columns >> c & 1)
			count_stale_on(r, member_of(r, slot, c), n);
}

static bool redundant_replace(struct pool *p, uint64_t slot, unsigned column, uint32_t is,
			      uint32_t to, bool *doubt);

void redundant_set_stale(struct redundant *r, uint64_t slot, unsigned columns)
{
	unsigned fresh = columns & ~(unsigned)atomic_fetch_or(&r->stale[slot], (uint16_t)columns);

	count_stale(r, slot, fresh, 1);
	if (fresh)
		signal_raise(r->p.o.wake_fd);
}

/* What was read of it, in that place, is not what was written. */
static void found_wrong(struct redundant *r, uint64_t slot, unsigned column, uint32_t place)
{
	if (pool_look(&r->p, slot, column) != place)
		return;
	if (!(atomic_load(&r->stale[slot]) >> column & 1))
		atomic_fetch_or(&r->lied, 1u << PLACE_MEMBER(place));
	redundant_set_stale(r, slot, 1u << column);
	patrol_alarm(r);
}

void redundant_clear_stale(struct redundant *r, uint64_t slot, unsigned columns)
{
	unsigned gone = columns & (unsigned)atomic_fetch_and(&r->stale[slot], (uint16_t)~columns);

	count_stale(r, slot, gone, -1);
}

uint64_t redundant_stale(const struct emf_backend *be, unsigned member)
{
	const struct redundant *r = (const struct redundant *)be;
	int64_t n = atomic_load(&r->nstale[member]);

	return n > 0 ? (uint64_t)n * r->layout.column : 0;
}

bool redundant_is_right(const struct redundant *r, uint64_t slot, unsigned column, size_t at,
			size_t length, const void *buf)
{
	const char *p = buf;

	if (!is_parity(r, column)) {
		size_t base = is_copy(r) ? 0 : column * (size_t)r->layout.column;

		return checksum_matches(r->p.sums, slot * SLOT + base + at, length, buf);
	}
	const uint64_t *sum = r->parity_sum + (slot * r->layout.m + column - r->layout.k) * r->rows;
	for (; length; at += STORE_CLUSTER, p += STORE_CLUSTER, length -= STORE_CLUSTER)
		if (sum[at / STORE_CLUSTER] != r->hash(p, STORE_CLUSTER))
			return false;
	return true;
}

/* --- parts --- */

/* Can it be used by this queue now? */
static bool is_up(const struct part_queue *rq, unsigned member)
{
	return rq->member[member] && reconnect_is_up(rq->member[member]);
}

static bool usable(const struct part_queue *rq, uint64_t slot, unsigned column)
{
	const struct redundant *r = rq->r;

	return !(atomic_load(&r->stale[slot]) >> column & 1) &&
	       is_up(rq, member_of(r, slot, column));
}

static void flush(struct part_queue *rq, unsigned member)
{
	struct io_list *waiting = &rq->member_waiting[member];
	struct emf_io *io;

	while ((io = io_pop(waiting)))
		if (rq->member[member]->ops->submit(rq->member[member], io)) {
			io_push_front(waiting, io);
			return;
		}
}

static void part_done(struct emf_io *io);

static void send_to(struct part_queue *rq, struct part *p, unsigned column, uint32_t place)
{
	unsigned member = place ? PLACE_MEMBER(place) : NOWHERE;

	p->column = (uint8_t)column;
	p->place = place;
	p->member = (uint8_t)member;
	p->io.offset = PLACE_INDEX(place) * rq->r->layout.column + p->range.from;
	p->io.length = p->range.to - p->range.from;
	p->io.done = part_done;
	p->begin = timer_now();
	p->late = false;
	if (!rq->member[member]) {
		io_push(&rq->lost, &p->io);
		return;
	}
	io_push(&rq->member_waiting[member], &p->io);
	flush(rq, member);
}

/* A transfer of a part of a column. There are parts enough for all tasks. */
static void send(struct part_queue *rq, struct part *p, unsigned column)
{
	send_to(rq, p, column, pool_look(&rq->r->p, p->task->slot, column));
}

static struct part *new_part(struct part_queue *rq, struct task *t, enum emf_op op,
			     struct range range, void *buf)
{
	struct part *p = (struct part *)io_pop(&rq->spare);

	*p = (struct part){
		.io = { .op = op, .buf = buf }, .rq = rq, .task = t, .range = range, .busy = true
	};
	t->pending++;
	return p;
}

static void note(struct task *t, int status)
{
	/* What may come back is worth another attempt, wrong content is not. */
	if (status && (!t->status || t->status == -EBADMSG))
		t->status = status;
}

/* --- the end of a task --- */

static void task_end(struct part_queue *rq, struct task *t, int status)
{
	struct emf_io *up = t->up;

	atomic_fetch_sub(&rq->r->p.users[t->slot], up->op == EMF_WRITE ? WRITER : READER);
	if (t->parity)
		rq->parity[rq->nparity++] = t->parity;
	t->next = rq->idle;
	rq->idle = t;
	if (rq->submitting) { /* never inside a submit */
		up->status = status;
		io_push(&rq->refused, up);
		return;
	}
	rq->ended++;
	io_end(&rq->q, up, status);
}

static bool is_cut(int status)
{
	return status == -ENOTCONN || status == -ETIMEDOUT;
}

/* Are these columns worth waiting for: has each member a connection, or will it at once? */
static bool may_come(const struct part_queue *rq, const struct task *t, bool *all_up)
{
	const struct redundant *r = rq->r;
	uint64_t grace = r->p.o.timeout_ms * 1000000ull / GRACE_PART;

	*all_up = true;
	for (unsigned c = 0; t->cut >> c; c++) {
		unsigned m = member_of(r, t->slot, c);

		if (!(t->cut >> c & 1) || is_up(rq, m))
			continue;
		*all_up = false;
		if (!rq->member[m] || reconnect_is_failing(r->p.member[m].be) ||
		    (rq->away_since[m] && timer_now() - rq->away_since[m] > grace))
			return false;
	}
	return true;
}

/* Nobody is to rebuild what nobody will read. */
static void write_nothing(struct part_queue *rq, struct task *t, int status)
{
	struct redundant *r = rq->r;

	atomic_fetch_add(&r->version[t->slot], 1);
	r->extent[t->slot] = 0;
	redundant_clear_stale(r, t->slot, ~0u);
	atomic_fetch_or(&r->unsure[t->slot], t->unsure);
	task_end(rq, t, status);
}

static void write_end(struct part_queue *rq, struct task *t)
{
	struct redundant *r = rq->r;
	unsigned lost = 0;

	for (unsigned c = 0; c < width(r); c++)
		lost += t->bad >> c & 1;
	if (lost > r->layout.m) {
		write_nothing(rq, t, t->status);
		return;
	}
	redundant_set_stale(r, t->slot, t->bad | t->unsure);
	atomic_fetch_add(&r->version[t->slot], 1);
	patrol_note(r, t->slot);
	task_end(rq, t, 0);
}

static void rescue_next(struct part_queue *rq);

static void task_settled(struct part_queue *rq, struct task *t)
{
	bool all_up;

	if (t->up->op == EMF_WRITE && t->cut && !rq->closing && may_come(rq, t, &all_up)) {
		t->next = rq->held;
		rq->held = t;
	} else if (t->up->op == EMF_WRITE) {
		write_end(rq, t);
	} else if (t->up->op == EMF_TRIM) {
		task_end(rq, t, 0); /* a failed trim costs space, no more */
	} else if (!t->bad || is_copy(rq->r) || rq->closing) {
		task_end(rq, t, t->bad ? t->status : 0);
	} else {
		t->next = rq->to_rescue;
		rq->to_rescue = t;
		rescue_next(rq);
	}
}

/* --- reads --- */

/* How long a read of it is likely to take. */
static uint64_t cost(const struct part_queue *rq, unsigned member)
{
	return rq->mean[member] * (rq->member[member]->inflight + 1);
}

/* The next copy for a piece: preferably one that is up, right and not slow. -1: all were tried. */
static int next_copy(struct part_queue *rq, const struct part *p)
{
	const struct redundant *r = rq->r;
	unsigned n = width(r), first = n, member = 0;
	/* Where it begins differs from piece to piece, so that all are used, and from read to read:
	 * what is wrong with any of them comes out before the others are gone. */
	unsigned start = (unsigned)(p->task->turn + p->range.from / r->p.o.unit) % n;
	int any = -1;

	for (unsigned i = 0; i < n; i++) {
		unsigned c = (start + i) % n, m = member_of(r, p->task->slot, c);

		if (p->tried >> c & 1)
			continue;
		if (usable(rq, p->task->slot, c)) {
			if (first < n && cost(rq, m) >= cost(rq, member) / SLOWER)
				continue;
			if (first < n)
				rq->mean[member] -= rq->mean[member] / FORGIVEN;
			first = c;
			member = m;
		} else if (any < 0 || is_up(rq, m)) {
			any = (int)c;
		}
	}
	return first < n ? (int)first : any;
}

static void estimate(uint64_t *p99, uint64_t ns)
{
	/* A step up for every step of 99 down: it settles where 1% are above. */
	uint64_t step = *p99 / 64 + 1;

	*p99 = ns > *p99 ? *p99 + step : *p99 - step / 99;
}

static void average(uint64_t *mean, uint64_t ns)
{
	*mean = *mean ? *mean - *mean / MEAN_OF + ns / MEAN_OF : ns;
}

static void rescue_read(struct part_queue *rq, struct part *p, int status);

/* Nobody knows what the server has made of a request that it has not answered. */
static void look_soon(struct redundant *r, uint64_t slot)
{
	patrol_note(r, slot);
	patrol_alarm(r);
}

/* Returns false when the piece has gone to another copy. */
static bool read_ended(struct part_queue *rq, struct part *p, int status)
{
	struct redundant *r = rq->r;
	struct task *t = p->task;
	uint64_t ns = timer_now() - p->begin;
	int c;

	if (!status &&
	    redundant_is_right(r, t->slot, p->column, p->range.from, p->io.length, p->io.buf)) {
		estimate(&rq->p99[p->member], ns);
		average(&rq->mean[p->member], ns);
		return true;
	}
	if (!status) {
		status = -EBADMSG;
		if (r->p.o.stats)
			atomic_fetch_add(&r->p.o.stats[p->member].errors, 1);
		found_wrong(r, t->slot, p->column, p->place);
	}
	note(t, status);
	if (status == -ETIMEDOUT)
		average(&rq->mean[p->member], ns);
	if (is_cut(status))
		look_soon(r, t->slot);
	p->tried |= (uint16_t)(1u << p->column);
	if (is_copy(r) && !rq->closing && (c = next_copy(rq, p)) >= 0) {
		send(rq, p, (unsigned)c);
		return false;
	}
	t->bad |= (uint16_t)(1u << p->column);
	return true;
}

static void write_failed(struct redundant *r, struct task *t, unsigned column, int status)
{
	note(t, status);
	patrol_alarm(r);
	t->bad |= (uint16_t)(1u << column);
	/* Once is enough: what is late again would be late for ever. */
	if (is_cut(status) && !t->again)
		t->cut |= (uint16_t)(1u << column);
}

/* What it has there is nothing any more. */
static void leave_place(struct redundant *r, uint64_t slot, unsigned column, uint32_t place)
{
	bool doubt;

	if (redundant_replace(&r->p, slot, column, place, 0, &doubt) ||
	    redundant_replace(&r->p, slot, column, place | PLACE_MOVES, 0, &doubt))
		pool_release(&r->p, place);
}

static void part_done(struct emf_io *io)
{
	struct part *p = (struct part *)io;
	struct part_queue *rq = p->rq;
	struct task *t = p->task;

	if (p->rescue) {
		rescue_read(rq, p, io->status);
		return;
	}
	if (io->op == EMF_READ) {
		if (!read_ended(rq, p, io->status))
			return;
	} else if (io->status) {
		if (solo_in_doubt(io->status))
			atomic_fetch_or(&rq->r->unsure[t->slot], (uint16_t)(1u << p->column));
		write_failed(rq->r, t, p->column, io->status);
	}
	/* Where something may still come to pass the place stays the slot's. */
	if (io->op == EMF_TRIM && !(atomic_load(&rq->r->unsure[t->slot]) >> p->column & 1))
		leave_place(rq->r, t->slot, p->column, p->place);
	p->busy = false;
	io_push(&rq->spare, io);
	if (!--t->pending)
		task_settled(rq, t);
}

static void start_read(struct part_queue *rq, struct task *t)
{
	struct redundant *r = rq->r;
	size_t column = (size_t)r->layout.column;
	char *buf = t->up->buf;

	if (!r->extent[t->slot]) {
		task_end(rq, t, -EBADMSG);
		return;
	}
	t->pending = 1; /* this function */
	t->turn = rq->turn++;
	if (is_copy(r)) {
		for (size_t at = t->range.from, end; at < t->range.to; at = end) {
			end = at - at % (size_t)r->p.o.unit + (size_t)r->p.o.unit;
			if (end > t->range.to)
				end = t->range.to;
			struct part *p = new_part(rq, t, EMF_READ, (struct range){ at, end },
						  buf + (at - t->range.from));
			send(rq, p, (unsigned)next_copy(rq, p));
		}
	} else {
		unsigned good = 0;

		for (unsigned c = 0; c < width(r); c++)
			good += usable(rq, t->slot, c);
		for (unsigned c = 0; c < r->layout.k; c++) {
			struct range in = in_column(r, c, t->range);

			if (in.from >= in.to)
				continue;
			/* What is stale is still the best there is when too few others are left. */
			if ((good >= r->layout.k && !usable(rq, t->slot, c)) ||
			    member_of(r, t->slot, c) == NOWHERE) {
				t->bad |= (uint16_t)(1u << c);
				continue;
			}
			send(rq,
			     new_part(rq, t, EMF_READ, in,
				      buf + (c * column + in.from - t->range.from)),
			     c);
		}
	}
	if (!--t->pending)
		task_settled(rq, t);
}

/* --- rescue --- */

static struct range cut(struct range a, struct range b)
{
	struct range c = { a.from > b.from ? a.from : b.from, a.to < b.to ? a.to : b.to };

	return c.from < c.to ? c : (struct range){ 0, 0 };
}

/* What of the column is needed and was written. */
static struct range needed(const struct part_queue *rq, uint64_t slot, unsigned column)
{
	return cut(in_column(rq->r, column, extent_of(rq->r, slot)), rq->rescue.rows);
}

/* Is what is needed of a column at hand: nothing, or read by the task? */
static bool at_hand(const struct part_queue *rq, unsigned column)
{
	const struct task *t = rq->rescue.task;
	struct range need = needed(rq, t->slot, column), have = { 0, 0 };

	if (need.from == need.to)
		return true;
	if (!is_parity(rq->r, column) && !(t->bad >> column & 1))
		have = in_column(rq->r, column, t->range);
	return have.from <= need.from && have.to >= need.to && have.to > have.from;
}

static int next_source(const struct part_queue *rq)
{
	const struct rescue *s = &rq->rescue;
	int best = -1, best_rank = 0;

	for (unsigned c = 0; c < width(rq->r); c++) {
		if ((s->used | s->bad) >> c & 1)
			continue;
		int rank = at_hand(rq, c) ? 3 : usable(rq, s->task->slot, c) ? 2 : 1;
		if (rank > best_rank) {
			best = (int)c;
			best_rank = rank;
		}
	}
	return best;
}

static char *scratch_of(const struct part_queue *rq, unsigned i)
{
	return rq->scratch + (size_t)i * rq->r->layout.column;
}

static void rescue_end(struct part_queue *rq, int status)
{
	struct task *t = rq->rescue.task;

	rq->rescue.task = NULL;
	task_end(rq, t, status);
}

static bool any_down(const struct part_queue *rq)
{
	for (unsigned i = 0; i < members(rq->r); i++)
		if (is_member(rq->r, i) && !is_up(rq, i))
			return true;
	return false;
}

static void compute(struct part_queue *rq)
{
	struct redundant *r = rq->r;
	struct rescue *s = &rq->rescue;
	struct task *t = s->task;
	size_t column = (size_t)r->layout.column;
	char *to = scratch_of(rq, r->layout.k);
	int rc = 0;

	for (unsigned c = 0; c < r->layout.k && !rc; c++) {
		struct range in = in_column(r, c, t->range);

		if (!(t->bad >> c & 1))
			continue;
		rc = r->p.o.codec->decoder(r->layout.k, r->layout.m, s->source, c, rq->coder);
		for (size_t at = s->rows.from; at < s->rows.to && !rc; at += STORE_CLUSTER) {
			void *from[MAX_WIDTH], *out = to + at;

			for (unsigned i = 0; i < r->layout.k; i++)
				from[i] = scratch_of(rq, i) + at;
			r->p.o.codec->run(rq->coder, r->layout.k, 1, STORE_CLUSTER, from, &out);
		}
		if (!rc &&
		    !redundant_is_right(r, t->slot, c, in.from, in.to - in.from, to + in.from))
			rc = -EBADMSG;
		if (!rc)
			memcpy((char *)t->up->buf + (c * column + in.from - t->range.from),
			       to + in.from, in.to - in.from);
	}
	rescue_end(rq, rc);
}

/* Adds sources until there are k. */
static void rescue_sources(struct part_queue *rq)
{
	struct redundant *r = rq->r;
	struct rescue *s = &rq->rescue;
	struct task *t = s->task;
	unsigned n = 0;

	for (unsigned c = 0; c < width(r); c++)
		n += s->used >> c & 1;
	s->pending++; /* this function */
	while (n < r->layout.k) {
		int c = next_source(rq);
		unsigned i = 0;

		if (c < 0)
			break;
		/* A place of one that turned out bad, or a new one. */
		while (s->used && i < MAX_WIDTH && s->source[i] != UINT8_MAX)
			i++;
		if (!s->used)
			i = 0;
		struct range need = needed(rq, t->slot, (unsigned)c);
		char *to = scratch_of(rq, i);
		s->source[i] = (uint8_t)c;
		s->used |= (uint16_t)(1u << c);
		n++;
		memset(to + s->rows.from, 0, s->rows.to - s->rows.from);
		if (need.from == need.to)
			continue;
		if (at_hand(rq, (unsigned)c)) {
			size_t base = (size_t)c * (size_t)r->layout.column;

			memcpy(to + need.from,
			       (char *)t->up->buf + (base + need.from - t->range.from),
			       need.to - need.from);
			continue;
		}
		struct part *p = new_part(rq, t, EMF_READ, need, to + need.from);
		p->rescue = true;
		s->pending++;
		send(rq, p, (unsigned)c);
	}
	if (--s->pending)
		return;
	if (n < r->layout.k)
		rescue_end(rq, t->status ? t->status : any_down(rq) ? -ENOTCONN : -EBADMSG);
	else
		compute(rq);
}

static void rescue_read(struct part_queue *rq, struct part *p, int status)
{
	struct redundant *r = rq->r;
	struct rescue *s = &rq->rescue;
	struct task *t = p->task;
	unsigned c = p->column;

	p->busy = false;
	io_push(&rq->spare, &p->io);
	t->pending--;
	if (!status && !redundant_is_right(r, t->slot, c, p->range.from,
					   p->range.to - p->range.from, p->io.buf)) {
		status = -EBADMSG;
		found_wrong(r, t->slot, c, p->place);
	}
	if (is_cut(status))
		look_soon(r, t->slot);
	if (status) {
		note(t, status);
		s->used &= (uint16_t) ~(1u << c);
		s->bad |= (uint16_t)(1u << c);
		for (unsigned i = 0; i < MAX_WIDTH; i++)
			if (s->source[i] == c)
				s->source[i] = UINT8_MAX;
	}
	if (--s->pending)
		return;
	if (rq->closing)
		rescue_end(rq, -ECANCELED);
	else
		rescue_sources(rq);
}

static void rescue_next(struct part_queue *rq)
{
	struct rescue *s = &rq->rescue;
	struct task *t;

	while (!s->task && (t = rq->to_rescue)) {
		rq->to_rescue = t->next;
		*s = (struct rescue){ .task = t, .bad = t->bad };
		memset(s->source, UINT8_MAX, sizeof(s->source));
		s->rows.from = SIZE_MAX;
		for (unsigned c = 0; c < rq->r->layout.k; c++) {
			struct range in = in_column(rq->r, c, t->range);

			if (!(t->bad >> c & 1))
				continue;
			if (in.from < s->rows.from)
				s->rows.from = in.from;
			if (in.to > s->rows.to)
				s->rows.to = in.to;
		}
		s->rows.from -= s->rows.from % STORE_CLUSTER;
		s->rows.to = (s->rows.to + STORE_CLUSTER - 1) / STORE_CLUSTER * STORE_CLUSTER;
		rescue_sources(rq);
	}
}

/* --- writes --- */

/* One row of the data columns, padded with zeros, as the coder takes it. */
static void gather(const struct part_queue *rq, const struct task *t, size_t row, void **from)
{
	const struct redundant *r = rq->r;
	char *pad = rq->pad;

	for (unsigned c = 0; c < r->layout.k; c++) {
		size_t start = c * (size_t)r->layout.column + row * STORE_CLUSTER;
		struct range is = { start, start + STORE_CLUSTER }, in = cut(is, t->range);
		char *at = (char *)t->up->buf + (in.from - t->range.from);

		if (in.from == in.to) {
			from[c] = (void *)(uintptr_t)zeros;
		} else if (in.to - in.from == STORE_CLUSTER) {
			from[c] = at;
		} else { /* the first and the last cluster of the write, at most */
			memset(pad, 0, STORE_CLUSTER);
			memcpy(pad + (in.from - start), at, in.to - in.from);
			from[c] = pad;
			pad += STORE_CLUSTER;
		}
	}
}

static void encode(struct part_queue *rq, struct task *t)
{
	struct redundant *r = rq->r;
	size_t column = (size_t)r->layout.column;
	struct range rows = in_column(r, r->layout.k, t->range);
	void *from[MAX_WIDTH], *to[MAX_WIDTH];

	for (size_t at = rows.from; at < rows.to; at += STORE_CLUSTER) {
		gather(rq, t, at / STORE_CLUSTER, from);
		for (unsigned i = 0; i < r->layout.m; i++)
			to[i] = (char *)t->parity + i * column + at;
		r->p.o.codec->run(r->encoder, r->layout.k, r->layout.m, STORE_CLUSTER, from, to);
		for (unsigned i = 0; i < r->layout.m; i++)
			r->parity_sum[(t->slot * r->layout.m + i) * r->rows + at / STORE_CLUSTER] =
			    r->hash(to[i], STORE_CLUSTER);
	}
}

/* Starts a write's transfers to these columns. */
static void send_columns(struct part_queue *rq, struct task *t, unsigned columns)
{
	struct redundant *r = rq->r;
	size_t column = (size_t)r->layout.column;

	t->pending = 1; /* this function */
	for (unsigned c = 0; c < width(r); c++) {
		struct range in = in_column(r, c, t->range);
		char *from = t->up->buf;

		if (in.from >= in.to || !(columns >> c & 1))
			continue;
		if (!is_up(rq, member_of(r, t->slot, c))) {
			write_failed(r, t, c, -ENOTCONN);
			continue;
		}
		if (is_parity(r, c))
			from = (char *)t->parity + (c - r->layout.k) * column + in.from;
		else if (!is_copy(r))
			from += c * column + in.from - t->range.from;
		send(rq, new_part(rq, t, EMF_WRITE, in, from), c);
	}
	if (!--t->pending)
		task_settled(rq, t);
}

/*
 * The member for a column: one that has none of the slot, and the most room, so that there will be
 * room on as many as a slot needs. A new one gets but a part of what it is to have as long as there
 * is much room elsewhere. NOWHERE: none.
 */
static unsigned choose(const struct part_queue *rq, uint64_t slot, unsigned column)
{
	const struct pool *p = &rq->r->p;
	unsigned turn = (unsigned)(slot * p->columns + column), best = NOWHERE, best_rank = 0;
	uint64_t now = timer_now(), most = 0;

	for (unsigned k = 0; k < members(rq->r); k++) {
		unsigned i = (turn + k) % members(rq->r), rank;
		uint64_t used = atomic_load(&p->shared->used[i]), units = p->member[i].units;

		/* Without a queue here it may be left at any time. */
		if (!rq->member[i] || !pool_is_open(p, i) || used >= units ||
		    pool_has_column(p, slot, i))
			continue;
		rank = is_up(rq, i) ? 2 : 0;
		rank += used * 2 <= units && turn % RAMP_STEPS < pool_share(p, i, now);
		if (best == NOWHERE || rank > best_rank ||
		    (rank == best_rank && units - used > most)) {
			best = i;
			best_rank = rank;
			most = units - used;
		}
	}
	return best;
}

static uint32_t find_place(const struct part_queue *rq, uint64_t slot, unsigned column)
{
	struct pool *p = &rq->r->p;
	uint32_t at = home(p, slot, column);
	unsigned member;

	if (!atomic_load(&p->shared->changed) && at &&
	    pool_claim_at(p, PLACE_MEMBER(at), PLACE_INDEX(at)))
		return at;
	if (!atomic_load(&p->shared->changed))
		return 0;
	/* One that gets full meanwhile is not chosen again. */
	do {
		member = choose(rq, slot, column);
		at = member == NOWHERE ? 0 : pool_claim(p, member);
	} while (member != NOWHERE && !at);
	return at;
}

/* A place for each column that is written. False: no room. */
static bool find_places(struct part_queue *rq, struct task *t)
{
	struct redundant *r = rq->r;
	struct pool *p = &r->p;

	/* From here on none of them is moved. */
	for (unsigned c = 0; c < width(r); c++)
		atomic_fetch_and(pool_place(p, t->slot, c), ~PLACE_MOVES);
	for (unsigned c = 0; c < width(r); c++) {
		struct range in = in_column(r, c, t->range);
		uint32_t at = pool_look(p, t->slot, c), old;

		if (in.from >= in.to || (at && is_member(r, PLACE_MEMBER(at))))
			continue;
		/* Looked at once more when the table has it: a drain that has begun since may have
		 * passed by here already. */
		do {
			old = at;
			at = find_place(rq, t->slot, c);
			if (!at)
				return false;
			atomic_store(pool_place(p, t->slot, c), at);
			if (old)
				pool_release(p, old);
		} while (!pool_is_open(p, PLACE_MEMBER(at)));
	}
	return true;
}

static void start_write(struct part_queue *rq, struct task *t)
{
	struct redundant *r = rq->r;

	atomic_fetch_add(&r->version[t->slot], 1);
	pool_note_high(&r->p, t->slot);
	redundant_clear_stale(r, t->slot, ~0u);
	if (!find_places(rq, t)) {
		write_nothing(rq, t, -ENOSPC);
		return;
	}
	r->extent[t->slot] =
	    (uint32_t)(t->range.from / PAGE) << 16 | (uint32_t)(t->range.to / PAGE);
	t->unsure = atomic_exchange(&r->unsure[t->slot], 0);
	if (t->parity)
		encode(rq, t);
	send_columns(rq, t, ~0u);
}

static void resume_held(struct part_queue *rq)
{
	struct task *all = rq->held, *t;
	bool all_up;

	rq->held = NULL;
	while ((t = all)) {
		all = t->next;
		if (!may_come(rq, t, &all_up)) {
			write_end(rq, t);
		} else if (all_up) {
			unsigned columns = t->cut;

			t->again = true;
			t->bad &= (uint16_t)~columns;
			t->cut = 0;
			send_columns(rq, t, columns);
		} else {
			t->next = rq->held;
			rq->held = t;
		}
	}
}

static void start_trim(struct part_queue *rq, struct task *t)
{
	struct redundant *r = rq->r;
	struct range all = { 0, (size_t)r->layout.column };

	/* Twice: what the store's thread is at, if anything, it is not to believe. */
	atomic_fetch_add(&r->version[t->slot], 2);
	r->extent[t->slot] = 0;
	redundant_clear_stale(r, t->slot, ~0u);
	t->pending = 1;
	for (unsigned c = 0; c < width(r); c++) {
		uint32_t place = pool_look(&r->p, t->slot, c);

		/* Who cleans up after a process that has ended knows but where it was at first. */
		if (!place && !r->p.o.live)
			place = home(&r->p, t->slot, c);
		if (place)
			send_to(rq, new_part(rq, t, EMF_TRIM, all, NULL), c, place);
	}
	if (!--t->pending)
		task_settled(rq, t);
}

static void start_writes(struct part_queue *rq)
{
	struct task *t;

	while ((t = rq->waiting) && rq->nparity) {
		rq->waiting = t->next;
		if (!rq->waiting)
			rq->waiting_end = &rq->waiting;
		t->parity = rq->parity[--rq->nparity];
		start_write(rq, t);
	}
}

/* --- what is late --- */

static unsigned count(unsigned mask)
{
	return (unsigned)__builtin_popcount(mask);
}

static bool is_late(const struct part_queue *rq, const struct part *p, uint64_t now)
{
	bool demand = rq->of.kind == EMF_QUEUE_DEMAND && p->io.op == EMF_READ;
	uint64_t limit = rq->p99[p->member] * (demand ? LATE_DEMAND : LATE_BULK);
	uint64_t least = demand ? LATE_DEMAND_NS : LATE_BULK_NS;
	uint64_t most = rq->r->p.o.timeout_ms * 1000000ull / 4;

	limit = limit < least ? least : limit;
	limit = limit > most ? most : limit;
	if (now - p->begin <= limit)
		return false;
	/* A read is tried again with those that are left; a write is not. */
	return p->io.op == EMF_READ || count(p->task->bad | 1u << p->column) <= rq->r->layout.m;
}

/* Late twice with a poll in between: it was not this thread that was late to look. */
static void cut_late(struct part_queue *rq, uint64_t now)
{
	struct redundant *r = rq->r;
	unsigned late = 0, down = 0;

	for (unsigned i = 0; i < rq->nparts; i++) {
		struct part *p = &rq->parts[i];

		if (!p->busy || !is_late(rq, p, now))
			continue;
		if (p->late)
			late |= 1u << p->member;
		p->late = true;
	}
	for (unsigned i = 0; late && i < members(r); i++)
		down |= (unsigned)(is_member(r, i) && !is_up(rq, i)) << i;
	for (unsigned i = 0; late >> i; i++)
		if (late >> i & 1 && rq->member[i] && r->p.member[i].be->caps & EMF_CAP_CUTS &&
		    count(down | 1u << i) <= r->layout.m) {
			down |= 1u << i;
			reconnect_cut(rq->member[i]);
		}
}

/* --- the queue --- */

static bool check(const struct redundant *r, struct emf_io *io)
{
	io->status = io_check(io, r->p.be.size);
	if (!io->status && io->offset / SLOT != (io->offset + io->length - 1) / SLOT)
		io->status = -EINVAL;
	return !io->status;
}

static int redundant_submit(struct emf_queue *q, struct emf_io *io)
{
	struct part_queue *rq = (struct part_queue *)q;
	struct task *t = rq->idle;

	if (rq->closing || !t)
		return -EAGAIN;
	q->inflight++;
	if (!check(rq->r, io)) {
		io_push(&rq->refused, io);
		return 0;
	}
	pool_see_members(&rq->r->p, &rq->of, rq->member, rq->member_waiting, false);
	rq->idle = t->next;
	*t = (struct task){ .up = io, .slot = io->offset / SLOT };
	t->range.from = (size_t)(io->offset % SLOT);
	t->range.to = t->range.from + io->length;
	/* From here on the store's thread knows of it. */
	atomic_fetch_add(&rq->r->p.users[t->slot], io->op == EMF_WRITE ? WRITER : READER);
	rq->submitting = true;
	if (io->op == EMF_READ) {
		start_read(rq, t);
	} else if (io->op == EMF_TRIM) {
		start_trim(rq, t);
	} else if (is_copy(rq->r)) {
		start_write(rq, t);
	} else {
		*rq->waiting_end = t;
		rq->waiting_end = &t->next;
		start_writes(rq);
	}
	rq->submitting = false;
	return 0;
}

static void end_refused(struct part_queue *rq)
{
	struct io_list all = io_take(&rq->refused);
	struct emf_io *io;

	while ((io = io_pop(&all))) {
		rq->ended++;
		io_end(&rq->q, io, io->status);
	}
}

/* Parts whose member has no queue here, or that have no place. */
static void end_lost(struct part_queue *rq, int status)
{
	struct io_list all = io_take(&rq->lost);
	struct emf_io *io;

	while ((io = io_pop(&all))) {
		io->status = ((struct part *)io)->place ? status : -EBADMSG;
		part_done(io);
	}
}

static int redundant_poll(struct emf_queue *q)
{
	struct part_queue *rq = (struct part_queue *)q;
	struct redundant *r = rq->r;

	rq->ended = 0;
	pool_see_members(&r->p, &rq->of, rq->member, rq->member_waiting, true);
	end_refused(rq);
	end_lost(rq, -ENOTCONN);
	for (unsigned i = 0; i < members(r); i++) {
		if (!rq->member[i])
			continue;
		/* Also where nothing is in flight: a new connection may have come. */
		rq->member[i]->ops->poll(rq->member[i]);
		flush(rq, i);
		if (reconnect_is_up(rq->member[i]))
			rq->away_since[i] = 0;
		else if (!rq->away_since[i])
			rq->away_since[i] = timer_now();
	}
	resume_held(rq);
	if (q->inflight) {
		uint64_t now = timer_now();

		if (now >= rq->tick) {
			cut_late(rq, now);
			rq->tick = now + TICK_NS;
		}
	}
	start_writes(rq);
	rescue_next(rq);
	end_refused(rq);
	return rq->ended;
}

static int redundant_pollfds(struct emf_queue *q, struct pollfd *fds, int max)
{
	struct part_queue *rq = (struct part_queue *)q;
	struct redundant *r = rq->r;
	bool ready = rq->refused.head || rq->lost.head;
	int n = 0;

	if (!q->inflight || r->p.be.caps & EMF_CAP_SYNC || max < 1)
		return 0;
	timer_set(&rq->timer, rq->tick);
	fds[n++] = (struct pollfd){ .fd = rq->timer.fd, .events = POLLIN };
	for (unsigned i = 0; i < members(r) && n < max; i++) {
		struct emf_queue *mq = rq->member[i];
		int got = 0;

		if (!mq)
			continue;
		if (mq->inflight)
			got = mq->ops->pollfds(mq, fds + n, max - n);
		/* One member that needs no waiting, and nobody waits for the others either. */
		if (!got && (mq->inflight || rq->member_waiting[i].head))
			ready = true;
		n += got;
	}
	if (!ready)
		return n;
	fds[0] = (struct pollfd){ .fd = r->p.ready_fd, .events = POLLIN };
	return 1;
}

static void free_queue(struct part_queue *rq)
{
	struct redundant *r = rq->r;
	size_t column = (size_t)r->layout.column;

	for (unsigned i = 0; i < rq->nparity; i++)
		unmap(rq->parity[i], r->layout.m * column);
	unmap(rq->scratch, (r->layout.k + 1) * column);
	unmap(rq->pad, 2 * STORE_CLUSTER);
	if (rq->timer.fd >= 0)
		close(rq->timer.fd);
	store_free(rq->coder);
	store_free(rq->parts);
	store_free(rq->tasks);
	store_free(rq);
}

static void redundant_queue_close(struct emf_queue *q)
{
	struct part_queue *rq = (struct part_queue *)q;
	struct emf_io *io;
	struct task *t;

	rq->closing = true;
	for (unsigned i = 0; i < members(rq->r); i++) {
		if (rq->member[i])
			rq->member[i]->ops->close(rq->member[i]);
		while ((io = io_pop(&rq->member_waiting[i]))) {
			io->status = -ECANCELED;
			part_done(io);
		}
	}
	end_lost(rq, -ECANCELED);
	pool_leave_queues(&rq->r->p, rq->member);
	while ((t = rq->waiting)) {
		rq->waiting = t->next;
		task_end(rq, t, -ECANCELED);
	}
	while ((t = rq->to_rescue)) {
		rq->to_rescue = t->next;
		task_end(rq, t, -ECANCELED);
	}
	while ((t = rq->held)) {
		rq->held = t->next;
		write_end(rq, t);
	}
	io_end_all(q, &rq->refused, -ECANCELED);
	free_queue(rq);
}

static const struct emf_queue_ops queue_ops = {
	.submit = redundant_submit,
	.poll = redundant_poll,
	.pollfds = redundant_pollfds,
	.close = redundant_queue_close,
};

static int allocate(struct part_queue *rq, unsigned depth)
{
	struct redundant *r = rq->r;
	size_t column = (size_t)r->layout.column;
	unsigned pieces = is_copy(r) ? (unsigned)(SLOT / r->p.o.unit) + 2 : 0;

	if (pieces < width(r))
		pieces = width(r);
	rq->nparts = depth * pieces + width(r);
	rq->parts = store_alloc(rq->nparts, sizeof(*rq->parts));
	rq->tasks = store_alloc(depth, sizeof(*rq->tasks));
	if (!rq->parts || !rq->tasks)
		return -ENOMEM;
	for (unsigned i = 0; i < rq->nparts; i++)
		io_push(&rq->spare, &rq->parts[i].io);
	for (unsigned i = 0; i < depth; i++) {
		rq->tasks[i].next = rq->idle;
		rq->idle = &rq->tasks[i];
	}
	if (is_copy(r))
		return 0;
	/* Address space: only what is used takes memory. */
	rq->coder = store_alloc(1, r->p.o.codec->size(r->layout.k, 1));
	rq->scratch = map((r->layout.k + 1) * column);
	rq->pad = map(2 * STORE_CLUSTER);
	if (!rq->coder || !rq->scratch || !rq->pad)
		return -ENOMEM;
	for (; rq->nparity < PARITY_BUFFERS; rq->nparity++) {
		rq->parity[rq->nparity] = map(r->layout.m * column);
		if (!rq->parity[rq->nparity])
			return -ENOMEM;
	}
	return 0;
}

static int redundant_queue_open(struct emf_backend *be, enum emf_queue_kind kind, unsigned depth,
				struct emf_queue **out)
{
	struct redundant *r = (struct redundant *)be;
	struct part_queue *rq = store_alloc(1, sizeof(*rq));
	int rc;

	if (!rq)
		return -ENOMEM;
	if (!depth)
		depth = 1;
	rq->q.ops = &queue_ops;
	rq->r = r;
	rq->of.kind = kind;
	rq->waiting_end = &rq->waiting;
	rc = timer_open(&rq->timer);
	if (!rc)
		rc = allocate(rq, depth);
	rq->of.depth = rq->nparts < MAX_MEMBER_DEPTH ? rq->nparts : MAX_MEMBER_DEPTH;
	for (unsigned i = 0; i < STORE_LEAVES; i++)
		rq->p99[i] = FIRST_P99_NS;
	if (!rc)
		rc = pool_open_queues(&r->p, &rq->of, rq->member);
	if (rc) {
		redundant_queue_close(&rq->q);
		return rc;
	}
	*out = &rq->q;
	return 0;
}

/* --- the link --- */

static size_t slots_bytes(const struct redundant *r, size_t each)
{
	return (r->p.slots * each + PAGE - 1) & ~(size_t)(PAGE - 1);
}

static void redundant_close(struct emf_backend *be)
{
	struct redundant *r = (struct redundant *)be;

	redundant_work_end(be);
	patrol_close(r);
	unmap(r->extent, slots_bytes(r, sizeof(*r->extent)));
	unmap((void *)(uintptr_t)r->stale, slots_bytes(r, sizeof(*r->stale)));
	unmap((void *)(uintptr_t)r->unsure, slots_bytes(r, sizeof(*r->unsure)));
	unmap((void *)(uintptr_t)r->version, slots_bytes(r, sizeof(*r->version)));
	unmap(r->parity_sum, slots_bytes(r, (size_t)r->layout.m * r->rows * sizeof(uint64_t)));
	pool_end(&r->p);
	store_free(r->encoder);
	store_free(r);
}

void redundant_set_sums(struct emf_backend *be, struct emf_backend *sums)
{
	((struct redundant *)be)->p.sums = sums;
}

static int redundant_link_forked(struct emf_backend *be, const int *fds)
{
	struct redundant *r = (struct redundant *)be;

	(void)fds;
	/* What the parent was writing is none of the child's. */
	for (uint64_t s = 0; s < high_of(r); s++)
		if (r->version[s] & 1)
			r->version[s]++;
	r->rebuild = NULL; /* its queues and its memory are the parent's */
	patrol_forked(r);
	return pool_go_on(&r->p);
}

void redundant_forked(struct emf_backend *be, struct emf_store_stats *stats, int wake_fd)
{
	struct redundant *r = (struct redundant *)be;

	r->p.o.stats = stats;
	r->p.o.wake_fd = wake_fd;
	for (unsigned i = 0; stats && i < members(r); i++)
		stats[i].rebuild_bytes = redundant_stale(be, i);
}

static const struct emf_backend_ops backend_ops = {
	.queue_open = redundant_queue_open,
	.close = redundant_close,
	.forked = redundant_link_forked,
};

static bool written(const struct pool *p, uint64_t slot, unsigned column, size_t *begin,
		    size_t *end)
{
	const struct redundant *r = (const struct redundant *)p;
	struct range in = in_column(r, column, extent_of(r, slot));

	*begin = in.from;
	*end = in.to;
	return in.from < in.to;
}

/* A column that is put elsewhere is right there, and one that is nowhere lacks nothing. */
static bool redundant_replace(struct pool *p, uint64_t slot, unsigned column, uint32_t is,
			      uint32_t to, bool *doubt)
{
	struct redundant *r = (struct redundant *)p;
	const uint16_t bit = (uint16_t)(1u << column);
	uint32_t version = atomic_load(&r->version[slot]);

	if (!atomic_compare_exchange_strong(pool_place(p, slot, column), &is, to))
		return false;
	*doubt = atomic_fetch_and(&r->unsure[slot], (uint16_t)~bit) & bit;
	if (atomic_fetch_and(&r->stale[slot], (uint16_t)~bit) & bit)
		count_stale_on(r, PLACE_MEMBER(is & ~PLACE_MOVES), -1);
	/* A write has begun since, and it may be what was stale. */
	if (to && atomic_load(&r->version[slot]) != version)
		redundant_set_stale(r, slot, (1u << width(r)) - 1);
	return true;
}

static const struct pool_kind redundant_kind = {
	.home = home,
	.written = written,
	.source = rebuild_source,
	.replace = redundant_replace,
	.publish = rebuild_publish,
	.left = rebuild_left,
};

static void fill(struct redundant *r, struct emf_backend *const *member, unsigned n)
{
	uint32_t any = 0, all = UINT32_MAX;

	for (unsigned i = 0; i < n; i++) {
		reconnect_set_rebuilt(member[i]);
		any |= member[i]->caps;
		all &= member[i]->caps;
	}
	r->p.kind = &redundant_kind;
	r->p.nhome = n;
	r->p.columns = width(r);
	r->p.unit = r->layout.column;
	r->p.homes = r->layout.slots;
	r->p.slots = r->p.o.live ? pool_slots_ever(r->layout.slots) : r->layout.slots;
	r->p.be = (struct emf_backend){
		.ops = &backend_ops,
		.size = r->p.slots * SLOT,
		.caps = (all & (EMF_CAP_SYNC | EMF_CAP_BYTES)) |
			(any & (EMF_CAP_TRIM | EMF_CAP_OUTLIVES)),
		.max_length = SLOT,
	};
	r->hash = xxh3_base;
#ifdef __x86_64__
	if (__builtin_cpu_supports("avx2"))
		r->hash = xxh3_avx2;
#endif
}

static int open_tables(struct redundant *r, struct emf_backend *const *member, unsigned n)
{
	int rc = pool_init(&r->p, member, n);

	r->extent = map(slots_bytes(r, sizeof(*r->extent)));
	r->stale = map(slots_bytes(r, sizeof(*r->stale)));
	r->unsure = map(slots_bytes(r, sizeof(*r->unsure)));
	r->version = map(slots_bytes(r, sizeof(*r->version)));
	r->parity_sum = map(slots_bytes(r, (size_t)r->layout.m * r->rows * sizeof(uint64_t)));
	if (!r->extent || !r->stale || !r->unsure || !r->version || !r->parity_sum)
		return -ENOMEM;
	return rc ? rc : patrol_open(r);
}

int redundant_open(struct emf_backend *const *member, unsigned n, const struct spread_options *o,
		   struct emf_backend **out)
{
	struct redundant *r = store_alloc(1, sizeof(*r));
	uint64_t size[STORE_LEAVES];
	int rc = -ENOMEM;

	if (!r)
		return rc;
	r->p.ready_fd = -1;
	r->p.o = *o;
	for (unsigned i = 0; i < n && i < STORE_LEAVES; i++)
		size[i] = member[i]->size;
	rc = layout_init(&r->layout, size, n, o->k, o->m);
	if (rc) {
		store_free(r);
		return rc;
	}
	r->rows = (unsigned)(r->layout.column / STORE_CLUSTER);
	fill(r, member, n);
	rc = open_tables(r, member, n);
	if (!rc && !is_copy(r)) {
		r->encoder = store_alloc(1, o->codec->size(o->k, o->m));
		if (r->encoder)
			o->codec->encoder(o->k, o->m, r->encoder);
		else
			rc = -ENOMEM;
	}
	if (rc) {
		redundant_close(&r->p.be);
		return rc;
	}
	*out = &r->p.be;
	return 0;
}
