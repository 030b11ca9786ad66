/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blocks: 2 MiB of a region, the unit of tiering, and every step that one can
 * make. Only the files of block_int.h change `state`; all under engine.lock, which is held
 * throughout a step (a step is one to a few userfaultfd calls; transfers and
 * long memory operations are states of their own, between two steps).
 *
 *  state     where the data is              frame slot  who waits on it
 *  NONE      nowhere: all zero                -    -
 *  FILLING   being zeroed in a frame          x    -    in flight
 *  LOCAL     mapped, the program's            -    (x)
 *  TAKING    being copied out (no MOVE, or    x    (x)  in flight
 *            not all of it is writable)
 *  STANDBY   in a frame, unmapped             x    (x)
 *  WRITING   in a frame, being checked or     x    (x)  in flight, but can be
 *            written out                                taken back at once
 *  FAR       in the slot                      -    x
 *            (some pages in place, too)
 *  FETCHING  on its way into a frame          x    x    in flight
 *  LOST      could not be fetched: poisoned   -    -
 *
 *  step                     from -> to                          by
 *  block_fill/filled        NONE -> FILLING -> LOCAL|STANDBY    fault thread
 *  block_fill_short         NONE -> LOCAL                       fault thread
 *  block_fetch/fetched      FAR -> FETCHING -> LOCAL|STANDBY|FAR|LOST
 *                                                               fault thread (demand), mover (bulk)
 *  block_fetch_pages/pages_fetched
 *                           FAR -> FETCHING -> FAR|LOST         fault thread
 *  block_give               STANDBY|WRITING -> LOCAL            fault thread, mover, control (pull)
 *  block_expired            FETCHING -> FAR|LOST, WRITING -> LOCAL
 *                                                               fault thread, mover
 *  block_lose               FAR -> LOST, when it can't be had   mover, fault thread, the child of a
 *                                                               fork
 *  block_adopt              NONE -> LOCAL                       who registers the region
 *  block_take               LOCAL -> STANDBY|NONE               mover
 *                           (what is copied: via TAKING)
 *  block_check              STANDBY -> WRITING                  mover
 *  block_written            WRITING -> FAR|LOCAL|NONE           mover
 *  block_exchange           WRITING -> LOCAL (another frame)    mover
 *  block_drop               STANDBY (clean) -> FAR              mover, fault thread, control (fork)
 *  block_forget             any -> NONE                         fault thread (events), control
 *  block_punch              any; a part of it is zero           fault thread (events)
 *  block_in_file            NONE -> FAR                         control (mapped.c)
 *  block_refetch            LOCAL|STANDBY|FETCHING -> FAR       fault thread, mover; of a file only
 *  block_loosen, block_part in flight -> at rest, to be cut     fault thread (events), control
 *  block_inherit            LOCAL, FAR as the parent's were     the child of a fork
 *
 * What is present in the program's page table is always newer than frame and slot: where
 * a step finds a page there, that one stays. So a MOVE that was cut short, or pages
 * that came in while metadata stood still (fork), need no state of their own.
 *
 * LOCAL are blocks in place on a slow node, too (place.h), which count for nothing: `placed`.
 *
 * Single pages (sparse.h): where a program jumps about, a few pages of a FAR block are copied in,
 * protected for who reads. What of them is still protected equals the slot and may go at any time;
 * what is not may be newer, and goes into the frame when the block is fetched: for the program, or
 * in order to be written out as a whole. The page table alone says which is which.
 *
 * The races, what settles each, and who tests it (a row of tests/prog, or of its matrix in the
 * states standby, far and flight). The simulation (tests/sim) tries orders of events for all
 * between the steps of the engine, and fork as far as the parent goes.
 *  - write against eviction: MOVE unmaps atomically, and so does mremap where there is
 *    no MOVE (away.h); DIRTY is read after it. (integrity; threads lost-writes)
 *  - write against arrival: MOVE maps writable, protection is a second call. Another
 *    thread may write in between, unseen, and so may the faulting one when a signal
 *    interrupts its wait. So the block is UNSURE: at eviction its content is
 *    compared with the checksum of its slot before it counts as clean. (found signal-write)
 *    As it is compared in any case, one that was found unwritten when it left the last time is
 *    not protected at all: reading a protected huge page costs half a millisecond more in a
 *    virtual machine with shadow page tables.
 *  - fault against write-out: the frame is moved back at once and the transfer is
 *    left without a block (transfer.c); what it wrote is thrown away. Where the kernel refuses
 *    that half way, what was there for a moment may have been written to: the write-out
 *    is void (TORN). (integrity; matrix read, write)
 *  - fault against fetch: the fault sets WANTED; whoever ends the fetch maps and wakes.
 *    (threads same-page; matrix read)
 *  - munmap, mremap against any step: until its event was read, the kernel refuses all
 *    that changes pages (-EAGAIN): the step is not made. Then the event is applied
 *    to the blocks at once (change.c). A transfer in flight loses its block and ends
 *    by itself; who gave up the lock with a block in hand finds it again, or not,
 *    by its frame (frame.h: owner). Only TAKING, by mremap at an address, cannot bear it:
 *    the program's calls wait for it (engine_may_copy). (model; matrix munmap, mremap, map-over)
 *  - mprotect and advice that cut mappings against TAKING: piece by piece, each at once.
 *    (found protect-cuts)
 *  - discard against eviction: the kernel discards only after its event was read, and does
 *    not say when. Until the pages are seen to be gone the block is held (change.c).
 *    (found discard-edges; matrix dontneed, free)
 *  - fork against any step: metadata stands still around it (engine.c); faults are
 *    served by copies meanwhile (fault.c). (found fork-often, fork-growing, fork-part,
 *    write-after-fork; window fork-move, fork-discard, fork-reuse, fork-signal; matrix fork)
 *  - the kernel's writes past the page table against eviction: such a block stays (pinned.h).
 *    (direct)
 *  - a thread's end against eviction: the kernel serves no fault of it any more, so what it
 *    writes to then stays local (preload/threads.c). (threads own-stacks)
 *  - exec, exit: the kernel ends all threads and descriptors; in flight or not, what is
 *    in the store is freed by others (slot.h, store/guard.h). (processes exec-self; threads
 *    exit, exit-thread; tests/whole/crash.sh)
 */
