/* SPDX-License-Identifier: Apache-2.0 */
#include "fault.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <string.h>

#include "arena.h"
#include "change.h"
#include "engine.h"
#include "follow.h"
#include "frame.h"
#include "lead.h"
#include "log.h"
#include "mapped.h"
#include "mover.h"
#include "place.h"
#include "policy/policy.h"
#include "region.h"
#include "sigfault.h"
#include "source.h"
#include "sparse.h"
#include "stats.h"
#include "thrash.h"
#include "transfer.h"

#define PAGED_NS 10000000 /* so long ago is lately */
#define BUSY 6		  /* transfers */
#define FDS 32

#define DEFERRED 256
#define BATCH 16
/* Of refusals of one page. Who sends the event may not run for long on a busy machine. */
#define UNKNOWN_PATIENCE_NS 1000000000ull

static _Atomic uint32_t near_serves; /* of the two threads */
static bool pass;		     /* the other is to serve */
/* Held by whoever is the fault thread; always by itself but for engine.fault=signal. */
static struct lock turn = LOCK_INIT(RANK_FAULT);

/* The one read of a copy into place, while engine.forking. */
static struct {
	struct emf_io io;
	char *buf; /* a cluster */
	struct block *block;
	char *to;	   /* where the cluster belonged, when the fork began */
	uintptr_t by, now; /* how far it has moved since; the page that is waited for */
	bool busy, missed; /* missed: others have faulted meanwhile and are to try again */
} rescue;

/* Left to the kernel in the middle of an mremap, until its event says where that went. */
static struct {
	uintptr_t start, end;
} let_go[8];
static size_t nlet_go;

static struct uffd_message deferred[DEFERRED];
static size_t ndeferred;

/* Read, and not resolved yet: who leads goes on with them. */
static struct unresolved {
	struct uffd_message m;
	uint64_t since;
} faults[BATCH];
static unsigned first_fault, nfaults;

/* Stores that need no descriptor, of which a program's thread has none. */
static _Atomic bool here;

static bool is_memory(void)
{
	static const char *const scheme[] = { "mem:", "numa:", "dax:" };

	for (unsigned i = 0; i < engine.config.nstores; i++) {
		bool found = false;
		for (unsigned k = 0; k < sizeof(scheme) / sizeof(scheme[0]); k++)
			found |= !strncmp(engine.config.store_uri[i], scheme[k], strlen(scheme[k]));
		if (!found)
			return false;
	}
	return engine.config.nstores && engine.store.top->caps & EMF_CAP_SYNC;
}

int fault_open(void)
{
	rescue.buf = arena_alloc(STORE_CLUSTER);
	int err = rescue.buf ? lead_open() : -ENOMEM;
	here = !err && is_memory();
	return err;
}

void fault_after_fork(void)
{
	lead_after_fork();
	memset(&rescue, 0, sizeof(rescue));
	memset(let_go, 0, sizeof(let_go));
	ndeferred = 0;
	nfaults = 0;
	near_serves = false;
	pass = false;
	follow_after_fork();
	here = false;
	lock_reset(&turn);
}

bool fault_stuck(void)
{
	return lead_stuck();
}

