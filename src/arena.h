/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory for the runtime's own bookkeeping: never managed, never from the
 * program's allocator, so that it can be used while program threads are stopped
 * anywhere, malloc included. Blocks of powers of two from 64 bytes on chunks of
 * raw mmap; larger ones are mappings of their own. Any thread.
 */
#ifndef EMF_ARENA_H
#define EMF_ARENA_H

#include <stddef.h>

/* Zeroed memory, 64-byte aligned (page aligned from 64 KiB on); NULL: out of memory. */
void *arena_alloc(size_t size);
/* size: as it was given to arena_alloc. NULL is allowed. */
void arena_free(void *p, size_t size);
/* Nobody is inside while the process forks; after_fork on both sides. */
void arena_before_fork(void);
void arena_after_fork(void);

#endif
