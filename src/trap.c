/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "trap.h"

#include <errno.h>
#include <limits.h>
#include <linux/sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include "engine.h"
#include "kernel.h"
#include "log.h"
#include "pinned.h"
#include "region.h"
#include "sigfault.h"

#ifndef PR_SET_SYSCALL_USER_DISPATCH
#define PR_SET_SYSCALL_USER_DISPATCH 59
#endif
#ifndef SYS_USER_DISPATCH
#define SYS_USER_DISPATCH 2
#endif
#define SA_RESTORER_ 0x04000000

bool trap_on;

#ifdef __x86_64__

/* --- what is pinned --- */

#define CALLS 16 /* under way in one thread, in handlers that interrupt one another */
#define PARTS 24 /* of one of them */

struct holding {
	uintptr_t sp;
	bool on_alt;
	unsigned n;
	struct pinned part[PARTS];
};

#define OWN __attribute__((tls_model("initial-exec")))
static __thread struct holding *holding OWN; /* CALLS of them */
static __thread unsigned depth OWN;
/* Handlers of ours are at work: what they call, libc's functions too, is none of the program's. */
static __thread bool inside OWN;
static __thread uintptr_t alt_start OWN, alt_end OWN; /* the stack for handlers */
static __thread struct alt *alt_own OWN;
static __thread stack_t alt_set OWN; /* what of that is the stack */
static __thread bool alt_theirs OWN; /* the program has set another one */
/* Of the assembly: where a vfork goes on, in the parent, too, whose stack the child has used. */
extern __thread uintptr_t emf_trap_back __attribute__((visibility("hidden")));
__thread uintptr_t emf_trap_back OWN;

static bool on_alt(uintptr_t sp)
{
	return sp >= alt_start && sp < alt_end;
}

__attribute__((target("general-regs-only"))) static void let_go_last(void)
{
	struct holding *h = holding + --depth;

	for (unsigned i = 0; i < h->n; i++)
		pinned_end(h->part + i);
}

/* When the call has returned. By the assembly, which saves no more than the integer registers. */
__attribute__((target("general-regs-only"), used, visibility("hidden"))) void emf_trap_done(void)
{
	if (depth)
		let_go_last();
}

/*
 * Calls that were left by siglongjmp never return. Where no handler is running none is under way;
 * in one it lies further up on the same stack, or on the other one.
 */
static void forget_left(uintptr_t sp)
{
	while (depth) {
		const struct holding *h = holding + depth - 1;
		if (h->on_alt == on_alt(sp) ? h->sp > sp : on_alt(sp))
			break;
		let_go_last();
	}
}

void trap_inside(bool on)
{
	inside = on;
}

void trap_let_go(void)
{
	let_go_last();
	holding[depth++].n = 0;
}

void trap_hold(uintptr_t addr, size_t len, bool write)
{
	struct holding *h = holding + depth - 1;

	if (!len || !region_near(addr, len))
		return;
	if (h->n < PARTS - 1)
		pinned_begin(h->part + h->n++, addr, len);
	else if (h->n < PARTS)
		pinned_begin(h->part + h->n++, 0, 0);
	trap_bring(addr, len, write);
}

void trap_bring(uintptr_t addr, size_t len, bool write)
{
	uintptr_t start = addr & ~(uintptr_t)(K_PAGE - 1),
		  end = (addr + len + K_PAGE - 1) & ~(uintptr_t)(K_PAGE - 1);
	unsigned clean = 0;

	/* Twice: what has just arrived is mapped writable first, and protected then. */
	while (clean < 2) {
		int err = k_madvise((void *)start, end - start,
				    write ? MADV_POPULATE_WRITE : MADV_POPULATE_READ);
		if (err == -EFAULT && sigfault_bring(start, end, write)) {
			clean = 0;
			continue;
		}
		if (err && write) {
			/* Not writable, as what is only read may be. */
			write = false;
			clean = 0;
			continue;
		}
		if (err)
			break;
		sigfault_barrier();
		clean += sigfault_running() ? 1 : 2;
	}
}

void trap_populate(uintptr_t addr, size_t len, bool write)
{
	for (size_t part; len; addr += part, len -= part) {
		part = len < (1ul << 20) ? len : 1ul << 20;
		trap_bring(addr, part, write);
	}
}

/* --- threads --- */

#define ALT_SIZE (256ul << 10)

struct alt {
	struct alt *next;
	_Atomic pid_t tid;
};
static struct alt *_Atomic alts;
static pid_t trap_pid;

