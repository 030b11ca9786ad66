/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "fork.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "arena.h"
#include "budget.h"
#include "change.h"
#include "control.h"
#include "engine.h"
#include "fault.h"
#include "frame.h"
#include "identity.h"
#include "keeper.h"
#include "log.h"
#include "mapped.h"
#include "mover.h"
#include "pinned.h"
#include "place.h"
#include "policy/policy.h"
#include "region.h"
#include "sigfault.h"
#include "slot.h"
#include "sparse.h"
#include "source.h"
#include "starter.h"
#include "stats.h"
#include "trace.h"
#include "watch.h"

#define DESCRIPTORS 384 /* of all sources, and what the store may have */

static _Atomic pid_t owner;  /* the thread that is between prepare and parent/child */
static bool by_control;	     /* how the fork under way was prepared. Under ops, or while paused */
static uint64_t old_signals; /* no handler runs in between: it would find the child half made */
static int sock = -1;	     /* the child's end: descriptors for it are waiting there */
static ino_t sock_inode;
static bool inherited;
static bool had_placed;
static bool table_shared;	  /* of descriptors, with the child */
static _Atomic uint32_t attached; /* in the child: its memory is registered */

static pid_t tid(void)
{
	return (pid_t)syscall(SYS_gettid);
}

static ino_t inode(int fd)
{
	struct stat st;

	return fstat(fd, &st) ? 0 : st.st_ino;
}

/* The program may have closed it, and opened something else at its number. */
static void close_socket(void)
{
	if (sock >= 0 && inode(sock) == sock_inode)
		close(sock);
	sock = -1;
}

bool fork_is_mine(void)
{
	return owner == tid();
}

bool fork_inherited(void)
{
	return inherited;
}

/* --- the parent --- */

/* One step of a block towards where a child can take it over. What is in a file it can map. */
static bool rest(struct block *b, bool share)
{
	block_drop_pages(b);
	share |= b->region->source != NULL;
	if (share && b->state == FAR)
		return true;
	if (share && b->state == STANDBY && !(b->flags & (B_DIRTY | B_UNSURE)) &&
	    b->slot != NO_SLOT) {
		if (b->flags & B_PREFETCHED)
			engine_discard_standby(b);
		else
			block_drop(b);
		return true;
	}
	if (share && b->state == WRITING) {
		if (block_give(b, ARRIVE_STANDBY, b->flags & B_WRITE))
			return false;
		engine_wake(b, true);
		return true;
	}
	return engine_pull_step(b);
}

static void settle(bool share)
{
	struct region *r;
	bool quiet;

	do {
		quiet = true;
		for (size_t i = 0; (r = region_at(i)); i++)
			for (size_t k = 0; r->registered && k < r->nblocks; k++)
				quiet &= rest(r->blocks + k, share);
		if (!quiet) {
			engine_kick_mover();
			engine_wait_settled();
		}
	} while (!quiet);
}

/* What only a child that is managed from the start can have: its copy of what is in place is local.
 */
static bool any_far(void)
{
	struct region *r;

	for (size_t i = 0; (r = region_at(i)); i++)
		for (size_t k = 0; r->registered && k < r->nblocks; k++) {
			const struct block *b = r->blocks + k;
			if (b->state == FAR || b->state == LOST || b->placed)
				return true;
		}
	return false;
}

/* What is in place is shared with the child, where it is. */
static void for_placed(void (*fn)(struct block *))
{
	struct region *r;

	for (size_t i = 0; engine.placed && (r = region_at(i)); i++)
		for (size_t k = 0; r->registered && !r->no_fork && k < r->nblocks; k++)
			if (r->blocks[k].placed)
				fn(r->blocks + k);
}

/* Sends the child what it needs: its life, the slots, the guard, the store's. */
static int send_to_child(int to)
{
	int fds[DESCRIPTORS] = { slot_fork(), slot_memfd(), engine.guard }, n;
	unsigned fixed = engine.guard < 0 ? 2 : 3;
	/* Could the child start? */
	int pagemap = uffd_open_pagemap();

	if (pagemap >= 0)
		close(pagemap);
	if (fds[0] < 0 || pagemap < 0) {
		if (fds[0] >= 0)
			close(fds[0]);
		return fds[0] < 0 ? fds[0] : pagemap;
	}
	int sources = source_descriptors(fds + fixed, (int)(DESCRIPTORS - fixed));
	if (sources > 0)
		fixed += (unsigned)sources;
	n = sources < 0 ? sources
			: store_descriptors(&engine.store, fds + fixed, DESCRIPTORS - fixed);
	/* Where this fails the child's membership ends with the descriptor of its life. */
	int err = n < 0 ? n : k_send_fds(to, fds, fixed + (unsigned)n);
	close(fds[0]);
	return err;
}

