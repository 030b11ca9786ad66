/* SPDX-License-Identifier: Apache-2.0 */
/* Single pages of FAR blocks: see sparse.h. */
#include "block_int.h"

#include <errno.h>
#include <string.h>

#include "change.h"
#include "engine.h"
#include "frame.h"
#include "log.h"
#include "pinned.h"
#include "sparse.h"

void pages_set(struct block *b, unsigned n)
{
	int64_t more = ((int64_t)n - b->pages) * K_PAGE;

	b->pages = (uint16_t)n;
	engine_account(more);
	engine.page_bytes += (uint64_t)more;
	if (!n)
		sparse_gone(b);
}

void pages_forget(struct block *b)
{
	b->stray |= b->pages;
	pages_set(b, 0);
}

unsigned block_page(const struct block *b, uintptr_t addr)
{
	return (unsigned)((addr - block_grid_start(b)) / K_PAGE);
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
	/* While they are being discarded the last of them shows that it goes on. */
	if (change_held((uintptr_t)block_start(b), BLOCK_SIZE) ||
	    uffd_presence(&engine.uffd, block_start(b), BLOCK_SIZE, &found))
		return -EAGAIN;
	if (found.bytes != found.protected)
		return -EBUSY;
	if (!pinned_take((uintptr_t)block_start(b), false))
		return -EAGAIN;
	f = frame_empty(FRAME_SMALL);
	if (f == NO_FRAME) {
		pinned_taken();
		return -EAGAIN;
	}
	/* What has moved and come back has lost its protection, and so is not dropped again. */
	int err = take_pages(b, f, &torn);
	pinned_taken();
	if (!err)
		pages_set(b, 0);
	frame_release(f, frame_start(f), BLOCK_SIZE);
	return err && err != -EAGAIN ? -EBUSY : err;
}

void block_clear_pages(struct block *b)
{
	if (block_drop_pages(b))
		pages_forget(b);
}

bool pages_gather(struct block *b)
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
		pages_forget(b);
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
		block_lose(b, -EIO);
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
		pages_forget(b);
	else
		pages_set(b, 0);
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
	block_hold_frame(b, f);
	b->flags = B_PART;
	block_set_state(b, FETCHING);
	return true;
}

void block_pages_fetched(struct block *b, unsigned first, unsigned n, int status, char *buf)
{
	uint32_t f = b->frame;
	char *to = (char *)block_grid_start(b) + first * K_PAGE;
	/* Where the slot can't be trusted any more they are newer. */
	bool protect = !(b->flags & (B_WRITE | B_DIRTY));
	unsigned come = 0;
	int err = 0;

	b->flags &= (uint8_t)~B_PART;
	if (status) {
		block_lose(b, status);
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
	block_set_state(b, FAR);
	pages_set(b, b->pages + come);
	if (err && err != -EAGAIN) {
		log_debug("pages at %p not copied in: error %d", (void *)to, -err);
		b->stray = true; /* they are to come another way */
	}
	sparse_rest(b);
	engine_wake(b, !err);
	b->flags = 0;
}
