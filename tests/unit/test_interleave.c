/* SPDX-License-Identifier: Apache-2.0 */
/* What belongs on the slow node for good: how much, which blocks, and of what is swept only. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "../../src/interleave.c"

#define BLOCKS 100u

static struct emf_class class;
static struct region *r;

static int setup(void **state)
{
	(void)state;
	memset(&il, 0, sizeof(il));
	memset(&class, 0, sizeof(class));
	engine.config.nclasses = 0;
	r = region_insert(1ul << 44, (1ul << 44) + BLOCKS * BLOCK_SIZE);
	assert_non_null(r);
	r->class = &class;
	r->registered = true;
	for (size_t i = 0; i < BLOCKS; i++)
		r->blocks[i].state = LOCAL;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	for (size_t i = 0; i < BLOCKS; i++)
		r->blocks[i].state = NONE;
	region_erase(r);
	return 0;
}

static unsigned belonging(unsigned from, unsigned n)
{
	unsigned sum = 0;

	for (unsigned i = from; i < from + n; i++)
		sum += interleave_belongs(r->blocks + i);
	return sum;
}

static void shares(void **state)
{
	(void)state;
	class.place = 100;
	assert_int_equal(belonging(0, BLOCKS), 0); /* no class had asked for it at the start */
	il.wanted = true;
	assert_int_equal(belonging(0, BLOCKS), BLOCKS);
	class.place = 0;
	assert_int_equal(belonging(0, BLOCKS), 0);
	class.place = 50;
	assert_int_equal(belonging(0, BLOCKS), BLOCKS / 2);
	class.place = 20;
	/* Evenly. */
	for (unsigned i = 0; i < BLOCKS; i += 10)
		assert_in_range(belonging(i, 10), 1, 3);
	assert_in_range(belonging(0, BLOCKS), 19, 21);
	/* The class keeps others. */
	class.place = 60;
	class.resident = 40;
	assert_in_range(belonging(0, BLOCKS), 59, 61);
	class.place = 100;
	assert_in_range(belonging(0, BLOCKS), 59, 61);
	class.resident = 0;
	r->blocks[7].note.pinned = true;
	assert_int_equal(belonging(0, BLOCKS), BLOCKS - 1);
	r->kept = KEPT_LOCKED;
	assert_int_equal(belonging(0, BLOCKS), 0);
	r->kept = 0;
	r->class = NULL;
	assert_int_equal(belonging(0, BLOCKS), 0);
}

static void swept(void **state)
{
	uint32_t at = 1;

	(void)state;
	il.wanted = true;
	il.weighted = 30;
	class.place = EMF_PLACE_WEIGHTED;
	for (unsigned i = 0; i < 2000; i++) {
		at = at * 1664525u + 1013904223u;
		interleave_touched(r->blocks + (at >> 16) % BLOCKS);
		assert_int_equal(belonging(0, BLOCKS), 0);
	}
	/* Back and forth between two. */
	for (unsigned i = 0; i < 200; i++)
		interleave_touched(r->blocks + i % 2 * 10);
	assert_int_equal(belonging(0, BLOCKS), 0);
	/* Samples of a sweep: some way apart, and round again. */
	for (unsigned i = 0; i < 60; i++)
		interleave_touched(r->blocks + i * 13 % BLOCKS);
	assert_in_range(belonging(0, BLOCKS), 29, 31);
	/* Nothing where it does not pay. */
	il.weighted = 0;
	assert_int_equal(belonging(0, BLOCKS), 0);
	/* Or as the policies see it. */
	memset(&r->order_seen, 0, sizeof(r->order_seen));
	il.weighted = 30;
	assert_int_equal(belonging(0, BLOCKS), 0);
	r->note.does = EMF_DOES_SWEPT;
	assert_in_range(belonging(0, BLOCKS), 29, 31);
}

/* Round by round, and then it rests. */
static void next(void **state)
{
	unsigned n = 0;
	struct block *b;

	(void)state;
	assert_false(interleave_is_busy());
	assert_null(interleave_next());
	il.wanted = true;
	class.place = 50;
	r->blocks[0].copied = r->blocks[2].placed = true; /* whichever of two it is */
	r->blocks[1].copied = r->blocks[3].placed = true;
	for (size_t i = 4; i < 8; i++)
		r->blocks[i].state = FAR;
	while ((b = interleave_next())) {
		assert_true(interleave_belongs(b) && b - r->blocks >= 8);
		assert_ptr_equal(interleave_next(), b); /* until it was tried */
		b->placed = true;
		interleave_tried(true);
		n++;
	}
	assert_int_equal(n, (BLOCKS - 8) / 2);
	assert_true(interleave_is_busy());
	assert_null(interleave_next());
	assert_false(interleave_is_busy());
	/* What can't be brought is tried once a round, not all the time. */
	il.rest_until = 0;
	for (size_t i = 8; i < BLOCKS; i++)
		r->blocks[i].placed = false;
	for (n = 0; interleave_next(); n++)
		interleave_tried(false);
	assert_int_equal(n, (BLOCKS - 8) / 2);
	assert_false(interleave_is_busy());
}

/* As 1/time of each, so that both are done at once. */
static void bandwidths(void **state)
{
	(void)state;
	assert_int_equal(bandwidth_percent(100, 100), 50);
	assert_int_equal(bandwidth_percent(100, 300), 25);
	assert_int_equal(bandwidth_percent(100, 900), 10);
	assert_int_equal(bandwidth_percent(0, 0), 0);
	assert_true(bandwidth_pays(1000, 750));
	assert_false(bandwidth_pays(1000, 990));
	assert_false(bandwidth_pays(1000, 1200));
}

/* By all CPUs, several times; the node is the one there is in any case. */
static void measured(void **state)
{
	(void)state;
	engine.budget = 256ull << 20;
	for (int i = 0; i < 3; i++) {
		assert_in_range(bandwidth_share(0), 0, 100);
		assert_int_equal(engine.threads, 0);
	}
	/* With next to nothing to do it by. */
	engine.budget = 8ull << 20;
	assert_in_range(bandwidth_share(0), 0, 100);
	/* A node that is not there. */
	assert_int_equal(bandwidth_share(999), 0);
	assert_int_equal(engine.threads, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(shares, setup, teardown),
		cmocka_unit_test_setup_teardown(swept, setup, teardown),
		cmocka_unit_test_setup_teardown(next, setup, teardown),
		cmocka_unit_test(bandwidths),
		cmocka_unit_test(measured),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
