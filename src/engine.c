/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "engine.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "arena.h"
#include "budget.h"
#include "change.h"
#include "control.h"
#include "fault.h"
#include "fork.h"
#include "frame.h"
#include "identity.h"
#include "keeper.h"
#include "lead.h"
#include "log.h"
#include "mapped.h"
#include "mover.h"
#include "names.h"
#include "place.h"
#include "policy/policy.h"
#include "region.h"
#include "sigfault.h"
#include "slot.h"
#include "source.h"
#include "starter.h"
#include "stats.h"
#include "store/guard.h"
#include "trace.h"
#include "trap.h"
#include "watch.h"

#define STORE_BACKOFF_NS 1000000000ull

struct engine engine = {
	.freeing = LOCK_INIT(RANK_CHANGE),
	.ops = LOCK_INIT(RANK_OPS),
	.lock = LOCK_INIT(RANK_ENGINE),
	.mover_event = -1,
};
__thread bool engine_thread;

bool engine_init(void)
{
	char err[256];

	config_defaults(&engine.config);
	stats_command(engine.command, sizeof(engine.command));
	memcpy(engine.config.command, engine.command, sizeof(engine.config.command));
	if (!config_read_env(&engine.config, err, sizeof(err)) &&
	    !config_validate_stores(&engine.config, err, sizeof(err))) {
		budget_init();
		engine.stats = stats_none();
		engine.pid = getpid();
		return true;
	}
	log_error("%s; running unmanaged", err);
	return false;
}

bool engine_wants(size_t len)
{
	return len >= engine.config.min_region && !engine_thread &&
	       atomic_load_explicit(&engine.phase, memory_order_relaxed) != PHASE_FAILED;
}

void engine_account(int64_t bytes)
{
	engine.local += (uint64_t)bytes;
	atomic_store_explicit(&engine.stats->local_bytes, engine.local, memory_order_relaxed);
	if (engine.local >
	    atomic_load_explicit(&engine.stats->peak_local_bytes, memory_order_relaxed))
		atomic_store_explicit(&engine.stats->peak_local_bytes, engine.local,
				      memory_order_relaxed);
}

void engine_audit(void)
{
#ifdef EMF_DEBUG
	uint64_t sum = frame_bytes(), placed = frame_placed_bytes();
	struct region *r;

	for (size_t i = 0; (r = region_at(i)); i++)
		for (size_t k = 0; r->registered && k < r->nblocks; k++)
			if (block_is_mapped(r->blocks + k) && r->blocks[k].placed)
				placed += BLOCK_SIZE;
			else
				sum += block_is_mapped(r->blocks + k)
					   ? block_len(r->blocks + k)
					   : block_page_bytes(r->blocks + k);
	if (!slot_audit()) {
		log_error("audit: a slot that is in use, or to be trimmed, is somebody else's");
		abort();
	}
	if (sum == engine.local && placed == engine.placed)
		return;
	if (placed != engine.placed)
		log_error("audit: %lu bytes in place accounted for, %lu there",
			  (unsigned long)engine.placed, (unsigned long)placed);
	log_error("audit: %lu bytes accounted for, %lu there, of which %lu in frames; phase %u, "
		  "%lu regions of %lu bytes",
		  (unsigned long)engine.local, (unsigned long)sum, (unsigned long)frame_bytes(),
		  engine.phase, (unsigned long)region_count(), (unsigned long)region_bytes());
	abort();
#endif
}

void engine_heed_losses(void)
{
	static uint32_t seen;
	uint32_t losses = store_losses(&engine.store);
	struct region *r;

	if (losses == seen)
		return;
	seen = losses;
	for (size_t i = 0; (r = region_at(i)); i++)
		for (size_t k = 0; r->registered && !r->source && k < r->nblocks; k++)
			block_distrust_slot(r->blocks + k);
}

/* Something fetched ahead, or a probe, whose frame can be had at once. */
static bool reclaim(void)
{
	struct block *b = policy_oldest_probe();

	if (engine.hold)
		return false;
	engine_heed_losses();
	if (b && b->state == STANDBY && !(b->flags & (B_DIRTY | B_UNSURE))) {
		atomic_fetch_add(&engine.stats->dropped_clean_bytes, block_len(b));
		block_drop(b);
		return true;
	}
	for (b = engine.prefetched.head; b; b = b->next) {
		if (b->state != STANDBY)
			continue;
		engine_discard_standby(b);
		return true;
	}
	return false;
}

void engine_discard_standby(struct block *b)
{
	atomic_fetch_add(&engine.stats->prefetch_wasted, 1);
	prefetch_wasted(b);
	if (!(b->flags & (B_DIRTY | B_UNSURE))) {
		block_drop(b);
		return;
	}
	/* A part of it was discarded after it had been asked for. */
	b->flags &= (uint8_t)~B_PREFETCHED;
	list_remove(b);
	list_append(&engine.leaving, b);
}

