/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "place.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "block.h"
#include "engine.h"
#include "frame.h"
#include "interleave.h"
#include "kernel.h"
#include "log.h"
#include "provider/bytes.h"
#include "region.h"
#include "transfer.h"

#ifndef PLACE_SAMPLE_NS /* the simulation is quicker */
/* From one sample to the next: 1 us of work, and a fault if it is used. */
#define PLACE_SAMPLE_NS 5000000ull
#define PLACE_SOON_NS 1000000000ull /* who comes back so soon is used */
#define PLACE_COLD_NS 4000000000ull /* who does not for so long, or twice, makes room */
#define PLACE_EVIDENCE 3 /* times in a row it came back soon, and one more for each move before */
#endif
#define EACH 4096	      /* of so many one is sampled at a time */
#define SHARE 4		      /* of those in place, one is out on a sample at most */
#define CALM_AFTER 16	      /* samples of each, until moves are half forgotten */
#define CAUTION 7	      /* times that the pace of promotion is halved at most */
#define FULL_NS 1000000000ull /* the node has no room: not asked for so long */

static struct {
	uint64_t limit; /* bytes; 0: off */
	int node;
	uint64_t full_until, sample_at, promote_at, spread_at;
	struct block_list out;	/* STANDBY, sampled, the oldest first */
	struct block_list warm; /* LOCAL and placed: to go to local memory */
	size_t samples;		/* since moves were halved */
	uint8_t calm;		/* how often they were */
	unsigned caution;
	bool wanted; /* there was no room for something */
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

/* Why not, or NULL. */
static const char *refusal(void)
{
	const struct emf_config *c = &engine.config;
	char probe = 0;

	if (!c->nstores || strncmp(c->store_uri[0], "numa:", 5))
		return "is for a first store numa:N";
	if (strstr(c->store_uri[0], "cpus=on"))
		return "is for a node without CPUs";
	if (c->encrypt)
		return "leaves memory as it is on the node, which store.encrypt=on forbids";
	if (!engine.uffd.move)
		return "needs UFFDIO_MOVE (Linux 6.8)";
	if (kernel_balances())
		return "needs kernel.numa_balancing = 0, or the kernel moves pages of that node to "
		       "local memory, past the budget";
	if (k_page_node(&probe) < 0)
		return "needs move_pages and mbind, which a container's seccomp profile must allow";
	return NULL;
}

void place_init(void)
{
	place.limit = 0;
	if (!engine.config.in_place) {
		for (unsigned i = 0; i < engine.config.nclasses; i++)
			if (engine.config.classes[i].place)
				log_warn(
				    "class %s: place needs store.in_place; nothing is interleaved",
				    engine.config.classes[i].name);
		return;
	}
	const char *why = refusal();
	if (why) {
		log_warn("store.in_place %s; nothing is left in place", why);
		return;
	}
	place.node = atoi(engine.config.store_uri[0] + 5);
	place.limit = engine.config.in_place;
	interleave_init(place.node);
}

void place_after_fork(void)
{
	place.out = place.warm = engine.in_place = (struct block_list){ 0 };
	engine.placed = 0;
	interleave_after_fork();
}

bool place_is_over(void)
{
	return engine.placed > place.limit;
}

bool place_holds(void *p, bool split)
{
	return place.limit && k_is_on_node(p, BLOCK_SIZE, split ? K_PAGE : BLOCK_SIZE, place.node);
}

/* --- to the node --- */

static bool may_grow(void)
{
	return engine.placed + BLOCK_SIZE <= place.limit && k_now_ns() >= place.full_until;
}

static bool may_lie_there(const struct block *b)
{
	return block_is_full(b) && !b->region->source && !b->copied && !(b->flags & B_TORN) &&
	       !frame_meta(b->frame)->placed;
}

bool place_wants(const struct block *b)
{
	if (!place.limit || !may_lie_there(b))
		return false;
	bool room = frame_has_placed() || may_grow();
	place.wanted |= !room;
	return room;
}

/* A new one, where there is room. */
static uint32_t make(void)
{
	uint32_t f;

	if (!may_grow() || (f = frame_empty(FRAME_BIG)) == NO_FRAME)
		return NO_FRAME;
	char *p = frame_start(f);
	lock_give(&engine.lock);
	/* Not bound: a bound page that finds the node full ends in the OOM killer. */
	bool there = !k_prefer_node(p, BLOCK_SIZE, place.node) &&
		     !k_madvise(p, BLOCK_SIZE, MADV_POPULATE_WRITE) &&
		     k_is_on_node(p, BLOCK_SIZE, K_PAGE, place.node);
	k_prefer_node(p, BLOCK_SIZE, -1);
	lock_take(&engine.lock);
	if (!there) {
		frame_release(f, p, BLOCK_SIZE);
		place.full_until = k_now_ns() + FULL_NS;
		return NO_FRAME;
	}
	*frame_meta(f) = (struct frame){ .placed = true };
	engine.placed += BLOCK_SIZE;
	return f;
}

uint32_t place_frame(void)
{
	uint32_t f = frame_placed();

	return f == NO_FRAME ? make() : f;
}

void place_copy(uint32_t to, uint32_t from)
{
	/* Past the caches: it is not used soon. */
	bytes_copy_out(frame_start(to), frame_start(from), BLOCK_SIZE);
}

/* --- is it used there? --- */

/* Forgotten by halves. */
static unsigned moves(const struct block *b)
{
	unsigned age = (uint8_t)(place.calm - b->calm);

	return age < 8 ? (unsigned)b->moves >> age : 0;
}

/* What has made way a while ago is used all the same: then there is little to gain by exchanges. */
static void judge(struct block *b, bool soon)
{
	if (!b->fresh)
		return;
	b->fresh = false;
	if (soon)
		place.caution += place.caution < CAUTION;
	else
		place.caution -= place.caution > 0;
}

static void weigh(struct block *b, bool soon)
{
	int so_far = soon == (b->evidence > 0) ? b->evidence : 0, next = so_far + (soon ? 1 : -1);

	b->evidence = (int8_t)(next > INT8_MAX ? INT8_MAX : next < INT8_MIN ? INT8_MIN : next);
	judge(b, soon);
}

void place_arrived(struct block *b)
{
	bool stays = interleave_belongs(b);

	if (stays)
		b->fresh = false; /* it has made way for nothing */
	if (b->sampled) {
		interleave_touched(b);
		weigh(b, k_now_ns() - b->retry_at < PLACE_SOON_NS);
	}
	b->sampled = false;
	list_remove(b);
	bool warm = b->note.pinned || (!stays && b->evidence >= PLACE_EVIDENCE + (int)moves(b));
	list_append(warm ? &place.warm : &engine.in_place, b);
}

static void put_back(struct block *b)
{
	if (!block_give(b, ARRIVE_STANDBY, false))
		return;
	b->sampled = false;
	list_remove(b);
	list_append(&engine.leaving, b);
}

/* Out of the page table. False: it is not, or not in place any more. */
static bool take(struct block **b)
{
	if (block_take(b) || (*b)->state != STANDBY)
		return false;
	if (frame_meta((*b)->frame)->placed)
		return true;
	put_back(*b); /* the kernel has carried some of it away */
	return false;
}

/* Is as much out on a sample as may be? */
static bool is_full(void)
{
	return place.out.count * SHARE > engine.in_place.count;
}

static void sample(uint64_t now)
{
	struct block *b = engine.in_place.head;

	if (++place.samples >= CALM_AFTER * (engine.in_place.count + place.out.count)) {
		place.samples = 0;
		place.calm++;
	}
	/* To the end, should it not be taken: it is shared, for one. */
	list_remove(b);
	list_append(&engine.in_place, b);
	if (!take(&b))
		return;
	b->retry_at = now;
	b->sampled = true;
	list_append(&place.out, b);
}

/* Of many more at a time, or it would take too long until all were. */
static void sample_some(uint64_t now)
{
	if (now < place.sample_at)
		return;
	place.sample_at = now + PLACE_SAMPLE_NS;
	for (size_t n = 1 + engine.in_place.count / EACH; n && engine.in_place.head && !is_full();
	     n--)
		sample(now);
}

/* Who is not used makes room, or makes way for the next to be sampled. */
static void end_sample(uint64_t now)
{
	struct block *b = place.out.head;

	if (!b || b->flags & B_WANTED || now - b->retry_at < PLACE_SOON_NS)
		return;
	judge(b, false);
	if (place.wanted && (b->evidence < 0 || now - b->retry_at > PLACE_COLD_NS)) {
		place.wanted = b->sampled = false;
		list_remove(b);
		list_append(&engine.leaving, b);
	} else if (is_full()) {
		uint32_t used_at = b->used_at;
		put_back(b);
		b->used_at = used_at; /* nobody has */
	}
}

/*
 * STANDBY, to frame f (NO_FRAME: one of the node), and mapped there. Gives up the lock meanwhile.
 * False: it was not, and f is not used.
 */
static bool carry(struct transfer_pool *pool, struct block *b, uint32_t f)
{
	block_check(b);
	struct transfer *t = transfer_write(pool, b);
	if (f == NO_FRAME)
		f = place_frame();
	if (f != NO_FRAME) {
		uint32_t from = t->frame;
		lock_give(&engine.lock);
		place_copy(f, from);
		lock_take(&engine.lock);
		frame_meta(f)->holes = frame_meta(f)->zeroed = false;
	}
	b = transfer_block(t);
	transfer_cancel(t);
	bool done = f != NO_FRAME && b && !(b->flags & B_TORN);
	if (!done && f != NO_FRAME)
		frame_recycle(f, false);
	if (done)
		block_exchange(b, f);
	else if (b)
		block_written(b, BLOCK_FAILED);
	return done;
}

/* To local memory. */
static void promote(struct transfer_pool *pool, uint64_t now)
{
	struct block *b = place.warm.head;
	uint32_t f;

	/* Not while the mover is about to make room for others. */
	size_t have = frame_free_count();
	if (engine.local < engine.limit)
		have += (engine.limit - engine.local) >> BLOCK_SHIFT;
	if (!b || now < place.promote_at || !pool->free || have < engine.reserve_low ||
	    engine.starving.head)
		return;
	list_remove(b);
	list_append(&engine.in_place, b);
	b->evidence = 0;
	if (!take(&b))
		return;
	f = engine_frame(false, false);
	if (f == NO_FRAME) {
		put_back(b);
		return;
	}
	place.promote_at =
	    now + (BLOCK_SIZE * 1000000000ull / engine.config.rebuild << place.caution);
	unsigned before = moves(b);
	b->moves = (uint8_t)(before + (before < 250));
	b->calm = place.calm;
	if (carry(pool, b, f))
		atomic_fetch_add(&engine.stats->promoted_blocks, 1);
}

/* What belongs on the node is brought there. */
static void spread(struct transfer_pool *pool, uint64_t now)
{
	struct block *b;

	if (now < place.spread_at || !pool->free || (!frame_has_placed() && !may_grow()) ||
	    !(b = interleave_next()))
		return;
	place.spread_at = now + BLOCK_SIZE * 1000000000ull / engine.config.rebuild;
	bool taken = !block_take(&b) && b->state == STANDBY;
	/* Or it lies there already, should the kernel not have copied what was shared. */
	if (taken && !may_lie_there(b)) {
		put_back(b);
		taken = false;
	}
	taken = taken && carry(pool, b, NO_FRAME);
	if (taken)
		atomic_fetch_add(&engine.stats->placed_blocks, 1);
	interleave_tried(taken);
}

bool place_is_busy(void)
{
	return engine.in_place.head || (place.limit && interleave_is_busy());
}

void place_work(struct transfer_pool *pool)
{
	uint64_t now;

	if (!place.limit)
		return;
	atomic_store_explicit(&engine.stats->placed_bytes, engine.placed, memory_order_relaxed);
	if (engine.hold)
		return;
	now = k_now_ns();
	sample_some(now);
	end_sample(now);
	promote(pool, now);
	spread(pool, now);
}

/* --- forks and locks --- */

void place_guard(struct block *b)
{
	if (uffd_protect(&engine.uffd, block_start(b), BLOCK_SIZE, true))
		block_unplace(b);
}

void place_look_behind(struct block *b)
{
	struct presence found;

	/* What was written to before the fork has come to be protected again. */
	if (b->strayed || uffd_presence(&engine.uffd, block_start(b), BLOCK_SIZE, &found) ||
	    found.protected < found.bytes)
		block_unplace(b);
}

bool place_written(struct block *b)
{
	if (!engine_room_short(BLOCK_SIZE))
		return false;
	block_unplace(b);
	return true;
}

void place_bring(uintptr_t start, uintptr_t end)
{
	struct region *r;

	/* mlockall has a range of all addresses. */
	while (start < end && (r = region_next(start)) && r->start < end) {
		uintptr_t from = start > r->start ? start : r->start,
			  to = end < r->end ? end : r->end;
		struct block *b = region_block(r, from), *last = region_block(r, to - 1);
		for (; r->registered && b <= last; b++)
			if (b->state == LOCAL)
				block_unplace(b);
		bool managed = r->registered;
		start = to;
		if (!managed)
			continue;
		lock_give(&engine.lock);
		k_bring_near((void *)from, to - from, place.node);
		lock_take(&engine.lock);
	}
}
