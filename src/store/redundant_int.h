/* SPDX-License-Identifier: Apache-2.0 */
/* What redundant.c (transfers) and rebuild.c share. */
#ifndef EMF_REDUNDANT_INT_H
#define EMF_REDUNDANT_INT_H

#include <stdatomic.h>
#include <string.h>

#include "layout.h"
#include "patrol.h"
#include "pool_int.h"
#include "redundant.h"

#define PAGE 4096u
/* The member of a column that has no place. */
#define NOWHERE STORE_LEAVES

/* Which bytes of a slot, or of a column, were written. */
struct range {
	size_t from, to;
};

struct redundant {
	struct pool p;	      /* where columns lie */
	struct layout layout; /* where they do at first */
	uint64_t (*hash)(const void *buf, size_t length);
	void *encoder; /* k > 1: for all m parity columns */
	unsigned rows; /* clusters of a column */
	/* For each slot. Used by one thread at a time, as the slot is, but for stale and version.
	 */
	uint32_t *extent;	 /* first page << 16 | end; 0: not written */
	_Atomic uint16_t *stale; /* a mask of columns */
	/* Columns on which something was cut off that may still come to pass, after the next write:
	 * so what is written then is looked at once more, as if it were stale. */
	_Atomic uint16_t *unsure;
	_Atomic uint32_t *version; /* odd: a write is under way */
	uint64_t *parity_sum;	   /* m * rows, of the parity clusters */
	_Atomic int64_t all_stale; /* columns */
	/* Of them, on each member. Where columns move that can be wrong; it is counted anew then.
	 */
	_Atomic int64_t nstale[STORE_LEAVES + 1];
	_Atomic uint32_t lied;	 /* a mask of members: what was not stale there was wrong */
	struct rebuild *rebuild; /* the store's thread's */
	struct patrol patrol;
};

static inline unsigned width(const struct redundant *r)
{
	return r->layout.k + r->layout.m;
}

static inline unsigned member_of(const struct redundant *r, uint64_t slot, unsigned column)
{
	uint32_t place = pool_look(&r->p, slot, column);

	return place ? PLACE_MEMBER(place) : NOWHERE;
}

/* It is one, and not left. */
static inline bool is_member(const struct redundant *r, unsigned i)
{
	return !pool_is_state(&r->p, i, MEMBER_NONE) && !pool_is_state(&r->p, i, MEMBER_LEAVING);
}

static inline unsigned members(const struct redundant *r)
{
	return atomic_load(&r->p.n);
}

static inline uint64_t high_of(const struct redundant *r)
{
	return atomic_load(&r->p.shared->high);
}

static inline struct range extent_of(const struct redundant *r, uint64_t slot)
{
	uint32_t e = r->extent[slot];

	return (struct range){ (size_t)(e >> 16) * PAGE, (size_t)(e & 0xffff) * PAGE };
}

static inline bool is_copy(const struct redundant *r)
{
	return r->layout.k == 1;
}

static inline bool is_parity(const struct redundant *r, unsigned column)
{
	return !is_copy(r) && column >= r->layout.k;
}

/*
 * The part of a column that a part of the slot takes: for a parity column all the rows
 * that it touches. Empty: none.
 */
static inline struct range in_column(const struct redundant *r, unsigned column, struct range slot)
{
	size_t size = (size_t)r->layout.column;
	size_t base = is_copy(r) ? 0 : column * size;
	struct range c = { 0, 0 };

	if (slot.from >= slot.to)
		return c;
	if (is_parity(r, column)) {
		/* Row by row: [first, last] of the slot's clusters lie in these rows. */
		size_t first = slot.from / STORE_CLUSTER, last = (slot.to - 1) / STORE_CLUSTER;

		if (first / r->rows != last / r->rows) /* over a border of columns: simply all */
			return (struct range){ 0, size };
		c.from = first % r->rows * STORE_CLUSTER;
		c.to = (last % r->rows + 1) * STORE_CLUSTER;
		return c;
	}
	if (slot.to <= base || slot.from >= base + size)
		return c;
	c.from = slot.from > base ? slot.from - base : 0;
	c.to = slot.to < base + size ? slot.to - base : size;
	return c;
}

/* Is what buf holds of the column right? [at, at + length) is a part that was written. */
bool redundant_is_right(const struct redundant *r, uint64_t slot, unsigned column, size_t at,
			size_t length, const void *buf);
void redundant_set_stale(struct redundant *r, uint64_t slot, unsigned columns);
void redundant_clear_stale(struct redundant *r, uint64_t slot, unsigned columns);

/* For the patrol, by the store's thread. Nothing is stale that can be made good, and all members
 * answer. */
bool rebuild_is_idle(struct redundant *r);
/*
 * Reads all of the slot, and makes good what is wrong. False: not all of it could be looked at.
 * *moved: bytes, 0 where nothing is this process's.
 */
bool rebuild_look(struct redundant *r, uint64_t slot, uint64_t *moved);

/* Of pool_kind; the store's thread's. */
int rebuild_source(struct pool *p, uint64_t slot, unsigned column, uint32_t place, size_t within,
		   size_t length, char *buf, uint64_t *moved);
void rebuild_publish(struct pool *p);
void rebuild_left(struct pool *p, unsigned member);

#endif
