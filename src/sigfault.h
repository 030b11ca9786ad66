/* SPDX-License-Identifier: Apache-2.0 */
/*
 * engine.fault=signal: faults arrive as SIGBUS in the thread that touched, and are resolved by it,
 * with the fault thread's own code and state (fault.c) under a lock that makes one fault thread of
 * all. What has to wait for the store, and what comes from files, is given to the fault thread.
 * trap.h has what it takes for system calls.
 *
 * The handle of userfaultfd, /proc/self/pagemap and events that wake the fault thread and the mover
 * are in the program's descriptor table as well, at the same numbers; trap_calls.c sees to it that
 * the program closes them in no way.
 */
#ifndef EMF_SIGFAULT_H
#define EMF_SIGFAULT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct uffd;
struct uffd_message;

/* By the program's thread, in the constructor, and in a forked child: the descriptors. */
int sigfault_open(bool want_move);
/* It can't be had. */
void sigfault_close(void);
/* In a child whose table of descriptors is its parent's, too: they are not ours to close. */
void sigfault_forget(void);
/* Is it on? Then these, which engine_boot takes instead of opening others. */
bool sigfault_on(void);
/* May something be registered by now? */
bool sigfault_running(void);
void sigfault_take(struct uffd *u);
enum { SIGFAULT_FDS = 4 };
const int *sigfault_fds(void);
bool sigfault_owns(int fd);

/* By a program's thread, all signals but ours blocked. False: nothing of ours. room: on the stack.
 */
bool sigfault_resolve(uintptr_t addr, bool write, bool write_protect, bool room);
/* All of the range that is managed. False: nothing of it needs to be. */
bool sigfault_bring(uintptr_t start, uintptr_t end, bool write, bool room);
/* No step of a block is under way that began before. */
void sigfault_barrier(void);
/* The fault thread is to look what it has to wait for. */
void sigfault_kick(void);

/* --- by the fault thread --- */

/* The next one that was given to it, or false. */
bool sigfault_next(struct uffd_message *m);
int sigfault_event(void);
/* What wakes the mover, from either table. */
int sigfault_mover_event(void);

#endif
