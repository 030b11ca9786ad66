/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engine: what the runtime's parts share, its start, and the operations that
 * the interposed calls ask for.
 *
 * Phases. IDLE: regions are only entries in a map; the kernel serves them, nothing
 * is registered, no thread runs (or but two that sleep). When the managed bytes approach the budget
 * the engine starts (STARTING) and becomes ACTIVE, or FAILED and says why; the program goes on in
 * any case.
 *
 * Threads, all with signals blocked and (but for the keeper) a descriptor table of their own (the
 * program can neither close nor inherit what they hold):
 *   fault    (fault.c)   resolves faults; of several the one that leads (lead.c) reads the
 *                        userfaultfd
 *   mover    (mover.c)   evicts, writes out, prefetches; owns the bulk queue
 *   control  (control.c) runs the operations below for program threads, which
 *                        have no descriptor to do it with
 *   keeper  (keeper.c)   ends the process when the program's last thread has ended
 *   watch   (watch.c)    serves requests from outside, and keeps local.limit up with the memory
 *                        there is; it and the keeper run while IDLE, too, once much is managed
 * They take no lock of libc and touch no managed memory.
 */
#ifndef EMF_ENGINE_H
#define EMF_ENGINE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "block.h"
#include "config.h"
#include "emfatier-stats.h"
#include "kernel.h"
#include "lock.h"
#include "store/store.h"

enum phase { PHASE_IDLE, PHASE_STARTING, PHASE_ACTIVE, PHASE_FAILED };

struct engine {
	/*
	 * Around a program's call that frees addresses, while ACTIVE. The kernel sends the event of
	 * an unmapping after it has given up its own lock: memory that another thread moves there
	 * meanwhile could be told of first, and would then be taken for what is gone.
	 */
	struct lock freeing;
	struct lock ops;  /* while not ACTIVE: one structural operation at a time */
	struct lock lock; /* blocks, regions, frames, slots, policy and the fields below */
	_Atomic uint32_t phase;

	struct emf_config config;
	char command[64];
	struct emf_stats *stats; /* never NULL */
	struct mailbox *mailbox; /* behind them; NULL where there is no file of them */
	struct uffd uffd;
	struct store store;

	uint64_t budget; /* bytes: local.limit */
	uint64_t limit;	 /* bytes: what the engine keeps to, for reasons of its own less than the
			    budget */
	uint64_t local;	 /* bytes that count against it */
	uint64_t placed; /* bytes of pages on a slow node, which do not: place.h */
	uint64_t page_bytes; /* of that, single pages of FAR blocks */
	uint64_t fetches;
	size_t reserve_low, reserve_high; /* FREE frames: refill below low, up to high */
	int guard;			  /* the descriptor that keeps the guard waiting, or -1 */
	size_t inflight;		  /* blocks with a transfer or a long operation under way */
	bool counts;			  /* local is what blocks and frames have, not a bound */
	bool hold;			  /* nothing may leave local memory (a fork is prepared) */
	_Atomic bool forking;	  /* all of this stands still until the fork is done, see fault.c */
	_Atomic bool discarding;  /* pages of files are let go of by address: see mapped_discard */
	bool flagging;		  /* regions are being marked as not to be inherited */
	bool forked;		  /* pages may be shared with a child, or were with a parent */
	_Atomic bool keeps;	  /* some memory had to be kept, once */
	bool own_malloc;	  /* malloc is the program's own: see starter.h */
	_Atomic bool read_only;	  /* the program makes managed memory read-only */
	_Atomic uint32_t changes; /* calls of the program's that change managed memory, under way */
	_Atomic unsigned threads; /* of the runtime's own, the keeper too */
	pid_t pid; /* whose threads the runtime's are: a child that we know nothing of has none */
	uintptr_t came_split; /* of blocks that were mapped page by page the last one; 0: none */
	size_t grants; /* frames that may be had beyond the limit, one a fault that can't wait */
	uint64_t store_retry_at; /* ns: no write-outs before that; 0: the store takes them */

	_Atomic uint32_t settled; /* counts ended transfers: for who waits for a block */
	_Atomic uint32_t waiters; /* on it */
	int mover_event;

