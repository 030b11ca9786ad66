/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory of a provider's own, past malloc and mmap, which may be the program's: its memory is
 * managed, and its locks a thread that waits for a page may hold. Whole pages, for the few things
 * that are kept between calls; and spaces that lie in this process's memory.
 */
#ifndef EMF_PROVIDER_OWN_H
#define EMF_PROVIDER_OWN_H

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "emfatier-provider.h"

#define OWN_HUGE_PAGE (2ull << 20)

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

/* A space of private memory that is there once it is written to, begun at a huge page. */
struct own_space {
	void *map;
	size_t length;	     /* of map */
	unsigned char *base; /* of the space */
};

static inline int own_space_map(struct own_space *s, uint64_t size)
{
	size_t length = (size_t)(size + OWN_HUGE_PAGE);
	long at = syscall(SYS_mmap, NULL, length, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0L);

	if (at == -1)
		return -errno;
	s->map = (void *)at;
	s->length = length;
	s->base = (unsigned char *)(((uintptr_t)at + OWN_HUGE_PAGE - 1) & ~(OWN_HUGE_PAGE - 1));
	/* A matter of speed: without them it works as well. */
	syscall(SYS_madvise, s->base, (size_t)size, MADV_HUGEPAGE);
	return 0;
}

static inline void own_space_unmap(const struct own_space *s)
{
	syscall(SYS_munmap, s->map, s->length);
}

static inline int own_space_trim(const struct own_space *s, uint64_t offset, size_t length)
{
	return syscall(SYS_madvise, s->base + offset, length, MADV_DONTNEED) ? -errno : 0;
}

/* A forked child gets a copy of the memory, and with it of all that is in the space. */
static inline int own_space_descriptors(const struct emf_backend *be, int *fds, int max)
{
	(void)be;
	(void)fds;
	(void)max;
	return 0;
}

static inline int own_space_forked(struct emf_backend *be, const int *fds)
{
	(void)be;
	(void)fds;
	return 0;
}

#endif
