/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "follow.h"

#include <sched.h>
#include <stdatomic.h>
#include <sys/syscall.h>

#include "kernel.h"

#define STREAK 32 /* faults in a row of one thread, until it is followed, */
#define LOOK 64	  /* and from one look where it runs to the next: */
#define STRAYS 8  /* so many of these may be of others */
#define GAP_NS 1000000ull
#define SAVED_NS 20000	    /* about what each fault gains, */
#define SAVED_MOST 10000000 /* as far as that counts against what the core was waited for */
#define PAUSE_NS 1000000000ull
#define PAUSES 64

static cpu_set_t anywhere;
static _Atomic bool able;
static int own_schedstat;
static pid_t leader;
static unsigned streak, strays; /* near: faults since it looked, and those of others */
static int at;			/* the CPU; -1: any */
static int64_t waited, gain;
static uint64_t pause = PAUSE_NS, paused_until;

void follow_after_fork(void)
{
	able = false;
	leader = 0;
	pause = PAUSE_NS;
	paused_until = 0;
}

bool follow_start(void)
{
	const struct sched_param none = { 0 };

	at = -1;
	own_schedstat = k_open_schedstat();
	able = own_schedstat >= 0 && k_waited_ns(own_schedstat) >= 0 &&
	       !sched_getaffinity(0, sizeof(anywhere), &anywhere) && CPU_COUNT(&anywhere) > 1 &&
	       !k_syscall(SYS_sched_setscheduler, 0, SCHED_IDLE, (long)&none, 0, 0, 0);
	return able;
}

static void go(int cpu)
{
	cpu_set_t there = anywhere;

	if (cpu >= 0 && cpu < CPU_SETSIZE && CPU_ISSET((unsigned)cpu, &anywhere)) {
		CPU_ZERO(&there);
		CPU_SET((unsigned)cpu, &there);
	} else {
		cpu = -1;
	}
	if (cpu != at && !sched_setaffinity(0, sizeof(there), &there))
		at = cpu;
}

/* Is it worth while? Where others use the core, no. */
static bool look(void)
{
	int64_t now = k_waited_ns(own_schedstat);

	gain += streak * SAVED_NS - (now - waited);
	gain = gain < SAVED_MOST ? gain : SAVED_MOST;
	waited = now;
	streak = strays = 0;
	go(k_thread_cpu(leader));
	return gain > -SAVED_MOST;
}

static void begin(void)
{
	gain = streak = 0;
	waited = k_waited_ns(own_schedstat);
	look();
}

static bool has_reason(pid_t tid, uint64_t now)
{
	if (tid != leader) {
		leader = tid;
		streak = 0;
	}
	return tid && ++streak >= STREAK && now >= paused_until;
}

bool follow_fault(bool near, pid_t tid, uint64_t now)
{
	static uint64_t began, last;
	bool ends = false;

	if (!able)
		return false;
	if (!near) {
		began = 0;
		return has_reason(tid, now);
	}
	streak++;
	strays += tid != leader;
	if (!began) {
		began = now;
		begin();
	} else if (now - last > GAP_NS || streak == LOOK) {
		ends = !look();
		if (ends) {
			paused_until = now + pause;
			pause = pause < PAUSES * PAUSE_NS ? 2 * pause : pause;
		} else if (now - began > pause) {
			pause = PAUSE_NS;
		}
	}
	last = now;
	if (strays > STRAYS)
		ends = true;
	if (ends)
		leader = 0;
	return ends;
}
