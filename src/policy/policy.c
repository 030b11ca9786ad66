/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What all replacement policies share. A block that is mapped is on a list of the policy
 * that its region is under, or streams through (`stream`: a FIFO, the first to go
 * once it is longer than a window), or must stay (`kept`). To see whether resident blocks are
 * used some are under watch at any time (`probes`): unmapped into standby, where the
 * next touch costs one MOVE and proves their use. `cold` are those that something better has
 * taken the place of; they go before all others.
 *
 * What the watch costs is bounded twice: one look in 400 us, and four for a fetch. That is for
 * when something is found: a touch of a block under watch costs the program a fault, in a virtual
 * machine up to 300 us, so as long as all of them turn out to be in use looks become rarer, down to
 * one in 25 ms. A policy says what share of the resident blocks it wants to have under watch; it
 * is more as long as blocks are found there that nobody uses. When nothing of a region was
 * touched for longer than a round of all that is far, the program has turned to something else
 * (another model), and all that is resident of it may go.
 */
#include "policy/view.h"

#include <string.h>

#define VISIT 4	    /* fetches: a touch sooner after another is of the same visit */
#define GAP_LONG 32 /* samples: the means of gaps are over so many */
#define GAP_SHORT 4
#define GAP_TURN 2 /* times as long as the other: the program has turned to something else */
#define GAP_MOST 4 /* times as long as it was lately: longer ones count as that */
#define LOOK_NS 400000u
#define LOOK_RARE 64 /* times as long between two looks when nothing is found */
#define LOOKS 4	     /* for a fetch */
#define SAVED 64     /* looks that were not made when they could have been */
#define CALM 64
#define WALK 64
#define ROW 8	   /* blocks looked at for one answer */
#define WIDTHS 10  /* of the window, powers of two */
#define JUDGED 256 /* fetches from one judgement to the next */
#define TRIAL 16   /* judgements */

static const struct replacement *const table[] = { &policy_loop, &policy_lru, &policy_lfu };
#define POLICIES (sizeof(table) / sizeof(table[0]))

static struct block_list stream, probes, samples, cold, kept;
static size_t capacity; /* blocks that can be resident at once */
/*
 * How many of them are resident when there is room, for now: blocks fetched ahead and the
 * engine's reserve come and go, and a resident set that follows each of these waves fetches
 * what it has just given up. It shrinks at once and grows slowly.
 */
static size_t target;
static unsigned calm; /* arrivals since it shrank, or grew */
static size_t total;
static size_t budget; /* blocks: what is left of it by the window is the capacity */
static size_t window; /* streaming blocks that stay mapped behind their stream */
static struct {
	size_t least;
	struct {
		uint64_t times, fetches;
	} back[WIDTHS + 1]; /* what streamed and came back within 2^i fetches; later */
	uint64_t since;	    /* the clock when it was judged last */
	unsigned calm;	    /* judgements that gave no reason to widen it */
} width;
static uint64_t clock;
static struct {
	uint64_t at, at_ns;	      /* up to where looks were granted */
	uint64_t interval;	      /* ns, between two */
	unsigned by_fetches, by_time; /* granted, and not made yet */
	size_t extra;		      /* blocks under watch beyond the share */
	bool for_shadow;	      /* the block in hand is a sample */
} look = { .interval = LOOK_NS };
static uint32_t forsaken_at;   /* number of a block of a silent region */
static size_t forsaken_walked; /* blocks behind it that are of no use, up to there */
static uint64_t round_trip;    /* fetches until what left comes back, as a rule */

static void resize(void)
{
	for (unsigned i = 0; i < POLICIES; i++)
		table[i]->resize(capacity, total);
	shadow_resize(capacity, total);
}

static void set_window(size_t blocks)
{
	/* What it gives back is there at once. */
	if (blocks < window)
		target += window - blocks;
	window = blocks;
	capacity = budget > 2 * window ? budget - window : window;
	if (target > capacity)
		target = capacity;
	resize();
}

