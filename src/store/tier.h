/* SPDX-License-Identifier: Apache-2.0 */
/* What settings say of a tier of store.uri; see hierarchy.h. */
#ifndef EMF_STORE_TIER_H
#define EMF_STORE_TIER_H

#include <stdint.h>

struct store_tier {
	uint64_t capacity;  /* bytes; 0: all that its stores have */
	unsigned high, low; /* percent of it: slots are moved down above high, until low */
};

#endif
