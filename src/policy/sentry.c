/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sentries: while the other looks are rare, because all that they find is in use, each region
 * has one block under watch nevertheless. Memory that is touched far more often than once
 * in a round (scratch, activations) is seen by that to be used no more soon after it is: its
 * sentry waits several times as long as those before it. Then the blocks around it are put under
 * watch, too, so that they have been there for a round when the next one is over.
 */
#include "policy/view.h"

#include <string.h>

#define EVERY 16 /* fetches from one sentry to the next, at least */
#define EVERY_NS 1600000u
#define KNOWN 4	    /* waits, before it is known how long they are */
#define LONGER 4    /* times as long as they are */
#define VISIT 4	    /* fetches */
#define DOUBTED 64  /* blocks looked at when there is doubt */
#define REPRIEVE 16 /* as many less when one of them turns out to be in use */
#define WALK 64

static uint64_t placed, placed_ns;
static size_t turn;
static uint32_t doubt_at; /* number of a block */
static unsigned doubt;	  /* blocks behind it that are in doubt */

void sentry_reset(void)
{
	placed = placed_ns = turn = 0;
	doubt = 0;
}

bool sentry_doubts(void)
{
	return doubt;
}

void sentry_touched(struct block *b, uint64_t waited)
{
	struct policy_region *n = view_region_note(b);
	struct block *d = doubt ? view_find(doubt_at) : NULL;

	if (waited > UINT16_MAX)
		waited = UINT16_MAX;
	if (n->waits < KNOWN)
		n->waits++;
	n->wait = (uint32_t)((int64_t)n->wait + (16 * (int64_t)waited - n->wait) / n->waits);
	if (d && view_region(d) == view_region(b))
		doubt -= doubt < REPRIEVE ? doubt : REPRIEVE;
}

/* Unmapped, and not in the store. */
static bool is_watched(const struct block *b)
{
	return !view_mapped(b) && !view_away(b) && view_list(b);
}

struct block *sentry_doubted(void)
{
	struct block *b = doubt ? view_find(doubt_at) : NULL;

	if (!b) {
		doubt = 0;
		return NULL;
	}
	struct region *r = view_region(b);
	size_t i = view_index(b), n = view_count(r);
	for (unsigned k = 0; doubt && k < WALK; k++) {
		i = i + 1 < n ? i + 1 : 0;
		b = view_block(r, i);
		doubt_at = view_number(b);
		doubt--;
		if (policy_is_settled(b))
			return b;
	}
	return NULL;
}

struct block *sentry_due(uint64_t now, uint64_t ns, uint64_t round)
{
	if (now < placed + EVERY || ns < placed_ns + EVERY_NS || doubt)
		return NULL;
	struct region *r = view_region_at(turn++);
	if (!r) {
		turn = 0;
		return NULL;
	}
	struct policy_region *n = view_note_of(r);
	size_t i = n->sentry, count = view_count(r);
	struct block *b = i < count ? view_block(r, i) : NULL;
	if (b && is_watched(b)) {
		uint64_t age = now - view_left(b);
		if (n->waits == KNOWN && age > LONGER * (n->wait / 16 + VISIT) && age < round) {
			doubt_at = view_number(b);
			doubt = DOUBTED;
		}
		return NULL;
	}
	for (size_t k = 0; k < WALK && k < count; k++) {
		i = i + 1 < count ? i + 1 : 0;
		b = view_block(r, i);
		if (!policy_is_settled(b))
			continue;
		n->sentry = (uint32_t)i;
		placed = now;
		placed_ns = ns;
		return b;
	}
	n->sentry = (uint32_t)i;
	return NULL;
}