uint32_t engine_frame(bool zeroed, bool force)
{
	if (!frame_free_count() && !engine_room(BLOCK_SIZE))
		reclaim();
	if (frame_free_count() < engine.reserve_low)
		engine_kick_mover();

	uint32_t f = frame_recycled(zeroed);
	if (f != NO_FRAME)
		return f;
	if (!engine_room(BLOCK_SIZE)) {
		if (!force && !engine.store_retry_at && !engine.grants)
			return NO_FRAME;
		if (!force && engine.grants)
			engine.grants--;
		if (engine.local + BLOCK_SIZE > engine.budget)
			atomic_fetch_add(&engine.stats->overruns, 1);
	}
	f = frame_empty(FRAME_BIG);
	if (f == NO_FRAME)
		return NO_FRAME;
	struct frame *m = frame_meta(f);
	m->bytes = BLOCK_SIZE;
	m->holes = m->zeroed = true;
	engine_account(BLOCK_SIZE);
	return f;
}

void engine_store_failed(int err)
{
	static uint64_t warned;
	uint64_t now = k_now_ns();

	engine.store_retry_at = now + STORE_BACKOFF_NS;
	/* Once in a while, not once a block. */
	if (warned && now - warned < 60 * STORE_BACKOFF_NS)
		return;
	warned = now;
	if (err == -ENOSPC)
		log_warn("the far store is full (%lu MiB): memory stays local, the budget will be "
			 "exceeded",
			 (unsigned long)(store_capacity(&engine.store) >> 20));
	else
		log_warn("the far store refuses writes (error %d): memory stays local, the budget "
			 "will be exceeded",
			 -err);
}

void engine_settled(void)
{
	atomic_fetch_add(&engine.settled, 1);
	if (atomic_load(&engine.waiters))
		word_signal(&engine.settled);
}

bool engine_room_short(uint64_t bytes)
{
	while (!engine_room(bytes) && frame_free_count())
		frame_give_back();
	if (!engine_room(bytes) && engine.grants) {
		engine.grants--;
		atomic_fetch_add(&engine.stats->overruns, 1);
		return true;
	}
	return engine_room(bytes) || engine.store_retry_at;
}

void engine_wanted(struct block *b, uint64_t since)
{
	b->flags |= B_WANTED;
	if (!b->since)
		b->since = since;
}

void engine_wake(struct block *b, bool resolved)
{
	b->flags &= (uint8_t) ~(B_WANTED | B_WRITE);
	if (resolved && b->since) {
		uint64_t ns = k_now_ns() - b->since;
		atomic_fetch_add_explicit(&engine.stats->stall_ns, ns, memory_order_relaxed);
		hist_add(&engine.stats->fault_latency, ns);
		b->since = 0;
	}
	uffd_wake(&engine.uffd, block_start(b), block_len(b));
}

void engine_kick_mover(void)
{
	mover_kick();
}

/* --- waiting for blocks; engine.lock is held, and given up while waiting --- */

void engine_wait_settled(void)
{
	uint32_t seen = atomic_load(&engine.settled);

	atomic_fetch_add(&engine.waiters, 1);
	lock_give(&engine.lock);
	word_wait(&engine.settled, seen, 10);
	lock_take(&engine.lock);
	atomic_fetch_sub(&engine.waiters, 1);
}

bool engine_pull_step(struct block *b)
{
	switch (b->state) {
	case NONE:
	case LOCAL:
	case LOST:
		return true;
	case FAR:
		if (b->list != &engine.pulls) {
			list_remove(b);
			list_append(&engine.pulls, b);
		}
		return false;
	case STANDBY:
		if (b->flags & B_PREFETCHED) {
			prefetch_touched(b, true);
			b->flags &= (uint8_t)~B_PREFETCHED;
		}
		return !block_give(b, ARRIVE_STANDBY, false);
	default:
		b->flags |= B_WANTED;
		return false;
	}
}

static bool pull_region(struct region *r, uintptr_t start, uintptr_t end)
{
	struct block *b = region_block(r, start > r->start ? start : r->start),
		     *last = region_block(r, (end < r->end ? end : r->end) - 1);
	bool there = true;

	for (; b <= last; b++)
		there &= engine_pull_step(b);
	return there;
}

/* All of the range local or empty, and held so. The map may change while it waits. */
static void pull(uintptr_t start, uintptr_t end)
{
	bool there, near = !place_is_on();

	while (change_hold(start, end))
		engine_wait_settled();
	do {
		there = true;
		for (struct region *r = region_next(start); r && r->start < end;
		     r = region_next(r->end))
			if (r->registered)
				there &= pull_region(r, start, end);
		if (!there) {
			engine_kick_mover();
			engine_wait_settled();
		} else if (!near) {
			place_bring(start, end);
			near = true;
			there = false;
		}
	} while (!there);
}

/* --- structural operations: by the control thread, or under engine.ops while not ACTIVE --- */

static bool is_active(void)
{
	return atomic_load(&engine.phase) == PHASE_ACTIVE;
}

void engine_update_gauges(void)
{
	atomic_store(&engine.stats->managed_bytes, region_bytes());
	atomic_store(&engine.stats->regions, region_count());
	policy_total(region_bytes() >> BLOCK_SHIFT);
	if (!engine.counts && engine.stats != stats_none()) {
		/* Not registered: how much of it is resident only the kernel knows; this is the
		 * bound. */
		engine.local = 0;
		engine_account((int64_t)region_bytes());
	}
}

