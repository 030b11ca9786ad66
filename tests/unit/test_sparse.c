/* SPDX-License-Identifier: Apache-2.0 */
/* How much of a far block a fault asks for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define k_now_ns now_ns
#include "../../src/sparse.c"

static uint64_t now;

uint64_t now_ns(void)
{
	return now;
}

#define BLOCKS 256u

static struct region *r;
static struct emf_backend top;

/* The address of a page of a block. */
static uintptr_t at(unsigned block, unsigned page)
{
	return r->start + block * BLOCK_SIZE + page * K_PAGE;
}

static unsigned wants(unsigned block, unsigned page)
{
	unsigned n = sparse_wants(r->blocks + block, at(block, page));

	sparse_begun(r->blocks + block);
	return n;
}

static int setup(void **state)
{
	static bool slots;

	(void)state;
	sparse_reset();
	engine.uffd.move = true;
	engine.store.top = &top;
	top.caps = EMF_CAP_SYNC;
	if (!slots && slot_init(BLOCKS * BLOCK_SIZE, BLOCKS * BLOCK_SIZE))
		return -1;
	slots = true;
	r = region_insert(1ul << 44, (1ul << 44) + BLOCKS * BLOCK_SIZE);
	r->grain.alone = 255;
	for (size_t i = 0; i < BLOCKS; i++) {
		r->blocks[i].state = FAR;
		r->blocks[i].slot = slot_alloc();
		slot_set_extent(r->blocks[i].slot, (struct slot_extent){ 0, BLOCK_PAGES });
	}
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	for (size_t i = 0; i < BLOCKS; i++) {
		slot_free(r->blocks[i].slot);
		r->blocks[i].slot = NO_SLOT;
		r->blocks[i].state = NONE;
	}
	region_erase(r);
	return 0;
}

/* How many jumps until one of them fetches less than a block. */
static unsigned jumps(void)
{
	static unsigned i;
	unsigned n = 1;

	while (n < BLOCKS && !wants(i = (i + 37) % BLOCKS, 0))
		n++;
	return n;
}

/* What jumps to a block at rest on a link gets all of it, but for one in some. */
static void link_far(void **state)
{
	(void)state;
	assert_int_equal(jumps(), ASK);
}

/* From where it can be read as it lies a cluster is enough until a neighbour follows. */
static void byte_addressable(void **state)
{
	(void)state;
	top.caps |= EMF_CAP_BYTES;
	assert_int_equal(wants(100, 40), CLUSTER_PAGES);
	/* Some way off, in the same block; it has some of it. */
	r->blocks[100].pages = CLUSTER_PAGES;
	assert_int_equal(wants(100, 300), CLUSTER_PAGES);
	/* A few that lie together are no sweep; when one after the other comes the rest is, too. */
	for (unsigned n = 1; n < RUN; n++)
		assert_int_equal(wants(100, 300 + n * CLUSTER_PAGES), CLUSTER_PAGES);
	assert_int_equal(wants(100, 300 + RUN * CLUSTER_PAGES), 0);
	/* Such answers make questions rarer there, too. */
	jumps();
	assert_int_equal(jumps(), 2);
	/* What most of has come is completed. */
	r->blocks[200].pages = BLOCK_PAGES / 4 * 3;
	assert_int_equal(wants(200, 0), 0);
}

/* A sweep is none of that. */
static void on_the_way(void **state)
{
	(void)state;
	top.caps |= EMF_CAP_BYTES;
	for (unsigned i = 0; i < 8; i++) {
		sparse_touched(r->blocks + i);
		assert_int_equal(wants(i + 1, 0), 0);
	}
}

/* What a sweep follows is no reason to ask; what none follows is one, beside a sweep, too. */
static void leaps_followed(void **state)
{
	(void)state;
	top.caps |= EMF_CAP_BYTES;
	for (unsigned i = 0; i < BLOCKS / 8; i++)
		for (unsigned k = 0; k < 4; k++)
			sparse_touched(r->blocks + i * 37 % (BLOCKS / 8) * 8 + k);
	assert_int_equal(wants(100, 40), 0);
	for (unsigned i = 0; i < BLOCKS / 4; i++) {
		sparse_touched(r->blocks + i);
		sparse_touched(r->blocks + BLOCKS / 2 + i * 51 % (BLOCKS / 2));
	}
	assert_int_equal(wants(100, 40), CLUSTER_PAGES);
}

/* Two that go over the same block, each on its way, make it no sparse one. */
static void two_threads(void **state)
{
	(void)state;
	top.caps |= EMF_CAP_BYTES;
	r->grain.sparse = SPARSE - 1;
	assert_int_equal(wants(100, 0), CLUSTER_PAGES);
	r->blocks[100].pages = CLUSTER_PAGES;
	for (unsigned n = 0; n < RUN; n++) {
		assert_int_equal(wants(100, 256 + n * CLUSTER_PAGES), CLUSTER_PAGES);
		if (n)
			assert_int_equal(wants(100, n * CLUSTER_PAGES), CLUSTER_PAGES);
	}
	assert_true(r->grain.sparse < SPARSE);
	assert_int_equal(wants(100, 256 + RUN * CLUSTER_PAGES), 0);
}

