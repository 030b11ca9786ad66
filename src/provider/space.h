/* SPDX-License-Identifier: Apache-2.0 */
/* A provider's space in private memory of this process, which is there once it is written to. */
#ifndef EMF_PROVIDER_SPACE_H
#define EMF_PROVIDER_SPACE_H

#include <errno.h>
#include <stdint.h>

#include "emfatier-provider.h"
#include "own.h"

#define SPACE_HUGE_PAGE (2ull << 20)

struct space {
	void *map;
	size_t length;	     /* of map */
	unsigned char *base; /* of the space, at the begin of a huge page */
};

static inline int space_map(struct space *s, uint64_t size)
{
	size_t length = (size_t)(size + SPACE_HUGE_PAGE);
	long at = syscall(SYS_mmap, NULL, length, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0L);

	if (at == -1)
		return -errno;
	s->map = (void *)at;
	s->length = length;
	s->base = (unsigned char *)(((uintptr_t)at + SPACE_HUGE_PAGE - 1) & ~(SPACE_HUGE_PAGE - 1));
	/* Huge pages are a matter of speed: without them it works as well. */
	syscall(SYS_madvise, s->base, (size_t)size, MADV_HUGEPAGE);
	return 0;
}

static inline void space_unmap(const struct space *s)
{
	syscall(SYS_munmap, s->map, s->length);
}

static inline int space_trim(const struct space *s, uint64_t offset, size_t length)
{
	return syscall(SYS_madvise, s->base + offset, length, MADV_DONTNEED) ? -errno : 0;
}

/* A forked child gets a copy of the memory, and with it of all that is in the space. */
static inline int space_descriptors(const struct emf_backend *be, int *fds, int max)
{
	(void)be;
	(void)fds;
	(void)max;
	return 0;
}

static inline int space_forked(struct emf_backend *be, const int *fds)
{
	(void)be;
	(void)fds;
	return 0;
}

#endif
