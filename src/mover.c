/* SPDX-License-Identifier: Apache-2.0 */
#include "mover.h"

#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>

#include "budget.h"
#include "change.h"
#include "control.h"
#include "engine.h"
#include "fault.h"
#include "follow.h"
#include "fork.h"
#include "frame.h"
#include "keeper.h"
#include "log.h"
#include "mapped.h"
#include "pinned.h"
#include "place.h"
#include "policy/policy.h"
#include "region.h"
#include "sigfault.h"
#include "slot.h"
#include "sparse.h"
#include "thrash.h"
#include "transfer.h"
#include "observe.h"

#define DEPTH 16
#define FDS 32
#define LEAVES 2		    /* frames, by prefetch, to who waits already */
#define EVICT_BATCH 8		    /* evictions before it looks at anything else */
#define PATIENCE_NS 50000000ull	    /* that a fault starves while nothing can leave */
#define STUCK_NS 200000000ull	    /* pins and forks last from milliseconds to minutes */
#define STUCK_LONG_NS 2000000000ull /* where it is not likely to change at all */
#define MEND_NS 5000000ull	    /* from one huge page that is made again to the next */
#define UNSHARE_MS 50		    /* for one block; then it is tried again later */
#define REAP_NS 1000000000ull
#define TRIM_KEEP 64		    /* freed slots kept for reuse before any is trimmed */
#define TRIM_AFTER_NS 1000000000ull /* and that all are, when nobody reuses them */

static uint64_t hopeless_since; /* ns; since then some wait and nothing can leave; 0 */
static bool stalled;		/* who waits can't be served within the budget */
static struct transfer_pool pool;
static _Atomic bool asleep;
static uint64_t chaos_next;
static uint64_t chaos_state;
static uint64_t stuck_due; /* ns; before, none of engine.stuck is to be tried again */
static bool held;	   /* discards whose end is to be seen */

int mover_open(void)
{
	asleep = false;
	chaos_state = k_now_ns() | 1;
	return transfer_pool_init(&pool, EMF_QUEUE_BULK, DEPTH);
}

void mover_after_fork(void)
{
	memset(&pool, 0, sizeof(pool));
	asleep = false;
}

size_t mover_inflight(void)
{
	return pool.inflight;
}

void mover_kick(void)
{
	if (atomic_exchange(&asleep, false))
		k_eventfd_signal(engine.mover_event);
}

/* Gives up engine.lock meanwhile. */
static void submit(struct transfer *t)
{
	lock_give(&engine.lock);
	transfer_start(t);
	transfer_poll(&pool);
	lock_take(&engine.lock);
}

static bool store_blocked(void)
{
	if (engine.store_retry_at && k_now_ns() >= engine.store_retry_at)
		engine.store_retry_at = 0;
	return engine.store_retry_at;
}

/* --- eviction --- */

static long op_unshare(uintptr_t start, uintptr_t end, unsigned advice)
{
	int err = k_madvise((void *)start, end - start, (int)advice);

	/* It ends at the first mapping that the program may not write: there is more behind. */
	for (uintptr_t at = start; err && advice == MADV_POPULATE_WRITE && at < end; at += K_PAGE)
		k_madvise((void *)at, K_PAGE, (int)advice);
	return 0;
}

/*
 * What the kernel refuses the control thread does: a page may be missing, and the mover must not
 * wait for what it has to do itself. The block is looked up again, as anything may happen to it
 * meanwhile.
 */
static bool have_done(struct block **b, long (*fn)(uintptr_t, uintptr_t, unsigned), unsigned advice)
{
	uintptr_t at = (uintptr_t)block_start(*b);
	size_t len = block_len(*b);

	lock_give(&engine.lock);
	bool done = control_post(fn, at, at + len, advice) && control_posted(UNSHARE_MS);
	lock_take(&engine.lock);
	struct region *r = region_find(at);
	*b = r && r->registered ? region_block(r, at) : NULL;
	return done;
}

/* The kernel does not move a page that a forked process shares: make it ours alone first. */
static int unshare_and_take(struct block **b, int advice)
{
	const char *p = block_start(*b);

	block_dirty(*b);
	bool done = have_done(b, op_unshare, (unsigned)advice);
	if (!*b)
		return -ENOENT;
	if ((*b)->state != LOCAL || block_start(*b) != p || engine.hold)
		return -EAGAIN;
	return done ? block_take(b) : -EBUSY;
}