/* Beside reads at random one block after the other is swept. */
static void sweep_goes_on(void **state)
{
	(void)state;
	r->grain.sparse = SPARSE;
	sparse_touched(r->blocks + 100);
	assert_int_equal(wants(101, 0), 0);
	assert_int_equal(wants(99, BLOCK_PAGES - 1), 0);
	/* That is no place for one to come to, nor is one that it was long ago. */
	assert_int_equal(wants(101, BLOCK_PAGES / 2), 1);
	for (unsigned i = 0; i <= SOON; i++) {
		r->blocks[i * 3 % 90].flags = B_PART;
		sparse_touched(r->blocks + i * 3 % 90);
	}
	assert_int_equal(wants(101, 0), 1);
	/* Nor does what comes by pages begin one. */
	assert_int_equal(wants(SOON * 3 % 90 + 1, 0), 1);
}

/* Where there is no room the fault comes again, which is no other one. */
static void no_room(void **state)
{
	(void)state;
	r->grain.caution = 1;
	for (unsigned i = 0; i < BLOCKS; i++)
		assert_int_equal(sparse_wants(r->blocks + 10, at(10, 0)), 0);
	top.caps |= EMF_CAP_BYTES;
	r->grain.caution = 0;
	for (unsigned n = 0; n < RUN; n++)
		assert_int_equal(wants(100, n * CLUSTER_PAGES), CLUSTER_PAGES);
	for (unsigned i = 0; i < BLOCKS; i++)
		assert_int_equal(sparse_wants(r->blocks + 100, at(100, RUN * CLUSTER_PAGES)), 0);
	assert_int_equal(r->grain.caution, 0);
	/* The same holds where it came and went again. */
	r->grain.sparse = SPARSE;
	for (unsigned i = 0; i < BLOCKS; i++)
		assert_int_equal(wants(200, 0), 1);
}

/* As many threads sweep as there are questions: each answers its own. */
static void many_threads(void **state)
{
	(void)state;
	top.caps |= EMF_CAP_BYTES;
	for (unsigned n = 0; n < RUN; n++)
		for (unsigned i = 0; i < QUESTIONS; i++) {
			unsigned block = 8 * (n % 2 ? QUESTIONS - 1 - i : i);
			assert_int_equal(wants(block, n * CLUSTER_PAGES), CLUSTER_PAGES);
			r->blocks[block].pages = CLUSTER_PAGES;
		}
	assert_int_equal(r->grain.sparse, 0);
}

/* What is appended to comes to its next cluster in its own time, and is not to come as a whole. */
static void appended(void **state)
{
	(void)state;
	top.caps |= EMF_CAP_BYTES;
	for (unsigned n = 0; n < 2 * RUN; n++) {
		assert_int_equal(wants(100, n * CLUSTER_PAGES), CLUSTER_PAGES);
		now += LATE_NS + 1;
	}
	assert_true(r->grain.sparse >= SPARSE);
	/* In a row all of it does. */
	for (unsigned n = 2 * RUN; n < 3 * RUN; n++)
		assert_int_equal(wants(100, n * CLUSTER_PAGES), CLUSTER_PAGES);
	assert_int_equal(wants(100, 3 * RUN * CLUSTER_PAGES), 0);
}

/* What a class says holds wherever it lies. */
static void as_said(void **state)
{
	static struct emf_class class;

	(void)state;
	r->class = &class;
	class.granule = EMF_GRANULE_BLOCK;
	top.caps |= EMF_CAP_BYTES;
	assert_int_equal(wants(50, 0), 0);
	class.granule = EMF_GRANULE_PAGE;
	top.caps = 0;
	assert_int_equal(wants(60, 0), 1);
	class.granule = EMF_GRANULE_CLUSTER;
	assert_int_equal(wants(70, 0), CLUSTER_PAGES);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(link_far, setup, teardown),
		cmocka_unit_test_setup_teardown(byte_addressable, setup, teardown),
		cmocka_unit_test_setup_teardown(on_the_way, setup, teardown),
		cmocka_unit_test_setup_teardown(leaps_followed, setup, teardown),
		cmocka_unit_test_setup_teardown(two_threads, setup, teardown),
		cmocka_unit_test_setup_teardown(sweep_goes_on, setup, teardown),
		cmocka_unit_test_setup_teardown(no_room, setup, teardown),
		cmocka_unit_test_setup_teardown(many_threads, setup, teardown),
		cmocka_unit_test_setup_teardown(appended, setup, teardown),
		cmocka_unit_test_setup_teardown(as_said, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
