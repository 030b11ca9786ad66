/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Moves of columns between the members of a pool, by the store's thread: round after round over
 * all slots, away from the member that is drained, else onto the one that is new. The old place of
 * what was moved waits in a list until nobody reads there any more.
 */
#define _GNU_SOURCE 1 /* syscall */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../log.h"
#include "memory.h"
#include "pool_int.h"
#include "ready.h"
#include "reconnect.h"
#include "solo.h"
#include "timer.h"

#define PAGE 4096u
#define STEP_NS 20000000ull	 /* before the thread looks at anything else */
#define PATIENCE_NS 250000000ull /* when nothing can be done now */
#define SOON_NS 5000000ull	 /* until readers may have gone */
#define REREADS 3u
#define BEHIND 64u

/* What was found in a round over all slots. */
struct round {
	uint64_t looked;			/* slots */
	unsigned seen, moved, later, full, bad; /* columns */
};

struct resettle {
	struct emf_queue *queue[STORE_LEAVES];
	char *buf, *back; /* a column each */
	uint64_t at;	  /* the next slot */
	uint64_t not_before;
	uint64_t moved;		/* bytes, in this step */
	unsigned member, state; /* what the round is about */
	struct round round;
	struct left_behind {
		uint64_t slot;
		uint32_t place;
		bool doubt; /* something may still be written there: nobody gets it */
	} behind[BEHIND];
	unsigned nbehind;
};

static bool prepare(struct pool *p)
{
	struct resettle *r = p->resettle;
	long at;

	if (r)
		return true;
	r = store_alloc(1, sizeof(*r));
	if (!r)
		return false;
	at = syscall(SYS_mmap, NULL, 2 * p->unit, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0L);
	if (at == -1) {
		store_free(r);
		return false;
	}
	r->buf = (char *)at;
	r->back = r->buf + p->unit;
	p->resettle = r;
	return true;
}

void resettle_end(struct pool *p)
{
	struct resettle *r = p->resettle;

	if (!r)
		return;
	for (unsigned i = 0; i < STORE_LEAVES; i++)
		solo_close(&r->queue[i]);
	syscall(SYS_munmap, r->buf, 2 * p->unit);
	store_free(r);
	p->resettle = NULL;
}

/* --- one transfer --- */

static bool answers(const struct pool *p, unsigned i)
{
	return !(reconnect_is_down(p->member[i].be) && reconnect_is_failing(p->member[i].be));
}

int resettle_transfer(struct pool *p, enum emf_op op, uint32_t place, size_t within, size_t length,
		      char *buf)
{
	unsigned member = PLACE_MEMBER(place);
	struct emf_queue **q = &p->resettle->queue[member];
	struct emf_io what = {
		.op = op,
		.offset = PLACE_INDEX(place) * p->unit + within,
		.length = length,
		.buf = buf,
	};

	if (!*q && !answers(p, member))
		return -ENOTCONN;
	return solo_transfer(p->member[member].be, q, &what, p->o.timeout_ms);
}

/* --- what was left behind --- */

/*
 * Trims what nobody reads any more, and gives it back. One that does not answer is waited for
 * once, and what is left there stays untrimmed.
 */
static void settle_behind(struct pool *p)
{
	struct resettle *r = p->resettle;
	unsigned kept = 0, silent = 0;

	for (unsigned i = 0; i < r->nbehind; i++) {
		struct left_behind b = r->behind[i];
		unsigned member = PLACE_MEMBER(b.place);
		int rc = 0;

		if (atomic_load(&p->users[b.slot]) & READERS) {
			r->behind[kept++] = b;
			continue;
		}
		if (p->member[member].be->caps & EMF_CAP_TRIM && !(silent >> member & 1))
			rc = resettle_transfer(p, EMF_TRIM, b.place, 0, p->unit, NULL);
		if (rc)
			silent |= 1u << member;
		p->member[member].behind--;
		if (!solo_in_doubt(rc) && !b.doubt)
			pool_release(p, b.place);
	}
	r->nbehind = kept;
}

