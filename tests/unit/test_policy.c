/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Policies, through the core of bench/policysim: the bounds that replacement and prefetch keep
 * to on each kind of tour, and what policy.h promises. Deterministic.
 */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../bench/policysim/replay.h"
#include "block.h"
#include "engine.h"
#include "policy/policy.h"
#include "region.h"
#include "stats.h"

static const unsigned percents[] = { 25, 50, 75, 90 };

static double rate(const struct tour *t, size_t blocks, uint64_t fetched)
{
	return 100.0 - 100.0 * (double)fetched / (double)(t->n - blocks);
}

static double hits(const struct tour *t, size_t capacity, enum emf_evict evict)
{
	struct replay r = { .evict = evict, .prefetch = EMF_PREFETCH_OFF, .capacity = capacity };

	replay_run(&r, t);
	return replay_hit_rate(&r);
}

/* Points below Belady's optimum at most, with the first `sizes` of percents local. */
static void check_tour(const struct tour *t, const char *name, unsigned sizes, enum emf_evict e,
		       double points)
{
	size_t blocks = tour_blocks(t);

	for (unsigned i = 0; i < sizes; i++) {
		size_t capacity = blocks * percents[i] / 100;
		double best = rate(t, blocks, replay_optimum(t, capacity, NULL));
		double is = hits(t, capacity, e);
		if (is < best - points || is > best)
			fail_msg("%s, %u%% local: %.1f%% hits, the optimum is %.1f%%", name,
				 percents[i], is, best);
	}
}

static void check_optimum(const char *name, double points)
{
	struct tour t;

	assert_true(tour_generate(&t, name));
	check_tour(&t, name, 4, EMF_EVICT_AUTO, points);
	tour_free(&t);
}

static void dense_is_near_the_optimum(void **state)
{
	(void)state;
	check_optimum("dense", 2);
}

static void experts_are_near_the_optimum(void **state)
{
	(void)state;
	check_optimum("moe", 5);
}

static void growing_context_is_near_the_optimum(void **state)
{
	(void)state;
	check_optimum("kv", 2);
}

/* Where two threads meet a block comes twice a tour: those are worth more than the others. */
static void what_comes_twice_a_tour_stays(void **state)
{
	enum { BLOCKS = 420, TOURS = 40 };
	struct tour t = { .name = "twice" };

	(void)state;
	tour_region(&t, 0x1000000, BLOCKS);
	for (uint32_t i = 0; i < BLOCKS; i++)
		tour_touch(&t, 0x1000000 + i);
	for (unsigned n = 0; n < TOURS; n++)
		for (uint32_t i = 0; i < BLOCKS; i++) {
			tour_touch(&t, 0x1000000 + i);
			if (i % 7 == 6 && i > 14)
				tour_touch(&t, 0x1000000 + i - 14);
		}
	for (size_t capacity = 90; capacity <= 110; capacity += 5) {
		double best = rate(&t, BLOCKS, replay_optimum(&t, capacity, NULL));
		double is = hits(&t, capacity, EMF_EVICT_AUTO);
		if (is < best - 1.2)
			fail_msg("%zu local: %.1f%% hits, the optimum is %.1f%%", capacity, is,
				 best);
	}
	tour_free(&t);
}

static void auto_is_not_behind_lru(void **state)
{
	(void)state;
	for (unsigned k = 0; tour_names[k]; k++) {
		struct tour t;
		assert_true(tour_generate(&t, tour_names[k]));
		size_t blocks = tour_blocks(&t);
		for (unsigned i = 0; i < 4; i++) {
			size_t capacity = blocks * percents[i] / 100;
			double lru = hits(&t, capacity, EMF_EVICT_LRU);
			double is = hits(&t, capacity, EMF_EVICT_AUTO);
			if (is < lru - 3)
				fail_msg("%s, %u%% local: %.1f%% hits, lru has %.1f%%", t.name,
					 percents[i], is, lru);
		}
		tour_free(&t);
	}
}

/*
 * So many tours after the program has turned to a second model, or back from a random phase, it
 * hits as before, but for a tenth of the tour.
 */
static void check_recovery(const char *name, unsigned change, unsigned percent, unsigned tours)
{
	struct tour t;
	unsigned series[64], best[64], at = change + tours;

	assert_true(tour_generate(&t, name));
	assert_true(t.nmarks <= 64 && at + 1 < t.nmarks);
	size_t capacity = tour_blocks(&t) * percent / 100;
	struct replay r = { .prefetch = EMF_PREFETCH_OFF, .capacity = capacity, .series = series };
	replay_run(&r, &t);
	replay_optimum(&t, capacity, best);
	unsigned length = t.mark[at + 1] - t.mark[at];
	if (series[at] > best[at] + length / 10)
		fail_msg("%s, %u%% local: in tour %u after the change %u of %u blocks are fetched, "
			 "the optimum is %u",
			 name, percent, tours + 1, series[at], length, best[at]);
	tour_free(&t);
}

