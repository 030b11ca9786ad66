/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory for what a provider keeps between calls, past malloc: that may be the program's, whose
 * memory is managed and whose locks a thread that waits for a page may hold. Whole pages, for
 * the few things that there are one or two of.
 */
#ifndef EMF_PROVIDER_OWN_H
#define EMF_PROVIDER_OWN_H

#include <stddef.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Zeroed; NULL: none left. */
static inline void *own_alloc(size_t size)
{
	long at = syscall(SYS_mmap, NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			  -1, 0L);

	return at == -1 ? NULL : (void *)at;
}

static inline void own_free(void *p, size_t size)
{
	if (p)
		syscall(SYS_munmap, p, size);
}

/* Not for core files. */
static inline void own_keep_secret(void *p, size_t size)
{
	(void)syscall(SYS_madvise, p, size, MADV_DONTDUMP);
}

#endif
