/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads with O_DIRECT, by which the kernel writes to pages and not to addresses: what they read
 * into stays local until they have returned (pinned.h). Other reads fault as any access does, and
 * may last for ever (sockets), so the descriptor's flags are asked for; that costs a system call
 * where the buffer is managed, and nothing else. Before the engine is active nobody asks: what is
 * read then may last into the time when memory leaves.
 *
 * Of what goes on behind the call (AIO, io_uring) only the beginning can be seen: that
 * a program makes contexts or rings (here, in dma.c and syscall.c), and opens with O_DIRECT.
 *
 * Not seen: system call instructions of the program's own, and what libc reads for itself (stdio).
 */
#define _GNU_SOURCE
#undef _FORTIFY_SOURCE
#include <aio.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "engine.h"
#include "kernel.h"
#include "pinned.h"
#include "preload.h"
#include "region.h"

#define MOST 0x7ffff000u   /* that one call transfers: MAX_RW_COUNT of the kernel */
#define VECTOR 8	   /* longer ones hold all memory */
#define DESCRIPTORS 65536u /* that are looked at, at the most */

struct held {
	unsigned n;
	struct pinned part[VECTOR];
};

static bool reads_direct(long flags)
{
	return flags & O_DIRECT && (flags & O_ACCMODE) != O_WRONLY;
}

static bool is_direct(int fd)
{
	long flags = k_syscall(SYS_fcntl, fd, F_GETFL, 0, 0, 0, 0);

	return flags >= 0 && reads_direct(flags);
}

static bool near(uintptr_t buf, size_t len)
{
	return region_near(buf, len < MOST ? len : MOST);
}

static void hold_part(struct held *h, uintptr_t buf, size_t len)
{
	pinned_begin(h->part + h->n++, buf, len < MOST ? len : MOST);
}

static bool hold(struct held *h, int fd, uintptr_t buf, size_t len)
{
	if (engine_thread || !near(buf, len) || (engine_active() && !is_direct(fd)))
		return false;
	h->n = 0;
	hold_part(h, buf, len);
	return true;
}

/* The vector may not be there, which is for the kernel to say: only where it matters. */
static bool hold_all(struct held *h, int fd, const struct iovec *v, int n)
{
	h->n = 0;
	if (engine_thread || n <= 0 || n > IOV_MAX || !region_count() || !is_direct(fd))
		return false;
	if (n > VECTOR) {
		pinned_begin(h->part + h->n++, 0, 0);
		return true;
	}
	for (int i = 0; i < n; i++)
		if (near((uintptr_t)v[i].iov_base, v[i].iov_len))
			hold_part(h, (uintptr_t)v[i].iov_base, v[i].iov_len);
	return h->n;
}

static void let_go(void *held)
{
	const struct held *h = held;

	for (unsigned i = 0; i < h->n; i++)
		pinned_end(h->part + i);
}

/* A thread may be cancelled in the call. */
#define HELD(h, call)                                                                              \
	({                                                                                         \
		volatile ssize_t got_;                                                             \
		pthread_cleanup_push(let_go, h);                                                   \
		got_ = (call);                                                                     \
		pthread_cleanup_pop(1);                                                            \
		(ssize_t) got_;                                                                    \
	})

/* --- libc's functions --- */

ssize_t __read_chk(int fd, void *buf, size_t len, size_t room);
ssize_t __pread_chk(int fd, void *buf, size_t len, off_t at, size_t room);
ssize_t __pread64_chk(int fd, void *buf, size_t len, off_t at, size_t room);
int __open_2(const char *path, int flags);
int __open64_2(const char *path, int flags);
int __openat_2(int dir, const char *path, int flags);
int __openat64_2(int dir, const char *path, int flags);

#define NEXT(name) static __typeof__(&(name)) next_##name
NEXT(read);
NEXT(pread);
NEXT(readv);
NEXT(preadv);
NEXT(preadv2);
NEXT(__read_chk);
NEXT(__pread_chk);
NEXT(open);
NEXT(openat);
NEXT(__open_2);
NEXT(__openat_2);
NEXT(fcntl);
NEXT(aio_read);
NEXT(lio_listio);

