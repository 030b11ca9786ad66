/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "block.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "arena.h"
#include "away.h"
#include "change.h"
#include "engine.h"
#include "frame.h"
#include "log.h"
#include "pinned.h"
#include "mapped.h"
#include "policy/policy.h"
#include "region.h"
#include "slot.h"
#include "sparse.h"
#include "trace.h"
#include "transfer.h"

#define PART_PIECE (128ul << 10) /* of a frame, copied at a time when a block is cut */
/* A huge page moves in a microsecond or two, what has become 512 pages takes 50 and more. */
#define MOVED_SPLIT_NS 25000ull

void list_append(struct block_list *l, struct block *b)
{
	b->list = l;
	b->next = NULL;
	b->prev = l->tail;
	if (l->tail)
		l->tail->next = b;
	else
		l->head = b;
	l->tail = b;
	l->count++;
}

void list_remove(struct block *b)
{
	struct block_list *l = b->list;

	if (!l)
		return;
	if (b->prev)
		b->prev->next = b->next;
	else
		l->head = b->next;
	if (b->next)
		b->next->prev = b->prev;
	else
		l->tail = b->prev;
	l->count--;
	b->list = NULL;
	b->prev = b->next = NULL;
}

void block_relocate(struct block *b, const struct block *from, struct region *r)
{
	struct block_list *l = b->list;

	b->region = r;
	if (b->frame != NO_FRAME && frame_meta(b->frame)->owner == from)
		frame_meta(b->frame)->owner = b;
	if (!l)
		return;
	if (b->prev)
		b->prev->next = b;
	else if (l->head == from)
		l->head = b;
	if (b->next)
		b->next->prev = b;
	else if (l->tail == from)
		l->tail = b;
}

static uintptr_t grid_start(const struct block *b)
{
	return region_block_start(b->region, (size_t)(b - b->region->blocks));
}

char *block_start(const struct block *b)
{
	uintptr_t addr = grid_start(b);

	return (char *)(addr < b->region->start ? b->region->start : addr);
}

size_t block_len(const struct block *b)
{
	uintptr_t end = grid_start(b) + BLOCK_SIZE;

	return (end > b->region->end ? b->region->end : end) - (uintptr_t)block_start(b);
}

size_t block_offset(const struct block *b)
{
	return (uintptr_t)block_start(b) - grid_start(b);
}

bool block_is_mapped(const struct block *b)
{
	return b->state == LOCAL || b->state == TAKING;
}

bool block_in_flight(const struct block *b)
{
	return b->state == FILLING || b->state == TAKING || b->state == WRITING ||
	       b->state == FETCHING;
}

static void set_state(struct block *b, enum block_state s)
{
	struct emf_stats *st = engine.stats;
	bool was_far = b->state == FAR || b->state == FETCHING, is_far = s == FAR || s == FETCHING;
	bool was_standby = b->state == STANDBY || b->state == WRITING,
	     is_standby = s == STANDBY || s == WRITING;
	bool was_flying = block_in_flight(b);

	b->state = (uint8_t)s;
	b->gathered = false;
	if (was_far != is_far)
		atomic_fetch_add(&st->far_bytes, is_far ? block_len(b) : -block_len(b));
	if (was_standby != is_standby)
		atomic_fetch_add(&st->standby_bytes, is_standby ? block_len(b) : -block_len(b));
	if (was_flying && !block_in_flight(b)) {
		engine.inflight--;
		engine_settled();
	} else if (!was_flying && block_in_flight(b)) {
		engine.inflight++;
	}
}

static void hold_frame(struct block *b, uint32_t f)
{
	b->frame = f;
	frame_meta(f)->owner = b;
}

static void put_slot(struct block *b)
{
	if (b->slot != NO_SLOT)
		slot_free(b->slot);
	b->slot = NO_SLOT;
}

/*
 * MOVE splits a huge page whose target has a page table, be it empty, and leaves one where it took
 * the page from (mm/userfaultfd.c, move_pages). So one split block would in time split all
 * others, frame by frame: a frame that has a page table is released, and the table with it,
 * before it is used again. found: of the block, in the frame or just moved out of it.
 */
static void look_for_split(const struct block *b, uint32_t f, const struct presence *found)
{
	static bool huge_seen; /* else there are none here, and nothing to save */

	if (!block_is_full(b) || !found->bytes)
		return;
	huge_seen |= !found->split;
	frame_meta(f)->split = found->split && huge_seen;
}

/* Nothing is in the frame any more. */
static void vacate_frame(struct block *b)
{
	if (frame_meta(b->frame)->split)
		frame_release(b->frame, frame_start(b->frame), BLOCK_SIZE);
	else
		frame_vacated(b->frame);
	b->frame = NO_FRAME;
}

/* The frame's content is not needed any more. */
static void put_frame(struct block *b, bool zeroed)
{
	uint32_t f = b->frame;
	const struct frame *m = frame_meta(f);

	/* Of a small frame only this block's range has pages. */
	if (frame_kind(f) == FRAME_SMALL || m->holes || m->split || engine.local > engine.limit)
		frame_release(f, frame_addr(f, b), block_len(b));
	else
		frame_recycle(f, zeroed);
	b->frame = NO_FRAME;
}

static void close_holes(struct block *b)
{
	arena_free(b->holes, BLOCK_PAGES / 8);
	b->holes = NULL;
}

