/* SPDX-License-Identifier: Apache-2.0 */
/* Blocks leave the program's memory, into a frame. */
#include "block_int.h"

#include <errno.h>
#include <string.h>

#include "away.h"
#include "change.h"
#include "engine.h"
#include "frame.h"
#include "pinned.h"
#include "place.h"
#include "region.h"

/* It is to stay where it is after all; what was discarded meanwhile the kernel has seen to. */
static int not_taken(struct block *b, int err)
{
	block_put_frame(b, false);
	block_close_holes(b);
	block_set_state(b, LOCAL);
	engine_wake(b, false);
	return err;
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

/* Without MOVE. Its region may be cut meanwhile: then *at is elsewhere. */
static int take_by_copy(struct block **at)
{
	struct block *b = *at;
	uint32_t f = frame_for_copy(b);
	struct taken taken;

	if (f == NO_FRAME)
		return -ENOMEM;
	char *p = block_start(b), *to = frame_addr(f, b);
	size_t len = block_len(b);
	block_hold_frame(b, f);
	block_set_state(b, TAKING);
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

/* What has come into the frame may lie elsewhere than was thought: it counts for what it is. */
static void count_taken(struct block *b, uint32_t f, bool whole, bool split)
{
	struct frame *m = frame_meta(f);
	bool placed = whole && block_is_full(b) && place_holds(frame_start(f), split);

	engine_account((b->placed ? (int64_t)block_len(b) : 0) -
		       (placed ? (int64_t)BLOCK_SIZE : 0));
	engine.placed += (placed ? BLOCK_SIZE : 0) - (b->placed ? BLOCK_SIZE : 0);
	m->bytes = placed ? 0 : (uint32_t)block_len(b);
	m->placed = placed;
	b->placed = false;
}

/* Its pages, or a part of them (torn), are in frame f. */
static void moved_into(struct block *b, uint32_t f, bool torn)
{
	size_t len = block_len(b);
	struct frame *m = frame_meta(f);
	struct presence found;

	m->bytes = (uint32_t)len;
	block_hold_frame(b, f);
	if (torn || uffd_presence(&engine.uffd, frame_addr(f, b), len, &found))
		found = (struct presence){ .bytes = len, .protected = len, .split = true };
	block_look_for_split(b, f, &found);
	m->paged = found.split;
	if (b->placed || place_is_on())
		count_taken(b, f, !torn && found.bytes == len, found.split);
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
		block_put_frame(b, false);
		block_put_slot(b);
		block_close_holes(b);
		b->flags = 0;
		list_remove(b);
		block_set_state(b, NONE);
	}
}

/* Pages that moved and came back have lost their protection: it shows when it leaves. */
static void came_back(struct block *b)
{
	if (b->region->source)
		block_unslot(b);
	else
		b->flags |= B_UNSURE;
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
		came_back(b);
		return err;
	}
	for (size_t i = 0; i < n; i++)
		taken -= kept[i / 64] >> i % 64 & 1 ? K_PAGE : 0;
	block_hold_frame(b, f);
	block_set_state(b, TAKING);
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
	bool torn;

	if (f == NO_FRAME)
		return -ENOMEM;
	int err =
	    uffd_move(&engine.uffd, frame_addr(f, b), block_start(b), block_len(b), true, &torn);
	if (!err || torn) {
		moved_into(b, f, torn);
		return 0;
	}
	/* Page by page a page table was made for them first. */
	if (err == -EBUSY && block_is_full(b))
		frame_release(f, frame_start(f), BLOCK_SIZE);
	else
		frame_vacated(f);
	came_back(b);
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
	/* MOVE takes from writable mappings only. A copy of what is in place would be a local one.
	 */
	b->copied = err == -EINVAL;
	if (err == -EINVAL && engine_may_copy() && !b->placed)
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
	block_set_state(b, STANDBY);
	block_apply_holes(b);
	if (b->flags & B_WANTED)
		engine_wake(b, false);
	return 0;
}
