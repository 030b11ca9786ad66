/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The end of a program whose main thread ended by pthread_exit: libc ends the process
 * when the last thread ends, but it counts the runtime's threads, too. So the mover
 * looks for that now and then, and the keeper thread, which shares the program's
 * descriptors (the others have their own), ends the process as libc would: exit(0).
 */
#ifndef EMF_KEEPER_H
#define EMF_KEEPER_H

#include <stdbool.h>

/*
 * By a thread with the program's descriptors, unless it runs already. False: it could not be
 * started; for who must have it that takes seconds.
 */
bool keeper_start(bool must);
void keeper_after_fork(void);
/* The start failed: no thread of ours is left to be told apart. */
void keeper_dismiss(void);
/* By the mover or, while that does not run, the watch, any number of times a second. */
void keeper_look(void);

/* By the starter, which is there before the others: is it the last thread? Then it ends, too. */
void keeper_look_alone(void);

#endif
