/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Least recently used, by second chance: the oldest blocks are put into standby, and
 * those that nobody touches there go first. Best where what was used just now will be
 * used again soon; the worst there is for a sweep that is larger than memory.
 */
#include "policy/view.h"

static struct block_list active;

static void resize(size_t capacity, size_t total)
{
	(void)capacity;
	(void)total;
}

static void reset(void)
{
	active = (struct block_list){ 0 };
}

static bool arrived(struct block *b, const struct arrived *a)
{
	(void)a;
	list_append(&active, b);
	return true;
}

static struct block *oldest(void)
{
	return active.head;
}

static bool spent(struct block *b, uint64_t age)
{
	(void)b;
	(void)age;
	return true; /* it has had its second chance */
}

static size_t count(void)
{
	return active.count;
}

const struct replacement policy_lru = {
	.watch = 2,
	.resize = resize,
	.reset = reset,
	.arrived = arrived,
	.victim = oldest,
	.suspect = oldest,
	.spent = spent,
	.count = count,
};
