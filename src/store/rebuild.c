/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rebuild, by the store's thread: slot by slot it reads all columns, finds out which
 * are right, computes the others from k of them and writes those whose members answer.
 * The slot is held meanwhile (redundant.h); a write that was under way already shows
 * in the slot's version, and then the outcome is not believed.
 */
#define _GNU_SOURCE 1 /* syscall */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "reconnect.h"
#include "redundant_int.h"
#include "solo.h"
#include "timer.h"
#include "memory.h"

#define MAX_WIDTH PARITY_MAX
#define STEP_NS 20000000ull	 /* before the thread looks at anything else */
#define PATIENCE_NS 500000000ull /* after a round in which nothing could be made good */
#define FDS 64

struct transfer_one {
	struct emf_io io;
	bool pending;
	unsigned member;
};

struct rebuild {
	struct emf_queue *queue[STORE_LEAVES];
	char *buf; /* a column each, and one to read back */
	void *coder;
	uint32_t losses[STORE_LEAVES]; /* that were taken into account */
	uint64_t at;		       /* the next slot */
	uint64_t not_before;	       /* ns: the rate, or patience */
	uint64_t to_look;	       /* so many slots are to be looked at ... */
	uint32_t liars;		       /* ... for these members have lied */
};

static bool open_all(struct redundant *r)
{
	struct rebuild *b = r->rebuild;
	size_t bytes = (width(r) + 1) * (size_t)r->layout.column;
	long at;

	if (b)
		return true;
	b = store_alloc(1, sizeof(*b));
	if (!b)
		return false;
	r->rebuild = b;
	at = syscall(SYS_mmap, NULL, bytes, PROT_READ | PROT_WRITE,
		     MAP_ANONYMOUS | MAP_PRIVATE | MAP_NORESERVE, -1, 0L);
	b->buf = at == -1 ? NULL : (char *)at;
	if (!is_copy(r))
		b->coder = store_alloc(1, r->o.codec->size(r->layout.k, 1));
	if (b->buf && (b->coder || is_copy(r)))
		return true;
	redundant_work_end(&r->be);
	return false;
}

void redundant_work_end(struct emf_backend *be)
{
	struct redundant *r = (struct redundant *)be;
	struct rebuild *b = r->rebuild;

	if (!b)
		return;
	for (unsigned i = 0; i < r->layout.n; i++)
		if (b->queue[i])
			b->queue[i]->ops->close(b->queue[i]);
	if (b->buf)
		syscall(SYS_munmap, b->buf, (width(r) + 1) * (size_t)r->layout.column);
	store_free(b->coder);
	store_free(b);
	r->rebuild = NULL;
}

/* A queue that can be used now. */
static struct emf_queue *queue_of(struct redundant *r, unsigned member)
{
	struct rebuild *b = r->rebuild;

	if (reconnect_is_down(r->member[member]) && !b->queue[member])
		return NULL;
	if (!b->queue[member] && r->member[member]->ops->queue_open(
				     r->member[member], EMF_QUEUE_BULK, 1, &b->queue[member]))
		b->queue[member] = NULL;
	if (!b->queue[member] || !reconnect_is_up(b->queue[member]))
		return NULL;
	return b->queue[member];
}

static void one_done(struct emf_io *io)
{
	((struct transfer_one *)io)->pending = false;
}

static char *column_buf(const struct redundant *r, unsigned column)
{
	return r->rebuild->buf + column * (size_t)r->layout.column;
}

/* Starts one, of a column's buffer; false: its member does not answer. */
static bool start(struct redundant *r, struct transfer_one *t, enum emf_op op, uint64_t slot,
		  unsigned column, struct range range, char *buf)
{
	uint64_t offset;
	struct emf_queue *q;

	t->member = layout_place(&r->layout, slot, column, &offset);
	t->io = (struct emf_io){
		.op = op,
		.offset = offset + range.from,
		.length = range.to - range.from,
		.buf = buf + range.from,
		.done = one_done,
	};
	q = queue_of(r, t->member);
	t->pending = q && !q->ops->submit(q, &t->io);
	return t->pending;
}

static void wait_all(struct redundant *r, struct transfer_one *t)
{
	uint64_t limit = timer_now() + r->o.timeout_ms * 1000000ull / 4;
	bool busy = true;

	while (busy) {
		struct pollfd fds[FDS];
		bool ready = false, late = timer_now() > limit;
		int n = 0;

		busy = false;
		for (unsigned c = 0; c < width(r); c++) {
			struct emf_queue *q;

			if (!t[c].pending)
				continue;
			q = r->rebuild->queue[t[c].member];
			q->ops->poll(q);
			if (!t[c].pending)
				continue;
			if (late && r->member[t[c].member]->caps & EMF_CAP_CUTS) {
				reconnect_cut(q);
				continue;
			}
			int got = q->ops->pollfds(q, fds + n, FDS - n);
			ready |= !got;
			n += got;
			busy = true;
		}
		if (busy && !ready)
			poll(fds, (nfds_t)n, 50);
	}
}

