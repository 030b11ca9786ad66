/* SPDX-License-Identifier: Apache-2.0 */
#include "change.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "engine.h"
#include "log.h"
#include "place.h"
#include "policy/policy.h"
#include "region.h"

/*
 * That a discard is waited for where nobody says that it is done (system calls that we don't
 * see) and pages are there: it was MADV_FREE, or they were touched anew.
 */
#define DISCARD_NS 1000000000ull
#define RANGES 64

/*
 * Ranges that are held: for an operation of ours (until 0), or from the event of a discard
 * until its last page, which goes last, is seen to be gone (witness).
 */
static struct range {
	uintptr_t start, end, witness;
	uint64_t until;
} held[RANGES];
static size_t nheld;

int change_cut(uintptr_t at)
{
	struct region *r = region_find(at);

	if (!r || r->start == at)
		return 0;
	struct block *b = region_block(r, at);
	bool inside = (uintptr_t)block_start(b) < at;
	size_t i = (size_t)(b - r->blocks);

	prefetch_region_gone(r);
	if (inside)
		block_loosen(b);
	if (inside && r->source && b->state == STANDBY)
		block_refetch(b);
	struct region *high = region_split(r, at);
	if (!high)
		return -ENOMEM;
	if (inside)
		block_part(r->blocks + i, high->blocks);
	return 0;
}

int change_isolate(uintptr_t start, uintptr_t end)
{
	int err = change_cut(start);

	return err ? err : change_cut(end);
}

static void forget(struct region *r)
{
	for (size_t i = 0; i < r->nblocks; i++)
		block_forget(r->blocks + i);
	prefetch_region_gone(r);
	region_erase(r);
}

/* Who waits for a page there is to look again. */
static void wake(uintptr_t start, uintptr_t end)
{
	uffd_wake(&engine.uffd, (void *)start, end - start);
}

void change_gone(uintptr_t start, uintptr_t end)
{
	struct region *r;

	/* Should this fail, a range that is mapped no more stays in the map: its blocks can't move.
	 */
	if (change_isolate(start, end))
		log_error("out of memory for a change of the address space at %p", (void *)start);
	if ((r = region_next(start)) && r->start < end && r->registered)
		wake(start, end);
	if (engine.flagging) /* see fork.c; nothing happens where there is nothing */
		k_madvise((void *)start, end - start, MADV_DOFORK);
	while ((r = region_next(start)) && r->start < end) {
		start = r->end;
		if (r->end <= end)
			forget(r);
	}
}

void change_moved(uintptr_t from, uintptr_t end, uintptr_t to)
{
	struct region *r;

	change_gone(to, to + (end - from));
	if (change_isolate(from, end)) {
		log_error("out of memory for a change of the address space at %p", (void *)from);
		return;
	}
	for (uintptr_t at = from; (r = region_next(at)) && r->start < end;) {
		uintptr_t was = r->start;
		at = r->end;
		prefetch_region_gone(r);
		for (size_t i = 0; i < r->nblocks; i++) {
			struct block *b = r->blocks + i;
			if (b->state == LOCAL && !(b->flags & B_DIRTY))
				b->flags |= B_UNSURE; /* protection may not have moved */
		}
		region_move(r, r->start - from + to);
		for (size_t i = 0; engine.forked && i < r->nblocks; i++)
			if (r->blocks[i].placed) /* the same */
				place_guard(r->blocks + i);
		/* MREMAP_DONTUNMAP has left a mapping there, which is a child's, too. */
		if (r->registered && !r->no_fork)
			k_madvise((void *)was, at - was, MADV_DOFORK);
	}
	wake(from, end);
	if (engine.flagging)
		k_madvise((void *)from, end - from, MADV_DOFORK);
}

void change_grown(uintptr_t old, uintptr_t end)
{
	struct region *r = region_find(old - 1), *next = region_next(old);

	/* What a file has more of is not known: zeros would be wrong. It stays the kernel's. */
	if (next && next->start < end)
		end = next->start;
	if (!r || r->end != old || end <= old || r->source)
		return;
	size_t n = r->nblocks;
	struct block *last = r->blocks + n - 1;
	size_t had = block_len(last);
	if (last->state == TAKING)
		block_loosen(last);
	prefetch_region_gone(r);
	if (!region_extend(r, end))
		return;
	/* What it has now in addition is zero, as what lies in a frame or slot behind its end. */
	last = r->blocks + n - 1;
	block_widened(last, had);
	for (; r->registered && !r->kept && n < r->nblocks; n++)
		block_adopt(r->blocks + n);
}