/* Shared, or shared once: of a huge page that was split the kernel asks its first page alone. */
static int take_shared(struct block **b)
{
	if ((*b)->region->source) {
		/* The file has it: no copy is needed. */
		have_done(b, mapped_discard, 0);
		return *b ? -EBUSY : -ENOENT;
	}
	int err = unshare_and_take(b, MADV_POPULATE_WRITE);

	return err == -EBUSY && block_is_full(*b) ? unshare_and_take(b, MADV_COLLAPSE) : err;
}

static void set_aside(struct block *b, uint64_t until)
{
	b->retry_at = until;
	list_append(&engine.stuck, b);
	if (until < stuck_due)
		stuck_due = until;
}

/* It could not be taken: not soon again. */
static void put_aside(struct block *b, int err)
{
	if (b->state != LOCAL || b->placed)
		return;
	list_remove(b);
	if (err == -EAGAIN) {
		policy_arrived(b, ARRIVE_STANDBY, 0, false, engine.fetches);
		return;
	}
	bool ever = err == -EINPROGRESS && pinned_for_ever();
	set_aside(b, k_now_ns() + (ever ? STUCK_LONG_NS : STUCK_NS));
}

/* What the policy gives up first and may go; what is spared is out of its hands until then. */
static struct block *victim(void)
{
	struct block *b;

	while ((b = policy_victim()) && b->state == LOCAL && thrash_spares(b)) {
		list_remove(b);
		set_aside(b, b->spare_until);
	}
	return b;
}

static bool evict(struct block *b)
{
	bool placed = b->placed;

	if (b->state == LOCAL) {
		int err = block_take(&b);
		if (err == -EBUSY && engine.forked && !placed)
			err = take_shared(&b);
		if (err == -ENOMEM)
			return false;
		if (err == -ENOENT)
			return true;
		if (err) {
			put_aside(b, err);
			return true;
		}
	}
	if (b->state != STANDBY)
		return true;
	/* It lies on the slow node already: the kernel has not copied what was shared. */
	if (frame_meta(b->frame)->placed && !placed && !place_is_over() &&
	    !block_give(b, ARRIVE_STANDBY, false))
		return true;
	if (b->flags & (B_DIRTY | B_UNSURE) || place_wants(b)) {
		list_remove(b);
		list_append(&engine.leaving, b);
	} else {
		atomic_fetch_add(&engine.stats->dropped_clean_bytes, block_len(b));
		block_drop(b);
	}
	return true;
}

/*
 * A huge page that was split (by a fork, a mprotect of a part) would be moved page by page from now
 * on: the kernel makes one of it again, when it has come. Once: it may refuse.
 */
static void mend(void)
{
	static uint64_t next;
	uintptr_t at = engine.came_split;
	struct region *r;

	if (!at || k_now_ns() < next)
		return;
	engine.came_split = 0;
	next = k_now_ns() + MEND_NS;
	r = region_find(at);
	struct block *b = r && r->registered ? region_block(r, at) : NULL;
	if (b && b->state == LOCAL && block_is_full(b) && !b->mended)
		b->mended = control_post(op_unshare, (uintptr_t)block_start(b),
					 (uintptr_t)block_start(b) + BLOCK_SIZE, MADV_COLLAPSE);
}

static void retry_stuck(void)
{
	uint64_t now = k_now_ns();
	struct block *next, *b;

	if (now < stuck_due)
		return;
	stuck_due = UINT64_MAX;
	for (b = engine.stuck.head; b; b = next) {
		next = b->next;
		if (b->retry_at > now) {
			stuck_due = b->retry_at < stuck_due ? b->retry_at : stuck_due;
			continue;
		}
		list_remove(b);
		policy_arrived(b, ARRIVE_NEW, 0, true, engine.fetches);
	}
}

/* Frames without owner go back to the kernel while too much is local. */
static void shrink(void)
{
	while (engine.local > engine.limit && frame_free_count())
		frame_give_back();
}

static bool short_of_frames(void)
{
	size_t have = frame_free_count();

	if (engine.local > engine.limit)
		return true;
	if (engine.local < engine.limit)
		have += (engine.limit - engine.local) >> BLOCK_SHIFT;
	return have < engine.reserve_low || engine.starving.head;
}

