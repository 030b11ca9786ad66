/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "trap.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/sched.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
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

#define CALLS 16  /* under way in one thread, in handlers that interrupt one another */
#define PARTS 128 /* of one of them */
#define VAIN 4	  /* looks that found nothing away, after the kernel had */

struct holding {
	uintptr_t sp;
	pid_t tid;	       /* once it is made: a vfork's child uses its parent's */
	bool on_alt, replaced; /* replaced: other arguments than the program's were passed */
	long arg[6];	       /* the program's */
	unsigned n;
	struct pinned part[PARTS];
};

#define OWN __attribute__((tls_model("initial-exec")))
static __thread struct holding *holding OWN; /* CALLS of them */
static __thread unsigned depth OWN;
/* Handlers of ours are at work: what they call, libc's functions too, is none of the program's. */
static __thread bool inside OWN;
/* The stack for handlers, as of the call that is looked at. */
static __thread uintptr_t alt_start OWN, alt_end OWN;
static __thread struct alt *alt_own OWN;
static __thread stack_t alt_set OWN; /* what of that is the stack */

static bool on_alt(uintptr_t sp)
{
	return sp >= alt_start && sp < alt_end;
}

static pid_t own_tid(void)
{
	return (pid_t)k_syscall(SYS_gettid, 0, 0, 0, 0, 0, 0);
}

/* Handlers may interrupt it, and make calls themselves: each part is let go of once. */
__attribute__((target("general-regs-only"))) static void let_go_last(void)
{
	struct holding *h = holding + depth - 1;

	while (h->n) {
		h->n--;
		atomic_signal_fence(memory_order_seq_cst);
		pinned_end(h->part + h->n);
	}
	atomic_signal_fence(memory_order_seq_cst);
	depth--;
}

/* As SAVE has them. */
struct saved {
	long rbp, r10, r9, r8, rdx, rsi, rdi, rax, back, red_zone[16], sp[];
};

/*
 * When the call has returned. By the assembly, which saves no more than the integer registers.
 * Calls that were left in a handler that interrupted this one lie above it.
 */
__attribute__((target("general-regs-only"), used, visibility("hidden"))) void
emf_trap_done(struct saved *s)
{
	unsigned i = depth;

	while (i && holding[i - 1].sp != (uintptr_t)s->sp)
		i--;
	if (!i)
		return;
	const struct holding *h = holding + i - 1;
	if (h->replaced) {
		s->rdi = h->arg[0];
		s->rsi = h->arg[1];
		s->rdx = h->arg[2];
		s->r10 = h->arg[3];
		s->r8 = h->arg[4];
		s->r9 = h->arg[5];
	}
	while (depth >= i)
		let_go_last();
}

/*
 * Calls that were left by siglongjmp never return, nor do those of a vfork's child. Where no
 * handler is running none is under way; in one it lies further up on the same stack, or on the
 * other one.
 */
static void forget_left(uintptr_t sp)
{
	pid_t tid = depth ? own_tid() : 0;

	/* None is set only while a handler runs on one that is disarmed by that. */
	while (depth && alt_start != alt_end) {
		const struct holding *h = holding + depth - 1;
		if (h->tid && h->tid != tid   ? trap_is_guest()
		    : h->on_alt == on_alt(sp) ? h->sp > sp
					      : on_alt(sp))
			break;
		let_go_last();
	}
}

/* The thread ends. */
static void forget_all(void)
{
	while (depth && !trap_is_guest())
		let_go_last();
}

bool trap_inside(bool on)
{
	bool was = inside;

	inside = on;
	return was;
}

void trap_let_go(const struct trap_call *c)
{
	/* It has none of its own: too many are under way. */
	if (!c->depth)
		return;
	/* Above it lie those that were left meanwhile. */
	while (depth >= c->depth)
		let_go_last();
	depth = c->depth;
}

static bool is_held(const struct holding *h, uintptr_t addr, size_t len)
{
	for (unsigned i = 0; i < h->n; i++) {
		const struct pinned *p = h->part + i;
		if (!p->len ||
		    (addr >> BLOCK_SHIFT >= p->start >> BLOCK_SHIFT &&
		     (addr + len - 1) >> BLOCK_SHIFT <= (p->start + p->len - 1) >> BLOCK_SHIFT))
			return true;
	}
	return false;
}

