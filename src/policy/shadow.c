/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which replacement policy is best here? Some blocks are sampled: of those every touch is
 * seen, because they are put under watch again after each (policy_probe). What each
 * policy would have missed on them with the same share of them local is counted by a model
 * of it, tens of comparisons a touch; the one that misses least is followed. A
 * small sample of a cache behaves as the whole (Waldspurger and others, SHARDS, FAST 2015;
 * the same, Cache Modeling and Optimization using Miniature Simulations, ATC 2017).
 */
#include "policy/view.h"

#include <string.h>

#define SAMPLES 128 /* room; between half and all of it are wanted */
#define VISIT 4	    /* fetches after a touch in which another is the same visit */
#define HORIZON 512 /* touches of samples: what is older counts half */
#define LRU_SLACK 8 /* a sample can tell a loop that just fits from one that doesn't by no less */
#define ENOUGH 64   /* touches between two choices */
#define TOURS 2	    /* touches of each sample, before the first one */

enum { LOOP, LRU, LFU, MODELS };

struct sample {
	uint32_t number; /* of the block; 0: unused */
	uint32_t seen;	 /* the clock when it was touched last */
	uint32_t gap;
	uint32_t due; /* when it is to be watched again; 0: it is watched, or away */
	uint8_t touches;
	bool in[MODELS]; /* local in the model */
};

static struct sample sample[SAMPLES];
static unsigned used, cursor;
static uint32_t rate = 1; /* one of so many blocks is sampled, a power of 2 */
static size_t room;	  /* samples that are local in a model */
static unsigned missed[MODELS], distrust[MODELS], touches;
static unsigned since, missed_since,
    promised_since; /* the last choice: touches, fetches, its model's */
static unsigned best = LFU;

static const struct replacement *const policy[MODELS] = { &policy_loop, &policy_lru, &policy_lfu };

void shadow_reset(void)
{
	memset(sample, 0, sizeof(sample));
	memset(missed, 0, sizeof(missed));
	memset(distrust, 0, sizeof(distrust));
	used = cursor = touches = since = missed_since = promised_since = 0;
	rate = 1;
	best = LFU;
}

static bool is_sampled(uint32_t number)
{
	return !(number * 2654435761u >> 12 & (rate - 1));
}

void shadow_resize(size_t capacity, size_t total)
{
	uint32_t r = 1;

	while (total / r > SAMPLES * 3 / 4)
		r *= 2;
	if (r > rate || r * 4 <= rate) {
		rate = r;
		memset(sample, 0, sizeof(sample));
		used = 0;
	}
	room = capacity / rate;
	if (room < 1)
		room = 1;
}

const struct replacement *shadow_best(void)
{
	return policy[best];
}

static struct sample *find(uint32_t number)
{
	for (struct sample *s = sample; s < sample + used; s++)
		if (s->number == number)
			return s;
	return NULL;
}

static struct sample *add(uint32_t number)
{
	struct sample *oldest = sample;

	if (used < SAMPLES) {
		oldest = sample + used++;
	} else {
		for (struct sample *s = sample; s < sample + used; s++)
			if (s->seen < oldest->seen)
				oldest = s;
	}
	*oldest = (struct sample){ .number = number };
	return oldest;
}

static size_t local(unsigned model)
{
	size_t n = 0;

	for (struct sample *s = sample; s < sample + used; s++)
		n += s->in[model];
	return n;
}

static struct sample *lru_victim(void)
{
	struct sample *v = NULL;

	for (struct sample *s = sample; s < sample + used; s++)
		if (s->in[LRU] && (!v || s->seen < v->seen))
			v = s;
	return v;
}

/* The one that was untouched for longest, if that is long. */
static struct sample *loop_victim(uint32_t now, uint32_t distance)
{
	struct sample *v = NULL;

	for (struct sample *s = sample; s < sample + used; s++)
		if (s->in[LOOP] && (!v || s->seen < v->seen))
			v = s;
	return v && now - v->seen > distance + distance / 4 ? v : NULL;
}