static bool is_behind(const struct resettle *r, unsigned member)
{
	for (unsigned i = 0; i < r->nbehind; i++)
		if (PLACE_MEMBER(r->behind[i].place) == member)
			return true;
	return false;
}

/* --- one column --- */

/* Why it was not moved, in this round. */
static void note(struct resettle *r, int why)
{
	if (why == -EBADMSG)
		r->round.bad++;
	else if (why == -ENOSPC)
		r->round.full++;
	else
		r->round.later++;
}

/*
 * It is to be moved: a write from here on takes the mark away. False: it is not there any more, or
 * is being written; nobody who holds a slot begins to, but one may have been on its way.
 */
static bool mark(struct pool *p, uint64_t slot, unsigned column, uint32_t from)
{
	uint32_t is = from;

	if (!atomic_compare_exchange_strong(pool_place(p, slot, column), &is, from | PLACE_MOVES) &&
	    is != (from | PLACE_MOVES))
		return false;
	return atomic_load(&p->users[slot]) < WRITER;
}

/* From one place to another in the table, if it still is there and has not been written. */
static bool replace(struct pool *p, uint64_t slot, unsigned column, uint32_t from, uint32_t to)
{
	struct resettle *r = p->resettle;
	uint32_t is = from | PLACE_MOVES;
	bool doubt = false, done;

	done = p->kind ? p->kind->replace(p, slot, column, is, to, &doubt)
		       : atomic_compare_exchange_strong(pool_place(p, slot, column), &is, to);
	if (!done)
		return false;
	r->behind[r->nbehind++] = (struct left_behind){ slot, from, doubt };
	p->member[PLACE_MEMBER(from)].behind++;
	r->round.moved++;
	return true;
}

/* Reads it and verifies that. -EBADMSG: what is there is not what was written. */
static int read_right(struct pool *p, uint64_t slot, unsigned column, uint32_t place, size_t within,
		      size_t length, char *buf)
{
	uint64_t offset = slot * SLOT + column * p->unit + within;
	int rc = -EBADMSG;

	for (unsigned i = 0; i < REREADS && rc == -EBADMSG; i++) {
		rc = resettle_transfer(p, EMF_READ, place, within, length, buf);
		if (!rc && p->sums && !checksum_matches(p->sums, offset, length, buf))
			rc = -EBADMSG;
	}
	return rc;
}

static int copy(struct pool *p, uint64_t slot, unsigned column, uint32_t from, uint32_t to,
		size_t within, size_t length, bool *in_doubt)
{
	struct resettle *r = p->resettle;
	int rc;

	if (p->kind) {
		rc = p->kind->source(p, slot, column, from, within, length, r->buf, &r->moved);
	} else {
		rc = read_right(p, slot, column, from, within, length, r->buf);
		r->moved += length;
	}
	if (rc)
		return rc;
	rc = resettle_transfer(p, EMF_WRITE, to, within, length, r->buf);
	*in_doubt = solo_in_doubt(rc);
	/* Wrong here is the new place's fault. */
	for (unsigned i = 0; i < REREADS && !rc; i++) {
		rc = resettle_transfer(p, EMF_READ, to, within, length, r->back);
		if (!rc && !memcmp(r->buf, r->back, length))
			return 0;
	}
	return rc && rc != -EBADMSG ? rc : -EIO;
}

/* What was written of the column: [*begin, *end) of it. */
static bool written(const struct pool *p, uint64_t slot, unsigned column, size_t *begin,
		    size_t *end)
{
	if (p->kind)
		return p->kind->written(p, slot, column, begin, end);

	uint32_t extent = atomic_load(&p->extent[slot]);
	size_t from = (size_t)(extent & 0xffff) * PAGE, to = from + (size_t)(extent >> 16) * PAGE;
	size_t base = column * p->unit;

	*begin = from > base ? from - base : 0;
	*end = to > base + p->unit ? p->unit : to > base ? to - base : 0;
	return *begin < *end;
}

