/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frames: positions of 2 MiB in a staging area of the runtime's own, through
 * which physical pages circulate. All under engine.lock but the touching itself.
 *
 * EMPTY has no page (blocks are taken into it), FREE has pages with old content
 * (fetches land in it), USED belongs to a block or a transfer. Physical pages are
 * recycled between FREE and the program, never freed and zeroed on the way.
 *
 * There are two pools: full blocks use frames with a huge-page hint that are
 * counted as 2 MiB while they have pages; short blocks (the ends of regions, small
 * regions) use frames without one, of which only the block's own range is ever
 * populated and which are emptied after each use.
 *
 * The area is registered with userfaultfd for write-protection only (MOVE wants
 * its target registered), so the runtime may touch it: absent pages read as zero.
 */
#ifndef EMF_FRAME_H
#define EMF_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct block;
struct transfer;
struct uffd;

struct frame {
	struct block *owner;	   /* whose content it holds; NULL: nobody's any more */
	struct transfer *transfer; /* reads or writes it now */
	uint32_t next;		   /* of the free lists */
	uint32_t bytes;		   /* that its pages count for in engine.local */
	bool zeroed;		   /* FREE and all zero */
	bool holes;		   /* pages are missing: not worth recycling; populate before use */
	bool paged;		   /* of what was moved there: not one huge page */
	bool placed; /* its page lies on a slow node and counts for nothing: place.h */
	bool split;  /* has a page table, if an empty one: see block_look_for_split */
};

enum frame_kind { FRAME_BIG, FRAME_SMALL };
/* A page, there or not, of which the kernel can be asked something without splitting a huge one. */
void *frame_small_page(void);

/*
 * big: positions for full blocks, small: for short ones. Those that are never used cost address
 * space only. -ENOMEM (it may be tried again with fewer) or uffd's errors.
 */
int frame_init(const struct uffd *u, size_t big, size_t small);
/* In the child, which did not inherit the area. */
void frame_after_fork(void);

/* All of them. */
const void *frame_area(size_t *bytes);

/* munlock of the area. */
void frame_unlock(void);

struct frame *frame_meta(uint32_t f);
/* Where the frame begins. */
char *frame_start(uint32_t f);
/* Where the block's bytes are in frame f. */
char *frame_addr(uint32_t f, const struct block *b);
enum frame_kind frame_kind(uint32_t f);

/* A position without pages, or NO_FRAME. */
uint32_t frame_empty(enum frame_kind k);
/* A big one with pages, FREE before, or NO_FRAME. zeroed: prefer one that is all zero. */
uint32_t frame_recycled(bool zeroed);
/* The same of those on a slow node. */
uint32_t frame_placed(void);
bool frame_has_placed(void);
/* What all those count for, and those in use. */
uint64_t frame_placed_bytes(void);
/* In use: it counts as local from now on, wherever its pages lie. */
void frame_unplace(uint32_t f);
size_t frame_free_count(void);
/* What all frames together count for. Slow: for engine_audit. */
uint64_t frame_bytes(void);

/* Its pages have a new owner: the position is EMPTY. */
void frame_vacated(uint32_t f);
/* Its content is not needed: FREE. */
void frame_recycle(uint32_t f, bool zeroed);
/* Gives the pages of [addr, addr + len) back to the kernel: EMPTY. */
void frame_release(uint32_t f, char *addr, size_t len);
/* The same for a part of a frame that stays in use. */
bool frame_release_part(char *addr, size_t len);
/* One FREE frame less: its pages go back to the kernel. */
void frame_give_back(void);
/* Makes all of a big frame's pages present and zero. Slow; call it without the lock. */
void frame_zero(uint32_t f);

#endif
