/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The fault thread: reads the userfaultfd, resolves what can be resolved at once, starts
 * demand reads on a queue of its own, and never waits for bulk traffic. While single pages are
 * wanted it leaves the blocks that other threads want to the mover. With cores for it there are
 * several, of which one reads at a time: see lead.h.
 */
#ifndef EMF_FAULT_H
#define EMF_FAULT_H

#include <stdbool.h>

struct uffd_message;

/* Before the threads are started: their queue. */
int fault_open(void);
/* The first is two threads, of which one serves at a time: see follow.h. False: none can be
 * started. */
bool fault_spawn(void);
void fault_after_fork(void);
/*
 * Under engine.lock, given up meanwhile: all changes of the address space that ended before the
 * call are applied. By the control thread, before memory at an address that was just
 * given out becomes a region: the map may still have there what was munmapped or moved away.
 */
void fault_catch_up(void);
/*
 * While engine.forking nothing of the engine may change: faults are served by copies into
 * place, and other events are put off. Under engine.lock: is no such copy under way?
 * After that, carries out what was put off.
 */
bool fault_rescued(void);
void fault_deferred(void);
/*
 * engine.fault=signal: a program's thread resolves its fault itself (sigfault.h). FAULT_GIVE: it is
 * for the fault thread to do. FAULT_FOREIGN: userfaultfd has nothing to do with it.
 */
enum fault_here { FAULT_FOREIGN, FAULT_GIVE, FAULT_TRIED };
enum fault_here fault_here(const struct uffd_message *m);
/* The first half of it. */
enum fault_here fault_is_ours(const struct uffd_message *m);
/* Under engine.lock: does the store owe it all of its transfers? */
bool fault_stuck(void);

#endif
