/* SPDX-License-Identifier: Apache-2.0 */
#include "lock.h"

#include <limits.h>
#include <stdlib.h>

#include "kernel.h"

/* The engine's critical sections are a few microseconds: worth a short spin. */
#define SPINS 100

#ifdef EMF_DEBUG
static __thread uint32_t held __attribute__((tls_model("initial-exec"))); /* a bit a rank */

static void rank_take(const struct lock *l)
{
	if (held >> l->rank)
		abort();
	held |= 1u << l->rank;
}

static void rank_give(const struct lock *l)
{
	held &= ~(1u << l->rank);
}
#else
static void rank_take(const struct lock *l)
{
	(void)l;
}

static void rank_give(const struct lock *l)
{
	(void)l;
}
#endif

void lock_take(struct lock *l)
{
	uint32_t free = 0;

	rank_take(l);
	for (int i = 0; i < SPINS; i++) {
		if (atomic_compare_exchange_weak_explicit(&l->word, &free, 1, memory_order_acquire,
							  memory_order_relaxed))
			return;
		free = 0;
		__builtin_ia32_pause();
	}
	while (atomic_exchange_explicit(&l->word, 2, memory_order_acquire))
		k_futex_wait(&l->word, 2, -1);
}

bool lock_try(struct lock *l)
{
	uint32_t free = 0;

	if (!atomic_compare_exchange_strong_explicit(&l->word, &free, 1, memory_order_acquire,
						     memory_order_relaxed))
		return false;
	rank_take(l);
	return true;
}

void lock_give(struct lock *l)
{
	rank_give(l);
	if (atomic_exchange_explicit(&l->word, 0, memory_order_release) == 2)
		k_futex_wake(&l->word, 1);
}

void lock_reset(struct lock *l)
{
	rank_give(l);
	if (atomic_exchange_explicit(&l->word, 0, memory_order_release) == 2)
		k_futex_wake(&l->word, INT_MAX);
}

void word_wait(_Atomic uint32_t *word, uint32_t seen, int timeout_ms)
{
	if (atomic_load_explicit(word, memory_order_acquire) == seen)
		k_futex_wait(word, seen, timeout_ms);
}

void word_signal(_Atomic uint32_t *word)
{
	atomic_fetch_add_explicit(word, 1, memory_order_release);
	k_futex_wake(word, INT_MAX);
}
