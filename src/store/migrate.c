/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Moves between tiers, by the store's thread: one look over all slots finds the least used of
 * each tier and the most used below it; then a few are copied, one after the other. A copy counts
 * only if the slot's word says that nobody wrote it or is at it (hierarchy_int.h); else its
 * new place is given back.
 */
#define _GNU_SOURCE 1 /* syscall */
#include <errno.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "hierarchy_int.h"
#include "memory.h"
#include "solo.h"
#include "timer.h"

#define PAGE 4096u
#define BATCH 16u	     /* slots that a look finds, for each tier */
#define LOOK_NS 20000000ull  /* from one look to the next, while there is something to do */
#define IDLE_NS 250000000ull /* else */
#define FORGET_AFTER 64u     /* reads for each slot, until all counts are halved */
#define CALM_AFTER 4u	     /* halvings, until moves are half forgotten, too */
#define EVIDENCE 2	     /* standard deviations, and one more for each move before */

struct seen {
	uint64_t slot, word;
	uint32_t heat;
};

struct ranking {
	struct seen cold[BATCH], hot[BATCH]; /* the extreme one first */
	unsigned ncold, nhot;
};

struct migrate {
	struct emf_queue *queue[STORE_LEAVES - 1];
	char *buf;
	uint64_t hits_then; /* at the last halving */
	unsigned halvings;
	uint64_t moved; /* bytes, in this round */
	uint64_t not_before;
	struct ranking rank[STORE_LEAVES - 1];
};

static bool prepare(struct hierarchy *h)
{
	struct migrate *m = h->migrate;
	long at;

	if (m)
		return true;
	m = store_alloc(1, sizeof(*m));
	if (!m)
		return false;
	at = syscall(SYS_mmap, NULL, SLOT, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		     0L);
	if (at == -1) {
		store_free(m);
		return false;
	}
	m->buf = (char *)at;
	h->migrate = m;
	return true;
}

void migrate_end(struct hierarchy *h)
{
	struct migrate *m = h->migrate;

	if (!m)
		return;
	for (unsigned i = 0; i < h->n; i++)
		solo_close(&m->queue[i]);
	syscall(SYS_munmap, m->buf, SLOT);
	store_free(m);
	h->migrate = NULL;
}

/* --- one transfer --- */

static int transfer(struct hierarchy *h, enum emf_op op, struct place p, uint32_t extent)
{
	struct emf_io what = {
		.op = op,
		.offset = (uint64_t)p.index * SLOT + (uint64_t)(extent & 0xffff) * PAGE,
		.length = (size_t)(extent >> 16) * PAGE,
		.buf = h->migrate->buf,
	};

	return solo_transfer(h->tier[p.tier].is.be, &h->migrate->queue[p.tier], &what,
			     h->timeout_ms);
}

static void give_back(struct hierarchy *h, struct place p)
{
	int rc = h->tier[p.tier].is.be->caps & EMF_CAP_TRIM
		     ? transfer(h, EMF_TRIM, p, SLOT / PAGE << 16)
		     : 0;

	if (!solo_in_doubt(rc))
		hierarchy_release(h, p);
}

/* --- one slot --- */

static bool switch_place(struct hierarchy *h, const struct seen *s, struct place to)
{
	const uint64_t same = ~(WORD_USER * 0xfff);
	uint64_t w = atomic_load(&h->word[s->slot]);
	uint64_t free = s->word & same;

	/* Somebody reads it: that takes a moment. */
	for (unsigned i = 0; i < 5 && w != free && (w & same) == free; i++) {
		poll(NULL, 0, 1);
		w = atomic_load(&h->word[s->slot]);
	}
	return atomic_compare_exchange_strong(
	    &h->word[s->slot], &free, (free & ~WORD_PLACE_MASK) | WORD_PLACE(to.tier, to.index));
}

