/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which of two threads serves the faults. Usually it is one that the kernel places as it sees fit.
 * Where one thread of the program faults again and again, and hardly any other, it is one that runs
 * where that thread runs, which waits meanwhile, and with SCHED_IDLE: of a core with nothing else
 * on it the kernel says that it is idle (select_idle_sibling in kernel/sched/fair.c), and so the
 * program's thread stays on it when it is woken. Else another core would have to be woken, twice
 * for each fault, and in virtual machines that takes longer than all the rest of it.
 *
 * Of what others use it gets next to nothing. So when it had to wait for its core, or another
 * thread faults, which would have to wait while the first one computes, the other server has its
 * turn again, and for the longer the more often that happens.
 */
#ifndef EMF_FOLLOW_H
#define EMF_FOLLOW_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* First thing by the near one. False: there is no use for it here. */
bool follow_start(void);
/*
 * By that which serves, for each fault, at `now` (ns): is it the other's turn from the next on? tid
 * 0: whose it is is not known.
 */
bool follow_fault(bool near, pid_t tid, uint64_t now);
/* First thing by the mover: it goes elsewhere while the near one serves. */
void follow_not(void);
void follow_after_fork(void);

#endif
