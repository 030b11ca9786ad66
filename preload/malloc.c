/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The malloc family. Large allocations are a region each; small ones are jemalloc's and
 * stay local, or (heap=all) come from arenas that are managed. C++'s operator new
 * comes through malloc.
 */
#define _GNU_SOURCE
#define JEMALLOC_NO_RENAME
#include <errno.h>
#include <jemalloc/jemalloc.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "engine.h"
#include "kernel.h"
#include "preload.h"

size_t managed_min = SIZE_MAX;
bool managed_heap;

static size_t pages(size_t size)
{
	return (size + K_PAGE - 1) & ~(size_t)(K_PAGE - 1);
}

static bool is_large(size_t size)
{
	return size >= managed_min && size <= PTRDIFF_MAX && managed_heap && !lock_future &&
	       engine_wants(size);
}

/*
 * Serves a large request; false: it is jemalloc's after all. *out is NULL with ENOMEM
 * where the kernel has no such memory (jemalloc would get it, without a reserve).
 */
static bool large_alloc(size_t size, size_t align, void **out, const void *caller)
{
	int saved = errno;
	size_t len = pages(size);
	char *p;

	if (__builtin_expect(!is_large(size), 1))
		return false;
	p = *out = map_aligned(len, align);
	if (!p) {
		errno = ENOMEM;
		return true;
	}
	bool mine = large_add(p, len);
	if (mine && !engine_adopt(p, len, caller)) {
		large_remove(p);
		mine = false;
	}
	if (!mine)
		k_munmap(p, len);
	errno = saved;
	return mine;
}

/* The address that the interposed function returns to. */
#define CALLER __builtin_return_address(0)

/*
 * Small allocations. With heap=all either as jemalloc's plain functions do it, as the thread is
 * bound to an arena, or from another arena by flags: mallocx wants a size and sets no errno.
 */
static void *finish(void *p)
{
	if (__builtin_expect(atomic_load_explicit(&heap_fresh, memory_order_relaxed) != 0, 0))
		heap_settle();
	return p;
}

static void *flagged_alloc(size_t size, int flags)
{
	void *p = size <= PTRDIFF_MAX ? je_mallocx(size ? size : 1, flags) : NULL;

	if (!p)
		errno = ENOMEM;
	return finish(p);
}

static void *small_malloc(size_t size, const void *caller)
{
	int flags = heap_all ? heap_flags(size, caller) : 0;

	return flags ? flagged_alloc(size, flags) : finish(je_malloc(size));
}

static void *small_aligned(void *(*fn)(size_t, size_t), size_t align, size_t size,
			   const void *caller)
{
	int flags = heap_all ? heap_flags(size, caller) : 0;

	if (flags && align && !(align & (align - 1)))
		return flagged_alloc(size, flags | MALLOCX_ALIGN(align));
	return finish(fn(align, size));
}

static void *alloc(size_t size, const void *caller)
{
	void *p;

	return large_alloc(size, K_PAGE, &p, caller) ? p : small_malloc(size, caller);
}

static void *alloc_aligned(void *(*fn)(size_t, size_t), size_t align, size_t size,
			   const void *caller)
{
	void *p;

	if (align && !(align & (align - 1)) && large_alloc(size, align, &p, caller))
		return p;
	return small_aligned(fn, align, size, caller);
}

EXPORT void *malloc(size_t size)
{
	return alloc(size, CALLER);
}

EXPORT void *calloc(size_t n, size_t size)
{
	size_t total;
	void *p;

	/* Fresh mappings are zero. */
	if (!__builtin_mul_overflow(n, size, &total)) {
		if (large_alloc(total, K_PAGE, &p, CALLER))
			return p;
		int flags = heap_all ? heap_flags(total, CALLER) : 0;
		if (flags)
			return flagged_alloc(total, flags | MALLOCX_ZERO);
	}
	return finish(je_calloc(n, size));
}