static void all_inheritable(bool on, bool files)
{
	struct region *r;

	for (size_t i = 0; (r = region_at(i)); i++)
		if (r->registered && (files || !r->source))
			engine_inheritable(r, on);
}

/* What regions have grown by, by calls that we did not see, is to be inherited as well. */
static void look_behind(void)
{
	uintptr_t start, end;
	struct region *r, *next;

	for (size_t i = 0; (r = region_at(i)); i++)
		while (r->registered && !r->source &&
		       (!(next = region_at(i + 1)) || next->start > r->end) &&
		       !uffd_protect(&engine.uffd, (void *)r->end, K_PAGE, false) &&
		       !k_mapping(r->end, &start, &end)) {
			uintptr_t was = r->end;
			change_grown(was, end);
			if (r->end == was)
				break;
		}
}

/*
 * No child gets it any more. madvise takes what is at the address, which may be other memory
 * already; then the event of that is seen afterwards, and change_gone makes up for it.
 */
static void none_inheritable(void)
{
	fault_catch_up();
	engine.flagging = true;
	all_inheritable(false, true);
	fault_catch_up();
	engine.flagging = false;
}

/*
 * Nothing is fetched for them until the fork is done, and they may have what it waits for: a lock
 * of the allocator's, or libc's. When they fault again they are served all the same.
 */
static void wake_all(const struct block_list *l)
{
	for (const struct block *b = l->head; b; b = b->next)
		uffd_wake(&engine.uffd, block_start(b), block_len(b));
}

/* Returns whether something is shared with the child. */
static long op_prepare(uintptr_t program_sock, uintptr_t end, unsigned why)
{
	bool share = false;
	int to = k_borrow_fd((int)(intptr_t)program_sock);

	(void)end;
	(void)why;
	lock_take(&engine.lock);
	engine.hold = true;
	settle(true);
	if (any_far()) {
		/* Where malloc is the program's, its child can't start at once: see starter.h. */
		int err = to < 0 ? to : engine.own_malloc ? -ENOTSUP : send_to_child(to);
		share = !err;
		if (err) {
			log_info("fork: far memory cannot be shared (error %d), pulled local",
				 -err);
			settle(false);
		}
	}
	engine.forking = true;
	wake_all(&engine.starving);
	wake_all(&engine.asks);
	/* Who has begun to change the address space has not seen that. */
	while (engine.changes || !fault_rescued())
		engine_wait_settled();
	fault_deferred();
	look_behind();
	for_placed(place_guard);
	all_inheritable(true, share);
	lock_give(&engine.lock);
	if (!share)
		mapped_lend();
	if (to >= 0)
		close(to);
	control_pause(true);
	return share;
}

static long op_done(uintptr_t start, uintptr_t end, unsigned why)
{
	(void)start;
	(void)end;
	(void)why;
	lock_take(&engine.lock);
	while (!fault_rescued())
		engine_wait_settled();
	mapped_unlend();
	engine.forking = engine.hold = false;
	engine.forked = true;
	fault_deferred();
	for_placed(place_look_behind);
	none_inheritable();
	/* Whoever waits, wherever. */
	uffd_wake(&engine.uffd, (void *)(uintptr_t)K_PAGE, (1ul << 47) - 2 * K_PAGE);
	lock_give(&engine.lock);
	control_pause(false);
	engine_kick_mover();
	return 0;
}

/* Nothing is registered: it is enough that nobody is in the middle of anything. */
static bool prepare_idle(void)
{
	uint64_t saved;

	k_signals_block(&saved);
	lock_take(&engine.ops);
	if (atomic_load(&engine.phase) != PHASE_ACTIVE) {
		/* A start that is under way waits for ops, and is none of the child's. */
		arena_before_fork();
		by_control = false;
		old_signals = saved;
		owner = tid();
		return true;
	}
	lock_give(&engine.ops);
	k_signals_restore(saved);
	return false;
}