static size_t frames_in_reach(void)
{
	size_t have = frame_free_count() + engine.leaving.count;

	if (engine.local < engine.limit)
		have += (engine.limit - engine.local) >> BLOCK_SHIFT;
	return have;
}

/* True when there may be more to do at once. */
static bool make_room(void)
{
	static bool refilling; /* between the low and the high mark */

	if (short_of_frames())
		refilling = true;
	if (!refilling || engine.hold || store_blocked())
		return false;
	for (int i = 0; i < EVICT_BATCH && !engine.hold; i++) {
		shrink();
		if (engine.local <= engine.limit && frames_in_reach() >= engine.reserve_high) {
			refilling = false;
			return false;
		}
		struct block *b = victim();
		if (!b && sparse_evict())
			continue;
		if (!b || !evict(b))
			return false;
	}
	return true;
}

static void probe(void)
{
	struct block *b;

	if (engine.hold || !(b = policy_probe(engine.fetches, k_now_ns())))
		return;
	int err = block_take(&b);
	if (err == -ENOENT)
		return;
	if (err) {
		put_aside(b, err);
	} else if (b->state == STANDBY) {
		policy_probed(b, engine.fetches);
	}
}

/* --- write-out --- */

static bool all_zero(const char *p, size_t len)
{
	/* One comparison with itself, a step apart: memcmp is as fast as memory. */
	return !p[0] && !memcmp(p, p + 1, len - 1);
}

static void write_out(struct block *b)
{
	struct store *st = &engine.store;
	bool compare = !(b->flags & B_DIRTY), goes = place_wants(b);

	block_check(b);
	struct transfer *t = transfer_write(&pool, b);
	uint32_t place = goes ? place_frame() : NO_FRAME;
	lock_give(&engine.lock);
	bool zero = all_zero(t->addr, t->io.length);
	bool same = !zero && compare && store_matches(st, t->io.offset, t->io.length, t->addr);
	if (!zero && place != NO_FRAME)
		place_copy(place, t->frame);
	lock_take(&engine.lock);
	b = transfer_block(t);
	if (place != NO_FRAME && b && !zero && !(b->flags & B_TORN)) {
		transfer_cancel(t);
		block_exchange(b, place);
		atomic_fetch_add(&engine.stats->placed_blocks, 1);
		return;
	}
	if (place != NO_FRAME)
		frame_recycle(place, false);
	/* Not if the slot is in doubt since. */
	same &= b && !(b->flags & B_DIRTY);
	if (!b || zero || same) {
		transfer_cancel(t);
		if (b)
			block_written(b, zero ? BLOCK_ZERO : BLOCK_SAME);
		return;
	}
	if (!block_own_slot(b)) {
		transfer_cancel(t);
		engine_store_failed(-ENOSPC);
		block_written(b, BLOCK_FAILED);
		return;
	}
	transfer_set_slot(t, b->slot);
	submit(t);
}

static bool clean(void)
{
	struct block *b = engine.leaving.head;

	if (!b)
		return false;
	if (b->region->source) { /* it could not be mapped */
		block_refetch(b);
		return true;
	}
	if (store_blocked() || engine.hold || b->flags & B_TORN) {
		/* Nowhere to go: back to the program. */
		bool torn = b->flags & B_TORN;
		if (block_give(b, ARRIVE_STANDBY, false))
			return false;
		/* Or it would come and go without end, and those who starve wait for that. */
		if (torn)
			put_aside(b, -EBUSY);
		return true;
	}
	if (!pool.free)
		return false;
	write_out(b);
	return true;
}

/* --- fetching --- */

static void start_read(struct block *b)
{
	struct transfer *t = transfer_read(&pool, b);

	submit(t);
}

static bool pull(void)
{
	struct block *b = engine.pulls.head;

	if (!b || !pool.free || !block_fetch(b, true))
		return false;
	b->flags |= B_WANTED;
	start_read(b);
	return true;
}

/* What the fault thread leaves to this one. A fork may begin wherever the lock is given up. */
static void answer(void)
{
	struct block *b;

	while (!engine.forking && (b = engine.asks.head) && pool.free) {
		if (block_fetch(b, false)) {
			start_read(b);
			continue;
		}
		/* The last frame has gone to somebody else meanwhile. */
		list_remove(b);
		list_append(&engine.starving, b);
	}
}