void trap_hold(uintptr_t addr, size_t len, bool write)
{
	struct holding *h = holding + depth - 1;

	if (!len || !region_near(addr, len))
		return;
	/* Some more and nothing may leave at all, so not one for each. */
	if (!is_held(h, addr, len)) {
		bool last = h->n == PARTS - 1;
		if (h->n < PARTS)
			pinned_begin(h->part + h->n++, last ? 0 : addr, last ? 0 : len);
	}
	trap_bring(addr, len, write);
}

/* --- memory of the program's that need not be there --- */

/*
 * Are the 8 bytes there? By a call that has no effect here: all signals are blocked already, but
 * for ours. What is there stays so: only the program itself could unmap it.
 */
static bool is_there(uintptr_t at, bool write)
{
	return !k_syscall(SYS_rt_sigprocmask, SIG_BLOCK, write ? 0 : (long)at, write ? (long)at : 0,
			  sizeof(uint64_t), 0, 0);
}

static bool begin_access(struct pinned *p, uintptr_t addr, size_t len, bool write)
{
	uint64_t ours = TRAP_SIGNALS;
	/* Two pages at most. Of reads the words around it. */
	uintptr_t first = write ? addr : addr & ~7ul,
		  last = write ? addr + len - 8 : (addr + len - 1) & ~7ul;

	*p = (struct pinned){ 0 };
	if (region_near(addr, len)) {
		pinned_begin(p, addr, len);
		trap_bring(addr, len, write);
	}
	bool there = is_there(first, write) && (first == last || is_there(last, write));
	if (!write)
		k_syscall(SYS_rt_sigprocmask, SIG_UNBLOCK, (long)&ours, 0, sizeof(ours), 0, 0);
	return there;
}

static void end_access(const struct pinned *p)
{
	if (p->len)
		pinned_end(p);
}

bool trap_read(void *to, uintptr_t from, size_t len)
{
	struct pinned p;
	bool there = begin_access(&p, from, len, false);

	if (there)
		memcpy(to, (const void *)from, len);
	end_access(&p);
	return there;
}

bool trap_write(uintptr_t to, const void *from, size_t len)
{
	struct pinned p;
	bool there = begin_access(&p, to, len, true);

	if (there)
		memcpy((void *)to, from, len);
	end_access(&p);
	return there;
}

/* --- bringing it in --- */

/* That the resolver may need. */
#define ROOM (48ul << 10)

static bool has_room(uintptr_t start, uintptr_t end)
{
	uintptr_t here = (uintptr_t)__builtin_frame_address(0);

	return here < start || here >= end || here - start > ROOM;
}

