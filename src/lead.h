/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fault threads where there are cores for several, as leader and followers (Schmidt et al., PLoP
 * 2000): one at a time reads the userfaultfd, and before it does something that takes long without
 * engine.lock another leads that waits. Each has a pool and a queue of its own, and waits for what
 * is in flight there itself. Who leads changes under engine.lock, and only by who did.
 *
 * While one thread alone faults nobody would be served meanwhile: then the first stays the leader.
 * Where there is but one it leads without ever asking.
 */
#ifndef EMF_LEAD_H
#define EMF_LEAD_H

#include <stdbool.h>
#include <sys/types.h>

#include "transfer.h"

struct server {
	struct transfer_pool pool;
	int event;    /* raised when it is to lead */
	bool waits;   /* and may be asked to */
	bool keeps;   /* it is near whom it serves (follow.h), and goes on leading */
	bool rescues; /* fault.c */
};

/* The first one's queue. 0 or -errno. */
int lead_open(void);
/* Those of the others, as many as there are cores for. What can't be had is done without. */
void lead_open_more(void);
/* So many. */
unsigned lead_count(void);
struct server *lead_first(void);
/* By a thread: the one that it is, from the second on. */
struct server *lead_join(void);

bool lead_is(const struct server *s);
/* Around its wait, without the lock: does it lead? */
bool lead_wait(struct server *s);
bool lead_waited(struct server *s);

/* --- under engine.lock --- */

/* A fault of that thread's is about to be resolved. */
void lead_note(pid_t tid);
/* By the leader, before something long: somebody else is to lead; and after it. */
void lead_on(struct server *s);
void lead_back(struct server *s);
/* One thread alone has faulted lately: the first is to lead. */
void lead_home(struct server *s);
/* All its transfers are in use: to one that has some. */
void lead_elsewhere(struct server *s);
/* Does the store owe them all of their transfers? */
bool lead_stuck(void);

void lead_after_fork(void);

#endif