/* 0 or -errno, of the write. */
static int copy(struct hierarchy *h, const struct seen *s, struct place from, struct place to)
{
	uint32_t extent = atomic_load(&h->extent[s->slot]);
	uint64_t offset = s->slot * SLOT + (uint64_t)(extent & 0xffff) * PAGE;
	size_t length = (size_t)(extent >> 16) * PAGE;
	int rc;

	if (!length || transfer(h, EMF_READ, from, extent) ||
	    (h->sums && !checksum_matches(h->sums, offset, length, h->migrate->buf)))
		return -EIO;
	rc = transfer(h, EMF_WRITE, to, extent);
	if (rc)
		atomic_store(&h->tier[to.tier].avoid_until, timer_now() + 1000000000ull);
	h->migrate->moved += 2 * length;
	return rc;
}

static bool move(struct hierarchy *h, const struct seen *s, unsigned tier)
{
	struct place from = { WORD_TIER(s->word), WORD_INDEX(s->word) }, to = { .tier = tier };

	int rc;

	if (!hierarchy_claim(h, tier, &to.index))
		return false;
	rc = copy(h, s, from, to);
	if (rc || !switch_place(h, s, to)) {
		if (!solo_in_doubt(rc))
			give_back(h, to);
		return false;
	}
	give_back(h, from);
	atomic_fetch_add(tier < from.tier ? &h->tier[tier].promoted : &h->tier[tier].demoted, 1);
	if (s->heat / HEAT_MOVED < 255)
		atomic_fetch_add(&h->heat[s->slot], HEAT_MOVED);
	return true;
}

/* --- the look over all --- */

static uint32_t reads_of(const struct seen *s)
{
	return s->heat & HEAT_READS;
}

/* Into a list of at most BATCH, ordered by sign * reads. */
static void rank(struct seen *list, unsigned *n, const struct seen *s, int sign)
{
	unsigned at = *n;

	if (*n == BATCH && sign * (int)reads_of(&list[BATCH - 1]) <= sign * (int)reads_of(s))
		return;
	if (*n == BATCH)
		at--;
	else
		++*n;
	for (; at && sign * (int)reads_of(&list[at - 1]) > sign * (int)reads_of(s); at--)
		list[at] = list[at - 1];
	list[at] = *s;
}

static void halve(_Atomic uint32_t *heat, bool calm)
{
	uint32_t old = atomic_load(heat), to;

	do {
		to = (old & HEAT_READS) / 2 |
		     (calm ? old / HEAT_MOVED / 2 : old / HEAT_MOVED) * HEAT_MOVED;
	} while (!atomic_compare_exchange_weak(heat, &old, to));
}

static uint64_t all_hits(const struct hierarchy *h)
{
	uint64_t hits = 0;

	for (unsigned i = 0; i < h->n; i++)
		hits += atomic_load(&h->tier[i].hits);
	return hits;
}

static void look(struct hierarchy *h)
{
	struct migrate *m = h->migrate;
	uint64_t high = atomic_load(&h->high), placed = 0, reads = 0, hits = all_hits(h);

	for (unsigned i = 0; i < h->n; i++)
		m->rank[i].ncold = m->rank[i].nhot = 0;
	for (uint64_t i = 0; i < high; i++) {
		struct seen s = { i, atomic_load(&h->word[i]), atomic_load(&h->heat[i]) };

		if (!WORD_IS_PLACED(s.word))
			continue;
		struct ranking *r = &m->rank[WORD_TIER(s.word)];
		rank(r->cold, &r->ncold, &s, 1);
		rank(r->hot, &r->nhot, &s, -1);
		placed++;
		reads += reads_of(&s);
	}
	atomic_store(&h->usual, placed ? (uint32_t)(reads / placed) : 0);
	if (hits - m->hits_then < FORGET_AFTER * placed)
		return;
	m->hits_then = hits;
	m->halvings++;
	for (uint64_t i = 0; i < high; i++)
		halve(&h->heat[i], m->halvings % CALM_AFTER == 0);
}

/* --- what to do --- */

