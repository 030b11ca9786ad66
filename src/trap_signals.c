/* SPDX-License-Identifier: Apache-2.0 */
/* What the program knows of SIGBUS and SIGSYS, and of masks that would block them. */
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>

#include "engine.h"
#include "kernel.h"
#include "region.h"
#include "trap.h"

#define OWN __attribute__((tls_model("initial-exec")))
#define SA_RESTORER_ 0x04000000
#define KERNEL_MINIMUM 2048 /* MINSIGSTKSZ of asm/signal.h */

/* The kernel's. */
struct action {
	void (*handler)(int, siginfo_t *, void *);
	unsigned long flags;
	void *restorer;
	uint64_t mask;
};

static struct action wanted[2]; /* for SIGBUS and SIGSYS */
static __thread uint64_t blocked OWN;

/* Of a thread: what the kernel is given instead of the program's, until it has read it. */
#define COPIES 8
static __thread union copy {
	struct action action;
	uint64_t mask;
	struct {
		const uint64_t *mask;
		size_t len;
	} with;
} copies[COPIES] OWN;
static __thread unsigned next OWN;

static struct action *virtual_of(int sig)
{
	return sig == SIGBUS ? wanted : sig == SIGSYS ? wanted + 1 : NULL;
}

static union copy *copy(void)
{
	return copies + next++ % COPIES;
}

static long change_mask(struct trap_call *c)
{
	const uint64_t *set = (const uint64_t *)c->arg[1];
	uint64_t *old = (uint64_t *)c->arg[2], was = *c->mask | blocked, now = was;

	switch (set ? c->arg[0] : SIG_BLOCK) {
	case SIG_BLOCK:
		now |= set ? *set : 0;
		break;
	case SIG_UNBLOCK:
		now &= ~*set;
		break;
	case SIG_SETMASK:
		now = *set;
		break;
	default:
		return -EINVAL;
	}
	blocked = now & TRAP_SIGNALS;
	*c->mask = now & ~TRAP_SIGNALS;
	if (old)
		*old = was;
	return 0;
}

/* False: the kernel's to do. */
static bool change_action(struct trap_call *c)
{
	struct action *v = virtual_of((int)c->arg[0]), *old = (struct action *)c->arg[2];
	const struct action *set = (const struct action *)c->arg[1];

	if (!v) {
		if (set &&
		    (set->mask & TRAP_SIGNALS || region_near((uintptr_t)set, sizeof(*set)))) {
			union copy *to = copy();
			to->action = *set;
			to->action.mask &= ~TRAP_SIGNALS;
			c->arg[1] = (long)&to->action;
		}
		if (old && region_near((uintptr_t)old, sizeof(*old)))
			trap_bring((uintptr_t)old, sizeof(*old), true);
		return false;
	}
	struct action was = *v;
	if (set && !trap_is_guest())
		*v = *set;
	if (old)
		*old = was;
	return true;
}

/* A mask for the time of a call. */
static void change_temporary(long *arg)
{
	const uint64_t *set = (const uint64_t *)*arg;

	if (!set || !(*set & TRAP_SIGNALS || region_near((uintptr_t)set, sizeof(*set))))
		return;
	union copy *to = copy();
	to->mask = *set & ~TRAP_SIGNALS;
	*arg = (long)&to->mask;
}

static void change_with_length(long *arg)
{
	const struct {
		const uint64_t *mask;
		size_t len;
	} *with = (const void *)*arg;

	if (!with || !with->mask)
		return;
	long mask = (long)with->mask;
	change_temporary(&mask);
	union copy *to = copy();
	to->with.mask = (const uint64_t *)mask;
	to->with.len = with->len;
	*arg = (long)to;
}

static void change_stack(struct trap_call *c)
{
	const stack_t *set = (const stack_t *)c->arg[0];
	stack_t *old = (stack_t *)c->arg[1];
	stack_t now;

	if (old && trap_alt_is_ours()) {
		*old = (stack_t){ .ss_flags = SS_DISABLE };
		c->arg[1] = 0;
	} else if (old && region_near((uintptr_t)old, sizeof(*old))) {
		trap_bring((uintptr_t)old, sizeof(*old), true);
	}
	if (!set)
		return;
	now = *set;
	if (!(now.ss_flags & SS_DISABLE) && now.ss_size < KERNEL_MINIMUM)
		return; /* the kernel refuses it */
	/* Where a frame is written nothing may be away. */
	if (!(now.ss_flags & SS_DISABLE) && region_near((uintptr_t)now.ss_sp, now.ss_size))
		engine_keep(now.ss_sp, now.ss_size, KEPT_ALWAYS);
	trap_set_alt(&set);
	c->arg[0] = (long)set;
}

bool trap_signal_call(struct trap_call *c, long *result)
{
	*result = LONG_MIN;
	switch (c->nr) {
	case SYS_rt_sigprocmask:
		if (c->arg[3] == sizeof(uint64_t))
			*result = change_mask(c);
		return true;
	case SYS_rt_sigaction:
		if (c->arg[3] == sizeof(uint64_t) && change_action(c))
			*result = 0;
		return true;
	case SYS_rt_sigsuspend:
		change_temporary(&c->arg[0]);
		return true;
	case SYS_sigaltstack:
		change_stack(c);
		return true;
	case SYS_ppoll:
		change_temporary(&c->arg[3]);
		return false;
	case SYS_epoll_pwait:
	case SYS_epoll_pwait2:
		change_temporary(&c->arg[4]);
		return false;
	case SYS_pselect6:
	case SYS_io_pgetevents:
		change_with_length(&c->arg[5]);
		return false;
	default:
		return false;
	}
}

static void restore_default(int sig)
{
	struct action dfl = { .flags = SA_RESTORER_ };

	k_syscall(SYS_rt_sigaction, sig, (long)&dfl, 0, sizeof(dfl.mask), 0, 0);
}

static long send(long tid, int sig)
{
	return k_syscall(SYS_tgkill, k_syscall(SYS_getpid, 0, 0, 0, 0, 0, 0), tid, sig, 0, 0, 0);
}

void trap_pass_on(int sig, siginfo_t *info, void *context)
{
	ucontext_t *u = context;
	struct action *v = virtual_of(sig), a = *v;
	bool sent = info->si_code <= 0;
	uint64_t *mask = (uint64_t *)&u->uc_sigmask, now;

	if (engine_thread && sent) {
		send(k_syscall(SYS_getpid, 0, 0, 0, 0, 0, 0), sig);
		return;
	}
	if ((void *)a.handler == (void *)SIG_IGN && sent)
		return;
	if ((void *)a.handler == (void *)SIG_IGN || (void *)a.handler == (void *)SIG_DFL) {
		restore_default(sig);
		/* An access that can't be served is tried again, and ends the process. */
		if (sent || sig == SIGSYS)
			send(k_syscall(SYS_gettid, 0, 0, 0, 0, 0, 0), sig);
		return;
	}
	if (a.flags & SA_RESETHAND)
		v->handler = (void *)SIG_DFL;
	now = (*mask | a.mask) & ~TRAP_SIGNALS;
	k_syscall(SYS_rt_sigprocmask, SIG_SETMASK, (long)&now, 0, sizeof(now), 0, 0);
	a.handler(sig, info, context);
	*mask &= ~TRAP_SIGNALS;
}