/* Reads all columns; returns a mask of the right ones. *away: whose members don't answer. */
static unsigned read_columns(struct redundant *r, uint64_t slot, struct range extent,
			     unsigned *away)
{
	struct transfer_one t[MAX_WIDTH] = { 0 };
	size_t column = (size_t)r->layout.column;
	unsigned right = 0;

	*away = 0;
	for (unsigned c = 0; c < width(r); c++) {
		struct range in = in_column(r, c, extent);

		memset(column_buf(r, c), 0, column);
		if (in.from < in.to && !start(r, &t[c], EMF_READ, slot, c, in, column_buf(r, c))) {
			*away |= 1u << c;
			t[c].io.status = -ENOTCONN;
		}
	}
	wait_all(r, t);
	for (unsigned c = 0; c < width(r); c++) {
		struct range in = in_column(r, c, extent);
		const char *buf = column_buf(r, c);

		if (in.from == in.to ||
		    (!t[c].io.status &&
		     redundant_is_right(r, slot, c, in.from, in.to - in.from, buf + in.from)))
			right |= 1u << c;
	}
	return right;
}

/* Column c from those that are right; false: too few. */
static bool compute(struct redundant *r, unsigned c, unsigned right)
{
	size_t column = (size_t)r->layout.column;
	char *buf = r->rebuild->buf;
	uint8_t from[MAX_WIDTH];
	void *in[MAX_WIDTH], *out = buf + c * column;
	unsigned n = 0;

	for (unsigned i = 0; i < width(r) && n < r->layout.k; i++)
		if (right >> i & 1)
			from[n++] = (uint8_t)i;
	if (n < r->layout.k)
		return false;
	if (is_copy(r)) {
		memcpy(out, buf + from[0] * column, column);
		return true;
	}
	if (r->o.codec->decoder(r->layout.k, r->layout.m, from, c, r->rebuild->coder))
		return false;
	for (unsigned i = 0; i < n; i++)
		in[i] = buf + from[i] * column;
	r->o.codec->run(r->rebuild->coder, r->layout.k, 1, column, in, &out);
	return true;
}

/* Is there by now what was written? Its member, or the way to it, may be what is bad. */
static bool is_there(struct redundant *r, uint64_t slot, unsigned column, struct range in)
{
	struct transfer_one t[MAX_WIDTH] = { 0 };
	char *back = column_buf(r, width(r));

	if (!start(r, &t[column], EMF_READ, slot, column, in, back))
		return false;
	wait_all(r, t);
	return !t[column].io.status &&
	       redundant_is_right(r, slot, column, in.from, in.to - in.from, back + in.from);
}

/*
 * These columns were found right, and no others, in what was of that version. A write meanwhile may
 * have failed on some of them, and may lie under what was made good: then all is to be looked at
 * again.
 */
static void settle(struct redundant *r, uint64_t slot, uint32_t version, unsigned right)
{
	const unsigned all = (1u << width(r)) - 1;

	redundant_clear_stale(r, slot, right);
	if (atomic_load(&r->version[slot]) != version)
		redundant_set_stale(r, slot, all);
	else if (~right & all)
		redundant_set_stale(r, slot, ~right & all);
}

/* Returns how many bytes were moved. */
static uint64_t rebuild_held(struct redundant *r, uint64_t slot)
{
	uint32_t version = atomic_load(&r->version[slot]);
	struct range extent = extent_of(r, slot);
	struct transfer_one t[MAX_WIDTH] = { 0 };
	unsigned right, away, made = 0;
	uint64_t moved = extent.to - extent.from;

	if (version & 1)
		return 0;
	if (extent.from == extent.to) {
		settle(r, slot, version, ~0u);
		return 0;
	}
	right = read_columns(r, slot, extent, &away);
	for (unsigned c = 0; c < width(r); c++) {
		struct range in = in_column(r, c, extent);

		if ((right | away) >> c & 1 || !compute(r, c, right))
			continue;
		/* Never what is not known to be right. */
		if (!redundant_is_right(r, slot, c, in.from, in.to - in.from,
					column_buf(r, c) + in.from) ||
		    !start(r, &t[c], EMF_WRITE, slot, c, in, column_buf(r, c)))
			continue;
		made |= 1u << c;
		moved += 2 * (in.to - in.from);
	}
	wait_all(r, t);
	for (unsigned c = 0; c < width(r); c++) {
		if (!(made >> c & 1))
			continue;
		if (solo_in_doubt(t[c].io.status))
			atomic_fetch_or(&r->unsure[slot], (uint16_t)(1u << c));
		if (!t[c].io.status && is_there(r, slot, c, in_column(r, c, extent)))
			right |= 1u << c;
	}
	settle(r, slot, version, right);
	return moved;
}

static bool rebuild_slot(struct redundant *r, uint64_t slot, uint64_t *moved)
{
	unsigned before = atomic_load(&r->stale[slot]);
	uint32_t version = atomic_load(&r->version[slot]);

	if (r->o.hold && !r->o.hold(slot)) {
		settle(r, slot, version, ~0u);
		return true;
	}
	*moved += rebuild_held(r, slot);
	if (r->o.release)
		r->o.release(slot);
	return (atomic_load(&r->stale[slot]) & before) != before;
}