/*
 * At the start: dlsym must not be called where these may be, in a signal handler. They are NULL
 * in constructors that run before ours.
 */
__attribute__((constructor)) static void find_next(void)
{
#define FIND(name) next_##name = (__typeof__(next_##name))dlsym(RTLD_NEXT, #name)
	FIND(read);
	FIND(pread);
	FIND(readv);
	FIND(preadv);
	FIND(preadv2);
	FIND(__read_chk);
	FIND(__pread_chk);
	FIND(open);
	FIND(openat);
	FIND(__open_2);
	FIND(__openat_2);
	FIND(fcntl);
	FIND(aio_read);
	FIND(lio_listio);
}

#define ALIAS(of) __attribute__((alias(#of)))

EXPORT ssize_t read(int fd, void *buf, size_t len)
{
	struct held h;

	if (!next_read)
		return syscall(SYS_read, fd, buf, len);
	if (!hold(&h, fd, (uintptr_t)buf, len))
		return next_read(fd, buf, len);
	return HELD(&h, next_read(fd, buf, len));
}

EXPORT ssize_t __read_chk(int fd, void *buf, size_t len, size_t room)
{
	struct held h;

	if (!next___read_chk)
		return syscall(SYS_read, fd, buf, len);
	if (!hold(&h, fd, (uintptr_t)buf, len))
		return next___read_chk(fd, buf, len, room);
	return HELD(&h, next___read_chk(fd, buf, len, room));
}

EXPORT ssize_t pread(int fd, void *buf, size_t len, off_t at)
{
	struct held h;

	if (!next_pread)
		return syscall(SYS_pread64, fd, buf, len, at);
	if (!hold(&h, fd, (uintptr_t)buf, len))
		return next_pread(fd, buf, len, at);
	return HELD(&h, next_pread(fd, buf, len, at));
}

EXPORT ssize_t pread64(int fd, void *buf, size_t len, off_t at) ALIAS(pread);

EXPORT ssize_t __pread_chk(int fd, void *buf, size_t len, off_t at, size_t room)
{
	struct held h;

	if (!next___pread_chk)
		return syscall(SYS_pread64, fd, buf, len, at);
	if (!hold(&h, fd, (uintptr_t)buf, len))
		return next___pread_chk(fd, buf, len, at, room);
	return HELD(&h, next___pread_chk(fd, buf, len, at, room));
}

EXPORT ssize_t __pread64_chk(int fd, void *buf, size_t len, off_t at, size_t room)
    ALIAS(__pread_chk);

EXPORT ssize_t readv(int fd, const struct iovec *v, int n)
{
	struct held h;

	if (!next_readv)
		return syscall(SYS_readv, fd, v, n);
	if (!hold_all(&h, fd, v, n))
		return next_readv(fd, v, n);
	return HELD(&h, next_readv(fd, v, n));
}

EXPORT ssize_t preadv(int fd, const struct iovec *v, int n, off_t at)
{
	struct held h;

	if (!next_preadv)
		return syscall(SYS_preadv, fd, v, n, at, 0);
	if (!hold_all(&h, fd, v, n))
		return next_preadv(fd, v, n, at);
	return HELD(&h, next_preadv(fd, v, n, at));
}

EXPORT ssize_t preadv64(int fd, const struct iovec *v, int n, off_t at) ALIAS(preadv);

EXPORT ssize_t preadv2(int fd, const struct iovec *v, int n, off_t at, int flags)
{
	struct held h;

	if (!next_preadv2)
		return syscall(SYS_preadv2, fd, v, n, at, 0, flags);
	if (!hold_all(&h, fd, v, n))
		return next_preadv2(fd, v, n, at, flags);
	return HELD(&h, next_preadv2(fd, v, n, at, flags));
}

EXPORT ssize_t preadv64v2(int fd, const struct iovec *v, int n, off_t at, int flags) ALIAS(preadv2);