static void zero_holes(struct block *b)
{
	for (size_t i = 0; b->holes && i < BLOCK_PAGES; i++) {
		size_t at = i * K_PAGE, from = block_offset(b);
		if (block_is_hole(b, i) && at >= from && at < from + block_len(b))
			memset(frame_start(b->frame) + at, 0, K_PAGE);
	}
}

/* The content is in the frame: zero what was discarded meanwhile. */
static void apply_holes(struct block *b)
{
	if (!b->holes)
		return;
	zero_holes(b);
	close_holes(b);
	block_unslot(b);
}

/* Is there more of the budget than what the frames in reserve need? */
static bool plenty(void)
{
	uint64_t used = engine.local - frame_free_count() * BLOCK_SIZE;

	return used + engine.reserve_high * BLOCK_SIZE <= engine.limit;
}

static void used(struct block *b)
{
	b->used_at = (uint32_t)(k_now_ns() >> BLOCK_USED_SHIFT);
}

static void arrived(struct block *b, enum arrival how)
{
	used(b);
	b->stray = false;
	trace_block(how == ARRIVE_NEW	    ? TRACE_NEW
		    : how == ARRIVE_FETCHED ? TRACE_FAR
					    : TRACE_FRAME,
		    b);
	policy_arrived(b, how, engine.fetches - b->evicted_at, plenty(), engine.fetches);
	if (b->region->note.turned)
		engine_reclass(b->region);
}

/* Page by page where some are there already: they are newer. */
static int copy_around(struct block *b, const char *src, bool protect)
{
	char *dst = block_start(b);

	for (size_t at = 0; at < block_len(b); at += K_PAGE) {
		int err = uffd_copy(&engine.uffd, dst + at, src + at, K_PAGE, protect);
		if (err && err != -EEXIST)
			return err;
	}
	return 0;
}

static int install_copy(struct block *b, bool protect)
{
	const char *src = frame_addr(b->frame, b);
	int err = uffd_copy(&engine.uffd, block_start(b), src, block_len(b), protect);

	if (err == -EEXIST) {
		b->flags |= B_DIRTY;
		err = copy_around(b, src, protect);
	}
	if (err)
		return err;
	/* For a moment it is there twice; without MOVE there is room for that, but not for all
	 * threads at once. */
	engine_account((int64_t)block_len(b));
	if (engine.local > engine.budget)
		atomic_fetch_add(&engine.stats->overruns, 1);
	return 0;
}

/* Puts the content of the frame in place. The frame is the caller's afterwards, unless it is
 * vacated. */
static int install(struct block *b, bool protect, bool *vacated)
{
	char *dst = block_start(b);
	size_t len = block_len(b);
	uint32_t f = b->frame;
	bool torn;

	*vacated = false;
	if (!engine.uffd.move)
		return install_copy(b, protect);
	/*
	 * Page by page some would move before one that the write-out has pinned, or who reads the
	 * frame meanwhile finds pages away: then it can't be undone.
	 */
	if (b->state == WRITING && frame_meta(f)->paged && !(b->flags & B_EXPIRED))
		return -EBUSY;

	uint64_t begin = k_now_ns();
	int err = uffd_move(&engine.uffd, dst, frame_addr(f, b), len, frame_meta(f)->holes, &torn);
	bool slow = k_now_ns() - begin > MOVED_SPLIT_NS;
	if (torn) {
		/* What is being written of it meanwhile is not all of it (block_written). */
		frame_meta(f)->holes = true;
		b->flags |= B_DIRTY | B_TORN;
	}
	/* Pages went there and back, and what the program wrote to them is not what is written out.
	 */
	if (err && b->state == WRITING)
		b->flags |= B_DIRTY | B_TORN;
	else if (err && !b->region->source)
		b->flags |= B_UNSURE; /* nor what is in the slot */
	if (err == -EAGAIN)
		return err;
	if (err == -EBUSY && b->state == WRITING && !(b->flags & B_EXPIRED))
		return err; /* the write-out has it pinned; it ends by itself */
	if (err) {
		log_debug("MOVE into %p refused (%d), copied", (void *)dst, err);
		return install_copy(b, protect);
	}
	engine_account((int64_t)len - (int64_t)frame_meta(f)->bytes);
	frame_meta(f)->bytes = 0;
	*vacated = true;
	struct presence there;
	if (slow && block_is_full(b) && !uffd_presence(&engine.uffd, dst, len, &there))
		look_for_split(b, f, &there);
	if (block_is_full(b) && frame_meta(f)->split)
		engine.came_split = (uintptr_t)dst;
	else
		b->mended = false;
	if (protect) {
		b->flags |= B_UNSURE;
		/* Should this be refused, UNSURE is enough. */
		if (!b->unwritten)
			uffd_protect(&engine.uffd, dst, len, true);
	}
	return 0;
}

bool block_fill(struct block *b)
{
	uint32_t f = engine_frame(true, false);

	if (f == NO_FRAME)
		return false;
	list_remove(b);
	hold_frame(b, f);
	set_state(b, FILLING);
	return true;
}

void block_filled(struct block *b)
{
	bool vacated;

	frame_meta(b->frame)->holes = false; /* frame_zero has seen to it */
	/* Pages that went there and came back may have been written to meanwhile. */
	bool still_zero = !engine.uffd.move;
	int err = install(b, false, &vacated);
	if (err) {
		if (err != -EAGAIN)
			log_error("cannot map %zu bytes at %p: error %d", block_len(b),
				  (void *)block_start(b), -err);
		/* So it may have content by now. */
		b->flags = B_DIRTY;
		set_state(b, STANDBY);
		list_append(&engine.leaving, b);
		return;
	}
	if (vacated)
		vacate_frame(b);
	else
		put_frame(b, still_zero);
	b->flags = B_DIRTY;
	b->evicted_at = engine.fetches;
	set_state(b, LOCAL);
	arrived(b, ARRIVE_NEW);
}