void policy_init(size_t blocks)
{
	size_t least = blocks / 64;
	bool wide = window > width.least && window <= blocks / 8;

	width.least = least < 1 ? 1 : least > 8 ? 8 : least;
	budget = blocks;
	target = blocks;
	set_window(wide && window > width.least ? window : width.least);
}

/*
 * What streams may be passed several times before the program goes on (each head of an attention
 * goes over the same keys). A wider window keeps it meanwhile, and costs as many resident
 * blocks, which is a fetch more for each in a round: it is as wide as pays twice over. What
 * it keeps is not seen to come back any more, so it narrows by trials.
 */
static void judge_window(void)
{
	uint64_t early = 0, late = 0, fetches = 0;
	int64_t most = 0;
	size_t best = window;

	if (clock - width.since < JUDGED)
		return;
	for (unsigned i = 0; i <= WIDTHS; i++) {
		late += width.back[i].times;
		fetches += width.back[i].fetches;
	}
	for (unsigned i = 0; i < WIDTHS; i++) {
		size_t wide = (size_t)1 << i;
		early += width.back[i].times;
		late -= width.back[i].times;
		fetches -= width.back[i].fetches;
		/* Where few others take much longer to come back, that is the round itself. */
		if (wide <= window || wide > budget / 8 || late < JUDGED / 16 ||
		    fetches / late < 4 * wide)
			continue;
		int64_t gain =
		    (int64_t)early - (int64_t)(2 * (wide - window) * JUDGED * late / fetches);
		if (gain > most) {
			most = gain;
			best = wide;
		}
	}
	width.since = clock;
	memset(width.back, 0, sizeof(width.back));
	if (best > window) {
		width.calm = 0;
		set_window(best);
	} else if (++width.calm >= TRIAL && window > width.least) {
		width.calm = 0;
		set_window(window / 2 > width.least ? window / 2 : width.least);
	}
}

static void learn_window(uint64_t distance)
{
	unsigned i = 0;

	while (i < WIDTHS && distance > 1u << i)
		i++;
	width.back[i].times++;
	width.back[i].fetches += distance;
}