/*
 * A child gets a region only from a fork that was prepared. One by a system call of the
 * program's own, of which nobody knew, gets none of it: rather a SIGSEGV than zeros for
 * what is far.
 */
void engine_inheritable(const struct region *r, bool on)
{
	if (!r->no_fork)
		k_madvise((void *)r->start, r->end - r->start, on ? MADV_DOFORK : MADV_DONTFORK);
}

void engine_fill_kept(const struct region *r)
{
	for (size_t i = 0; sigfault_on() && i < r->nblocks; i++) {
		const struct block *b = r->blocks + i;
		char *at = block_start(b), *end = at + block_len(b);
		/* Zeros would be taken for what is lost. */
		while (b->state != LOST && at < end) {
			ssize_t n = uffd_zero(&engine.uffd, at, (size_t)(end - at));
			at += n > 0 ? (size_t)n : K_PAGE;
		}
	}
}

static int register_region(struct region *r)
{
	int err = uffd_register(&engine.uffd, (void *)r->start, r->end - r->start, true);

	if (err)
		return err;
	engine_inheritable(
	    r, engine.forking); /* also what the forking thread itself makes meanwhile */
	r->registered = true;
	if (r->kept)
		engine_fill_kept(r);
	for (size_t i = 0; !r->kept && i < r->nblocks; i++)
		block_adopt(r->blocks + i);
	return 0;
}

static void refused(struct region *r, int err)
{
	log_warn("memory at %p stays unmanaged: userfaultfd refuses it (error %d)",
		 (void *)r->start, -err);
	region_erase(r);
}

void engine_reclass(struct region *r)
{
	struct emf_traits t = {
		.bytes = r->end - r->start,
		.command = engine.command,
		.who = r->who,
		.order = r->order,
		.does = r->note.does,
		.name = names_text(r->name),
		.file = r->source ? r->source->path : NULL,
	};
	const struct emf_class *was = r->class;

	r->note.turned = false;
	r->class = config_class(&engine.config, &t);
	/* Who stays in any case, and who does not, is another matter now. */
	for (size_t i = 0; r->class != was && i < r->nblocks; i++)
		policy_reclassed(r->blocks + i);
}

void engine_made(struct region *r, uint32_t who)
{
	static uint32_t made;

	r->who = who;
	r->order = ++made;
	engine_reclass(r);
}

static bool insert(uintptr_t start, uintptr_t end, uint32_t who, unsigned kept, bool no_fork)
{
	struct region *r = region_insert(start, end);

	if (!r)
		return false;
	r->kept = (uint8_t)kept;
	r->no_fork = no_fork;
	engine_made(r, who);
	int err = is_active() ? register_region(r) : 0;
	if (err)
		refused(r, err);
	return !err;
}

void engine_before_first(void)
{
	if (engine.stats == stats_none())
		stats_open(engine.command, engine.budget);
	if (!is_active())
		watch_look();
}

static long op_adopt(uintptr_t start, uintptr_t end, unsigned who)
{
	engine_before_first();
	lock_take(&engine.lock);
	if (is_active())
		fault_catch_up();
	change_gone(start, end);
	bool adopted = insert(start, end, who, 0, false);
	engine_update_gauges();
	lock_give(&engine.lock);
	return adopted;
}

#define LEFT_MANAGED (1u << 8) /* beside the reasons KEPT_* */
#define LEFT_NO_FORK (1u << 9)
#define LEFT_MAPPED (1u << 10)

/* What there is to be said of the regions of a range. */
static long op_attributes(uintptr_t start, uintptr_t end, unsigned why)
{
	lock_take(&engine.lock);
	for (struct region *r = region_next(start); r && r->start < end; r = region_next(r->end))
		why |= r->kept | LEFT_MANAGED | (r->no_fork ? LEFT_NO_FORK : 0) |
		       (r->source ? LEFT_MAPPED : 0);
	lock_give(&engine.lock);
	return why;
}

static long op_left(uintptr_t start, uintptr_t end, unsigned why)
{
	/* The lock, and what a device holds, have gone with the pages. */
	unsigned kept = why & (KEPT_DUMP | KEPT_WIPE | KEPT_ALWAYS);

	lock_take(&engine.lock);
	/* Other threads may have touched it already, and so a region have grown over it. */
	while (start < end) {
		struct region *r = region_next(start);
		if (!r || r->start > start)
			insert(start, r && r->start < end ? r->start : end, UINT32_MAX, kept,
			       why & LEFT_NO_FORK);
		start = r && r->start < end ? r->end : end;
	}
	engine_update_gauges();
	lock_give(&engine.lock);
	return 0;
}

static bool taking(uintptr_t start, uintptr_t end)
{
	for (struct region *r = region_next(start); r && r->start < end; r = region_next(r->end)) {
		struct block *b = region_block(r, start > r->start ? start : r->start),
			     *last = region_block(r, (end < r->end ? end : r->end) - 1);
		for (; r->registered && b <= last; b++)
			if (b->state == TAKING)
				return true;
	}
	return false;
}

void engine_hold_still(uintptr_t start, uintptr_t end)
{
	while (change_hold(start, end))
		engine_wait_settled();
	while (taking(start, end))
		engine_wait_settled();
}

int engine_isolate(uintptr_t start, uintptr_t end)
{
	engine_hold_still(start, end);
	int err = change_isolate(start, end);
	change_release(start, end);
	return err;
}

