/* SPDX-License-Identifier: Apache-2.0 */
#include "interleave.h"

#include "bandwidth.h"
#include "config.h"
#include "engine.h"
#include "log.h"
#include "policy/view.h"
#include "region.h"
#include "thrash.h"

#define LOOK 256	     /* blocks, for one answer */
#define REST_NS 100000000ull /* after a round that found nothing */
#define SWEPT 16	     /* samples in order */
#define BACK 2		     /* what one against it counts for */

static struct {
	bool wanted;	   /* some class has a share */
	unsigned weighted; /* percent */
	uintptr_t at;	   /* where the look goes on */
	bool found;	   /* something that could be brought, in this round */
	uint64_t rest_until;
} il;

void interleave_init(int node)
{
	const struct emf_config *c = &engine.config;
	static bool measured;
	bool weighted = false;

	il.wanted = false;
	for (unsigned i = 0; i < c->nclasses; i++) {
		il.wanted |= c->classes[i].place;
		weighted |= c->classes[i].place == EMF_PLACE_WEIGHTED;
	}
	if (!weighted || measured)
		return;
	measured = true;
	il.weighted = bandwidth_share(node);
}

void interleave_after_fork(void)
{
	il.at = 0;
	il.rest_until = 0;
}

static bool is_swept(const struct region *r)
{
	return r->order_seen.swept || r->note.does & EMF_DOES_SWEPT;
}

static unsigned percent_there(const struct region *r)
{
	unsigned percent = r->class ? r->class->place : 0;

	if (percent == EMF_PLACE_WEIGHTED)
		percent = is_swept(r) ? il.weighted : 0;
	return r->source || r->kept ? 0 : percent;
}

static bool is_of(const struct block *b, unsigned percent)
{
	return policy_in_share(b, (percent << 16) / 100);
}

static bool is_in_share(const struct block *b, unsigned percent)
{
	const struct emf_class *c = b->region->class;

	/* Not those that loop.c, or the class, keeps. */
	return percent && block_is_full(b) && !b->note.pinned && !is_of(b, 100 - percent) &&
	       !(c->resident && is_of(b, c->resident));
}

bool interleave_belongs(const struct block *b)
{
	return il.wanted && is_in_share(b, percent_there(b->region));
}

void interleave_touched(struct block *b)
{
	struct region *r = b->region;

	if (!il.wanted)
		return;
	struct order *o = &r->order_seen;
	uint32_t i = (uint32_t)view_index(b), n = (uint32_t)r->nblocks,
		 by = i >= o->last ? i - o->last : i + n - o->last;
	o->last = i;
	/* At random three in four are not. */
	if (by && by <= n / 4)
		o->ahead = (uint8_t)(o->ahead + (o->ahead < SWEPT));
	else
		o->ahead = (uint8_t)(o->ahead - (o->ahead < BACK ? o->ahead : BACK));
	o->swept |= o->ahead == SWEPT;
}

static bool may_go(const struct block *b, unsigned percent)
{
	return b->state == LOCAL && !b->placed && !b->copied && is_in_share(b, percent) &&
	       b->list != &engine.stuck && b->list != &engine.starving && !thrash_spares(b);
}

/* It was all looked at: again soon, if there was something. */
static void next_round(void)
{
	il.at = 0;
	if (!il.found)
		il.rest_until = k_now_ns() + REST_NS;
	il.found = false;
}

struct block *interleave_next(void)
{
	if (!il.wanted || k_now_ns() < il.rest_until)
		return NULL;
	for (unsigned n = 0; n < LOOK;) {
		struct region *r = region_next(il.at);
		if (!r) {
			next_round();
			return NULL;
		}
		unsigned percent = r->registered ? percent_there(r) : 0;
		size_t i = il.at > r->start ? (il.at - r->base) >> BLOCK_SHIFT : 0;
		for (n++; percent && i < r->nblocks && n < LOOK; n++) {
			struct block *b = r->blocks + i;
			il.at = region_block_start(r, i++);
			if (may_go(b, percent))
				return b;
		}
		if (!percent || i >= r->nblocks)
			il.at = r->end;
	}
	return NULL;
}

void interleave_tried(bool brought)
{
	il.at += BLOCK_SIZE;
	il.found |= brought;
}

bool interleave_is_busy(void)
{
	return il.wanted && k_now_ns() >= il.rest_until;
}
