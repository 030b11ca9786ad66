/* SPDX-License-Identifier: Apache-2.0 */
/* What hierarchy.c (transfers) and migrate.c (moves between tiers) share. */
#ifndef EMF_HIERARCHY_INT_H
#define EMF_HIERARCHY_INT_H

#include <stdatomic.h>
#include <stdbool.h>

#include "hierarchy.h"

#ifndef SLOT
#define SLOT (2u << 20)
#endif

/*
 * A slot's word. Changed by whoever transfers, with compare-and-swap: so the store's thread may
 * move the slot exactly if it still is where it was, nobody wrote it meanwhile and nobody
 * is at it now. The version is another one when a write begins, and again when it ends: it may have
 * been under way already when the store's thread looked.
 */
#define WORD_INDEX(w) ((uint32_t)(w))
#define WORD_TIER(w) ((unsigned)((w) >> 32 & 15) - 1u) /* of a slot that lies somewhere */
#define WORD_IS_PLACED(w) (((w) >> 32 & 15) != 0)
#define WORD_USERS(w) ((unsigned)((w) >> 36 & 0xfff))
#define WORD_USER (1ull << 36)
#define WORD_VERSION (1ull << 48)
#define WORD_PLACE(tier, index) ((uint64_t)((tier) + 1u) << 32 | (index))
#define WORD_PLACE_MASK 0xfffffffffull

/* How much a slot is used: reads, and in the high byte how often it was moved. */
#define HEAT_READS 0xffffffu
#define HEAT_MOVED 0x1000000u

struct place {
	unsigned tier;
	uint32_t index;
};

struct tier {
	struct hierarchy_tier is;
	uint32_t slots, high, low;
	_Atomic uint64_t *taken; /* a bit for each place */
	_Atomic uint32_t used, hand;
	_Atomic uint64_t avoid_until;		  /* ns: it refused a write, or failed */
	_Atomic uint64_t hits, promoted, demoted; /* the last two: into it */
};

struct migrate;

struct hierarchy {
	struct emf_backend be;
	struct emf_backend *sums;
	unsigned n, timeout_ms;
	uint64_t rate, slots;
	int ready_fd;
	_Atomic uint64_t high;	/* no slot from here on was ever written */
	_Atomic uint32_t usual; /* reads of a slot, on the average */
	_Atomic uint64_t *word; /* of each slot */
	_Atomic uint32_t *heat;
	_Atomic uint32_t *extent; /* what was written: first page, and how many above bit 16 */
	struct migrate *migrate;  /* the store's thread's */
	struct tier tier[STORE_LEAVES - 1]; /* WORD_TIER has room for 15 */
};

/* A free place of the tier; false: there is none. */
bool hierarchy_claim(struct hierarchy *h, unsigned tier, uint32_t *index);
void hierarchy_release(struct hierarchy *h, struct place p);
bool hierarchy_works(const struct hierarchy *h, unsigned tier, uint64_t now);
void migrate_end(struct hierarchy *h);

#endif