static long op_grown(uintptr_t start, uintptr_t end, unsigned why)
{
	(void)why;
	lock_take(&engine.lock);
	engine_hold_still(start - 1, start);
	if (is_active())
		fault_catch_up();
	struct region *r = region_find(start - 1);
	/* It may have grown before it was registered, when the engine was starting. */
	if (r && r->end == start &&
	    (!r->registered || !uffd_register(&engine.uffd, (void *)start, end - start, true))) {
		change_grown(start, end);
		if (r->registered)
			engine_inheritable(r, engine.forking);
	}
	change_release(start - 1, start);
	engine_update_gauges();
	lock_give(&engine.lock);
	return 0;
}

static long op_keep(uintptr_t start, uintptr_t end, unsigned why)
{
	struct region *r;

	mapped_give_back_now(start, end);
	lock_take(&engine.lock);
	if (is_active())
		pull(start, end);
	int err = change_isolate(start, end);
	for (uintptr_t at = start; !err && (r = region_next(at)) && r->start < end; at = r->end) {
		for (size_t i = 0; r->registered && i < r->nblocks; i++) {
			if (r->blocks[i].state == LOST)
				continue; /* and stays so, or who touches it would see zeros */
			block_unprotect(r->blocks + i);
			block_forget(r->blocks + i);
		}
		prefetch_region_gone(r);
		r->kept |= (uint8_t)why;
		if (r->registered)
			engine_fill_kept(r);
	}
	change_release(start, end);
	engine_update_gauges();
	lock_give(&engine.lock);
	return err;
}

static long op_unkeep(uintptr_t start, uintptr_t end, unsigned why)
{
	struct region *r;

	lock_take(&engine.lock);
	engine_hold_still(start, end);
	int err = change_isolate(start, end);
	for (uintptr_t at = start; !err && (r = region_next(at)) && r->start < end; at = r->end) {
		if (!(r->kept & why))
			continue;
		r->kept &= (uint8_t)~why;
		for (size_t i = 0; !r->kept && r->registered && i < r->nblocks; i++)
			block_adopt(r->blocks + i);
	}
	change_release(start, end);
	engine_update_gauges();
	lock_give(&engine.lock);
	return err;
}

static long op_no_fork(uintptr_t start, uintptr_t end, unsigned on)
{
	struct region *r;

	lock_take(&engine.lock);
	engine_hold_still(start, end);
	int err = change_isolate(start, end);
	for (uintptr_t at = start; !err && (r = region_next(at)) && r->start < end; at = r->end) {
		r->no_fork = on;
		/* The program's call comes after this; while registered it is the runtime's to say.
		 */
		if (!on && r->registered)
			engine_inheritable(r, false);
	}
	change_release(start, end);
	lock_give(&engine.lock);
	return err;
}

/* A block is taken by copy from an address, and what is there must not change under that. */
static long op_hold(uintptr_t start, uintptr_t end, unsigned on)
{
	lock_take(&engine.lock);
	if (on)
		engine_hold_still(start, end);
	else
		change_release(start, end);
	lock_give(&engine.lock);
	return 0;
}

/* A process whose memory is a copy of ours, made by a system call that nobody told us of. */
static bool is_stranger(void)
{
	return is_active() && engine.pid != getpid();
}

static uintptr_t page_end(uintptr_t start, size_t len)
{
	return (start + len + K_PAGE - 1) & ~(uintptr_t)(K_PAGE - 1);
}

static long ask(long (*fn)(uintptr_t, uintptr_t, unsigned), const void *addr, size_t len,
		unsigned why, bool refusable)
{
	uintptr_t start = (uintptr_t)addr, end = page_end(start, len);
	uint64_t saved;
	long r;

	if (is_stranger())
		return 0;
	if (is_active())
		return control_call(fn, start, end, why, refusable);
	if (fork_is_mine())
		return fn(start, end, why);
	k_signals_block(&saved);
	if (!refusable) {
		lock_take(&engine.ops);
	} else if (!lock_try(&engine.ops)) {
		/* A fork, as a rule: it holds ops from its preparation to its end. */
		k_signals_restore(saved);
		return -EAGAIN;
	}
	bool active = is_active();
	r = active ? 0 : fn(start, end, why);
	lock_give(&engine.ops);
	k_signals_restore(saved);
	return active ? control_call(fn, start, end, why, refusable) : r;
}

static long call(long (*fn)(uintptr_t, uintptr_t, unsigned), const void *addr, size_t len,
		 unsigned why)
{
	return ask(fn, addr, len, why, false);
}

long engine_call(long (*fn)(uintptr_t, uintptr_t, unsigned), const void *addr, size_t len,
		 unsigned why)
{
	return call(fn, addr, len, why);
}

static void ask_hold(const struct change *c, bool on)
{
	control_call(op_hold, c->start, c->end, on, false);
	if (c->to_end)
		control_call(op_hold, c->to, c->to_end, on, false);
}

static long op_nothing(uintptr_t start, uintptr_t end, unsigned why)
{
	(void)start;
	(void)end;
	(void)why;
	return 0;
}

