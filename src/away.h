/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Taking pages out of the program's memory where UFFDIO_MOVE does not work: before Linux 6.8,
 * and from mappings that the program may not write.
 *
 * By mremap, which unmaps them in one step and leaves the mapping as it is (MREMAP_DONTUNMAP,
 * 5.7), into a place of the runtime's own, from where they are copied. madvise(MADV_DONTNEED)
 * would not do: its events can't be told from those of the program's own discards, least of all
 * where the program cuts or joins mappings meanwhile.
 */
#ifndef EMF_AWAY_H
#define EMF_AWAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct uffd;

struct taken {
	size_t taken; /* bytes of it that are in dst; the rest is still in place */
	bool holes;   /* of these not every page was there */
};

/*
 * The content of [src, src + len) is in dst, and its pages are no more. By one thread at a time,
 * without engine.lock: waits for who reads the events. Nothing else may change the mapping
 * meanwhile. -errno: not, or only the first part of it (out->taken). Locked memory is refused.
 */
int away_take(const struct uffd *u, void *dst, void *src, size_t len, struct taken *out);

/* Is the address in that place of our own? Events of it are none of the program's. */
bool away_is_own(uintptr_t addr);

#endif