int block_fill_short(struct block *b)
{
	ssize_t n = uffd_zero(&engine.uffd, block_start(b), block_len(b));

	if (n < 0 && n != -EEXIST)
		return (int)n;
	engine_account((int64_t)block_len(b));
	list_remove(b);
	b->flags = B_DIRTY;
	b->evicted_at = engine.fetches;
	set_state(b, LOCAL);
	arrived(b, ARRIVE_NEW);
	return 0;
}

static void lose(struct block *b, int status);

/* --- single pages --- */

/* They go with the block's state. */
static void set_pages(struct block *b, unsigned n)
{
	int64_t more = ((int64_t)n - b->pages) * K_PAGE;

	b->pages = (uint16_t)n;
	engine_account(more);
	engine.page_bytes += (uint64_t)more;
	if (!n)
		sparse_gone(b);
}

/* What is in place of it counts as newer from now on, or is gone. */
static void forget_pages(struct block *b)
{
	b->stray |= b->pages;
	set_pages(b, 0);
}

unsigned block_page(const struct block *b, uintptr_t addr)
{
	return (unsigned)((addr - grid_start(b)) / K_PAGE);
}

bool block_has_page(const struct block *b, uintptr_t addr)
{
	struct presence found;

	return b->pages && !uffd_presence(&engine.uffd, (void *)addr, K_PAGE, &found) &&
	       found.bytes;
}

/* Out of the program's memory, into an empty frame. */
static int take_pages(struct block *b, uint32_t f, bool *torn)
{
	return uffd_move(&engine.uffd, frame_start(f), block_start(b), BLOCK_SIZE, true, torn);
}

int block_drop_pages(struct block *b)
{
	struct presence found;
	uint32_t f;
	bool torn;

	if (!b->pages)
		return 0;
	if (uffd_presence(&engine.uffd, block_start(b), BLOCK_SIZE, &found))
		return -EAGAIN;
	if (found.bytes != found.protected)
		return -EBUSY;
	f = frame_empty(FRAME_SMALL);
	if (f == NO_FRAME)
		return -EAGAIN;
	/* What has moved and come back has lost its protection, and so is not dropped again. */
	int err = take_pages(b, f, &torn);
	if (!err)
		set_pages(b, 0);
	frame_release(f, frame_start(f), BLOCK_SIZE);
	return err && err != -EAGAIN ? -EBUSY : err;
}

void block_clear_pages(struct block *b)
{
	if (block_drop_pages(b))
		forget_pages(b);
}

/*
 * The frame has what the slot held, and the holes: what is newer in place comes on top of that.
 * False: it would not all leave, and what is left is stray.
 */
static bool gather(struct block *b)
{
	uint64_t there[(BLOCK_PAGES + 63) / 64];
	struct presence found;
	uint32_t f;
	bool torn;

	if (!b->pages)
		return !b->stray;
	/* What is about to be discarded must not come back. */
	if (change_held((uintptr_t)block_start(b), BLOCK_SIZE) ||
	    uffd_presence(&engine.uffd, block_start(b), BLOCK_SIZE, &found) ||
	    uffd_present(&engine.uffd, block_start(b), BLOCK_PAGES, there) ||
	    (f = frame_empty(FRAME_SMALL)) == NO_FRAME) {
		forget_pages(b);
		return false;
	}
	/* Nor may what somebody reads into be copied; pins are refused by the kernel. */
	int err = -EBUSY;
	torn = false;
	if (pinned_take((uintptr_t)block_start(b), false)) {
		err = take_pages(b, f, &torn);
		pinned_taken();
	}
	if (torn && uffd_present(&engine.uffd, frame_start(f), BLOCK_PAGES, there)) {
		lose(b, -EIO);
		return false;
	}
	if (torn || (!err && found.bytes != found.protected)) {
		for (size_t i = 0; i < BLOCK_PAGES; i++)
			if (there[i / 64] >> i % 64 & 1)
				memcpy(frame_start(b->frame) + i * K_PAGE,
				       frame_start(f) + i * K_PAGE, K_PAGE);
		b->flags |= B_DIRTY;
	}
	if (err)
		forget_pages(b);
	else
		set_pages(b, 0);
	frame_release(f, frame_start(f), BLOCK_SIZE);
	return !err && !b->stray;
}

bool block_fetch_pages(struct block *b, unsigned n)
{
	uint32_t f = frame_empty(FRAME_SMALL);

	if (f == NO_FRAME)
		return false;
	frame_meta(f)->bytes = n * (uint32_t)K_PAGE;
	engine_account((int64_t)(n * K_PAGE));
	list_remove(b);
	hold_frame(b, f);
	b->flags = B_PART;
	set_state(b, FETCHING);
	return true;
}