static long op_discard_done(uintptr_t start, uintptr_t end, unsigned why)
{
	(void)why;
	lock_take(&engine.lock);
	change_discard_done(start, end);
	lock_give(&engine.lock);
	return 0;
}

/*
 * Not while another thread forks: then the child's copy of the map would not know. Nor while pages
 * are discarded, which might be others by then. Who does that sees to it that none is under way
 * (fork.c, mapped.c).
 */
static void begin_change(void)
{
	atomic_fetch_add(&engine.changes, 1);
	while (engine.discarding || (engine.forking && !fork_is_mine())) {
		atomic_fetch_sub(&engine.changes, 1);
		control_call(op_nothing, 0, 0, 0, false);
		atomic_fetch_add(&engine.changes, 1);
	}
}

void engine_change_begin(struct change *c, const void *addr, size_t len, const void *to,
			 size_t to_len, bool frees)
{
	c->start = (uintptr_t)addr;
	c->end = page_end(c->start, len);
	c->to = (uintptr_t)to;
	c->to_end = to ? page_end(c->to, to_len) : 0;
	c->locked = c->held = c->freeing = false;
	k_signals_block(&c->signals);
	if (is_stranger())
		return;
	if (!is_active() && !fork_is_mine()) {
		lock_take(&engine.ops);
		c->locked = !is_active();
		if (!c->locked)
			lock_give(&engine.ops);
	}
	/* Counted before it is asked whether to hold (engine_may_copy), or to wait (fork.c). */
	if (!c->locked)
		begin_change();
	if (is_active() && (!engine.uffd.move || engine.read_only)) {
		/* A fork that is being prepared waits for those who are counted. */
		atomic_fetch_sub(&engine.changes, 1);
		ask_hold(c, true);
		c->held = true;
		begin_change();
	}
	/* Only who is counted: while nobody is, a fork finds it free. */
	c->freeing = frees && !c->locked;
	if (c->freeing)
		lock_take(&engine.freeing);
}

static void apply(const struct change *c, enum change_kind what)
{
	lock_take(&engine.lock);
	if (what == CHANGE_GONE)
		change_gone(c->start, c->end);
	else if (what == CHANGE_MOVED) {
		/* What it lost on the way, and what was there. */
		if (c->to_end && c->to_end - c->to < c->end - c->start)
			change_gone(c->start + (c->to_end - c->to), c->end);
		if (c->to_end)
			change_gone(c->to, c->to_end);
		change_moved(c->start, c->end, c->to);
	}
	engine_update_gauges();
	lock_give(&engine.lock);
}

bool engine_may_copy(void)
{
	static bool since_read_only;

	/* Those that began before read_only was set do not hold. */
	if (engine.read_only && !engine.changes)
		since_read_only = true;
	return !engine.uffd.move || since_read_only;
}

void engine_read_only(void)
{
	engine.read_only = true;
}

void engine_change_end(struct change *c, enum change_kind what)
{
	if (is_stranger()) {
		k_signals_restore(c->signals);
		return;
	}
	if (!is_active())
		apply(c, what);
	if (c->freeing)
		lock_give(&engine.freeing);
	if (!c->locked)
		atomic_fetch_sub(&engine.changes, 1);
	if (is_active() && what == CHANGE_DISCARDED)
		control_call(op_discard_done, c->start, c->end, 0, false);
	if (c->held)
		ask_hold(c, false);
	if (c->locked)
		lock_give(&engine.ops);
	k_signals_restore(c->signals);
}

/* --- start --- */

static void give_up(void)
{
	atomic_store(&engine.stats->mode, EMF_MODE_UNMANAGED);
	atomic_store(&engine.phase, PHASE_FAILED);
	k_futex_wake(&engine.phase, INT_MAX);
	keeper_dismiss();
}

static const char *why(int err)
{
	switch (err) {
	case -EPERM:
		return uffd_user_mode_only()
			   ? "only faults in user mode are permitted, and system calls would fail; "
			     "needs root, vm.unprivileged_userfaultfd=1 or access to "
			     "/dev/userfaultfd"
			   : "not permitted: needs root, vm.unprivileged_userfaultfd=1 or access "
			     "to /dev/userfaultfd";
	case -EACCES:
		return "not readable, as for processes that are not dumpable (prctl)";
	case -ENOENT:
		return "not there: mount /proc";
	case -ENOSYS:
		return "this kernel does not have it";
	case -ENOTSUP:
		return "the kernel's userfaultfd has no write protection, which came with 5.7";
	case -ENOMEM:
		return "out of address space";
	case -ENOSPC:
		return "no room";
	default:
		return "the system refuses it";
	}
}

static void fail(const char *what, int err)
{
	log_error("cannot manage memory here: %s (%s, error %d); running unmanaged", what, why(err),
		  -err);
	give_up();
}