static void recovers_within_two_tours(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 4; i++) {
		check_recovery("second-model", 12, percents[i], 2);
		check_recovery("second-model", 24, percents[i], 2);
		check_recovery("random-phase", 24, percents[i], 2);
		check_recovery("prefill", 8, percents[i], 2);
	}
	/* Where just one of them fits. */
	check_recovery("second-model", 12, 50, 1);
}

/* While keys and values grow every token hits as it can, but for a twentieth of it. */
static void keeps_up_with_a_growing_context(void **state)
{
	struct tour t;
	unsigned series[128], best[128];

	(void)state;
	assert_true(tour_generate(&t, "kv"));
	assert_true(t.nmarks <= 128);
	for (unsigned i = 0; i < 4; i++) {
		size_t capacity = tour_blocks(&t) * percents[i] / 100;
		struct replay r = { .prefetch = EMF_PREFETCH_OFF,
				    .capacity = capacity,
				    .series = series };
		replay_run(&r, &t);
		replay_optimum(&t, capacity, best);
		for (unsigned k = 2; k + 1 < t.nmarks; k++)
			if (series[k] > best[k] + (t.mark[k + 1] - t.mark[k]) / 20)
				fail_msg("%u%% local: of token %u %u blocks are fetched, the "
					 "optimum is %u",
					 percents[i], k, series[k], best[k]);
	}
	tour_free(&t);
}

/* Layer by layer, each of a few blocks gone over by each of the heads: seen only if it stays a
 * while. */
static void what_is_gone_over_again_stays_meanwhile(void **state)
{
	enum { LAYERS = 40, KEYS = 7, HEADS = 8, WEIGHTS = 8, TOKENS = 12 };
	struct tour t = { .name = "heads" };

	(void)state;
	tour_region(&t, 0x1000000, LAYERS * (KEYS + WEIGHTS));
	for (unsigned token = 0; token < TOKENS; token++)
		for (uint32_t l = 0; l < LAYERS; l++) {
			uint32_t first = 0x1000000 + l * (KEYS + WEIGHTS);
			for (unsigned i = 0; i < HEADS * KEYS; i++)
				tour_touch(&t, first + i % KEYS);
			for (unsigned i = 0; i < WEIGHTS; i++)
				tour_touch(&t, first + KEYS + i);
		}
	check_tour(&t, "several heads", 3, EMF_EVICT_AUTO, 4);
	tour_free(&t);
}

/* What was replayed before is forgotten, all of it. */
static void each_replay_begins_anew(void **state)
{
	static const char *const names[] = { "moe", "recent", "redis", "dense" };
	struct replay first[4][4], again;
	struct tour t[4];

	(void)state;
	for (unsigned k = 0; k < 4; k++)
		assert_true(tour_generate(t + k, names[k]));
	for (unsigned n = 0; n < 4 * 4 * 4; n++) {
		unsigned k = n % 4, i = n / 4 % 4;
		/* Another one before each, from round to round. */
		struct replay r = { .capacity = tour_blocks(t + k) * percents[i] / 100 };
		struct replay other = { .capacity = 50 + 100 * (n / 16) };
		replay_run(&other, t + (k + n / 16) % 4);
		replay_run(&r, t + k);
		if (n < 16)
			first[k][i] = r;
		again = first[k][i];
		if (r.fetched != again.fetched || r.issued != again.issued ||
		    r.looks != again.looks)
			fail_msg("%s, %u%% local: %lu fetched, %lu looks; first %lu, %lu", names[k],
				 percents[i], r.fetched, r.looks, again.fetched, again.looks);
	}
	for (unsigned k = 0; k < 4; k++)
		tour_free(t + k);
}

static void lru_is_an_lru(void **state)
{
	struct tour t;

	(void)state;
	assert_true(tour_generate(&t, "recent"));
	size_t blocks = tour_blocks(&t), capacity = blocks / 2;
	double exact = rate(&t, blocks, replay_lru(&t, capacity));
	assert_true(hits(&t, capacity, EMF_EVICT_LRU) > exact - 1);
	tour_free(&t);
	/* And has an LRU's weakness, or it would be something else. */
	assert_true(tour_generate(&t, "dense"));
	assert_true(hits(&t, tour_blocks(&t) * 9 / 10, EMF_EVICT_LRU) < 30);
	tour_free(&t);
}

