/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "place.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#ifdef __x86_64__
#include <emmintrin.h>
#endif

#include "block.h"
#include "engine.h"
#include "frame.h"
#include "kernel.h"
#include "log.h"
#include "region.h"
#include "transfer.h"

#ifndef PLACE_SAMPLE_NS /* the simulation is quicker */
#define PLACE_SAMPLE_NS                                                                            \
	5000000ull /* from one to the next: 1 us of work, and a fault if it is used */
#define PLACE_SOON_NS 1000000000ull /* who comes back so soon is used */
#define PLACE_COLD_NS 4000000000ull /* who does not for so long makes room */
#define PLACE_EVIDENCE 3 /* times in a row it came back soon, and one more for each move */
#endif
#define SHARE 4		      /* of those in place, one is out on a sample at most */
#define FULL_NS 1000000000ull /* the node has no room: not asked for so long */

static struct {
	uint64_t limit; /* bytes; 0: off */
	int node;
	uint64_t full_until, sample_at, promote_at;
	struct block_list out;	/* STANDBY, sampled, the oldest first */
	struct block_list warm; /* LOCAL and placed: to go to local memory */
} place;

bool place_is_on(void)
{
	return place.limit;
}

/* The kernel would carry the pages to where they are used, past the budget. */
static bool kernel_balances(void)
{
	char text = '0';
	int fd = open("/proc/sys/kernel/numa_balancing", O_RDONLY | O_CLOEXEC);

	if (fd >= 0 && read(fd, &text, 1) != 1)
		text = '0';
	if (fd >= 0)
		close(fd);
	return text != '0';
}

void place_init(void)
{
	const struct emf_config *c = &engine.config;

	if (!c->in_place)
		return;
	if (!c->nstores || strncmp(c->store_uri[0], "numa:", 5)) {
		log_warn("store.in_place is for a first store numa:N; nothing is left in place");
		return;
	}
	place.node = atoi(c->store_uri[0] + 5);
	if (!engine.uffd.move) {
		log_warn("store.in_place needs UFFDIO_MOVE (Linux 6.8); nothing is left in place");
		return;
	}
	if (kernel_balances()) {
		log_warn("store.in_place needs kernel.numa_balancing = 0: else the kernel moves "
			 "pages of node "
			 "%d to local memory, past the budget; nothing is left in place",
			 place.node);
		return;
	}
	place.limit = c->in_place;
}

void place_after_fork(void)
{
	memset(&place, 0, sizeof(place));
}

bool place_has(uint32_t f, bool split)
{
	size_t step = split ? K_PAGE : BLOCK_SIZE;

	if (!place.limit)
		return false;
	for (size_t at = 0; at < BLOCK_SIZE; at += step)
		if (k_page_node(frame_start(f) + at) != place.node)
			return false;
	return true;
}

bool place_wants(const struct block *b)
{
	return place.limit && block_is_full(b) && !b->region->source &&
	       !frame_meta(b->frame)->placed && !(b->flags & B_TORN);
}

/* A new one, where there is room. */
static uint32_t make(void)
{
	uint64_t now = k_now_ns();
	uint32_t f;

	if (engine.placed + BLOCK_SIZE > place.limit || now < place.full_until ||
	    (f = frame_empty(FRAME_BIG)) == NO_FRAME)
		return NO_FRAME;
	char *p = frame_start(f);
	lock_give(&engine.lock);
	/* Not bound: a bound page that finds the node full ends in the OOM killer. */
	bool there = !k_prefer_node(p, BLOCK_SIZE, place.node) &&
		     !k_madvise(p, BLOCK_SIZE, MADV_POPULATE_WRITE) &&
		     k_page_node(p) == place.node &&
		     k_page_node(p + BLOCK_SIZE - K_PAGE) == place.node;
	k_prefer_node(p, BLOCK_SIZE, -1);
	lock_take(&engine.lock);
	if (!there) {
		frame_release(f, p, BLOCK_SIZE);
		place.full_until = now + FULL_NS;
		return NO_FRAME;
	}
	*frame_meta(f) = (struct frame){ .placed = true };
	engine.placed += BLOCK_SIZE;
	return f;
}