#ifndef EMF_BLOCK_H
#define EMF_BLOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernel.h"
#include "list.h"
#include "policy/policy.h"
#include "store/store.h"

#ifndef BLOCK_SHIFT /* the simulation has smaller ones */
#define BLOCK_SHIFT 21
#endif
#define BLOCK_SIZE (1ul << BLOCK_SHIFT)
#define BLOCK_PAGES (1u << (BLOCK_SHIFT - 12))
#define CLUSTER_PAGES ((unsigned)(STORE_CLUSTER / K_PAGE))
#define NO_FRAME UINT32_MAX
#define NO_SLOT UINT32_MAX
#define SLOT_FILE (UINT32_MAX - 1) /* not in the store: in the file of its region (mapped.h) */

enum block_state {
	NONE,
	FILLING,
	LOCAL,
	TAKING,
	STANDBY,
	WRITING,
	FAR,
	FETCHING,
	LOST,
};

enum {
	B_DIRTY = 1 << 0,      /* content differs from the slot, or there is no slot */
	B_UNSURE = 1 << 1,     /* may have been written without our knowing */
	B_PREFETCHED = 1 << 2, /* fetched ahead, not touched yet */
	B_WANTED = 1 << 3,     /* a thread waits: map and wake when it settles */
	B_WRITE = 1 << 4,      /* and that thread writes */
	B_EXPIRED = 1 << 5,    /* its write-out takes too long: don't wait for that */
	B_TORN = 1 << 6,       /* a part of it is, or was, in place again: give it back */
	B_PART = 1 << 7,       /* FETCHING: a few pages only, and its frame has nothing in it */
};

struct region;

struct block {
	struct region *region;
	struct block *prev, *next; /* of the one list it is on (list), by state and policy */
	struct block_list *list;
	uint64_t evicted_at;  /* engine.fetches when it left, for its reuse distance */
	uint64_t retry_at;    /* ns; on the list `stuck` until then */
	uint64_t since;	      /* ns; a thread waits since then, 0: none */
	uint64_t spare_until; /* ns; not to be evicted before: thrash.h */
	uint64_t *holes;      /* a bit for each page that is zero whatever the slot says; or NULL */
	uint32_t frame, slot;
	uint16_t pages; /* FAR, FETCHING: so many are in place, too, and accounted for */
	uint8_t state, flags;
	bool stray;	 /* others are, which are not accounted for: it is fetched as a whole */
	bool gathered;	 /* FETCHING: in order to be written out, with what is newer in place */
	bool unwritten;	 /* when it last left it was as it had come */
	bool copied;	 /* it came or went by copy: MOVE is refused, of read-only memory */
	bool placed;	 /* LOCAL: its page lies on a slow node, see place.h */
	bool strayed;	 /* some of it was written to while one forked, and may not lie there */
	bool sampled;	 /* it was taken to see whether it is used there */
	int8_t evidence; /* how often in a row it was used soon, or (negative) was not */
	bool fresh;	 /* it was not since it has come there */
	uint8_t moves;	 /* to local memory and back, as of `calm` in place.c */
	uint8_t calm;
	bool mended;	  /* it was tried to make a huge page of it since it last was one */
	uint8_t stream;	  /* of the prefetcher, while B_PREFETCHED */
	uint32_t used_at; /* k_now_ns() >> BLOCK_USED_SHIFT when last seen in use, 0: never */
	struct policy_note note;
};

#define BLOCK_USED_SHIFT 26 /* 67 ms */

/* The block moved in memory from `from`, into region r: mends who points to it. */
void block_relocate(struct block *b, const struct block *from, struct region *r);

