/* SPDX-License-Identifier: Apache-2.0 */
/*
 * System calls made through syscall(2) that change memory or read past the page table, and the
 * forks that run no fork handlers: _Fork, clone, and these by number. What is not of our concern
 * goes to the kernel exactly as by libc's own function, without a stack frame: a clone may return
 * on another stack, and a vfork twice on the same.
 *
 * A call that the program makes by an instruction of its own is seen by the kernel's
 * events only (change.h). Should that be a fork, the child gets none of the
 * managed memory.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <linux/sched.h>
#include <sched.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#include "engine.h"
#include "kernel.h"
#include "preload.h"
#include "region.h"
#include "trap.h"

/* The file's assembly calls them. */
long emf_syscall(long n, long a, long b, long c, long d, long e, long f);
long emf_syscall_failed(long r);
long emf_syscall_raw(long n, ...);
bool emf_clone3_shares(const void *args);

/* Does the child share memory? If the address is none that is for the kernel to say. */
bool emf_clone3_shares(const void *args)
{
	uint64_t flags = 0;
	struct iovec local = { &flags, sizeof(flags) }, remote = { (void *)args, sizeof(flags) };

	if (region_near((uintptr_t)args, sizeof(flags)))
		return *(const uint64_t *)args & CLONE_VM;
	long r = k_syscall(SYS_process_vm_readv, k_syscall(SYS_getpid, 0, 0, 0, 0, 0, 0),
			   (long)&local, 1, (long)&remote, 1, 0);
	if (r == -ENOSYS || r == -EPERM)
		flags = *(const uint64_t *)args;
	return r == -EFAULT || flags & CLONE_VM;
}

long emf_syscall_failed(long r)
{
	errno = (int)-r;
	return -1;
}

/* fork and what equals it. Both sides return. */
static long fork_by(long n, long a, long b, long c, long d, long e)
{
	/* clone3's flags are the first word of its structure. */
	uint64_t flags = n == SYS_clone ? (uint64_t)a : n == SYS_clone3 ? *(const uint64_t *)a : 0;
	struct clone_args args;

	/* Of memory that may be away. */
	if (n == SYS_clone3 && (size_t)b <= sizeof(args))
		a = (long)memcpy(&args, (const void *)a, (size_t)b);
	engine_await_start();
	before_fork(!(flags & CLONE_FILES));
	long r = k_syscall(n, a, b, c, d, e, 0);
	if (r)
		after_fork_parent();
	else
		after_fork_child();
	return edge(r);
}

long emf_syscall(long n, long a, long b, long c, long d, long e, long f)
{
	/* What has memory of the program's in it: where these calls are dispatched, not past that.
	 */
	bool dispatched = trap_on && n != SYS_clone && n != SYS_clone3 && n != SYS_fork;

	switch (n) {
	case SYS_munmap:
		return edge(unmap((void *)a, (size_t)b));
	case SYS_madvise:
		return edge(advise((void *)a, (size_t)b, (int)c));
	case SYS_mremap:
		return edge(remap((void *)a, (size_t)b, (size_t)c, (int)d, (void *)e));
	case SYS_mmap:
		return edge(map_over((void *)a, (size_t)b, (int)c, (int)d, (int)e, f));
	case SYS_read:
	case SYS_pread64:
	case SYS_readv:
	case SYS_preadv:
	case SYS_preadv2:
		if (dispatched)
			return emf_syscall_raw(n, a, b, c, d, e, f);
		return edge(direct_read(n, a, b, c, d, e, f));
	case SYS_io_setup:
	case SYS_io_uring_setup: {
		long r = dispatched ? emf_syscall_raw(n, a, b, c, d, e, f)
				    : edge(k_syscall(n, a, b, c, d, e, f));
		int saved = errno;
		direct_async();
		errno = saved;
		return r;
	}
	default:
		return fork_by(n, a, b, c, d, e);
	}
}

#ifdef __x86_64__
/* From a C call's registers to the kernel's, and back as libc does it. */
#define CALL                                                                                       \
	"	mov %rdi, %rax\n	mov %rsi, %rdi\n	mov %rdx, %rsi\n	mov "                                 \
	"%rcx, %rdx\n"                                                                             \
	"	mov %r8, %r10\n	mov %r9, %r8\n	mov 8(%rsp), %r9\n	syscall\n"                             \
	"	cmp $-4095, %rax\n	jae 4f\n	ret\n"                                                       \
	"4:	mov %rax, %rdi\n	jmp emf_syscall_failed\n"

/*
 * long syscall(long n, ...). Numbers from arch/x86/entry/syscalls/syscall_64.tbl: 0 read, 9 mmap,
 * 11 munmap, 17 pread64, 19 readv, 25 mremap, 28 madvise, 56 clone, 57 fork, 206 io_setup, 295
 * preadv, 327 preadv2, 425 io_uring_setup, 435 clone3; 0x100 is CLONE_VM, in clone's first
 * argument.
 */
