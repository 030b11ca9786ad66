/* SPDX-License-Identifier: Apache-2.0 */
#include "sparse.h"

#include <errno.h>
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
#define ALONE 160      /* 255ths of the leaps must be, or nobody asks */
#define LEAPS 4	       /* that are remembered: what follows one comes soon */
#define SPARSE 8       /* answers more of that kind than of the other */
#define SURE 32	       /* more are not counted */
#define DENSE_WEIGHT 4 /* a neighbour that followed is the better evidence */
#define QUESTIONS 32   /* that wait for their answer: so many as threads that sweep, and more */
#define RECENT 8       /* touches that are remembered */
#define FEW 16	       /* blocks for each of the last touches that tells of a sweep */
#define SMALL 16       /* blocks: such regions are looked at together */
#define RUN 6	       /* near ones in a row make a sweep of a block */
#define LATE_NS 20000000ull /* a sweep is at the next cluster sooner */
#define EDGE 2		    /* clusters: there a sweep comes to the next block */
#define SOON 64		    /* touches, after the one before */
#define SHARE 8		    /* 16ths of the budget, at most; */
#define EASE 1		    /* fewer by that are aimed at, for nobody is to wait for a gather */
#define NEAR 2		    /* times what was fetched, from there */
#define SPARED 8	    /* blocks that are passed over */
#define GATHERED 4	    /* at a time, to be written out */

static struct question {
	uint32_t block; /* number; 0: none */
	unsigned page, pages;
	unsigned run; /* so many before it were near, too */
	unsigned at;  /* a count of them all */
	uint64_t since;
} questions[QUESTIONS];
static unsigned asked;

/* Numbers of the last blocks that were waited for, or found fetched ahead. */
static uint32_t touched[RECENT];
static unsigned next_touched;

/* The last touches that no sweep led to. */
static struct leap {
	uint32_t block; /* number; 0: none */
	bool followed;
} leaps[LEAPS];
static unsigned next_leap;

/* The last of them that came as a whole. */
static struct {
	uint32_t block;
	unsigned at; /* touches, then */
} whole[RECENT];
static unsigned next_whole;

static struct grain small;

void sparse_reset(void)
{
	memset(questions, 0, sizeof(questions));
	memset(touched, 0, sizeof(touched));
	memset(leaps, 0, sizeof(leaps));
	memset(whole, 0, sizeof(whole));
	small = (struct grain){ 0 };
}

static bool is_close(uint32_t number, uint32_t at, size_t nblocks)
{
	uint32_t reach = (uint32_t)(nblocks / 64) + 1;

	return number + reach >= at && number <= at + reach;
}

/* Does a sweep lead there? Of few blocks any is next to one of the last eight. */
static bool is_on_the_way(const struct block *b)
{
	size_t known = (region_bytes() >> BLOCK_SHIFT) / FEW + 1;

	for (unsigned i = 1; i <= RECENT && i <= known; i++)
		if (is_close(view_number(b), touched[(next_touched - i) % RECENT],
			     b->region->nblocks))
			return true;
	return false;
}

/* A heap comes in many small regions, and what is learned of one holds for all. */
static struct grain *grain(struct region *r)
{
	return r->nblocks < SMALL ? &small : &r->grain;
}

static void follow_leaps(const struct block *b)
{
	uint32_t number = view_number(b);

	for (struct leap *l = leaps; l < leaps + LEAPS; l++)
		if (l->block < number && is_close(number, l->block, b->region->nblocks))
			l->followed = true;
}

static void leap(const struct block *b)
{
	struct leap *l = leaps + next_leap++ % LEAPS;
	const struct block *was = l->block ? view_find(l->block) : NULL;

	if (was) {
		struct grain *g = grain(was->region);
		g->alone = (uint8_t)(g->alone + ((l->followed ? 0 : 255) - g->alone) / 8);
	}
	*l = (struct leap){ .block = view_number(b) };
}

void sparse_touched(const struct block *b)
{
	follow_leaps(b);
	if (!is_on_the_way(b))
		leap(b);
	touched[next_touched++ % RECENT] = view_number(b);
	if (b->flags & B_PART)
		return;
	whole[next_whole].block = view_number(b);
	whole[next_whole].at = next_touched;
	next_whole = (next_whole + 1) % RECENT;
}

/* Where a sweep that came by blocks comes to this one. */
static bool goes_on(const struct block *b, unsigned page)
{
	uint32_t number = view_number(b);

	for (unsigned i = 0; i < RECENT; i++)
		if (next_touched - whole[i].at <= SOON &&
		    ((whole[i].block + 1 == number && page < EDGE * CLUSTER_PAGES) ||
		     (whole[i].block == number + 1 && page + EDGE * CLUSTER_PAGES >= BLOCK_PAGES)))
			return true;
	return false;
}

static bool is_near(const struct question *q, unsigned page)
{
	return (page > q->page ? page - q->page : q->page - page) <= NEAR * q->pages;
}

/*
 * The last that this page answers, NULL: none. Another place of a block says nothing: it may be
 * another thread that goes over it.
 */
static struct question *question(const struct block *b, unsigned page)
{
	uint32_t number = view_number(b);
	struct question *last = NULL;

	for (struct question *q = questions; q < questions + QUESTIONS; q++)
		if (q->block == number && is_near(q, page) &&
		    (!last || asked - q->at < asked - last->at))
			last = q;
	return last;
}

static bool is_to_be_asked(struct grain *g)
{
	/* Where a cluster is copied from where it lies the answer costs next to nothing. */
	unsigned ask = engine.store.top->caps & EMF_CAP_BYTES ? 1 : ASK;

	return g->alone >= ALONE && (g->asked + 1) % (ask << g->caution) == 0;
}

