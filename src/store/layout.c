/* SPDX-License-Identifier: Apache-2.0 */
#include "layout.h"

#include <errno.h>

#ifndef SLOT
#define SLOT (2u << 20)
#endif
#define CLUSTERS (SLOT / STORE_CLUSTER)

static unsigned common(unsigned a, unsigned b)
{
	return b ? common(b, a % b) : a;
}

int layout_init(struct layout *l, const uint64_t *size, unsigned n, unsigned k, unsigned m)
{
	unsigned width = k + m;
	uint64_t below = 0;

	*l = (struct layout){ .k = k, .m = m, .n = n };
	if (!k || n < width || n > STORE_LEAVES)
		return -EINVAL;
	l->column = (uint64_t)((CLUSTERS + k - 1) / k) * STORE_CLUSTER;
	for (unsigned i = 0; i < n; i++) {
		unsigned at = i;

		for (; at && size[l->by_size[at - 1]] < size[i]; at--)
			l->by_size[at] = l->by_size[at - 1];
		l->by_size[at] = (uint8_t)i;
	}
	/* From the smallest up: up to its end, all that are not smaller. */
	for (unsigned members = n; members >= width; members--) {
		uint64_t end = size[l->by_size[members - 1]] / l->column;

		if (end == below)
			continue;
		l->zone[l->nzones++] = (struct zone){
			.first = l->slots,
			.at = below,
			.n = members,
			.cycle = members / common(members, width),
		};
		l->slots += (end - below) * members / width;
		below = end;
	}
	return l->slots ? 0 : -ENOSPC;
}

unsigned layout_place(const struct layout *l, uint64_t slot, unsigned column, uint64_t *offset)
{
	unsigned width = l->k + l->m, i = l->nzones - 1;

	while (l->zone[i].first > slot)
		i--;
	const struct zone *z = &l->zone[i];
	uint64_t in = slot - z->first, unit = in * width + (column + in / z->cycle) % width;

	*offset = (z->at + unit / z->n) * l->column;
	return l->by_size[unit % z->n];
}