void block_pages_fetched(struct block *b, unsigned first, unsigned n, int status, char *buf)
{
	uint32_t f = b->frame;
	char *to = (char *)grid_start(b) + first * K_PAGE;
	/* Where the slot can't be trusted any more they are newer. */
	bool protect = !(b->flags & (B_WRITE | B_DIRTY));
	unsigned come = 0;
	int err = 0;

	b->flags &= (uint8_t)~B_PART;
	if (status) {
		lose(b, status);
		return;
	}
	/* One by one: some may be there. */
	for (unsigned i = 0; i < n && !err; i++) {
		if (block_is_hole(b, first + i))
			memset(buf + i * K_PAGE, 0, K_PAGE);
		err = uffd_copy(&engine.uffd, to + i * K_PAGE, buf + i * K_PAGE, K_PAGE, protect);
		come += !err;
		if (err == -EEXIST)
			err = 0;
	}
	engine_account(-(int64_t)frame_meta(f)->bytes);
	frame_meta(f)->bytes = 0;
	frame_vacated(f);
	b->frame = NO_FRAME;
	set_state(b, FAR);
	set_pages(b, b->pages + come);
	if (err && err != -EAGAIN) {
		log_debug("pages at %p not copied in: error %d", (void *)to, -err);
		b->stray = true; /* they are to come another way */
	}
	sparse_rest(b);
	engine_wake(b, !err);
	b->flags = 0;
}

bool block_fetch(struct block *b, bool force)
{
	uint32_t f;

	if (block_is_full(b)) {
		f = engine_frame(false, force);
	} else {
		f = engine_room_short(block_len(b)) || force ? frame_empty(FRAME_SMALL) : NO_FRAME;
		if (f != NO_FRAME) {
			frame_meta(f)->bytes = (uint32_t)block_len(b);
			engine_account((int64_t)block_len(b));
		}
	}
	if (f == NO_FRAME)
		return false;
	list_remove(b);
	hold_frame(b, f);
	frame_meta(f)->holes = false; /* the transfer fills all of it */
	set_state(b, FETCHING);
	return true;
}

/* Nobody can have its content any more: who touches it must not see anything else. */
static void lose(struct block *b, int status)
{
	const struct source *source = b->region->source;
	char *p = block_start(b);
	size_t len = block_len(b);

	forget_pages(b);
	if (b->frame != NO_FRAME)
		put_frame(b, false);
	put_slot(b);
	list_remove(b);
	close_holes(b);
	b->flags = 0;
	set_state(b, LOST);
	atomic_fetch_add(&engine.stats->lost_bytes, len);
	int err = uffd_poison(&engine.uffd, p, len);
	log_at(status == -ENODATA ? LOG_INFO : LOG_ERROR,
	       "%zu bytes at %p are lost: the %s (error %d); touching them raises SIGBUS", len,
	       (void *)p,
	       status == -EBADMSG     ? "store returned other data than was written"
	       : status == -ETIMEDOUT ? "store did not answer within store.timeout"
	       : status == -EINTR     ? "mapping was changed while it was copied"
	       : status == -ENODATA   ? "file that was mapped there has been truncated"
	       : source		      ? "file that was mapped there could not be read"
				      : "store could not be read",
	       -status);
	/* Pages that are there are newer than what is lost; others are poisoned when they fault. */
	if (err && err != -EAGAIN && err != -EEXIST) {
		/* Without poison the thread would wait for ever. */
		log_error(
		    "this kernel cannot mark single pages as lost (error %d): ending the process",
		    -err);
		syscall(SYS_tgkill, getpid(), getpid(), SIGBUS);
	}
	engine_wake(b, true);
}

/* Where it can't be mapped now it stays in standby, and who waits for it asks again. */
static void give_or_leave(struct block *b, enum arrival how, bool writing)
{
	int err = block_give(b, how, writing);

	if (err && b->state == STANDBY && !b->list)
		list_append(&engine.leaving, b);
	engine_wake(b, !err);
}

void block_fetched(struct block *b, int status, bool map)
{
	if (status == -ESTALE) {
		/* The file is shorter than it was: what is left of it may be had. */
		mapped_shortened();
		block_refetch(b);
		return;
	}
	if (status) {
		lose(b, status);
		return;
	}
	bool wanted = b->flags & B_WANTED, leaves = b->gathered && !wanted;
	set_state(b, STANDBY);
	apply_holes(b);
	/* Where it would not all leave, it stays. */
	bool whole = gather(b);
	if (b->state == LOST)
		return;
	if (leaves && whole) {
		list_append(&engine.leaving, b);
		return;
	}
	if (!map && !wanted && whole)
		return;
	if (b->flags & B_PREFETCHED) {
		b->flags &= (uint8_t)~B_PREFETCHED;
		list_remove(b);
		atomic_fetch_add(&engine.stats->prefetch_useful, 1);
		prefetch_touched(b, true);
	}
	give_or_leave(b, ARRIVE_FETCHED, b->flags & B_WRITE);
}

int block_give(struct block *b, enum arrival how, bool writing)
{
	struct transfer *t = b->state == WRITING ? frame_meta(b->frame)->transfer : NULL;
	bool of_file = b->region->source;
	bool protect = of_file || (!(b->flags & B_DIRTY) && !writing && b->slot != NO_SLOT && !t);
	bool vacated;

	/* What is being written must not change below the transfer. */
	if (t && b->holes && !(b->flags & B_EXPIRED))
		return -EBUSY;
	/* The slot is the transfer's until that ends. */
	if (t)
		zero_holes(b);
	else
		apply_holes(b);
	/* A copy would be a second one until the transfer ends, for each such block. */
	if (t && !engine.uffd.move && !(b->flags & B_EXPIRED))
		return -EBUSY;

	int err = install(b, protect, &vacated);
	if (err) {
		if (err != -EBUSY && err != -EAGAIN)
			log_error("cannot map %zu bytes at %p: error %d", block_len(b),
				  (void *)block_start(b), -err);
		return err;
	}
	if (t) {
		/* The transfer keeps frame and slot until it ends, then lets go of both. */
		transfer_detach(t);
		b->slot = NO_SLOT;
		close_holes(b);
	} else if (vacated) {
		vacate_frame(b);
	} else {
		put_frame(b, false);
	}
	b->frame = NO_FRAME;
	b->flags &= B_DIRTY | B_UNSURE;
	if (!protect)
		b->flags = B_DIRTY;
	if (of_file)
		b->flags = 0;
	set_state(b, LOCAL);
	arrived(b, how);
	return 0;
}

