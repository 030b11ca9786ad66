/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Regions in the place of file mappings: anonymous memory that is filled from the file (source.h)
 * and, as the program can't write to it, evicted to nothing.
 *
 * The program maps the file itself. While everything fits that stays as it is: the region is only
 * an entry in the map. When the engine is ACTIVE, memory of which all blocks are FAR, in the file,
 * takes its place by mremap, at once for all who look. What makes it more than read-only memory
 * (mprotect, mlock, mremap, registration for DMA) puts a mapping of the file back the same way.
 *
 * To the kernel the memory is writable, as MOVE wants it, and write-protected by
 * userfaultfd: who writes makes it read-only in earnest, and gets the SIGSEGV.
 *
 * A file that changes is noticed within a second, then all of it is fetched anew; what is cut off
 * raises SIGBUS.
 */
#ifndef EMF_MAPPED_H
#define EMF_MAPPED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct region;

/* --- by program threads, without a lock --- */

struct mapping;
/*
 * Is a mapping of `fd` from `off` on, that the program is about to make, to be managed? Then
 * adopt comes after it, with where it is, or forget. NULL: it is not.
 */
struct mapping *mapped_look(size_t len, int prot, int flags, int fd, uint64_t off);
void mapped_forget(struct mapping *m);
void mapped_adopt(struct mapping *m, void *addr, const void *caller);
/* Is a part of the range managed so? */
bool mapped_in(const void *addr, size_t len);
/* It is a mapping of its file again. */
void mapped_give_back(const void *addr, size_t len);
/* MADV_RANDOM, MADV_SEQUENTIAL, MADV_NORMAL. */
void mapped_advise(const void *addr, size_t len, int advice);

/* --- by the control thread, or under engine.ops while not ACTIVE; without engine.lock --- */

void mapped_give_back_now(uintptr_t start, uintptr_t end);
/*
 * Discards what is in place of files in the range: what the kernel does not move, as a forked
 * process shares it, leaves so. For control_post.
 */
long mapped_discard(uintptr_t start, uintptr_t end, unsigned unused);
/* At the end of the start: all that is only an entry in the map. The fault thread runs. */
void mapped_start(void);

/*
 * A child that starts from anew gets mappings of the files, whatever of them is far in the parent:
 * lend makes them beside the regions, while engine.forking, unlend takes them away again; in the
 * child take_lent puts them where the regions are.
 */
void mapped_lend(void);
void mapped_unlend(void);
void mapped_take_lent(void);

/* --- with engine.lock --- */

/* A read of a file came out shorter than it was. */
void mapped_shortened(void);
/* A thread writes to [addr, addr + len) of it: from now on that is read-only for the kernel, too.
 */
void mapped_written(uintptr_t addr, size_t len);
/* By the mover, in each round: has it looked now and then whether files have changed. */
void mapped_check(void);

#endif
