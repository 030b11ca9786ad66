/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that the kernel, or a device, may be writing to page by page, past the page table: reads
 * with O_DIRECT. What is copied out at that moment misses what comes later, and nothing tells:
 * UFFDIO_MOVE refuses pages that are pinned (FOLL_PIN), but not those that NFS merely holds a
 * reference to (FOLL_GET); and where pages are copied, nothing is refused. So the block is not
 * taken while such a call is under way.
 *
 * Lock-free, for program threads, also in signal handlers: whoever pins counts himself and then
 * looks for who takes; who takes (the mover) says so and then looks for counts.
 */
#ifndef EMF_PINNED_H
#define EMF_PINNED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* --- by the program --- */

struct pinned {
	uintptr_t start;
	size_t len; /* 0: of all memory */
	uint32_t forks;
};

/* Until the end of *p nothing of it is taken; len 0: nothing at all. May wait for a copy. */
void pinned_begin(struct pinned *p, uintptr_t addr, size_t len);
void pinned_end(const struct pinned *p);

/*
 * Reads that go on behind the call (AIO, io_uring), whose end can't be seen: from when a program
 * has both what makes them and a descriptor with O_DIRECT, nothing is taken by copy any more.
 */
void pinned_async(void);
void pinned_direct(void);
/* Is a descriptor of that kind known? */
bool pinned_has_direct(void);

/* In the child of a fork, where none of that is under way. */
void pinned_after_fork(void);

/* --- by who takes a block, or its pages; under engine.lock --- */

/* False: not now, or another block is being taken (who copies gives up the lock). Else *nobody*
 * pins pages of the block before pinned_taken. */
bool pinned_take(uintptr_t start, bool copy);
void pinned_taken(void);
/* Nothing can be taken by copy any more. */
bool pinned_for_ever(void);

#endif