/* It is to stay where it is after all; what was discarded meanwhile the kernel has seen to. */
static int not_taken(struct block *b, int err)
{
	put_frame(b, false);
	close_holes(b);
	set_state(b, LOCAL);
	engine_wake(b, false);
	return err;
}

/* Without MOVE. Its region may be cut meanwhile: then *at is elsewhere. */
static int take_copy(struct block **at, uint32_t f)
{
	struct block *b = *at;
	char *p = block_start(b), *to = frame_addr(f, b);
	size_t len = block_len(b);
	struct taken taken;

	hold_frame(b, f);
	set_state(b, TAKING);
	lock_give(&engine.lock);
	int err = away_take(&engine.uffd, to, p, len, &taken);
	lock_take(&engine.lock);
	b = *at = frame_meta(f)->owner;
	if (!b) {
		/* It was unmapped, cut or moved meanwhile, and so the frame is nobody's. */
		frame_release(f, to, len);
		return -ENOENT;
	}
	if (err && !taken.taken)
		return not_taken(b, err);
	memset(to + taken.taken, 0, len - taken.taken);
	frame_meta(f)->holes = false;
	engine_account(-(int64_t)len);
	/* Pages that the program gave back: it is not what the slot holds. */
	if (taken.holes)
		b->flags |= B_DIRTY;
	if (err)
		b->flags |= B_DIRTY | B_TORN;
	return 0;
}

/* Its pages, or a part of them (torn), are in frame f. */
static void moved_into(struct block *b, uint32_t f, bool torn)
{
	size_t len = block_len(b);
	struct frame *m = frame_meta(f);
	struct presence found;

	m->bytes = (uint32_t)len;
	hold_frame(b, f);
	if (torn || uffd_presence(&engine.uffd, frame_addr(f, b), len, &found))
		found = (struct presence){ .bytes = len, .protected = len, .split = true };
	look_for_split(b, f, &found);
	m->paged = found.split;
	if (torn) {
		m->holes = true;
		b->flags |= B_DIRTY | B_TORN;
	} else if (found.bytes < len) {
		/* Pages that the program gave back: it is not what the slot holds. */
		m->holes = true;
		b->flags |= B_DIRTY;
	}
	/* Pages can come with their protection, and who of us fills the frame would wait for
	 * itself. */
	if (found.protected && uffd_protect(&engine.uffd, frame_addr(f, b), len, false))
		m->holes = true; /* not now: it is not used again */
	if (!found.bytes) {
		put_frame(b, false);
		put_slot(b);
		b->flags = 0;
		list_remove(b);
		set_state(b, NONE);
	}
}

static int take_move(struct block *b, uint32_t f)
{
	bool torn;
	int err =
	    uffd_move(&engine.uffd, frame_addr(f, b), block_start(b), block_len(b), true, &torn);

	if (err && !torn)
		return err;
	moved_into(b, f, torn);
	return 0;
}

/* A position for a copy, counted as what is to be in it. */
static uint32_t frame_for_copy(const struct block *b)
{
	if (block_is_full(b))
		return engine_frame(false, true); /* what COPY_SLACK is for */
	uint32_t f = frame_empty(FRAME_SMALL);
	if (f != NO_FRAME) {
		frame_meta(f)->bytes = (uint32_t)block_len(b);
		engine_account((int64_t)block_len(b));
	}
	return f;
}

static int take_by_copy(struct block **b)
{
	uint32_t f = frame_for_copy(*b);

	return f == NO_FRAME ? -ENOMEM : take_copy(b, f);
}

/* A run of pages that have their bit set, from i on: its end, and in *first its start. */
static size_t next_run(const uint64_t *bits, size_t i, size_t n, size_t *first)
{
	while (i < n && !(bits[i / 64] >> i % 64 & 1))
		i++;
	*first = i;
	while (i < n && bits[i / 64] >> i % 64 & 1)
		i++;
	return i;
}

/*
 * MOVE takes from writable mappings only: of these all or nothing, as others may have pinned pages
 * to write to, which must not be copied and nobody else knows of. The rest is copied.
 */
static int take_parts(struct block **at)
{
	uint64_t kept[BLOCK_PAGES / 64];
	struct block *b = *at;
	uint32_t f = frame_empty(block_is_full(b) ? FRAME_BIG : FRAME_SMALL);
	char *p = block_start(b), *to;
	size_t len = block_len(b), n = len / K_PAGE, first, end, taken = len;
	bool torn, holes = false;

	if (f == NO_FRAME)
		return -ENOMEM;
	to = frame_addr(f, b);
	int err = uffd_move_writable(&engine.uffd, to, p, len, kept, &torn);
	if (err) {
		if (torn) {
			moved_into(b, f, true);
			return 0;
		}
		frame_release(f, to, len);
		block_unslot(b);
		return err;
	}
	for (size_t i = 0; i < n; i++)
		taken -= kept[i / 64] >> i % 64 & 1 ? K_PAGE : 0;
	hold_frame(b, f);
	set_state(b, TAKING);
	lock_give(&engine.lock);
	for (size_t i = 0; !err && (end = next_run(kept, i, n, &first)) > first; i = end) {
		size_t from = first * K_PAGE;
		struct taken t;
		err = away_take(&engine.uffd, to + from, p + from, (end - first) * K_PAGE, &t);
		taken += t.taken;
		holes |= t.holes;
	}
	lock_take(&engine.lock);
	b = *at = frame_meta(f)->owner;
	if (!b) {
		frame_release(f, to, len);
		return -ENOENT;
	}
	if (err && !taken) {
		frame_meta(f)->holes = true; /* all of it is one */
		return not_taken(b, err);
	}
	bool wanted = b->flags & B_WANTED;
	moved_into(b, f, err);
	if (holes)
		b->flags |= B_DIRTY;
	if (wanted && b->state == NONE)
		engine_wake(b, false);
	return 0;
}

