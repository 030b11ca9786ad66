/* SPDX-License-Identifier: Apache-2.0 */
/* What the seeds have found once, each as it was: engine.fault=signal. Only the order of steps is by chance. */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "engine.h"
#include "region.h"
#include "sim.h"

#define FD 100
#define BLOCKS 24 /* four times the budget */

static uint64_t value_of(uintptr_t at)
{
	return at / K_PAGE + 7;
}

static void write_pages(uintptr_t start, size_t n)
{
	for (uintptr_t at = start; at < start + n * K_PAGE; at += K_PAGE) {
		uint64_t value = value_of(at);
		if (touch(at, &value) != TOUCHED)
			sim_fail("%#lx is not to be written", at);
	}
}

static uintptr_t map(size_t pages, int prot)
{
	void *p = sim_mmap(NULL, pages * K_PAGE, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		sim_fail("no memory");
	return (uintptr_t)p;
}

/* All of it was written, and most is far. */
static uintptr_t filled(void)
{
	uintptr_t p = map((BLOCKS + 1) * BLOCK_PAGES, PROT_READ | PROT_WRITE);

	p = (p + BLOCK_SIZE - 1) & ~(BLOCK_SIZE - 1);
	while (engine.phase != PHASE_ACTIVE)
		co_sleep(SIM_MS);
	write_pages(p, BLOCKS * BLOCK_PAGES);
	co_sleep(SIM_S);
	return p;
}

static bool is_single(uintptr_t at)
{
	const uint32_t both = P_PRESENT | P_PROTECTED;

	return region_block(region_find(at), at)->state == FAR &&
	       (page_at(at)->flags & both) == both;
}

/* --- the kernel's part of calls --- */

static long into_pages(const long *arg)
{
	uintptr_t start = (uintptr_t)arg[1], end = start + (size_t)arg[2];

	for (uintptr_t at = start; at < end; at += K_PAGE) {
		uint64_t value = value_of(at);
		/* Time for anything to leave. */
		co_sleep(SIM_S);
		if (kernel_touch(at, true, &value))
			return at > start ? (long)(at - start) : -EFAULT;
	}
	return arg[2];
}

static void reads_into(uintptr_t start, size_t pages)
{
	const long arg[6] = { FD, (long)start, (long)(pages * K_PAGE) };
	long r = program_call(SYS_read, arg, into_pages);

	if (r != arg[2])
		sim_fail("read of %zu pages to %#lx: %ld", pages, start, r);
}

static long remap(const long *a)
{
	return k_mremap((void *)a[0], (size_t)a[1], (size_t)a[2], (int)a[3], (void *)a[4]);
}

/* --- scenarios --- */

/* A block that is lost but for two pages that came before that: the first of them. */
static uintptr_t lost_around(uintptr_t p)
{
	uintptr_t at = p;

	for (int i = 0; i < 10000; i++) {
		at = p + rnd_below(BLOCKS * BLOCK_PAGES / 4) * 4 * K_PAGE;
		touch(at, NULL);
		touch(at + K_PAGE, NULL);
		if (is_single(at) && is_single(at + K_PAGE) &&
		    !(page_at(at + 2 * K_PAGE)->flags & P_PRESENT))
			break;
	}
	if (!is_single(at))
		sim_fail("no single page is to be had");
	plan.read_errors = 1;
	if (touch(at + 2 * K_PAGE, NULL) != TOUCH_BUS)
		sim_fail("what was not to be read is there");
	plan.read_errors = 0;
	return at;
}

/* What is there may be written to. */
static void not_lost(void)
{
	uintptr_t at = lost_around(filled());
	uint64_t value = 1;

	if (touch(at, NULL) != TOUCHED || touch(at, &value) != TOUCHED)
		sim_fail("what was there is lost, too");
	reads_into(at + K_PAGE, 1);
}

/* What is kept is filled, but for that. */
static void lost_and_kept(void)
{
	uintptr_t at = lost_around(filled());

	sim_mlock((void *)at, 4 * K_PAGE);
	if (touch(at, NULL) != TOUCHED || touch(at + 3 * K_PAGE, NULL) != TOUCH_BUS)
		sim_fail("it is not as it was before it was locked");
}

static uintptr_t moves_from, moves_to;

static void *move_there(void *unused)
{
	(void)unused;
	signal_thread();
	if (sim_mremap((void *)moves_from, K_PAGE, K_PAGE, MREMAP_MAYMOVE | MREMAP_FIXED,
		       moves_to) == MAP_FAILED)
		sim_fail("mremap");
	return NULL;
}

/* What is moved to where something was lost is not, also before the engine knows of that. */
static void lost_and_replaced(void)
{
	moves_from = map(1, PROT_READ | PROT_WRITE);
	moves_to = lost_around(filled()) + 2 * K_PAGE;
	if (!(page_at(moves_from)->flags & P_REGISTERED))
		sim_fail("a page is not managed");
	plan.event_ms = 100;
	co_start("moves", move_there, NULL);
	while (!page_at(moves_to)->shift)
		co_sleep(SIM_MS / 10);
	if (touch(moves_to, NULL) != TOUCHED)
		sim_fail("it is lost");
}

/* The part that mremap, past libc's symbol, has added is brought in for a call, too. */
static void grown_past_libc(void)
{
	uintptr_t p = filled();
	const size_t n = BLOCKS * BLOCK_PAGES, more = n + 5;
	const long arg[6] = { (long)p, (long)(n * K_PAGE), (long)(more * K_PAGE), MREMAP_MAYMOVE };
	long to = program_call(SYS_mremap, arg, remap);

	if (to < 0)
		sim_fail("mremap: %ld", to);
	reads_into((uintptr_t)to + n * K_PAGE, 5);
}

/* The same, of what it leaves behind. */
static void left_past_libc(void)
{
	uintptr_t p = filled();
	const size_t len = BLOCKS * BLOCK_PAGES * K_PAGE;
	const long arg[6] = { (long)p, (long)len, (long)len, MREMAP_MAYMOVE | MREMAP_DONTUNMAP };
	long to = program_call(SYS_mremap, arg, remap);

	if (to < 0)
		sim_fail("mremap: %ld", to);
	reads_into(p + 70 * K_PAGE, 5);
}

/* What was moved is in blocks that begin anywhere: all of one is held. */
static void moved_by_a_page(void)
{
	uintptr_t p = filled();
	const size_t n = 4 * BLOCK_PAGES;
	uintptr_t to = map(n + 2 * BLOCK_PAGES, PROT_NONE);

	to = ((to + BLOCK_SIZE - 1) & ~(BLOCK_SIZE - 1)) + K_PAGE;
	if (sim_mremap((void *)p, n * K_PAGE, n * K_PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to) ==
	    MAP_FAILED)
		sim_fail("mremap");
	/* The last page of its second block. */
	reads_into(to + 2 * BLOCK_SIZE - K_PAGE, 1);
}

static bool under_way; /* what another thread does */
static uintptr_t discard_at;
#define DISCARDED BLOCK_PAGES /* a half of each of two blocks */

static void *discard(void *unused)
{
	(void)unused;
	signal_thread();
	sim_madvise((void *)discard_at, DISCARDED * K_PAGE, MADV_DONTNEED);
	under_way = false;
	return NULL;
}

static bool is_there(uintptr_t at)
{
	return page_at(at)->flags & P_PRESENT;
}

/* Single pages of the range do not leave before they are discarded, or all others would, too. */
static void discarded_late(void)
{
	uintptr_t p = filled(), half = p + BLOCK_SIZE / 2, last = half + BLOCK_SIZE - K_PAGE;
	const struct block *b = region_block(region_find(p), p);

	write_pages(p, BLOCK_PAGES);
	touch(last, NULL);
	if (b[0].state != LOCAL || b[1].state != FAR || !is_there(last))
		sim_fail("states %u and %u", b[0].state, b[1].state);
	/* The last of its pages is a single one. */
	plan.discard_ms = 800;
	discard_at = half;
	under_way = true;
	co_start("discard", discard, NULL);
	/* More single pages than there may be, and then more blocks. */
	for (unsigned i = 0; under_way; i++) {
		uintptr_t at = p + (2 + i % (BLOCKS - 2)) * BLOCK_SIZE;
		if (is_there(last))
			touch(at + i / BLOCKS * 2 % BLOCK_PAGES * K_PAGE, NULL);
		else
			write_pages(at, BLOCK_PAGES);
		co_sleep(SIM_MS / 10);
	}
	for (uintptr_t at = half; at < half + DISCARDED * K_PAGE; at += K_PAGE) {
		page_at(at)->model.value = 0;
		touch(at, NULL);
	}
}

/* What is not there when it was polled once the fault thread goes on with. */
static void read_again(void)
{
	uintptr_t p = filled();

	plan.rereads = 1;
	for (size_t i = 0; i < BLOCKS; i++) {
		uint64_t begin = sim_now;
		touch(p + i * BLOCK_SIZE + i * K_PAGE, NULL);
		if (sim_now - begin > SIM_S)
			sim_fail("it took %lu ms", (unsigned long)((sim_now - begin) / SIM_MS));
	}
}

static uintptr_t early;

static bool is_starting(struct co *self, void *arg)
{
	(void)self;
	(void)arg;
	return page_at(early)->flags & P_REGISTERED && engine.phase == PHASE_STARTING;
}

static void *populate_early(void *unused)
{
	(void)unused;
	signal_thread();
	if (co_block(is_starting, NULL, sim_now + SIM_S) &&
	    sim_madvise((void *)early, 3 * K_PAGE, MADV_POPULATE_WRITE))
		sim_fail("%#lx is not populated: %d", early, errno);
	under_way = false;
	return NULL;
}

/* Registered is what there is before it is ACTIVE. */
static void populated_at_the_start(void)
{
	uintptr_t p = map(BLOCK_PAGES, PROT_READ | PROT_WRITE);

	early = p;
	under_way = true;
	co_start("early", populate_early, NULL);
	filled();
	while (under_way)
		co_sleep(SIM_MS);
}

const struct scenario scenarios[] = {
	{ "not lost is what was there", not_lost, 2000, 2 },
	{ "lost is what is kept", lost_and_kept, 2000, 2 },
	{ "lost and replaced", lost_and_replaced, 2000, 2 },
	{ "a call after mremap past libc, grown", grown_past_libc, 2000, 2 },
	{ "a call after mremap past libc, left", left_past_libc, 2000, 2 },
	{ "a call on what mremap has moved", moved_by_a_page, 2000, 2 },
	{ "what is discarded late", discarded_late, 0, 2 },
	{ "read again", read_again, 0, 2 },
	{ "populated at the start", populated_at_the_start, 0, 0 },
	{ NULL, NULL, 0, 0 },
};

void scenario_plan(const struct scenario *s)
{
	plan = (struct plan){
		.signal = true,
		.patient = true,
		.move = true,
		.poison = true,
		.seed = plan.seed,
		.budget_blocks = BLOCKS / 4,
		.total_blocks = 2 * BLOCKS,
		.leaves = 1,
		.slots = 400,
		.delay_us = 10,
		.chaos = s->chaos,
		.sync = true,
		.trim = true,
		.granule = s->granule,
	};
}
