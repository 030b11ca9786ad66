/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What all replacement policies share. A block that is mapped is on a list of the policy
 * that its region is under, or streams through (`stream`: a FIFO, the first to go
 * once it is longer than a window), or must stay (`kept`). To see whether resident blocks are
 * used some are under watch at any time (`probes`): unmapped into standby, where the
 * next touch costs one MOVE and proves their use. `cold` are those that something better has
 * taken the place of; they go before all others.
 *
 * What the watch costs is bounded twice: one look for four fetches, or one a millisecond
 * but never more than one for a fetch, at 2 to 8 us each, is below 1% of a core; and of
 * the resident blocks no more than an eighth are under watch. But when for four times
 * as long as could be expected none of them was touched, the program has turned to
 * something else: then the eighth doubles, as often as that happens, up to all of
 * them. Looking at what is not used costs nothing, for it has to be unmapped in any case.
 */
#include "policy/view.h"

#include <string.h>

#define LOOK_FETCHES 4
#define LOOK_NS 1000000u
#define LOOK_SHIFT 3
#define ROW 8 /* blocks looked at for one answer */

static const struct replacement *const table[] = { &policy_loop, &policy_lru, &policy_lfu };
#define POLICIES (sizeof(table) / sizeof(table[0]))

static struct block_list stream, probes, samples, cold, kept;
static size_t capacity; /* blocks that can be resident at once */
static size_t total;
static size_t window; /* streaming blocks that stay mapped behind their stream */
static uint64_t clock;
static struct {
	uint64_t at, at_ns; /* the last look */
	uint64_t touched;   /* when a block under watch was touched, or the quota raised */
	unsigned shift;	    /* the share of resident blocks, 1/2^shift */
	bool for_shadow;    /* the block in hand is a sample */
} look = { .shift = LOOK_SHIFT };
static uint64_t mean_distance;

static void resize(void)
{
	for (unsigned i = 0; i < POLICIES; i++)
		table[i]->resize(capacity, total);
	shadow_resize(capacity, total);
}

void policy_init(size_t blocks)
{
	window = blocks / 32;
	if (window < 2)
		window = 2;
	if (window > 16)
		window = 16;
	capacity = blocks > 2 * window ? blocks - window : window;
	resize();
}

void policy_reset(void)
{
	stream = probes = samples = cold = kept = (struct block_list){ 0 };
	memset(&look, 0, sizeof(look));
	look.shift = LOOK_SHIFT;
	clock = mean_distance = 0;
	for (unsigned i = 0; i < POLICIES; i++)
		table[i]->reset();
	shadow_reset();
}

void policy_total(size_t blocks)
{
	total = blocks;
	resize();
}

bool policy_in_share(const struct block *b, uint64_t part)
{
	uint64_t i = view_index(b);

	return ((i + 1) * part) >> 16 != (i * part) >> 16;
}

/* Pinned, or in the share that its class wants local, spread evenly over the region. */
static bool is_kept(struct block *b)
{
	const struct emf_class *c = view_class(b);

	if (view_note(b)->pinned)
		return true;
	return c && c->resident && policy_in_share(b, ((uint64_t)c->resident << 16) / 100);
}

static const struct replacement *policy_of(const struct block *b)
{
	const struct emf_class *c = view_class(b);

	switch (c ? c->evict : EMF_EVICT_AUTO) {
	case EMF_EVICT_LOOP:
		return &policy_loop;
	case EMF_EVICT_LRU:
		return &policy_lru;
	case EMF_EVICT_LFU:
		return &policy_lfu;
	case EMF_EVICT_AUTO:
		break;
	}
	return shadow_best();
}

const char *policy_following(void)
{
	return shadow_best()->name;
}

static const struct replacement *owner(struct block *b)
{
	return table[view_note(b)->owner];
}

static void hand_over(struct block *b, const struct arrived *a)
{
	const struct replacement *p = policy_of(b);
	uint8_t i = 0;

	list_remove(b);
	while (table[i] != p)
		i++;
	view_note(b)->owner = i;
	if (is_kept(b))
		list_append(&kept, b);
	else if (!p->arrived(b, a))
		list_append(&stream, b);
}

/* The mean over all samples at first, then over the last eight or so. */
static void learn_gap(struct block *b, uint64_t distance)
{
	struct policy_note *n = view_note(b);
	int64_t d = distance > UINT32_MAX ? UINT32_MAX : (int64_t)distance;

	if (n->samples < 8)
		n->samples++;
	n->gap = (uint32_t)(n->gap + (d - (int64_t)n->gap) / n->samples);
}

