/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A futex mutex and a waitable counter. libc's would do for the mutex, but these
 * are usable before libc is ready, can be re-made in the child of a fork, and
 * have ranks: in debug builds (-DEMF_DEBUG) a thread that takes locks out of
 * order aborts.
 *
 * The rule over all locks: none is held over a wait for a provider, and a program
 * thread that holds one has its signals blocked (a handler may call malloc).
 */
#ifndef EMF_LOCK_H
#define EMF_LOCK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* In the order in which they may be taken. */
enum lock_rank {
	RANK_DMA = 1, /* preload/dma.c: what is registered with devices */
	RANK_CHANGE,  /* engine.c: one call at a time that frees managed addresses */
	RANK_OPS,     /* engine.c: one structural operation at a time */
	RANK_FAULT,   /* fault.c: whoever is the fault thread now */
	RANK_ENGINE,  /* engine.h: regions, blocks, frames, slots, policy */
	RANK_ARENA,
};

struct lock {
	_Atomic uint32_t
	    word; /* 0 free, 1 held, 2 held and waited for (Drepper, "Futexes Are Tricky") */
	uint32_t rank;
};

#define LOCK_INIT(r)                                                                               \
	{                                                                                          \
		0, (r)                                                                             \
	}

void lock_take(struct lock *l);
/* False: somebody holds it. */
bool lock_try(struct lock *l);
void lock_give(struct lock *l);

/* Free, whoever held it: after a fork, by its one thread or by the holder. */
void lock_reset(struct lock *l);

/* Waits until *word differs from seen, or timeout_ms (-1: none) passed. */
void word_wait(_Atomic uint32_t *word, uint32_t seen, int timeout_ms);
/* Adds one and wakes all who wait. */
void word_signal(_Atomic uint32_t *word);

#endif