EXPORT void free(void *p)
{
	size_t len = large_length(p);

	if (!len) {
		/* The runtime's threads have no cache that a tiered object could get into. */
		if (engine_thread && heap_all && p)
			je_dallocx(p, MALLOCX_TCACHE_NONE);
		else
			je_free(p);
		return;
	}
	int saved = errno;
	/* Before the address can be given out again. */
	large_remove(p);
	unmap(p, len);
	errno = saved;
}

/* Without a copy: the kernel moves pages, and what is far stays there. */
static void *large_realloc(void *p, size_t old, size_t len)
{
	if (len == old)
		return p;
	int saved = errno;
	/* Before the address can be given out again. */
	large_remove(p);
	long r = remap(p, old, len, len < old ? 0 : MREMAP_MAYMOVE, NULL);
	errno = saved;
	void *q = r < 0 ? p : (void *)r;
	if (large_add(q, r < 0 ? old : len)) {
		if (r >= 0 || len < old)
			return q;
		errno = ENOMEM;
		return NULL;
	}
	/* No room for a record: jemalloc's from now on. */
	void *copy = je_malloc(len);
	if (!copy)
		return NULL;
	memcpy(copy, q, old < len ? old : len);
	unmap(q, r < 0 ? old : len);
	return copy;
}

static void *small_realloc(void *p, size_t size, const void *caller)
{
	int flags = heap_all ? heap_flags(size, caller) : 0;

	if (!flags)
		return finish(je_realloc(p, size));
	if (!size) {
		free(p);
		return NULL;
	}
	void *q = size <= PTRDIFF_MAX ? je_rallocx(p, size, flags) : NULL;
	if (!q)
		errno = ENOMEM;
	return finish(q);
}

static void *resize(void *p, size_t size, const void *caller)
{
	size_t old = large_length(p);

	if (!p)
		return alloc(size, caller);
	if (!old && !is_large(size))
		return small_realloc(p, size, caller);
	if (!size) {
		free(p);
		return NULL;
	}
	if (old && is_large(size))
		return large_realloc(p, old, pages(size));

	size_t have = old ? old : je_malloc_usable_size(p);
	void *q = alloc(size, caller);
	if (!q)
		return NULL;
	memcpy(q, p, have < size ? have : size);
	free(p);
	return q;
}

EXPORT void *realloc(void *p, size_t size)
{
	return resize(p, size, CALLER);
}

EXPORT int posix_memalign(void **out, size_t align, size_t size)
{
	bool valid = align && !(align & (align - 1)) && align % sizeof(void *) == 0;
	int saved = errno, err = 0;
	void *p;

	if (!valid)
		return EINVAL;
	if (!large_alloc(size, align, &p, CALLER)) {
		int flags = heap_all ? heap_flags(size, CALLER) : 0;
		if (flags)
			p = flagged_alloc(size, flags | MALLOCX_ALIGN(align));
		else
			err = je_posix_memalign(&p, align, size);
		finish(NULL);
	}
	errno = saved; /* it answers by its result alone */
	if (err || !p)
		return err ? err : ENOMEM;
	*out = p;
	return 0;
}

EXPORT void *aligned_alloc(size_t align, size_t size)
{
	return alloc_aligned(je_aligned_alloc, align, size, CALLER);
}

EXPORT void *memalign(size_t align, size_t size)
{
	return alloc_aligned(je_memalign, align, size, CALLER);
}

EXPORT void *valloc(size_t size)
{
	return alloc_aligned(je_memalign, K_PAGE, size, CALLER);
}

EXPORT void *pvalloc(size_t size)
{
	if (size > PTRDIFF_MAX) {
		errno = ENOMEM;
		return NULL;
	}
	return alloc_aligned(je_memalign, K_PAGE, size ? pages(size) : K_PAGE, CALLER);
}

EXPORT size_t malloc_usable_size(void *p)
{
	size_t len = large_length(p);

	return len ? len : je_malloc_usable_size(p);
}