void trap_bring(uintptr_t addr, size_t len, bool write)
{
	uintptr_t start = addr & ~(uintptr_t)(K_PAGE - 1),
		  end = (addr + len + K_PAGE - 1) & ~(uintptr_t)(K_PAGE - 1);
	unsigned clean = 0, vain = 0;

	/* Twice: what has just arrived is mapped writable first, and protected then. */
	while (clean < 2) {
		int err = k_madvise((void *)start, end - start,
				    write ? MADV_POPULATE_WRITE : MADV_POPULATE_READ);
		if (err == -EFAULT &&
		    sigfault_bring(start, end, write, has_room(alt_start, alt_end))) {
			clean = 0;
			continue;
		}
		/* It has come in between, and may be protected next: that is no answer. */
		if (err == -EFAULT && sigfault_running() && ++vain < VAIN) {
			sigfault_barrier();
			clean = 0;
			continue;
		}
		if (err && end - start > K_PAGE) {
			/* A part of it is no memory, or not writable: the others may be. */
			size_t half = (end - start) / 2 & ~(size_t)(K_PAGE - 1);
			if (region_near(start, half))
				trap_bring(start, half, write);
			if (region_near(start + half, end - start - half))
				trap_bring(start + half, end - start - half, write);
			return;
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

long trap_populated(long r, uintptr_t addr, size_t len, bool write)
{
	uint64_t saved;

	if (r != -EFAULT || !sigfault_running())
		return r;
	for (size_t part; len; addr += part, len -= part) {
		part = len < (1ul << 20) ? len : 1ul << 20;
		/* A handler may touch what is away, for which it needs the same locks. */
		k_signals_block(&saved);
		trap_bring(addr, part, write);
		k_signals_restore(saved);
	}
	return 0;
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
	k_syscall(SYS_sigaltstack, (long)&alt_set, 0, 0, 0, 0, 0);
}

const stack_t *trap_own_alt(void)
{
	return alt_own ? &alt_set : NULL;
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

static void take_signals(void);

/* First thing in what a call has made. */
__attribute__((used, visibility("hidden"))) void emf_trap_child(void)
{
	bool guest = trap_is_guest();

	/* CLONE_CLEAR_SIGHAND has reset them. */
	if (guest)
		take_signals();
	dispatch(true);
	/* A fork or a vfork has its parent's stack for handlers. */
	if (!guest)
		thread_begin();
}

/*
 * The same where it has another stack in the same memory (posix_spawn). Its parent may be in a
 * handler, on the stack for these: the lower half is the child's.
 */
__attribute__((used, visibility("hidden"))) void emf_trap_spawned(void)
{
	stack_t half = alt_set;

	half.ss_size /= 2;
	if (alt_own)
		k_syscall(SYS_sigaltstack, (long)&half, 0, 0, 0, 0, 0);
	emf_trap_child();
}

/* --- the stubs --- */

/*
 * In RCX, which the system call clobbers anyway: where to go on. Below the red zone, for the call
 * clobbers no memory. It is above the frame of no handler.
 */
extern char emf_trap_plain[] __attribute__((visibility("hidden"))),
    emf_trap_piece_open[] __attribute__((visibility("hidden"))),
    emf_trap_piece_call[] __attribute__((visibility("hidden"))),
    emf_trap_piece_end[] __attribute__((visibility("hidden"))),
    emf_trap_plain_call[] __attribute__((visibility("hidden"))),
    emf_trap_held_call[] __attribute__((visibility("hidden"))),
    emf_trap_held[] __attribute__((visibility("hidden"))),
    emf_trap_fork[] __attribute__((visibility("hidden"))),
    emf_trap_spawn[] __attribute__((visibility("hidden"))),
    emf_trap_bare[] __attribute__((visibility("hidden"))),
    emf_trap_return[] __attribute__((visibility("hidden"))),
    emf_trap_int80[] __attribute__((visibility("hidden"))),
    emf_trap_restorer[] __attribute__((visibility("hidden")));

/* clang-format off */
/* A thread may be cancelled, that is unwound, at any of these instructions. */
#define PUSH(r) "	push %" #r "\n	.cfi_adjust_cfa_offset 8\n"
#define POP(r) "	pop %" #r "\n	.cfi_adjust_cfa_offset -8\n"
#define SAVE \
	PUSH(rax) PUSH(rdi) PUSH(rsi) PUSH(rdx) PUSH(r8) PUSH(r9) PUSH(r10) PUSH(rbp) \
	"	.cfi_rel_offset %rbp, 0\n" \
	"	mov %rsp, %rbp\n	.cfi_def_cfa_register %rbp\n" \
	"	and $-16, %rsp\n"
#define RESTORE \
	"	mov %rbp, %rsp\n	.cfi_def_cfa_register %rsp\n" \
	POP(rbp) "	.cfi_restore %rbp\n" \
	POP(r10) POP(r9) POP(r8) POP(rdx) POP(rsi) POP(rdi) POP(rax)
#define LABEL(name) ".globl " #name "\n.hidden " #name "\n" #name ":\n"
#define BEGIN(name) LABEL(name) ".type " #name ", @function\n"
#define FRAME \
	"	.cfi_startproc\n	.cfi_def_cfa %rsp, 0\n	.cfi_register %rip, %rcx\n" \
	"	lea -128(%rsp), %rsp\n	.cfi_def_cfa_offset 128\n" \
	"	push %rcx\n	.cfi_def_cfa_offset 136\n	.cfi_offset %rip, -136\n"
/* The child has a stack of its own, or uses that on which it was made; so the way back is in R9, which
 * none of these calls has an argument in. */
#define CHILD(name, begin) \
	BEGIN(name) \
	"	.cfi_startproc\n	.cfi_def_cfa %rsp, 0\n	.cfi_register %rip, %r9\n" \
	"	mov %rcx, %r9\n" \
	"	syscall\n" \
	"	test %rax, %rax\n" \
	"	jnz 1f\n" \
	"	lea -128(%rsp), %rsp\n	.cfi_def_cfa_offset 128\n" \
	SAVE \
	begin \
	RESTORE \
	"	lea 128(%rsp), %rsp\n	.cfi_def_cfa_offset 0\n" \
	"1:	mov %r9, %rcx\n" \
	"	jmp *%r9\n" \
	"	.cfi_endproc\n"

__asm__(".pushsection emf_allowed, \"ax\", @progbits\n"
	BEGIN(emf_trap_plain)
	FRAME
	LABEL(emf_trap_plain_call)
	"	syscall\n"
	"	ret $128\n"
	"	.cfi_endproc\n"
	BEGIN(emf_trap_held)
	FRAME
	LABEL(emf_trap_held_call)
	"	syscall\n"
	SAVE
	"	mov %rbp, %rdi\n"
	"	call emf_trap_done\n"
	RESTORE
	"	ret $128\n"
	"	.cfi_endproc\n"
	CHILD(emf_trap_fork, "	call emf_trap_child\n")
	CHILD(emf_trap_spawn, "	call emf_trap_spawned\n")
	CHILD(emf_trap_bare, "")
	/* struct piece: only in here others may interrupt it, so that they can tell how far it is. */
	BEGIN(emf_trap_piece)
	"	.cfi_startproc\n"
	PUSH(rbx)
	"	.cfi_rel_offset %rbx, 0\n	mov %rdi, %rbx\n"
	"	mov $14, %eax\n	mov $2, %edi\n	mov (%rbx), %rsi\n	lea 8(%rbx), %rdx\n"
	"	mov $8, %r10d\n	syscall\n"
	LABEL(emf_trap_piece_open)
	"	mov 16(%rbx), %rax\n	mov 24(%rbx), %rdi\n	mov 32(%rbx), %rsi\n"
	"	mov 40(%rbx), %rdx\n	mov 48(%rbx), %r10\n	mov 56(%rbx), %r8\n	mov 64(%rbx), %r9\n"
	LABEL(emf_trap_piece_call)
	"	syscall\n"
	LABEL(emf_trap_piece_end)
	"	mov %rax, 16(%rbx)\n"
	"	mov $14, %eax\n	mov $2, %edi\n	lea 8(%rbx), %rsi\n	xor %edx, %edx\n"
	"	mov $8, %r10d\n	syscall\n"
	"	mov 16(%rbx), %rax\n"
	POP(rbx)
	"	ret\n"
	"	.cfi_endproc\n"
	/* The numbers and addresses of 32 bits. */
	BEGIN(emf_trap_int80)
	"	int $0x80\n"
	"	jmp *%r11\n"
	/* rt_sigreturn, for which the stack pointer is the argument. */
	BEGIN(emf_trap_return)
	"	syscall\n"
	"	ud2\n"
	/* Unwinders know it by these very bytes. */
	BEGIN(emf_trap_restorer)
	"	movq $15, %rax\n"
	"	syscall\n"
	"	ud2\n"
	".popsection\n");
/* clang-format on */

/* --- SIGSYS --- */

/* As the assembly has it. */
struct piece {
	const uint64_t *mask; /* the thread's */
	uint64_t inside;      /* the handler's */
	long nr, arg[6];      /* nr: and what comes of it */
	const ucontext_t *context;
	bool done;
};
long emf_trap_piece(struct piece *p) __attribute__((visibility("hidden")));

long trap_piece(const struct trap_call *c, const long arg[6], bool done)
{
	struct piece p = { .mask = c->mask, .nr = c->nr, .context = c->context, .done = done };

	memcpy(p.arg, arg, sizeof(p.arg));
	inside = false;
	long r = emf_trap_piece(&p);
	inside = true;
	return r;
}

bool trap_show_call(ucontext_t *u)
{
	greg_t *g = u->uc_mcontext.gregs;
	const char *at = (const char *)g[REG_RIP];
	bool plain = at >= emf_trap_plain && at <= emf_trap_plain_call,
	     held = at >= emf_trap_held && at <= emf_trap_held_call;
	const greg_t instruction = 2; /* its length */

	if (plain || held) {
		bool pushed = at == emf_trap_plain_call || at == emf_trap_held_call,
		     first = at == emf_trap_plain || at == emf_trap_held;
		g[REG_RIP] = (pushed ? *(const greg_t *)g[REG_RSP] : g[REG_RCX]) - instruction;
		g[REG_RSP] += pushed ? 136 : first ? 0 : 128;
		return true;
	}
	if (at < emf_trap_piece_open || at > emf_trap_piece_call)
		return false;
	const struct piece *p = (const void *)g[REG_RBX];
	if (p->done) {
		/* Back with what was done. */
		g[REG_RIP] = (greg_t)emf_trap_piece_end;
		g[REG_RAX] = -EINTR;
		return false;
	}
	memcpy(g, p->context->uc_mcontext.gregs, sizeof(gregset_t));
	g[REG_RIP] -= instruction;
	return true;
}

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

/* Per call of clone3, until it is made. Kernels to come may know more of it. */
static __thread union clone_copy {
	struct clone_args args;
	char bytes[256];
} clone_copy[2] OWN;
static __thread unsigned clone_next OWN;

/* False: *result. */
static bool copy_clone_args(union clone_copy *to, uintptr_t from, size_t len, long *result)
{
	char c;

	*result = -EFAULT;
	memset(to, 0, sizeof(*to));
	if (!trap_read(to, from, len < sizeof(*to) ? len : sizeof(*to)))
		return false;
	for (size_t i = sizeof(*to); i < len; i++) {
		if (!trap_read(&c, from + i, 1))
			return false;
		*result = -E2BIG;
		if (c)
			return false;
	}
	return true;
}

/* False: *result is all that is to be done. */
static bool make(greg_t *g, const struct trap_call *c, long *result)
{
	uint64_t flags = 0;
	bool stack = false;

	if (c->nr == SYS_clone) {
		flags = (uint64_t)c->arg[0];
		stack = c->arg[1];
		bring_near((uintptr_t)c->arg[2], sizeof(pid_t));
		bring_near((uintptr_t)c->arg[3], sizeof(pid_t));
	} else if (c->nr == SYS_clone3) {
		size_t len = (size_t)c->arg[1];
		if (len < CLONE_ARGS_SIZE_VER0 || len > K_PAGE) {
			go_on(g, emf_trap_plain, c->nr);
			return true;
		}
		union clone_copy *to = clone_copy + clone_next++ % 2;
		if (!copy_clone_args(to, (uintptr_t)c->arg[0], len, result))
			return false;
		flags = to->args.flags;
		stack = to->args.stack;
		bring_near(to->args.pidfd, sizeof(int));
		bring_near(to->args.parent_tid, sizeof(pid_t));
		bring_near(to->args.child_tid, sizeof(pid_t));
		if (to->args.set_tid_size <= 32)
			bring_near(to->args.set_tid, to->args.set_tid_size * sizeof(pid_t));
		if (region_near((uintptr_t)c->arg[0], len)) {
			g[REG_RDI] = (greg_t)to;
			g[REG_RSI] = (greg_t)(len < sizeof(*to) ? len : sizeof(*to));
		}
	} else if (c->nr == SYS_vfork) {
		flags = CLONE_VM | CLONE_VFORK;
	}
	/* A thread that shares its parent's thread-local memory can't be told from it. */
	bool bare = flags & CLONE_VM && !(flags & (CLONE_VFORK | CLONE_SETTLS));
	bool spawn = flags & CLONE_VM && flags & CLONE_VFORK && stack;
	go_on(g, bare && stack ? emf_trap_bare : spawn ? emf_trap_spawn : emf_trap_fork, c->nr);
	return true;
}

static struct holding *begin_holding(struct trap_call *c)
{
	forget_left(c->sp);
	if (depth == CALLS)
		return NULL;
	struct holding *h = holding + depth++;
	h->sp = c->sp;
	h->on_alt = on_alt(c->sp);
	h->n = 0;
	h->tid = 0;
	c->depth = depth;
	for (unsigned i = 0; i < 6; i++)
		h->arg[i] = c->arg[i];
	return h;
}

static enum trap_way look(struct trap_call *c, long *result)
{
	enum trap_way way;

	if (c->nr == SYS_exit)
		forget_all();
	if (!holding || engine_thread || inside) {
		way = trap_signal_call(c, result);
		if (way != TRAP_DONE && trap_exec(c, result))
			way = TRAP_DONE;
		return way == TRAP_HELD ? TRAP_PLAIN : way;
	}
	struct holding *h = begin_holding(c);
	inside = true;
	way = trap_signal_call(c, result);
	if (way != TRAP_DONE)
		way = trap_look(c, result);
	inside = false;
	if (way != TRAP_DONE && trap_exec(c, result))
		way = TRAP_DONE;
	/* Else it is pinned as long as that of the last one. */
	if (!h)
		return way == TRAP_DONE ? TRAP_DONE : TRAP_PLAIN;
	h->replaced = false;
	for (unsigned i = 0; i < 6; i++)
		h->replaced |= h->arg[i] != c->arg[i];
	if (way == TRAP_DONE || (!h->n && !h->replaced)) {
		while (depth >= c->depth)
			let_go_last();
		return way == TRAP_DONE ? TRAP_DONE : TRAP_PLAIN;
	}
	h->tid = own_tid();
	return TRAP_HELD;
}

static void on_sigsys(int sig, siginfo_t *info, void *context)
{
	ucontext_t *u = context;
	greg_t *g = u->uc_mcontext.gregs;
	long result = 0;
	int saved = errno;
	enum trap_way way = TRAP_HELD;

	if (info->si_code != SYS_USER_DISPATCH) {
		trap_pass_on(sig, info, context);
		return;
	}
	if (info->si_arch != AUDIT_ARCH_X86_64) {
		g[REG_R11] = g[REG_RIP];
		g[REG_RIP] = (greg_t)emf_trap_int80;
		return;
	}
	struct trap_call c = {
		.nr = info->si_syscall,
		.arg = { g[REG_RDI], g[REG_RSI], g[REG_RDX], g[REG_R10], g[REG_R8], g[REG_R9] },
		.sp = (uintptr_t)g[REG_RSP],
		.mask = (uint64_t *)&u->uc_sigmask,
		.context = u,
	};
	alt_start = (uintptr_t)u->uc_stack.ss_sp;
	alt_end = alt_start + (u->uc_stack.ss_flags & SS_DISABLE ? 0 : u->uc_stack.ss_size);
	switch (c.nr) {
	case SYS_rt_sigreturn:
		g[REG_RAX] = c.nr;
		g[REG_RIP] = (greg_t)emf_trap_return;
		return;
	case SYS_clone:
	case SYS_clone3:
	case SYS_fork:
	case SYS_vfork:
		if (!make(g, &c, &result))
			way = TRAP_DONE;
		break;
	default:
		way = look(&c, &result);
		if (way == TRAP_DONE)
			break;
		g[REG_RDI] = c.arg[0];
		g[REG_RSI] = c.arg[1];
		g[REG_RDX] = c.arg[2];
		g[REG_R10] = c.arg[3];
		g[REG_R8] = c.arg[4];
		g[REG_R9] = c.arg[5];
		go_on(g, way == TRAP_HELD ? emf_trap_held : emf_trap_plain, c.nr);
		break;
	}
	if (way == TRAP_DONE) {
		g[REG_RAX] = result;
		g[REG_RCX] = g[REG_RIP];
	}
	errno = saved;
}

/* --- SIGBUS --- */

#define ERR_PRESENT 1
#define ERR_WRITE 2

static void on_sigbus(int sig, siginfo_t *info, void *context)
{
	ucontext_t *u = context;
	greg_t err = u->uc_mcontext.gregs[REG_ERR];
	uintptr_t alt = (uintptr_t)u->uc_stack.ss_sp;
	bool room = has_room(alt, alt + u->uc_stack.ss_size), was = inside;
	int saved = errno;

	inside = true;
	bool ours =
	    info->si_code == BUS_ADRERR &&
	    sigfault_resolve((uintptr_t)info->si_addr, err & ERR_WRITE,
			     (err & (ERR_WRITE | ERR_PRESENT)) == (ERR_WRITE | ERR_PRESENT), room);
	inside = was;
	errno = saved;
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

static void handle(int sig, void (*handler)(int, siginfo_t *, void *))
{
	struct action a = {
		.handler = handler,
		.flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER | SA_RESTORER_,
		.restorer = emf_trap_restorer,
		.mask = ~TRAP_SIGNALS,
	};

	k_syscall(SYS_rt_sigaction, sig, (long)&a, 0, sizeof(a.mask), 0, 0);
}

static void take_signals(void)
{
	handle(SIGSYS, on_sigsys);
	handle(SIGBUS, on_sigbus);
}

int trap_start(void)
{
	uint64_t ours = TRAP_SIGNALS, was = 0;

	trap_pid = (pid_t)k_syscall(SYS_getpid, 0, 0, 0, 0, 0, 0);
	int err = dispatch(false);
	if (err)
		return err;
	trap_signals_before();
	take_signals();
	k_syscall(SYS_rt_sigprocmask, SIG_UNBLOCK, (long)&ours, (long)&was, sizeof(ours), 0, 0);
	trap_blocked_before(was);
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
long trap_populated(long r, uintptr_t addr, size_t len, bool write)
{
	(void)addr;
	(void)len;
	(void)write;
	return r;
}
#endif