static void frequency_beats_the_loop_on_experts(void **state)
{
	struct tour t;

	(void)state;
	assert_true(tour_generate(&t, "moe"));
	size_t capacity = tour_blocks(&t) / 4;
	assert_true(hits(&t, capacity, EMF_EVICT_LFU) > hits(&t, capacity, EMF_EVICT_LOOP));
	tour_free(&t);
}

/* Which experts are used more than others changes all at once, half way. */
static void what_was_frequent_is_forgotten(void **state)
{
	struct tour t;

	(void)state;
	assert_true(tour_generate(&t, "moe-turn"));
	check_tour(&t, "moe-turn", 2, EMF_EVICT_LFU, 8.5);
	tour_free(&t);
}

static struct replay prefetched(const char *name, enum emf_prefetch p, unsigned percent)
{
	struct tour t;

	assert_true(tour_generate(&t, name));
	struct replay r = { .prefetch = p, .capacity = tour_blocks(&t) * percent / 100 };
	replay_run(&r, &t);
	assert_true(r.useful + r.wasted <= r.issued);
	tour_free(&t);
	return r;
}

static void sweeps_are_fetched_ahead(void **state)
{
	static const enum emf_prefetch all[] = { EMF_PREFETCH_AUTO, EMF_PREFETCH_SEQUENTIAL,
						 EMF_PREFETCH_LEARNED };

	(void)state;
	for (unsigned i = 0; i < 3; i++)
		for (unsigned k = 0; k < 3; k++) {
			struct replay r = prefetched("dense", all[i], percents[k]);
			if (r.useful * 100 < r.issued * 95 || r.useful * 100 < r.fetched * 90)
				fail_msg("prefetch %u, %u%% local: %lu of %lu issued were useful, "
					 "of %lu fetched",
					 all[i], percents[k], r.useful, r.issued, r.fetched);
		}
}

/*
 * A row of a table of words, then all layers: beyond the end the layers come again, not the table,
 * whichever is longer.
 */
static void begins_anew(uint32_t words)
{
	static const enum emf_prefetch all[] = { EMF_PREFETCH_AUTO, EMF_PREFETCH_SEQUENTIAL };
	struct tour t = { .name = "words" };
	uint32_t x = 1, end = words + 128;

	tour_region(&t, 0x1000000, end);
	for (uint32_t i = 0; i < words; i++)
		tour_touch(&t, 0x1000000 + i);
	for (unsigned token = 0; token < 60; token++) {
		tour_touch(&t, 0x1000000 + ((x = x * 1664525 + 1013904223) >> 16) % words);
		for (uint32_t i = words; i < end; i++)
			tour_touch(&t, 0x1000000 + i);
	}
	for (unsigned i = 0; i < 2; i++) {
		struct replay r = { .prefetch = all[i], .capacity = 80 };
		replay_run(&r, &t);
		if (r.useful * 100 < r.issued * 97 || r.useful * 100 < r.fetched * 96)
			fail_msg(
			    "prefetch %u, %u words: %lu of %lu issued were useful, of %lu fetched",
			    all[i], words, r.useful, r.issued, r.fetched);
	}
	tour_free(&t);
}

static void a_sweep_begins_anew_where_it_began(void **state)
{
	(void)state;
	begins_anew(32);
	begins_anew(160);
}

static void nothing_is_fetched_ahead_when_off(void **state)
{
	(void)state;
	assert_int_equal(prefetched("dense", EMF_PREFETCH_OFF, 50).issued, 0);
}

/* Where there is nothing to be foreseen little may be fetched for nothing. */
static void random_touches_waste_little(void **state)
{
	(void)state;
	struct replay r = prefetched("uniform", EMF_PREFETCH_AUTO, 50);
	if ((r.issued - r.useful) * 20 > r.fetched)
		fail_msg("%lu of %lu fetched were for nothing", r.issued - r.useful, r.fetched);
}

