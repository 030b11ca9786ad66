/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "block_int.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "arena.h"
#include "engine.h"
#include "frame.h"
#include "log.h"
#include "mapped.h"
#include "place.h"
#include "policy/policy.h"
#include "region.h"
#include "slot.h"
#include "sparse.h"
#include "trace.h"
#include "transfer.h"

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

uintptr_t block_grid_start(const struct block *b)
{
	return region_block_start(b->region, (size_t)(b - b->region->blocks));
}

char *block_start(const struct block *b)
{
	uintptr_t addr = block_grid_start(b);

	return (char *)(addr < b->region->start ? b->region->start : addr);
}

size_t block_len(const struct block *b)
{
	uintptr_t end = block_grid_start(b) + BLOCK_SIZE;

	return (end > b->region->end ? b->region->end : end) - (uintptr_t)block_start(b);
}

size_t block_offset(const struct block *b)
{
	return (uintptr_t)block_start(b) - block_grid_start(b);
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

void block_set_state(struct block *b, enum block_state s)
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

void block_hold_frame(struct block *b, uint32_t f)
{
	b->frame = f;
	frame_meta(f)->owner = b;
}

void block_put_slot(struct block *b)
{
	if (b->slot != NO_SLOT)
		slot_free(b->slot);
	b->slot = NO_SLOT;
}

void block_forgo(struct block *b)
{
	if (b->flags & B_PREFETCHED)
		prefetch_wasted(b);
	b->flags &= (uint8_t)~B_PREFETCHED;
}

void block_look_for_split(const struct block *b, uint32_t f, const struct presence *found)
{
	static bool huge_seen; /* else there are none here, and nothing to save */

	if (!block_is_full(b) || !found->bytes)
		return;
	huge_seen |= !found->split;
	frame_meta(f)->split = found->split && huge_seen;
}

void block_count(const struct block *b)
{
	if (b->placed)
		engine.placed += BLOCK_SIZE;
	else
		engine_account((int64_t)block_len(b));
}

void block_uncount(struct block *b)
{
	if (b->placed)
		engine.placed -= BLOCK_SIZE;
	else
		engine_account(-(int64_t)block_len(b));
	b->placed = false;
}

void block_vacate_frame(struct block *b)
{
	if (frame_meta(b->frame)->split)
		frame_release(b->frame, frame_start(b->frame), BLOCK_SIZE);
	else
		frame_vacated(b->frame);
	b->frame = NO_FRAME;
}

void block_put_frame(struct block *b, bool zeroed)
{
	uint32_t f = b->frame;
	const struct frame *m = frame_meta(f);

	/* Of a small frame only this block's range has pages. */
	if (frame_kind(f) == FRAME_SMALL || m->holes || m->split ||
	    (m->placed ? place_is_over() : engine.local > engine.limit))
		frame_release(f, frame_addr(f, b), block_len(b));
	else
		frame_recycle(f, zeroed);
	b->frame = NO_FRAME;
}

void block_close_holes(struct block *b)
{
	arena_free(b->holes, BLOCK_PAGES / 8);
	b->holes = NULL;
}

void block_zero_holes(struct block *b)
{
	for (size_t i = 0; b->holes && i < BLOCK_PAGES; i++) {
		size_t at = i * K_PAGE, from = block_offset(b);
		if (block_is_hole(b, i) && at >= from && at < from + block_len(b))
			memset(frame_start(b->frame) + at, 0, K_PAGE);
	}
}

void block_apply_holes(struct block *b)
{
	if (!b->holes)
		return;
	block_zero_holes(b);
	block_close_holes(b);
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

void block_arrived(struct block *b, enum arrival how)
{
	used(b);
	b->stray = false;
	if (b->placed) {
		place_arrived(b);
		return;
	}
	b->sampled = false;
	trace_block(how == ARRIVE_NEW	    ? TRACE_NEW
		    : how == ARRIVE_FETCHED ? TRACE_FAR
					    : TRACE_FRAME,
		    b);
	policy_arrived(b, how, engine.fetches - b->evicted_at, plenty(), engine.fetches);
	if (b->region->note.turned)
		engine_reclass(b->region);
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
	block_hold_frame(b, f);
	frame_meta(f)->holes = false; /* the transfer fills all of it */
	block_set_state(b, FETCHING);
	return true;
}

void block_lose(struct block *b, int status)
{
	const struct source *source = b->region->source;
	char *p = block_start(b);
	size_t len = block_len(b);

	block_forgo(b);
	pages_forget(b);
	if (b->frame != NO_FRAME)
		block_put_frame(b, false);
	block_put_slot(b);
	list_remove(b);
	block_close_holes(b);
	b->flags = 0;
	block_set_state(b, LOST);
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

/* Nobody waits for it: its content is where it was. */
static void stays_far(struct block *b)
{
	block_forgo(b);
	list_remove(b);
	b->flags = 0;
	block_set_state(b, FAR);
	sparse_rest(b);
}

void block_fetched(struct block *b, int status, bool map)
{
	if (status == -ESTALE) {
		/* The file is shorter than it was: what is left of it may be had. */
		mapped_shortened();
		block_refetch(b);
		return;
	}
	/* The store may come back. */
	if (status && status != -EBADMSG && !(b->flags & B_WANTED)) {
		block_put_frame(b, false);
		stays_far(b);
		return;
	}
	if (status) {
		block_lose(b, status);
		return;
	}
	bool wanted = b->flags & B_WANTED, leaves = b->gathered && !wanted;
	block_set_state(b, STANDBY);
	block_apply_holes(b);
	/* Where it would not all leave, it stays. */
	bool whole = pages_gather(b);
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

void block_drop(struct block *b)
{
	list_remove(b);
	block_put_frame(b, false);
	b->flags = 0;
	block_set_state(b, FAR);
}

void block_check(struct block *b)
{
	list_remove(b);
	block_set_state(b, WRITING);
}

bool block_own_slot(struct block *b)
{
	if (b->slot != NO_SLOT && slot_is_mine(b->slot))
		return true;
	block_put_slot(b);
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
		block_close_holes(b);
		atomic_fetch_add(&engine.stats->dropped_zero_bytes, block_len(b));
		block_put_frame(b, true);
		block_put_slot(b);
		b->flags = 0;
		block_set_state(b, NONE);
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
		block_put_slot(b);
		b->flags = (uint8_t)(B_DIRTY | (b->flags & B_TORN));
		break;
	}
	block_set_state(b, STANDBY);
	if (v != BLOCK_FAILED && !wanted) {
		block_drop(b);
		return;
	}
	give_or_leave(b, ARRIVE_STANDBY, writing);
}

void block_unplace(struct block *b)
{
	if (!b->placed)
		return;
	b->strayed = false;
	block_uncount(b);
	block_count(b);
	bool starves = b->list == &engine.starving;
	list_remove(b);
	policy_arrived(b, ARRIVE_NEW, 0, true, engine.fetches);
	if (starves) /* to write to it, which it may now */
		engine_wake(b, false);
}

void block_exchange(struct block *b, uint32_t f)
{
	bool writing = b->flags & B_WRITE, wanted = b->flags & B_WANTED;

	block_put_frame(b, false);
	block_hold_frame(b, f);
	block_put_slot(b);
	b->sampled = false;
	b->fresh = frame_meta(f)->placed;
	b->evidence = 0;
	b->flags = (uint8_t)(B_DIRTY | (wanted ? B_WANTED : 0));
	block_set_state(b, STANDBY);
	block_apply_holes(b);
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
		block_lose(b, -ETIMEDOUT);
		return;
	}
	transfer_keep_slot(t);
	stays_far(b);
}

void block_unslot(struct block *b)
{
	if (b->region->source) {
		uffd_protect(&engine.uffd, block_start(b), block_len(b), true);
		return;
	}
	block_put_slot(b);
	b->flags = (uint8_t)((b->flags | B_DIRTY) & ~B_UNSURE);
}

void block_distrust_slot(struct block *b)
{
	if (b->state == LOCAL || b->state == STANDBY)
		block_unslot(b);
	else if (b->state == TAKING || b->state == FETCHING || b->state == WRITING)
		b->flags |= B_DIRTY;
	if (b->pages && uffd_protect(&engine.uffd, block_start(b), BLOCK_SIZE, false))
		pages_forget(b);
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

void block_in_file(struct block *b)
{
	b->slot = SLOT_FILE;
	block_set_state(b, FAR);
}

void block_refetch(struct block *b)
{
	bool wanted = b->flags & B_WANTED;

	block_forgo(b);
	list_remove(b);
	if (b->state == LOCAL && b->frame == NO_FRAME)
		block_uncount(b);
	if (b->frame != NO_FRAME)
		block_put_frame(b, false);
	block_put_slot(b);
	block_close_holes(b);
	b->slot = SLOT_FILE;
	b->flags = 0;
	block_set_state(b, FAR);
	if (wanted)
		engine_wake(b, false);
}

uint64_t block_file_offset(const struct block *b)
{
	const struct region *r = b->region;

	return (uint64_t)(r->file_at + (int64_t)((uintptr_t)block_start(b) - r->base));
}
