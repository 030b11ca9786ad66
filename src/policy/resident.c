/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Replacement that survives a cyclic sweep. An LRU misses on every block of a loop
 * that is a little larger than memory; a resident set that is left alone while
 * the rest streams through hits on all of itself, which is Belady's optimum.
 *
 * `resident` is that set. It is spread evenly over each region, so that the links
 * can fetch while the program is on resident blocks: of the blocks that arrive for
 * the first time the share that the budget holds becomes resident. The others are
 * `transient`: a FIFO, the first to go once it is longer than a window. So that
 * the resident set follows the program, some of its blocks are probes at any time:
 * unmapped into standby, where the next touch costs one MOVE and proves their
 * use. A block that comes back from the store after a reuse distance of d fetches
 * takes the place of a probe that nobody has touched for more than 2d: the
 * evidence says that it is hotter. In a steady loop every probe is touched within
 * one round, so nothing is exchanged (refault distances as in the Linux kernel's
 * mm/workingset.c; the transient queue is 2Q's A1in, Johnson and Shasha, VLDB 1994).
 */
#include "block.h"
#include "config.h"
#include "policy.h"
#include "region.h"

static struct block_list resident, transient, probes, cold;
static size_t window; /* transient blocks that stay mapped behind a stream */
static uint64_t last_probe;
static size_t capacity; /* blocks that can be resident at once */
static size_t total;	/* blocks in all regions */
static uint64_t share;	/* of all blocks, 16 binary digits behind the point */

void policy_total(size_t blocks)
{
	total = blocks;
	share = blocks > capacity ? (capacity << 16) / blocks : 1 << 16;
}

/* Does the even spread put this block into the resident set? */
static bool in_share(const struct block *b, uint64_t part)
{
	uint64_t i = (uint64_t)(b - b->region->blocks);

	return ((i + 1) * part) >> 16 != (i * part) >> 16;
}

static void set_capacity(size_t blocks)
{
	window = blocks / 32;
	if (window < 2)
		window = 2;
	if (window > 16)
		window = 16;
	capacity = blocks > 2 * window ? blocks - window : window;
	policy_total(total);
}

void policy_init(size_t blocks)
{
	last_probe = 0;
	resident = transient = probes = cold = (struct block_list){ 0 };
	total = 0;
	set_capacity(blocks);
}

void policy_resize(size_t blocks)
{
	size_t before = capacity;
	struct block *next;

	set_capacity(blocks);
	if (capacity >= before)
		return;
	/* The first to go are those that are too many, wherever they are: what stays is spread
	 * evenly. */
	for (struct block *b = resident.head; b; b = next) {
		next = b->next;
		if (in_share(b, share))
			continue;
		list_remove(b);
		list_append(&transient, b);
	}
}

void policy_arrived(struct block *b, enum arrival how, uint64_t distance, bool room, uint64_t now)
{
	bool was_probe = b->list == &probes || b->list == &cold;

	list_remove(b);
	if (was_probe || (how == ARRIVE_NEW ? in_share(b, share) : room)) {
		list_append(&resident, b);
		return;
	}
	if (how == ARRIVE_FETCHED && probes.head && now - probes.head->evicted_at > 2 * distance) {
		struct block *p = probes.head;
		list_remove(p);
		list_append(&cold, p);
		list_append(&resident, b);
		return;
	}
	list_append(&transient, b);
}

void policy_probed(struct block *b, uint64_t now)
{
	last_probe = now;
	list_remove(b);
	list_append(&probes, b);
}

/* Is the block in the share that its class wants local, spread evenly over the region? */
static bool kept_by_class(const struct block *b)
{
	const struct emf_class *c = b->region->class;

	if (!c || !c->resident)
		return false;
	return in_share(b, ((uint64_t)c->resident << 16) / 100);
}

/* The first that may go, looking at a bounded number; those passed over go to the end. */
static struct block *first_of(struct block_list *l, bool spare_class)
{
	for (size_t tries = l->count < 64 ? l->count : 64; tries; tries--) {
		struct block *b = l->head;
		if (!(spare_class && kept_by_class(b)))
			return b;
		list_remove(b);
		list_append(l, b);
	}
	return NULL;
}

struct block *policy_victim(void)
{
	struct block *b = first_of(&cold, false);

	if (!b && transient.count > window)
		b = first_of(&transient, true);
	if (!b)
		b = first_of(&resident, true);
	if (!b)
		b = first_of(&transient, true);
	if (!b)
		b = first_of(&probes, false);
	if (!b)
		b = first_of(&resident, false);
	if (!b)
		b = first_of(&transient, false);
	return b;
}

struct block *policy_probe(uint64_t now)
{
	/* One for every fourth fetch costs well below 1% of what the fetches cost. */
	if (now < last_probe + 4 || probes.count >= resident.count / 8)
		return NULL;
	return first_of(&resident, true);
}

struct block *policy_oldest_probe(void)
{
	return first_of(cold.head ? &cold : &probes, false);
}