void fork_prepare(bool own_descriptors)
{
	uint64_t saved;
	int pair[2];

	if (atomic_load(&engine.phase) == PHASE_ACTIVE && engine.pid != getpid())
		return;
	table_shared = !own_descriptors;
	if (atomic_load(&engine.phase) != PHASE_ACTIVE && prepare_idle())
		return;
	/* Asked here, as privileges and filters are the thread's, and will be the child's. */
	if (!own_descriptors || !uffd_allowed() || k_socketpair(pair))
		pair[0] = pair[1] = -1;
	k_signals_block(&saved);
	bool shared = control_call(op_prepare, (uintptr_t)pair[0], 0, 0, false);
	old_signals = saved;
	by_control = true;
	inherited = shared;
	owner = tid();
	sock = pair[1];
	if (sock < 0)
		return;
	sock_inode = inode(sock);
	close(pair[0]);
	if (!shared)
		close_socket();
}

void fork_parent(void)
{
	if (owner != tid())
		return;
	uint64_t saved = old_signals;
	if (by_control) {
		close_socket();
		inherited = false;
		owner = 0;
		control_call(op_done, 0, 0, 0, false);
		k_signals_restore(saved);
		return;
	}
	arena_after_fork();
	owner = 0;
	lock_give(&engine.ops);
	k_signals_restore(saved);
}

/* --- the child --- */

static void inherit(struct region *r)
{
	for (size_t i = 0; i < r->nblocks; i++)
		if (inherited)
			block_inherit(r->blocks + i);
		else
			block_reset(r->blocks + i);
}

/* Protection by userfaultfd is not inherited. */
static void protect_again(struct region *r)
{
	for (size_t i = 0; i < r->nblocks; i++) {
		struct block *b = r->blocks + i;
		if (b->placed)
			place_guard(b);
		else if (r->source && b->state == LOCAL)
			uffd_protect(&engine.uffd, block_start(b), block_len(b), true);
	}
}

static void inherit_regions(void)
{
	struct region *r;

	for (size_t i = 0; (r = region_at(i));) {
		bool registered = r->registered;
		if (registered || !inherited)
			inherit(r);
		if (!inherited) {
			r->registered = false;
			r->kept &= (uint8_t)~KEPT_LOCKED;
		}
		if (!r->no_fork) {
			i++;
			continue;
		}
		for (size_t k = 0; k < r->nblocks; k++)
			block_forget(r->blocks + k);
		region_erase(r);
	}
}

static void reset(void)
{
	engine.pid = getpid();
	lock_reset(&engine.freeing);
	lock_reset(&engine.ops);
	lock_reset(&engine.lock);
	control_after_fork();
	mover_after_fork();
	place_after_fork();
	starter_after_fork();
	frame_after_fork();
	change_after_fork();
	pinned_after_fork();
	engine.local = engine.fetches = engine.inflight = 0;
	engine.hold = engine.forking = false;
	engine.counts = inherited;
	engine.forked = true;
	engine.store_retry_at = engine.grants = 0;
	engine.settled = engine.waiters = engine.changes = 0;
	engine.mover_event = -1;
	/* The parent's numbers mean other things here. */
	engine.uffd.fd = engine.uffd.pagemap = -1;
	engine.starving = engine.pulls = engine.asks = engine.leaving = engine.prefetched =
	    engine.stuck = engine.sparse = engine.gathers = (struct block_list){ 0 };
	engine.page_bytes = 0;
	engine.stats = stats_none();
	engine.mailbox = NULL;
	engine.threads = 0;
	identity_after_fork();
	keeper_after_fork();
	watch_after_fork();
	trace_after_fork();
	policy_reset();
	prefetch_reset();
	sparse_reset();
}

/* Never wrong data: a child whose far memory can't be had must not see zeros instead. */
static void give_up(const char *what, int err)
{
	log_error("the far memory of a forked process cannot be had: %s (error %d); ending it",
		  what, -err);
	signal(SIGBUS, SIG_DFL);
	kill(getpid(), SIGBUS);
	_exit(128 + SIGBUS);
}

/* The parent's is of the parent's memory. */
static void open_again(void)
{
	if (!sigfault_on())
		return;
	if (table_shared) {
		sigfault_forget();
		return;
	}
	int err = sigfault_open(true);
	if (err && inherited)
		give_up("userfaultfd by signal", err);
	if (err)
		sigfault_close();
}

