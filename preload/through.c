/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What libc builds on malloc, through the symbol, as libc does it: an allocator linked into
 * the program has malloc and free, but leaves these to libc, and must be able to free what they
 * give. They are interposed because libc's own call of malloc would count as libc's own memory
 * (heap.c), which this is not.
 *
 * Here, and not in malloc.c, so that the compiler does not take our malloc for the only one.
 */
#define _GNU_SOURCE
#define JEMALLOC_NO_RENAME
#include <errno.h>
#include <jemalloc/jemalloc.h>
#include <stdlib.h>
#include <string.h>

#include "preload.h"

EXPORT char *strdup(const char *s)
{
	size_t len = strlen(s) + 1;
	void *p = malloc(len);

	return p ? memcpy(p, s, len) : NULL;
}

EXPORT char *strndup(const char *s, size_t max)
{
	size_t len = strnlen(s, max);
	char *p = malloc(len + 1);

	if (!p)
		return NULL;
	p[len] = '\0';
	return memcpy(p, s, len);
}

EXPORT void *reallocarray(void *p, size_t n, size_t size)
{
	size_t total;

	if (__builtin_mul_overflow(n, size, &total)) {
		errno = ENOMEM;
		return NULL;
	}
	return realloc(p, total);
}

bool malloc_is_ours(void)
{
	/* volatile: or the compiler leaves the pair out. */
	void *(*volatile get)(size_t) = malloc;
	void (*volatile put)(void *) = free;
	volatile uint64_t *allocated; /* by this thread */
	size_t n = sizeof(allocated);

	if (je_mallctl("thread.allocatedp", (void *)&allocated, &n, NULL, 0))
		return true;
	uint64_t before = *allocated;
	put(get(1));
	return *allocated != before;
}
