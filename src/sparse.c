/* SPDX-License-Identifier: Apache-2.0 */
#include "sparse.h"

#include <string.h>

#include "config.h"
#include "engine.h"
#include "frame.h"
#include "policy/view.h"
#include "region.h"
#include "slot.h"
#include "thrash.h"

#define ASK 4	       /* jumps in a region that is not known to be sparse, for one question; */
#define CAUTION 6      /* so often doubled where the answer was that it is dense */
#define SPARSE 8       /* answers more of that kind than of the other */
#define SURE 32	       /* more are not counted */
#define DENSE_WEIGHT 4 /* a neighbour that followed is the better evidence */
#define RECENT 8       /* questions that wait for their answer */
#define SHARE 4	       /* of the budget: one in so many */
#define NEAR (BLOCK_CLUSTERS / 16)
#define SPARED 8 /* blocks that are passed over */

static struct question {
	uint32_t block; /* number; 0: none */
	unsigned cluster;
} recent[RECENT];
static unsigned next;

/* Numbers of the last blocks that were waited for, or found fetched ahead. */
static uint32_t touched[RECENT];
static unsigned next_touched;

void sparse_reset(void)
{
	memset(recent, 0, sizeof(recent));
	memset(touched, 0, sizeof(touched));
}

void sparse_touched(const struct block *b)
{
	touched[next_touched++ % RECENT] = view_number(b);
}

/* Does a sweep lead there? */
static bool is_on_the_way(const struct block *b)
{
	uint32_t number = view_number(b), reach = (uint32_t)(b->region->nblocks / 64) + 1;

	for (unsigned i = 0; i < RECENT; i++)
		if (number + reach >= touched[i] && number <= touched[i] + reach)
			return true;
	return false;
}

/* What was asked for last of the block, NULL: nothing that still waits for its answer. */
static struct question *question(const struct block *b)
{
	uint32_t number = view_number(b);

	for (unsigned i = 1; i <= RECENT; i++) {
		struct question *q = recent + (next - i) % RECENT;
		if (q->block == number)
			return q;
	}
	return NULL;
}

static bool is_near(const struct question *q, unsigned cluster)
{
	return (cluster > q->cluster ? cluster - q->cluster : q->cluster - cluster) <= NEAR;
}

static void is_dense(struct region *r)
{
	r->sparse -= r->sparse < DENSE_WEIGHT ? r->sparse : DENSE_WEIGHT;
	if (r->caution < CAUTION)
		r->caution++;
}

static void is_sparse(struct region *r)
{
	if (r->sparse < SURE)
		r->sparse++;
	if (r->caution)
		r->caution--;
}

static void ask(const struct block *b, unsigned cluster)
{
	struct question *q = recent + next++ % RECENT;
	const struct block *was = q->block ? view_find(q->block) : NULL;

	/* The oldest goes; nobody came for a neighbour. */
	if (was && was->state == FAR && was->clusters)
		is_sparse(was->region);
	*q = (struct question){ view_number(b), cluster };
}

/* As far as it was written there are sums for whole clusters only. */
static bool is_readable(const struct block *b, unsigned cluster)
{
	struct slot_extent e = slot_extent(b->slot);
	unsigned first = cluster * (STORE_CLUSTER / K_PAGE);

	return e.first <= first && first + STORE_CLUSTER / K_PAGE <= (unsigned)e.first + e.pages;
}

bool sparse_wants(struct block *b, uintptr_t addr)
{
	struct region *r = b->region;
	enum emf_granule granule = r->class ? r->class->granule : EMF_GRANULE_AUTO;
	unsigned cluster = block_cluster(b, addr);

	if (granule == EMF_GRANULE_BLOCK || !engine.uffd.move || engine.hold || r->source ||
	    b->whole || !block_is_full(b) || !is_readable(b, cluster))
		return false;
	if (block_cluster_count(b) >= BLOCK_CLUSTERS / 4 * 3)
		return false;
	bool dense = granule == EMF_GRANULE_AUTO && r->sparse < SPARSE;
	struct question *q = question(b);
	if (q && is_near(q, cluster)) {
		is_dense(r);
		q->block = 0;
		/* It may be by chance, where all is sparse. */
		if (dense)
			return false;
	} else if (q) {
		is_sparse(r);
		q->block = 0;
	} else if (dense && !b->clusters &&
		   (is_on_the_way(b) || ++r->asked % (ASK << r->caution))) {
		return false;
	}
	ask(b, cluster);
	return true;
}

bool sparse_over(void)
{
	return engine.cluster_bytes > engine.limit / SHARE;
}

/* Some of what is in place is not accounted for any more: as a block it is. */
static void pull_whole(struct block *b)
{
	if (b->state != FAR || (b->list && b->list != &engine.sparse))
		return;
	list_remove(b);
	list_append(&engine.pulls, b);
}

bool sparse_drop(struct block *b)
{
	uint64_t had = block_cluster_bytes(b);
	bool dropped = block_drop_clusters(b);

	atomic_fetch_add(&engine.stats->dropped_clean_bytes, had - block_cluster_bytes(b));
	if (!dropped && b->whole)
		pull_whole(b);
	return dropped || b->whole;
}

void sparse_moved(struct block *b)
{
	if (b->clusters && !block_check_clusters(b))
		pull_whole(b);
}

bool sparse_evict(void)
{
	struct block *b;

	for (unsigned n = 0; (b = engine.sparse.head) && n < SPARED; n++) {
		list_remove(b);
		list_append(&engine.sparse, b);
		if (!thrash_spares(b))
			return sparse_drop(b);
	}
	return false;
}

bool sparse_room(void)
{
	if (engine_room(STORE_CLUSTER) ||
	    (sparse_over() && sparse_evict() && engine_room(STORE_CLUSTER)))
		return true;
	return engine_room_short(STORE_CLUSTER) || (sparse_evict() && engine_room(STORE_CLUSTER));
}

void sparse_rest(struct block *b)
{
	if (b->clusters && !b->list)
		list_append(&engine.sparse, b);
}

void sparse_gone(struct block *b)
{
	if (b->list == &engine.sparse)
		list_remove(b);
}