/* A tour that no stream explains: the same every time, in no order. */
static void a_learned_tour_needs_no_order(void **state)
{
	struct tour t = { .name = "shuffled" };
	uint32_t order[300], x = 1;

	(void)state;
	tour_region(&t, 0x1000000, 300);
	for (uint32_t i = 0; i < 300; i++) {
		uint32_t k = (x = x * 1664525 + 1013904223) % (i + 1);
		order[i] = order[k];
		order[k] = 0x1000000 + i;
	}
	for (unsigned tour = 0; tour < 20; tour++)
		for (unsigned i = 0; i < 300; i++)
			tour_touch(&t, order[i]);
	struct replay learned = { .prefetch = EMF_PREFETCH_LEARNED, .capacity = 150 };
	struct replay any = { .prefetch = EMF_PREFETCH_AUTO, .capacity = 150 };
	struct replay stream = { .prefetch = EMF_PREFETCH_SEQUENTIAL, .capacity = 150 };
	replay_run(&learned, &t);
	replay_run(&any, &t);
	replay_run(&stream, &t);
	assert_true(learned.useful * 100 > learned.issued * 95);
	assert_true(learned.useful * 100 > learned.fetched * 85);
	assert_true(any.useful * 100 > any.fetched * 60);
	assert_true(stream.useful * 100 < stream.fetched * 20);
	tour_free(&t);
}

/* Down, and every third block: strides. */
static void streams_have_strides(void **state)
{
	struct tour t = { .name = "strides" };

	(void)state;
	tour_region(&t, 0x1000000, 600);
	for (unsigned tour = 0; tour < 10; tour++) {
		for (uint32_t i = 0; i < 600; i += 3)
			tour_touch(&t, 0x1000000 + i);
		for (uint32_t i = 600; i-- > 0;)
			tour_touch(&t, 0x1000000 + i);
	}
	/* Each turn of the stream wastes what was fetched beyond it; by how much hangs on the
	 * budget. */
	for (unsigned blocks = 80; blocks <= 110; blocks += 10) {
		struct replay r = { .prefetch = EMF_PREFETCH_SEQUENTIAL, .capacity = blocks };
		replay_run(&r, &t);
		assert_true(r.useful * 100 > r.issued * 92);
		assert_true(r.useful * 100 > r.fetched * 60);
	}
	struct replay trend = { .prefetch = EMF_PREFETCH_TREND, .capacity = 100 };
	replay_run(&trend, &t);
	assert_true(trend.useful * 100 > trend.fetched * 60);
	tour_free(&t);
}

/* --- what policy.h promises --- */

static struct region *make_region(size_t blocks)
{
	struct region *r;

	while ((r = region_at(0)))
		region_erase(r);
	policy_reset();
	prefetch_reset();
	r = region_insert(0x100000000000, 0x100000000000 + blocks * BLOCK_SIZE);
	assert_non_null(r);
	policy_total(blocks);
	return r;
}

static void arrive(struct block *b)
{
	b->state = LOCAL;
	policy_arrived(b, ARRIVE_NEW, 0, true, 0);
}

/* The child of a fork counts its fetches from 0. */
static void a_child_has_a_clock_of_its_own(void **state)
{
	(void)state;
	policy_init(50);
	struct block *b = make_region(50)->blocks;
	*b =
	    (struct block){ .region = b->region, .state = FAR, .slot = NO_SLOT, .evicted_at = 990 };
	b->note = (struct policy_note){ .streamed = true, .when = 980 };
	engine.stats = stats_none();
	block_inherit(b);
	b->state = LOCAL;
	policy_arrived(b, ARRIVE_FETCHED, 30 - b->evicted_at, true, 30);
	assert_int_equal(b->note.gap, 30);
}

/* Nobody waits for it any more, so that others can be asked for. */
static void what_is_lost_was_fetched_for_nothing(void **state)
{
	(void)state;
	prefetch_init(1);
	struct region *r = make_region(9);
	for (size_t i = 0; i < 9; i++)
		r->blocks[i].state = FAR;
	engine.stats = stats_none();
	signal(SIGBUS, SIG_IGN); /* there is no userfaultfd to poison by */
	prefetch_wanted(r->blocks, r->blocks + 8);
	for (size_t i = 0; i < 9; i++) {
		struct block *b = prefetch_next();
		assert_ptr_equal(b, r->blocks + i);
		b->flags = B_PREFETCHED;
		block_lose(b, -EIO);
	}
}

static void a_new_budget_keeps_the_lists(void **state)
{
	(void)state;
	policy_init(100);
	struct region *r = make_region(100);
	for (size_t i = 0; i < 100; i++)
		arrive(r->blocks + i);
	policy_init(40);
	policy_init(80);
	unsigned n = 0;
	for (struct block *b; (b = policy_victim()); n++) {
		list_remove(b);
		b->state = FAR;
	}
	assert_int_equal(n, 100);
}

static void what_is_pinned_goes_last(void **state)
{
	(void)state;
	policy_init(50);
	struct region *r = make_region(50);
	for (size_t i = 0; i < 50; i++) {
		r->blocks[i].note.pinned = i % 5 == 0;
		arrive(r->blocks + i);
	}
	for (unsigned n = 0; n < 50; n++) {
		struct block *b = policy_victim();
		assert_non_null(b);
		assert_int_equal(b->note.pinned, n >= 40);
		list_remove(b);
		b->state = FAR;
	}
	assert_null(policy_victim());
}

