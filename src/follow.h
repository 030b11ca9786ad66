/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where one thread alone faults, its faults are served on the CPU that it runs on: it waits
 * meanwhile, so that is free, and neither its core nor another falls asleep and has to be woken.
 * That takes longer than all the rest of a fault, in virtual machines above all. Where several
 * threads fault the kernel places the fault thread as it sees fit.
 */
#ifndef EMF_FOLLOW_H
#define EMF_FOLLOW_H

#include <sys/types.h>

/* By the fault thread: first thing, and for each fault; tid 0: whose it is is not known. */
void follow_start(void);
void follow_fault(pid_t tid);

#endif