void policy_reset(void)
{
	stream = probes = samples = cold = kept = (struct block_list){ 0 };
	memset(&look, 0, sizeof(look));
	look.interval = LOOK_NS;
	memset(&width.back, 0, sizeof(width.back));
	width.since = 0;
	width.calm = 0;
	forsaken_at = 0;
	forsaken_walked = 0;
	calm = 0;
	clock = round_trip = 0;
	for (unsigned i = 0; i < POLICIES; i++)
		table[i]->reset();
	shadow_reset();
	sentry_reset();
	window = 0;
	policy_init(budget);
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

static size_t resident(void)
{
	size_t n = probes.count + samples.count + kept.count;

	for (unsigned i = 0; i < POLICIES; i++)
		n += table[i]->count();
	return n;
}

/* May the resident set grow by one? */
static bool has_room(void)
{
	if (++calm >= CALM) {
		calm = 0;
		if (target < capacity)
			target++;
	}
	return resident() < target;
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

static void hand_over(struct block *b, const struct arrived *a)
{
	const struct replacement *p = policy_of(b);

	list_remove(b);
	view_note(b)->streamed = false;
	if (is_kept(b)) {
		list_append(&kept, b);
	} else if (!p->arrived(b, a)) {
		list_append(&stream, b);
		view_note(b)->streamed = true;
	}
}

/* Follows the median: what was away for long for other reasons does not move it much. */
static void learn_round_trip(uint64_t distance)
{
	uint64_t step = round_trip / 16 + 1;

	if (distance > round_trip)
		round_trip += distance - round_trip < step ? distance - round_trip : step;
	else
		round_trip -= round_trip - distance < step ? round_trip - distance : step;
}

static uint32_t mean(uint32_t m, int64_t d, unsigned of)
{
	return (uint32_t)(m + (d - (int64_t)m) / of);
}

/*
 * The mean over all samples at first, then over the last ones: over many, for chance makes the gaps
 * of an expert differ by as much as they are long. When the last few of them are of another
 * length altogether, what was before is forgotten.
 */
static void learn_gap(struct block *b, uint64_t distance)
{
	struct policy_note *n = view_note(b);
	uint64_t most = n->samples > 1 ? (uint64_t)GAP_MOST * n->lately : UINT32_MAX;
	int64_t d = (int64_t)(distance < most ? distance : most);

	if (d > UINT32_MAX)
		d = UINT32_MAX;
	if (n->samples < GAP_LONG)
		n->samples++;
	n->gap = mean(n->gap, d, n->samples);
	n->lately = mean(n->lately, d, n->samples < GAP_SHORT ? n->samples : GAP_SHORT);
	if (n->samples > GAP_SHORT &&
	    (n->lately > (uint64_t)GAP_TURN * n->gap || n->gap > (uint64_t)GAP_TURN * n->lately)) {
		n->gap = n->lately;
		n->samples = GAP_SHORT;
	}
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
	struct policy_note *n = view_note(b);
	bool watched = was == &probes || was == &samples;
	struct arrived a = {
		.how = how,
		.probe = watched || was == &cold,
		.room = (room || stream.count > window) && has_room(),
		.distance = distance,
		.now = now,
	};

	clock = now;
	/* What streamed through was mapped for a while after its touch. */
	if (how == ARRIVE_FETCHED && n->streamed)
		a.distance = distance = (uint32_t)now - n->when;
	/*
	 * While a program loads what it works with the clock stands still, so where it goes
	 * first all seems to have been touched just now, and that is known no sooner than after as
	 * many fetches as blocks can be resident.
	 */
	bool known = how != ARRIVE_NEW && (!n->loaded || distance > capacity);
	n->loaded = how == ARRIVE_NEW;
	if (how == ARRIVE_FETCHED && n->streamed && known)
		learn_window(distance);
	judge_window();
	n->when = (uint32_t)now;
	if (watched) {
		sentry_touched(b, distance);
		look.extra -= look.extra / 8;
		if (look.interval < LOOK_RARE * LOOK_NS)
			look.interval += look.interval / 32;
	}
	/* The program turns to what it had turned away from: what was in use may be so no more. */
	if (view_region_note(b)->silent)
		look.interval = LOOK_NS;
	view_region_note(b)->touched = now;
	view_region_note(b)->silent = false;
	if (how == ARRIVE_FETCHED && known)
		learn_round_trip(distance);
	/* Below that it is still the same visit. */
	if (known && distance >= VISIT)
		learn_gap(b, distance);
	shadow_touched(b, &a);
	behaviour_touched(b, how);
	hand_over(b, &a);
	migrate();
}

void policy_reclassed(struct block *b)
{
	struct arrived a = { .how = ARRIVE_STANDBY, .probe = true, .now = clock };

	if (view_mapped(b) && view_list(b))
		hand_over(b, &a);
}

void policy_dismissed(struct block *b)
{
	const struct block_list *l = view_list(b);

	if (!policy_is_settled(b) && l != &stream)
		return;
	list_remove(b);
	list_append(&cold, b);
}

void policy_probed(struct block *b, uint64_t now)
{
	clock = now;
	list_remove(b);
	list_append(look.for_shadow ? &samples : &probes, b);
}

/*
 * Of the oldest under watch, the first that was untouched for longer than age (or has a longer gap,
 * while that can be told), or is of a region that nobody has touched for a round. Those before it
 * may be in use, and wait for their turn.
 */
static struct block *aged(struct block_list *l, uint64_t age, bool gaps)
{
	struct block *b = l->head;

	for (unsigned n = 0; b && n < ROW; n++, b = view_next(b)) {
		struct policy_region *r = view_region_note(b);
		if (r->touched <= view_left(b) && clock > view_left(b) + round_trip + VISIT) {
			r->silent = true;
			forsaken_at = view_number(b);
			forsaken_walked = 0;
		}
		uint64_t been = clock - view_left(b), gap = view_note(b)->gap;
		if (r->silent || (gaps && been <= 2 * gap ? gap : been) > age)
			return b;
	}
	return NULL;
}

/*
 * The next resident block, under watch or not, of the region that the program was last seen to
 * have turned away from. What is away is walked past a stretch at a time.
 */
static struct block *forsaken(void)
{
	struct block *b = view_find(forsaken_at);

	if (!b || !view_region_note(b)->silent)
		return NULL;
	struct region *r = view_region(b);
	size_t i = view_index(b), n = view_count(r);
	for (unsigned k = 0; k < WALK && forsaken_walked < n; k++, forsaken_walked++) {
		i = i + 1 < n ? i + 1 : 0;
		b = view_block(r, i);
		forsaken_at = view_number(b);
		const struct block_list *l = view_list(b);
		if (l == &cold || (l != &probes && l != &samples && !policy_is_settled(b)))
			continue;
		forsaken_walked = 0;
		return b;
	}
	return NULL;
}

bool policy_exchange(uint64_t age, bool gaps, struct block *other)
{
	struct block *b = aged(&probes, age, gaps);

	if (!b)
		b = aged(&samples, age, gaps);
	if (b)
		look.extra += 2;
	else
		b = forsaken();
	if (b)
		look.interval = look.interval > 2 * LOOK_NS ? look.interval / 2 : LOOK_NS;
	if (!b)
		b = other;
	if (!b)
		return false;
	list_remove(b);
	list_append(&cold, b);
	return true;
}

bool policy_is_settled(const struct block *b)
{
	return view_mapped(b) && view_list(b) && view_list(b) != &stream && view_list(b) != &kept;
}

/* Of the oldest under watch, one that its policy has no more use for. */
static struct block *spent(void)
{
	struct block *b = probes.head;

	for (unsigned n = 0; b && n < ROW; n++, b = view_next(b))
		if (policy_of(b)->spent(b, clock - view_left(b)))
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
	if (b) {
		size_t n = resident() - 1;
		if (n < target)
			target = n;
		calm = 0;
	}
	if (!b)
		b = stream.head;
	if (!b)
		b = probes.head ? probes.head : samples.head;
	return b ? b : kept.head;
}

/* May one more block be put under watch now? */
static bool look_granted(uint64_t now, uint64_t ns)
{
	uint64_t n = (now - look.at) * LOOKS + look.by_fetches;

	look.at = now;
	look.by_fetches = n < SAVED ? (unsigned)n : SAVED;
	n = (ns - look.at_ns) / look.interval;
	look.at_ns += n * look.interval;
	n += look.by_time;
	look.by_time = n < SAVED ? (unsigned)n : SAVED;
	return look.by_fetches && look.by_time;
}

struct block *policy_probe(uint64_t now, uint64_t ns)
{
	const struct replacement *most = table[0];
	size_t resident = 0;

	clock = now;
	bool granted = look_granted(now, ns);
	struct block *b = look.interval > 4 * LOOK_NS ? sentry_due(now, ns, round_trip) : NULL;
	look.for_shadow = false;
	if (b)
		return b;
	if (sentry_doubts())
		look.interval = LOOK_NS;
	if (!granted)
		return NULL;
	if (!(b = sentry_doubted()))
		look.for_shadow = (b = shadow_due(now)) != NULL;
	for (unsigned i = 0; !b && i < POLICIES; i++) {
		size_t n = table[i]->count();
		resident += n;
		if (n > most->count())
			most = table[i];
	}
	if (!b && probes.count < (resident + probes.count) / most->watch + look.extra)
		b = most->suspect();
	if (b) {
		look.by_fetches--;
		look.by_time--;
	}
	return b;
}

struct block *policy_oldest_probe(void)
{
	return cold.head ? cold.head : probes.head;
}