static void *alt_stack(void)
{
	pid_t tid = (pid_t)k_syscall(SYS_gettid, 0, 0, 0, 0, 0, 0);

	for (struct alt *a = alts; a; a = a->next) {
		pid_t was = a->tid;
		if (k_syscall(SYS_tgkill, trap_pid, was, 0, 0, 0, 0) == -ESRCH &&
		    atomic_compare_exchange_strong(&a->tid, &was, tid))
			return a;
	}
	struct alt *a = k_map(ALT_SIZE);
	if (!a)
		return NULL;
	a->tid = tid;
	a->next = alts;
	while (!atomic_compare_exchange_weak(&alts, &a->next, a))
		;
	return a;
}

/* The first page has the list, and the thread's holdings behind it. */
static void thread_begin(void)
{
	char *a = alt_stack();
	const size_t taken = (sizeof(struct alt) + CALLS * sizeof(struct holding) + 63) & ~63ul;

	depth = 0;
	if (!a) {
		holding = NULL;
		return;
	}
	alt_own = (struct alt *)a;
	alt_set = (stack_t){ .ss_sp = a + taken, .ss_size = ALT_SIZE - taken };
	holding = (struct holding *)(a + sizeof(struct alt));
	alt_theirs = false;
	alt_start = (uintptr_t)alt_set.ss_sp;
	alt_end = alt_start + alt_set.ss_size;
	k_syscall(SYS_sigaltstack, (long)&alt_set, 0, 0, 0, 0, 0);
}

void trap_set_alt(const stack_t **set)
{
	alt_theirs = *set && !((*set)->ss_flags & SS_DISABLE);
	if (!alt_theirs)
		*set = &alt_set;
	alt_start = (uintptr_t)(*set)->ss_sp;
	alt_end = alt_start + (*set)->ss_size;
}

bool trap_alt_is_ours(void)
{
	return alt_own && !alt_theirs;
}

bool trap_is_guest(void)
{
	return k_syscall(SYS_getpid, 0, 0, 0, 0, 0, 0) != trap_pid;
}

extern char __start_emf_allowed[] __attribute__((visibility("hidden"))),
    __stop_emf_allowed[] __attribute__((visibility("hidden")));
static char selector = 1; /* SYSCALL_DISPATCH_FILTER_BLOCK */

static int dispatch(bool on)
{
	uintptr_t start = (uintptr_t)__start_emf_allowed, end = (uintptr_t)__stop_emf_allowed;

	return (int)k_syscall(SYS_prctl, PR_SET_SYSCALL_USER_DISPATCH, on, on ? (long)start : 0,
			      on ? (long)(end - start) : 0, on ? (long)&selector : 0, 0);
}

void trap_thread_off(void)
{
	if (trap_on)
		dispatch(false);
}

void trap_after_fork(void)
{
	if (!trap_on)
		return;
	trap_pid = (pid_t)k_syscall(SYS_getpid, 0, 0, 0, 0, 0, 0);
	if (alt_own)
		alt_own->tid = trap_pid;
	dispatch(true);
}

/* First thing in what a call has made. */
__attribute__((used, visibility("hidden"))) void emf_trap_child(void)
{
	dispatch(true);
	/* A fork or a vfork has its parent's stack for handlers. */
	if (!trap_is_guest())
		thread_begin();
}

/* --- the stubs --- */

/*
 * In RCX, which the system call clobbers anyway: where to go on. Below the red zone, for the call
 * clobbers no memory. It is above the frame of no handler.
 */
extern char emf_trap_plain[] __attribute__((visibility("hidden"))),
    emf_trap_held[] __attribute__((visibility("hidden"))),
    emf_trap_fork[] __attribute__((visibility("hidden"))),
    emf_trap_vfork[] __attribute__((visibility("hidden"))),
    emf_trap_return[] __attribute__((visibility("hidden"))),
    emf_trap_restorer[] __attribute__((visibility("hidden")));

#define SAVE                                                                                       \
	"	push %rax\n	push %rdi\n	push %rsi\n	push %rdx\n	push %r8\n"                              \
	"	push %r9\n	push %r10\n	push %rbp\n	mov %rsp, %rbp\n	and "                                \
	"$-16, %rsp\n"
#define RESTORE                                                                                    \
	"	mov %rbp, %rsp\n	pop %rbp\n	pop %r10\n	pop %r9\n	pop "                                   \
	"%r8\n	pop %rdx\n"                                                                         \
	"	pop %rsi\n	pop %rdi\n	pop %rax\n"
#define BEGIN(name) ".globl " #name "\n.hidden " #name "\n.type " #name ", @function\n" #name ":\n"
#define FRAME                                                                                      \
	"	.cfi_startproc\n	.cfi_def_cfa %rsp, 0\n	.cfi_register %rip, %rcx\n"                      \
	"	lea -128(%rsp), %rsp\n	.cfi_def_cfa_offset 128\n"                                        \
	"	push %rcx\n	.cfi_def_cfa_offset 136\n	.cfi_offset %rip, -136\n"