static void is_dense(struct region *r)
{
	struct grain *g = grain(r);

	g->sparse -= g->sparse < DENSE_WEIGHT ? g->sparse : DENSE_WEIGHT;
	if (g->caution < CAUTION)
		g->caution++;
}

static void is_sparse(struct region *r)
{
	struct grain *g = grain(r);

	if (g->sparse < SURE)
		g->sparse++;
	if (g->caution)
		g->caution--;
}

/* In place of one that was answered, or the oldest. */
static struct question *new_question(void)
{
	struct question *oldest = questions;

	for (struct question *q = questions; q < questions + QUESTIONS; q++) {
		if (!q->block)
			return q;
		if (asked - q->at > asked - oldest->at)
			oldest = q;
	}
	/* Nobody came for a neighbour. */
	const struct block *was = view_find(oldest->block);
	if (was && was->state == FAR && was->pages)
		is_sparse(was->region);
	return oldest;
}

/* Of what was written in part there are no sums for all of a cluster. */
static bool is_readable(const struct block *b, unsigned page)
{
	struct slot_extent e = slot_extent(b->slot);
	unsigned first = page - page % CLUSTER_PAGES;

	return e.first <= first && first + CLUSTER_PAGES <= (unsigned)e.first + e.pages;
}

/* What was said last. */
static struct answer {
	const struct block *block;
	struct question *question; /* that it answers, NULL: none */
	unsigned page, pages, run;
	bool jump, dense, late;
} answer;

/* A neighbour of what was asked about, or the same once more, which says nothing. */
static unsigned near_wants(struct question *q, unsigned page, unsigned n, bool may_grow)
{
	/* What lies together, as small objects do, is no sweep. */
	bool apart = n > 1 || q->page / CLUSTER_PAGES != page / CLUSTER_PAGES;

	answer.question = q;
	answer.run = q->run;
	if (q->page / q->pages == page / q->pages)
		return q->pages;
	/* What grows is none either: it comes to its next cluster in its own time. */
	answer.late = k_now_ns() - q->since > LATE_NS;
	answer.run = answer.late ? 0 : q->run + apart;
	answer.dense = answer.run >= RUN;
	return answer.dense ? 0 : may_grow ? CLUSTER_PAGES : n;
}

unsigned sparse_wants(struct block *b, uintptr_t addr)
{
	struct region *r = b->region;
	enum emf_granule granule = r->class ? r->class->granule : EMF_GRANULE_AUTO;
	unsigned page = block_page(b, addr);

	answer = (struct answer){ .block = b, .page = page };
	if (granule == EMF_GRANULE_BLOCK || !engine.uffd.move || engine.hold || r->source ||
	    b->stray || !block_is_full(b) || !is_readable(b, page))
		return 0;
	answer.dense = b->pages >= BLOCK_PAGES / 4 * 3; /* a sweep, that came by clusters */
	bool seen = granule == EMF_GRANULE_AUTO, dense = seen && grain(r)->sparse < SPARSE;
	if (answer.dense || (seen && !dense && goes_on(b, page)))
		return 0;
	unsigned n = dense || granule == EMF_GRANULE_CLUSTER ? CLUSTER_PAGES : 1;
	struct question *q = question(b, page);
	if (q) {
		n = near_wants(q, page, n, seen);
	} else if (dense && !b->pages) {
		answer.jump = !is_on_the_way(b);
		if (!answer.jump || !is_to_be_asked(grain(r)))
			return 0;
	}
	answer.pages = n;
	return n;
}

void sparse_begun(const struct block *b)
{
	struct question *q = answer.question;

	if (answer.block != b)
		return;
	grain(b->region)->asked = (uint8_t)(grain(b->region)->asked + answer.jump);
	if (answer.dense)
		is_dense(b->region);
	if (answer.late)
		is_sparse(b->region);
	if (answer.pages) {
		if (!q)
			q = new_question();
		*q = (struct question){ view_number(b), answer.page, answer.pages,
					answer.run,	++asked,     k_now_ns() };
	} else if (q) {
		q->block = 0;
	}
	answer.block = NULL;
}

static bool is_over(unsigned share)
{
	return engine.page_bytes > engine.limit / 16 * share;
}

bool sparse_drop(struct block *b)
{
	uint64_t had = block_page_bytes(b);
	int err = block_drop_pages(b);

	if (!err)
		atomic_fetch_add(&engine.stats->dropped_clean_bytes, had);
	if (err != -EBUSY || b->state != FAR || (b->list && b->list != &engine.sparse))
		return !err;
	list_remove(b);
	list_append(&engine.gathers, b);
	engine_kick_mover();
	return true;
}

bool sparse_evict(void)
{
	struct block *b;

	if (engine.gathers.count >= GATHERED)
		return false;
	for (unsigned n = 0; (b = engine.sparse.head) && n < SPARED; n++) {
		list_remove(b);
		list_append(&engine.sparse, b);
		if (!thrash_spares(b))
			return sparse_drop(b);
	}
	return false;
}

void sparse_balance(void)
{
	while (!engine.hold && is_over(SHARE - EASE) && sparse_evict())
		;
}

bool sparse_room(uint64_t bytes)
{
	sparse_balance();
	/* While nothing can leave who waits is to get on. */
	if (is_over(SHARE) && !engine.grants && !engine.store_retry_at)
		return engine_room(bytes);
	return engine_room_short(bytes);
}

void sparse_rest(struct block *b)
{
	if (b->pages && !b->list)
		list_append(&engine.sparse, b);
}

void sparse_gone(struct block *b)
{
	if (b->list == &engine.sparse || b->list == &engine.gathers)
		list_remove(b);
}
