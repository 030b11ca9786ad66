/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The start of the engine in a program whose malloc is not ours (an allocator linked into
 * it): libc's pthread_create and dlopen allocate by that malloc. The memory that makes the
 * start necessary is as a rule what that allocator maps, with its locks held; so the start
 * can't be made there. A thread that was made beforehand makes it: in the library's
 * constructor, and in the child of a fork behind all fork handlers. It sleeps until it is asked,
 * starts the engine's threads and ends.
 */
#ifndef EMF_STARTER_H
#define EMF_STARTER_H

#include <stdbool.h>

/* By a program thread, outside of its allocator. False: no thread is to be had. */
bool starter_make(void);
bool starter_ready(void);
/* Starts the engine, whose phase is STARTING. Does not wait. */
void starter_ask(void);
void starter_after_fork(void);

#endif