static void bump(emf_stat *counter)
{
	atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

/* Does the program sweep, or jump about? A few blocks, or a part of a big region, are near. */
static void note_touch(const struct block *b)
{
	static uintptr_t recent[4];
	static unsigned next;
	uintptr_t at = (uintptr_t)block_start(b), reach = (b->region->end - b->region->start) / 32;
	bool close = false;

	if (reach < 4 * BLOCK_SIZE)
		reach = 4 * BLOCK_SIZE;
	for (unsigned i = 0; i < 4; i++)
		close |= (at > recent[i] ? at - recent[i] : recent[i] - at) <= reach;
	recent[next++ % 4] = at;
	sparse_touched(b);
	bump(&engine.stats->touches);
	if (close)
		bump(&engine.stats->touches_near);
}

/* At once, or after it had starved. */
static void resolved(struct block *b, uint64_t since)
{
	if (!b->since)
		b->since = since;
	engine_wake(b, true);
}

static void starve(struct block *b, uint64_t since)
{
	if (!b->since) {
		b->since = since;
		bump(&engine.stats->faults_starved);
	}
	if (b->list != &engine.starving) {
		list_remove(b);
		list_append(&engine.starving, b);
	}
	engine_kick_mover();
}

/* First touch. Gives up engine.lock while it zeroes. */
static void fault_none(struct server *s, struct block *b, uint64_t since)
{
	if (!block_is_full(b)) {
		if (!engine_room_short(block_len(b))) {
			starve(b, since);
			return;
		}
		if (!block_fill_short(b))
			bump(&engine.stats->faults_zero);
		resolved(b, since);
		return;
	}
	if (!block_fill(b)) {
		starve(b, since);
		return;
	}
	bump(&engine.stats->faults_zero);
	uint32_t f = b->frame;
	char *p = block_start(b);
	lead_on(s);
	lock_give(&engine.lock);
	frame_zero(f);
	lock_take(&engine.lock);
	lead_back(s);
	b = frame_meta(f)->owner;
	if (!b) { /* unmapped, or cut, meanwhile */
		frame_meta(f)->holes = false;
		frame_recycle(f, true);
		uffd_wake(&engine.uffd, p, BLOCK_SIZE);
		return;
	}
	block_filled(b);
	resolved(b, since);
}

/* A hole in a block that is in place: the program gave the page back. */
static void fault_hole(struct block *b, uintptr_t addr)
{
	uintptr_t end = (addr & ~(uintptr_t)(STORE_CLUSTER - 1)) + STORE_CLUSTER;
	uintptr_t block_end = (uintptr_t)block_start(b) + block_len(b);

	if (end > block_end)
		end = block_end;
	ssize_t n = uffd_zero(&engine.uffd, (void *)addr, end - addr);
	if (n > 0) {
		bump(&engine.stats->faults_zero);
		block_unplace(b);
		block_unslot(b);
	}
	/* -EEXIST: two threads had faulted, and the other one was served. */
	if (n < 0 && n != -EEXIST && n != -EAGAIN)
		log_error("cannot map a zero page at %p: error %zd", (void *)addr, -n);
	uffd_wake(&engine.uffd, (void *)addr, end - addr);
}

static void fault_standby(struct block *b, bool write, uint64_t since)
{
	bool ahead = b->flags & B_PREFETCHED;

	if (ahead) {
		/* Here prefetch learns how far the program is. */
		note_touch(b);
		bump(&engine.stats->prefetch_useful);
		prefetch_touched(b, true);
		b->flags &= (uint8_t)~B_PREFETCHED;
	}
	int err = block_give(b, ahead ? ARRIVE_FETCHED : ARRIVE_STANDBY, write);
	if (err) {
		engine_wanted(b, since);
		/* What it waits for comes to this thread: it has to ask again. */
		if (b->state == STANDBY)
			engine_wake(b, false);
		return;
	}
	bump(&engine.stats->faults_standby);
	resolved(b, since);
	hist_add(&engine.stats->standby_latency, k_now_ns() - since);
	if (ahead)
		engine_kick_mover();
}

/* Whose fault is being resolved; the last that asked for single pages. */
static pid_t faulting;
static struct {
	pid_t tid;
	uint64_t when;
} paged;

/*
 * A page that one thread waits for is not to come behind the blocks that another sweeps over: not
 * on this thread's queue, nor in what this thread has to look through when they are there. But
 * nor is a block to come behind all that the mover has under way, or waits for where memory was
 * shared by a fork.
 */
static bool is_in_the_way(uint64_t since)
{
	return paged.tid != faulting && since - paged.when < PAGED_NS && !sigfault_on() &&
	       !engine.forked && mover_inflight() < BUSY &&
	       (frame_free_count() || engine_room(BLOCK_SIZE));
}

/* Gives up engine.lock while it submits. */
static void fault_far(struct server *s, struct block *b, bool write, uint64_t since)
{
	bool ask = is_in_the_way(since);

	if (!ask && (!s->pool.free || !block_fetch(b, false))) {
		starve(b, since);
		return;
	}
	bump(&engine.stats->faults_demand);
	sparse_begun(b);
	note_touch(b);
	prefetch_touched(b, false);
	engine_wanted(b, since);
	b->flags |= write ? B_WRITE : 0;
	if (ask) {
		list_remove(b);
		list_append(&engine.asks, b);
		engine_kick_mover();
		return;
	}
	struct transfer *t = transfer_read(&s->pool, b);
	engine_kick_mover();
	lead_on(s);
	lock_give(&engine.lock);
	transfer_start(t);
	lock_take(&engine.lock);
	lead_back(s);
}

/* The same for n pages, that at addr among them. */
static void fault_pages(struct server *s, struct block *b, uintptr_t addr, unsigned n, bool write,
			uint64_t since)
{
	unsigned first = block_page(b, addr) / n * n;

	if (!s->pool.free || !sparse_room(n * K_PAGE) || !block_fetch_pages(b, n)) {
		starve(b, since);
		return;
	}
	paged.tid = faulting;
	paged.when = since;
	bump(&engine.stats->faults_demand);
	sparse_begun(b);
	note_touch(b);
	engine_wanted(b, since);
	b->flags |= write ? B_WRITE : 0;
	struct transfer *t = transfer_read_pages(&s->pool, b, first, n);
	lock_give(&engine.lock);
	transfer_start(t);
	lock_take(&engine.lock);
}

/* A page of a FAR block. */
static void fault_absent(struct server *s, struct block *b, uintptr_t addr, bool write,
			 uint64_t since)
{
	if (b->list == &engine.pulls || b->list == &engine.asks) {
		engine_wanted(b, since);
		return;
	}
	/* Two threads had faulted, and one was served. */
	if (block_has_page(b, addr)) {
		engine_wake(b, true);
		return;
	}
	unsigned n = sparse_wants(b, addr);
	if (n)
		fault_pages(s, b, addr, n, write, since);
	else
		fault_far(s, b, write, since);
}

/* The same in what comes from a file. Two threads may have faulted, and one was served. */
static void fault_discarded(struct server *s, struct block *b, uintptr_t addr, uint64_t now)
{
	struct presence found;

	if (!uffd_presence(&engine.uffd, (void *)addr, K_PAGE, &found) && found.bytes) {
		resolved(b, now);
		return;
	}
	block_refetch(b);
	fault_far(s, b, false, now);
}

static void fault_missing(struct server *s, struct block *b, uintptr_t addr, bool write,
			  uint64_t now)
{
	switch (b->state) {
	case NONE:
		fault_none(s, b, now);
		break;
	case LOCAL:
		if (b->region->source)
			fault_discarded(s, b, addr, now);
		else
			fault_hole(b, addr);
		break;
	case STANDBY:
	case WRITING:
		fault_standby(b, write, now);
		break;
	case FAR:
		fault_absent(s, b, addr, write, now);
		break;
	case FETCHING:
		if (!(b->flags & B_WANTED)) {
			bump(&engine.stats->faults_demand);
			note_touch(b);
		}
		engine_wanted(b, now);
		b->flags |= write ? B_WRITE : 0;
		break;
	case FILLING:
	case TAKING:
		engine_wanted(b, now);
		break;
	case LOST:
		uffd_poison(&engine.uffd, (void *)addr, K_PAGE);
		engine_wake(b, true);
		break;
	default:
		break;
	}
}

/*
 * Registered, but in no region: a mapping that the program let grow by a system call that we
 * did not see.
 */
static void fault_unknown(uintptr_t addr)
{
	static uintptr_t last;
	static uint64_t since;
	uintptr_t start, end;
	struct region *r = region_before(addr);

	/* Of a file that would be its content, of which we know nothing: never zeros for that. */
	if (r && r->source && !k_mapping(addr, &start, &end) && r->end > start) {
		uffd_poison(&engine.uffd, (void *)addr, K_PAGE);
		uffd_wake(&engine.uffd, (void *)addr, K_PAGE);
		return;
	}
	ssize_t n = uffd_zero(&engine.uffd, (void *)addr, K_PAGE);

	/* A region may be about to arrive there: then this is refused until its event was read. */
	uint64_t now = k_now_ns();
	if (n != -EAGAIN || addr != last)
		since = now;
	last = addr;
	if (n > 0 && r && r->registered && !k_mapping(addr, &start, &end) && r->end > start &&
	    !block_in_flight(r->blocks + r->nblocks - 1))
		change_grown(r->end, end);
	/* Or until it is populated, when that is what locked memory grows by: the event comes after
	 * it. So the kernel does it; see take_back. */
	if (now - since > UNKNOWN_PATIENCE_NS) {
		struct region *next = region_next(addr);
		if (k_mapping(addr, &start, &end))
			end = addr + K_PAGE;
		if (next && next->start < end)
			end = next->start;
		if (!uffd_unregister(&engine.uffd, (void *)addr, end - addr)) {
			size_t i = nlet_go++ % (sizeof(let_go) / sizeof(let_go[0]));
			let_go[i].start = addr;
			let_go[i].end = end;
		}
	}
	uffd_wake(&engine.uffd, (void *)addr, K_PAGE);
}

/* Nothing here is ever away: what is absent was never touched. */
static void fault_kept(struct block *b, const struct uffd_message *f, uintptr_t addr)
{
	if (f->write_protect)
		block_unprotect(b);
	else if (b->state == LOST)
		uffd_poison(&engine.uffd, (void *)addr, K_PAGE);
	else
		uffd_zero(&engine.uffd, (void *)addr, K_PAGE);
	uffd_wake(&engine.uffd, (void *)addr, K_PAGE);
}

static void resolve(struct server *s, const struct uffd_message *f, uint64_t now)
{
	uintptr_t addr = f->addr & ~(uintptr_t)(K_PAGE - 1);
	struct region *r = region_find(addr);

	faulting = f->tid;
	lead_note(f->tid);
	if (!r) {
		fault_unknown(addr);
		return;
	}
	if (!r->registered) {
		/* It races with the operation that leaves it to the kernel. */
		uffd_wake(&engine.uffd, (void *)addr, K_PAGE);
		return;
	}
	struct block *b = region_block(r, addr);
	if (r->kept) {
		fault_kept(b, f, addr);
		return;
	}
	if (r->source && (f->write || f->write_protect)) {
		mapped_written(r->start, r->end - r->start);
		uffd_wake(&engine.uffd, (void *)addr, K_PAGE);
		return;
	}
	if (!f->write_protect) {
		thrash_fault(b, addr, f->tid, now);
		fault_missing(s, b, addr, f->write, now);
		return;
	}
	if (b->state == TAKING) {
		engine_wanted(b, now);
		return;
	}
	bump(&engine.stats->faults_write_protect);
	if (b->state == LOCAL && b->placed && !place_written(b)) {
		starve(b, now);
		engine_wanted(b, now);
		return;
	}
	if (b->state == LOCAL) {
		block_dirty(b);
		resolved(b, now);
		return;
	}
	/* A single page, or one that was left there by a move that was cut short: it is newer now.
	 */
	uffd_protect(&engine.uffd, (void *)addr, K_PAGE, false);
	uffd_wake(&engine.uffd, (void *)addr, K_PAGE);
}

/* --- while engine.forking --- */

static bool covers(const struct uffd_message *m, uintptr_t start, uintptr_t addr)
{
	return addr >= start && addr - start < m->end - m->addr;
}

/* Where the page was before the events that were put off; *gone: nothing of that is left. */
static uintptr_t origin(uintptr_t addr, bool *gone)
{
	*gone = false;
	for (size_t i = ndeferred; i-- > 0;) {
		const struct uffd_message *m = deferred + i;
		if (m->what == UFFD_MOVED && covers(m, m->to, addr))
			addr = addr - m->to + m->addr;
		else if (covers(m, m->addr, addr))
			*gone = true;
	}
	return addr;
}

static void rescued(struct emf_io *io)
{
	struct region *r;

	lock_take(&engine.lock);
	struct block *b = rescue.block;
	char *start = block_start(b), *end = start + block_len(b);
	size_t first = (size_t)((uintptr_t)rescue.to -
				region_block_start(b->region, (size_t)(b - b->region->blocks))) /
		       K_PAGE;
	for (size_t i = 0; !io->status && i < STORE_CLUSTER / K_PAGE; i++) {
		char *to = rescue.to + i * K_PAGE, *from = rescue.buf + i * K_PAGE;
		if (block_is_hole(b, first + i))
			memset(from, 0, K_PAGE);
		bool gone;
		uintptr_t now = (uintptr_t)to + rescue.by;
		if (to >= start && to < end && origin(now, &gone) == (uintptr_t)to && !gone)
			uffd_copy(&engine.uffd, (void *)now, from, K_PAGE, false);
	}
	rescue.busy = false;
	((struct server *)io->user)->rescues = false;
	/* Who waits may be the thread that forks: it must not wait for the end of that. */
	if (io->status)
		uffd_poison(&engine.uffd, (void *)rescue.now, K_PAGE);
	uffd_wake(&engine.uffd, start + rescue.by, block_len(b));
	for (size_t i = 0; rescue.missed && (r = region_at(i)); i++)
		if (r->registered)
			uffd_wake(&engine.uffd, (void *)r->start, r->end - r->start);
	for (size_t i = 0; rescue.missed && i < ndeferred; i++)
		if (deferred[i].what == UFFD_MOVED)
			uffd_wake(&engine.uffd, (void *)deferred[i].to,
				  deferred[i].end - deferred[i].addr);
	rescue.missed = false;
	engine_settled();
	lock_give(&engine.lock);
}

/* Reads the cluster of a FAR block, as far as it was written, and copies it into place. */
static void rescue_far(struct server *s, struct block *b, uintptr_t addr, uintptr_t now)
{
	uintptr_t grid = region_block_start(b->region, (size_t)(b - b->region->blocks));
	size_t cluster = (addr - grid) / STORE_CLUSTER, pages = STORE_CLUSTER / K_PAGE;
	bool of_file = b->slot == SLOT_FILE;
	struct emf_queue *q = s->pool.queue;
	struct slot_extent e = of_file ? transfer_extent(b) : slot_extent(b->slot);
	size_t first = cluster * pages, last = first + pages;

	if (rescue.busy) {
		rescue.missed = true;
		return;
	}
	if (first < e.first)
		first = e.first;
	if (last > (size_t)e.first + e.pages)
		last = (size_t)e.first + e.pages;
	memset(rescue.buf, 0, STORE_CLUSTER);
	rescue.busy = s->rescues = true;
	rescue.block = b;
	rescue.by = now - addr;
	rescue.now = now;
	rescue.to = (char *)grid + cluster * STORE_CLUSTER;
	rescue.io = (struct emf_io){
		.op = EMF_READ,
		.offset = transfer_address(b, first),
		.length = last > first ? (last - first) * K_PAGE : 0,
		.buf = rescue.buf + (first - cluster * pages) * K_PAGE,
		.done = rescued,
		.user = s,
	};
	bump(&engine.stats->faults_demand);
	lock_give(&engine.lock);
	if (!rescue.io.length)
		rescued(&rescue.io);
	else
		while (q->ops->submit(q, &rescue.io) == -EAGAIN)
			q->ops->poll(q);
	lock_take(&engine.lock);
}

static void resolve_forking(struct server *s, const struct uffd_message *f)
{
	uintptr_t addr = f->addr & ~(uintptr_t)(K_PAGE - 1);
	bool gone;
	uintptr_t was = origin(addr, &gone);
	struct region *r = region_find(was);
	struct block *b = r && r->registered && !gone ? region_block(r, was) : NULL;

	if (b && b->region->source && (f->write || f->write_protect)) {
		mapped_written(addr, K_PAGE);
	} else if (f->write_protect) {
		/* The page alone: the block may lie elsewhere. */
		if (b && !r->kept && b->state == LOCAL) {
			b->flags = (uint8_t)((b->flags | B_DIRTY) & ~B_UNSURE);
			b->strayed = b->placed;
		}
		uffd_protect(&engine.uffd, (void *)addr, K_PAGE, false);
	} else if (b && (b->state == FAR || (b->region->source && b->state == LOCAL))) {
		rescue_far(s, b, was, addr);
		return;
	} else if (b && b->state == LOST) {
		uffd_poison(&engine.uffd, (void *)addr, K_PAGE);
	} else if (uffd_zero(&engine.uffd, (void *)addr, K_PAGE) > 0 && b) {
		/* Not what the slot holds any more. */
		b->flags |= B_DIRTY;
	}
	uffd_wake(&engine.uffd, (void *)addr, K_PAGE);
}

bool fault_rescued(void)
{
	return !rescue.busy;
}

/* --- events --- */

/*
 * A region has come to be below `at`. If what it grew by there was let go of it is registered
 * again: it would be a mapping of its own, which mremap refuses to take together with the rest.
 */
static void take_back(uintptr_t at)
{
	struct region *r = region_find(at - 1);

	for (size_t i = 0; i < sizeof(let_go) / sizeof(let_go[0]); i++) {
		uintptr_t start, end = let_go[i].end;
		if (let_go[i].start != at)
			continue;
		let_go[i].start = 0;
		if (!r || !r->registered || r->end != at ||
		    uffd_register(&engine.uffd, (void *)at, end - at, true))
			continue;
		/* Is it that, and not what somebody has put there since? */
		if (!k_mapping(at - 1, &start, &end) && end > at)
			change_grown(at, end < let_go[i].end ? end : let_go[i].end);
		else
			uffd_unregister(&engine.uffd, (void *)at, let_go[i].end - at);
	}
}

static void apply(const struct uffd_message *m)
{
	switch (m->what) {
	case UFFD_UNMAPPED:
		change_gone(m->addr, m->end);
		break;
	case UFFD_MOVED:
		change_moved(m->addr, m->end, m->to);
		take_back(m->to + (m->end - m->addr));
		break;
	case UFFD_DISCARDED:
		change_discarded(m->addr, m->end);
		break;
	case UFFD_FAULT:
		break;
	}
	engine_update_gauges();
}

void fault_deferred(void)
{
	for (size_t i = 0; i < ndeferred; i++)
		apply(deferred + i);
	ndeferred = 0;
}

/*
 * Under the lock from before the read: until an event was read nothing can happen to the pages
 * in question, and after it only what knows of it.
 */
static void read_messages(uint64_t begin)
{
	struct uffd_message m[BATCH];
	size_t room = DEFERRED - ndeferred;

	first_fault = 0;
	int n = uffd_read(&engine.uffd, m, room < BATCH ? (int)room : BATCH);
	for (int i = 0; i < n; i++)
		if (m[i].what == UFFD_FAULT)
			faults[nfaults++] = (struct unresolved){ m[i], begin };
		else if (engine.forking)
			deferred[ndeferred++] = m[i];
		else
			apply(m + i);
}

static void handle_messages(struct server *s, bool near)
{
	uint64_t begin = k_now_ns();

	lock_take(&engine.lock);
	if (!nfaults)
		read_messages(begin);
	while (lead_is(s) && nfaults) {
		struct unresolved f = faults[first_fault];
		if (!s->pool.free)
			lead_elsewhere(s);
		if (!lead_is(s))
			break;
		first_fault++;
		nfaults--;
		bool passes = follow_fault(near, f.m.tid, f.since);
		if (s == lead_first())
			pass |= passes;
		if (engine.forking)
			resolve_forking(s, &f.m);
		else
			resolve(s, &f.m, f.since);
	}
	lead_home(s);
	lock_give(&engine.lock);
}

static void handle_given(struct server *s)
{
	struct uffd_message m;

	k_eventfd_drain(sigfault_event());
	while (sigfault_next(&m)) {
		lock_take(&engine.lock);
		if (engine.forking)
			resolve_forking(s, &m);
		else
			resolve(s, &m, k_now_ns());
		lock_give(&engine.lock);
	}
}

/* Is there a page, or may one be put there? Then it is registered: else zeros are in nobody's way.
 */
static bool is_registered(uintptr_t addr)
{
	void *page = (void *)(addr & ~(uintptr_t)(K_PAGE - 1));
	ssize_t n = uffd_zero(&engine.uffd, page, K_PAGE);

	return n > 0 || n == -EEXIST || n == -EAGAIN;
}

enum fault_here fault_is_ours(const struct uffd_message *m)
{
	enum fault_here how = FAULT_GIVE;

	lock_take(&engine.lock);
	struct region *r = region_find(m->addr);
	if (!engine.forking && (!r || !r->registered) && !is_registered(m->addr))
		how = FAULT_FOREIGN;
	/*
	 * Without CONFIG_MEMORY_FAILURE the signal of a poisoned page looks like any other. What is
	 * there is not lost: pages that came before it was.
	 */
	if (r && r->registered && !m->write_protect && region_block(r, m->addr)->state == LOST) {
		/* Refused while an event is unread, by which it may be other memory. */
		if (uffd_poison(&engine.uffd, (void *)(m->addr & ~(uintptr_t)(K_PAGE - 1)),
				K_PAGE) != -EAGAIN)
			how = FAULT_FOREIGN;
	}
	lock_give(&engine.lock);
	return how;
}

enum fault_here fault_here(const struct uffd_message *m)
{
	enum fault_here how = fault_is_ours(m);
	struct server *s = lead_first();
	bool was = engine_thread;

	if (how == FAULT_FOREIGN || !here)
		return how;
	lock_take(&turn);
	engine_thread = true;
	lock_take(&engine.lock);
	struct region *r = region_find(m->addr);
	if (!engine.forking && r && !r->source) {
		resolve(s, m, k_now_ns());
		how = FAULT_TRIED;
	}
	lock_give(&engine.lock);
	transfer_poll(&s->pool);
	/* Read wrong, and to be read again in a while. */
	bool left = s->pool.inflight;
	engine_thread = was;
	lock_give(&turn);
	if (left)
		sigfault_kick();
	return how;
}

void fault_catch_up(void)
{
	struct uffd_message m[16];
	int n;

	/*
	 * The kernel queues an event a little after the change itself, but refuses to change pages
	 * from before that until it was read.
	 */
	while (!engine.forking && uffd_changing(&engine.uffd, frame_small_page())) {
		while ((n = uffd_read(&engine.uffd, m, 16)) > 0)
			for (int i = 0; i < n; i++)
				if (m[i].what == UFFD_FAULT)
					uffd_wake(&engine.uffd,
						  (void *)(m[i].addr & ~(uintptr_t)(K_PAGE - 1)),
						  K_PAGE);
				else
					apply(m + i);
		lock_give(&engine.lock);
		sched_yield();
		lock_take(&engine.lock);
	}
}

static void take_turn(bool on)
{
	if (!sigfault_on())
		return;
	if (on)
		lock_take(&turn);
	else
		lock_give(&turn);
}

/* Ends what has ended. ready: there is something, or nothing to wait for. */
static void poll_own(struct server *s, bool ready)
{
	/* What came is copied and summed up. */
	if (ready && lead_count() > 1 && lead_is(s) && transfer_is_long(&s->pool)) {
		lock_take(&engine.lock);
		lead_on(s);
		lock_give(&engine.lock);
	}
	s->pool.queue->ops->poll(s->pool.queue);
	if (!s->pool.inflight)
		return;
	lock_take(&engine.lock);
	transfer_expire(&s->pool);
	lock_give(&engine.lock);
}

static bool any_ready(const struct pollfd *fds, int n)
{
	for (int i = 0; i < n; i++)
		if (fds[i].revents)
			return true;
	return false;
}

static void serve(struct server *s, bool near)
{
	struct pollfd fds[FDS];

	for (;;) {
		while (s == lead_first() && atomic_load(&near_serves) != near)
			word_wait(&near_serves, !near, -1);
		s->keeps = near;
		bool led = lead_wait(s), left = led && nfaults;
		fds[0] = (struct pollfd){ .fd = led ? engine.uffd.fd : s->event, .events = POLLIN };
		fds[1] = (struct pollfd){ .fd = sigfault_event(), .events = POLLIN };
		const int own = sigfault_on() ? 2 : 1;
		int n = own;
		take_turn(true);
		bool busy = s->pool.inflight || s->rescues;
		if (busy)
			n += s->pool.queue->ops->pollfds(s->pool.queue, fds + n, FDS - n);
		take_turn(false);
		bool sync = busy && n == own; /* nothing to wait for: just poll it */
		poll(fds, (nfds_t)n, sync || left ? 0 : busy ? 100 : -1);
		bool leads = lead_waited(s);
		if (!led && fds[0].revents)
			k_eventfd_drain(s->event);
		take_turn(true);
		if (leads && (fds[0].revents || left || !led))
			handle_messages(s, near);
		if (own > 1 && fds[1].revents)
			handle_given(s);
		take_turn(false);
		if (leads && ndeferred == DEFERRED)
			poll(NULL, 0, 1); /* no room for more until the fork is done */
		take_turn(true);
		if (s->pool.inflight || s->rescues)
			poll_own(s, sync || any_ready(fds + own, n - own));
		take_turn(false);
		/* From here on it has nothing that anybody waits for. */
		if (near)
			uffd_wake_held(&engine.uffd);
		if (s != lead_first() || !pass)
			continue;
		pass = false;
		if (near || lead_is(s)) {
			atomic_store(&near_serves, !near);
			k_futex_wake(&near_serves, 1);
		}
	}
}

static void *fault_main(void *unused)
{
	(void)unused;
	engine_thread_begin("emf-fault");
	k_be_prompt();
	serve(lead_first(), false);
	return NULL;
}

static void *near_main(void *unused)
{
	(void)unused;
	engine_thread_begin("emf-fault");
	if (follow_start())
		serve(lead_first(), true);
	engine_thread_end();
	return NULL;
}

static void *more_main(void *unused)
{
	struct server *s = lead_join();
	/* Who looks at how busy they are looks at each: tierstat why. */
	char name[] = "emf-fault2";

	(void)unused;
	name[sizeof(name) - 2] = (char)('1' + (s - lead_first()));
	engine_thread_begin(name);
	k_be_prompt();
	serve(s, false);
	return NULL;
}

bool fault_spawn(void)
{
	if (!engine_spawn(fault_main))
		return false;
	if (!sigfault_on())
		engine_try_spawn(near_main);
	for (unsigned i = 1; i < lead_count(); i++)
		engine_try_spawn(more_main);
	return true;
}
