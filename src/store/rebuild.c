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

#include "../log.h"
#include "reconnect.h"
#include "redundant_int.h"
#include "solo.h"
#include "timer.h"
#include "memory.h"

#define MAX_WIDTH PARITY_MAX
#define STEP_NS 20000000ull	 /* before the thread looks at anything else */
#define PATIENCE_NS 500000000ull /* after a round in which nothing could be made good */
#define LOOK_NS 500000000ull	 /* the patrol's patience: others need this thread, too */
#define FDS 64
#define MOVES_EVERY 8u /* steps of a rebuild */

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
	bool hopeless;		       /* it could not, of anything that is stale */
	unsigned turns;
	bool busy;	   /* the last step has made something good */
	uint64_t patience; /* ns: with a transfer */
	uint64_t to_look;  /* so many slots are to be looked at ... */
	uint32_t liars;	   /* ... for these members have lied */
};

static uint64_t patience_of(const struct redundant *r)
{
	return r->p.o.timeout_ms * 1000000ull / 4;
}

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
	b->patience = patience_of(r);
	if (!is_copy(r))
		b->coder = store_alloc(1, r->p.o.codec->size(r->layout.k, 1));
	if (b->buf && (b->coder || is_copy(r)))
		return true;
	redundant_work_end(&r->p.be);
	return false;
}

