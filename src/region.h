/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Regions: managed ranges of private anonymous memory, and the map from
 * addresses to them. All under engine.lock, but for region_near.
 */
#ifndef EMF_REGION_H
#define EMF_REGION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "block.h"

struct emf_class;

/* Why nothing of a region may leave local memory, nor move in it. */
enum {
	KEPT_LOCKED = 1 << 0, /* mlock */
	KEPT_DUMP = 1 << 1,   /* MADV_DONTDUMP */
	KEPT_WIPE = 1 << 2,   /* MADV_WIPEONFORK */
	KEPT_DEVICE = 1 << 3, /* registered for DMA */
	KEPT_ALWAYS = 1 << 4, /* code, pages that a pipe holds ... */
};

/* Is it touched here and there? See sparse.h. */
struct grain {
	uint8_t sparse, asked, caution;
	uint8_t alone; /* of the touches that no sweep led to, in 255ths, those that began none */
};

/* Is it swept? Of the blocks that were sampled. */
struct order {
	uint32_t last; /* index of the last one */
	uint8_t ahead; /* were ahead of that, more than not */
	bool swept;
};

struct region {
	uintptr_t start, end;
	uintptr_t base;	      /* where block 0 begins, or would: at most 2 MiB before start */
	struct block *blocks; /* block i covers [base + i * 2 MiB, ...) cut to the region */
	size_t nblocks;
	const struct emf_class *class; /* NULL: built-in behaviour */
	uint32_t who;	 /* a bit for each class that who made it is right for (config_who) */
	uint32_t order;	 /* it was the first to be made, the second ... */
	uint8_t name;	 /* given by the program (names.h); 0: none */
	bool registered; /* with userfaultfd; false while everything fits */
	bool no_fork;	 /* children do not get it (MADV_DONTFORK) */
	/*
	 * KEPT_*: all blocks are NONE, or LOST, and their pages the kernel's. It stays registered,
	 * for what was one mapping would be two for the program (mremap) for ever after.
	 */
	uint8_t kept;
	/*
	 * mapped.h: the file that all of it is filled from, NULL: none; and the offset in that of
	 * base, which may lie before the file's begin.
	 */
	struct source *source;
	int64_t file_at;
	uintptr_t lent; /* while one forks: a mapping of it for the child; 0: none */
	bool shared;	/* the program had mapped it MAP_SHARED */
	bool random;	/* MADV_RANDOM */
	struct grain grain;
	struct order order_seen; /* of what is in place: interleave.h */
	struct policy_region note;
};

/* Could this range hold managed memory? Without a lock, false positives only (2 MiB grain). */
bool region_near(uintptr_t start, size_t len);

/* Makes a region and puts it into the map. NULL: no memory, or too many regions. */
struct region *region_insert(uintptr_t start, uintptr_t end);
/* Takes it out of the map and frees it. No block may hold anything. */
void region_erase(struct region *r);

struct region *region_find(uintptr_t addr);
/* The first region that ends above addr, or NULL. */
struct region *region_next(uintptr_t addr);
/* The last region that ends at or below addr, or NULL. */
struct region *region_before(uintptr_t addr);
/* i-th in address order, NULL behind the last. */
struct region *region_at(size_t i);

/* The block of an address inside the region. */
struct block *region_block(struct region *r, uintptr_t addr);
static inline uintptr_t region_block_start(const struct region *r, size_t i)
{
	return r->base + (i << BLOCK_SHIFT);
}

/* r was made by the same call of the program's as `from`, and said to be the same by it. */
void region_inherit(struct region *r, const struct region *from);

/*
 * Cuts r at `at`; the new upper part is returned, r keeps the lower. A block that
 * spans the cut becomes two that look the same, the upper one on no list: the
 * caller sees to what they hold. NULL: no memory.
 */
struct region *region_split(struct region *r, uintptr_t at);
/* It ends at `end` now, further up. False: no memory. */
bool region_extend(struct region *r, uintptr_t end);
/* It starts at `to` now, where no region is; the blocks keep their places in it. */
void region_move(struct region *r, uintptr_t to);

size_t region_count(void);
size_t region_bytes(void);

/*
 * Address space for `len` bytes at the same place in 2 MiB as start, where what moves there keeps
 * its blocks. Without a lock. NULL: none.
 */
void *region_place(uintptr_t start, size_t len, int prot);

#endif
