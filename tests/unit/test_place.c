/* SPDX-License-Identifier: Apache-2.0 */
/* Blocks in place on a slow node: when one is brought to local memory, and what refuses all of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "../../src/place.c"

static struct block b;

static int setup(void **state)
{
	(void)state;
	memset(&place, 0, sizeof(place));
	memset(&b, 0, sizeof(b));
	engine.in_place = (struct block_list){ 0 };
	b.placed = true;
	place_arrived(&b);
	return 0;
}

/* It was sampled, and touched at once or late. */
static void sampled(bool soon)
{
	b.sampled = true;
	b.retry_at = soon ? k_now_ns() : k_now_ns() - 2 * PLACE_SOON_NS;
	place_arrived(&b);
}

static bool is_warm(void)
{
	assert_true(b.list == &place.warm || b.list == &engine.in_place);
	return b.list == &place.warm;
}

static void evidence(void **state)
{
	(void)state;
	assert_false(is_warm());
	for (int i = 0; i < PLACE_EVIDENCE - 1; i++)
		sampled(true);
	assert_false(is_warm());
	/* Not in a row. */
	sampled(false);
	assert_int_equal(b.evidence, -1);
	for (int i = 0; i < PLACE_EVIDENCE; i++) {
		assert_false(is_warm());
		sampled(true);
	}
	assert_true(is_warm());
	/* Arriving without having been sampled says nothing. */
	setup(state);
	for (int i = 0; i < 2 * PLACE_EVIDENCE; i++)
		place_arrived(&b);
	assert_false(is_warm());
	b.note.pinned = true; /* emf_pin */
	place_arrived(&b);
	assert_true(is_warm());
	b.note.pinned = false;
	for (int i = 0; i < 300; i++)
		sampled(false);
	assert_int_equal(b.evidence, INT8_MIN);
}

/* Who has come and gone before needs more; which is forgotten by halves. */
static void moved_before(void **state)
{
	(void)state;
	b.moves = 4;
	for (int i = 0; i < PLACE_EVIDENCE + 4; i++) {
		assert_false(is_warm());
		sampled(true);
	}
	assert_true(is_warm());
	place.calm = 1;
	assert_int_equal(moves(&b), 2);
	place.calm = 7;
	assert_int_equal(moves(&b), 0);
	b.calm = 250;
	place.calm = 251;
	assert_int_equal(moves(&b), 2);
	place.calm = 1; /* it has gone round */
	assert_int_equal(moves(&b), 0);
}

/* Where what has made way is used at once the next exchange waits; and less, where it is not. */
static void exchanges(void **state)
{
	(void)state;
	sampled(true);
	assert_int_equal(place.caution, 0); /* it has not made way for anything */
	for (unsigned i = 0; i < 2 * CAUTION; i++) {
		b.fresh = true;
		sampled(true);
		assert_int_equal(place.caution, i < CAUTION ? i + 1 : CAUTION);
		sampled(true);
	}
	assert_int_equal(place.caution, CAUTION);
	for (unsigned i = 0; i < 2 * CAUTION; i++) {
		b.fresh = true;
		sampled(false);
		sampled(false);
	}
	assert_int_equal(place.caution, 0);
}

/* What goes to the node. Of memory that MOVE refuses a local copy would come back, without end. */
static void wanted(void **state)
{
	struct region *r = region_insert(1ul << 44, (1ul << 44) + BLOCK_SIZE);
	struct block *w = r->blocks;

	(void)state;
	engine.uffd.fd = -1; /* frames are not registered with any */
	frame_init(&engine.uffd, 4, 1);
	w->state = STANDBY;
	w->frame = frame_empty(FRAME_BIG);
	assert_false(place_wants(w)); /* off unless asked for */
	place.limit = 2 * BLOCK_SIZE;
	assert_true(place_wants(w));
	w->copied = true;
	assert_false(place_wants(w));
	w->copied = false;
	w->flags = B_TORN;
	assert_false(place_wants(w));
	w->flags = 0;
	frame_meta(w->frame)->placed = true;
	assert_false(place_wants(w));
	assert_false(place.wanted);
	/* No room: somebody is to make some. */
	frame_meta(w->frame)->placed = false;
	engine.placed = BLOCK_SIZE + 1;
	assert_false(place_wants(w));
	assert_true(place.wanted);
	engine.placed = 0;
	frame_recycle(w->frame, false);
	region_erase(r);
}

/* What belongs on the node (interleave.h) stays there, unless it is pinned. */
static void belonging(void **state)
{
	struct region *r = region_insert(1ul << 44, (1ul << 44) + BLOCK_SIZE);
	struct block *w = r->blocks;

	(void)state;
	engine.config.nclasses = 1;
	engine.config.classes[0].place = 100;
	r->class = engine.config.classes;
	interleave_init(1);
	w->state = LOCAL;
	w->placed = w->fresh = true;
	for (int i = 0; i < 3 * PLACE_EVIDENCE; i++) {
		w->sampled = true;
		w->retry_at = k_now_ns();
		place_arrived(w);
		assert_ptr_equal(w->list, &engine.in_place);
	}
	assert_int_equal(place.caution, 0); /* nothing has made way */
	w->note.pinned = true;
	place_arrived(w);
	assert_ptr_equal(w->list, &place.warm);
	list_remove(w);
	w->state = NONE;
	region_erase(r);
	engine.config.nclasses = 0;
	interleave_init(1);
}

static void refused(void **state)
{
	struct emf_config *c = &engine.config;
	char page[K_PAGE];

	(void)state;
	assert_false(place_holds(page, true)); /* off unless asked for */
	c->in_place = 8 * BLOCK_SIZE;
	assert_non_null(strstr(refusal(), "first store numa:N"));
	c->nstores = 1;
	strcpy(c->store_uri[0], "mem:");
	assert_non_null(strstr(refusal(), "first store numa:N"));
	strcpy(c->store_uri[0], "numa:0?cpus=on");
	assert_non_null(strstr(refusal(), "without CPUs"));
	strcpy(c->store_uri[0], "numa:1");
	c->encrypt = true;
	assert_non_null(strstr(refusal(), "encrypt"));
	c->encrypt = false;
	engine.uffd.move = false;
	assert_non_null(strstr(refusal(), "UFFDIO_MOVE"));
	place_init();
	assert_false(place_is_on());
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(evidence, setup),
		cmocka_unit_test_setup(moved_before, setup),
		cmocka_unit_test_setup(exchanges, setup),
		cmocka_unit_test_setup(wanted, setup),
		cmocka_unit_test_setup(belonging, setup),
		cmocka_unit_test_setup(refused, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
