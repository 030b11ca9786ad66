/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a region does, judged by its last touches: classes can ask for it (does=). Only what
 * the policies see counts: first touches, fetches, and what is touched under watch.
 */
#include "policy/view.h"

#define JUDGED 64 /* events from one judgement to the next */
#define STEP 4	  /* blocks: so far from the last one it is the next, for several threads */

static unsigned judge(const struct policy_region *n)
{
	unsigned does = 0;

	if (n->fresh >= n->events / 4 && n->near >= n->events / 2 && n->back)
		does |= EMF_DOES_APPENDED;
	if (n->back < n->events / 2)
		return does;
	if (n->near >= n->events * 2 / 3)
		does |= EMF_DOES_SWEPT;
	else if (n->near < n->events / 3)
		does |= EMF_DOES_RANDOM;
	if (n->wrote >= n->back / 2)
		does |= EMF_DOES_SCRATCH;
	else if (n->wrote <= n->back / 16)
		does |= EMF_DOES_CONSTANT;
	return does;
}

void behaviour_touched(struct block *b, enum arrival how)
{
	struct policy_region *n = view_region_note(b);
	uint32_t i = (uint32_t)view_index(b);
	uint32_t by = i - n->last;

	n->last = i;
	n->events++;
	if (how == ARRIVE_NEW)
		n->fresh++;
	else
		n->back++;
	/* Also at its end, from where a sweep begins again. */
	if ((by + STEP <= 2 * STEP && by) || (!i && view_count(view_region(b)) > 1))
		n->near++;
	if (n->events < JUDGED)
		return;
	unsigned does = judge(n);
	n->turned |= does != n->does;
	n->does = (uint8_t)does;
	n->events = n->fresh = n->back = n->near = n->wrote = 0;
}

void policy_written(struct block *b)
{
	struct policy_region *n = view_region_note(b);

	if (n->wrote < UINT8_MAX)
		n->wrote++;
}