/* Its single pages are to leave, with the rest of it. */
static bool gather(void)
{
	struct block *b = engine.gathers.head;

	if (!b || engine.hold || store_blocked() || !pool.free || !block_fetch(b, stalled))
		return false;
	stalled = false;
	b->gathered = true;
	start_read(b);
	return true;
}

static bool prefetch(void)
{
	if (engine.hold || !pool.free || frame_free_count() <= LEAVES || engine.starving.head)
		return false;
	struct block *b = prefetch_next();
	if (!b)
		return false;
	if (!block_fetch(b, false)) {
		prefetch_wasted(b);
		return false;
	}
	b->flags |= B_PREFETCHED;
	list_append(&engine.prefetched, b);
	atomic_fetch_add(&engine.stats->prefetch_issued, 1);
	start_read(b);
	return true;
}

/* What nobody came for makes room when as much again was fetched since. */
static void drop_wasted(void)
{
	struct block *b = engine.prefetched.head;

	if (b && engine.prefetched.count >= 2 * DEPTH && b->state == STANDBY)
		engine_discard_standby(b);
}

/* --- the rest --- */

/* Nothing can leave local memory, and that for a while: the program must go on all the same. */
static bool hopeless(void)
{
	if (engine.hold)
		return true;
	if (engine.leaving.head || !transfer_idle(&pool) || victim()) {
		hopeless_since = 0;
		return false;
	}
	if (!engine.uffd.move && pinned_for_ever())
		return true;
	if (!hopeless_since)
		hopeless_since = k_now_ns();
	/* What could leave may not: those who wait are to get on now. */
	return thrash_now() || k_now_ns() - hopeless_since > PATIENCE_NS;
}

static bool has_room(void)
{
	return frame_free_count() || engine_room(BLOCK_SIZE) || engine.store_retry_at;
}

static void feed_starving(void)
{
	struct block *b;
	size_t n = frame_free_count() + 1;

	if (!engine.starving.head || has_room())
		hopeless_since = 0;
	if (!engine.starving.head)
		return;
	if (!has_room()) {
		if (!hopeless())
			return;
		engine.grants = n = engine.starving.count;
		stalled = true;
	}
	while (n-- && (b = engine.starving.head)) {
		list_remove(b);
		sparse_rest(b);
		if (b->placed)
			list_append(&engine.in_place, b);
		engine_wake(b, false);
	}
}

/* What waits for a store that owes us everything already and has not answered in time. */
static void lose_old(struct block_list *l, uint64_t timeout)
{
	struct block *next, *b;

	for (b = l->head; b; b = next) {
		next = b->next;
		if (b->state == FAR && b->since && k_now_ns() - b->since > timeout)
			block_lose(b, -ETIMEDOUT);
	}
}

static void lose_hopeless(void)
{
	uint64_t timeout = engine.config.timeout_ms * 1000000ull;

	if (fault_stuck())
		lose_old(&engine.starving, timeout);
	if (transfer_stuck(&pool)) {
		lose_old(&engine.pulls, timeout);
		lose_old(&engine.asks, timeout);
	}
}

/* Freed slots are kept for reuse, but only so many, and not for long. */
static bool trim_due(void)
{
	static uint64_t count, since;
	uint64_t n = slot_freed_count(), now = k_now_ns();

	/* Fewer by one: that was the trim before. */
	if (n != count && n + 1 != count)
		since = now;
	count = n;
	return n > TRIM_KEEP || (n && now - since > TRIM_AFTER_NS);
}

static bool trim(void)
{
	if (engine.hold || pool.inflight || !pool.free ||
	    !(engine.store.top->caps & EMF_CAP_TRIM) || !trim_due())
		return false;
	struct transfer *t = transfer_trim(&pool, slot_to_trim());
	submit(t);
	return true;
}

static uint64_t random64(void)
{
	chaos_state ^= chaos_state << 13;
	chaos_state ^= chaos_state >> 7;
	chaos_state ^= chaos_state << 17;
	return chaos_state;
}

static void chaos_evict(void)
{
	size_t n = region_count(), skip;
	struct region *r;

	if (!n)
		return;
	skip = random64() % n;
	r = region_at(skip);
	if (!r->registered)
		return;
	struct block *b = r->blocks + random64() % r->nblocks;
	if (b->state == LOCAL && !thrash_spares(b))
		evict(b);
	else if (b->state == FAR && !thrash_spares(b))
		sparse_drop(b);
}