void fork_child(void)
{
	uint32_t phase = atomic_load(&engine.phase);

	if (!owner)
		return; /* a child that nothing was prepared for */
	owner = 0;
	/* What is done here is the runtime's: its calls must not wait for threads that are not
	 * there. */
	engine_thread = true;
	had_placed = engine.placed && !inherited;
	reset();
	arena_after_fork();
	open_again();
	source_forget();
	if (inherited) {
		slot_forked();
		budget_reserve();
	} else {
		slot_forget();
		store_forget(&engine.store);
	}
	inherit_regions();
	/* What was put off in the parent had happened before. */
	fault_deferred();
	mapped_take_lent();
	fault_after_fork();
	if (region_count()) {
		stats_open(engine.command, engine.budget);
		engine_update_gauges();
	}
	if (!inherited) {
		atomic_store(&engine.phase, phase == PHASE_FAILED ? PHASE_FAILED : PHASE_IDLE);
		engine_thread = false;
		k_signals_restore(old_signals);
		return;
	}
	atomic_store(&engine.stats->move, engine.uffd.move);
	atomic_store(&engine.stats->mode, sigfault_on() ? EMF_MODE_SIGNAL : EMF_MODE_THREAD);
	atomic_store(&engine.stats->nstores, engine.store.nleaves);
	attached = 0;
	if (!engine_spawn_first())
		give_up("a thread could not be created", -EAGAIN);
	while (!attached)
		word_wait(&attached, 0, -1);
	close_socket();
	engine_thread = false;
	k_signals_restore(old_signals);
}

void fork_go_on(void)
{
	if (had_placed)
		engine_consider_start();
	had_placed = false;
}

/* Descriptors, as send_to_child sent them. */
static int receive(int *fds)
{
	int keep[1 + SIGFAULT_FDS] = { sock }, from = sock;

	for (int i = 0; i < SIGFAULT_FDS; i++)
		keep[1 + i] = sigfault_fds()[i];
	int err = k_own_descriptors(keep, sigfault_on() ? 1 + SIGFAULT_FDS : 1);

	if (!err && inode(from) != sock_inode)
		err = -EBADF;
	int n = err ? err : k_receive_fds(from, fds, DESCRIPTORS);
	close(from);
	return n < 0 ? n : n < 2 ? -EPROTO : 0;
}

/* mlock(2): a child does not inherit that. */
static void unlocked(struct region *r)
{
	if (!(r->kept & KEPT_LOCKED))
		return;
	r->kept &= (uint8_t)~KEPT_LOCKED;
	for (size_t i = 0; !r->kept && i < r->nblocks; i++)
		block_adopt(r->blocks + i);
}

static void register_all(void)
{
	struct region *r;

	lock_take(&engine.lock);
	for (size_t i = 0; (r = region_at(i));) {
		int err = r->registered ? uffd_register(&engine.uffd, (void *)r->start,
							r->end - r->start, true)
					: 0;
		if (!err) {
			if (r->registered) {
				engine_inheritable(r, false);
				protect_again(r);
				if (r->kept)
					engine_fill_kept(r);
				unlocked(r);
			}
			i++;
			continue;
		}
		/* The program unmapped it past us in the moment of the fork. */
		log_debug("a region at %p did not come with the fork: error %d", (void *)r->start,
			  -err);
		change_gone(r->start, r->end);
	}
	engine_update_gauges();
	lock_give(&engine.lock);
}

/* Without its store the child goes on with what is local. */
static void lose_far(void)
{
	struct region *r;

	lock_take(&engine.lock);
	engine.store_retry_at = UINT64_MAX;
	for (size_t i = 0; (r = region_at(i)); i++)
		for (size_t k = 0; r->registered && k < r->nblocks; k++)
			if (r->blocks[k].state == FAR)
				block_lose(r->blocks + k, -ETIMEDOUT);
	lock_give(&engine.lock);
}

bool fork_boot(void)
{
	int fds[DESCRIPTORS];
	int err = receive(fds);

	engine_thread_begin("emf-mover");
	if (err)
		give_up("no descriptors", err);
	if (sigfault_on())
		sigfault_take(&engine.uffd);
	else
		err = uffd_open(&engine.uffd, engine.config.move);
	if (!err)
		err = engine_init_frames();
	if (err)
		give_up("userfaultfd", err);
	register_all();
	inherited = false;
	attached = 1;
	k_futex_wake(&attached, 1);

	slot_attach(fds[1], fds[0]);
	unsigned fixed = engine.guard < 0 ? 2 : 3;
	if (engine.guard >= 0)
		engine.guard = fds[2];
	fixed += (unsigned)source_forked(fds + fixed);
	err = store_forked(&engine.store, fds + fixed, engine.stats->store);
	if (!err)
		err = engine_open_queues();
	if (err) {
		log_error("the far store cannot be opened in a forked process (error %d)", -err);
		lose_far();
	}
	if (!fault_spawn() || !engine_spawn(control_main) || (!err && !engine_spawn_store()))
		give_up("a thread could not be created", -EAGAIN);
	watch_start();
	return true;
}