static bool spawn(void *(*fn)(void *), int patience)
{
	pthread_attr_t attr;
	pthread_t thread;
	uint64_t saved;

	if (pthread_attr_init(&attr))
		return false;
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attr, 512u << 10);
	k_signals_block(&saved);
	/* Who changes its identity holds a lock that libc takes here, and waits for all threads. */
	k_signals_allow_setxid();
	/* What libc allocates for the thread here is touched by the thread: as if by itself. */
	bool before = engine_thread;
	engine_thread = true;
	atomic_fetch_add(&engine.threads, 1);
	int err = pthread_create(&thread, &attr, fn, NULL);
	/* A moment's lack of something is no reason to give up, least of all for a forked child. */
	for (int wait = 1; err == EAGAIN && wait <= patience; wait *= 2) {
		poll(NULL, 0, wait);
		err = pthread_create(&thread, &attr, fn, NULL);
	}
	if (err)
		atomic_fetch_sub(&engine.threads, 1);
	else
		k_setxid_before(identity_follow);
	engine_thread = before;
	k_signals_restore(saved);
	pthread_attr_destroy(&attr);
	return !err;
}

bool engine_spawn(void *(*fn)(void *))
{
	return spawn(fn, 1024);
}

bool engine_try_spawn(void *(*fn)(void *))
{
	return spawn(fn, 0);
}

/* The start is in the dynamic linker; it has been there for so long that nobody waits for it. */
static _Atomic bool loading, stalled;
#define LOADING_NS 1000000000ull
/* The program's allocator may hold its locks, which the start then needs. */
#define OWN_MALLOC_NS 100000000ull

/* Around a slot's rebuild, by the store's thread. It stands still, too, while one forks. */
static void lock_unless_forking(void)
{
	for (;;) {
		lock_take(&engine.lock);
		if (!engine.forking)
			return;
		lock_give(&engine.lock);
		poll(NULL, 0, 1);
	}
}

static bool hold_slot(uint64_t slot)
{
	lock_unless_forking();
	bool held = slot_hold((uint32_t)slot);
	lock_give(&engine.lock);
	return held;
}

static void release_slot(uint64_t slot)
{
	lock_unless_forking();
	slot_free((uint32_t)slot);
	lock_give(&engine.lock);
}

static void store_still(bool on)
{
	if (on)
		lock_unless_forking();
	else
		lock_give(&engine.lock);
}

static const char *run_dir(void)
{
	static char dir[256];

	return stats_run_dir(dir, sizeof(dir)) ? NULL : dir;
}

/*
 * The members of the store have changed: it is another guard that knows them. It waits for this
 * process, and for children that are forked from now on; so there must be none before.
 */
static bool store_changed(void)
{
	static uint64_t generation;
	struct store_options opt = {
		.stripe_unit = engine.config.stripe,
		.timeout_ms = engine.config.timeout_ms,
		.generation = generation + 1,
	};
	int guard = -1, before = engine.guard;

	if (engine.store.outlives)
		guard = guard_start(&engine.store, &opt, slot_memfd(), slot_table(), BLOCK_SIZE);
	if (engine.store.outlives && guard < 0)
		log_warn("what is moved between stores will not be given back if this process is "
			 "killed: cannot start the helper 'emfatier reap'");
	store_still(true);
	bool alone = slot_alone();
	if (alone && guard >= 0) {
		slot_set_generation(++generation);
		engine.guard = guard;
	}
	store_still(false);
	/* One of the two has nothing to do any more. */
	if (guard >= 0 && (!alone || before >= 0))
		close(alone ? before : guard);
	return alone;
}

/* engine.lock is held, by store_still. */
static void store_grown(void)
{
	slot_set_capacity(store_capacity(&engine.store));
	atomic_store(&engine.stats->nstores, engine.store.nleaves);
	engine.store_retry_at = 0; /* it may have been full */
	engine_kick_mover();
}

static void *store_main(void *unused)
{
	(void)unused;
	engine_thread_begin("emf-store");
	for (;;)
		store_work(&engine.store);
	return NULL;
}

bool engine_spawn_store(void)
{
	return !store_needs_work(&engine.store) || engine_spawn(store_main);
}

/*
 * What comes and goes is servers, and files that somebody has named. Who has but memory of this
 * host, or the default file, keeps to the plain stripe.
 */
static bool may_change(void)
{
	static const char *const scheme[] = { "nbd", "rdma:", "file:" };

	for (unsigned i = 0; i < engine.config.nstores; i++)
		for (unsigned k = 0; k < sizeof(scheme) / sizeof(scheme[0]); k++)
			if (!strncmp(engine.config.store_uri[i], scheme[k], strlen(scheme[k])))
				return true;
	return false;
}

static bool open_store(void)
{
	const char *uri[EMF_MAX_STORES];
	char err[256];
	struct store_options opt = {
		.uri = uri,
		.nuri = engine.config.nstores,
		.tier = engine.config.store_tier,
		.tiers = engine.config.tiers,
		.stripe_unit = engine.config.stripe,
		.timeout_ms = engine.config.timeout_ms,
		.encrypt = engine.config.encrypt,
		.rebuild_rate = engine.config.rebuild,
		.inject = engine.config.inject,
		.hold = hold_slot,
		.release = release_slot,
		.stats = engine.stats->store,
		.no_malloc = engine.own_malloc,
		.live = may_change(),
		.alone = slot_alone,
		.still = store_still,
		.changed = store_changed,
		.grown = store_grown,
		.scattered = slot_set_scattered,
		.run_dir = run_dir(),
	};

	opt.frames = frame_area(&opt.frames_bytes);
	config_columns(&engine.config, &opt.data, &opt.more);
	for (unsigned i = 0; i < engine.config.nstores; i++)
		uri[i] = engine.config.store_uri[i];
	loading = true;
	store_load(&opt);
	loading = false;
	int e = store_open(&engine.store, &opt, err, sizeof(err));
	if (e) {
		log_error("%s; running unmanaged", err);
		give_up();
		return false;
	}
	atomic_store(&engine.stats->nstores, engine.store.nleaves);
	e = slot_init(store_capacity(&engine.store), engine.store.top->size);
	if (e) {
		fail("the far store has no room for one block", e);
		return false;
	}
	/* Its descriptor stays open as long as the runtime's threads live. */
	engine.guard = -1;
	if (engine.store.outlives)
		engine.guard =
		    guard_start(&engine.store, &opt, slot_memfd(), slot_table(), BLOCK_SIZE);
	if (engine.store.outlives && engine.guard < 0)
		log_warn("far space of this process will not be given back if it is killed: "
			 "cannot start the helper 'emfatier reap'");
	return true;
}