/* The slot is held: nobody trims it. */
static void move(struct pool *p, uint64_t slot, unsigned column, uint32_t from, unsigned member)
{
	struct resettle *r = p->resettle;
	bool in_doubt = false;
	size_t begin, end;
	uint32_t to;
	int rc;

	if (!mark(p, slot, column, from)) {
		note(r, -EBUSY);
		return;
	}
	if (!written(p, slot, column, &begin, &end)) {
		replace(p, slot, column, from, 0);
		return;
	}
	/* One may have got there since it was chosen; from here on none does, or this comes to
	 * nothing. */
	if (p->kind && pool_has_column(p, slot, member)) {
		note(r, -EBUSY);
		return;
	}
	to = pool_claim(p, member);
	if (!to) {
		note(r, -ENOSPC);
		return;
	}
	rc = copy(p, slot, column, from, to, begin, end - begin, &in_doubt);
	if (!rc && replace(p, slot, column, from, to))
		return;
	if (!in_doubt)
		pool_release(p, to);
	note(r, rc);
}

/* --- where to --- */

static bool has_room(const struct pool *p, unsigned i)
{
	return pool_is_open(p, i) && atomic_load(&p->shared->used[i]) < p->member[i].units;
}

/*
 * The least used, by its weight, that has room and answers; of a redundant set the one that has the
 * most room, and none of the slot. -ENOTCONN: none answers; -ENOSPC: no room.
 */
static int emptiest(const struct pool *p, uint64_t slot)
{
	uint64_t least = UINT64_MAX, used;
	int best = -ENOSPC;

	for (unsigned i = 0; i < atomic_load(&p->n); i++) {
		if (!has_room(p, i) || (p->kind && pool_has_column(p, slot, i)))
			continue;
		used = atomic_load(&p->shared->used[i]);
		if (p->kind)
			used += UINT32_MAX - p->member[i].units;
		else
			used = used * POOL_WEIGHT / atomic_load(&p->member[i].weight);
		if (answers(p, i) && used < least) {
			least = used;
			best = (int)i;
		} else if (best == -ENOSPC) {
			best = -ENOTCONN;
		}
	}
	return best;
}

uint64_t resettle_left(const struct pool *p, unsigned member)
{
	uint32_t used = atomic_load(&p->shared->used[member]), share;

	if (pool_is_state(p, member, MEMBER_DRAINING))
		return used * p->unit;
	if (!pool_is_state(p, member, MEMBER_FILLING))
		return 0;
	share = pool_fair_share(p, member);
	return share > used ? (share - used) * p->unit : 0;
}

/* --- one slot --- */

/* Nobody uses the slot: so it must not be a child's that has been made since. */
static void forget(struct pool *p, uint64_t slot, unsigned column, uint32_t place)
{
	if (p->o.still)
		p->o.still(true);
	if ((p->o.alone && !p->o.alone()) || !mark(p, slot, column, place) ||
	    !replace(p, slot, column, place, 0))
		note(p->resettle, -EBUSY);
	if (p->o.still)
		p->o.still(false);
}

static void drain_slot(struct pool *p, uint64_t slot, bool held)
{
	struct resettle *r = p->resettle;
	int to;

	for (unsigned c = 0; c < p->columns && r->nbehind < BEHIND; c++) {
		uint32_t place = pool_look(p, slot, c);

		if (!place || PLACE_MEMBER(place) != r->member)
			continue;
		r->round.seen++;
		if (!held) {
			forget(p, slot, c, place);
			continue;
		}
		to = emptiest(p, slot);
		if (to >= 0)
			move(p, slot, c, place, (unsigned)to);
		else
			note(r, to);
	}
}

static bool has_more_than_its_share(const struct pool *p, unsigned i)
{
	return atomic_load(&p->shared->used[i]) - p->member[i].behind > pool_fair_share(p, i);
}

/* The column of it that is to come to the new member; p->columns: none. */
static unsigned to_fill_with(const struct pool *p, uint64_t slot)
{
	unsigned member = p->resettle->member, best = p->columns;

	if (p->kind && pool_has_column(p, slot, member))
		return best;
	for (unsigned i = 0; i < p->columns; i++) {
		unsigned c = (unsigned)(slot + i) % p->columns;
		uint32_t place = pool_look(p, slot, c);

		if (!place || PLACE_MEMBER(place) == member)
			continue;
		/* It can be made from the others, who are enough no more if one of them is lost. */
		if (p->kind && !answers(p, PLACE_MEMBER(place)))
			return c;
		if (best == p->columns && has_more_than_its_share(p, PLACE_MEMBER(place)) &&
		    !(p->kind && has_more_than_its_share(p, member)))
			best = c;
	}
	return best;
}

