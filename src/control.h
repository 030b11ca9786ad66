/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control thread runs structural operations (engine.c) for program threads,
 * one at a time, in the order in which they were asked for. A program thread waits
 * by futex: it needs no descriptor for it, and no lock is held meanwhile, so that its
 * signal handlers may ask, too.
 */
#ifndef EMF_CONTROL_H
#define EMF_CONTROL_H

#include <stdbool.h>
#include <stdint.h>

void *control_main(void *unused);
/*
 * By a program thread. refusable: -EAGAIN rather than wait until another thread's fork is
 * done, for who holds what that fork waits for.
 */
long control_call(long (*fn)(uintptr_t, uintptr_t, unsigned), uintptr_t start, uintptr_t end,
		  unsigned why, bool refusable);
/*
 * Inside an operation: from now on only requests of this operation's thread are served, and
 * refusable ones of others are refused.
 */
void control_pause(bool on);
void control_after_fork(void);

/*
 * By the mover, which must not wait for a fault: its own request, one at a time. post: false, the
 * one before is not done yet. posted: is it done by now, or within so long?
 */
bool control_post(long (*fn)(uintptr_t, uintptr_t, unsigned), uintptr_t start, uintptr_t end,
		  unsigned why);
bool control_posted(int timeout_ms);

#endif
