/* SPDX-License-Identifier: Apache-2.0 */
/*
 * engine.fault=signal: what it alone needs of a kernel. A fault calls the handler of SIGBUS that
 * the runtime has set (trap.c); a system call of the program's calls that of SIGSYS first, and what
 * that has made of the registers says what comes next, as on the way back to user mode. Of the
 * runtime's descriptors in the program's table there are but the numbers.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/audit.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>

#include "engine.h"
#include "region.h"
#include "sigfault.h"
#include "sim.h"
#include "trap.h"

#define SYS_USER_DISPATCH_ 2
#define CODE_MCEERR_AR 4
#define PLACES 8
#define TIGHT (24ul << 10)

/* The kernel's. */
struct action {
	void (*handler)(int, siginfo_t *, void *);
	unsigned long flags;
	void *restorer;
	uint64_t mask;
};

/* As trap.c finds them on the stack when a call has returned. */
struct saved {
	long rbp, r10, r9, r8, rdx, rsi, rdi, rax, back, red_zone[16], sp[1];
};

extern char emf_trap_plain[] __attribute__((visibility("hidden"))),
    emf_trap_held[] __attribute__((visibility("hidden")));
void emf_trap_child(void) __attribute__((visibility("hidden")));
void emf_trap_done(struct saved *s) __attribute__((visibility("hidden")));

static void (*handler[65])(int, siginfo_t *, void *);
static struct {
	int at, fd;
} place[PLACES];
unsigned long signal_faults, signal_given, signal_calls;

/* --- the runtime's calls --- */

int signal_fd(int fd)
{
	for (int i = 0; i < PLACES; i++)
		if (place[i].at && place[i].at == fd)
			return place[i].fd;
	return fd;
}

static void put_at(int fd, int at)
{
	int i = 0;

	while (i < PLACES && place[i].at && place[i].at != at)
		i++;
	if (i == PLACES)
		sim_fail("too many descriptors");
	place[i].at = at;
	place[i].fd = fd;
}

/* The program's own: what nobody resolves ends here. */
static void program_has_it(int sig, siginfo_t *info, void *context)
{
	(void)info;
	(void)context;
	if (sig != SIGBUS)
		sim_fail("signal %d is passed on", sig);
	co_self->bus = true;
}

static void set_action(long sig, const struct action *set, struct action *old)
{
	if (old)
		*old = (struct action){ .handler = program_has_it };
	if (set && !set->handler)
		sim_fail("signal %ld ends the process", sig);
	if (set)
		handler[sig] = set->handler;
}

static long read_pagemap(uint64_t *entry, size_t n, uintptr_t page)
{
	for (size_t i = 0; i < n; i++) {
		uint32_t flags = page_at((page + i) * K_PAGE)->flags;
		entry[i] = (uint64_t)(flags & P_PRESENT	 ? 2
				      : flags & P_POISON ? 1
							 : 0)
			       << 62 |
			   (uint64_t) !!(flags & P_PROTECTED) << 57;
	}
	return (long)n * 8;
}

bool signal_syscall(long n, const long *a, long *result)
{
	*result = 0;
	switch (n) {
	case SYS_gettid:
		*result = co_self ? co_self - co_all + 1 : 0;
		return true;
	case SYS_dup3:
		put_at((int)a[0], (int)a[1]);
		*result = a[1];
		return true;
	case SYS_close:
		return a[0] >= UFFD_FD || signal_fd((int)a[0]) != a[0];
	case SYS_fcntl:
	case SYS_fstat:
		*result = -EBADF;
		return true;
	case SYS_mremap:
		*result =
		    k_mremap((void *)a[0], (size_t)a[1], (size_t)a[2], (int)a[3], (void *)a[4]);
		return true;
	case SYS_write:
		signal_given++;
		k_eventfd_signal((int)a[0]);
		return true;
	case SYS_pread64:
		co_point();
		*result = read_pagemap((uint64_t *)a[1], (size_t)a[2] / 8, (uintptr_t)a[3] / 8);
		return true;
	case SYS_rt_sigaction:
		set_action(a[0], (const struct action *)a[1], (struct action *)a[2]);
		return true;
	case SYS_sigaltstack:
		co_self->alt = *(const stack_t *)a[0];
		return true;
	case SYS_rt_sigprocmask:
		if (a[2])
			*(uint64_t *)a[2] = 0;
		return true;
	case SYS_prctl:
		return true;
	case SYS_tgkill:
		if (a[2])
			sim_fail("the runtime sends signal %ld", a[2]);
		*result = co_all[a[1] - 1].used ? 0 : -ESRCH;
		return true;
	default:
		return false;
	}
}

