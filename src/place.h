/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blocks in place on a slow node (store.in_place): memory of a node without CPUs, as CXL memory
 * is, is mapped like any other. What leaves local memory is copied there first and mapped again, as
 * long as there is room: using it raises no fault, and it counts in engine.placed, not against the
 * budget.
 *
 * A page has a node, wherever UFFDIO_MOVE moves it to: frames with such pages are kept apart
 * (frame.h: placed), and a block that is mapped with one is LOCAL and `placed`. It is on
 * engine.in_place, out of the policy's sight. Whatever may bring some of it to local memory (a
 * discard, a cut) makes a common LOCAL block of it; when that is taken, its pages are asked where
 * they lie, and it counts for what it is.
 *
 * A few at a time are taken out of the page table (STANDBY): who comes back soon, again and again,
 * is copied to local memory, at most store.rebuild a second, the less easily the more often it was
 * moved; and the slower, the more of what has made way for that is used at once. Who does not come
 * back makes room.
 *
 * With a fork the pages are shared, and stay where they are; a copy that is made for who writes
 * first comes to lie in local memory. So they are protected in both, and who writes makes room
 * first, as a thread does that touches something new.
 *
 * All under engine.lock but place_init and place_copy.
 */
#ifndef EMF_PLACE_H
#define EMF_PLACE_H

#include <stdbool.h>
#include <stdint.h>

struct block;
struct transfer_pool;

/* At the start of the engine, when the settings are known. */
void place_init(void);
void place_after_fork(void);
/* Does what leaves go there at all? */
bool place_is_on(void);
/* Is there more of it than there is to be? Some was thought to be local. */
bool place_is_over(void);
/* Do all pages of the 2 MiB lie there? split: it is not one huge page. */
bool place_holds(void *p, bool split);

/* --- the mover's --- */

/* May b, STANDBY, go there? */
bool place_wants(const struct block *b);
/* A frame for that, or NO_FRAME. Gives up the lock meanwhile; b is in flight. */
uint32_t place_frame(void);
/* Without the lock. */
void place_copy(uint32_t to, uint32_t from);
/* Samples, and brings to local memory what is used. */
void place_work(struct transfer_pool *pool);
/* Has it something to do soon? */
bool place_is_busy(void);

/* --- anybody's --- */

/* It was mapped with a page of the node. */
void place_arrived(struct block *b);
/* Its pages are shared from now on: who writes faults. */
void place_guard(struct block *b);
/* Who was served while a fork was under way has had some of it copied. */
void place_look_behind(struct block *b);
/* Somebody writes to what is guarded. False: there is no room for that. */
bool place_written(struct block *b);
/*
 * What is LOCAL of the range, and held so, has its pages brought to local memory by the kernel.
 * Gives up the lock meanwhile.
 */
void place_bring(uintptr_t start, uintptr_t end);

#endif
