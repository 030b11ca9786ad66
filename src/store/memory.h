/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory of the store's links: from the runtime's arena, as libc's malloc may be the program's own
 * and its memory far. Zeroed, 64-byte aligned; any thread.
 */
#ifndef EMF_STORE_MEMORY_H
#define EMF_STORE_MEMORY_H

#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "arena.h"

#define STORE_MEMORY_HEAD 64u /* holds the size, and keeps the alignment */

static inline void *store_alloc(size_t n, size_t size)
{
	size_t bytes;

	if (__builtin_mul_overflow(n, size, &bytes) || bytes + STORE_MEMORY_HEAD < bytes)
		return NULL;
	bytes += STORE_MEMORY_HEAD;
	size_t *p = arena_alloc(bytes);
	if (!p)
		return NULL;
	*p = bytes;
	return (char *)p + STORE_MEMORY_HEAD;
}

static inline void store_free(void *p)
{
	if (!p)
		return;
	size_t *head = (size_t *)(void *)((char *)p - STORE_MEMORY_HEAD);
	arena_free(head, *head);
}

/* A table that the kernel fills as it is used: MAP_PRIVATE, or MAP_SHARED with forked children. */
static inline void *store_table(uint64_t n, size_t size, int sharing)
{
	long at = syscall(SYS_mmap, NULL, n * size, PROT_READ | PROT_WRITE,
			  sharing | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0L);

	return at == -1 ? NULL : (void *)at;
}

static inline void store_untable(void *p, uint64_t n, size_t size)
{
	if (p)
		syscall(SYS_munmap, p, n * size);
}

#endif
