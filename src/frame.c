/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "frame.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "arena.h"
#include "block.h"
#include "engine.h"
#include "kernel.h"

static struct {
	const struct uffd *uffd;
	char *base;
	struct frame *meta;
	size_t nbig, n;
	uint32_t fresh[2], end[2];		   /* of each kind: never used yet, on no list */
	uint32_t empty[2], free_head, placed_head; /* lists through meta.next */
	size_t nfree;
} fr = { .empty = { NO_FRAME, NO_FRAME }, .free_head = NO_FRAME, .placed_head = NO_FRAME };

int frame_init(const struct uffd *u, size_t big, size_t small)
{
	size_t n = big + small, len = n * BLOCK_SIZE;

	fr.meta = arena_alloc(n * sizeof(*fr.meta));
	fr.base = k_reserve(len, BLOCK_SIZE, true);
	if (!fr.meta || !fr.base) {
		arena_free(fr.meta, n * sizeof(*fr.meta));
		if (fr.base)
			k_unmap(fr.base, len);
		fr.meta = NULL;
		fr.base = NULL;
		return -ENOMEM;
	}
	fr.uffd = u;
	fr.n = n;
	fr.nbig = big;
	k_madvise(fr.base + big * BLOCK_SIZE, small * BLOCK_SIZE, MADV_NOHUGEPAGE);
	/* A forked child has frames of its own, if it needs any; a core dump needs none. */
	k_madvise(fr.base, len, MADV_DONTFORK);
	k_madvise(fr.base, len, MADV_DONTDUMP);
	/* There may be many more than are ever used: a list of them all would cost memory. */
	fr.end[FRAME_BIG] = fr.fresh[FRAME_SMALL] = (uint32_t)big;
	fr.end[FRAME_SMALL] = (uint32_t)n;
	return uffd_register(u, fr.base, len, false);
}

void frame_after_fork(void)
{
	/* The area itself was not inherited; its bookkeeping is a few pages. */
	memset(&fr, 0, sizeof(fr));
	fr.empty[FRAME_BIG] = fr.empty[FRAME_SMALL] = fr.free_head = fr.placed_head = NO_FRAME;
}

const void *frame_area(size_t *bytes)
{
	*bytes = fr.n * BLOCK_SIZE;
	return fr.base;
}

void frame_unlock(void)
{
	if (fr.base)
		munlock(fr.base, fr.n * BLOCK_SIZE);
}

struct frame *frame_meta(uint32_t f)
{
	return fr.meta + f;
}

char *frame_start(uint32_t f)
{
	return fr.base + (size_t)f * BLOCK_SIZE;
}

void *frame_small_page(void)
{
	return frame_start((uint32_t)fr.nbig);
}

enum frame_kind frame_kind(uint32_t f)
{
	return f < fr.nbig ? FRAME_BIG : FRAME_SMALL;
}

char *frame_addr(uint32_t f, const struct block *b)
{
	/* At the same offset as in the block, so that slot and frame agree. */
	return frame_start(f) + block_offset(b);
}

static uint32_t pop(uint32_t *head)
{
	uint32_t f = *head;

	if (f != NO_FRAME)
		*head = fr.meta[f].next;
	return f;
}

uint32_t frame_empty(enum frame_kind k)
{
	uint32_t f = pop(fr.empty + k);

	return f == NO_FRAME && fr.fresh[k] < fr.end[k] ? fr.fresh[k]++ : f;
}

uint32_t frame_recycled(bool zeroed)
{
	uint32_t *link = &fr.free_head;

	/* Zeroed ones are kept apart only by where they were put: look at a few. */
	for (int i = 0; zeroed && i < 8 && *link != NO_FRAME; i++) {
		if (fr.meta[*link].zeroed)
			break;
		link = &fr.meta[*link].next;
	}
	if (*link == NO_FRAME || (zeroed && !fr.meta[*link].zeroed))
		link = &fr.free_head;
	uint32_t f = pop(link);
	if (f != NO_FRAME)
		fr.nfree--;
	return f;
}

uint32_t frame_placed(void)
{
	return pop(&fr.placed_head);
}

bool frame_has_placed(void)
{
	return fr.placed_head != NO_FRAME;
}

void frame_unplace(uint32_t f)
{
	if (!fr.meta[f].placed)
		return;
	fr.meta[f].placed = false;
	fr.meta[f].bytes = BLOCK_SIZE;
	engine.placed -= BLOCK_SIZE;
	engine_account((int64_t)BLOCK_SIZE);
}

uint64_t frame_placed_bytes(void)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < fr.fresh[FRAME_BIG]; i++)
		sum += fr.meta[i].placed ? BLOCK_SIZE : 0;
	return sum;
}

size_t frame_free_count(void)
{
	return fr.nfree;
}

uint64_t frame_bytes(void)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < fr.fresh[FRAME_BIG]; i++)
		sum += fr.meta[i].bytes;
	for (size_t i = fr.nbig; i < fr.fresh[FRAME_SMALL]; i++)
		sum += fr.meta[i].bytes;
	return sum;
}

void frame_vacated(uint32_t f)
{
	uint32_t *head = fr.empty + frame_kind(f);

	fr.meta[f] = (struct frame){ .next = *head };
	*head = f;
}

void frame_recycle(uint32_t f, bool zeroed)
{
	if (fr.meta[f].placed) {
		fr.meta[f] = (struct frame){ .next = fr.placed_head, .placed = true };
		fr.placed_head = f;
		return;
	}
	fr.meta[f] = (struct frame){ .next = fr.free_head, .zeroed = zeroed, .bytes = BLOCK_SIZE };
	fr.free_head = f;
	fr.nfree++;
}

bool frame_release_part(char *addr, size_t len)
{
	/*
	 * On registered memory madvise waits until its event was read, which whoever reads them
	 * may not do before the caller gives up the lock.
	 */
	if (uffd_unregister(fr.uffd, addr, len))
		return false;
	k_madvise(addr, len, MADV_DONTNEED);
	return !uffd_register(fr.uffd, addr, len, false);
}

void frame_release(uint32_t f, char *addr, size_t len)
{
	bool empty = frame_release_part(addr, len);
	engine_account(-(int64_t)fr.meta[f].bytes);
	if (fr.meta[f].placed)
		engine.placed -= BLOCK_SIZE;
	fr.meta[f] = (struct frame){ 0 };
	/* Where the kernel has no mapping left for that it is not used again. */
	if (empty)
		frame_vacated(f);
}

void frame_give_back(void)
{
	uint32_t f = frame_recycled(false);

	if (f != NO_FRAME)
		frame_release(f, frame_start(f), BLOCK_SIZE);
}

void frame_zero(uint32_t f)
{
	char *p = frame_start(f);
	const struct frame *m = fr.meta + f;

	if (m->holes && !k_madvise(p, BLOCK_SIZE, MADV_POPULATE_WRITE)) /* 5.14 */
		return;
	if (!m->zeroed)
		memset(p, 0, BLOCK_SIZE);
}
