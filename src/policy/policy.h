/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Policy: which block to give up, which to fetch ahead. It is told what happens
 * and answers questions; it sees blocks as handles and changes nothing of the
 * engine. All under engine.lock; nothing here allocates or waits.
 */
#ifndef EMF_POLICY_H
#define EMF_POLICY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct block;
struct region;

/* blocks: how many of 2 MiB the budget holds, what is kept free for fetches not counted. */
void policy_init(size_t blocks);
/* The budget holds so many from now on. Slow: it looks at every resident block. */
void policy_resize(size_t blocks);
/* How many blocks there are in all regions. */
void policy_total(size_t blocks);
void prefetch_init(size_t blocks);
void prefetch_resize(size_t blocks);

/* --- replacement (resident.c) --- */

enum arrival {
	ARRIVE_NEW,	/* first touch, or found in place */
	ARRIVE_FETCHED, /* came from the store; `distance` fetches after it had left */
	ARRIVE_STANDBY, /* was touched while in standby: recently used */
};
/* The block is mapped. room: the budget is not used up. now: fetches so far. */
void policy_arrived(struct block *b, enum arrival how, uint64_t distance, bool room, uint64_t now);
/* It was unmapped to learn whether it is still used (see policy_probe). */
void policy_probed(struct block *b, uint64_t now);
/* The block to give up next: LOCAL, or an untouched probe in STANDBY. NULL: none may go. */
struct block *policy_victim(void);
/* A resident block whose use is in doubt and should be probed now, or NULL. */
struct block *policy_probe(uint64_t now);
/* The oldest probe, for who needs a frame at once, or NULL. */
struct block *policy_oldest_probe(void);

/* --- prefetch (sequential.c) --- */

/* A thread waited for this block (ahead: false) or touched it where prefetch had put it. */
void prefetch_touched(struct block *b, bool ahead);
/* The next FAR block to fetch ahead, or NULL. It counts as issued. */
struct block *prefetch_next(void);
/* An issued block left without having been touched. */
void prefetch_wasted(struct block *b);
void prefetch_region_gone(const struct region *r);

#endif
