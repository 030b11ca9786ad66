/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All that a policy can see and do: blocks and regions as handles, lists, a note in each
 * block, and what the policies tell each other. A policy is one file that includes this
 * and defines one struct replacement, which policy.c and shadow.c have in their tables, or one
 * struct prefetcher (prefetch.c).
 * tests/cli/symbols.sh holds the files to it.
 *
 * Handles die with their region: keep numbers (view_number), lists, or what
 * region_gone clears. The clock is the count of fetches: it stands still while
 * everything fits, and does not mind how fast the program is.
 */
#ifndef EMF_POLICY_VIEW_H
#define EMF_POLICY_VIEW_H

#include "config.h"
#include "list.h"
#include "policy/policy.h"

/* --- blocks (src/view.c) --- */

struct region *view_region(const struct block *b);
size_t view_index(const struct block *b);
size_t view_count(const struct region *r);
struct block *view_block(struct region *r, size_t i);
struct policy_note *view_note(struct block *b);
/* What the policies keep of its region. */
struct policy_region *view_region_note(struct block *b);
const struct block_list *view_list(const struct block *b);
/* The one behind it on its list. */
struct block *view_next(const struct block *b);
/* In the store, or on its way from there. */
bool view_away(const struct block *b);
/* In the store, and nobody has asked for it. */
bool view_far(const struct block *b);
bool view_mapped(const struct block *b);
/* Fetches so far when it was last unmapped: since then it is under watch. */
uint64_t view_left(const struct block *b);
/* The class of its region, or NULL. */
const struct emf_class *view_class(const struct block *b);
const struct emf_class *view_region_class(const struct region *r);
/* Has the program said that it jumps about in it? */
bool view_random(const struct region *r);
struct policy_region *view_note_of(struct region *r);
/* Of all regions, NULL behind the last. */
struct region *view_region_at(size_t i);
/* Of the prefetcher that has asked for it. */
uint8_t *view_lane(struct block *b);
/* Its place in the address space, in blocks; and back, NULL: nothing managed is there. */
uint32_t view_number(const struct block *b);
struct block *view_find(uint32_t number);

/* --- replacement --- */

struct arrived {
	enum arrival how;
	bool probe;	   /* it was under watch, untouched since then */
	bool room;	   /* the budget is not used up */
	uint64_t distance; /* fetches since it was unmapped */
	uint64_t now;
};

struct replacement {
	unsigned watch; /* of so many resident blocks one is under watch */
	/* The blocks that can be local at once, and those that there are. */
	void (*resize)(size_t capacity, size_t total);
	void (*reset)(void);
	/* Takes it onto a list of its own; false: it is to stream through. */
	bool (*arrived)(struct block *b, const struct arrived *a);
	/* The mapped block that it would give up first, or NULL. It stays on its list. */
	struct block *(*victim)(void);
	/* The mapped block of which it would like to know whether it is used, or NULL. */
	struct block *(*suspect)(void);
	/* Is this enough to give it up? It was untouched for age fetches. */
	bool (*spent)(struct block *b, uint64_t age);
	/* How many it has. */
	size_t (*count)(void);
};

extern const struct replacement policy_loop, policy_lru, policy_lfu;

/*
 * A block under watch that was untouched for longer than `age` fetches, or `other` (may be
 * NULL), is to be given up for one that is worth more. gaps: until it was untouched for twice its
 * gap that gap is what counts. False: there is none.
 */
bool policy_exchange(uint64_t age, bool gaps, struct block *other);
/* Mapped, and neither streaming nor to stay in any case. */
bool policy_is_settled(const struct block *b);
/* Of part/65536 of a region's blocks, evenly spread: is this one of them? */
bool policy_in_share(const struct block *b, uint64_t part);
/* behaviour.c sees every touch. */
void behaviour_touched(struct block *b, enum arrival how);
/* Which of the policies shadow.c finds best. */
const struct replacement *shadow_best(void);
void shadow_reset(void);
void shadow_resize(size_t capacity, size_t total);
void shadow_touched(struct block *b, const struct arrived *a);
/* A sampled block that is due to be watched again, or NULL. */
struct block *shadow_due(uint64_t now);

/*
 * sentry.c: what was under watch was touched; the block to put under watch as a sentry, or NULL;
 * is there doubt whether a region is still used, and the next of its blocks to put under watch.
 */
void sentry_reset(void);
void sentry_touched(struct block *b, uint64_t waited);
struct block *sentry_due(uint64_t now, uint64_t ns, uint64_t round);
bool sentry_doubts(void);
struct block *sentry_doubted(void);

/* --- prefetch --- */

/* What a prefetcher remembers of a block that it asked for. */
#define LANES 32

struct prefetcher {
	void (*reset)(void);
	/*
	 * The program came to this block, which this prefetcher had fetched ahead on this lane if
	 * lane >= 0. waited: it was away. True: it saw that coming, in
	 * time to fetch it.
	 */
	bool (*touched)(struct block *b, bool waited, int lane);
	/* A block to fetch, and the lane that it is on; NULL: none. */
	struct block *(*next)(unsigned *lane);
	/* What it had asked for on this lane was not touched. */
	void (*wasted)(struct block *b, unsigned lane);
	void (*region_gone)(const struct region *r);
};

extern const struct prefetcher prefetch_sequential, prefetch_trend, prefetch_learned;

/* May this prefetcher fetch blocks of the region? */
bool prefetch_may(const struct prefetcher *p, struct region *r);
/* How many blocks ahead of the program, for one that was right so many times in a row. */
unsigned prefetch_depth(const struct region *r, unsigned confidence);

#endif
