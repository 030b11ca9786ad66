/* SPDX-License-Identifier: Apache-2.0 */
#include "governor.h"

#define SECOND 1000000000ull
#define SHARE_PERCENT 80
#define PATIENCE_MIN (10 * SECOND)
#define PATIENCE_MAX (320 * SECOND)
/* The kernel's own example of a trigger that means trouble is 15% of a second. */
#define STALLED_PERCENT 15
#define STEP_MIN (2ull << 20)

static uint64_t least(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static uint64_t most(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

static uint64_t less(uint64_t a, uint64_t b)
{
	return a > b ? a - b : 0;
}

/* Do tasks wait for memory, and is that for want of it? */
static bool pressed(struct governor *g, const struct memory_sample *s, uint64_t now)
{
	uint64_t before = g->stall_us, us = (now - g->at) / 1000;

	g->stall_us = s->stall_us;
	if (!g->at || before == UINT64_MAX || s->stall_us == UINT64_MAX || s->stall_us < before)
		return false;
	/* With plenty left it is others' limits, or compaction for huge pages. */
	if (s->room > s->total / 4)
		return false;
	return s->stall_us - before > us / 100 * STALLED_PERCENT;
}

static void squeeze(struct governor *g, bool more, uint64_t top, uint64_t now)
{
	if (more) {
		/* From where it is, if that is less already; never below a quarter. */
		g->squeeze =
		    most(g->squeeze, less(top, g->budget)) + most(g->budget / 16, STEP_MIN);
		g->squeeze = least(g->squeeze, top / 4 * 3);
		if (g->grown)
			g->patience = least(2 * g->patience, PATIENCE_MAX);
		g->grown = false;
		g->quiet = now;
		return;
	}
	if (now - g->quiet < g->patience)
		return;
	if (g->squeeze) {
		g->squeeze = less(g->squeeze, most(top / 64, STEP_MIN));
		g->grown = true;
	} else if (now - g->quiet > 4 * g->patience) {
		g->patience = PATIENCE_MIN;
		g->grown = false;
	}
}

uint64_t governor_step(struct governor *g, const struct memory_sample *s, uint64_t local,
		       uint64_t budget, uint64_t now)
{
	uint64_t unmanaged = less(s->rss, local);
	uint64_t top = less(s->total / 100 * SHARE_PERCENT, unmanaged);
	uint64_t fit = less(least(local, s->rss) + s->room, s->total / 20);
	uint64_t slack = most(s->total / 128, STEP_MIN), wanted;

	g->budget = budget;
	if (!g->patience) {
		g->patience = PATIENCE_MIN;
		g->quiet = now;
	}
	squeeze(g, pressed(g, s, now), top, now);
	g->at = now;
	wanted = least(less(top, g->squeeze), fit);
	/* What is worse than no room for others is a program that can't work at all. */
	wanted = most(wanted, s->total / 32);
	if (wanted < budget) {
		/* Small changes are noise; of others that do the same each does its part. */
		if (budget - wanted > slack)
			g->budget = budget - (budget - wanted + 1) / 2;
		else if (s->room < s->total / 20)
			g->budget = wanted;
	} else if (wanted - budget > slack && now - g->quiet >= g->patience) {
		g->budget = least(wanted, budget + most(top / 64, STEP_MIN));
	}
	return g->budget;
}