static void an_unpinned_block_may_go(void **state)
{
	(void)state;
	policy_init(8);
	struct region *r = make_region(8);
	for (size_t i = 0; i < 8; i++) {
		r->blocks[i].note.pinned = true;
		arrive(r->blocks + i);
	}
	r->blocks[5].note.pinned = false;
	policy_reclassed(r->blocks + 5);
	assert_ptr_equal(policy_victim(), r->blocks + 5);
}

static void a_share_of_the_class_stays(void **state)
{
	struct emf_class c = { .resident = 50 };

	(void)state;
	policy_init(40);
	struct region *r = make_region(40);
	r->class = &c;
	for (size_t i = 0; i < 40; i++)
		arrive(r->blocks + i);
	for (unsigned n = 0; n < 20; n++) {
		struct block *b = policy_victim();
		assert_non_null(b);
		/* Every other one, evenly spread. */
		assert_int_equal((b - r->blocks) % 2, 0);
		list_remove(b);
		b->state = FAR;
	}
}

/* The steps go on the same way when the program begins anew, from further down. */
static void a_trend_begins_anew(void **state)
{
	struct emf_class c = { .prefetch = EMF_PREFETCH_TREND };
	bool asked[64] = { false };
	unsigned issued = 0;
	struct block *b;

	(void)state;
	prefetch_init(64);
	struct region *r = make_region(64);
	r->class = &c;
	for (size_t i = 0; i < 64; i++)
		r->blocks[i].state = FAR;
	for (size_t i = 0; i < 2 * 64; i += 2) {
		prefetch_touched(r->blocks + i % 64, asked[i % 64]);
		asked[i % 64] = false;
		while ((b = prefetch_next())) {
			asked[b - r->blocks] = true;
			issued += i >= 64;
		}
	}
	assert_in_range(issued, 2, 62);
}

/* What leaves and comes back while nothing else happens is put under watch, and found. */
static void the_watch_is_bounded(void **state)
{
	(void)state;
	policy_init(64);
	struct region *r = make_region(64);
	for (size_t i = 0; i < 64; i++)
		arrive(r->blocks + i);
	/* No fetches: all fits, and nothing is looked at however long it takes. */
	for (uint64_t ns = 0; ns < 1000000000; ns += 1000000)
		assert_null(policy_probe(0, ns));
	/* A second of looks at 2% of a core, 400 us each, is 2500. */
	unsigned looks = 0;
	for (uint64_t n = 1; n <= 100000; n++) {
		struct block *b = policy_probe(n, 1000000000 + n * 10000);
		if (!b)
			continue;
		looks++;
		policy_probed(b, n);
		policy_arrived(b, ARRIVE_STANDBY, 1, false, n);
	}
	assert_in_range(looks, 1, 2500 + 64);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(dense_is_near_the_optimum),
		cmocka_unit_test(experts_are_near_the_optimum),
		cmocka_unit_test(growing_context_is_near_the_optimum),
		cmocka_unit_test(what_comes_twice_a_tour_stays),
		cmocka_unit_test(auto_is_not_behind_lru),
		cmocka_unit_test(recovers_within_two_tours),
		cmocka_unit_test(keeps_up_with_a_growing_context),
		cmocka_unit_test(what_is_gone_over_again_stays_meanwhile),
		cmocka_unit_test(each_replay_begins_anew),
		cmocka_unit_test(lru_is_an_lru),
		cmocka_unit_test(frequency_beats_the_loop_on_experts),
		cmocka_unit_test(what_was_frequent_is_forgotten),
		cmocka_unit_test(sweeps_are_fetched_ahead),
		cmocka_unit_test(a_sweep_begins_anew_where_it_began),
		cmocka_unit_test(nothing_is_fetched_ahead_when_off),
		cmocka_unit_test(random_touches_waste_little),
		cmocka_unit_test(a_learned_tour_needs_no_order),
		cmocka_unit_test(streams_have_strides),
		cmocka_unit_test(a_child_has_a_clock_of_its_own),
		cmocka_unit_test(what_is_lost_was_fetched_for_nothing),
		cmocka_unit_test(a_new_budget_keeps_the_lists),
		cmocka_unit_test(what_is_pinned_goes_last),
		cmocka_unit_test(an_unpinned_block_may_go),
		cmocka_unit_test(a_share_of_the_class_stays),
		cmocka_unit_test(a_trend_begins_anew),
		cmocka_unit_test(the_watch_is_bounded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