__asm__(".text\n"
	".globl syscall\n"
	".type syscall, @function\n"
	"syscall:\n"
	"	cmp $28, %rdi\n"
	"	ja 2f\n"
	"	je 1f\n"
	"	mov $0x020a0a01, %eax\n" /* a bit for each of 0, 9, 11, 17, 19, 25 */
	"	bt %edi, %eax\n"
	"	jnc emf_syscall_raw\n"
	"1:	pushq 8(%rsp)\n"
	"	call emf_syscall\n"
	"	add $8, %rsp\n"
	"	ret\n"
	"2:	cmp $57, %rdi\n"
	"	je 1b\n"
	"	cmp $56, %rdi\n"
	"	je 3f\n"
	"	cmp $206, %rdi\n"
	"	je 1b\n"
	"	cmp $295, %rdi\n"
	"	je 1b\n"
	"	cmp $327, %rdi\n"
	"	je 1b\n"
	"	cmp $425, %rdi\n"
	"	je 1b\n"
	"	cmp $435, %rdi\n"
	"	jne emf_syscall_raw\n"
	"	cmp $64, %rdx\n" /* CLONE_ARGS_SIZE_VER0; who asks what there is gives less, or no
				    address */
	"	jb emf_syscall_raw\n"
	"	test %rsi, %rsi\n"
	"	jz emf_syscall_raw\n"
	"	push %rdi\n"
	"	push %rsi\n"
	"	push %rdx\n"
	"	push %rcx\n"
	"	push %r8\n"
	"	push %r9\n"
	"	sub $8, %rsp\n"
	"	mov %rsi, %rdi\n"
	"	call emf_clone3_shares\n"
	"	add $8, %rsp\n"
	"	pop %r9\n"
	"	pop %r8\n"
	"	pop %rcx\n"
	"	pop %rdx\n"
	"	pop %rsi\n"
	"	pop %rdi\n"
	"	test %al, %al\n"
	"	jz 1b\n"
	"	jmp emf_syscall_raw\n"
	"3:	test $0x100, %esi\n"
	"	jz 1b\n"
	".globl emf_syscall_raw\n"
	".hidden emf_syscall_raw\n"
	".type emf_syscall_raw, @function\n"
	"emf_syscall_raw:\n" CALL ".size syscall, . - syscall\n"
	/* The runtime's own: see trap.h. */
	".pushsection emf_allowed, \"ax\", @progbits\n"
	".globl emf_syscall_own\n"
	".hidden emf_syscall_own\n"
	".type emf_syscall_own, @function\n"
	"emf_syscall_own:\n" CALL ".size emf_syscall_own, . - emf_syscall_own\n"
	".popsection\n");
#endif

static pid_t (*next_fork)(void);
static int (*next_clone)(int (*)(void *), void *, int, void *, ...);

/* At the start: dlsym must not be called where _Fork may be, in a signal handler. */
__attribute__((constructor)) static void find_next(void)
{
	next_fork = (pid_t(*)(void))dlsym(RTLD_NEXT, "_Fork");
	next_clone = (int (*)(int (*)(void *), void *, int, void *, ...))dlsym(RTLD_NEXT, "clone");
}

EXPORT pid_t _Fork(void)
{
	if (!next_fork) {
		errno = ENOSYS;
		return -1;
	}
	engine_await_start();
	before_fork(true);
	pid_t pid = next_fork();
	int saved = errno;
	if (pid)
		after_fork_parent();
	else
		after_fork_child();
	errno = saved;
	return pid;
}

struct start {
	int (*fn)(void *);
	void *arg;
};

static int start(void *arg)
{
	struct start *s = arg;

	after_fork_child();
	return s->fn(s->arg);
}

EXPORT int clone(int (*fn)(void *), void *stack, int flags, void *arg, ...)
{
	struct start s = { fn, arg };
	va_list ap;

	va_start(ap, arg);
	void *parent_tid = va_arg(ap, void *), *tls = va_arg(ap, void *),
	     *child_tid = va_arg(ap, void *);
	va_end(ap);
	if (!next_clone) {
		errno = ENOSYS;
		return -1;
	}
	/* What the kernel writes at the thread's end: see threads.c. */
	if (flags & CLONE_VM && flags & CLONE_CHILD_CLEARTID && child_tid)
		keep_local(child_tid, sizeof(pid_t), KEPT_ALWAYS);
	if (flags & CLONE_VM || !fn || !stack)
		return next_clone(fn, stack, flags, arg, parent_tid, tls, child_tid);
	engine_await_start();
	before_fork(!(flags & CLONE_FILES));
	int pid = next_clone(start, stack, flags, &s, parent_tid, tls, child_tid);
	int saved = errno;
	after_fork_parent();
	errno = saved;
	return pid;
}
