/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The watch thread: serves requests (mailbox.h), and lets local.limit follow the memory there is
 * when it is given as a percentage or as auto. It runs in every process that has started its
 * engine or has much to manage, and sleeps on a futex. In those that have little a request waits
 * until they manage more.
 */
#ifndef EMF_WATCH_H
#define EMF_WATCH_H

/* Unless it runs, or has nothing to do. By any thread, once the keeper runs. */
void watch_start(void);
/* By a program thread while the engine is IDLE: starts it and the keeper when there is much. */
void watch_consider(void);
/* By a program thread while the engine is IDLE and nobody attends to requests: under engine.ops. */
void watch_look(void);
void watch_after_fork(void);

#endif
