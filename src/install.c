/* SPDX-License-Identifier: Apache-2.0 */
/* Content comes into the program's memory: new, from a frame, from a copy. */
#include "block_int.h"

#include <errno.h>

#include "engine.h"
#include "frame.h"
#include "log.h"
#include "region.h"
#include "transfer.h"

/* A huge page moves in a microsecond or two, what has become 512 pages takes 50 and more. */
#define MOVED_SPLIT_NS 25000ull

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
	b->copied = true;
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
		frame_unplace(f); /* what is written to the holes is local */
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
	b->placed = frame_meta(f)->placed;
	frame_meta(f)->placed = false;
	engine_account((b->placed ? 0 : (int64_t)len) - (int64_t)frame_meta(f)->bytes);
	frame_meta(f)->bytes = 0;
	*vacated = true;
	struct presence there;
	if (slow && block_is_full(b) && !uffd_presence(&engine.uffd, dst, len, &there))
		block_look_for_split(b, f, &there);
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
	block_hold_frame(b, f);
	block_set_state(b, FILLING);
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
		block_set_state(b, STANDBY);
		list_append(&engine.leaving, b);
		return;
	}
	if (vacated)
		block_vacate_frame(b);
	else
		block_put_frame(b, still_zero);
	b->flags = B_DIRTY;
	b->evicted_at = engine.fetches;
	block_set_state(b, LOCAL);
	block_arrived(b, ARRIVE_NEW);
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
	block_set_state(b, LOCAL);
	block_arrived(b, ARRIVE_NEW);
	return 0;
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
		block_zero_holes(b);
	else
		block_apply_holes(b);
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
		block_close_holes(b);
	} else if (vacated) {
		block_vacate_frame(b);
	} else {
		block_put_frame(b, false);
	}
	b->frame = NO_FRAME;
	b->flags &= B_DIRTY | B_UNSURE;
	if (!protect)
		b->flags = B_DIRTY;
	if (of_file)
		b->flags = 0;
	block_set_state(b, LOCAL);
	block_arrived(b, how);
	return 0;
}