static void discard_in(struct region *r, uintptr_t start, uintptr_t end)
{
	struct block *b = region_block(r, start), *last = region_block(r, end - 1);

	for (; b <= last; b++) {
		uintptr_t s = (uintptr_t)block_start(b), e = s + block_len(b);
		bool whole = s >= start && e <= end;
		if (whole && b->state != LOCAL && b->state != FILLING)
			block_forget(b);
		else
			block_punch(b, s > start ? s : start, e < end ? e : end);
	}
}

/* The kernel goes about it now; its pages must not be saved from that by being moved away. */
static void hold_for_discard(uintptr_t start, uintptr_t end)
{
	struct presence found;

	if (uffd_presence(&engine.uffd, (void *)start, end - start, &found) || !found.bytes)
		return;
	size_t i = nheld;
	if (i == RANGES) /* the oldest has had its time; operations have but half of the room */
		for (i = 0; !held[i].until;)
			i++;
	else
		nheld++;
	held[i] = (struct range){ start, end, found.last, k_now_ns() + DISCARD_NS };
}

void change_discarded(uintptr_t start, uintptr_t end)
{
	struct region *r;

	hold_for_discard(start, end);
	/* What was discarded of a file comes from there again, when it is found missing. */
	for (r = region_next(start); r && r->start < end; r = region_next(r->end))
		if (r->registered && !r->source)
			discard_in(r, start > r->start ? start : r->start,
				   end < r->end ? end : r->end);
	engine_kick_mover();
}

int change_hold(uintptr_t start, uintptr_t end)
{
	if (nheld >= RANGES / 2)
		return -EAGAIN;
	held[nheld++] = (struct range){ start, end, 0, 0 };
	return 0;
}

void change_release(uintptr_t start, uintptr_t end)
{
	for (size_t i = 0; i < nheld; i++)
		if (!held[i].until && held[i].start == start && held[i].end == end) {
			held[i] = held[--nheld];
			return;
		}
}

bool change_held(uintptr_t start, size_t len)
{
	for (size_t i = 0; i < nheld; i++)
		if (held[i].start < start + len && start < held[i].end)
			return true;
	return false;
}

/* What is all discarded does not count any more. */
static void forget_empty(uintptr_t start, uintptr_t end)
{
	struct presence found;

	for (struct region *r = region_next(start); r && r->start < end; r = region_next(r->end)) {
		struct block *b = region_block(r, start > r->start ? start : r->start),
			     *last = region_block(r, (end < r->end ? end : r->end) - 1);
		for (; r->registered && b <= last; b++) {
			uintptr_t s = (uintptr_t)block_start(b);
			if (s < start || s + block_len(b) > end || b->state != LOCAL ||
			    uffd_presence(&engine.uffd, (void *)s, block_len(b), &found) ||
			    found.bytes)
				continue;
			if (r->source)
				block_refetch(b);
			else
				block_forget(b);
		}
	}
}

void change_discard_done(uintptr_t start, uintptr_t end)
{
	for (size_t i = 0; i < nheld;)
		if (held[i].until && held[i].start >= start && held[i].end <= end) {
			forget_empty(held[i].start, held[i].end);
			held[i] = held[--nheld];
		} else {
			i++;
		}
}

bool change_settle(void)
{
	struct presence page;
	bool left = false;

	for (size_t i = 0; i < nheld;) {
		struct range *h = held + i;
		bool there = h->until &&
			     !uffd_presence(&engine.uffd, (void *)h->witness, K_PAGE, &page) &&
			     page.bytes;
		/* While a call of which we know is under way it may be this one. */
		if (!h->until || (there && (engine.changes || k_now_ns() < h->until))) {
			left |= h->until != 0;
			i++;
			continue;
		}
		forget_empty(h->start, h->end);
		held[i] = held[--nheld];
	}
	return left;
}

void change_after_fork(void)
{
	nheld = 0;
}
