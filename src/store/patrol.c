/* SPDX-License-Identifier: Apache-2.0 */
#include "patrol.h"

#include <errno.h>
#include <sys/mman.h>

#include "memory.h"
#include "ready.h"
#include "redundant_int.h"
#include "timer.h"

#define PACE_NS 100000000ull   /* at most a slot so often ... */
#define SHARE 16u	       /* ... and at most this part of the time */
#define ROUND_TURN 4u	       /* every so manieth is of the round, whatever is written */
#define REST_NS 10000000000ull /* a slot so often when nothing was written for a round */
#define AT_ONCE 64u
#define PATIENCE_NS 500000000ull /* when members are away */
#define ALERT_NS 3000000000ull	 /* after an alarm */

static uint64_t words(const struct redundant *r)
{
	return r->p.slots / 64 + 1;
}

int patrol_open(struct redundant *r)
{
	r->patrol.rests = true;
	r->patrol.fresh = store_table(words(r), sizeof(uint64_t), MAP_PRIVATE);
	return r->patrol.fresh ? 0 : -ENOMEM;
}

void patrol_close(struct redundant *r)
{
	store_untable(r->patrol.fresh, words(r), sizeof(uint64_t));
}

void patrol_forked(struct redundant *r)
{
	_Atomic uint64_t *fresh = r->patrol.fresh;

	for (uint64_t i = 0; i <= high_of(r) / 64; i++)
		if (atomic_load(&fresh[i]))
			atomic_store(&fresh[i], 0);
	r->patrol = (struct patrol){ .fresh = fresh, .rests = true };
}

static void wake(struct redundant *r)
{
	if (atomic_load(&r->patrol.rests) && atomic_exchange(&r->patrol.rests, false))
		signal_raise(r->p.o.wake_fd);
}

void patrol_note(struct redundant *r, uint64_t slot)
{
	struct patrol *p = &r->patrol;
	uint64_t bit = 1ull << slot % 64;

	if (!(atomic_fetch_or(&p->fresh[slot / 64], bit) & bit))
		atomic_fetch_add(&p->nfresh, 1);
	if (!atomic_load(&p->news))
		atomic_store(&p->news, true);
	wake(r);
}

void patrol_alarm(struct redundant *r)
{
	if (!atomic_load(&r->patrol.alarm) && !atomic_exchange(&r->patrol.alarm, true))
		signal_raise(r->p.o.wake_fd);
}

/* Takes one out of the fresh ones; false: there is none. */
static bool take_fresh(struct redundant *r, uint64_t *slot)
{
	struct patrol *p = &r->patrol;
	uint64_t n = high_of(r) / 64 + 1, at = p->hand / 64;
	uint64_t above = ~0ull << p->hand % 64; /* of the first word; its other part comes last */

	if (atomic_load(&p->nfresh) <= 0)
		return false;
	for (uint64_t i = 0; i <= n; i++, at++) {
		uint64_t bits = atomic_load(&p->fresh[at % n]);

		bits &= i == 0 ? above : i == n ? ~above : ~0ull;
		if (!bits)
			continue;
		*slot = at % n * 64 + (unsigned)__builtin_ctzll(bits);
		atomic_fetch_and(&p->fresh[at % n], ~(1ull << *slot % 64));
		atomic_fetch_sub(&p->nfresh, 1);
		p->hand = *slot + 1 < n * 64 ? *slot + 1 : 0;
		return true;
	}
	return false;
}

/* The next one of the round that has anything. */
static bool next_of_round(struct redundant *r, uint64_t *slot)
{
	struct patrol *p = &r->patrol;
	uint64_t high = high_of(r);

	for (uint64_t i = 0; i < high; i++) {
		*slot = p->round_hand < high ? p->round_hand : 0;
		p->round_hand = *slot + 1;
		p->left -= p->left > 0;
		if (r->extent[*slot])
			return true;
	}
	return false;
}

static bool next_slot(struct redundant *r, bool alert, uint64_t *slot)
{
	if (!alert && r->patrol.turn % ROUND_TURN == 0 && next_of_round(r, slot))
		return true;
	return take_fresh(r, slot) || next_of_round(r, slot);
}

static uint64_t due(const struct redundant *r, uint64_t now)
{
	const struct patrol *p = &r->patrol;
	uint64_t share = p->took * SHARE;

	if (p->failed)
		return p->ended + PATIENCE_NS;
	if (now < p->alert_until && atomic_load(&p->nfresh) > 0)
		return p->ended + (r->p.o.rate ? p->moved * 1000000000ull / r->p.o.rate : 0);
	if (atomic_load(&p->rests))
		return p->ended + REST_NS;
	return p->ended + (share > PACE_NS ? share : PACE_NS);
}

/* May it rest after this one? News from here on wake the thread. */
static void see_round(struct redundant *r)
{
	struct patrol *p = &r->patrol;

	if (p->left || atomic_load(&p->rests))
		return;
	atomic_store(&p->rests, true);
	if (!atomic_exchange(&p->news, false) && atomic_load(&p->nfresh) <= 0)
		return;
	atomic_store(&p->rests, false);
	p->left = high_of(r);
}

uint64_t redundant_patrol(struct emf_backend *be, uint64_t now)
{
	struct redundant *r = (struct redundant *)be;
	struct patrol *p = &r->patrol;
	uint64_t slot, at, begin;

	if (atomic_exchange(&p->alarm, false)) {
		p->alert_until = now + ALERT_NS;
		atomic_store(&p->news, true);
		atomic_store(&p->rests, false);
	}
	/* Without hold all may be written and trimmed at any time. */
	if (!high_of(r) || !r->p.o.hold)
		return UINT64_MAX;
	see_round(r);
	at = due(r, now);
	if (now < at)
		return at;
	if (!rebuild_is_idle(r))
		return now + PATIENCE_NS;
	begin = timer_now();
	p->moved = 0;
	p->failed = false;
	p->turn++;
	/* Not those that are others'. */
	for (unsigned i = 0; i < AT_ONCE && !p->moved && !p->failed; i++) {
		if (!next_slot(r, now < p->alert_until, &slot))
			break;
		p->failed = !rebuild_look(r, slot, &p->moved);
		if (p->failed)
			patrol_note(r, slot);
	}
	p->took = timer_now() - begin;
	p->ended = now + p->took;
	return due(r, p->ended);
}
