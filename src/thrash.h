/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Progress of threads that need several blocks at once. One instruction may need four (it
 * reads and writes across two borders each); with a small budget, or many threads, the first is
 * gone again before the last has come, over and over. So who faults again and again on the
 * same few pages has their blocks spared from eviction for a while, ever longer, and where
 * nothing else can leave the budget is exceeded (mover.c). Under engine.lock.
 */
#ifndef EMF_THRASH_H
#define EMF_THRASH_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct block;

/* The thread waits for a page of the block. */
void thrash_fault(struct block *b, uintptr_t page, pid_t tid, uint64_t now);
/* May it not be evicted yet? */
bool thrash_spares(const struct block *b);
/* Is any block spared? */
bool thrash_now(void);

#endif
