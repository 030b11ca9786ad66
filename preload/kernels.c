/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernel's calls as libc names them, for the runtime: the build renames its calls to these
 * (runtime.syms). A program, or what else is preloaded, may have a function of such a name, a
 * write() of its own or an interceptor with locks, and the dynamic linker would give the runtime
 * that.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>

#include "kernel.h"
#include "preload.h"

/* TO(result, name, (parameters), number, arguments...): up to six, the rest are zero. */
#define TO(type, name, parameters, ...)                                                            \
	type own_##name parameters;                                                                \
	type own_##name parameters                                                                 \
	{                                                                                          \
		return (type)edge(SIX(__VA_ARGS__, 0, 0, 0, 0, 0, 0));                             \
	}
#define SIX(n, a, b, c, d, e, f, ...)                                                              \
	k_syscall(SYS_##n, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))

TO(int, access, (const char *path, int mode), faccessat, AT_FDCWD, path, mode)
TO(int, close, (int fd), close, fd)
TO(int, eventfd, (unsigned n, int flags), eventfd2, n, flags)
TO(int, fstat, (int fd, struct stat *st), fstat, fd, st)
TO(int, ftruncate, (int fd, off_t len), ftruncate, fd, len)
TO(int, kill, (pid_t pid, int sig), kill, pid, sig)
TO(off_t, lseek, (int fd, off_t at, int from), lseek, fd, at, from)
TO(int, lstat, (const char *path, struct stat *st), newfstatat, AT_FDCWD, path, st,
   AT_SYMLINK_NOFOLLOW)
TO(int, memfd_create, (const char *name, unsigned flags), memfd_create, name, flags)
TO(int, mkdir, (const char *path, mode_t mode), mkdirat, AT_FDCWD, path, mode)
TO(int, nanosleep, (const struct timespec *t, struct timespec *rest), nanosleep, t, rest)
TO(int, pipe2, (int fd[2], int flags), pipe2, fd, flags)
TO(ssize_t, pread, (int fd, void *buf, size_t len, off_t at), pread64, fd, buf, len, at)
TO(ssize_t, process_vm_readv,
   (pid_t pid, const void *to, unsigned long n, const void *from, unsigned long m,
    unsigned long flags),
   process_vm_readv, pid, to, n, from, m, flags)
TO(ssize_t, pwrite, (int fd, const void *buf, size_t len, off_t at), pwrite64, fd, buf, len, at)
TO(ssize_t, read, (int fd, void *buf, size_t len), read, fd, buf, len)
TO(ssize_t, recvmsg, (int fd, void *message, int flags), recvmsg, fd, message, flags)
TO(int, sched_yield, (void), sched_yield, 0)
TO(ssize_t, sendmsg, (int fd, const void *message, int flags), sendmsg, fd, message, flags)
TO(int, socketpair, (int domain, int type, int protocol, int fd[2]), socketpair, domain, type,
   protocol, fd)
TO(int, stat, (const char *path, struct stat *st), newfstatat, AT_FDCWD, path, st, 0)
TO(int, timerfd_create, (int clock, int flags), timerfd_create, clock, flags)
TO(int, timerfd_settime, (int fd, int flags, const struct itimerspec *t, struct itimerspec *was),
   timerfd_settime, fd, flags, t, was)
TO(int, unlink, (const char *path), unlinkat, AT_FDCWD, path, 0)
TO(ssize_t, write, (int fd, const void *buf, size_t len), write, fd, buf, len)

int own_poll(struct pollfd *fds, nfds_t n, int ms);
int own_poll(struct pollfd *fds, nfds_t n, int ms)
{
	struct timespec t = { ms / 1000, ms % 1000 * 1000000L };

	return (int)edge(k_syscall(SYS_ppoll, (long)fds, (long)n, ms < 0 ? 0 : (long)&t, 0, 8, 0));
}

/* Whoever leaves an argument out has the callee read what is not looked at. */
#define REST(type, last, name)                                                                     \
	va_list rest;                                                                              \
	va_start(rest, last);                                                                      \
	type name = va_arg(rest, type);                                                            \
	va_end(rest)

int own_open(const char *path, int flags, ...);
int own_open(const char *path, int flags, ...)
{
	REST(mode_t, flags, mode);
	return (int)edge(k_syscall(SYS_openat, AT_FDCWD, (long)path, flags, (long)mode, 0, 0));
}

int own_fcntl(int fd, int cmd, ...);
int own_fcntl(int fd, int cmd, ...)
{
	REST(long, cmd, arg);
	return (int)edge(k_syscall(SYS_fcntl, fd, cmd, arg, 0, 0, 0));
}

int own_ioctl(int fd, unsigned long request, ...);
int own_ioctl(int fd, unsigned long request, ...)
{
	REST(long, request, arg);
	return (int)edge(k_syscall(SYS_ioctl, fd, (long)request, arg, 0, 0, 0));
}

int own_prctl(int what, unsigned long a, unsigned long b, unsigned long c, unsigned long d);
int own_prctl(int what, unsigned long a, unsigned long b, unsigned long c, unsigned long d)
{
	return (int)edge(k_syscall(SYS_prctl, what, (long)a, (long)b, (long)c, (long)d, 0));
}