/* At most one column of each slot in a round, so that slots stay spread. */
static void fill_slot(struct pool *p, uint64_t slot)
{
	struct resettle *r = p->resettle;
	unsigned c = to_fill_with(p, slot);

	if (c == p->columns)
		return;
	r->round.seen++;
	if (answers(p, r->member))
		move(p, slot, c, pool_look(p, slot, c), r->member);
	else
		note(r, -ENOTCONN);
}

/* Is there anything to be moved? Of one that is not, nobody minds that it is being written. */
static bool concerns(const struct pool *p, uint64_t slot)
{
	const struct resettle *r = p->resettle;

	if (r->state == MEMBER_FILLING)
		return to_fill_with(p, slot) < p->columns;
	for (unsigned c = 0; c < p->columns; c++) {
		uint32_t place = pool_look(p, slot, c);

		if (place && PLACE_MEMBER(place) == r->member)
			return true;
	}
	return false;
}

static void look_at(struct pool *p, uint64_t slot)
{
	struct resettle *r = p->resettle;
	bool held;

	if (!concerns(p, slot))
		return;
	held = !p->o.hold || p->o.hold(slot);
	/* One that began before it was held. */
	if (atomic_load(&p->users[slot]) / WRITER)
		note(r, -EBUSY);
	else if (r->state == MEMBER_DRAINING)
		drain_slot(p, slot, held);
	else if (held)
		fill_slot(p, slot);
	if (held && p->o.release)
		p->o.release(slot);
}

/* --- rounds --- */

static const char *name_of(const struct pool *p, unsigned member)
{
	return p->o.stats ? p->o.stats[member].uri : "?";
}

static void publish(struct pool *p)
{
	if (p->kind) {
		p->kind->publish(p);
		return;
	}
	for (unsigned i = 0; p->o.stats && i < atomic_load(&p->n); i++) {
		struct emf_store_stats *s = &p->o.stats[i];
		uint32_t member = atomic_load(&p->member[i].state), state = atomic_load(&s->state);
		uint32_t to = state;

		if (member == MEMBER_NONE)
			continue;
		if (member == MEMBER_LEAVING)
			to = EMF_STORE_DRAINED;
		else if (member == MEMBER_DRAINING && state != EMF_STORE_DOWN)
			to = EMF_STORE_DRAINING;
		else if (member == MEMBER_FILLING && state == EMF_STORE_OK)
			to = EMF_STORE_REBUILDING;
		else if (member == MEMBER_USED &&
			 (state == EMF_STORE_DRAINING || state == EMF_STORE_REBUILDING))
			to = EMF_STORE_OK;
		atomic_store(&s->used_bytes, pool_used(&p->be, i));
		atomic_store(&s->rebuild_bytes, resettle_left(p, i));
		if (to != state)
			atomic_compare_exchange_strong(&s->state, &state, to);
	}
}

static void become(struct pool *p, unsigned member, enum member_state state)
{
	atomic_store(&p->member[member].state, state);
	if (state == MEMBER_LEAVING)
		solo_close(&p->resettle->queue[member]);
	if (state == MEMBER_LEAVING && p->kind)
		p->kind->left(p, member);
	atomic_fetch_add(&p->generation, 1);
	signal_raise(p->o.wake_fd); /* for who looks at members beside us */
	publish(p);
}

