/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the interposed functions share. preload/ translates calls of libc into calls
 * of the engine and restores errno; it decides only what is eligible.
 */
#ifndef EMF_PRELOAD_H
#define EMF_PRELOAD_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EXPORT __attribute__((visibility("default")))

/* The kernel's convention, of which -4095 to -1 are errors, to libc's. */
static inline long edge(long r)
{
	if (r >= 0 || r <= -4096)
		return r;
	errno = (int)-r;
	return -1;
}

/* Allocations and mappings of at least so many bytes are managed. SIZE_MAX: none, yet or at all. */
extern size_t managed_min;
extern bool managed_heap;
/* mlockall(MCL_FUTURE): new memory must not leave. */
extern bool lock_future;

/* Is malloc the one of this library? Not where an allocator is linked into the program. */
bool malloc_is_ours(void);

/*
 * The lengths of large allocations, by address: kept apart from regions, which the
 * program may split or give up (mprotect, mlock ...) before it frees. Lock-free; a
 * record belongs to whoever owns the allocation. large_add is false when it is full.
 */
bool large_add(void *p, size_t len);
size_t large_length(const void *p); /* 0: not one */
void large_remove(void *p);

/* Fresh memory, aligned (at least to a page), not yet a region. NULL: none. */
void *map_aligned(size_t len, size_t align);

/* mmap (adopting nothing), munmap, mremap, madvise where memory may be managed. -errno. */
long map_over(void *addr, size_t len, int prot, int flags, int fd, long off);
int unmap(void *addr, size_t len);
long remap(void *addr, size_t old_len, size_t new_len, int flags, void *to);
int advise(void *addr, size_t len, int advice);

/* What of the range, of any alignment, is managed stays local, for KEPT_* reasons (region.h). */
void keep_local(const void *addr, size_t len, unsigned why);

/* direct.c: read, pread64, readv, preadv and preadv2 by number; -errno. */
long direct_read(long n, long fd, long buf, long len, long at, long high, long flags);
/* It has just made, or is about to use, what reads behind its calls. */
void direct_async(void);

/* dma.c, around fork.c's. */
void dma_before_fork(void);
void dma_after_fork_parent(void);
void mman_after_fork_child(void);
void dma_after_fork_child(void);

/* init.c: what is to be done around a fork, by whatever call. own_descriptors: as in fork.h. */
void before_fork(bool own_descriptors);
void after_fork_parent(void);
void after_fork_child(void);
/* engine.heap=all, see heap.c. */
extern bool heap_all;
/* From the constructor. False: cannot tell libc's allocations apart. */
bool heap_start(void);
/* jemalloc's flags for an allocation that `caller` (a return address) asks for; 0: none. */
int heap_flags(size_t size, const void *caller);
/* After an allocation, without locks: what the heap grew by becomes managed. */
extern _Atomic unsigned heap_fresh; /* > 0: there is something to do */
void heap_settle(void);
void heap_fork_child(void);

/* jemalloc, under the names that the build gives it. */
void *je_malloc(size_t size);
void *je_calloc(size_t n, size_t size);
void *je_realloc(void *p, size_t size);
void je_free(void *p);
int je_posix_memalign(void **out, size_t align, size_t size);
void *je_aligned_alloc(size_t align, size_t size);
void *je_memalign(size_t align, size_t size);
size_t je_malloc_usable_size(void *p);
void *je_mallocx(size_t size, int flags);
void *je_rallocx(void *p, size_t size, int flags);
void je_dallocx(void *p, int flags);

#endif