static int take_by_move(struct block *b)
{
	uint32_t f = frame_empty(block_is_full(b) ? FRAME_BIG : FRAME_SMALL);

	if (f == NO_FRAME)
		return -ENOMEM;
	int err = take_move(b, f);
	if (err) {
		/* Page by page a page table was made for them first. */
		if (err == -EBUSY && block_is_full(b))
			frame_release(f, frame_start(f), BLOCK_SIZE);
		else
			frame_vacated(f);
		/* Pages that moved and came back have lost their protection. */
		block_unslot(b);
	}
	return err;
}

int block_take(struct block **at)
{
	struct block *b = *at;

	if (change_held((uintptr_t)block_start(b), block_len(b)))
		return -EAGAIN;
	/* Nobody writes to what a file is mapped to. */
	if (!pinned_take((uintptr_t)block_start(b), !engine.uffd.move && !b->region->source))
		return -EINPROGRESS;
	int err = engine.uffd.move ? take_by_move(b) : -EINVAL;
	/* MOVE takes from writable mappings only. */
	if (err == -EINVAL && engine_may_copy())
		err = engine.uffd.move ? take_parts(at) : take_by_copy(at);
	pinned_taken();
	if (err)
		return err;
	b = *at;
	atomic_fetch_add(&engine.stats->evicted_blocks, 1);
	b->evicted_at = engine.fetches;
	if (b->region->source && (b->state == NONE || b->flags & (B_DIRTY | B_TORN))) {
		/* Some of it was not in place: discarded, or left there by the kernel. */
		block_refetch(b);
		return 0;
	}
	if (b->region->source)
		b->flags &= (uint8_t)~B_UNSURE;
	if (b->state == NONE)
		return 0;
	list_remove(b);
	set_state(b, STANDBY);
	apply_holes(b);
	if (b->flags & B_WANTED)
		engine_wake(b, false);
	return 0;
}

void block_drop(struct block *b)
{
	list_remove(b);
	put_frame(b, false);
	b->flags = 0;
	set_state(b, FAR);
}

void block_check(struct block *b)
{
	list_remove(b);
	set_state(b, WRITING);
}

bool block_own_slot(struct block *b)
{
	if (b->slot != NO_SLOT && slot_is_mine(b->slot))
		return true;
	put_slot(b);
	b->slot = slot_alloc();
	return b->slot != NO_SLOT;
}

void block_written(struct block *b, enum block_verdict v)
{
	bool wanted = b->flags & B_WANTED, writing = b->flags & B_WRITE;

	if (b->flags & B_TORN)
		v = BLOCK_FAILED;
	switch (v) {
	case BLOCK_ZERO:
		close_holes(b);
		atomic_fetch_add(&engine.stats->dropped_zero_bytes, block_len(b));
		put_frame(b, true);
		put_slot(b);
		b->flags = 0;
		set_state(b, NONE);
		if (wanted)
			engine_wake(b, false);
		return;
	case BLOCK_SAME:
		atomic_fetch_add(&engine.stats->dropped_clean_bytes, block_len(b));
		b->unwritten = true;
		b->flags = 0;
		break;
	case BLOCK_WRITTEN:
		b->unwritten = false;
		if (!(b->flags & B_DIRTY)) { /* which shows only now */
			trace_block(TRACE_WRITE, b);
			policy_written(b);
		}
		b->flags = 0;
		break;
	case BLOCK_FAILED:
		put_slot(b);
		b->flags = (uint8_t)(B_DIRTY | (b->flags & B_TORN));
		break;
	}
	set_state(b, STANDBY);
	if (v != BLOCK_FAILED && !wanted) {
		block_drop(b);
		return;
	}
	give_or_leave(b, ARRIVE_STANDBY, writing);
}

void block_expired(struct block *b)
{
	struct transfer *t;

	if (b->state == WRITING) {
		/* What the transfer reads from now on does not matter: its slot is given up. */
		b->flags |= B_EXPIRED;
		give_or_leave(b, ARRIVE_STANDBY, b->flags & B_WRITE);
		return;
	}
	/* The frame stays with the transfer, which may still write to it. */
	t = frame_meta(b->frame)->transfer;
	transfer_detach(t);
	b->frame = NO_FRAME;
	if (b->flags & B_WANTED) {
		b->slot = NO_SLOT;
		lose(b, -ETIMEDOUT);
		return;
	}
	transfer_keep_slot(t);
	if (b->flags & B_PREFETCHED)
		prefetch_wasted(b);
	list_remove(b);
	b->flags = 0;
	set_state(b, FAR);
	sparse_rest(b);
}