/* A drain ends when a whole round has found nothing, and nobody reads there any more. */
static void drain_round_ended(struct pool *p)
{
	struct resettle *r = p->resettle;
	const struct round *round = &r->round;
	uint64_t bytes = resettle_left(p, r->member) >> 20;

	if (!round->seen && !round->later && !is_behind(r, r->member)) {
		log_info("store %s is drained", name_of(p, r->member));
		become(p, r->member, MEMBER_LEAVING);
	} else if (round->moved || round->later || is_behind(r, r->member)) {
		return;
	} else if (round->full) {
		log_warn("store %s stays: %lu MiB of it find no room on the others",
			 name_of(p, r->member), (unsigned long)bytes);
		become(p, r->member, MEMBER_USED);
	} else {
		log_warn("store %s stays: %lu MiB of it can't be read right", name_of(p, r->member),
			 (unsigned long)bytes);
		become(p, r->member, MEMBER_USED);
	}
}

static void fill_round_ended(struct pool *p)
{
	struct resettle *r = p->resettle;

	if (!r->round.moved && !r->round.later && !r->nbehind)
		become(p, r->member, MEMBER_USED);
}

/*
 * A write may have taken a place just before the drain began, and have said so after the last
 * round: seen when its queue has let go. Once more, then. (A child that was killed may have left a
 * place that is nobody's: not twice.)
 */
static void look_back(struct pool *p)
{
	for (unsigned i = 0; i < atomic_load(&p->n); i++) {
		struct member *m = &p->member[i];

		if (!pool_is_state(p, i, MEMBER_LEAVING) || atomic_load(&m->queues) || m->again ||
		    !atomic_load(&p->shared->used[i]))
			continue;
		m->again = true;
		become(p, i, MEMBER_DRAINING);
	}
}

/* The member that the next round is about; false: there is none. */
static bool choose(struct pool *p)
{
	static const enum member_state order[] = { MEMBER_DRAINING, MEMBER_FILLING };
	struct resettle *r = p->resettle;

	for (unsigned k = 0; k < 2; k++)
		for (unsigned i = 0; i < atomic_load(&p->n); i++) {
			if (!pool_is_state(p, i, order[k]))
				continue;
			if (r->member != i || r->state != order[k])
				r->round = (struct round){ 0 };
			r->member = i;
			r->state = order[k];
			return true;
		}
	r->round = (struct round){ 0 };
	r->state = MEMBER_NONE;
	return false;
}

/* True: a round has ended. */
static bool step(struct pool *p, uint64_t end)
{
	struct resettle *r = p->resettle;
	uint64_t high = atomic_load(&p->shared->high);

	while (r->round.looked < high && r->nbehind < BEHIND && timer_now() < end) {
		r->at = r->at + 1 < high ? r->at + 1 : 0;
		r->round.looked++;
		look_at(p, r->at);
		/* Not more at once than the rate has for such a step. */
		if (p->o.rate && r->moved * 1000000000ull / p->o.rate > STEP_NS)
			break;
	}
	return r->round.looked >= high;
}

uint64_t pool_work(struct emf_backend *be, uint64_t now)
{
	struct pool *p = (struct pool *)be;
	struct resettle *r;
	uint64_t begin = now;
	unsigned share;

	if (!atomic_load(&p->shared->changed))
		return UINT64_MAX;
	if (!prepare(p))
		return now + PATIENCE_NS;
	r = p->resettle;
	if (r->nbehind)
		settle_behind(p);
	look_back(p);
	publish(p);
	if (!choose(p))
		return r->nbehind ? now + SOON_NS : UINT64_MAX;
	if (now < r->not_before)
		return r->not_before;
	if (p->o.alone && !p->o.alone())
		return now + PATIENCE_NS;
	r->moved = 0;
	bool ended = step(p, now + STEP_NS);
	share = pool_share(p, r->member, now);
	now = timer_now();
	r->not_before = r->nbehind ? now + SOON_NS : now;
	if (p->o.rate && r->moved)
		r->not_before = now + r->moved * RAMP_STEPS / share * 1000000000ull / p->o.rate;
	if (ended) {
		if (!r->round.moved && (r->round.seen || r->round.later))
			r->not_before = now + PATIENCE_NS;
		(r->state == MEMBER_DRAINING ? drain_round_ended : fill_round_ended)(p);
		r->round = (struct round){ 0 };
	}
	/* Somebody does not answer; others need this thread, too. */
	if (now - begin > PATIENCE_NS && r->not_before < now + (now - begin))
		r->not_before = now + (now - begin);
	return r->not_before;
}
