/* SPDX-License-Identifier: Apache-2.0 */
#include "replay.h"

#include <stdio.h>
#include <stdlib.h>

#include "block.h"
#include "policy/policy.h"
#include "region.h"

#define TOUCH_NS 180000.0 /* 2 MiB read at 11 GB/s */
#define DEPTH 16	  /* as mover.c */
#define LOOKS 4
#define FRAMES 8	  /* fetched at once at most: the frames in reserve */

static struct {
	struct replay *r;
	struct emf_class class;
	uint64_t fetches;
	size_t used; /* blocks that are local, standby included */
	double now, link_ns, link_free; /* ns */
	struct block_list prefetched;	/* in order of issue */
	size_t flying;
	unsigned *series;
} sim;

/* When the block arrives; nothing else uses retry_at here. */
static double arrives(const struct block *b)
{
	return (double)b->retry_at;
}

static void evict(struct block *b)
{
	list_remove(b);
	if (b->state == LOCAL)
		b->evicted_at = sim.fetches;
	b->state = FAR;
	sim.used--;
}

static void give_up_prefetched(struct block *b)
{
	sim.r->wasted++;
	prefetch_wasted(b);
	b->flags = 0;
	evict(b);
}

static void land(void)
{
	for (struct block *b = sim.prefetched.head; b; b = b->next)
		if (b->state == FETCHING && arrives(b) <= sim.now) {
			b->state = STANDBY;
			sim.flying--;
		}
}

static void make_room(void)
{
	while (sim.used >= sim.r->capacity) {
		struct block *b = policy_victim();
		if (b) {
			evict(b);
			continue;
		}
		for (b = sim.prefetched.head; b && b->state != STANDBY; b = b->next)
			;
		if (!b)
			return; /* more than the budget for a moment */
		give_up_prefetched(b);
	}
}

static void fetch(struct block *b)
{
	make_room();
	sim.used++;
	sim.fetches++;
	sim.r->fetched++;
	if (sim.series)
		++*sim.series;
	if (sim.link_free < sim.now)
		sim.link_free = sim.now;
	sim.link_free += sim.link_ns;
	b->retry_at = (uint64_t)sim.link_free;
}

static void map(struct block *b, enum arrival how)
{
	b->state = LOCAL;
	b->flags = 0;
	policy_arrived(b, how, sim.fetches - b->evicted_at, sim.used < sim.r->capacity, sim.fetches);
}

static void touch_ahead(struct block *b)
{
	if (b->state == FETCHING) {
		sim.flying--;
		if (arrives(b) > sim.now)
			sim.now = arrives(b);
	}
	list_remove(b);
	sim.r->useful++;
	prefetch_touched(b, true);
	map(b, ARRIVE_FETCHED);
}

static void touch(struct block *b)
{
	sim.r->touches += b->state != NONE;
	switch (b->state) {
	case NONE:
		make_room();
		sim.used++;
		b->evicted_at = sim.fetches;
		map(b, ARRIVE_NEW);
		break;
	case STANDBY:
	case FETCHING:
		if (b->flags & B_PREFETCHED) {
			touch_ahead(b);
			break;
		}
		sim.r->looks_hit++;
		map(b, ARRIVE_STANDBY);
		break;
	case FAR:
		sim.r->demand++;
		prefetch_touched(b, false);
		fetch(b);
		sim.now = sim.link_free;
		map(b, ARRIVE_FETCHED);
		break;
	default:
		break;
	}
	sim.now += TOUCH_NS;
}

static void mover(void)
{
	struct block *b;

	while (sim.flying < FRAMES && (b = prefetch_next())) {
		fetch(b);
		sim.r->issued++;
		b->state = FETCHING;
		b->flags = B_PREFETCHED;
		list_append(&sim.prefetched, b);
		sim.flying++;
	}
	b = sim.prefetched.head;
	if (b && sim.prefetched.count >= 2 * DEPTH && b->state == STANDBY)
		give_up_prefetched(b);
	for (unsigned n = 0; n < LOOKS && (b = policy_probe(sim.fetches, (uint64_t)sim.now)); n++) {
		sim.r->looks++;
		list_remove(b);
		b->evicted_at = sim.fetches;
		b->state = STANDBY;
		policy_probed(b, sim.fetches);
	}
}

static void clear(void)
{
	struct region *r;

	while ((r = region_at(0)))
		region_erase(r);
	policy_total(0);
	policy_reset();
	prefetch_reset();
}

void replay_run(struct replay *r, const struct tour *t)
{
	size_t blocks = 0, mark = 0;

	clear();
	r->touches = r->fetched = r->demand = r->issued = r->useful = r->wasted = 0;
	r->looks = r->looks_hit = 0;
	sim.r = r;
	sim.class = (struct emf_class){ .evict = r->evict, .prefetch = r->prefetch };
	sim.fetches = sim.used = sim.flying = 0;
	sim.now = sim.link_free = 0;
	sim.link_ns = TOUCH_NS / (r->link > 0 ? r->link : 0.8);
	sim.prefetched = (struct block_list){ 0 };
	sim.series = NULL;
	/* It is told of no frame that is kept for fetches; here that is one. */
	policy_init(r->capacity > 1 ? r->capacity - 1 : 1);
	prefetch_init(r->capacity);
	for (size_t i = 0; i < t->nregions; i++) {
		uintptr_t start = (uintptr_t)t->regions[i].first << BLOCK_SHIFT;
		struct region *n =
		    region_insert(start, start + ((uintptr_t)t->regions[i].count << BLOCK_SHIFT));
		if (!n) {
			fprintf(stderr, "policysim: out of memory\n");
			exit(1);
		}
		n->class = &sim.class;
		blocks += n->nblocks;
		policy_total(blocks);
	}
	for (size_t i = 0; i < t->n; i++) {
		for (; mark < t->nmarks && t->mark[mark] == i; mark++)
			if (r->series)
				*(sim.series = r->series + mark) = 0;
		struct region *in = region_find((uintptr_t)t->at[i] << BLOCK_SHIFT);
		if (!in)
			continue;
		land();
		touch(region_block(in, (uintptr_t)t->at[i] << BLOCK_SHIFT));
		mover();
	}
	r->time = sim.now / TOUCH_NS;
}

double replay_hit_rate(const struct replay *r)
{
	return r->touches ? 100.0 * (1.0 - (double)r->fetched / (double)r->touches) : 100.0;
}
