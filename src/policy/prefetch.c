/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What all prefetchers share: they all see every touch, so that each knows the program
 * when it is its turn, and those whose turn it is in a region are asked. Where
 * the settings leave it open that is learned.c as far as it knows its way, else sequential.c,
 * else trend.c, and none of them where half of what it fetched was for nothing.
 *
 * A lane is which prefetcher, and what that remembers, in one byte of the block.
 */
#include "policy/view.h"

static const struct prefetcher *const table[] = { &prefetch_learned, &prefetch_sequential,
						  &prefetch_trend };
#define PREFETCHERS (sizeof(table) / sizeof(table[0]))
#define RECENT 64 /* blocks: the record of a prefetcher, older ones count half */
#define TRIAL 256 /* touches after which one that was no good may try again */

static struct {
	unsigned issued, wasted;
	uint64_t retry; /* touches */
} record[PREFETCHERS];
static unsigned depth_max;
static uint64_t touches;

void prefetch_init(size_t blocks)
{
	depth_max = (unsigned)(blocks / 32);
	if (depth_max < 1)
		depth_max = 1;
	if (depth_max > 16)
		depth_max = 16;
}

void prefetch_reset(void)
{
	touches = 0;
	for (unsigned i = 0; i < PREFETCHERS; i++) {
		record[i].issued = record[i].wasted = 0;
		record[i].retry = 0;
		table[i]->reset();
	}
}

unsigned prefetch_depth(const struct region *r, unsigned confidence)
{
	const struct emf_class *c = view_region_class(r);
	unsigned d = c && c->window ? c->window : depth_max;

	if (d > 4 * depth_max)
		d = 4 * depth_max;
	/* Slowly at first: the second touch in a row may be chance. */
	return confidence < 2 ? 1 : confidence < 4 ? (d + 3) / 4 : d;
}

static bool is_good(unsigned i)
{
	if (touches < record[i].retry)
		return false;
	if (record[i].issued < RECENT / 2 || record[i].wasted * 2 <= record[i].issued)
		return true;
	record[i].issued = record[i].wasted = 0;
	record[i].retry = touches + TRIAL;
	return false;
}

bool prefetch_may(const struct prefetcher *p, const struct region *r)
{
	const struct emf_class *c = view_region_class(r);

	switch (c ? c->prefetch : EMF_PREFETCH_AUTO) {
	case EMF_PREFETCH_OFF:
		return false;
	case EMF_PREFETCH_SEQUENTIAL:
		return p == &prefetch_sequential;
	case EMF_PREFETCH_TREND:
		return p == &prefetch_trend;
	case EMF_PREFETCH_LEARNED:
		return p == &prefetch_learned;
	case EMF_PREFETCH_AUTO:
		break;
	}
	return p == &prefetch_learned || !learned_knows(r);
}

void prefetch_touched(struct block *b, bool ahead)
{
	unsigned lane = *view_lane(b);

	touches++;
	for (unsigned i = 0; i < PREFETCHERS; i++)
		table[i]->touched(b, !ahead, ahead && lane / LANES == i ? (int)(lane % LANES) : -1);
	if (ahead)
		view_note(b)->wasted = 0;
}

struct block *prefetch_next(void)
{
	struct block *b;
	unsigned lane;

	for (unsigned i = 0; i < PREFETCHERS; i++) {
		if (!is_good(i) || !(b = table[i]->next(&lane)))
			continue;
		*view_lane(b) = (uint8_t)(i * LANES + lane);
		if (++record[i].issued >= RECENT) {
			record[i].issued /= 2;
			record[i].wasted /= 2;
		}
		return b;
	}
	return NULL;
}

void prefetch_wasted(struct block *b)
{
	unsigned lane = *view_lane(b), i = lane / LANES;

	if (i >= PREFETCHERS)
		return;
	record[i].wasted++;
	if (view_note(b)->wasted < UINT8_MAX)
		view_note(b)->wasted++;
	table[i]->wasted(b, lane % LANES);
}

void prefetch_region_gone(const struct region *r)
{
	for (unsigned i = 0; i < PREFETCHERS; i++)
		table[i]->region_gone(r);
}