	struct block_list starving;   /* FAR or NONE, a thread waits, no frame */
	struct block_list pulls;      /* FAR, a structural operation wants it local */
	struct block_list asks;	      /* FAR, a thread waits, the mover is to fetch it */
	struct block_list leaving;    /* STANDBY, on its way out: to check and write */
	struct block_list stuck;      /* LOCAL, could not be moved (pinned, shared): retry later */
	struct block_list in_place;   /* LOCAL and in place on a slow node: place.h */
	struct block_list sparse;     /* FAR, with single pages in place; as they came last */
	struct block_list gathers;    /* the same, to be written out */
	struct block_list prefetched; /* STANDBY or FETCHING, B_PREFETCHED, in order of issue */
};

struct region;

extern struct engine engine;
/* True in the runtime's own threads. */
extern __thread bool engine_thread __attribute__((tls_model("initial-exec")));

/*
 * Once, from the library's constructor: reads the settings. False: bad settings
 * (logged); the program then runs unmanaged.
 */
bool engine_init(void);

/*
 * By a program thread that holds no lock of an allocator: makes the starter where one is needed
 * and none is there, in the constructor and in the child of a fork.
 */
void engine_prepare_start(void);

/*
 * By a thread that is about to fork and holds no lock of an allocator: waits for a start that
 * is under way. It loads shared objects, which a child would find half loaded.
 */
void engine_await_start(void);

/* May regions be made at all? */
bool engine_wants(size_t len);

/*
 * The operations. Called by program threads, any number at once, also from signal
 * handlers; they return when it is done. Ranges are page aligned. Those that take
 * a range act on the managed part of it and do not mind what else it holds.
 */

/*
 * [addr, addr+len), fresh private anonymous memory, becomes a region. False: it stays as it is.
 * caller: code of the object that asked for it, for classes; NULL: not known.
 */
bool engine_adopt(void *addr, size_t len, const void *caller);
/*
 * The same, and a discard, for callers that hold what a fork of another thread may be waiting
 * for (a lock of the allocator's): -EAGAIN, at once, while one is under way. -ENOMEM: it stays
 * as it is.
 */
int engine_try_adopt(void *addr, size_t len, const void *caller);
int engine_try_discard(void *addr, size_t len);
/* Are blocks moved at all by now? A hint. */
bool engine_active(void);

/*
 * Memory has just been moved from addr to `to`, by MREMAP_DONTUNMAP: what is left there is
 * managed as it was, if it was, and kept or not inherited for the same reasons.
 */
void engine_left(void *addr, size_t len, const void *to);
/* The region that ends at addr does so len further up: the mapping has grown in place. */
void engine_grown(void *addr, size_t len);
/* Pulls the managed part local and leaves it there until all reasons (KEPT_*) are taken back. */
void engine_keep(const void *addr, size_t len, unsigned why);
void engine_unkeep(const void *addr, size_t len, unsigned why);
/* Why some of the range is kept. */
unsigned engine_kept(const void *addr, size_t len);
/* MADV_DONTFORK, MADV_DOFORK. */
void engine_no_fork(void *addr, size_t len, bool on);
/* Is a part of it a file's (mapped.h)? */
bool engine_has_mapped(const void *addr, size_t len);

/*
 * Around a call of the program's that changes the range: once the engine is ACTIVE the kernel's
 * events tell what happened; before, end does. begin: signals are blocked until end.
 */
enum change_kind { CHANGE_NONE, CHANGE_GONE, CHANGE_MOVED, CHANGE_DISCARDED };
struct change {
	uintptr_t start, end, to, to_end; /* to: where it may go, and what is there ends */
	uint64_t signals;
	bool locked, held, freeing;
};
/* frees: it may free addresses, be it those of [addr, addr+len) or of `to`. */
void engine_change_begin(struct change *c, const void *addr, size_t len, const void *to,
			 size_t to_len, bool frees);
void engine_change_end(struct change *c, enum change_kind what);

/* The program is about to make managed memory read-only, which MOVE can't take then. */
void engine_read_only(void);

/* Any of these, made elsewhere (hint.c): fn runs as they do. */
long engine_call(long (*fn)(uintptr_t, uintptr_t, unsigned), const void *addr, size_t len,
		 unsigned why);

/* mlockall has locked the runtime's frames, too; locked and other pages don't change places. */
void engine_unlock_frames(void);