/*
 * Where the regions without a policy of their own are under another one than before,
 * it gets their blocks a few at a time.
 */
static void migrate(void)
{
	const struct replacement *best = shadow_best();
	struct arrived a = { .how = ARRIVE_STANDBY, .probe = true, .now = clock };

	for (unsigned i = 0; i < POLICIES; i++) {
		if (table[i] == best)
			continue;
		for (unsigned n = 0; n < ROW; n++) {
			struct block *b = table[i]->victim();
			if (!b || policy_of(b) == table[i])
				break;
			hand_over(b, &a);
		}
	}
}

void policy_arrived(struct block *b, enum arrival how, uint64_t distance, bool room, uint64_t now)
{
	const struct block_list *was = view_list(b);
	bool watched = was == &probes || was == &samples;
	struct arrived a = {
		.how = how,
		.probe = watched || was == &cold,
		.room = room,
		.distance = distance,
		.now = now,
	};

	clock = now;
	if (watched) {
		look.touched = now;
		look.shift = LOOK_SHIFT;
	}
	if (how == ARRIVE_FETCHED)
		mean_distance = mean_distance ? mean_distance + distance / 8 - mean_distance / 8 : distance;
	/* Below that it is still the same visit. */
	if (how != ARRIVE_NEW && distance >= LOOK_FETCHES)
		learn_gap(b, distance);
	shadow_touched(b, &a);
	hand_over(b, &a);
	migrate();
}

void policy_reclassed(struct block *b)
{
	struct arrived a = { .how = ARRIVE_STANDBY, .probe = true, .now = clock };

	if (view_mapped(b) && view_list(b))
		hand_over(b, &a);
}

void policy_probed(struct block *b, uint64_t now)
{
	look.at = now;
	list_remove(b);
	list_append(look.for_shadow ? &samples : &probes, b);
}

/* One of the oldest under watch that was untouched for longer than age. */
static struct block *aged(struct block_list *l, uint64_t age)
{
	struct block *b = l->head;

	return b && clock > view_left(b) + age ? b : NULL;
}

bool policy_exchange(uint64_t age, struct block *other)
{
	struct block *b = aged(&probes, age);

	if (!b)
		b = aged(&samples, age);
	if (!b)
		b = other;
	if (!b)
		return false;
	list_remove(b);
	list_append(&cold, b);
	return true;
}

/* Of the oldest under watch, one that its policy has no more use for. */
static struct block *spent(void)
{
	struct block *b = probes.head;

	for (unsigned n = 0; b && n < ROW; n++, b = view_next(b))
		if (owner(b)->spent(b, clock - view_left(b)))
			return b;
	return NULL;
}

/* What is kept for a reason that holds no more goes back among the others. */
static void review_kept(void)
{
	struct block *b = kept.head;

	if (!b)
		return;
	if (!is_kept(b)) {
		policy_reclassed(b);
		return;
	}
	list_remove(b);
	list_append(&kept, b);
}

struct block *policy_victim(void)
{
	const struct replacement *most = NULL;
	struct block *b;

	review_kept();
	if (cold.head)
		return cold.head;
	if (stream.count > window)
		return stream.head;
	if ((b = spent()))
		return b;
	for (unsigned i = 0; i < POLICIES; i++)
		if (!most || table[i]->count() > most->count())
			most = table[i];
	b = most->victim();
	if (!b)
		b = stream.head;
	if (!b)
		b = probes.head ? probes.head : samples.head;
	return b ? b : kept.head;
}

struct block *policy_probe(uint64_t now, uint64_t ns)
{
	const struct replacement *most = NULL;
	size_t resident = 0, watched = probes.count;

	clock = now;
	/* In the time that it takes to touch all once, each of those under watch is touched. */
	if (watched >= 4 && look.shift &&
	    now > look.touched + 4 * mean_distance / watched + 4 * LOOK_FETCHES) {
		look.touched = now;
		look.shift--;
	}
	bool due = now >= look.at + LOOK_FETCHES || (now > look.at && ns >= look.at_ns + LOOK_NS);
	if (!due && !(look.shift < LOOK_SHIFT && now > look.at))
		return NULL;
	look.at_ns = ns;
	struct block *b = shadow_due(now);
	look.for_shadow = b;
	if (b)
		return b;
	for (unsigned i = 0; i < POLICIES; i++) {
		resident += table[i]->count();
		if (!most || table[i]->count() > most->count())
			most = table[i];
	}
	if (watched >= (resident + watched) >> look.shift)
		return NULL;
	return most->suspect();
}

struct block *policy_oldest_probe(void)
{
	return cold.head ? cold.head : probes.head;
}