__asm__(".pushsection emf_allowed, \"ax\", @progbits\n"
	/* clang-format off */
	BEGIN(emf_trap_plain)
	FRAME
	"	syscall\n"
	"	ret $128\n"
	"	.cfi_endproc\n"
	BEGIN(emf_trap_held)
	FRAME
	"	syscall\n"
	SAVE
	"	call emf_trap_done\n"
	RESTORE
	"	ret $128\n"
	"	.cfi_endproc\n"
	BEGIN(emf_trap_fork)
	FRAME
	"	syscall\n"
	"	test %rax, %rax\n"
	"	jnz 1f\n"
	SAVE
	"	call emf_trap_child\n"
	RESTORE
	"1:	ret $128\n"
	"	.cfi_endproc\n"
	/* The child uses the stack on which it was made. */
	BEGIN(emf_trap_vfork)
	"	mov emf_trap_back@gottpoff(%rip), %r11\n"
	"	mov %rcx, %fs:(%r11)\n"
	"	syscall\n"
	"	test %rax, %rax\n"
	"	jnz 1f\n"
	"	lea -128(%rsp), %rsp\n"
	SAVE
	"	call emf_trap_child\n"
	RESTORE
	"	lea 128(%rsp), %rsp\n"
	"1:	mov emf_trap_back@gottpoff(%rip), %r11\n"
	"	mov %fs:(%r11), %rcx\n"
	"	jmp *%rcx\n"
	/* rt_sigreturn, for which the stack pointer is the argument. */
	BEGIN(emf_trap_return)
	"	syscall\n"
	"	ud2\n"
	BEGIN(emf_trap_restorer)
	"	mov $15, %eax\n"
	"	syscall\n"
	"	ud2\n"
									/* clang-format on */
									".popsection\n");

/* --- SIGSYS --- */

static void go_on(greg_t *g, const char *stub, long nr)
{
	g[REG_RAX] = nr;
	g[REG_RCX] = g[REG_RIP];
	g[REG_RIP] = (greg_t)stub;
}

static void bring_near(uintptr_t addr, size_t len)
{
	if (region_near(addr, len))
		trap_bring(addr, len, true);
}

/* A new thread's stack: it begins where the one that makes it goes on. */
static void put_back(uintptr_t sp, uintptr_t rip)
{
	uintptr_t at = sp - 136;

	bring_near(at, sizeof(at));
	*(uintptr_t *)at = rip;
}

/* Per call of clone3, until it is made. */
static __thread struct clone_args clone_copy[2] OWN;
static __thread unsigned clone_next OWN;

static void make(greg_t *g, struct trap_call *c)
{
	uint64_t flags = 0;
	uintptr_t stack = 0, rip = (uintptr_t)g[REG_RIP];

	if (c->nr == SYS_clone) {
		flags = (uint64_t)c->arg[0];
		stack = (uintptr_t)c->arg[1];
		bring_near((uintptr_t)c->arg[2], sizeof(pid_t));
		bring_near((uintptr_t)c->arg[3], sizeof(pid_t));
		if (stack) {
			put_back(stack, rip);
			g[REG_RSI] = (greg_t)(stack - 136);
		}
	} else if (c->nr == SYS_clone3) {
		size_t len = (size_t)c->arg[1];
		const struct clone_args *from = (const void *)c->arg[0];
		if (len < 64 || !from) {
			go_on(g, emf_trap_plain, c->nr);
			return;
		}
		bring_near((uintptr_t)from, len);
		flags = from->flags;
		bring_near(from->parent_tid, sizeof(pid_t));
		bring_near(from->child_tid, sizeof(pid_t));
		stack = from->stack ? from->stack + from->stack_size : 0;
		if (stack && len <= sizeof(*from)) {
			struct clone_args *to = clone_copy + clone_next++ % 2;
			for (size_t i = 0; i < len / 8; i++)
				((uint64_t *)to)[i] = ((const uint64_t *)from)[i];
			put_back(stack, rip);
			to->stack_size -= 136;
			g[REG_RDI] = (greg_t)to;
		}
	} else if (c->nr == SYS_vfork) {
		flags = CLONE_VM | CLONE_VFORK;
	}
	/* A thread that shares its parent's thread-local memory can't be told from it. */
	bool bare = flags & CLONE_VM && !(flags & (CLONE_VFORK | CLONE_SETTLS));
	go_on(g,
	      bare && stack		   ? emf_trap_plain
	      : flags & CLONE_VM && !stack ? emf_trap_vfork
					   : emf_trap_fork,
	      c->nr);
}