static uint32_t coldness(const struct sample *s, uint32_t now)
{
	uint32_t age = now - s->seen;

	/* An age says little until it is longer than what was usual. */
	return age > 2 * s->gap ? age : s->gap;
}

static struct sample *lfu_victim(uint32_t now, uint32_t gap)
{
	struct sample *v = NULL;

	for (struct sample *s = sample; s < sample + used; s++)
		if (s->in[LFU] && (!v || coldness(s, now) > coldness(v, now)))
			v = s;
	return v && coldness(v, now) > gap + gap / 2 ? v : NULL;
}

static void enter(struct sample *s, unsigned model, struct sample *victim)
{
	if (local(model) < room - (model == LRU ? room / LRU_SLACK : 0)) {
		s->in[model] = true;
	} else if (victim) {
		victim->in[model] = false;
		s->in[model] = true;
	}
}

/*
 * What is done in earnest of LRU's is less than the model, which knows the order exactly: it
 * has to be better by three points at least. And when it promised what did not come true
 * (a loop that just fits here, and there just doesn't) it is not believed for a while.
 */
static unsigned expected(unsigned model)
{
	return missed[model] + distrust[model] + (model == LRU ? touches / 32 : 0);
}

static void choose(void)
{
	unsigned least = best;

	/* Of one tour an LRU may have just what comes first in the next. */
	if (touches < TOURS * used)
		return;
	if (best == LRU && since >= ENOUGH && missed_since > promised_since + since / 8) {
		distrust[best] = HORIZON / 2;
		promised_since = missed_since;
	}
	for (unsigned m = 0; m < MODELS; m++)
		if (expected(m) < expected(least))
			least = m;
	/* By a margin, or it would go to and fro. */
	if (least != best && since >= ENOUGH &&
	    expected(least) + expected(best) / 16 + 2 < expected(best)) {
		best = least;
		since = missed_since = promised_since = 0;
	}
}

static void touch(struct sample *s, uint32_t now, bool first, bool fetched)
{
	uint32_t distance = now - s->seen;

	if (!first) {
		if (s->touches < 8)
			s->touches++;
		s->gap = (uint32_t)((int64_t)s->gap + ((int64_t)distance - s->gap) / s->touches);
		for (unsigned m = 0; m < MODELS; m++)
			missed[m] += !s->in[m];
		missed_since += fetched;
		promised_since += !s->in[best];
		touches++;
		since++;
	}
	s->seen = now;
	if (!s->in[LRU])
		enter(s, LRU, lru_victim());
	if (!s->in[LOOP])
		enter(s, LOOP, first ? NULL : loop_victim(now, distance));
	if (!s->in[LFU])
		enter(s, LFU, first ? NULL : lfu_victim(now, s->gap));
	if (touches >= HORIZON) {
		touches /= 2;
		for (unsigned m = 0; m < MODELS; m++)
			missed[m] /= 2, distrust[m] /= 2;
	}
	choose();
}

void shadow_touched(struct block *b, const struct arrived *a)
{
	uint32_t number = view_number(b), now = (uint32_t)a->now;

	if (!number || !is_sampled(number))
		return;
	struct sample *s = find(number);
	bool first = !s;
	if (first)
		s = add(number);
	if (first || now - s->seen >= VISIT)
		touch(s, now, first, a->how == ARRIVE_FETCHED);
	s->due = now + VISIT;
}

struct block *shadow_due(uint64_t now)
{
	for (unsigned n = 0; n < used && n < 8; n++) {
		cursor = (cursor + 1) % used;
		struct sample *s = sample + cursor;
		if (!s->due || (int32_t)((uint32_t)now - s->due) < 0)
			continue;
		struct block *b = view_find(s->number);
		if (b && policy_is_settled(b)) {
			s->due = 0;
			return b;
		}
	}
	return NULL;
}
