/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blocks in place on a slow node (store.in_place): memory of a node without CPUs, as CXL memory
 * is, is mapped like any other. What leaves local memory is copied there first and mapped again, as
 * long as there is room: using it raises no fault, and it counts nothing against the budget.
 *
 * A page has a node, wherever it is moved to: frames with such pages are kept apart (frame.h:
 * placed), and a block that is mapped with one is LOCAL and `placed`. It is on engine.in_place, out
 * of the policy's sight. A few at a time are taken out of the page table (STANDBY): who comes back
 * soon, again and again, is copied to local memory, at most store.rebuild a second, the less easily
 * the more often it was moved; who does not come back makes room.
 *
 * All but place_init is the mover's, under engine.lock.
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
/* Is what the big frame holds all of the slow node's? split: it is not one huge page. */
bool place_has(uint32_t f, bool split);

/* May b, STANDBY, go there? */
bool place_wants(const struct block *b);
/* A frame for that, or NO_FRAME. Gives up the lock meanwhile; b is in flight. */
uint32_t place_frame(void);
/* Without the lock. */
void place_copy(uint32_t to, uint32_t from);

/* It was mapped with a page of the node. */
void place_arrived(struct block *b);
/* Samples, and brings to local memory what is used. True: there is more to do at once. */
bool place_work(struct transfer_pool *pool);

#endif
