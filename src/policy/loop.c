/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Replacement that survives a cyclic sweep. An LRU misses on every block of a loop
 * that is a little larger than memory; a resident set that is left alone while
 * the rest streams through hits on all of itself, which is Belady's optimum.
 *
 * `resident` is that set. It is spread evenly over each region, so that the links
 * can fetch while the program is on resident blocks: of the blocks that arrive for
 * the first time the share that the budget holds becomes resident, the others stream.
 * So that it follows the program, some of it is under watch at any time (policy.c).
 * A block that comes back from the store after a reuse distance of d fetches
 * takes the place of one that nobody has touched for clearly longer: the
 * evidence says that it is hotter. In a steady loop every block under watch is touched within
 * one round, so nothing is exchanged (refault distances as in the Linux kernel's
 * mm/workingset.c; the stream is 2Q's A1in, Johnson and Shasha, VLDB 1994).
 */
#include "policy/view.h"

static struct block_list resident;
static uint64_t share; /* of all blocks, 16 binary digits behind the point */

static void resize(size_t capacity, size_t total)
{
	share = total > capacity ? (capacity << 16) / total : 1 << 16;
}

static void reset(void)
{
	resident = (struct block_list){ 0 };
}

static bool arrived(struct block *b, const struct arrived *a)
{
	bool stays = a->probe;

	if (!stays)
		stays = a->how == ARRIVE_NEW ? policy_in_share(b, share) : a->room;
	/* A quarter more: several threads that share a sweep do not keep exactly to its order. */
	if (!stays && a->how == ARRIVE_FETCHED)
		stays = policy_exchange(a->distance + a->distance / 4, false, NULL);
	if (stays)
		list_append(&resident, b);
	return stays;
}

static struct block *oldest(void)
{
	return resident.head;
}

static bool spent(struct block *b, uint64_t age)
{
	(void)b;
	(void)age;
	return false; /* until something better comes along */
}

static size_t count(void)
{
	return resident.count;
}

const struct replacement policy_loop = {
	.watch = 8,
	.resize = resize,
	.reset = reset,
	.arrived = arrived,
	.victim = oldest,
	.suspect = oldest,
	.spent = spent,
	.count = count,
};