/* The block's range of the address space: 2 MiB of the region's grid, cut to the region. */
char *block_start(const struct block *b);
size_t block_len(const struct block *b);
/* How far from its 2 MiB it begins, as in its frame and slot. */
size_t block_offset(const struct block *b);
static inline bool block_is_full(const struct block *b)
{
	return block_len(b) == BLOCK_SIZE;
}
bool block_in_flight(const struct block *b);
/* Is page i of its 2 MiB zero, whatever the slot says? */
static inline bool block_is_hole(const struct block *b, size_t i)
{
	return b->holes && b->holes[i / 64] >> i % 64 & 1;
}
/* Do its pages count as the program's? */
bool block_is_mapped(const struct block *b);

/* False: no frame or no room in the budget; nothing changed. */
bool block_fill(struct block *b);
void block_filled(struct block *b);
int block_fill_short(struct block *b);

/* force: exceed the budget rather than fail. */
bool block_fetch(struct block *b, bool force);
void block_fetched(struct block *b, int status, bool map);

/*
 * The same for n pages from `first` (of its 2 MiB) on, which are part of one cluster. False: no
 * room; nothing changed. The room they need is accounted for. fetched: buf has their content.
 */
bool block_fetch_pages(struct block *b, unsigned n);
void block_pages_fetched(struct block *b, unsigned first, unsigned n, int status, char *buf);
/* The page that addr is in, counted from the block's 2 MiB; is it in place? */
unsigned block_page(const struct block *b, uintptr_t addr);
bool block_has_page(const struct block *b, uintptr_t addr);
/*
 * Takes its pages out. -EBUSY: not all of them equal the slot, or they are shared or pinned: it has
 * to be gathered; -EAGAIN: not now.
 */
int block_drop_pages(struct block *b);
/* The same, but none are accounted for any more: what would not go is stray. */
void block_clear_pages(struct block *b);
static inline uint64_t block_page_bytes(const struct block *b)
{
	return (uint64_t)b->pages * K_PAGE;
}

/*
 * Maps it. writing: the access that asks is a write. -EBUSY: a device still reads the frame;
 * -EAGAIN: the address space is being changed; then it stays as it is.
 */
int block_give(struct block *b, enum arrival how, bool writing);
/* Its transfer takes longer than store.timeout: who waits for a read loses it, else as before. */
void block_expired(struct block *b);
/* Nobody can have its content any more (-errno why): who touches it gets SIGBUS. */
void block_lose(struct block *b, int status);
/* LOCAL: gives up the slot, so that the content is here only. */
void block_unslot(struct block *b);

/*
 * 0: STANDBY or NONE now. Else it stays LOCAL; -EAGAIN: it is in use just now, -ENOMEM: no
 * frame, -EINPROGRESS: see pinned.h, -EBUSY and others: the kernel refuses. -ENOENT: it is no more,
 * don't use b. Where it copies it gives up engine.lock meanwhile, and *b may be elsewhere in memory
 * afterwards.
 */
int block_take(struct block **b);
void block_drop(struct block *b);

void block_check(struct block *b);
/* WRITING: sees to it that it has a slot of its own to be written to. False: the store is full. */
bool block_own_slot(struct block *b);
/* The content turned out all zero / equal to the slot / written (status) to the slot. */
enum block_verdict { BLOCK_ZERO, BLOCK_SAME, BLOCK_WRITTEN, BLOCK_FAILED };
void block_written(struct block *b, enum block_verdict v);

/* The slot may not have its content any more: where that is here, too, it stays or is written anew.
 */
void block_distrust_slot(struct block *b);

/* The program's write to a protected block: from now on it is dirty and writable. */
void block_dirty(struct block *b);

/* LOCAL: lifts protection, without noting what that means. */
void block_unprotect(struct block *b);

/* Its content is gone (unmapped or discarded; the pages themselves are the caller's). */
void block_forget(struct block *b);
/* In place on a slow node, but what comes to it from now on is not: it counts as local. */
void block_unplace(struct block *b);
/* WRITING, and its content is in frame f, too: that is its own from now on, and is mapped. */
void block_exchange(struct block *b, uint32_t f);
/* [from, to) of the address space, a part of it, is zero from now on. */
void block_punch(struct block *b, uintptr_t from, uintptr_t to);

/*
 * It is going to be cut: loosen ends what is in flight, so that it is NONE, LOST, LOCAL, FAR or
 * STANDBY. After region_split has made two of it, block_part gives each what is its own.
 */
void block_loosen(struct block *b);
void block_part(struct block *low, struct block *high);

/*
 * Blocks of a file (mapped.h). They are never written to, so that what is in the file is always
 * what they hold, and they may leave at any time: no state of theirs is DIRTY or UNSURE.
 */
void block_in_file(struct block *b);
/* The rest of it, or all, comes from the file again; pages that are in place stay. */
void block_refetch(struct block *b);
uint64_t block_file_offset(const struct block *b);

/* It is longer than it was (had), by zeros. */
void block_widened(struct block *b, size_t had);

/* It becomes LOCAL or NONE as found in the page table, when its region is registered. */
void block_adopt(struct block *b);
/* In the child of a fork: frames and lists are gone, pages and slots as they were. */
void block_inherit(struct block *b);
/* The same, in one that starts from anew. */
void block_reset(struct block *b);

#endif