/* Stale columns of the slot whose members answer. */
static unsigned possible(struct redundant *r, uint64_t slot)
{
	unsigned stale = atomic_load(&r->stale[slot]), can = 0;
	uint64_t offset;

	for (unsigned c = 0; stale >> c; c++)
		if (stale >> c & 1 &&
		    !reconnect_is_down(r->member[layout_place(&r->layout, slot, c, &offset)]))
			can |= 1u << c;
	return can;
}

/* All that the member has may be gone. */
static void doubt(struct redundant *r, unsigned member)
{
	uint64_t high = atomic_load(&r->high), offset;

	for (uint64_t s = 0; s < high; s++)
		for (unsigned c = 0; r->extent[s] && c < width(r); c++)
			if (layout_place(&r->layout, s, c, &offset) == member)
				redundant_set_stale(r, s, 1u << c);
}

static bool is_looked_at(const struct redundant *r, unsigned member)
{
	return r->rebuild->to_look && r->rebuild->liars >> member & 1;
}

static void publish(struct redundant *r, bool hopeless)
{
	for (unsigned i = 0; r->o.stats && i < r->layout.n; i++) {
		struct emf_store_stats *s = &r->o.stats[i];
		uint64_t left = redundant_stale(&r->be, i);
		uint32_t state = atomic_load(&s->state), to = state;

		if (reconnect_is_down(r->member[i]))
			continue;
		if ((left || is_looked_at(r, i)) && state != EMF_STORE_FULL)
			to = hopeless ? EMF_STORE_DEGRADED : EMF_STORE_REBUILDING;
		else if (state == EMF_STORE_REBUILDING || state == EMF_STORE_DEGRADED)
			to = EMF_STORE_OK;
		if (to != state)
			atomic_compare_exchange_strong(&s->state, &state, to);
	}
}

static bool any_stale(const struct redundant *r)
{
	for (unsigned i = 0; i < r->layout.n; i++)
		if (redundant_stale(&r->be, i) && !reconnect_is_down(r->member[i]))
			return true;
	return false;
}

static bool all_up(const struct redundant *r)
{
	for (unsigned i = 0; i < r->layout.n; i++)
		if (reconnect_is_down(r->member[i]))
			return false;
	return true;
}

/*
 * Who had something wrong may have more of it, where nobody has looked lately: all slots are looked
 * at, so that it does not come out when the others are gone.
 */
static void see_liars(struct redundant *r)
{
	uint32_t lied = atomic_exchange(&r->lied, 0);

	if (!lied)
		return;
	r->rebuild->liars |= lied;
	r->rebuild->to_look = atomic_load(&r->high);
}

static void see_losses(struct redundant *r)
{
	for (unsigned i = 0; i < r->layout.n; i++) {
		uint32_t losses = reconnect_losses(r->member[i]);

		if (losses == r->rebuild->losses[i] || reconnect_is_down(r->member[i]))
			continue;
		r->rebuild->losses[i] = losses;
		doubt(r, i);
		r->rebuild->liars &= ~(1u << i);
	}
	if (!r->rebuild->liars)
		r->rebuild->to_look = 0;
}

uint64_t redundant_work(struct emf_backend *be, uint64_t now)
{
	struct redundant *r = (struct redundant *)be;
	uint64_t end = now + STEP_NS, looked = 0, moved = 0, high;
	bool progress = false, tried = false;
	struct rebuild *b;

	if (!open_all(r))
		return now + PATIENCE_NS;
	b = r->rebuild;
	/* Its own connections, too, are to be had anew. */
	for (unsigned i = 0; i < r->layout.n; i++)
		if (b->queue[i])
			b->queue[i]->ops->poll(b->queue[i]);
	see_liars(r);
	see_losses(r);
	if (!any_stale(r) && !(b->to_look && all_up(r))) {
		publish(r, false);
		return UINT64_MAX;
	}
	if (now < b->not_before)
		return b->not_before;
	publish(r, false);
	high = atomic_load(&r->high);
	for (; looked < high && timer_now() < end; looked++) {
		bool look = b->to_look && all_up(r);

		b->at = b->at + 1 < high ? b->at + 1 : 0;
		b->to_look -= look;
		progress |= look;
		if (!look && !possible(r, b->at))
			continue;
		tried = true;
		progress |= rebuild_slot(r, b->at, &moved);
		/* Not more at once than the rate has for such a step. */
		if (r->o.rate && moved * 1000000000ull / r->o.rate > STEP_NS)
			break;
	}
	now = timer_now();
	b->not_before = r->o.rate ? now + moved * 1000000000ull / r->o.rate : now;
	if (!progress && (tried || looked >= high)) {
		b->not_before = now + PATIENCE_NS;
		publish(r, any_stale(r));
	} else {
		publish(r, false);
	}
	return any_stale(r) || b->to_look ? b->not_before : UINT64_MAX;
}