/* The next tier below that works and is not full; h->n: none. */
static unsigned below(const struct hierarchy *h, unsigned tier, uint64_t now)
{
	unsigned t = tier + 1;

	while (t < h->n &&
	       (!hierarchy_works(h, t, now) || atomic_load(&h->tier[t].used) >= h->tier[t].slots))
		t++;
	return t;
}

/* From the lowest up, so that there is room for what comes from above. */
static void demote(struct hierarchy *h, uint64_t end)
{
	for (unsigned t = h->n - 1; t-- > 0;) {
		const struct ranking *r = &h->migrate->rank[t];

		if (atomic_load(&h->tier[t].used) <= h->tier[t].high)
			continue;
		for (unsigned i = 0; i < r->ncold && timer_now() < end; i++) {
			unsigned to = below(h, t, timer_now());

			if (to == h->n || atomic_load(&h->tier[t].used) <= h->tier[t].low)
				break;
			move(h, &r->cold[i], to);
		}
	}
}

/* Is that used more than this by more than chance? */
static bool is_hotter(const struct seen *hot, const struct seen *cold)
{
	int64_t a = reads_of(hot), b = reads_of(cold), more = a - b - 1;
	int64_t sigmas = EVIDENCE + hot->heat / HEAT_MOVED + cold->heat / HEAT_MOVED;

	/* Of counts the variance is the sum. */
	return more > 0 && more * more > sigmas * sigmas * (a + b);
}

/* Finds the place for one that is used, from the first tier on; *next: each tier's next victim. */
static void promote_one(struct hierarchy *h, const struct seen *s, unsigned *next)
{
	static const struct seen never_read;
	unsigned from = WORD_TIER(s->word);

	for (unsigned t = 0; t < from; t++) {
		const struct ranking *r = &h->migrate->rank[t];
		uint64_t now = timer_now();

		if (!hierarchy_works(h, t, now))
			continue;
		if (atomic_load(&h->tier[t].used) < h->tier[t].low) {
			if (is_hotter(s, &never_read))
				move(h, s, t);
			return;
		}
		if (next[t] == r->ncold || !is_hotter(s, &r->cold[next[t]]))
			continue;
		unsigned to = below(h, t, now);
		if (to < h->n && move(h, &r->cold[next[t]], to))
			move(h, s, t);
		next[t]++;
		return;
	}
}

static void promote(struct hierarchy *h, uint64_t end)
{
	unsigned next[STORE_LEAVES - 1] = { 0 };

	for (unsigned t = h->n; t-- > 1;)
		for (unsigned i = 0; i < h->migrate->rank[t].nhot && timer_now() < end; i++)
			promote_one(h, &h->migrate->rank[t].hot[i], next);
}

static void publish(const struct hierarchy *h)
{
	for (unsigned i = 0; i < h->n; i++) {
		const struct tier *t = &h->tier[i];

		for (unsigned j = 0; t->is.stats && j < t->is.nstats; j++) {
			struct emf_store_stats *s = &t->is.stats[j];

			s->tier = i + 1;
			atomic_store(&s->used_bytes,
				     (uint64_t)atomic_load(&t->used) * SLOT / t->is.nstats);
			atomic_store(&s->hits, atomic_load(&t->hits));
			atomic_store(&s->promoted, atomic_load(&t->promoted));
			atomic_store(&s->demoted, atomic_load(&t->demoted));
		}
	}
}

uint64_t hierarchy_work(struct emf_backend *be, uint64_t now)
{
	struct hierarchy *h = (struct hierarchy *)be;
	struct migrate *m;

	if (!prepare(h))
		return now + IDLE_NS;
	m = h->migrate;
	if (now < m->not_before)
		return m->not_before;
	m->moved = 0;
	look(h);
	demote(h, now + LOOK_NS);
	promote(h, now + LOOK_NS);
	publish(h);
	now = timer_now();
	m->not_before = now + IDLE_NS;
	if (m->moved) {
		uint64_t rest = h->rate ? m->moved * 1000000000ull / h->rate : 0;

		m->not_before = now + (rest > LOOK_NS ? rest : LOOK_NS);
	}
	return m->not_before;
}
