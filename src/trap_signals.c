/* SPDX-License-Identifier: Apache-2.0 */
/* What the program knows of SIGBUS and SIGSYS, and of masks that would block them. */
#define _GNU_SOURCE
#include <errno.h>
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

#define SIGCANCEL 32 /* of glibc, nptl/internal-signals.h */

static struct action wanted[2]; /* for SIGBUS and SIGSYS */
static void (*cancel)(int, siginfo_t *, void *);
static __thread uint64_t blocked OWN;

/* Of a thread: what the kernel is given instead of the program's, until it has read it. */
#define COPIES 8
static __thread union copy {
	uint64_t mask;
	stack_t stack;
	struct {
		uintptr_t mask;
		size_t len;
	} with;
} copies[COPIES] OWN;
static __thread unsigned next OWN;
/* The alternate stack that the program has set, where ours stands in for it. */
static __thread stack_t stack_wanted OWN;
static __thread bool has_stack OWN;

static struct action *virtual_of(int sig)
{
	return sig == SIGBUS ? wanted : sig == SIGSYS ? wanted + 1 : NULL;
}

static union copy *copy(void)
{
	return copies + next++ % COPIES;
}

void trap_signals_before(void)
{
	k_syscall(SYS_rt_sigaction, SIGBUS, 0, (long)&wanted[0], sizeof(uint64_t), 0, 0);
	k_syscall(SYS_rt_sigaction, SIGSYS, 0, (long)&wanted[1], sizeof(uint64_t), 0, 0);
}

void trap_blocked_before(uint64_t mask)
{
	blocked = mask & TRAP_SIGNALS;
}

/* Addresses may be any: EFAULT is what the kernel says of those that are none. */
static long change_mask(struct trap_call *c)
{
	uint64_t set = 0, was = *c->mask | blocked, now = was;

	if (c->arg[1] && !trap_read(&set, (uintptr_t)c->arg[1], sizeof(set)))
		return -EFAULT;
	switch (c->arg[1] ? (int)c->arg[0] : SIG_BLOCK) {
	case SIG_BLOCK:
		now |= set;
		break;
	case SIG_UNBLOCK:
		now &= ~set;
		break;
	case SIG_SETMASK:
		now = set;
		break;
	default:
		return -EINVAL;
	}
	blocked = now & TRAP_SIGNALS;
	*c->mask = now & ~TRAP_SIGNALS;
	return c->arg[2] && !trap_write((uintptr_t)c->arg[2], &was, sizeof(was)) ? -EFAULT : 0;
}

/*
 * glibc from 2.41 on looks whether the thread was at the instruction of a call that can be
 * cancelled, which is made elsewhere here.
 */
static void on_cancel(int sig, siginfo_t *info, void *context)
{
	ucontext_t *u = context;
	mcontext_t was = u->uc_mcontext;
	bool shown = trap_show_call(u);

	cancel(sig, info, context);
	if (shown)
		u->uc_mcontext = was;
}

static long change_action(const struct trap_call *c)
{
	struct action *v = virtual_of((int)c->arg[0]), set = { 0 }, old = { 0 };

	if (c->arg[1] && !trap_read(&set, (uintptr_t)c->arg[1], sizeof(set)))
		return -EFAULT;
	if (v) {
		old = *v;
		if (c->arg[1] && !trap_is_guest())
			*v = set;
	} else {
		void (*before)(int, siginfo_t *, void *) = cancel;
		set.mask &= ~TRAP_SIGNALS;
		if (c->arg[0] == SIGCANCEL && (void *)set.handler != (void *)SIG_DFL &&
		    (void *)set.handler != (void *)SIG_IGN) {
			cancel = set.handler;
			set.handler = on_cancel;
		}
		long r = k_syscall(SYS_rt_sigaction, c->arg[0], c->arg[1] ? (long)&set : 0,
				   c->arg[2] ? (long)&old : 0, sizeof(set.mask), 0, 0);
		if (r)
			return r;
		if (old.handler == on_cancel)
			old.handler = before;
	}
	return c->arg[2] && !trap_write((uintptr_t)c->arg[2], &old, sizeof(old)) ? -EFAULT : 0;
}

/* A mask for the time of a call. */
static void change_temporary(long *arg)
{
	uint64_t set;

	if (!*arg || !trap_read(&set, (uintptr_t)*arg, sizeof(set)) ||
	    !(set & TRAP_SIGNALS || region_near((uintptr_t)*arg, sizeof(set))))
		return;
	union copy *to = copy();
	to->mask = set & ~TRAP_SIGNALS;
	*arg = (long)&to->mask;
}

static void change_with_length(long *arg)
{
	union copy with;

	if (!*arg || !trap_read(&with, (uintptr_t)*arg, sizeof(with)) || !with.with.mask)
		return;
	long mask = (long)with.with.mask;
	change_temporary(&mask);
	union copy *to = copy();
	to->with.mask = (uintptr_t)mask;
	to->with.len = with.with.len;
	*arg = (long)to;
}

