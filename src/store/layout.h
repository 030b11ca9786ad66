/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the columns of a slot lie: k data and m parity columns (mirror: k is 1, all
 * columns are copies) of `column` bytes each, on k + m different members. Members may
 * differ in size: from the largest down, each range of offsets that at least k + m
 * members have is a zone, whose units go round over these members; so a large one is
 * used as long as it finds partners. Which member has which column changes from
 * slot to slot. Pure arithmetic, any thread.
 */
#ifndef EMF_LAYOUT_H
#define EMF_LAYOUT_H

#include <stdint.h>

#include "store.h"

struct layout {
	unsigned k, m, n;
	uint64_t column; /* bytes on a member for a slot */
	uint64_t slots;
	unsigned nzones;
	struct zone {
		uint64_t first; /* slot */
		uint64_t at;	/* the offset in its members where it begins, in columns */
		unsigned n;	/* its members are the n largest */
		unsigned cycle; /* so many slots begin at different members */
	} zone[STORE_LEAVES];
	uint8_t by_size[STORE_LEAVES];
};

/* -EINVAL: fewer than k + m members; -ENOSPC: not one slot fits. */
int layout_init(struct layout *l, const uint64_t *size, unsigned n, unsigned k, unsigned m);
/* The member of a column of a slot, and where in it. */
unsigned layout_place(const struct layout *l, uint64_t slot, unsigned column, uint64_t *offset);

#endif
