/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "follow.h"

#include <sched.h>
#include <stdbool.h>

#include "kernel.h"

#define STREAK 32 /* faults in a row of one thread, until it is followed, */
#define LOOK 64	  /* and from one look where it runs to the next */

static cpu_set_t anywhere;
static bool able;
static pid_t leader;
static unsigned streak;
static int at; /* the CPU; -1: any */

void follow_start(void)
{
	able = !sched_getaffinity(0, sizeof(anywhere), &anywhere) && CPU_COUNT(&anywhere) > 1;
	leader = 0;
	at = -1;
}

static void go(int cpu)
{
	cpu_set_t there = anywhere;

	if (cpu >= 0) {
		CPU_ZERO(&there);
		CPU_SET((unsigned)cpu, &there);
	}
	if (cpu != at && !sched_setaffinity(0, sizeof(there), &there))
		at = cpu;
}

void follow_fault(pid_t tid)
{
	if (!able)
		return;
	if (!tid || tid != leader) {
		go(-1);
		leader = tid;
		streak = 0;
		return;
	}
	if (++streak < STREAK || streak % LOOK != STREAK % LOOK)
		return;
	int cpu = k_thread_cpu(tid);
	go(cpu >= 0 && cpu < CPU_SETSIZE && CPU_ISSET((unsigned)cpu, &anywhere) ? cpu : -1);
}