uint32_t place_frame(void)
{
	struct block *b = place.out.head;
	uint32_t f = frame_placed();

	if (f == NO_FRAME)
		f = make();
	/* The next will find room. */
	if (f == NO_FRAME && b && k_now_ns() - b->retry_at > PLACE_COLD_NS &&
	    !(b->flags & B_WANTED)) {
		list_remove(b);
		list_append(&engine.leaving, b);
	}
	return f;
}

void place_copy(uint32_t to, uint32_t from)
{
#ifdef __x86_64__
	__m128i *d = (__m128i *)(void *)frame_start(to);
	const __m128i *s = (const __m128i *)(const void *)frame_start(from),
		      *end = s + BLOCK_SIZE / 16;

	for (; s < end; s++, d++)
		_mm_stream_si128(d, _mm_load_si128(s));
	_mm_sfence();
#else
	memcpy(frame_start(to), frame_start(from), BLOCK_SIZE);
#endif
}

void place_arrived(struct block *b)
{
	bool soon = b->sampled && k_now_ns() - b->retry_at < PLACE_SOON_NS;

	if (b->sampled)
		b->evidence = soon ? (uint8_t)(b->evidence + (b->evidence < 255)) : 0;
	b->sampled = false;
	list_remove(b);
	list_append(b->evidence >= PLACE_EVIDENCE + b->moves ? &place.warm : &engine.in_place, b);
}

static void sample(uint64_t now)
{
	struct block *b = engine.in_place.head;

	if (!b || now < place.sample_at || place.out.count * SHARE > engine.in_place.count)
		return;
	place.sample_at = now + PLACE_SAMPLE_NS;
	/* To the end, should it not be taken. */
	list_remove(b);
	list_append(&engine.in_place, b);
	if (block_take(&b) || b->state != STANDBY)
		return;
	if (!frame_meta(b->frame)->placed) {
		/* The kernel has carried some of it away. */
		if (block_give(b, ARRIVE_STANDBY, false))
			list_append(&engine.leaving, b);
		return;
	}
	b->retry_at = now;
	b->sampled = true;
	list_append(&place.out, b);
}

/* To local memory. */
static void promote(struct transfer_pool *pool, uint64_t now)
{
	struct block *b = place.warm.head;
	uint32_t f;

	if (!b || now < place.promote_at || !pool->free || frame_free_count() < 3 ||
	    engine.starving.head)
		return;
	list_remove(b);
	list_append(&engine.in_place, b);
	b->evidence = 0;
	f = engine_frame(false, false);
	if (f == NO_FRAME)
		return;
	if (block_take(&b) || b->state != STANDBY) {
		frame_recycle(f, false);
		return;
	}
	if (!frame_meta(b->frame)->placed) { /* the kernel has carried it there */
		frame_recycle(f, false);
		if (block_give(b, ARRIVE_STANDBY, false))
			list_append(&engine.leaving, b);
		return;
	}
	place.promote_at = now + BLOCK_SIZE * 1000000000ull / engine.config.rebuild;
	b->moves = (uint8_t)(b->moves + (b->moves < 250));
	uint32_t from = b->frame;
	block_check(b);
	struct transfer *t = transfer_write(pool, b);
	lock_give(&engine.lock);
	place_copy(f, from);
	lock_take(&engine.lock);
	frame_meta(f)->holes = frame_meta(f)->zeroed = false;
	b = transfer_block(t);
	transfer_cancel(t);
	if (b && !(b->flags & B_TORN)) {
		block_exchange(b, f);
		atomic_fetch_add(&engine.stats->promoted_blocks, 1);
		return;
	}
	frame_recycle(f, false);
	if (b)
		block_written(b, BLOCK_FAILED);
}

bool place_work(struct transfer_pool *pool)
{
	uint64_t now;

	if (!place.limit || engine.hold)
		return false;
	now = k_now_ns();
	sample(now);
	promote(pool, now);
	atomic_store_explicit(&engine.stats->placed_bytes, engine.placed, memory_order_relaxed);
	return false;
}
