/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the program does to its address space, applied to regions and blocks: by the
 * fault thread when it has read the kernel's event (munmap, mremap, madvise, by whatever
 * way the call was made), by who makes the call itself while nothing is registered.
 * All under engine.lock; nothing here waits, and nothing touches the address space.
 */
#ifndef EMF_CHANGE_H
#define EMF_CHANGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Makes `at` a boundary between regions, if it lies inside one. -ENOMEM. */
int change_cut(uintptr_t at);
int change_isolate(uintptr_t start, uintptr_t end);

/* Regions in the range are no more. */
void change_gone(uintptr_t start, uintptr_t end);
/* The region that ends at `old` goes on to `end`: its mapping has grown. */
void change_grown(uintptr_t old, uintptr_t end);

/* It was moved (kernel.h: UFFD_MOVED), or its content discarded. */
void change_moved(uintptr_t from, uintptr_t end, uintptr_t to);
void change_discarded(uintptr_t start, uintptr_t end);

/*
 * Ranges of which nothing may be evicted for now. add: -EAGAIN: too many at once. drop ends the
 * one that is just this range.
 */
int change_hold(uintptr_t start, uintptr_t end);
void change_release(uintptr_t start, uintptr_t end);
bool change_held(uintptr_t start, size_t len);
/* The discard of that range has been carried out: its holds are over. */
void change_discard_done(uintptr_t start, uintptr_t end);
/* Ends those of discards that the kernel has carried out. By the mover; true: some are left. */
bool change_settle(void);

/* In the child of a fork. */
void change_after_fork(void);

#endif