void engine_thread_begin(const char *name)
{
	trap_thread_off();
	prctl(PR_SET_NAME, name, 0, 0, 0);
	engine_thread = true;
	identity_begin();
	log_own_table();
	k_signals_allow_setxid();
}

void engine_thread_end(void)
{
	atomic_fetch_sub(&engine.threads, 1);
}

/* Everything local may be in standby at once; pulls may exceed the budget. */
static size_t frames_for(uint64_t bytes)
{
	return ((bytes + engine.config.in_place) >> BLOCK_SHIFT) * 2 + 64;
}

int engine_init_frames(void)
{
	/* For all that the budget can become; where address space is short, for what it is. */
	int err = frame_init(&engine.uffd, frames_for(budget_ceiling()), ENGINE_SMALL_FRAMES);

	if (err != -ENOMEM)
		return err;
	budget_fix_ceiling();
	return frame_init(&engine.uffd, frames_for(engine.budget), ENGINE_SMALL_FRAMES);
}

int engine_open_queues(void)
{
	engine.mover_event = sigfault_on() ? sigfault_mover_event() : k_eventfd();
	if (engine.mover_event < 0)
		return engine.mover_event;
	int err = fault_open();
	if (!err)
		err = mover_open();
	if (!err)
		lead_open_more();
	return err;
}

bool engine_boot(void)
{
	uint64_t begin = k_now_ns();
	int err = k_own_descriptors(sigfault_fds(), sigfault_on() ? SIGFAULT_FDS : 0);
	bool traced;

	engine_thread_begin("emf-mover");
	if (err) {
		fail("close_range", err);
		return false;
	}
	if (sigfault_on())
		sigfault_take(&engine.uffd);
	else
		err = uffd_open(&engine.uffd, engine.config.move);
	if (err) {
		fail(err == -EACCES || err == -ENOENT ? "/proc/self/pagemap" : "userfaultfd", err);
		return false;
	}
	lock_take(&engine.lock);
	budget_boot();
	lock_give(&engine.lock);
	err = engine_init_frames();
	if (err) {
		fail("staging memory", err);
		return false;
	}
	if (!open_store())
		return false;
	place_init();
	err = engine_open_queues();
	/* Before the regions are registered, so that it has all of their first touches. */
	traced = engine.config.trace[0] && trace_open(engine.config.trace);
	if (!err && (!fault_spawn() || !engine_spawn(control_main) || !engine_spawn_store() ||
		     (traced && !engine_spawn(trace_main))))
		err = -EAGAIN;
	if (err) {
		fail("threads and queues", err);
		return false;
	}

	lock_take(&engine.ops);
	lock_take(&engine.lock);
	engine.local = 0;
	engine.counts = true;
	atomic_store(&engine.stats->peak_local_bytes, 0);
	atomic_store(&engine.stats->move, engine.uffd.move);
	struct region *r;
	for (size_t i = 0; (r = region_at(i));) {
		err = r->source ? 0 : register_region(r);
		if (err)
			refused(r, err);
		else
			i++;
	}
	atomic_store(&engine.stats->mode, sigfault_on() ? EMF_MODE_SIGNAL : EMF_MODE_THREAD);
	lock_give(&engine.lock);
	mapped_start();
	lock_take(&engine.lock);
	atomic_store(&engine.phase, PHASE_ACTIVE);
	engine_update_gauges();
	uint64_t local = engine.local;
	lock_give(&engine.lock);
	lock_give(&engine.ops);
	k_futex_wake(&engine.phase, INT_MAX);
	watch_start();
	log_info("started in %lu ms: %lu regions of %lu MiB, %lu MiB of them local, limit %lu MiB",
		 (unsigned long)((k_now_ns() - begin) / 1000000), (unsigned long)region_count(),
		 (unsigned long)(region_bytes() >> 20), (unsigned long)(local >> 20),
		 (unsigned long)(engine.budget >> 20));
	return true;
}

bool engine_spawn_first(void)
{
	return keeper_start(true) && engine_spawn(mover_main);
}

void engine_start(void)
{
	if (!engine_spawn_first())
		fail("a thread could not be created", -EAGAIN);
}

