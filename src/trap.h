/* SPDX-License-Identifier: Apache-2.0 */
/*
 * engine.fault=signal: system calls on memory that may be far. With UFFD_FEATURE_SIGBUS the
 * kernel serves no fault of its own: a call that meets an absent or protected page ends with
 * EFAULT. So every call of the program's threads, libc's inside itself included, is
 * dispatched to us first (prctl(2), PR_SET_SYSCALL_USER_DISPATCH; the kernel ends that at exec):
 * what its pointers lead to is brought in, and pinned (pinned.h) until the call has returned.
 *
 * The handler of SIGSYS does not make the call: it has the thread go on in one of the stubs of
 * trap.c, whose text, as all the runtime's calls (EMF_ALLOWED), is not dispatched. So the call is
 * made on the program's own stack, with its own signal mask and no frame of ours on it: handlers
 * that interrupt it, restarts, cancellation, siglongjmp out of it and threads that begin in it are
 * as ever.
 *
 * SIGBUS and SIGSYS are ours: no thread ever blocks them, and what the program does with
 * their actions and masks is kept beside (trap_signals.c).
 *
 * Threads of the runtime's own are not dispatched.
 */
#ifndef EMF_TRAP_H
#define EMF_TRAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <signal.h>
#include <ucontext.h>

#define TRAP_SIGNALS (1ull << (SIGBUS - 1) | 1ull << (SIGSYS - 1))

/* Is the program's every call dispatched? */
extern bool trap_on;

/* From the constructor: from now on. -ENOSYS: the kernel (5.11) or the processor can't. */
int trap_start(void);
/* In the child of a fork, by whatever way it was made. */
void trap_after_fork(void);
/* Is the caller the child of a vfork, in memory that is its parent's? */
bool trap_is_guest(void);
/* By a thread of the runtime's own. */
void trap_thread_off(void);

/* Brings [addr, addr + len) in, as far as it is managed; the caller has pinned it, or does not
 * mind. */
void trap_bring(uintptr_t addr, size_t len, bool write);

/*
 * r: what MADV_POPULATE_READ or _WRITE has returned. Where the kernel met what is away, be it
 * because the engine has started in between, that is brought: one part after the other, as all
 * of it may be more than fits. What the program gets: r, or 0.
 */
long trap_populated(long r, uintptr_t addr, size_t len, bool write);

/* --- between the files of trap*.c --- */

struct trap_call {
	long nr, arg[6];
	uintptr_t sp;
	unsigned depth; /* that it has among the calls under way of its thread, from 1 */
	uint64_t *mask; /* of the thread, from its return on */
	const ucontext_t *context;
};

enum trap_way {
	TRAP_PLAIN, /* nothing of it is managed */
	TRAP_HELD,  /* something is pinned until it has returned */
	TRAP_DONE,  /* *result, without a call */
};
/* trap_calls.c: what is to be done about a call. May change its arguments. */
enum trap_way trap_look(struct trap_call *c, long *result);

/* trap_signals.c: the same, of those that have to do with signals. HELD: trap_look is to see to it.
 */
enum trap_way trap_signal_call(struct trap_call *c, long *result);
/* What the program was started with. */
void trap_signals_before(void);
void trap_blocked_before(uint64_t mask);
/* execve and execveat, of which only failure returns; false: as any other. */
bool trap_exec(const struct trap_call *c, long *result);
/* The signal is the program's: as it would be without us. */
void trap_pass_on(int sig, siginfo_t *info, void *context);

/* A part of the memory that the call under way needs is pinned, and brought in. */
void trap_hold(uintptr_t addr, size_t len, bool write);
/* What others do that interrupt a handler: not so. As it was. */
bool trap_inside(bool on);
/* A part of the call is made by the handler, with the thread's mask. done: it is not the first. */
long trap_piece(const struct trap_call *c, const long arg[6], bool done);
/*
 * By the handler of cancellation, which looks whether a call was interrupted before it has had any
 * effect: then it is to find the program's registers, as they are at the program's own instruction.
 * False: it was not.
 */
bool trap_show_call(ucontext_t *u);
/* Ends what the call has pinned so far. */
void trap_let_go(const struct trap_call *c);
/* The stack for handlers that stands in for the program's; NULL: there is none. */
const stack_t *trap_own_alt(void);
/*
 * Memory of the program's that may be away, or none at all (false). By handlers; a page at most, to
 * be written 8 bytes at least.
 */
bool trap_read(void *to, uintptr_t from, size_t len);
bool trap_write(uintptr_t to, const void *from, size_t len);

#endif