/* --- for the runtime's parts; engine.lock is held --- */

static inline bool engine_room(uint64_t bytes)
{
	return engine.local + bytes <= engine.limit;
}
/* The same for a short block, which FREE frames may have to make way for. */
bool engine_room_short(uint64_t bytes);
/* Adds to (or takes from) what counts against the budget. */
void engine_account(int64_t bytes);
/* A frame with pages for a fetch or a zero fill (zeroed: preferably zeroed), or NO_FRAME. */
uint32_t engine_frame(bool zeroed, bool force);
/* Some block's transfer ended, or frames came free: wakes who waits. */
void engine_settled(void);
void engine_kick_mover(void);
/* A STANDBY block that nobody came for gives up its frame, or goes to be written out. */
void engine_discard_standby(struct block *b);
/* A write-out failed: none for a second, and a warning once in a while. */
void engine_store_failed(int why);
/*
 * Where contact to the store was lost since the last look: a server that comes back may be another,
 * and empty, so what is here, too, is not dropped for the copy there.
 */
void engine_heed_losses(void);
/* A thread waits for the block since `since` (ns). */
void engine_wanted(struct block *b, uint64_t since);
/* Wakes all that wait for it. resolved: they need not fault again. */
void engine_wake(struct block *b, bool resolved);

/*
 * May blocks be taken by copy? Only when all who change the address space ask for
 * it to be held meanwhile.
 */
bool engine_may_copy(void);
/* Gives up the lock until some transfer ended, or for a little while. */
void engine_wait_settled(void);
/* One step of a block towards LOCAL or NONE (or LOST); true when it is there. */
bool engine_pull_step(struct block *b);
void engine_update_gauges(void);
/*
 * Cuts regions at both ends, as far as they are inside of one. The lock is given up while it waits
 * for what is on its way there: look regions up again. 0 or -ENOMEM.
 */
int engine_isolate(uintptr_t start, uintptr_t end);
/*
 * Nothing of the range is taken from now on (until change_release), nor being taken: what is
 * on its way out by copy can't be cut. The lock is given up while it waits.
 */
void engine_hold_still(uintptr_t start, uintptr_t end);
/*
 * With engine.fault=signal nobody would serve a fault of the kernel's own, as when it writes a
 * signal's frame: so what is kept is all there.
 */
void engine_fill_kept(const struct region *r);
/* A region has just been made, by who is right for the classes of `who` (engine_who). */
void engine_made(struct region *r, uint32_t who);
/* Its class is looked for anew: it does other things than before, or has a name now. */
void engine_reclass(struct region *r);
/* Does a child get the region? */
void engine_inheritable(const struct region *r, bool on);

/* --- without the lock --- */

/* One thread more, where the store needs it. */
bool engine_spawn_store(void);
#ifndef ENGINE_SMALL_FRAMES
#define ENGINE_SMALL_FRAMES 4096
#endif
/* The frames. -ENOMEM or uffd's errors. */
int engine_init_frames(void);
bool engine_spawn(void *(*fn)(void *));
/* Without waiting, where it can be done without. */
bool engine_try_spawn(void *(*fn)(void *));
/* The keeper, where it does not run yet, and the mover, which starts the others. */
bool engine_spawn_first(void);
/* From STARTING on; fails by itself. */
void engine_start(void);
/* The queues of the store and what wakes the mover. 0 or -errno. */
int engine_open_queues(void);

/* Before the first region is made: who looks from outside is to see it. */
void engine_before_first(void);
/* A bit for each class that the calling thread, and the object that it came from, are right for. */
uint32_t engine_who(const void *caller);
/* By a program thread: starts the runtime when what is managed could outgrow the budget. */
void engine_maybe_start(void);
/* Starts the engine if it is IDLE and what is managed does not fit. Does not wait for it. */
void engine_consider_start(void);

/* First thing in each of the runtime's threads but the keeper. */
void engine_thread_begin(const char *name);
/* Last thing in one that ends before the process does. */
void engine_thread_end(void);

/* With the lock. In debug builds: does what is accounted for equal what there is? Aborts if not. */
void engine_audit(void);

/* The rest of the start, run by the mover's thread; false: logged, phase is FAILED. */
bool engine_boot(void);

#endif
