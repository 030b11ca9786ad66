/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Transfers: a block's way to or from the store. A pool belongs to the thread that
 * owns the queue; a transfer can lose its block while under way (transfer_detach:
 * the block was taken back), then its frame and slot are let go when it ends.
 */
#ifndef EMF_TRANSFER_H
#define EMF_TRANSFER_H

#include <stdbool.h>
#include <stdint.h>

#include "emfatier-provider.h"
#include "slot.h"

struct block;

struct transfer {
	struct emf_io io;
	uint32_t frame, slot;  /* the block is the frame's owner, if it still has one */
	uint64_t begin;	       /* ns; 0: not in use */
	char *addr;	       /* in the frame, where the transfer begins */
	unsigned first, pages; /* of transfer_read_pages */
	struct transfer_pool *pool;
	struct transfer *next;
};

struct transfer_pool {
	struct emf_queue *queue;
	struct transfer *all, *free;
	char *clusters; /* a buffer of that size for each, of a demand queue; touched when it is
			   used */
	unsigned depth, inflight;
};

/* Opens a queue of the engine's store for the calling thread. */
int transfer_pool_init(struct transfer_pool *p, enum emf_queue_kind kind, unsigned depth);

/*
 * Which part of a slot to read for the block's own: whole clusters, as far as they were written,
 * for that is what has a checksum. pages 0: nothing of it was ever written.
 */
struct slot_extent transfer_extent(const struct block *b);

/* Where page `first` of the block's 2 MiB is: in the store, or in its file. */
uint64_t transfer_address(const struct block *b, size_t first);

/* NULL: it has lost its block, or never had one. Under engine.lock. */
struct block *transfer_block(const struct transfer *t);

/*
 * Under engine.lock; NULL: all are in use. The block must be FETCHING (read) or
 * WRITING (write) already. transfer_start submits, without the lock.
 */
struct transfer *transfer_read(struct transfer_pool *p, struct block *b);
/*
 * The same of n pages from `first` on, by way of a buffer, for which the unit of the store that
 * they are in is read, or the cluster; that was written as a whole. block_fetch_pages first.
 */
struct transfer *transfer_read_pages(struct transfer_pool *p, struct block *b, unsigned first,
				     unsigned n);
struct transfer *transfer_write(struct transfer_pool *p, struct block *b);
struct transfer *transfer_trim(struct transfer_pool *p, uint32_t slot);
/* The slot was chosen only now. Under engine.lock. */
void transfer_set_slot(struct transfer *t, uint32_t slot);
void transfer_start(struct transfer *t);
/* Under engine.lock: ended without having been started (nothing to write after all). */
void transfer_cancel(struct transfer *t);
/* Under engine.lock: the block goes its own way. */
void transfer_detach(struct transfer *t);
/* After that: but the slot stays the block's. */
void transfer_keep_slot(struct transfer *t);
/* Are all in use by transfers that lost their block, or does none have one? Under engine.lock. */
bool transfer_stuck(const struct transfer_pool *p);
bool transfer_idle(const struct transfer_pool *p);

/* By the pool's thread: is more than a cluster under way in one of them? */
bool transfer_is_long(const struct transfer_pool *p);

/* Lets go of blocks whose transfer takes longer than store.timeout. Under engine.lock. */
void transfer_expire(struct transfer_pool *p);

/* Ends what has ended. Without the lock. */
void transfer_poll(struct transfer_pool *p);

#endif
