/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What all prefetchers share: they all see every touch, so that each knows the program
 * when it is its turn, and those whose turn it is in a region are asked. Where
 * the settings leave it open that is the one which saw most of the touches coming, counted
 * region by region whether it was its turn or not; and none where half of what it fetched
 * was for nothing: it may try again after a while, which is longer each time, or when it
 * foresaw many touches in a row.
 *
 * A lane is which prefetcher, and what that remembers, in one byte of the block.
 */
#include "policy/view.h"

#include <string.h>

/* The first has its turn until another is better. */
static const struct prefetcher *const table[] = { &prefetch_sequential, &prefetch_learned,
						  &prefetch_trend };
#define PREFETCHERS (sizeof(table) / sizeof(table[0]))
#define WANTED 16
#define WALK 4096 /* blocks looked at for one answer */
#define RECENT 64 /* blocks: the record of a prefetcher, older ones count half */
#define TRIAL 256 /* touches after which one that was no good may try again, at first */
#define TRIAL_MAX 65536
#define PROVEN 32 /* touches in a row that one saw coming: it may try again at once */
#define AHEAD 24  /* of 255: so much better has another to be to take its turn */

static struct {
	unsigned issued, wasted;
	uint64_t retry; /* touches */
	unsigned trial;
	unsigned foreseen; /* touches in a row */
} record[PREFETCHERS];
static unsigned depth_max;
/* What the program has asked for (emf_will_need), oldest first; lanes of its own. */
static struct {
	struct {
		uint32_t next, last; /* numbers of blocks */
	} range[WANTED];
	unsigned n, outstanding;
} wanted;
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
	memset(&wanted, 0, sizeof(wanted));
	for (unsigned i = 0; i < PREFETCHERS; i++) {
		memset(record + i, 0, sizeof(record[i]));
		record[i].trial = TRIAL;
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
	if (!record[i].trial)
		record[i].trial = TRIAL;
	record[i].retry = touches + record[i].trial;
	if (record[i].trial < TRIAL_MAX)
		record[i].trial *= 2;
	return false;
}

/* What it foresees is worth less where it fetches much that is not used. */
static unsigned worth(const struct policy_region *n, unsigned i)
{
	unsigned wasted = n->foreseen[i] * record[i].wasted / (record[i].issued + 1);

	/* What was issued before the record began may be wasted after. */
	return wasted < n->foreseen[i] ? n->foreseen[i] - wasted : 0;
}

static const struct prefetcher *chosen(struct region *r)
{
	const struct emf_class *c = view_region_class(r);
	struct policy_region *n = view_note_of(r);

	switch (c ? c->prefetch : EMF_PREFETCH_AUTO) {
	case EMF_PREFETCH_OFF:
		return NULL;
	case EMF_PREFETCH_SEQUENTIAL:
		return &prefetch_sequential;
	case EMF_PREFETCH_TREND:
		return &prefetch_trend;
	case EMF_PREFETCH_LEARNED:
		return &prefetch_learned;
	case EMF_PREFETCH_AUTO:
		break;
	}
	if (view_random(r))
		return NULL;
	for (unsigned i = 0; i < PREFETCHERS; i++)
		if (worth(n, i) > worth(n, n->prefetcher) + AHEAD)
			n->prefetcher = (uint8_t)i;
	return table[n->prefetcher];
}

bool prefetch_may(const struct prefetcher *p, struct region *r)
{
	return chosen(r) == p;
}

void prefetch_touched(struct block *b, bool ahead)
{
	unsigned lane = *view_lane(b);
	struct policy_region *n = view_region_note(b);

	touches++;
	for (unsigned i = 0; i < PREFETCHERS; i++) {
		bool own = ahead && lane / LANES == i;
		int now = table[i]->touched(b, !ahead, own ? (int)(lane % LANES) : -1) ? 255 : 0;
		record[i].foreseen = now ? record[i].foreseen + 1 : 0;
		if (record[i].foreseen == PROVEN) {
			record[i].retry = 0;
			record[i].trial = TRIAL;
		}
		n->foreseen[i] = (uint8_t)(n->foreseen[i] + (now - n->foreseen[i]) / 8);
	}
	if (ahead)
		view_note(b)->wasted = 0;
	if (ahead && lane / LANES == PREFETCHERS && wanted.outstanding)
		wanted.outstanding--;
}

void prefetch_wanted(const struct block *first, const struct block *last)
{
	if (wanted.n == WANTED) {
		wanted.n--;
		memmove(wanted.range, wanted.range + 1, wanted.n * sizeof(*wanted.range));
	}
	wanted.range[wanted.n].next = view_number(first);
	wanted.range[wanted.n++].last = view_number(last);
}

/* The next of what was asked for that is far; bounded, it goes on where it was. */
static struct block *next_wanted(void)
{
	for (unsigned k = 0; wanted.n && wanted.outstanding < 4 * depth_max && k < WALK; k++) {
		struct block *b = view_find(wanted.range[0].next);
		if (wanted.range[0].next++ == wanted.range[0].last) {
			wanted.n--;
			memmove(wanted.range, wanted.range + 1, wanted.n * sizeof(*wanted.range));
		}
		if (b && view_far(b)) {
			wanted.outstanding++;
			*view_lane(b) = (uint8_t)(PREFETCHERS * LANES);
			return b;
		}
	}
	return NULL;
}

struct block *prefetch_next(void)
{
	struct block *b;
	unsigned lane;

	if ((b = next_wanted()))
		return b;
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

	if (i == PREFETCHERS && wanted.outstanding)
		wanted.outstanding--;
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