/*
 * On the alternate stack our handlers run as well: where the program's is too small for them ours
 * stands in for it. It is for the kernel to set when our handler has left it.
 */
#define SMALL (64ul << 10)
#define AUTODISARM ((int)(1u << 31)) /* SS_AUTODISARM */

/* Where a frame is written nothing may be away. */
static void keep_whole_pages(uintptr_t start, size_t len)
{
	uintptr_t end = (start + len + K_PAGE - 1) & ~(uintptr_t)(K_PAGE - 1);

	start &= ~(uintptr_t)(K_PAGE - 1);
	if (region_near(start, end - start))
		engine_keep((void *)start, end - start, KEPT_ALWAYS);
}

static long set_stack(struct trap_call *c)
{
	const stack_t *own = trap_own_alt();
	stack_t set;

	if (!trap_read(&set, (uintptr_t)c->arg[0], sizeof(set)))
		return -EFAULT;
	int mode = set.ss_flags & ~AUTODISARM;
	if (mode && mode != SS_DISABLE && mode != SS_ONSTACK)
		return -EINVAL;
	if (mode == SS_DISABLE)
		set = (stack_t){ .ss_flags = set.ss_flags };
	else if (set.ss_size < KERNEL_MINIMUM)
		return -ENOMEM;
	else
		keep_whole_pages((uintptr_t)set.ss_sp, set.ss_size);
	has_stack = mode != SS_DISABLE;
	stack_wanted = set;
	/* With AUTODISARM each of them may have a handler's frames that are still in use. */
	if (own && set.ss_size < SMALL && !(has_stack && set.ss_flags & AUTODISARM))
		set = *own;
	union copy *to = copy();
	to->stack = set;
	c->arg[0] = (long)&to->stack;
	c->arg[1] = 0;
	return 0;
}

static enum trap_way change_stack(struct trap_call *c, long *result)
{
	long to = c->arg[1];
	const stack_t *own = trap_own_alt();
	stack_t old = c->context->uc_stack;
	uintptr_t start = (uintptr_t)old.ss_sp;
	bool on = !(old.ss_flags & (SS_DISABLE | AUTODISARM)) && c->sp > start &&
		  c->sp - start <= old.ss_size;

	*result = 0;
	/* Who runs on ours sees that he does: longjmp asks. */
	if (own && old.ss_sp == own->ss_sp && !on)
		old = has_stack ? stack_wanted : (stack_t){ .ss_flags = SS_DISABLE };
	old.ss_flags = (old.ss_flags & AUTODISARM) | (on	    ? SS_ONSTACK
						      : old.ss_size ? 0
								    : SS_DISABLE);
	bool set = c->arg[0];
	if (set)
		*result = on ? -EPERM : set_stack(c);
	if (!*result && to && !trap_write((uintptr_t)to, &old, sizeof(old)))
		*result = -EFAULT;
	return set && !*result ? TRAP_HELD : TRAP_DONE;
}

bool trap_exec(const struct trap_call *c, long *result)
{
	uint64_t now = *c->mask | blocked, inside;

	if (!blocked || (c->nr != SYS_execve && c->nr != SYS_execveat))
		return false;
	k_syscall(SYS_rt_sigprocmask, SIG_SETMASK, (long)&now, (long)&inside, sizeof(now), 0, 0);
	*result =
	    k_syscall(c->nr, c->arg[0], c->arg[1], c->arg[2], c->arg[3], c->arg[4], c->arg[5]);
	k_syscall(SYS_rt_sigprocmask, SIG_SETMASK, (long)&inside, 0, sizeof(inside), 0, 0);
	return true;
}

enum trap_way trap_signal_call(struct trap_call *c, long *result)
{
	switch (c->nr) {
	case SYS_rt_sigprocmask:
		*result = c->arg[3] == sizeof(uint64_t) ? change_mask(c) : -EINVAL;
		return TRAP_DONE;
	case SYS_rt_sigaction:
		*result = c->arg[3] == sizeof(uint64_t) ? change_action(c) : -EINVAL;
		return TRAP_DONE;
	case SYS_sigaltstack:
		return change_stack(c, result);
	case SYS_rt_sigsuspend:
		change_temporary(&c->arg[0]);
		return TRAP_HELD;
	case SYS_ppoll:
		change_temporary(&c->arg[3]);
		return TRAP_HELD;
	case SYS_epoll_pwait:
	case SYS_epoll_pwait2:
		change_temporary(&c->arg[4]);
		return TRAP_HELD;
	case SYS_pselect6:
	case SYS_io_pgetevents:
		change_with_length(&c->arg[5]);
		return TRAP_HELD;
	default:
		return TRAP_HELD;
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
	/* It may have interrupted a handler of ours, and not come back. */
	bool inside = trap_inside(false);
	a.handler(sig, info, context);
	trap_inside(inside);
	*mask &= ~TRAP_SIGNALS;
}
