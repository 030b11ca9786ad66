/* SPDX-License-Identifier: Apache-2.0 */
/* What becomes of blocks when the address space changes, and in a forked child. */
#include "block_int.h"

#include <errno.h>
#include <string.h>

#include "arena.h"
#include "engine.h"
#include "frame.h"
#include "log.h"
#include "place.h"
#include "region.h"
#include "slot.h"
#include "sparse.h"
#include "transfer.h"

#define PART_PIECE (128ul << 10) /* of a frame, copied at a time when a block is cut */

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

	block_forgo(b);
	pages_forget(b);
	b->stray = false;
	list_remove(b);
	if (block_is_mapped(b))
		block_uncount(b);
	if (b->state == WRITING || b->state == FETCHING) {
		leave_transfer(b);
	} else if (b->state == TAKING || b->state == FILLING) {
		frame_meta(b->frame)->owner = NULL;
		b->frame = NO_FRAME;
	}
	if (b->frame != NO_FRAME)
		block_put_frame(b, false);
	block_put_slot(b);
	block_close_holes(b);
	b->flags = 0;
	b->since = 0;
	block_set_state(b, NONE);
	if (waited_for)
		engine_wake(b, false);
}

void block_punch(struct block *b, uintptr_t from, uintptr_t to)
{
	size_t first = (from - block_grid_start(b)) / K_PAGE,
	       end = (to - block_grid_start(b)) / K_PAGE;

	switch (b->state) {
	case NONE:
	case FILLING:
	case LOST:
		return;
	case LOCAL:
		block_unplace(b);
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
	if (b->list == &engine.starving || b->list == &engine.pulls || b->list == &engine.asks) {
		list_remove(b);
		engine_wake(b, false);
	}
	switch (b->state) {
	case LOCAL:
		block_unplace(b);
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
		block_uncount(b);
		block_lose(b, -EINTR);
		break;
	case FETCHING: {
		struct transfer *t = frame_meta(b->frame)->transfer;
		block_forgo(b);
		transfer_detach(t);
		transfer_keep_slot(t);
		b->frame = NO_FRAME;
		list_remove(b);
		block_set_state(b, FAR);
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
			block_lose(b, -ENOMEM);
			break;
		}
		engine_room_short(block_len(b));
		memcpy(frame_addr(f, b), from, block_len(b));
		frame_meta(f)->bytes = (uint32_t)block_len(b);
		engine_account((int64_t)block_len(b));
		leave_transfer(b);
		block_hold_frame(b, f);
		b->flags = B_DIRTY;
		block_set_state(b, STANDBY);
		block_apply_holes(b);
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
	block_hold_frame(b, f);
	b->flags = (uint8_t)((b->flags | B_DIRTY) & ~B_UNSURE);
	return true;
}

/* One half of what was STANDBY. */
static void part_standby(struct block *b, uint32_t whole)
{
	b->frame = NO_FRAME;
	if (!take_part(b, whole)) {
		block_lose(b, -ENOMEM);
		return;
	}
	list_remove(b);
	list_append(&engine.leaving, b);
}

static void part_far(struct block *b)
{
	if (transfer_extent(b).pages)
		return;
	block_put_slot(b);
	block_close_holes(b);
	b->flags = 0;
	block_set_state(b, NONE);
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
		block_forgo(low);
		high->flags &= (uint8_t)~B_PREFETCHED;
		block_put_slot(low);
		block_put_slot(high);
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
	if (b->state != NONE)
		return;
	bool known = !uffd_presence(&engine.uffd, block_start(b), block_len(b), &found);
	if (known && !found.bytes)
		return;
	b->placed = known && found.bytes == BLOCK_SIZE && !b->region->source &&
		    place_holds(block_start(b), found.split);
	block_count(b);
	b->flags = B_DIRTY;
	block_set_state(b, LOCAL);
	block_arrived(b, ARRIVE_NEW);
	if (b->placed && engine.forked)
		place_guard(b);
}

void block_inherit(struct block *b)
{
	uint8_t state = b->state;

	b->prev = b->next = NULL;
	b->list = NULL;
	b->frame = NO_FRAME;
	/* The count of fetches, which these are of, begins anew. */
	b->evicted_at = b->note.when = 0;
	b->since = 0;
	b->placed &= state == LOCAL && !b->strayed;
	b->sampled = b->strayed = false;
	/* Protection is not inherited: whether it was written shows at its eviction. */
	b->flags = state != LOCAL || b->region->source	      ? 0
		   : b->slot == NO_SLOT || b->flags & B_DIRTY ? B_DIRTY
							      : B_UNSURE;
	b->state = NONE;
	if (b->slot != NO_SLOT)
		slot_share(b->slot);
	if (state == LOCAL) {
		block_count(b);
		block_set_state(b, LOCAL);
		block_arrived(b, ARRIVE_NEW);
	} else if (state == FAR || state == LOST) {
		unsigned had = b->pages;
		block_set_state(b, (enum block_state)state);
		b->pages = 0;
		pages_set(b, had);
		sparse_rest(b);
	}
}

void block_reset(struct block *b)
{
	struct region *r = b->region;

	*b = (struct block){ .region = r, .frame = NO_FRAME, .slot = NO_SLOT };
}
