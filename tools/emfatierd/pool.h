/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The memory that is lent: slabs of one size, all there from the start (huge pages where they can
 * be had). A slab is CLEAN (zero, nobody's), TAKEN, DIRTY (given back), or OWED: taken, and not
 * zero yet. The only way from the latter two to the former is to be overwritten with zeros: what
 * somebody left is gone soon after they are, and never seen by the next. That takes its time, a
 * few MiB in each call of pool_work: nobody waits for it but who is owed.
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

enum slab_state { SLAB_CLEAN, SLAB_DIRTY, SLAB_OWED, SLAB_TAKEN };

struct pool {
	unsigned char *base;
	uint64_t slab_bytes, mapped;
	uint32_t nslabs;
	uint32_t clean, dirty, owed; /* how many */
	bool huge;		     /* hugetlb pages: the rest is advice */
	bool device;		     /* DAX; `fd` holds its lock */
	int fd;
	uint8_t *state;
	uint32_t cleaning; /* the dirty or owed slab that is overwritten, if any is */
	uint64_t cleaned;  /* bytes of it */
};

/* May take a second for a GiB. 0; -EINVAL what was asked for can't be; or -errno; err: one line. */
int pool_open(struct pool *p, const struct pool_options *opt, char *err, size_t errlen);
/* What was given back to a device is overwritten first: it keeps what it has. */
void pool_close(struct pool *p);

/* Takes n slabs into slab[], or none: -ENOSPC. They are zero, or owed. */
int pool_take(struct pool *p, uint32_t n, uint32_t *slab);
/* used: somebody could have written to it. */
void pool_give(struct pool *p, uint32_t slab, bool used);
/* Is one that was taken zero, and whoever took it may have it? */
static inline bool pool_is_ready(const struct pool *p, uint32_t slab)
{
	return p->state[slab] == SLAB_TAKEN;
}
static inline unsigned char *pool_address(const struct pool *p, uint32_t slab)
{
	return p->base + slab * p->slab_bytes;
}

/* Cleans some MiB, of those that are owed first. True: there is more to clean. */
bool pool_work(struct pool *p);

#endif