void block_lose(struct block *b)
{
	lose(b, -ETIMEDOUT);
}

void block_unslot(struct block *b)
{
	if (b->region->source) {
		uffd_protect(&engine.uffd, block_start(b), block_len(b), true);
		return;
	}
	put_slot(b);
	b->flags = (uint8_t)((b->flags | B_DIRTY) & ~B_UNSURE);
}

void block_distrust_slot(struct block *b)
{
	if (b->state == LOCAL || b->state == STANDBY)
		block_unslot(b);
	else if (b->state == TAKING || b->state == FETCHING || b->state == WRITING)
		b->flags |= B_DIRTY;
	if (b->pages && uffd_protect(&engine.uffd, block_start(b), BLOCK_SIZE, false))
		forget_pages(b);
}

void block_dirty(struct block *b)
{
	b->flags = (uint8_t)((b->flags | B_DIRTY) & ~B_UNSURE);
	trace_block(TRACE_WRITE, b);
	policy_written(b);
	block_unprotect(b);
	used(b);
}

void block_unprotect(struct block *b)
{
	/* Where it is refused the writer faults, and asks again. */
	uffd_protect(&engine.uffd, block_start(b), block_len(b), false);
}

/* The transfer ends by itself; frame and slot are its own from now on. */
static void leave_transfer(struct block *b)
{
	transfer_detach(frame_meta(b->frame)->transfer);
	b->frame = NO_FRAME;
	b->slot = NO_SLOT;
}

void block_forget(struct block *b)
{
	bool waited_for = b->flags & B_WANTED || b->list == &engine.starving;

	if (b->flags & B_PREFETCHED)
		prefetch_wasted(b);
	forget_pages(b);
	b->stray = false;
	list_remove(b);
	if (block_is_mapped(b))
		engine_account(-(int64_t)block_len(b));
	if (b->state == WRITING || b->state == FETCHING) {
		leave_transfer(b);
	} else if (b->state == TAKING || b->state == FILLING) {
		frame_meta(b->frame)->owner = NULL;
		b->frame = NO_FRAME;
	}
	if (b->frame != NO_FRAME)
		put_frame(b, false);
	put_slot(b);
	close_holes(b);
	b->flags = 0;
	b->since = 0;
	set_state(b, NONE);
	if (waited_for)
		engine_wake(b, false);
}

void block_punch(struct block *b, uintptr_t from, uintptr_t to)
{
	size_t first = (from - grid_start(b)) / K_PAGE, end = (to - grid_start(b)) / K_PAGE;

	switch (b->state) {
	case NONE:
	case FILLING:
	case LOST:
		return;
	case LOCAL:
		block_unslot(b);
		return;
	case STANDBY:
		memset(frame_start(b->frame) + first * K_PAGE, 0, (end - first) * K_PAGE);
		block_unslot(b);
		return;
	default:
		break;
	}
	if (!b->holes && !(b->holes = arena_alloc(BLOCK_PAGES / 8))) {
		log_error("out of memory: %zu bytes at %p", (end - first) * K_PAGE, (void *)from);
		return;
	}
	for (size_t i = first; i < end; i++)
		b->holes[i / 64] |= 1ull << i % 64;
}

void block_loosen(struct block *b)
{
	if (b->list == &engine.starving || b->list == &engine.pulls) {
		list_remove(b);
		engine_wake(b, false);
	}
	switch (b->state) {
	case LOCAL:
		block_unslot(b);
		break;
	case FILLING:
		block_forget(b);
		break;
	case TAKING:
		/* By a call that nobody could hold up: what has left already is gone with the
		 * frame. */
		frame_meta(b->frame)->owner = NULL;
		b->frame = NO_FRAME;
		engine_account(-(int64_t)block_len(b));
		lose(b, -EINTR);
		break;
	case FETCHING: {
		struct transfer *t = frame_meta(b->frame)->transfer;
		if (b->flags & B_PREFETCHED)
			prefetch_wasted(b);
		transfer_detach(t);
		transfer_keep_slot(t);
		b->frame = NO_FRAME;
		list_remove(b);
		set_state(b, FAR);
		engine_wake(b, false);
		b->flags = 0;
		block_clear_pages(b);
		break;
	}
	case FAR:
		block_clear_pages(b);
		break;
	case WRITING: {
		/* A copy of it; the transfer keeps the rest. */
		const char *from = frame_addr(b->frame, b);
		uint32_t f = frame_empty(block_is_full(b) ? FRAME_BIG : FRAME_SMALL);
		if (f == NO_FRAME) {
			leave_transfer(b);
			lose(b, -ENOMEM);
			break;
		}
		engine_room_short(block_len(b));
		memcpy(frame_addr(f, b), from, block_len(b));
		frame_meta(f)->bytes = (uint32_t)block_len(b);
		engine_account((int64_t)block_len(b));
		leave_transfer(b);
		hold_frame(b, f);
		b->flags = B_DIRTY;
		set_state(b, STANDBY);
		apply_holes(b);
		engine_wake(b, false);
		list_append(&engine.leaving, b);
		break;
	}
	default:
		break;
	}
}