/* --- the program --- */

void signal_start(void)
{
	if (sigfault_open(true) || trap_start())
		sim_fail("no faults by signal");
}

void signal_thread(void)
{
	if (plan.signal)
		emf_trap_child();
}

/* Sometimes on a stack for signals that has hardly any room left. */
static __attribute__((noinline)) void deliver(int sig, siginfo_t *info, ucontext_t *u)
{
	uintptr_t here = (uintptr_t)__builtin_frame_address(0);
	bool before = co_self->handles;

	u->uc_stack = co_self->alt;
	if (chance(plan.tight))
		u->uc_stack = (stack_t){ .ss_sp = (void *)(here - TIGHT), .ss_size = TIGHT };
	co_self->handles = true;
	handler[sig](sig, info, u);
	co_self->handles = before;
}

bool signal_fault(uintptr_t addr, bool write, bool present, bool poison)
{
	struct fault *f = &co_self->fault;
	siginfo_t info = { .si_signo = SIGBUS, .si_code = BUS_ADRERR };
	ucontext_t u = { 0 };

	if (poison && chance(2)) /* as the kernel is configured */
		info.si_code = CODE_MCEERR_AR;
	info.si_addr = (void *)(addr + 16);
	u.uc_mcontext.gregs[REG_ERR] = (write ? 2 : 0) | (present ? 1 : 0) | 4;
	*f = (struct fault){
		.parked = true, .read = true, .write = write, .protect = present, .addr = addr
	};
	trace("SIGBUS for %#lx%s%s", addr, write ? ", write" : "", present ? ", protected" : "");
	signal_faults++;
	co_self->bus = false;
	deliver(SIGBUS, &info, &u);
	f->parked = false;
	return co_self->bus;
}

bool signal_is_lost(uintptr_t addr)
{
	struct region *r = region_find(addr);

	return store_failures && r && r->registered && region_block(r, addr)->state == LOST;
}

static long by_register(long nr, const long *arg, long (*made)(const long *))
{
	struct saved frame = { 0 };
	siginfo_t info = { .si_signo = SIGSYS, .si_code = SYS_USER_DISPATCH_ };
	ucontext_t u = { 0 };
	greg_t *g = u.uc_mcontext.gregs, begin = (greg_t)by_register;
	long r;

	info.si_syscall = (int)nr;
	info.si_arch = AUDIT_ARCH_X86_64;
	g[REG_RIP] = begin;
	g[REG_RSP] = (greg_t)frame.sp;
	g[REG_RDI] = arg[0];
	g[REG_RSI] = arg[1];
	g[REG_RDX] = arg[2];
	g[REG_R10] = arg[3];
	g[REG_R8] = arg[4];
	g[REG_R9] = arg[5];
	deliver(SIGSYS, &info, &u);
	if (g[REG_RIP] == begin)
		return g[REG_RAX];
	bool held = g[REG_RIP] == (greg_t)emf_trap_held;
	if (!held && g[REG_RIP] != (greg_t)emf_trap_plain)
		sim_fail("system call %ld is made elsewhere", nr);
	const long passed[6] = { g[REG_RDI], g[REG_RSI], g[REG_RDX],
				 g[REG_R10], g[REG_R8],	 g[REG_R9] };
	r = made(passed);
	signal_calls += held;
	if (held)
		emf_trap_done(&frame);
	return r;
}

long program_call(long nr, const long *arg, long (*made)(const long *))
{
	co_point();
	co_self->called = sim_now;
	return plan.signal ? by_register(nr, arg, made) : made(arg);
}
