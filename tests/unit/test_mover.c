/* SPDX-License-Identifier: Apache-2.0 */
/* Steps of the mover that others come between: what happens meanwhile is a function here. */
#include "test_store_toy.h"

#define store_matches compared
#include "../../src/mover.c"
#include "stats.h"

#include <signal.h>

static struct block *meanwhile; /* whose slot is not to be trusted any more, once it was compared */

bool compared(struct store *st, uint64_t offset, size_t length, const void *buf)
{
	(void)st;
	(void)offset;
	(void)length;
	(void)buf;
	if (meanwhile) {
		lock_take(&engine.lock);
		block_distrust_slot(meanwhile);
		lock_give(&engine.lock);
	}
	return true;
}

/* In standby, perhaps written to, with a slot that has its content. */
static void make_standby(struct block *b)
{
	b->frame = frame_empty(FRAME_BIG);
	frame_meta(b->frame)->owner = b;
	frame_meta(b->frame)->bytes = BLOCK_SIZE;
	fill(frame_start(b->frame), BLOCK_SIZE, 1);
	b->slot = slot_alloc();
	b->flags = B_UNSURE;
	b->state = STANDBY;
	list_append(&engine.leaving, b);
}

static struct toy toy;
static struct region *r;

static int setup(void **state)
{
	(void)state;
	toy_init(&toy, 8 * BLOCK_SIZE);
	toy.be.max_length = BLOCK_SIZE;
	engine.stats = stats_none();
	engine.limit = 64 * BLOCK_SIZE;
	engine.uffd.fd = -1; /* frames are not registered with any */
	frame_init(&engine.uffd, 4, 1);
	engine.store.top = &toy.be;
	r = region_insert(1ul << 44, (1ul << 44) + 5 * BLOCK_SIZE);
	return slot_init(8 * BLOCK_SIZE, 8 * BLOCK_SIZE) || mover_open() || !r;
}

/* Contact to the store is lost while a block is compared with its slot: it is written. */
static void doubt(void **state)
{
	(void)state;
	lock_take(&engine.lock);
	for (unsigned i = 0; i < 2; i++) {
		struct block *b = r->blocks + i;
		make_standby(b);
		meanwhile = i ? b : NULL;
		write_out(b);
		assert_int_equal(b->state, FAR);
		assert_int_equal(toy.transfers[EMF_WRITE], i);
	}
	lock_give(&engine.lock);
}

static void fetch_ahead(struct block *b)
{
	assert_true(block_fetch(b, false));
	b->flags |= B_PREFETCHED;
	list_append(&engine.prefetched, b);
	start_read(b);
}

/* The store is away while something is fetched that nobody waits for: it may come back. */
static void outage(void **state)
{
	struct block *b = r->blocks + 2;

	(void)state;
	signal(SIGBUS, SIG_IGN); /* there is no userfaultfd to poison by */
	b->slot = slot_alloc();
	slot_set_extent(b->slot, (struct slot_extent){ 0, BLOCK_PAGES });
	b->state = FAR;
	lock_take(&engine.lock);
	toy.fail = -EIO;
	fetch_ahead(b);
	assert_int_equal(b->state, FAR);
	assert_null(b->list);
	toy.fail = 0;
	fetch_ahead(b);
	assert_int_equal(b->state, STANDBY);
	lock_give(&engine.lock);
}

static void begin_fork(struct toy *t, const struct emf_io *io)
{
	(void)t;
	(void)io;
	engine.forking = true;
}

/* A fork begins while the first of two that threads wait for is fetched: a child would have zeros
 * for what is on its way then. */
static void asked_while_forking(void **state)
{
	struct block *first = r->blocks + 3, *second = r->blocks + 4;

	(void)state;
	lock_take(&engine.lock);
	for (struct block *b = first; b <= second; b++) {
		b->slot = slot_alloc();
		slot_set_extent(b->slot, (struct slot_extent){ 0, BLOCK_PAGES });
		b->state = FAR;
		list_append(&engine.asks, b);
	}
	toy.before = begin_fork;
	answer();
	assert_int_equal(first->state, STANDBY);
	assert_int_equal(second->state, FAR);
	assert_ptr_equal(second->list, &engine.asks);
	toy.before = NULL;
	engine.forking = false;
	answer();
	assert_int_equal(second->state, STANDBY);
	assert_null(engine.asks.head);
	lock_give(&engine.lock);
}

/* Who starves because a block is in place, and not to be written to, is to get on once it is not.
 */
static void unplaced(void **state)
{
	struct block *b = r->blocks;

	(void)state;
	policy_init(64);
	lock_take(&engine.lock);
	list_remove(b);
	b->state = LOCAL;
	b->placed = true;
	engine.placed = BLOCK_SIZE;
	list_append(&engine.starving, b);
	engine_wanted(b, k_now_ns());
	block_unplace(b);
	assert_null(engine.starving.head);
	assert_false(b->flags & B_WANTED); /* woken */
	lock_give(&engine.lock);
}

/* Where frames run out for prefetch, more are made. */
static void marks(void **state)
{
	(void)state;
	for (uint64_t blocks = 96; blocks < 2000; blocks += 32) {
		lock_take(&engine.lock);
		budget_set(blocks * BLOCK_SIZE);
		lock_give(&engine.lock);
		assert_true(engine.reserve_low > LEAVES);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(doubt), cmocka_unit_test(outage),
					    cmocka_unit_test(asked_while_forking),
					    cmocka_unit_test(unplaced), cmocka_unit_test(marks) };

	return cmocka_run_group_tests(tests, setup, NULL);
}