long direct_read(long n, long fd, long buf, long len, long at, long high, long flags)
{
	struct held h = { 0 };
	bool vector = n != SYS_read && n != SYS_pread64;

	if (vector ? hold_all(&h, (int)fd, (const struct iovec *)buf, (int)len)
		   : hold(&h, (int)fd, (uintptr_t)buf, (size_t)len)) {
		long r = k_syscall(n, fd, buf, len, at, high, flags);
		let_go(&h);
		return r;
	}
	return k_syscall(n, fd, buf, len, at, high, flags);
}

/* --- descriptors with O_DIRECT --- */

static int opened(int fd, int flags)
{
	if (fd >= 0 && reads_direct(flags) && !engine_thread)
		pinned_direct();
	return fd;
}

static mode_t mode_of(int flags, va_list ap)
{
	return flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(ap, mode_t) : 0;
}

EXPORT int open(const char *path, int flags, ...)
{
	va_list ap;

	va_start(ap, flags);
	mode_t mode = mode_of(flags, ap);
	va_end(ap);
	return opened(next_open ? next_open(path, flags, mode)
				: (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode),
		      flags);
}

EXPORT int open64(const char *path, int flags, ...) ALIAS(open);

EXPORT int openat(int dir, const char *path, int flags, ...)
{
	va_list ap;

	va_start(ap, flags);
	mode_t mode = mode_of(flags, ap);
	va_end(ap);
	return opened(next_openat ? next_openat(dir, path, flags, mode)
				  : (int)syscall(SYS_openat, dir, path, flags, mode),
		      flags);
}

EXPORT int openat64(int dir, const char *path, int flags, ...) ALIAS(openat);

EXPORT int __open_2(const char *path, int flags)
{
	return opened(next___open_2 ? next___open_2(path, flags)
				    : (int)syscall(SYS_openat, AT_FDCWD, path, flags),
		      flags);
}

EXPORT int __open64_2(const char *path, int flags) ALIAS(__open_2);

EXPORT int __openat_2(int dir, const char *path, int flags)
{
	return opened(next___openat_2 ? next___openat_2(dir, path, flags)
				      : (int)syscall(SYS_openat, dir, path, flags),
		      flags);
}

EXPORT int __openat64_2(int dir, const char *path, int flags) ALIAS(__openat_2);

EXPORT int fcntl(int fd, int cmd, ...)
{
	va_list ap;

	va_start(ap, cmd);
	long arg = va_arg(ap, long);
	va_end(ap);
	/* Before: others may use the descriptor at once. */
	if (cmd == F_SETFL && arg & O_DIRECT) {
		long flags = k_syscall(SYS_fcntl, fd, F_GETFL, 0, 0, 0, 0);
		if (flags >= 0)
			opened(fd, (int)flags | O_DIRECT);
	}
	return next_fcntl ? next_fcntl(fd, cmd, arg) : (int)syscall(SYS_fcntl, fd, cmd, arg);
}

EXPORT int fcntl64(int fd, int cmd, ...) ALIAS(fcntl);

/* --- what reads behind the call --- */

/* Descriptors that came from elsewhere: over exec, or a socket. */
static bool any_direct(void)
{
	struct rlimit most;

	if (getrlimit(RLIMIT_NOFILE, &most) || most.rlim_cur > DESCRIPTORS)
		most.rlim_cur = DESCRIPTORS;
	for (unsigned fd = 0; fd < most.rlim_cur; fd++)
		if (is_direct((int)fd))
			return true;
	return false;
}

void direct_async(void)
{
	if (engine_thread)
		return;
	if (!pinned_has_direct() && any_direct())
		pinned_direct();
	pinned_async();
}

EXPORT int aio_read(struct aiocb *cb)
{
	direct_async();
	if (next_aio_read)
		return next_aio_read(cb);
	errno = ENOSYS;
	return -1;
}

EXPORT int aio_read64(struct aiocb64 *cb) ALIAS(aio_read);

EXPORT int lio_listio(int mode, struct aiocb *const list[restrict], int n,
		      struct sigevent *restrict sig)
{
	direct_async();
	if (next_lio_listio)
		return next_lio_listio(mode, list, n, sig);
	errno = ENOSYS;
	return -1;
}

EXPORT int lio_listio64(int mode, struct aiocb64 *const list[restrict], int n,
			struct sigevent *restrict sig) ALIAS(lio_listio);
