/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fork, as three handlers around the system call, in the thread that forks.
 *
 * prepare: nothing is in flight and nothing in standby any more; then all of the engine's
 * memory stands still (engine.forking), so that the child's copy of it is whole.
 * Faults are served meanwhile by copies that change nothing (fault.c), for the
 * thread that forks may wait for locks whose holders wait for a page.
 *
 * What is local the kernel copies on write. What is far stays far: the child becomes
 * a member of the family that shares the slots (slot.h), with descriptors that
 * come through a socket, and starts a runtime of its own before it goes on. Where
 * that can't be, everything is pulled local before, and of files it gets mappings.
 */
#ifndef EMF_FORK_H
#define EMF_FORK_H

#include <stdbool.h>

/* own_descriptors: the child gets a descriptor table of its own. */
void fork_prepare(bool own_descriptors);
void fork_parent(void);
void fork_child(void);
/*
 * Last in the child, when the allocator is in order: where memory is in place (place.h), and
 * nothing was inherited, its runtime starts at once. What is written before that is not counted.
 */
void fork_go_on(void);

/* Is the calling thread between prepare and parent, with engine.ops taken? */
bool fork_is_mine(void);
/* Was this process forked with far memory, so that fork_boot starts its runtime? */
bool fork_inherited(void);
/* By the child's mover thread, instead of engine_boot. */
bool fork_boot(void);

#endif
