/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The memory that is lent: slabs of one size, all there from the start (huge pages where they can
 * be had). A slab is CLEAN (zero, nobody's), TAKEN, or DIRTY (given back). Only clean ones are
 * taken, and the only way from dirty to clean is to be overwritten with zeros: what somebody left
 * is gone soon after they are, and never seen by the next.
 *
 * One thread, or under the caller's lock; what lies in a taken slab is its taker's.
 */
#ifndef EMFATIERD_POOL_H
#define EMFATIERD_POOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pool_options {
	uint64_t size;	 /* rounded down to whole slabs; with dax 0: all of it */
	int node;	 /* NUMA node, -1: any */
	const char *dax; /* a DAX device, or NULL */
};

enum slab_state { SLAB_CLEAN, SLAB_DIRTY, SLAB_TAKEN };

struct pool {
	unsigned char *base;
	uint64_t slab_bytes, mapped;
	uint32_t nslabs;
	uint32_t clean, dirty; /* how many */
	bool huge;	       /* hugetlb pages: the rest is advice */
	uint8_t *state;
	uint32_t cleaning; /* the dirty slab that is overwritten, if any is */
	uint64_t cleaned;  /* bytes of it */
};

/* May take a second for a GiB. 0; -EINVAL what was asked for can't be; or -errno; err: one line. */
int pool_open(struct pool *p, const struct pool_options *opt, char *err, size_t errlen);
void pool_close(struct pool *p);

/* Takes n slabs into slab[], zero, or none: -ENOSPC. Cleans what it needs for that, and lacks. */
int pool_take(struct pool *p, uint32_t n, uint32_t *slab);
void pool_give(struct pool *p, uint32_t slab);
static inline unsigned char *pool_address(const struct pool *p, uint32_t slab)
{
	return p->base + slab * p->slab_bytes;
}

/* Cleans some MiB. True: there is more to clean. */
bool pool_work(struct pool *p);

#endif
