/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Learned prefetch: an inference process repeats nearly the same tour for every token. The
 * blocks that it comes to are logged in order; when it comes to one that the log has,
 * what followed there is likely to follow now (temporal streaming, Wenisch and others,
 * ISCA 2005). A guide is a place in the log that the program seems to go along; it runs
 * ahead by as much as the links need. Since the log goes on to the touches of just now, a guide
 * goes round and round by itself.
 *
 * Wrong turns: a touch that is a little ahead of or behind a guide is the work of several
 * threads. Any other touch starts a guide of its own, beside those that there are,
 * which must be right once before it fetches anything; a guide that is not followed
 * is the first to be replaced. Blocks that were fetched for nothing twice in a row are left
 * out until they are missed. Memory: 4 bytes for each entry of the log.
 */
#include <string.h>

#include "policy/view.h"

#ifndef LEARNED_LOG
#define LEARNED_LOG 65536u /* 256 KiB; a tour of 128 GiB, or some of a smaller program */
#endif
#define GUIDES 8
#define AHEAD 16      /* entries that a touch may be ahead of its guide, */
#define BEHIND 16     /* or behind it */
#define LOOKAHEAD 256 /* entries between a guide and its head */
#define WALK 1024     /* entries looked at for one answer */

struct guide {
	bool used;
	uint32_t pos, head; /* in the log: where the program is; the next to look at */
	unsigned outstanding, confidence;
	uint64_t when;
};

static uint32_t log_number[LEARNED_LOG];
static uint32_t end = 1; /* positions count on and on; 0 is none */
static struct guide guides[GUIDES];
static uint64_t clock;
static void reset(void)
{
	memset(guides, 0, sizeof(guides));
	memset(log_number, 0, end < LEARNED_LOG ? end * sizeof(*log_number) : sizeof(log_number));
	clock = 0;
	end = 1;
}

static bool is_logged(uint32_t pos)
{
	return pos && end - pos < LEARNED_LOG;
}

static void follow(struct guide *g, uint32_t pos)
{
	if ((int32_t)(pos - g->pos) > 0)
		g->pos = pos;
	if ((int32_t)(g->head - pos) <= 0) {
		/* Whatever it had fetched and nobody came to is not ahead of the program any more.
		 */
		g->head = pos + 1;
		g->outstanding = 0;
	}
	g->confidence++;
	g->when = clock;
}

/* The program was at this place of the log. True: one that has been right before was near. */
static bool guided(uint32_t pos)
{
	struct guide *g, *least = guides;

	for (g = guides; g < guides + GUIDES; g++) {
		int32_t by = (int32_t)(pos - g->pos);
		if (g->used && by > -BEHIND && by <= AHEAD) {
			follow(g, pos);
			return g->confidence > 1;
		}
		if (!g->used || (least->used && g->when < least->when))
			least = g;
	}
	*least = (struct guide){ .used = true, .pos = pos, .head = pos + 1, .when = clock };
	return false;
}

static bool touched(struct block *b, bool waited, int lane)
{
	struct policy_note *n = view_note(b);
	uint32_t number = view_number(b), before = n->seen;

	clock++;
	if (waited)
		n->wasted = 0;
	if (lane >= 0 && lane < GUIDES && guides[lane].outstanding)
		guides[lane].outstanding--;
	log_number[end % LEARNED_LOG] = number;
	n->seen = end++;
	if (!end)
		end = 1;
	if (is_logged(before) && log_number[before % LEARNED_LOG] == number)
		return guided(before);
	return false;
}

static struct block *walk(struct guide *g)
{
	for (unsigned i = 0; i < WALK && is_logged(g->head); i++, g->head++) {
		/* Half a tour ahead "far" is not yet said for the next round, and a head that is a
		 * whole one ahead sees only what was just touched: it would never fetch again. */
		uint32_t half = (end - g->pos) / 2;
		if (g->head - g->pos > (half < LOOKAHEAD ? half : LOOKAHEAD))
			return NULL;
		struct block *b = view_find(log_number[g->head % LEARNED_LOG]);
		if (!b || !view_far(b) || view_note(b)->wasted >= 2)
			continue;
		if (!prefetch_may(&prefetch_learned, view_region(b)))
			continue;
		if (g->outstanding >= prefetch_depth(view_region(b), g->confidence))
			return NULL;
		g->head++;
		return b;
	}
	return NULL;
}

static struct block *next(unsigned *lane)
{
	for (unsigned i = 0; i < GUIDES; i++) {
		struct guide *g = guides + i;
		if (!g->used || !g->confidence)
			continue;
		struct block *b = walk(g);
		if (!b)
			continue;
		g->outstanding++;
		*lane = i;
		return b;
	}
	return NULL;
}

static void wasted(struct block *b, unsigned lane)
{
	struct guide *g = guides + lane % GUIDES;

	(void)b;
	if (g->outstanding)
		g->outstanding--;
	g->confidence /= 2;
}

static void region_gone(const struct region *r)
{
	(void)r; /* it keeps numbers */
}

const struct prefetcher prefetch_learned = {
	.reset = reset,
	.touched = touched,
	.next = next,
	.wasted = wasted,
	.region_gone = region_gone,
};
