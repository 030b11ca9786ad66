/* SPDX-License-Identifier: Apache-2.0 */
#include "arena.h"

#include <stdbool.h>
#include <string.h>

#include "kernel.h"
#include "lock.h"

#define MIN_SHIFT 6
#define CLASSES 10 /* 64 bytes to 32 KiB */
#define CHUNK (256u << 10)

struct free_block {
	struct free_block *next;
};

static struct lock lock = LOCK_INIT(RANK_ARENA);
static struct free_block *free_list[CLASSES];
static char *chunk, *chunk_end;

static size_t page_round(size_t size)
{
	return (size + K_PAGE - 1) & ~(size_t)(K_PAGE - 1);
}

static int class_of(size_t size)
{
	for (int i = 0; i < CLASSES; i++)
		if (size <= (size_t)1 << (MIN_SHIFT + i))
			return i;
	return -1;
}

static void *carve(size_t size)
{
	if ((size_t)(chunk_end - chunk) < size) {
		/* What is left of the old chunk is lost: at most 32 KiB in 256. */
		char *p = k_map(CHUNK);
		if (!p)
			return NULL;
		chunk = p;
		chunk_end = p + CHUNK;
	}
	char *p = chunk;
	chunk += size;
	return p;
}

void *arena_alloc(size_t size)
{
	int c = class_of(size);
	void *p;

	if (c < 0)
		return k_map(page_round(size));
	size_t bytes = (size_t)1 << (MIN_SHIFT + c);
	lock_take(&lock);
	if (free_list[c]) {
		p = free_list[c];
		free_list[c] = free_list[c]->next;
	} else {
		p = carve(bytes);
	}
	lock_give(&lock);
	if (p)
		memset(p, 0, bytes);
	return p;
}

void arena_free(void *p, size_t size)
{
	int c = class_of(size);

	if (!p)
		return;
	if (c < 0) {
		k_unmap(p, page_round(size));
		return;
	}
	struct free_block *b = p;
	lock_take(&lock);
	b->next = free_list[c];
	free_list[c] = b;
	lock_give(&lock);
}

void arena_before_fork(void)
{
	lock_take(&lock);
}

void arena_after_fork(void)
{
	lock_reset(&lock);
}