/* Random evictions at the rate of the settings, a few at a time. */
static void chaos(void)
{
	uint64_t now = k_now_ns();

	if (!engine.config.chaos || engine.hold || store_blocked())
		return;
	if (!chaos_next)
		chaos_next = now;
	uint64_t step = 1000000000ull / engine.config.chaos;
	for (int i = 0; i < 64 && chaos_next <= now && !engine.hold; i++, chaos_next += step)
		chaos_evict();
	if (chaos_next < now)
		chaos_next = now;
}

/* Forked processes that have ended held slots; a look now and then. */
static void reap_family(void)
{
	static uint64_t next;
	uint64_t now = k_now_ns();

	if (!engine.forked || now < next)
		return;
	next = now + REAP_NS;
	/* A server may be slow, or away, for so long. */
	slot_reap(engine.store.outlives ? engine.config.timeout_ms * 1000000ull : 0);
}

/* Slots are spread evenly over the members, with what redundancy adds; tiers count by themselves.
 */
static void publish(void)
{
	uint64_t used = (slot_used() - slot_freed_count()) << BLOCK_SHIFT;
	unsigned data, more;

	config_columns(&engine.config, &data, &more);
	if (data)
		used += used * more / data;

	for (unsigned i = 0; i < engine.store.nleaves && !engine.store.hierarchy; i++)
		atomic_store_explicit(&engine.stats->store[i].used_bytes,
				      store_used(&engine.store, i, used), memory_order_relaxed);
	atomic_store_explicit(&engine.stats->free_frame_bytes, frame_free_count() * BLOCK_SIZE,
			      memory_order_relaxed);
	atomic_store_explicit(&engine.stats->stuck_bytes, engine.stuck.count * BLOCK_SIZE,
			      memory_order_relaxed);
}

static int sleep_ms(void)
{
	if (held)
		return 1;
	if (engine.config.chaos)
		return engine.config.chaos > 1000 ? 1 : (int)(1000 / engine.config.chaos);
	if (engine.starving.head)
		return 10;
	if (place_is_busy())
		return 5;
	if (engine.store_retry_at || engine.stuck.head || pool.inflight || engine.leaving.head)
		return 100;
	if (observe_wanted())
		return 250;
	return 1000;
}

static void wait_for_work(void)
{
	struct pollfd fds[FDS];
	int n = 1;

	fds[0] = (struct pollfd){ .fd = engine.mover_event, .events = POLLIN };
	if (pool.inflight) {
		n += pool.queue->ops->pollfds(pool.queue, fds + 1, FDS - 1);
		if (n == 1)
			return; /* nothing to wait for: just poll it */
	}
	poll(fds, (nfds_t)n, sleep_ms());
	if (fds[0].revents)
		k_eventfd_drain(engine.mover_event);
}

/* One round; true: there is more to do at once. */
static bool work(void)
{
	transfer_expire(&pool);
	engine_heed_losses();
	lose_hopeless();
	held = change_settle();
	mapped_check();
	budget_follow();
	retry_stuck();
	mend();
	chaos();
	answer();
	sparse_balance();
	bool more = make_room();
	feed_starving();
	more |= pull();
	more |= clean();
	place_work(&pool);
	more |= gather();
	more |= prefetch();
	drop_wasted();
	probe();
	reap_family();
	more |= trim();
	shrink();
	publish();
	observe_sample();
	more |= observe_map();
	engine_audit();
	return more;
}

void *mover_main(void *unused)
{
	(void)unused;
	if (!(fork_inherited() ? fork_boot() : engine_boot()))
		return NULL;
	/* There the program's threads fetch by themselves, and it would keep them from it. */
	if (!sigfault_on())
		k_be_prompt();
	follow_not();
	for (;;) {
		bool more = false;

		/* Before looking: whoever adds work after the look finds us asleep and kicks. */
		atomic_store(&asleep, true);
		transfer_poll(&pool);
		lock_take(&engine.lock);
		if (!engine.forking)
			more = work();
		lock_give(&engine.lock);
		keeper_look();
		if (!more)
			wait_for_work();
	}
	return NULL;
}
