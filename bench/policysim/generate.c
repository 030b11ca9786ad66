/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tours that are made up, where a real one would need a model or a server that is too large
 * to keep, or to show one thing alone. What they stand for was measured on the real thing
 * (DESIGN, "How engines behave"); the numbers are beside each. All from one seed.
 */
#include "tour.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MOE_SPREAD 4.0
#define BASE 0x1000000u /* block numbers: at 32 TiB */

static uint64_t state;

static uint64_t rnd(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

static uint32_t below(uint32_t n)
{
	return (uint32_t)(rnd() >> 16) % n;
}

static bool chance(double p)
{
	return (double)(rnd() >> 11) / (double)(1ull << 53) < p;
}

/* Two compute threads take chunks from a shared counter: neighbours come out of order. */
static void sweep(struct tour *t, uint32_t first, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		bool swap = i + 1 < count && chance(0.3);
		tour_touch(t, first + i + swap);
		if (swap)
			tour_touch(t, first + i++);
	}
}

static void fill(struct tour *t, uint32_t first, uint32_t count)
{
	tour_region(t, first, count);
	for (uint32_t i = 0; i < count; i++)
		tour_touch(t, first + i);
}

/* llama.cpp, 864 MiB of weights in one buffer, one area of K and V before each layer. */
static void dense(struct tour *t)
{
	enum { LAYERS = 24, WEIGHTS = 18, TOKENS = 40 };
	uint32_t kv = BASE + 1000;

	fill(t, BASE, LAYERS * WEIGHTS);
	fill(t, kv, LAYERS);
	for (unsigned token = 0; token < TOKENS; token++) {
		tour_mark(t);
		for (uint32_t l = 0; l < LAYERS; l++) {
			tour_touch(t, kv + l);
			sweep(t, BASE + l * WEIGHTS, WEIGHTS);
		}
	}
}

/* Near enough to a normal distribution. */
static double normal(void)
{
	double x = -6;

	for (unsigned i = 0; i < 12; i++)
		x += (double)(rnd() >> 11) / (double)(1ull << 53);
	return x;
}

/*
 * Mixture of experts: 5 of 16 for each layer and token, 31% of their weights (26 to 37% were
 * measured). A router's score is what an expert is worth in general, by which some are
 * chosen nearly always and others hardly ever, plus what the token adds; as far apart as
 * makes four of five experts serve the next token again (60 to 90% were measured, and that
 * frequency predicts them, recency does not). Two blocks an expert; attention is dense.
 */
static void experts(struct tour *t, bool turns)
{
	enum { LAYERS = 20, E = 16, TOP = 5, SIZE = 2, ATTENTION = 3, TOKENS = 120 };
	enum { LAYER = ATTENTION + E * SIZE };
	static double worth[LAYERS][E];
	double score[E];

	for (unsigned l = 0; l < LAYERS; l++)
		for (unsigned i = 0; i < E; i++)
			worth[l][i] = MOE_SPREAD * normal();
	fill(t, BASE, LAYERS * LAYER);
	for (unsigned token = 0; token < TOKENS; token++) {
		tour_mark(t);
		/* Another text: other experts are worth more. */
		for (unsigned l = 0; turns && token == TOKENS / 2 && l < LAYERS; l++)
			for (unsigned i = 0; i < E; i++)
				worth[l][i] = MOE_SPREAD * normal();
		for (uint32_t l = 0; l < LAYERS; l++) {
			uint32_t first = BASE + l * LAYER;
			for (unsigned i = 0; i < E; i++)
				score[i] = worth[l][i] + normal();
			for (uint32_t i = 0; i < ATTENTION; i++)
				tour_touch(t, first + i);
			for (uint32_t e = 0; e < E; e++) {
				unsigned better = 0;
				for (unsigned i = 0; i < E; i++)
					better += score[i] > score[e];
				if (better < TOP)
					sweep(t, first + ATTENTION + e * SIZE, SIZE);
			}
		}
	}
}

static void moe(struct tour *t)
{
	experts(t, false);
}

static void moe_turn(struct tour *t)
{
	experts(t, true);
}

/* A long context: each layer's K and V grow by a block every few tokens, and are read whole. */
static void kv(struct tour *t)
{
	enum { LAYERS = 16, WEIGHTS = 12, ROOM = 24, TOKENS = 120 };
	uint32_t cache = BASE + 1000;

	fill(t, BASE, LAYERS * WEIGHTS);
	tour_region(t, cache, LAYERS * ROOM);
	for (unsigned token = 0; token < TOKENS; token++) {
		uint32_t have = 1 + token * (ROOM - 1) / TOKENS;
		tour_mark(t);
		for (uint32_t l = 0; l < LAYERS; l++) {
			sweep(t, cache + l * ROOM, have);
			sweep(t, BASE + l * WEIGHTS, WEIGHTS);
		}
	}
}

