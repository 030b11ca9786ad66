/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Least frequently used, with decay: for memory of which some is touched again and again
 * and some now and then (experts). The measure is the mean gap between two touches
 * (policy.c keeps it): what is far or under watch shows it by
 * the time until the next touch, whichever of the two it is, so both can be compared.
 *
 * Resident blocks are on one list for each half power of two of their gap. The first
 * to go is one with the longest gap; what comes from the store takes its place if its own
 * gap is two lists shorter, else it streams through. The watch goes round: every
 * other look is at the coldest, where mistakes are decided, the others at all in turn.
 */
#include "policy/view.h"

#define LEVELS 64
#define MARGIN 2 /* lists: below that two gaps are not known to differ */

static struct block_list level[LEVELS];
static uint64_t filled; /* a bit for each list that holds something */
static size_t held;
static uint64_t share;
static unsigned turn;
static uint64_t typical; /* gap of what is not known yet */

static unsigned level_of(uint64_t gap)
{
	if (gap < 2)
		return 0;
	unsigned e = 63u - (unsigned)__builtin_clzll(gap);
	/* 1.5 is near enough to the root of 2. */
	return 2 * e + (unsigned)(gap >> (e - 1) & 1);
}

/* Lists are emptied by others (list_remove), so counts and bits are looked at afresh. */
static void recount(void)
{
	held = 0;
	filled = 0;
	for (unsigned i = 0; i < LEVELS; i++) {
		held += level[i].count;
		filled |= (uint64_t) !!level[i].count << i;
	}
}

static void resize(size_t capacity, size_t total)
{
	share = total > capacity ? (capacity << 16) / total : 1 << 16;
}

static void reset(void)
{
	for (unsigned i = 0; i < LEVELS; i++)
		level[i] = (struct block_list){ 0 };
	typical = 0;
	turn = 0;
}

static struct block *coldest(void)
{
	recount();
	return filled ? level[63u - (unsigned)__builtin_clzll(filled)].head : NULL;
}

static bool arrived(struct block *b, const struct arrived *a)
{
	struct policy_note *n = view_note(b);
	uint64_t gap = n->samples ? n->gap : typical;
	bool stays = a->probe || a->room;

	if (a->how == ARRIVE_FETCHED)
		typical = typical ? typical + (a->distance >> 3) - (typical >> 3) : a->distance;
	if (!stays && a->how == ARRIVE_NEW)
		stays = policy_in_share(b, share);
	if (!stays && a->how == ARRIVE_FETCHED) {
		struct block *c = coldest();
		if (c && level_of(view_note(c)->samples ? view_note(c)->gap : typical) <
			     level_of(gap) + MARGIN)
			c = NULL;
		/* Both memories have to say that it is used so often (where a tour grows the long
		 * one is late); what was just now counts the less the more is known. */
		uint64_t usual = n->samples && n->lately > gap ? n->lately : gap;
		uint64_t expected = (usual * n->samples + 2 * a->distance) / (n->samples + 2);
		stays = policy_exchange(expected + expected / 4, true, c);
	}
	if (stays)
		list_append(level + level_of(gap), b);
	return stays;
}

static struct block *suspect(void)
{
	struct block *b = coldest();

	if (turn++ % 2 || !b)
		return b;
	/* The next list that holds something, from where the last look was. */
	unsigned from = turn / 2 % LEVELS;
	uint64_t above = filled >> from;
	return level[above ? from + (unsigned)__builtin_ctzll(above)
			   : (unsigned)__builtin_ctzll(filled)]
	    .head;
}

static bool spent(struct block *b, uint64_t age)
{
	(void)b;
	(void)age;
	return false;
}

static size_t count(void)
{
	recount();
	return held;
}

const struct replacement policy_lfu = {
	.watch = 4,
	.resize = resize,
	.reset = reset,
	.arrived = arrived,
	.victim = coldest,
	.suspect = suspect,
	.spent = spent,
	.count = count,
};