void engine_consider_start(void)
{
	uint32_t idle = PHASE_IDLE;

	if (atomic_load(&engine.phase) != PHASE_IDLE || !region_count() ||
	    (!engine.config.chaos && !budget_exceeded()))
		return;
	if (engine.own_malloc && !starter_ready())
		return; /* it is just being made, and will look itself */
	if (!atomic_compare_exchange_strong(&engine.phase, &idle, PHASE_STARTING))
		return;
	if (engine.own_malloc)
		starter_ask();
	else
		engine_start();
}

void engine_maybe_start(void)
{
	if (atomic_load(&engine.phase) > PHASE_STARTING)
		return;
	engine_consider_start();
	if (!engine.own_malloc)
		watch_consider(); /* it makes a thread */
	/*
	 * The new memory is to be registered before the program fills it, so wait;
	 * but not for ever: the start loads shared objects, and this thread may be
	 * inside the dynamic linker and hold its lock (constructors of what it loads, callbacks),
	 * or inside an allocator of the program's. Then it is registered later.
	 */
	uint64_t begin = k_now_ns(), patience = (engine.config.timeout_ms + 2000) * 1000000ull;
	while (atomic_load(&engine.phase) == PHASE_STARTING && !stalled &&
	       k_now_ns() - begin < patience) {
		word_wait(&engine.phase, PHASE_STARTING, 100);
		uint64_t waited = k_now_ns() - begin;
		stalled =
		    engine.own_malloc ? waited > OWN_MALLOC_NS : loading && waited > LOADING_NS;
	}
}

void engine_await_start(void)
{
	uint64_t begin = k_now_ns(), patience = (engine.config.timeout_ms + 2000) * 1000000ull;

	/* Who forks inside the dynamic linker holds up the start, which then has not begun to load.
	 */
	while (atomic_load(&engine.phase) == PHASE_STARTING && k_now_ns() - begin < patience &&
	       !(loading && k_now_ns() - begin > LOADING_NS))
		word_wait(&engine.phase, PHASE_STARTING, 100);
}

void engine_prepare_start(void)
{
	if (engine.own_malloc && atomic_load(&engine.phase) == PHASE_IDLE && starter_make())
		engine_maybe_start();
}

uint32_t engine_who(const void *caller)
{
	char thread[16] = "", object[128] = "";

	if (engine.config.asks & EMF_ASKS_THREAD)
		prctl(PR_GET_NAME, thread, 0, 0, 0);
	if (engine.config.asks & EMF_ASKS_LIBRARY)
		k_object_name((uintptr_t)caller, object, sizeof(object));
	return config_who(&engine.config, thread, object);
}

static long adopt(void *addr, size_t len, bool refusable, const void *caller)
{
	if (len >= BLOCK_SIZE)
		k_madvise(addr, len, MADV_HUGEPAGE);
	long r = ask(op_adopt, addr, len, engine_who(caller), refusable);
	if (r > 0)
		engine_maybe_start();
	return r;
}

bool engine_adopt(void *addr, size_t len, const void *caller)
{
	return adopt(addr, len, false, caller) > 0;
}

int engine_try_adopt(void *addr, size_t len, const void *caller)
{
	long r = adopt(addr, len, true, caller);

	return r > 0 ? 0 : r == -EAGAIN ? -EAGAIN : -ENOMEM;
}

int engine_try_discard(void *addr, size_t len)
{
	struct change c = { .start = (uintptr_t)addr, .end = page_end((uintptr_t)addr, len) };
	int r = -EAGAIN;

	k_signals_block(&c.signals);
	/* As engine_change_begin, but that would wait where the range has to be held. */
	atomic_fetch_add(&engine.changes, 1);
	if (is_active() && engine.forking)
		;
	else if (is_stranger() || !is_active() || (engine.uffd.move && !engine.read_only))
		r = k_madvise(addr, len, MADV_DONTNEED);
	atomic_fetch_sub(&engine.changes, 1);
	if (!r && is_active() && !is_stranger())
		control_call(op_discard_done, c.start, c.end, 0, true);
	k_signals_restore(c.signals);
	return r;
}

bool engine_active(void)
{
	return is_active();
}

void engine_left(void *addr, size_t len, const void *to)
{
	unsigned was = (unsigned)call(op_attributes, to, len, 0);

	if (was & LEFT_MANAGED)
		call(op_left, addr, len, was);
	engine_maybe_start();
}

void engine_grown(void *addr, size_t len)
{
	call(op_grown, addr, len, 0);
	engine_maybe_start();
}

void engine_keep(const void *addr, size_t len, unsigned why)
{
	engine.keeps = true;
	call(op_keep, addr, len, why);
}

void engine_unkeep(const void *addr, size_t len, unsigned why)
{
	if (engine.keeps)
		call(op_unkeep, addr, len, why);
}

unsigned engine_kept(const void *addr, size_t len)
{
	return engine.keeps ? (unsigned)call(op_attributes, addr, len, 0) & (LEFT_MANAGED - 1) : 0;
}

bool engine_has_mapped(const void *addr, size_t len)
{
	return call(op_attributes, addr, len, 0) & LEFT_MAPPED;
}

void engine_no_fork(void *addr, size_t len, bool on)
{
	call(op_no_fork, addr, len, on);
}

void engine_unlock_frames(void)
{
	frame_unlock();
}