/* Requests for values whose popularity falls with their rank, in blocks of many values. */
static void redis(struct tour *t)
{
	enum { BLOCKS = 600, TOUCHES = 30000 };
	static double below_rank[BLOCKS];
	static uint16_t place[BLOCKS];
	double sum = 0;

	fill(t, BASE, BLOCKS);
	for (unsigned i = 0; i < BLOCKS; i++) {
		unsigned k = below(i + 1);
		place[i] = place[k];
		place[k] = (uint16_t)i;
		sum += pow(i + 1.0, -0.9);
		below_rank[i] = sum;
	}
	for (unsigned n = 0; n < TOUCHES; n++) {
		double x = sum * (double)(rnd() >> 11) / (double)(1ull << 53);
		unsigned lo = 0, hi = BLOCKS - 1;
		while (lo < hi) {
			unsigned mid = (lo + hi) / 2;
			if (below_rank[mid] < x)
				lo = mid + 1;
			else
				hi = mid;
		}
		if (n % (TOUCHES / 30) == 0)
			tour_mark(t);
		tour_touch(t, BASE + place[lo]);
	}
	/* A snapshot, as every so often. */
	sweep(t, BASE, BLOCKS);
}

/* What was used last is used next: the working set wanders through the region. */
static void recent(struct tour *t)
{
	enum { BLOCKS = 600, TOUCHES = 30000, SET = 90 };

	fill(t, BASE, BLOCKS);
	for (unsigned n = 0; n < TOUCHES; n++) {
		uint32_t from = n / 75;
		if (n % (TOUCHES / 30) == 0)
			tour_mark(t);
		tour_touch(t, BASE + (from + below(SET)) % BLOCKS);
	}
}

/* Uniform: nothing is to be learned. */
static void uniform(struct tour *t)
{
	enum { BLOCKS = 500, TOUCHES = 20000 };

	fill(t, BASE, BLOCKS);
	for (unsigned n = 0; n < TOUCHES; n++) {
		if (n % (TOUCHES / 20) == 0)
			tour_mark(t);
		tour_touch(t, BASE + below(BLOCKS));
	}
}

/* Changes of the phase, each after twelve tours; a mark a tour. */
static void second_model(struct tour *t)
{
	enum { BLOCKS = 300, TOURS = 12 };

	for (uint32_t model = 0; model < 2; model++) {
		fill(t, BASE + model * 1000, BLOCKS);
		for (unsigned i = 0; i < TOURS; i++) {
			tour_mark(t);
			sweep(t, BASE + model * 1000, BLOCKS);
		}
	}
	/* And back to the first. */
	for (unsigned i = 0; i < TOURS; i++) {
		tour_mark(t);
		sweep(t, BASE, BLOCKS);
	}
}

static void random_phase(struct tour *t)
{
	enum { BLOCKS = 400, TOURS = 12 };

	fill(t, BASE, BLOCKS);
	for (unsigned phase = 0; phase < 3; phase++)
		for (unsigned i = 0; i < TOURS; i++) {
			tour_mark(t);
			if (phase == 1)
				for (unsigned k = 0; k < BLOCKS; k++)
					tour_touch(t, BASE + below(BLOCKS));
			else
				sweep(t, BASE, BLOCKS);
		}
}

/* Prefill: each layer's weights in turn for many tokens at once, scratch beside; then decode. */
static void prefill(struct tour *t)
{
	enum { LAYERS = 20, WEIGHTS = 16, SCRATCH = 40, BATCHES = 8, TOKENS = 16 };
	uint32_t scratch = BASE + 1000;

	fill(t, BASE, LAYERS * WEIGHTS);
	tour_region(t, scratch, SCRATCH);
	for (unsigned i = 0; i < BATCHES + TOKENS; i++) {
		tour_mark(t);
		for (uint32_t l = 0; l < LAYERS; l++) {
			sweep(t, BASE + l * WEIGHTS, WEIGHTS);
			for (uint32_t k = 0; k < (i < BATCHES ? SCRATCH : 2); k++)
				tour_touch(t, scratch + k);
		}
	}
}

const char *const tour_names[] = { "dense",	  "moe",	  "moe-turn", "kv",
				   "redis",	  "recent",	  "uniform",  "second-model",
				   "random-phase", "prefill",	  NULL };
static void (*const generator[])(struct tour *) = { dense,	  moe,		moe_turn, kv,
						    redis,	  recent,	uniform,  second_model,
						    random_phase, prefill };

bool tour_generate(struct tour *t, const char *name)
{
	for (unsigned i = 0; tour_names[i]; i++) {
		if (strcmp(tour_names[i], name))
			continue;
		*t = (struct tour){ .name = tour_names[i] };
		state = 88172645463325252ull + i;
		generator[i](t);
		return true;
	}
	return false;
}
