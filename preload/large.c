/* SPDX-License-Identifier: Apache-2.0 */
#include <stdatomic.h>

#include "kernel.h"
#include "preload.h"

/*
 * Open addressing with a window of a few slots and no more, so that nothing needs to
 * be moved or marked when a record goes. Far more slots than there can be regions.
 */
#define SLOTS 65536u
#define WINDOW 16u

struct record {
	_Atomic uintptr_t addr; /* 0: free */
	_Atomic size_t len;
};

static struct record *_Atomic table;

static struct record *get_table(void)
{
	struct record *t = atomic_load(&table), *none = NULL;

	if (t)
		return t;
	t = k_reserve(SLOTS * sizeof(*t), K_PAGE, false);
	if (t && !atomic_compare_exchange_strong(&table, &none, t)) {
		k_unmap(t, SLOTS * sizeof(*t));
		t = none;
	}
	return t;
}

static struct record *slot(struct record *t, uintptr_t addr, unsigned i)
{
	/* Fibonacci hashing (Knuth, TAOCP 3, 6.4): addresses differ in their middle bits. */
	return t + (((addr >> 12) * 0x9e3779b97f4a7c15ull >> 48) + i) % SLOTS;
}

static struct record *find(const void *p)
{
	struct record *t = atomic_load(&table);

	for (unsigned i = 0; t && i < WINDOW; i++)
		if (slot(t, (uintptr_t)p, i)->addr == (uintptr_t)p)
			return slot(t, (uintptr_t)p, i);
	return NULL;
}

bool large_add(void *p, size_t len)
{
	struct record *t = get_table();

	for (unsigned i = 0; t && i < WINDOW; i++) {
		struct record *r = slot(t, (uintptr_t)p, i);
		uintptr_t none = 0;
		if (atomic_compare_exchange_strong(&r->addr, &none, (uintptr_t)p)) {
			r->len = len;
			return true;
		}
	}
	return false;
}

size_t large_length(const void *p)
{
	if (!p || (uintptr_t)p & (K_PAGE - 1))
		return 0;
	const struct record *r = find(p);
	return r ? r->len : 0;
}

void large_remove(void *p)
{
	struct record *r = find(p);

	if (r)
		r->addr = 0;
}
