/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "follow.h"

#include <sched.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kernel.h"

#define STREAK 32 /* faults in a row of one thread, until it is followed, */
#define LOOK 64	  /* and from one look where it runs to the next */
#define GAP_NS 1000000ull
#define SAVED_NS 20000	    /* about what each fault gains, */
#define SAVED_MOST 10000000 /* as far as that counts against what the core was waited for */
#define REST_NS 1000000000ull
#define RESTS 64

static cpu_set_t anywhere;
static _Atomic bool able;
static int own_schedstat = -1, leaders = -1;
static pid_t leader;
static _Atomic pid_t other; /* of ours, that has much to do meanwhile */
static unsigned streak;	    /* near: faults since it looked */
static int at;		    /* the CPU; -1: any */
static int64_t waited, displaced, gain;
static uint64_t rest = REST_NS, rests_until;

void follow_after_fork(void)
{
	able = false;
	other = 0;
	leader = 0;
	rest = REST_NS;
	rests_until = 0;
}

bool follow_start(void)
{
	const struct sched_param none = { 0 };
	int64_t ran, wait;

	at = -1;
	own_schedstat = k_open_schedstat((pid_t)k_syscall(SYS_gettid, 0, 0, 0, 0, 0, 0));
	uffd_hold_wakes();
	able = own_schedstat >= 0 && k_schedstat(own_schedstat, &ran, &wait) &&
	       !sched_getaffinity(0, sizeof(anywhere), &anywhere) && CPU_COUNT(&anywhere) > 1 &&
	       !k_syscall(SYS_sched_setscheduler, 0, SCHED_IDLE, (long)&none, 0, 0, 0);
	return able;
}

void follow_not(void)
{
	other = (pid_t)k_syscall(SYS_gettid, 0, 0, 0, 0, 0, 0);
}

/* To the kernel that core looks idle, and who works beside is not to be sent there. */
static void keep_off(int cpu)
{
	cpu_set_t there = anywhere;

	if (cpu >= 0)
		CPU_CLR((unsigned)cpu, &there);
	if (other)
		sched_setaffinity(other, sizeof(there), &there);
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
	if (cpu == at || sched_setaffinity(0, sizeof(there), &there))
		return;
	at = cpu;
	keep_off(cpu);
}

/* Not again soon; if it was for the leader's end, that says nothing. */
static void tire(uint64_t now)
{
	int64_t ran, wait;

	if (!k_schedstat(leaders, &ran, &wait))
		return;
	rests_until = now + rest;
	rest = rest < RESTS * REST_NS ? 2 * rest : rest;
}

/*
 * Is it worth while? Where others use the core, no. While the leader runs it has to wait, too, once
 * it has woken it; but for nothing.
 */
static bool look(void)
{
	int64_t ran, before = waited - displaced;

	k_schedstat(own_schedstat, &ran, &waited);
	if (!k_schedstat(leaders, &displaced, &ran))
		return false;
	int64_t lost = waited - displaced - before;
	gain += streak * SAVED_NS - (lost > 0 ? lost : 0);
	gain = gain < SAVED_MOST ? gain : SAVED_MOST;
	streak = 0;
	go(k_thread_cpu(leader));
	return gain > -SAVED_MOST;
}

static bool begin(void)
{
	int64_t ran;

	leaders = k_open_schedstat(leader);
	k_schedstat(own_schedstat, &ran, &waited);
	k_schedstat(leaders, &displaced, &ran);
	gain = streak = 0;
	return look();
}

static bool has_reason(pid_t tid, uint64_t now)
{
	if (tid != leader) {
		leader = tid;
		streak = 0;
	}
	return tid && ++streak >= STREAK && now >= rests_until;
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
	if (began && leaders < 0) /* more of the faults that were read with the last */
		return true;
	streak++;
	if (!began) {
		began = now;
		ends = !begin();
	} else if (tid != leader) {
		/* It waits for us, and we for the leader to wait. */
		ends = true;
	} else if (now - last > GAP_NS || streak == LOOK) {
		ends = !look();
		if (!ends && now - began > rest)
			rest = REST_NS;
	}
	last = now;
	if (ends) {
		tire(now);
		leader = 0;
		go(-1);
		close(leaders);
		leaders = -1;
	}
	return ends;
}
