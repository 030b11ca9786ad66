/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Slots: 2 MiB units of the far store, given out when a block is first written
 * out. Under engine.lock.
 *
 * A slot can be shared: by the two halves of a block that was cut, and by the
 * processes of a family, parent and forked children, that use one store. What is
 * shared is never written again. Who owns what is in a memfd that the family maps: a
 * mask of members for each slot, after a header page with the mask of members. A
 * member proves that it lives by a lock on the byte of its number, which the kernel
 * drops with the process; others then take over what it held. Whoever cleans up
 * after the last one (store/guard.h) reads the same masks.
 *
 * Slots that were given back wait to be trimmed, and are reused first.
 *
 * SLOT_FILE stands for the file of the block's region (mapped.h): it is shared by all, written by
 * none and costs nothing.
 */
#ifndef EMF_SLOT_H
#define EMF_SLOT_H

#include <stdbool.h>
#include <stdint.h>

#include "block.h"

/* ever_bytes: to what the store may grow. -ENOMEM, -ENOSPC: not one fits. */
int slot_init(uint64_t store_bytes, uint64_t ever_bytes);
/* The store has got more room, or less: within what it was said to have ever. */
void slot_set_capacity(uint64_t store_bytes);
int slot_memfd(void);
uint64_t slot_used(void);

uint32_t slot_alloc(void); /* NO_SLOT: the store is full */
/* Was it when one was asked for last, and has nothing been given back since? */
bool slot_none_left(void);
/* One more block uses it. */
void slot_share(uint32_t s);
void slot_free(uint32_t s);
/* One reason more not to write it, for who uses slot_free later; false: it is in no use. */
bool slot_hold(uint32_t s);
/* May its content be replaced? Not while anybody else uses it. */
bool slot_is_mine(uint32_t s);

/* From when its content may change in the store until it can't any more: see slot_reap. */
void slot_writing(uint32_t s);
void slot_wrote(uint32_t s);

/* Which part of it was written: [first, first + pages) of its 512 pages. */
struct slot_extent {
	uint16_t first, pages;
};
void slot_set_extent(uint32_t s, struct slot_extent e);
struct slot_extent slot_extent(uint32_t s);

/* A slot to trim now, or NO_SLOT; slot_trimmed ends it. */
uint32_t slot_to_trim(void);
uint64_t slot_freed_count(void);
void slot_trimmed(uint32_t s);

/*
 * fork. slot_fork: by the parent, before: a child is to be a member that holds
 * whatever we hold. Returns the descriptor of its life, for the child only, or -errno.
 * slot_forked: by the child; what it holds is then what the caller adds with slot_share. What it
 * gives up before slot_attach leaves only then.
 * slot_attach: by its runtime, with copies of slot_memfd and of its life.
 */
int slot_fork(void);
void slot_forked(void);
void slot_attach(int memfd, int life);
/* In the child, when it is to hold none: nothing of the parent's is ours. */
void slot_forget(void);

/* Are there no others in the family? */
bool slot_alone(void);
/* For the guard (store/guard.h): one more each time, beginning with 1. */
void slot_set_generation(uint64_t generation);
/* For it, too: where slots lie only this process knows from now on. Any thread, without the lock.
 */
void slot_set_scattered(void);
/* Slots that the memfd has room for. */
uint64_t slot_table(void);

/* Do others know of all that we use, and of nothing that is to be trimmed? For debug builds. */
bool slot_audit(void);

/*
 * Gives back what members held that had ended at the call before: a second apart or more. Cheap.
 * What they were writing to may still come into the store: that only `grace` ns after it was found.
 */
void slot_reap(uint64_t grace);

#endif