/* The part of a frame that belongs to one half; false: there is no frame left for it. */
static bool take_part(struct block *b, uint32_t whole)
{
	uint32_t f = frame_empty(FRAME_SMALL);

	if (f == NO_FRAME)
		return false;
	char *to = frame_addr(f, b), *from = frame_addr(whole, b);
	/* So that no more than a piece is there twice: there may be no room for it. */
	for (size_t at = 0, n; at < block_len(b); at += n) {
		n = block_len(b) - at < PART_PIECE ? block_len(b) - at : PART_PIECE;
		memcpy(to + at, from + at, n);
		frame_meta(f)->bytes += (uint32_t)n;
		engine_account((int64_t)n);
		frame_release_part(from + at, n);
		/* The block may have grown since it was put there. */
		uint32_t had = frame_meta(whole)->bytes, gone = had < n ? had : (uint32_t)n;
		frame_meta(whole)->bytes -= gone;
		engine_account(-(int64_t)gone);
	}
	hold_frame(b, f);
	b->flags = (uint8_t)((b->flags | B_DIRTY) & ~(B_UNSURE | B_PREFETCHED));
	return true;
}

/* One half of what was STANDBY. */
static void part_standby(struct block *b, uint32_t whole)
{
	b->frame = NO_FRAME;
	if (!take_part(b, whole)) {
		lose(b, -ENOMEM);
		return;
	}
	list_remove(b);
	list_append(&engine.leaving, b);
}

static void part_far(struct block *b)
{
	if (transfer_extent(b).pages)
		return;
	put_slot(b);
	close_holes(b);
	b->flags = 0;
	set_state(b, NONE);
}

void block_part(struct block *low, struct block *high)
{
	uint32_t whole = low->frame;

	if (high->slot != NO_SLOT)
		slot_share(high->slot);
	if (high->holes) {
		high->holes = arena_alloc(BLOCK_PAGES / 8);
		if (high->holes)
			memcpy(high->holes, low->holes, BLOCK_PAGES / 8);
	}
	switch (low->state) {
	case LOCAL:
		/* As it is on a list of the policy's. */
		if (low->list)
			list_append(low->list, high);
		break;
	case FAR:
		part_far(low);
		part_far(high);
		break;
	case STANDBY: {
		if (low->flags & B_PREFETCHED)
			prefetch_wasted(low);
		put_slot(low);
		put_slot(high);
		part_standby(low, whole);
		part_standby(high, whole);
		/* All of it, whatever of it is mapped where. */
		frame_release(whole, frame_start(whole), BLOCK_SIZE);
		break;
	}
	default:
		break;
	}
}

void block_in_file(struct block *b)
{
	b->slot = SLOT_FILE;
	set_state(b, FAR);
}

void block_refetch(struct block *b)
{
	bool wanted = b->flags & B_WANTED;

	if (b->flags & B_PREFETCHED)
		prefetch_wasted(b);
	list_remove(b);
	if (b->state == LOCAL && b->frame == NO_FRAME)
		engine_account(-(int64_t)block_len(b));
	if (b->frame != NO_FRAME)
		put_frame(b, false);
	put_slot(b);
	close_holes(b);
	b->slot = SLOT_FILE;
	b->flags = 0;
	set_state(b, FAR);
	if (wanted)
		engine_wake(b, false);
}

void block_cut_off(struct block *b)
{
	lose(b, -ENODATA);
}

uint64_t block_file_offset(const struct block *b)
{
	const struct region *r = b->region;

	return (uint64_t)(r->file_at + (int64_t)((uintptr_t)block_start(b) - r->base));
}

void block_widened(struct block *b, size_t had)
{
	size_t more = block_len(b) - had;

	if (b->state == LOCAL) {
		engine_room_short(more);
		engine_account((int64_t)more);
		block_unslot(b);
	} else if (b->state == FAR || b->state == FETCHING) {
		atomic_fetch_add(&engine.stats->far_bytes, more);
		/* The slot may have more than the block had: it was cut once. */
		uintptr_t end = (uintptr_t)block_start(b) + block_len(b);
		block_punch(b, end - more, end);
	} else if (b->state == STANDBY || b->state == WRITING) {
		/* Its pages are not there yet, and what comes to be written is longer. */
		frame_meta(b->frame)->holes = true;
		b->flags |= B_DIRTY;
		atomic_fetch_add(&engine.stats->standby_bytes, more);
	}
}

void block_adopt(struct block *b)
{
	struct presence found;

	/* Where the kernel does not say, it counts as there: right, if not tight. */
	if (b->state != NONE ||
	    (!uffd_presence(&engine.uffd, block_start(b), block_len(b), &found) && !found.bytes))
		return;
	engine_account((int64_t)block_len(b));
	b->flags = B_DIRTY;
	set_state(b, LOCAL);
	arrived(b, ARRIVE_NEW);
}

void block_inherit(struct block *b)
{
	uint8_t state = b->state;

	b->prev = b->next = NULL;
	b->list = NULL;
	b->frame = NO_FRAME;
	b->since = b->evicted_at = 0;
	/* Protection is not inherited: whether it was written shows at its eviction. */
	b->flags = state != LOCAL || b->region->source	      ? 0
		   : b->slot == NO_SLOT || b->flags & B_DIRTY ? B_DIRTY
							      : B_UNSURE;
	b->state = NONE;
	if (b->slot != NO_SLOT)
		slot_share(b->slot);
	if (state == LOCAL) {
		engine_account((int64_t)block_len(b));
		set_state(b, LOCAL);
		arrived(b, ARRIVE_NEW);
	} else if (state == FAR || state == LOST) {
		unsigned had = b->pages;
		set_state(b, (enum block_state)state);
		b->pages = 0;
		set_pages(b, had);
		sparse_rest(b);
	}
}

void block_reset(struct block *b)
{
	struct region *r = b->region;

	*b = (struct block){ .region = r, .frame = NO_FRAME, .slot = NO_SLOT };
}