static void on_sigsys(int sig, siginfo_t *info, void *context)
{
	ucontext_t *u = context;
	greg_t *g = u->uc_mcontext.gregs;
	long result = 0;

	if (info->si_code != SYS_USER_DISPATCH) {
		trap_pass_on(sig, info, context);
		return;
	}
	struct trap_call c = {
		.nr = info->si_syscall,
		.arg = { g[REG_RDI], g[REG_RSI], g[REG_RDX], g[REG_R10], g[REG_R8], g[REG_R9] },
		.sp = (uintptr_t)g[REG_RSP],
		.mask = (uint64_t *)&u->uc_sigmask,
	};
	switch (c.nr) {
	case SYS_rt_sigreturn:
		g[REG_RAX] = c.nr;
		g[REG_RIP] = (greg_t)emf_trap_return;
		return;
	case SYS_clone:
	case SYS_clone3:
	case SYS_fork:
	case SYS_vfork:
		make(g, &c);
		return;
	default:
		break;
	}
	enum trap_way way;
	if (trap_signal_call(&c, &result)) {
		way = result == LONG_MIN ? TRAP_PLAIN : TRAP_DONE;
	} else if (holding && !engine_thread && !inside) {
		forget_left(c.sp);
		bool more = depth < CALLS;
		if (more)
			holding[depth++] = (struct holding){ .sp = c.sp, .on_alt = on_alt(c.sp) };
		inside = true;
		way = trap_look(&c, &result);
		inside = false;
		if (!more) {
			/* It is pinned as long as that of the last one. */
			way = way == TRAP_HELD ? TRAP_PLAIN : way;
		} else if (way != TRAP_HELD || !holding[depth - 1].n) {
			let_go_last();
			way = way == TRAP_HELD ? TRAP_PLAIN : way;
		}
	} else {
		way = TRAP_PLAIN;
	}
	if (way == TRAP_DONE) {
		g[REG_RAX] = result;
		g[REG_RCX] = g[REG_RIP];
		return;
	}
	g[REG_RDI] = c.arg[0];
	g[REG_RSI] = c.arg[1];
	g[REG_RDX] = c.arg[2];
	g[REG_R10] = c.arg[3];
	g[REG_R8] = c.arg[4];
	g[REG_R9] = c.arg[5];
	go_on(g, way == TRAP_HELD ? emf_trap_held : emf_trap_plain, c.nr);
}

/* --- SIGBUS --- */

#define ERR_PRESENT 1
#define ERR_WRITE 2
/* That the resolver may need. */
#define ROOM (48ul << 10)

static void on_sigbus(int sig, siginfo_t *info, void *context)
{
	ucontext_t *u = context;
	greg_t err = u->uc_mcontext.gregs[REG_ERR];
	uintptr_t here = (uintptr_t)__builtin_frame_address(0);
	bool room = on_alt(here) && here - alt_start > ROOM, was = inside;

	inside = true;
	bool ours =
	    info->si_code == BUS_ADRERR &&
	    sigfault_resolve((uintptr_t)info->si_addr, err & ERR_WRITE,
			     (err & (ERR_WRITE | ERR_PRESENT)) == (ERR_WRITE | ERR_PRESENT), room);
	inside = was;
	if (ours)
		return;
	trap_pass_on(sig, info, context);
}

/* The kernel's. */
struct action {
	void (*handler)(int, siginfo_t *, void *);
	unsigned long flags;
	void *restorer;
	uint64_t mask;
};

static int handle(int sig, void (*handler)(int, siginfo_t *, void *))
{
	struct action a = {
		.handler = handler,
		.flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER | SA_RESTORER_,
		.restorer = emf_trap_restorer,
		.mask = ~TRAP_SIGNALS,
	};

	return (int)k_syscall(SYS_rt_sigaction, sig, (long)&a, 0, sizeof(a.mask), 0, 0);
}

int trap_start(void)
{
	uint64_t ours = TRAP_SIGNALS;

	trap_pid = (pid_t)k_syscall(SYS_getpid, 0, 0, 0, 0, 0, 0);
	int err = dispatch(false);
	if (err)
		return err;
	err = handle(SIGSYS, on_sigsys);
	err = err ? err : handle(SIGBUS, on_sigbus);
	k_syscall(SYS_rt_sigprocmask, SIG_UNBLOCK, (long)&ours, 0, sizeof(ours), 0, 0);
	if (err)
		return err;
	k_signals_open = TRAP_SIGNALS;
	trap_on = true;
	thread_begin();
	return dispatch(true);
}

#else
int trap_start(void)
{
	return -ENOSYS;
}
void trap_after_fork(void)
{
}
void trap_thread_off(void)
{
}
void trap_bring(uintptr_t addr, size_t len, bool write)
{
	(void)addr;
	(void)len;
	(void)write;
}
void trap_populate(uintptr_t addr, size_t len, bool write)
{
	trap_bring(addr, len, write);
}
#endif