void redundant_work_end(struct emf_backend *be)
{
	struct redundant *r = (struct redundant *)be;
	struct rebuild *b = r->rebuild;

	if (!b)
		return;
	for (unsigned i = 0; i < STORE_LEAVES; i++)
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

	if (reconnect_is_down(r->p.member[member].be) && !b->queue[member])
		return NULL;
	if (!b->queue[member] && r->p.member[member].be->ops->queue_open(
				     r->p.member[member].be, EMF_QUEUE_BULK, 1, &b->queue[member]))
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
	uint32_t place = pool_look(&r->p, slot, column);
	struct emf_queue *q;

	if (!place)
		return false;
	t->member = PLACE_MEMBER(place);
	t->io = (struct emf_io){
		.op = op,
		.offset = PLACE_INDEX(place) * r->layout.column + range.from,
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
	uint64_t limit = timer_now() + r->rebuild->patience;
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
			if (late && r->p.member[t[c].member].be->caps & EMF_CAP_CUTS) {
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
			t[c].io.status = -ENOTCONN;
		}
	}
	wait_all(r, t);
	for (unsigned c = 0; c < width(r); c++) {
		struct range in = in_column(r, c, extent);
		const char *buf = column_buf(r, c);

		if (t[c].io.status == -ENOTCONN || t[c].io.status == -ETIMEDOUT)
			*away |= 1u << c;

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
	uint8_t from[MAX_WIDTH] = { 0 };
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
	if (r->p.o.codec->decoder(r->layout.k, r->layout.m, from, c, r->rebuild->coder))
		return false;
	for (unsigned i = 0; i < n; i++)
		in[i] = buf + from[i] * column;
	r->p.o.codec->run(r->rebuild->coder, r->layout.k, 1, column, in, &out);
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

/* Then it is made good where it goes. */
static bool is_draining(const struct redundant *r, uint64_t slot, unsigned column)
{
	unsigned member = member_of(r, slot, column);

	return member != NOWHERE && pool_is_state(&r->p, member, MEMBER_DRAINING);
}

static void note_looked(struct redundant *r, uint64_t slot, unsigned column)
{
	struct range in = in_column(r, column, extent_of(r, slot));
	unsigned member = member_of(r, slot, column);

	if (member != NOWHERE)
		atomic_fetch_add(&r->p.o.stats[member].looked_bytes, in.to - in.from);
}

/* What of the column nobody knew to be wrong was so; it may be made good by now. */
static void note_wrong(struct redundant *r, uint64_t slot, unsigned column, size_t bytes,
		       bool mended)
{
	unsigned member = member_of(r, slot, column);
	struct emf_store_stats *s;

	if (member == NOWHERE)
		return;
	patrol_alarm(r);
	s = r->p.o.stats ? &r->p.o.stats[member] : NULL;
	if (s)
		atomic_fetch_add(&s->errors, 1);
	if (s && mended)
		atomic_fetch_add(&s->mended_bytes, bytes);
	log_info("store %s: %zu KiB were not what was written there%s", s ? s->uri : "?",
		 bytes >> 10, mended ? "; they are made good" : "");
}

/* What a look has found: columns. */
struct look {
	bool patrol; /* of what nobody thinks to be stale */
	unsigned wrong, unseen;
};

/* Returns how many bytes were moved. */
static uint64_t rebuild_held(struct redundant *r, uint64_t slot, struct look *look)
{
	unsigned known = atomic_load(&r->stale[slot]);
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
	look->unseen = away & ~(right | known);
	if (atomic_load(&r->version[slot]) == version)
		look->wrong = ~(right | away | known) & ((1u << width(r)) - 1);
	/* What comes between is looked at when it has ended. */
	if (look->patrol && atomic_load(&r->version[slot]) != version)
		return moved;
	for (unsigned c = 0; c < width(r); c++) {
		struct range in = in_column(r, c, extent);

		if ((right | away) >> c & 1 || is_draining(r, slot, c) || !compute(r, c, right))
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
	for (unsigned c = 0; look->wrong >> c; c++) {
		struct range in = in_column(r, c, extent);

		if (look->wrong >> c & 1)
			note_wrong(r, slot, c, in.to - in.from, right >> c & 1);
	}
	if (!look->patrol)
		settle(r, slot, version, right);
	else if (made || atomic_load(&r->version[slot]) == version)
		settle(r, slot, version, right | look->unseen);
	return moved;
}

static bool rebuild_slot(struct redundant *r, uint64_t slot, uint64_t *moved)
{
	unsigned before = atomic_load(&r->stale[slot]);
	struct look look = { 0 };
	uint32_t version = atomic_load(&r->version[slot]);

	if (r->p.o.hold && !r->p.o.hold(slot)) {
		settle(r, slot, version, ~0u);
		return true;
	}
	*moved += rebuild_held(r, slot, &look);
	if (r->p.o.release)
		r->p.o.release(slot);
	return (atomic_load(&r->stale[slot]) & before) != before;
}

bool rebuild_look(struct redundant *r, uint64_t slot, uint64_t *moved)
{
	struct look look = { .patrol = true };

	if (!open_all(r))
		return false;
	if (!r->p.o.hold(slot))
		return true;
	if (r->rebuild->patience > LOOK_NS)
		r->rebuild->patience = LOOK_NS;
	*moved += rebuild_held(r, slot, &look);
	r->rebuild->patience = patience_of(r);
	r->p.o.release(slot);
	if (r->p.o.stats && *moved)
		for (unsigned c = 0; c < width(r); c++)
			note_looked(r, slot, c);
	/* Who had one wrong may have more. */
	for (unsigned c = 0; look.wrong >> c; c++)
		if (look.wrong >> c & 1 && member_of(r, slot, c) != NOWHERE)
			atomic_fetch_or(&r->lied, 1u << member_of(r, slot, c));
	return !look.unseen;
}

/* May what it lacks be made good there? */
static bool can_be_made_good(const struct redundant *r, unsigned member)
{
	return pool_is_open(&r->p, member) && !reconnect_is_down(r->p.member[member].be);
}

/* Stale columns of the slot whose members answer. */
static unsigned possible(struct redundant *r, uint64_t slot)
{
	unsigned stale = atomic_load(&r->stale[slot]), can = 0;

	for (unsigned c = 0; stale >> c; c++) {
		unsigned member = member_of(r, slot, c);

		if (!(stale >> c & 1))
			continue;
		if (member == NOWHERE) /* it has got lost meanwhile, and with it what it lacked */
			redundant_clear_stale(r, slot, 1u << c);
		else if (can_be_made_good(r, member))
			can |= 1u << c;
	}
	return can;
}

/* All that the member has may be gone. */
static void doubt(struct redundant *r, unsigned member)
{
	uint64_t high = high_of(r);

	for (uint64_t s = 0; s < high; s++)
		for (unsigned c = 0; r->extent[s] && c < width(r); c++)
			if (member_of(r, s, c) == member)
				redundant_set_stale(r, s, 1u << c);
}

static bool is_looked_at(const struct redundant *r, unsigned member)
{
	return r->rebuild && r->rebuild->to_look && r->rebuild->liars >> member & 1;
}

/* Which has something that it lacks, or is to get, or to give away. */
static enum emf_store_state state_of(const struct redundant *r, unsigned i, uint64_t stale,
				     bool hopeless, uint32_t state)
{
	if (pool_is_state(&r->p, i, MEMBER_LEAVING))
		return EMF_STORE_DRAINED;
	if (state == EMF_STORE_DOWN || reconnect_is_down(r->p.member[i].be))
		return state;
	if (pool_is_state(&r->p, i, MEMBER_DRAINING))
		return EMF_STORE_DRAINING;
	if (pool_is_state(&r->p, i, MEMBER_FILLING) && state != EMF_STORE_FULL)
		return EMF_STORE_REBUILDING;
	if ((stale || is_looked_at(r, i)) && state != EMF_STORE_FULL)
		return hopeless ? EMF_STORE_DEGRADED : EMF_STORE_REBUILDING;
	return state == EMF_STORE_FULL ? state : EMF_STORE_OK;
}

static void publish(struct redundant *r, bool hopeless)
{
	for (unsigned i = 0; r->p.o.stats && i < members(r); i++) {
		struct emf_store_stats *s = &r->p.o.stats[i];
		uint64_t stale = redundant_stale(&r->p.be, i);
		uint32_t state = atomic_load(&s->state), to;

		if (pool_is_state(&r->p, i, MEMBER_NONE))
			continue;
		if (atomic_load(&r->p.shared->changed)) {
			atomic_store(&s->used_bytes, pool_used(&r->p.be, i));
			atomic_store(&s->rebuild_bytes, stale + resettle_left(&r->p, i));
		}
		to = state_of(r, i, stale, hopeless, state);
		if (to != state)
			atomic_compare_exchange_strong(&s->state, &state, to);
	}
}

void rebuild_publish(struct pool *p)
{
	struct redundant *r = (struct redundant *)p;

	publish(r, r->rebuild && r->rebuild->hopeless);
}

/*
 * Where columns move what was counted may belong to another member by now. True: what is counted
 * and shown may change again without a wake-up.
 */
static bool count_anew(struct redundant *r)
{
	int64_t n[STORE_LEAVES + 1] = { 0 };
	bool any = atomic_load(&r->all_stale) > 0;
	uint64_t high = any ? high_of(r) : 0;

	for (uint64_t s = 0; s < high; s++)
		for (unsigned c = 0, stale = atomic_load(&r->stale[s]); stale >> c; c++)
			if (stale >> c & 1)
				n[member_of(r, s, c)]++;
	for (unsigned i = 0; i <= STORE_LEAVES; i++)
		atomic_store(&r->nstale[i], n[i]);
	return any && atomic_load(&r->p.shared->changed);
}

static bool any_stale(const struct redundant *r)
{
	for (unsigned i = 0; i < members(r); i++)
		if (redundant_stale(&r->p.be, i) && can_be_made_good(r, i))
			return true;
	return atomic_load(&r->nstale[NOWHERE]) > 0;
}

static bool all_up(const struct redundant *r)
{
	for (unsigned i = 0; i < members(r); i++)
		if (is_member(r, i) && reconnect_is_down(r->p.member[i].be))
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
	r->rebuild->to_look = high_of(r);
}

static void see_losses(struct redundant *r)
{
	for (unsigned i = 0; i < members(r); i++) {
		uint32_t losses;

		if (!is_member(r, i))
			continue;
		losses = reconnect_losses(r->p.member[i].be);
		if (losses == r->rebuild->losses[i] || reconnect_is_down(r->p.member[i].be))
			continue;
		r->rebuild->losses[i] = losses;
		doubt(r, i);
		r->rebuild->liars &= ~(1u << i);
	}
	if (!r->rebuild->liars)
		r->rebuild->to_look = 0;
}

bool rebuild_is_idle(struct redundant *r)
{
	const struct rebuild *b = r->rebuild;

	return all_up(r) && !(b && b->to_look) && (!any_stale(r) || (b && b->hopeless));
}

/* One each: who has more to wait for can't be seen this way. */
int redundant_watch(struct emf_backend *be, struct pollfd *fds, int max)
{
	struct rebuild *b = ((struct redundant *)be)->rebuild;
	int n = 0;

	for (unsigned i = 0; b && i < STORE_LEAVES && n < max; i++)
		if (b->queue[i] && reconnect_watch(b->queue[i], fds + n, 1) == 1)
			n++;
	return n;
}

void redundant_see(struct emf_backend *be, const struct pollfd *fds, int n)
{
	struct rebuild *b = ((struct redundant *)be)->rebuild;
	struct pollfd fd;

	for (unsigned i = 0; b && i < STORE_LEAVES; i++) {
		if (!b->queue[i] || reconnect_watch(b->queue[i], &fd, 1) != 1)
			continue;
		for (int k = 0; k < n; k++)
			if (fds[k].fd == fd.fd && fds[k].revents) {
				reconnect_broke(b->queue[i]);
				break;
			}
	}
}

static uint64_t rebuild_work(struct redundant *r, uint64_t now)
{
	uint64_t end = now + STEP_NS, looked = 0, moved = 0, high, again;
	bool progress = false, tried = false;
	struct rebuild *b;

	if (!open_all(r))
		return now + PATIENCE_NS;
	b = r->rebuild;
	b->busy = false;
	/* Its own connections, too, are to be had anew. */
	for (unsigned i = 0; i < STORE_LEAVES; i++)
		if (b->queue[i])
			b->queue[i]->ops->poll(b->queue[i]);
	see_liars(r);
	see_losses(r);
	again = count_anew(r) ? now + PATIENCE_NS : UINT64_MAX;
	b->hopeless &= any_stale(r);
	if (!any_stale(r) && !(b->to_look && all_up(r))) {
		publish(r, false);
		return again;
	}
	if (now < b->not_before) {
		b->busy = !b->hopeless;
		return b->not_before;
	}
	publish(r, false);
	high = high_of(r);
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
		if (r->p.o.rate && moved * 1000000000ull / r->p.o.rate > STEP_NS)
			break;
	}
	now = timer_now();
	b->not_before = r->p.o.rate ? now + moved * 1000000000ull / r->p.o.rate : now;
	b->busy = progress;
	b->hopeless = !progress && (tried || looked >= high);
	if (b->hopeless)
		b->not_before = now + PATIENCE_NS;
	b->hopeless &= any_stale(r);
	publish(r, b->hopeless);
	return any_stale(r) || b->to_look ? b->not_before : again;
}

/*
 * One after the other, for the rate is one: first what is stale, but one that lies again and again
 * does not hold up the moves for ever.
 */
uint64_t redundant_work(struct emf_backend *be, uint64_t now)
{
	struct redundant *r = (struct redundant *)be;
	uint64_t next = rebuild_work(r, now), moves;

	if (r->rebuild && r->rebuild->busy && ++r->rebuild->turns % MOVES_EVERY)
		return next;
	moves = pool_work(be, now);
	return moves < next ? moves : next;
}

int rebuild_source(struct pool *p, uint64_t slot, unsigned column, uint32_t place, size_t within,
		   size_t length, char *buf, uint64_t *moved)
{
	struct redundant *r = (struct redundant *)p;
	struct range extent = extent_of(r, slot);
	unsigned right, away = 0;
	char *made;

	*moved += length;
	if (!(atomic_load(&r->stale[slot]) >> column & 1) &&
	    !resettle_transfer(p, EMF_READ, place, within, length, buf) &&
	    redundant_is_right(r, slot, column, within, length, buf))
		return 0;
	if (!open_all(r))
		return -ENOMEM;
	*moved += extent.to - extent.from;
	right = read_columns(r, slot, extent, &away);
	made = column_buf(r, column) + within;
	if (!(right >> column & 1) && !compute(r, column, right))
		return away ? -ENOTCONN : -EBADMSG;
	if (!redundant_is_right(r, slot, column, within, length, made))
		return -EBADMSG;
	memcpy(buf, made, length);
	return 0;
}

void rebuild_left(struct pool *p, unsigned member)
{
	struct rebuild *b = ((struct redundant *)p)->rebuild;

	if (!b)
		return;
	solo_close(&b->queue[member]);
	b->losses[member] = 0; /* another one may get the number */
	b->liars &= ~(1u << member);
}
