/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Policy: which block to give up, which to fetch ahead. It is told what happens
 * and answers questions; it sees blocks as handles (view.h) and changes nothing of
 * the engine. All under engine.lock; nothing here allocates or waits, and each call
 * does a bounded amount of work.
 *
 * policy.c has what all replacement policies share and asks the one that a region
 * is under (loop.c, lru.c, lfu.c; shadow.c says which is best where the settings
 * leave it open; sentry.c sees when a region is used no more); prefetch.c does the same for
 * sequential.c, trend.c and learned.c.
 */
#ifndef EMF_POLICY_H
#define EMF_POLICY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct block;
struct region;

/* What the policies keep of a block, in it: what moves with it and costs no lookup. */
struct policy_note {
	uint32_t gap;	 /* fetches between two touches, a running mean; 0: not known */
	uint32_t lately; /* the same of the last few */
	uint32_t when;	 /* clock of the last touch that was seen, its lowest bits */
	uint32_t seen;	 /* learned.c: where in its log the block was last; 0: nowhere */
	uint8_t samples; /* that gap is the mean of, saturating */
	uint8_t wasted;	 /* times in a row that it was fetched ahead for nothing */
	bool streamed;	 /* has not been resident since then */
	bool loaded;	 /* was touched once only, when it was new */
	bool pinned;	 /* emf_pin: stays local while anything else can go */
};

/* And of a region. */
struct policy_region {
	uint64_t touched;    /* fetches so far when anything of it was seen to be touched */
	bool silent;	     /* for longer than a round: the program uses something else now */
	uint8_t foreseen[3]; /* of the touches, by each prefetcher, in 255ths; prefetch.c */
	uint8_t prefetcher;  /* the one whose turn it is */
	/* sentry.c */
	uint32_t wait;	 /* 16 times the fetches until what is under watch is touched, a mean */
	uint32_t sentry; /* index of the block */
	uint8_t waits;	 /* that it is the mean of, saturating */
	/* behaviour.c */
	uint32_t last;				  /* index of the last block that was touched */
	uint8_t events, fresh, back, near, wrote; /* since it was judged last */
	uint8_t does;				  /* EMF_DOES_* */
	bool turned; /* it was something else before: look for its class */
};

/*
 * blocks: how many of 2 MiB the budget holds, what is kept free for fetches not counted.
 * May be called again when that changes: what is known and listed stays.
 */
void policy_init(size_t blocks);
/* Forgets everything; no block may be on a list of the policies' (the child of a fork). */
void policy_reset(void);
/* How many blocks there are in all regions. */
void policy_total(size_t blocks);
/* The same for prefetch; blocks: the budget. */
void prefetch_init(size_t blocks);
void prefetch_reset(void);

/* --- replacement (policy.c) --- */

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
/* A resident block whose use is in doubt and should be probed now, or NULL. ns: the time. */
struct block *policy_probe(uint64_t now, uint64_t ns);
/* The oldest probe, for who needs a frame at once, or NULL. */
struct block *policy_oldest_probe(void);
/* The first write to it since it was fetched. */
void policy_written(struct block *b);
/* Its pin or its region's class has changed. */
void policy_reclassed(struct block *b);
/* The program won't need it soon: it is the next to go. */
void policy_dismissed(struct block *b);

/* --- prefetch (prefetch.c) --- */

/* A thread waited for this block (ahead: false) or touched it where prefetch had put it. */
void prefetch_touched(struct block *b, bool ahead);
/* The next FAR block to fetch ahead, or NULL. It counts as issued. */
struct block *prefetch_next(void);
/* An issued block left without having been touched. */
void prefetch_wasted(struct block *b);
void prefetch_region_gone(const struct region *r);
/* The program says that it will need these, in this order. */
void prefetch_wanted(const struct block *first, const struct block *last);

#endif
