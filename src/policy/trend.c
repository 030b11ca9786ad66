/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Trend prefetch: the step that the majority of the last touches of a region have in common,
 * if there is one, goes on. Finds the way of several threads, or of one with detours, where no
 * two touches in a row are right (Maruf and Chowdhury, Leap, ATC 2020; the majority by
 * Boyer and Moore). Looks at few touches first, then at more.
 */
#include <string.h>

#include "policy/view.h"

#define WATCHED 8 /* regions at once */
#define PAST 32	  /* steps remembered of each */

struct trend {
	struct region *region; /* NULL: unused */
	size_t pos, head;
	int32_t step[PAST];
	unsigned n; /* steps so far */
	long by;    /* the majority; 0: none */
	unsigned outstanding, confidence;
	uint64_t used;
};

static struct trend trends[WATCHED];
static uint64_t clock;

static void reset(void)
{
	memset(trends, 0, sizeof(trends));
	clock = 0;
}

static long majority_of(const struct trend *t, unsigned last)
{
	int32_t candidate = 0;
	unsigned votes = 0, have = 0;

	for (unsigned k = 1; k <= last; k++) {
		int32_t s = t->step[(t->n - k) % PAST];
		if (!votes)
			candidate = s;
		votes = candidate == s ? votes + 1 : votes - 1;
	}
	for (unsigned k = 1; k <= last; k++)
		have += t->step[(t->n - k) % PAST] == candidate;
	return have > last / 2 ? candidate : 0;
}

static long majority(const struct trend *t)
{
	for (unsigned last = 4; last <= PAST && last <= t->n; last *= 2) {
		long by = majority_of(t, last);
		if (by)
			return by;
	}
	return 0;
}

static struct trend *find(struct region *r)
{
	struct trend *oldest = trends;

	for (struct trend *t = trends; t < trends + WATCHED; t++) {
		if (t->region == r)
			return t;
		if (t->used < oldest->used)
			oldest = t;
	}
	*oldest = (struct trend){ .region = r };
	return oldest;
}

static bool touched(struct block *b, bool waited, int lane)
{
	struct trend *t = find(view_region(b));
	size_t i = view_index(b);
	long on = t->by ? ((long)i - (long)t->pos) / t->by : 0;
	bool foreseen = on > 0 && on <= 4 && t->by * on == (long)i - (long)t->pos;

	(void)waited;
	if (lane >= 0) {
		if (t->outstanding)
			t->outstanding--;
		t->confidence++;
	}
	if (t->used && i != t->pos)
		t->step[t->n++ % PAST] = (int32_t)((long)i - (long)t->pos);
	long by = majority(t);
	if (by != t->by) {
		t->confidence = 0;
		t->head = i;
	}
	/*
	 * What it asked for may lie further on; what lies behind is no use, nor is what lies ahead
	 * when the program has gone back to sweep once more.
	 */
	long back = by > 0 ? (long)t->pos - (long)i : (long)i - (long)t->pos;
	if (!by || ((long)t->head - (long)i) * by < 0 || back > (long)view_count(t->region) / 2)
		t->head = i;
	t->by = by;
	t->pos = i;
	t->used = ++clock;
	return foreseen;
}

static struct block *step_on(struct trend *t)
{
	size_t n = view_count(t->region);

	for (unsigned k = 0; k < 4 * PAST; k++) {
		if (t->head + (size_t)t->by >= n)
			return NULL;
		t->head += (size_t)t->by;
		struct block *b = view_block(t->region, t->head);
		if (view_far(b))
			return b;
	}
	return NULL;
}

static struct block *next(unsigned *lane)
{
	for (unsigned i = 0; i < WATCHED; i++) {
		struct trend *t = trends + i;
		if (!t->region || !t->by ||
		    t->outstanding >= prefetch_depth(t->region, t->confidence) ||
		    !prefetch_may(&prefetch_trend, t->region))
			continue;
		struct block *b = step_on(t);
		if (!b)
			continue;
		t->outstanding++;
		*lane = i;
		return b;
	}
	return NULL;
}

static void wasted(struct block *b, unsigned lane)
{
	struct trend *t = trends + lane;

	if (t->region != view_region(b))
		return;
	if (t->outstanding)
		t->outstanding--;
	t->confidence /= 2;
}

static void region_gone(const struct region *r)
{
	for (struct trend *t = trends; t < trends + WATCHED; t++)
		if (t->region == r)
			*t = (struct trend){ 0 };
}

const struct prefetcher prefetch_trend = {
	.reset = reset,
	.touched = touched,
	.next = next,
	.wasted = wasted,
	.region_gone = region_gone,
};
