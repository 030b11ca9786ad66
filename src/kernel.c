/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "kernel.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/sched.h>
#include <linux/sched/types.h>
#include <linux/userfaultfd.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "away.h"
#include "fmt.h"
#include "log.h"

#define PAGEMAP_MAX 512 /* entries read at a time */
#define PROMPT_NICE 10
#define PROMPT_SLICE_NS 100000 /* the shortest that there is */

/* Newer than the headers of Debian 12; values are kernel ABI. */
#ifndef UFFDIO_MOVE
struct uffdio_move {
	uint64_t dst, src, len, mode;
	int64_t move;
};
#define UFFDIO_MOVE _IOWR(UFFDIO, 0x05, struct uffdio_move)
#define UFFDIO_MOVE_MODE_DONTWAKE (1ull << 0)
#define UFFDIO_MOVE_MODE_ALLOW_SRC_HOLES (1ull << 1)
#define UFFD_FEATURE_MOVE (1ull << 16)
#endif
#ifndef UFFDIO_POISON
struct uffdio_poison {
	struct uffdio_range range;
	uint64_t mode;
	int64_t updated;
};
#define UFFDIO_POISON _IOWR(UFFDIO, 0x08, struct uffdio_poison)
#define UFFDIO_POISON_MODE_DONTWAKE (1ull << 0)
#define UFFD_FEATURE_POISON (1ull << 14)
#endif
#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif
#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif
#ifndef PAGEMAP_SCAN
struct page_region {
	uint64_t start, end, categories;
};
struct pm_scan_arg {
	uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
	uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};
#define PAGEMAP_SCAN _IOWR('f', 16, struct pm_scan_arg)
#define PAGE_IS_WRITTEN (1 << 1) /* not write-protected */
#define PAGE_IS_PRESENT (1 << 3)
#define PAGE_IS_SWAPPED (1 << 4)
#define PAGE_IS_HUGE (1 << 6)
#endif

/* -errno of a raw system call without errno's detour through TLS. */
static long ret(long r)
{
	return r == -1 ? -errno : r;
}

EMF_ALLOWED long k_syscall(long n, long a, long b, long c, long d, long e, long f)
{
#ifdef __x86_64__
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	register long r9 __asm__("r9") = f;

	__asm__ volatile("syscall"
			 : "+a"(n)
			 : "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return n;
#else
	return ret(syscall(n, a, b, c, d, e, f));
#endif
}

void *k_map(size_t len)
{
	long r = k_mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return r < 0 && r > -4096 ? NULL : (void *)r;
}

void *k_map_aligned(size_t len, size_t align, int flags)
{
	if (len + align < len)
		return NULL;
	long r = k_mmap(NULL, len + align, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
	if (r < 0 && r > -4096)
		return NULL;

	uintptr_t got = (uintptr_t)r, start = (got + align - 1) & ~(align - 1);
	if (start > got)
		k_munmap((void *)got, start - got);
	if (got + align > start)
		k_munmap((void *)(start + len), got + align - start);
	return (void *)start;
}

void *k_reserve(size_t len, size_t align, bool huge)
{
	void *p = k_map_aligned(len, align, MAP_NORESERVE);

	if (p)
		k_madvise(p, len, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	return p;
}

void k_unmap(void *p, size_t len)
{
	k_munmap(p, len);
}

long k_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t off)
{
	return k_syscall(SYS_mmap, (long)addr, (long)len, prot, flags, fd, off);
}

int k_munmap(void *addr, size_t len)
{
	return (int)k_syscall(SYS_munmap, (long)addr, (long)len, 0, 0, 0, 0);
}

int k_madvise(void *addr, size_t len, int advice)
{
	return (int)k_syscall(SYS_madvise, (long)addr, (long)len, advice, 0, 0, 0);
}

#define PAGES_AT_ONCE 64

/* Of one page in `step`, from addr to end, as many as fit. */
static unsigned some_pages(void **page, char *addr, const char *end, size_t step)
{
	unsigned n = 0;

	for (; addr < end && n < PAGES_AT_ONCE; addr += step)
		page[n++] = addr;
	return n;
}

bool k_is_on_node(void *addr, size_t len, size_t step, int node)
{
	char *at = addr, *end = at + len;
	void *page[PAGES_AT_ONCE];
	int on[PAGES_AT_ONCE];

	for (unsigned n; (n = some_pages(page, at, end, step)); at += n * step) {
		if (k_syscall(SYS_move_pages, 0, n, (long)page, 0, (long)on, 0))
			return false;
		for (unsigned i = 0; i < n; i++)
			if (on[i] != node)
				return false;
	}
	return true;
}

int k_page_node(void *addr)
{
	int node = -1;
	long err = k_syscall(SYS_move_pages, 0, 1, (long)&addr, 0, (long)&node, 0);

	return err ? (int)err : node;
}

void k_bring_near(void *addr, size_t len, int from)
{
	char *at = addr, *end = at + len;
	void *page[PAGES_AT_ONCE];
	int on[PAGES_AT_ONCE], to[PAGES_AT_ONCE];
	unsigned node = 0;

	if (k_syscall(SYS_getcpu, 0, (long)&node, 0, 0, 0, 0))
		return;
	for (unsigned i = 0; i < PAGES_AT_ONCE; i++)
		to[i] = (int)node;
	for (unsigned n; (n = some_pages(page, at, end, K_PAGE)); at += n * K_PAGE) {
		unsigned left = 0;

		if (k_syscall(SYS_move_pages, 0, n, (long)page, 0, (long)on, 0))
			return;
		for (unsigned i = 0; i < n; i++)
			if (on[i] == from)
				page[left++] = page[i];
		/* Of a huge page the first one takes the others along. */
		if (left)
			k_syscall(SYS_move_pages, 0, left, (long)page, (long)to, (long)on,
				  2 /* MPOL_MF_MOVE */);
	}
}

int k_prefer_node(void *addr, size_t len, int node)
{
	unsigned long mask[16] = { 0 };

	if (node < 0)
		return (int)k_syscall(SYS_mbind, (long)addr, (long)len, 0 /* MPOL_DEFAULT */, 0, 0,
				      0);
	mask[(unsigned)node / 64 % 16] = 1ul << (unsigned)node % 64;
	return (int)k_syscall(SYS_mbind, (long)addr, (long)len, 1 /* MPOL_PREFERRED */, (long)mask,
			      8 * sizeof(mask), 0);
}

long k_mremap(void *addr, size_t old_len, size_t new_len, int flags, void *new_addr)
{
	return k_syscall(SYS_mremap, (long)addr, (long)old_len, (long)new_len, flags,
			 (long)new_addr, 0);
}

int k_futex_wait(_Atomic uint32_t *word, uint32_t seen, int timeout_ms)
{
	struct timespec ts = { timeout_ms / 1000, (timeout_ms % 1000) * 1000000L };

	return (int)ret(syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, seen,
				timeout_ms < 0 ? NULL : &ts, NULL, 0));
}

int k_futex_wake(_Atomic uint32_t *word, int n)
{
	return (int)ret(syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, n, NULL, NULL, 0));
}

int k_futex_wait_shared(_Atomic uint32_t *word, uint32_t seen, int timeout_ms)
{
	struct timespec ts = { timeout_ms / 1000, (timeout_ms % 1000) * 1000000L };

	return (int)ret(
	    syscall(SYS_futex, word, FUTEX_WAIT, seen, timeout_ms < 0 ? NULL : &ts, NULL, 0));
}

int k_futex_wake_shared(_Atomic uint32_t *word, int n)
{
	return (int)ret(syscall(SYS_futex, word, FUTEX_WAKE, n, NULL, NULL, 0));
}

uint64_t k_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

uint64_t k_signals_open;

void k_signals_block(uint64_t *saved)
{
	/* Raw, as libc's would keep its own two signals (cancel, setxid) open. */
	uint64_t all = ~k_signals_open;

	syscall(SYS_rt_sigprocmask, 0 /* SIG_BLOCK */, &all, saved, sizeof(all));
}

void k_signals_restore(uint64_t saved)
{
	syscall(SYS_rt_sigprocmask, 2 /* SIG_SETMASK */, &saved, NULL, sizeof(saved));
}

#define SIGSETXID 33 /* nptl/nptl-signals.h of glibc */

void k_signals_allow_setxid(void)
{
	uint64_t setxid = 1ull << (SIGSETXID - 1);

	syscall(SYS_rt_sigprocmask, 1 /* SIG_UNBLOCK */, &setxid, NULL, sizeof(setxid));
}

/* The kernel's struct sigaction. */
struct action {
	void (*handler)(int, void *, void *);
	unsigned long flags;
	void (*restorer)(void);
	uint64_t mask;
};

static void (*_Atomic libc_setxid)(int, void *, void *);
static void (*_Atomic before_setxid)(void);

static void on_setxid(int sig, void *info, void *context)
{
	before_setxid();
	libc_setxid(sig, info, context);
}

void k_setxid_before(void (*fn)(void))
{
	struct action a;

	if (syscall(SYS_rt_sigaction, SIGSETXID, NULL, &a, sizeof(a.mask)) || !a.handler ||
	    a.handler == on_setxid)
		return;
	before_setxid = fn;
	libc_setxid = a.handler;
	a.handler = on_setxid;
	syscall(SYS_rt_sigaction, SIGSETXID, &a, NULL, sizeof(a.mask));
}

/* io_uring's kernel workers are listed as threads of the process, as "iou-...". */
int k_thread_cpu(pid_t tid)
{
	enum { STATE = 3, PROCESSOR = 39 }; /* proc(5) */
	char path[64], text[1024];

	fmt_s(path, sizeof(path), "/proc/self/task/%d/stat", (int)tid);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	ssize_t n = read(fd, text, sizeof(text) - 1);
	close(fd);
	text[n < 0 ? 0 : n] = 0;
	/* The name may have anything in it. */
	const char *at = strrchr(text, ')');
	for (int field = STATE - 1; at && field < PROCESSOR; field++)
		at = strchr(at + 1, ' ');
	if (!at)
		return -1;
	int cpu = 0;
	for (at++; *at >= '0' && *at <= '9' && cpu < 1 << 20; at++)
		cpu = cpu * 10 + *at - '0';
	return cpu;
}

unsigned k_cores(void)
{
	uint64_t set[8192 / 64]; /* as many as a kernel has at most */
	long bytes = k_syscall(SYS_sched_getaffinity, 0, sizeof(set), (long)set, 0, 0, 0);
	unsigned n = 0;

	for (long i = 0; i < bytes / 8; i++)
		for (; set[i]; set[i] &= set[i] - 1)
			n++;
	return n;
}

int k_open_schedstat(pid_t tid)
{
	char path[64];

	fmt_s(path, sizeof(path), "/proc/self/task/%d/schedstat", (int)tid);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

static const char *number(const char *at, int64_t *n)
{
	for (*n = 0; *at >= '0' && *at <= '9'; at++)
		*n = *n * 10 + *at - '0';
	return *at ? at + 1 : at;
}

bool k_schedstat(int fd, int64_t *ran, int64_t *waited)
{
	char text[128];
	ssize_t n = pread(fd, text, sizeof(text) - 1, 0);
	int64_t times;

	text[n < 0 ? 0 : n] = 0;
	number(number(number(text, ran), waited), &times);
	return times;
}

void k_be_prompt(void)
{
	struct sched_attr a;

	if (k_syscall(SYS_sched_getattr, 0, (long)&a, sizeof(a), 0, 0, 0) ||
	    a.sched_policy != SCHED_NORMAL)
		return;
	int nice = a.sched_nice;
	a.sched_flags = SCHED_FLAG_RESET_ON_FORK;
	a.sched_runtime = 0;
	a.sched_nice = nice < PROMPT_NICE - 20 ? -20 : nice - PROMPT_NICE;
	if (!k_syscall(SYS_sched_setattr, 0, (long)&a, 0, 0, 0, 0))
		return;
	a.sched_nice = nice;
	a.sched_runtime = PROMPT_SLICE_NS;
	k_syscall(SYS_sched_setattr, 0, (long)&a, 0, 0, 0, 0);
}

static bool is_kernel_worker(const char *tid)
{
	char path[64] = "/proc/self/task/", comm[8] = "";

	strncat(path, tid, 20);
	strcat(path, "/comm");
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	ssize_t n = read(fd, comm, sizeof(comm) - 1);
	close(fd);
	return n > 4 && !memcmp(comm, "iou-", 4);
}

unsigned k_threads(void)
{
	struct entry {
		uint64_t ino;
		int64_t off;
		uint16_t len;
		uint8_t type;
		char name[];
	}; /* man 2 getdents64 */
	char buf[4096] __attribute__((aligned(8)));
	unsigned count = 0;
	long n;
	int fd = open("/proc/self/task", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return 0;
	while ((n = syscall(SYS_getdents64, fd, buf, sizeof(buf))) > 0)
		for (long at = 0; at < n;) {
			const struct entry *e = (const void *)(buf + at);
			if (e->name[0] != '.' && !is_kernel_worker(e->name))
				count++;
			at += e->len;
		}
	close(fd);
	return count;
}

bool k_main_thread_gone(void)
{
	char text[512];
	int fd = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return false;
	ssize_t n = read(fd, text, sizeof(text) - 1);
	close(fd);
	text[n < 0 ? 0 : n] = 0;
	/* "PID (name) STATE ...": proc(5); the name may hold anything. */
	const char *p = strrchr(text, ')');
	return p && p[1] == ' ' && p[2] == 'Z';
}

int k_own_descriptors(const int *keep, unsigned n)
{
	const unsigned unshare_too = 2; /* CLOSE_RANGE_UNSHARE */
	unsigned from = 0;
	int err = 0;

	/* What is to be kept, in ascending order: close what lies between. */
	for (unsigned done = 0; done <= n && !err; done++) {
		unsigned next = ~0u;
		for (unsigned i = 0; i < n; i++)
			if ((unsigned)keep[i] >= from && (unsigned)keep[i] < next)
				next = (unsigned)keep[i];
		if (next > from)
			err = (int)ret(syscall(SYS_close_range, from, next == ~0u ? next : next - 1,
					       unshare_too));
		if (next == ~0u)
			break;
		from = next + 1;
	}
	return err;
}

int k_socketpair(int fds[2])
{
	return (int)ret(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds));
}

int k_borrow_fd(int fd)
{
	int pidfd = (int)ret(syscall(SYS_pidfd_open, getpid(), 0));

	if (pidfd < 0)
		return pidfd;
	int copy = (int)ret(syscall(SYS_pidfd_getfd, pidfd, fd, 0));
	close(pidfd);
	return copy;
}

#define MESSAGE_FDS 64u /* the kernel takes up to 253 */

union fd_message {
	struct cmsghdr head;
	char room[CMSG_SPACE(MESSAGE_FDS * sizeof(int))];
};

static int send_some(int sock, const int *fds, unsigned n)
{
	char byte = 0;
	union fd_message control = { .head = { .cmsg_level = SOL_SOCKET,
					       .cmsg_type = SCM_RIGHTS,
					       .cmsg_len = CMSG_LEN(n * sizeof(int)) } };
	struct iovec iov = { &byte, 1 };
	struct msghdr m = { .msg_iov = &iov,
			    .msg_iovlen = 1,
			    .msg_control = &control,
			    .msg_controllen = CMSG_SPACE(n * sizeof(int)) };

	memcpy(CMSG_DATA(&control.head), fds, n * sizeof(int));
	return sendmsg(sock, &m, MSG_NOSIGNAL | MSG_DONTWAIT) == 1 ? 0 : -errno;
}

int k_send_fds(int sock, const int *fds, unsigned n)
{
	int err = 0;

	for (unsigned at = 0; at < n && !err; at += MESSAGE_FDS)
		err = send_some(sock, fds + at, n - at < MESSAGE_FDS ? n - at : MESSAGE_FDS);
	return err;
}

/* 0: there are no more. */
static int receive_some(int sock, int *fds, unsigned max)
{
	char byte;
	union fd_message control = { 0 };
	struct iovec iov = { &byte, 1 };
	struct msghdr m = { .msg_iov = &iov,
			    .msg_iovlen = 1,
			    .msg_control = &control,
			    .msg_controllen = sizeof(control) };

	ssize_t got = recvmsg(sock, &m, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
	if (got <= 0)
		return got && errno != EAGAIN ? -errno : 0;
	const struct cmsghdr *c = CMSG_FIRSTHDR(&m);
	if (!c || c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
		return -EPROTO;
	size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
	if (n > max || m.msg_flags & MSG_CTRUNC)
		return -EPROTO;
	memcpy(fds, CMSG_DATA(c), n * sizeof(int));
	return (int)n;
}

int k_receive_fds(int sock, int *fds, unsigned max)
{
	unsigned n = 0;
	int got;

	while ((got = receive_some(sock, fds + n, max - n)) > 0)
		n += (unsigned)got;
	return got < 0 ? got : (int)n;
}

int k_memfd(const char *name, size_t len)
{
	int fd = (int)ret(memfd_create(name, MFD_CLOEXEC));

	if (fd >= 0 && ftruncate(fd, (off_t)len)) {
		int err = -errno;
		close(fd);
		return err;
	}
	return fd;
}

int k_reopen(int fd)
{
	char path[64];

	fmt_s(path, sizeof(path), "/proc/thread-self/fd/%d", fd);
	return (int)ret(open(path, O_RDWR | O_CLOEXEC));
}

/* Locks of the open file description: man 2 fcntl, F_OFD_SETLK. */
static struct flock byte_lock(short type, uint64_t at)
{
	return (
	    struct flock){ .l_type = type, .l_whence = SEEK_SET, .l_start = (off_t)at, .l_len = 1 };
}

int k_lock_byte(int fd, uint64_t at)
{
	struct flock l = byte_lock(F_WRLCK, at);

	return (int)ret(fcntl(fd, F_OFD_SETLK, &l));
}

void k_unlock_byte(int fd, uint64_t at)
{
	struct flock l = byte_lock(F_UNLCK, at);

	fcntl(fd, F_OFD_SETLK, &l);
}

int k_eventfd(void)
{
	return (int)ret(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
}

void k_eventfd_signal(int fd)
{
	uint64_t one = 1;
	ssize_t ignored = write(fd, &one, sizeof(one));

	(void)ignored;
}

void k_eventfd_drain(int fd)
{
	uint64_t n;
	ssize_t ignored = read(fd, &n, sizeof(n));

	(void)ignored;
}

static int new_uffd(void)
{
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (fd >= 0)
		return fd;

	int err = -errno, dev = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
	if (dev < 0)
		return err;
	fd = (int)ret(ioctl(dev, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK));
	close(dev);
	return fd;
}

bool uffd_allowed(void)
{
	int fd = new_uffd();

	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

int uffd_open_pagemap(void)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);

	/* Root's alone while the process is not dumpable. mincore would not know swap. */
	return fd >= 0 ? fd : errno == ENOENT ? -ENOENT : -EACCES;
}

static int open_with(struct uffd *u, bool want_move, bool signal)
{
	/* A handle takes one API call; the first one only asks what there is. */
	struct uffdio_api api = { .api = UFFD_API };
	int fd = new_uffd();

	if (fd < 0)
		return fd;
	if (ioctl(fd, UFFDIO_API, &api)) {
		int err = -errno;
		close(fd);
		return err;
	}
	close(fd);
	if (!(api.features & UFFD_FEATURE_PAGEFAULT_FLAG_WP) ||
	    (signal && !(api.features & UFFD_FEATURE_SIGBUS)))
		return -ENOTSUP;

	uint64_t want = UFFD_FEATURE_PAGEFAULT_FLAG_WP | (signal ? UFFD_FEATURE_SIGBUS : 0);
	if (want_move)
		want |= api.features & UFFD_FEATURE_MOVE;
	want |= api.features & (UFFD_FEATURE_POISON | UFFD_FEATURE_THREAD_ID);
	/* What the program does past libc's symbols is seen by these. */
	want |= api.features &
		(UFFD_FEATURE_EVENT_REMAP | UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_EVENT_UNMAP);

	fd = new_uffd();
	if (fd < 0)
		return fd;
	api = (struct uffdio_api){ .api = UFFD_API, .features = want };
	if (ioctl(fd, UFFDIO_API, &api)) {
		int err = -errno;
		close(fd);
		return err;
	}
	int pagemap = uffd_open_pagemap();
	if (pagemap < 0) {
		close(fd);
		return pagemap;
	}
	u->fd = fd;
	u->pagemap = pagemap;
	u->move = want & UFFD_FEATURE_MOVE;
	u->poison = want & UFFD_FEATURE_POISON;
	return 0;
}

int uffd_open(struct uffd *u, bool want_move)
{
	return open_with(u, want_move, false);
}

int uffd_open_signal(struct uffd *u, bool want_move)
{
	return open_with(u, want_move, true);
}

bool uffd_user_mode_only(void)
{
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);

	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

void uffd_close(struct uffd *u)
{
	close(u->fd);
	close(u->pagemap);
	u->fd = u->pagemap = -1;
}

static struct uffdio_range range(void *addr, size_t len)
{
	return (struct uffdio_range){ (uintptr_t)addr, len };
}

int uffd_register(const struct uffd *u, void *addr, size_t len, bool missing)
{
	struct uffdio_register r = {
		.range = range(addr, len),
		.mode = UFFDIO_REGISTER_MODE_WP | (missing ? UFFDIO_REGISTER_MODE_MISSING : 0),
	};

	return (int)ret(ioctl(u->fd, UFFDIO_REGISTER, &r));
}

int uffd_unregister(const struct uffd *u, void *addr, size_t len)
{
	struct uffdio_range r = range(addr, len);

	return (int)ret(ioctl(u->fd, UFFDIO_UNREGISTER, &r));
}

/*
 * The kernel handles one mapping (VMA) a call, and madvise may have cut the region into
 * several. What is refused as a whole is tried in halves, which ends at the cut.
 */
static bool try_less(int err, size_t *chunk)
{
	if ((err != ENOENT && err != EINVAL) || *chunk <= K_PAGE)
		return false;
	*chunk = *chunk / 2 & ~(size_t)(K_PAGE - 1);
	return true;
}

/*
 * Moves what it can; *moved: how far it came. kept, if not NULL: mappings that are refused are
 * passed over, page by page, as halving has found where they begin.
 */
static int move_some(const struct uffd *u, uintptr_t dst, uintptr_t src, size_t len, bool holes,
		     size_t *moved, uint64_t *kept)
{
	struct presence page;
	size_t chunk = len;

	*moved = 0;
	while (*moved < len) {
		struct uffdio_move m = {
			.dst = dst + *moved,
			.src = src + *moved,
			.len = chunk,
			.mode = UFFDIO_MOVE_MODE_DONTWAKE |
				(holes ? UFFDIO_MOVE_MODE_ALLOW_SRC_HOLES : 0),
		};
		int err = ioctl(u->fd, UFFDIO_MOVE, &m) ? errno : 0;
		if (!err || m.move > 0) {
			/* Only a part: the next call tells why it stopped there. */
			*moved += err ? (size_t)m.move : chunk;
			chunk = len - *moved;
		} else if (err == EEXIST &&
			   !uffd_presence(u, (void *)(src + *moved), K_PAGE, &page) &&
			   !page.bytes) {
			/* It is there already: see below. */
			*moved += K_PAGE;
			chunk = len - *moved;
		} else if (kept && err == EINVAL && chunk == K_PAGE) {
			kept[*moved / K_PAGE / 64] |= 1ull << *moved / K_PAGE % 64;
			*moved += K_PAGE;
		} else if (!try_less(err, &chunk)) {
			return -err;
		}
	}
	return 0;
}

/*
 * The count that the kernel returns for a part is not to be trusted: Linux 6.18 was seen to have
 * moved a page more than it said, after a fork, when it had to split a huge page on the way
 * and then met one that is still shared. So what is left in src is looked for, page by page.
 */
static int move_rest(const struct uffd *u, uintptr_t dst, uintptr_t src, size_t len)
{
	struct presence left;
	size_t moved;

	if (uffd_presence(u, (void *)src, len, &left) || !left.bytes)
		return 0;
	for (size_t at = 0; at < len; at += K_PAGE) {
		if (uffd_presence(u, (void *)(src + at), K_PAGE, &left) || !left.bytes)
			continue;
		int err = move_some(u, dst + at, src + at, K_PAGE, false, &moved, NULL);
		/* -EEXIST: dst has a page of its own there, which is why it failed. */
		if (err && err != -ENOENT && err != -EEXIST)
			return err;
	}
	return 0;
}

/* After a move that failed. */
static bool move_back(const struct uffd *u, uintptr_t dst, uintptr_t src, size_t len)
{
	int lost = move_rest(u, src, dst, len);

	if (lost)
		log_debug("pages at %p could not be moved back: error %d", (void *)src, -lost);
	return !lost;
}

int uffd_move(const struct uffd *u, void *dst, void *src, size_t len, bool holes, bool *torn)
{
	uintptr_t to = (uintptr_t)dst, from = (uintptr_t)src;
	size_t moved;
	int err = move_some(u, to, from, len, holes, &moved, NULL);

	if (!err && holes)
		err = move_rest(u, to, from, len);
	*torn = err && !move_back(u, to, from, len);
	return err;
}

int uffd_move_writable(const struct uffd *u, void *dst, void *src, size_t len, uint64_t *kept,
		       bool *torn)
{
	uintptr_t to = (uintptr_t)dst, from = (uintptr_t)src;
	size_t moved;

	memset(kept, 0, (len / K_PAGE + 63) / 64 * sizeof(*kept));
	int err = move_some(u, to, from, len, true, &moved, kept);
	*torn = err && !move_back(u, to, from, len);
	return err;
}

int uffd_copy(const struct uffd *u, void *dst, const void *src, size_t len, bool protect)
{
	size_t done = 0, chunk = len;

	while (done < len) {
		struct uffdio_copy c = {
			.dst = (uintptr_t)dst + done,
			.src = (uintptr_t)src + done,
			.len = chunk,
			.mode = UFFDIO_COPY_MODE_DONTWAKE | (protect ? UFFDIO_COPY_MODE_WP : 0),
		};
		int err = ioctl(u->fd, UFFDIO_COPY, &c) ? errno : 0;
		if (!err || c.copy > 0) {
			done += err ? (size_t)c.copy : chunk;
			chunk = len - done;
		} else if (!try_less(err, &chunk)) {
			return -err;
		}
	}
	return 0;
}

ssize_t uffd_zero(const struct uffd *u, void *addr, size_t len)
{
	size_t done = 0, chunk = len;

	while (done < len) {
		struct uffdio_zeropage z = {
			.range = range((char *)addr + done, chunk),
			.mode = UFFDIO_ZEROPAGE_MODE_DONTWAKE,
		};
		int err = ioctl(u->fd, UFFDIO_ZEROPAGE, &z) ? errno : 0;
		if (!err || z.zeropage > 0) {
			done += err ? (size_t)z.zeropage : chunk;
			if (err)
				break; /* the next page is there */
			chunk = len - done;
		} else if (!try_less(err, &chunk)) {
			return done ? (ssize_t)done : -err;
		}
	}
	return (ssize_t)done;
}

/* Of one thread only. */
static __thread bool holds_wakes __attribute__((tls_model("initial-exec")));
static struct uffdio_range held[32];
static size_t nheld;

void uffd_hold_wakes(void)
{
	holds_wakes = true;
	nheld = 0;
}

static bool hold_wake(const struct uffdio_range *r)
{
	if (!holds_wakes || nheld == sizeof(held) / sizeof(held[0]))
		return false;
	held[nheld++] = *r;
	return true;
}

void uffd_wake_held(const struct uffd *u)
{
	size_t n = nheld;

	nheld = 0;
	for (size_t i = 0; i < n; i++)
		ioctl(u->fd, UFFDIO_WAKE, &held[i]);
}

int uffd_protect(const struct uffd *u, void *addr, size_t len, bool on)
{
	size_t done = 0, chunk = len;

	/* One mapping a call before 6.6. */
	while (done < len) {
		struct uffdio_writeprotect w = {
			.range = range((char *)addr + done, chunk),
			/* Taking protection away wakes; DONTWAKE is not allowed with MODE_WP. */
			.mode = on ? UFFDIO_WRITEPROTECT_MODE_WP : 0,
		};
		if (!on && hold_wake(&w.range))
			w.mode = UFFDIO_WRITEPROTECT_MODE_DONTWAKE;
		int err = ioctl(u->fd, UFFDIO_WRITEPROTECT, &w) ? errno : 0;
		if (!err) {
			done += chunk;
			chunk = len - done;
		} else if (!try_less(err, &chunk)) {
			return -err;
		}
	}
	return 0;
}

bool uffd_changing(const struct uffd *u, void *page)
{
	return uffd_protect(u, page, K_PAGE, false) == -EAGAIN;
}

int uffd_poison(const struct uffd *u, void *addr, size_t len)
{
	size_t done = 0, chunk = len;

	while (done < len && u->poison) {
		struct uffdio_poison p = {
			.range = range((char *)addr + done, chunk),
			.mode = UFFDIO_POISON_MODE_DONTWAKE,
		};
		int err = ioctl(u->fd, UFFDIO_POISON, &p) ? errno : 0;
		if (!err || p.updated > 0) {
			done += err ? (size_t)p.updated : chunk;
			chunk = len - done;
		} else if (!try_less(err, &chunk)) {
			return -err;
		}
	}
	return u->poison ? 0 : -ENOSYS;
}

void (*uffd_on_wake)(uintptr_t addr, size_t len);

void uffd_wake(const struct uffd *u, void *addr, size_t len)
{
	struct uffdio_range r = range(addr, len);

	if (uffd_on_wake) {
		uffd_on_wake((uintptr_t)addr, len);
		return;
	}
	if (!hold_wake(&r))
		ioctl(u->fd, UFFDIO_WAKE, &r);
}

static struct uffd_message message(const struct uffd_msg *m)
{
	switch (m->event) {
	case UFFD_EVENT_UNMAP:
	case UFFD_EVENT_REMOVE:
		return (struct uffd_message){
			.what = m->event == UFFD_EVENT_UNMAP ? UFFD_UNMAPPED : UFFD_DISCARDED,
			.addr = m->arg.remove.start,
			.end = m->arg.remove.end,
		};
	case UFFD_EVENT_REMAP:
		return (struct uffd_message){
			.what = UFFD_MOVED,
			.addr = m->arg.remap.from,
			.end = m->arg.remap.from + m->arg.remap.len,
			.to = m->arg.remap.to,
		};
	default:
		return (struct uffd_message){
			.what = UFFD_FAULT,
			.addr = m->arg.pagefault.address,
			.write = m->arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WRITE,
			.write_protect = m->arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WP,
			.tid = (pid_t)m->arg.pagefault.feat.ptid, /* 0 without the feature */
		};
	}
}

int uffd_read(const struct uffd *u, struct uffd_message *out, int max)
{
	struct uffd_msg msg[16];

	if (max > 16)
		max = 16;
	ssize_t got = read(u->fd, msg, (size_t)max * sizeof(msg[0]));
	int n = got < 0 ? 0 : (int)(got / (ssize_t)sizeof(msg[0]));
	int k = 0;
	for (int i = 0; i < n; i++) {
		out[k] = message(msg + i);
		bool own = away_is_own(out[k].what == UFFD_MOVED ? out[k].to : out[k].addr);
		k += !own;
	}
	return k;
}

int k_mapping(uintptr_t addr, uintptr_t *start, uintptr_t *end)
{
	char buf[4096];
	uintptr_t v = 0;
	int field = 0, err = -ENOENT, fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return -errno;
	/* Lines of START-END and more, in hexadecimal: proc(5). */
	while (err && (n = read(fd, buf, sizeof(buf))) > 0)
		for (ssize_t i = 0; err && i < n; i++) {
			char c = buf[i];
			if (c == '\n') {
				field = 0;
				v = 0;
			} else if (field == 0 && c == '-') {
				*start = v;
				field = 1;
				v = 0;
			} else if (field == 1 && c == ' ') {
				*end = v;
				field = 2;
				err = *start <= addr && addr < *end ? 0 : -ENOENT;
			} else if (field < 2) {
				v = v << 4 | (uintptr_t)(c <= '9' ? c - '0' : c - 'a' + 10);
			}
		}
	close(fd);
	return err;
}

void k_object_name(uintptr_t addr, char *out, size_t len)
{
	char buf[4096];
	uintptr_t v = 0, start = 0;
	int field = 0, fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
	size_t at = 0;
	bool here = false;
	ssize_t n;

	out[0] = 0;
	while (fd >= 0 && !(here && field < 0) && (n = read(fd, buf, sizeof(buf))) > 0)
		for (ssize_t i = 0; i < n; i++) {
			char c = buf[i];
			if (c == '\n') {
				field = here ? -1 : 0;
				v = 0;
				if (here)
					break;
			} else if (field == 0 && c == '-') {
				start = v;
				field = 1;
				v = 0;
			} else if (field == 1 && c == ' ') {
				here = start <= addr && addr < v;
				field = 2;
			} else if (field < 2) {
				v = v << 4 | (uintptr_t)(c <= '9' ? c - '0' : c - 'a' + 10);
			} else if (here && c == '/') {
				at = 0; /* the directory does not matter */
			} else if (here && at + 1 < len) {
				out[at++] = c;
				out[at] = 0;
			}
		}
	if (fd >= 0)
		close(fd);
	/* Without a file there are only its numbers. */
	if (strchr(out, ' ') && !strchr(out, '.'))
		out[0] = 0;
}

static int presence_scan(int fd, void *addr, size_t len, struct presence *out)
{
	struct page_region found[64];
	struct pm_scan_arg arg = {
		.size = sizeof(arg),
		.start = (uintptr_t)addr,
		.end = (uintptr_t)addr + len,
		.vec = (uintptr_t)found,
		.vec_len = sizeof(found) / sizeof(found[0]),
		.category_anyof_mask = PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
		.return_mask = PAGE_IS_WRITTEN | PAGE_IS_HUGE,
	};

	*out = (struct presence){ 0 };
	while (arg.start < arg.end) {
		long n = ret(ioctl(fd, PAGEMAP_SCAN, &arg));
		if (n < 0)
			return (int)n;
		for (long i = 0; i < n; i++) {
			out->bytes += found[i].end - found[i].start;
			out->last = found[i].end - K_PAGE;
			if (!(found[i].categories & PAGE_IS_WRITTEN))
				out->protected += found[i].end - found[i].start;
			out->split |= !(found[i].categories & PAGE_IS_HUGE);
		}
		arg.start = arg.walk_end;
	}
	return 0;
}

/* Entries of /proc/self/pagemap for n pages, at most PAGEMAP_MAX. The number, or -errno. */
static ssize_t pagemap_read(int fd, uintptr_t page, size_t n, uint64_t *entry)
{
	ssize_t got = pread(fd, entry, n * 8, (off_t)(page * 8));

	return got > 0 ? got / 8 : got ? -errno : -EIO;
}

static bool is_there(uint64_t entry)
{
	return entry >> 62; /* bit 63 present, 62 swapped */
}

int uffd_present(const struct uffd *u, void *addr, size_t n, uint64_t *there)
{
	uint64_t entry[PAGEMAP_MAX];
	ssize_t got = pagemap_read(u->pagemap, (uintptr_t)addr / K_PAGE, n, entry);

	if (got != (ssize_t)n)
		return got < 0 ? (int)got : -EIO;
	memset(there, 0, (n + 63) / 64 * sizeof(*there));
	for (size_t i = 0; i < n; i++)
		there[i / 64] |= (uint64_t)is_there(entry[i]) << i % 64;
	return 0;
}

/* Before 6.7. */
static int presence_read(int fd, void *addr, size_t len, struct presence *out)
{
	uint64_t entry[PAGEMAP_MAX];
	uintptr_t page = (uintptr_t)addr / K_PAGE, end = ((uintptr_t)addr + len) / K_PAGE;

	*out = (struct presence){ 0 };
	while (page < end) {
		size_t n = end - page < PAGEMAP_MAX ? end - page : PAGEMAP_MAX;
		ssize_t got = pagemap_read(fd, page, n, entry);
		if (got < 0)
			return (int)got;
		for (size_t i = 0; i < (size_t)got; i++)
			if (is_there(entry[i])) {
				out->bytes += K_PAGE;
				out->last = (page + i) * K_PAGE;
				out->protected += entry[i] >> 57 & 1 ? K_PAGE : 0;
			}
		page += (size_t)got;
	}
	return 0;
}

int uffd_presence(const struct uffd *u, void *addr, size_t len, struct presence *out)
{
	static _Atomic bool no_scan;
	int err = -ENOTTY;

	if (!no_scan) {
		err = presence_scan(u->pagemap, addr, len, out);
		if (err == -ENOTTY || err == -EINVAL)
			no_scan = true;
	}
	return err ? presence_read(u->pagemap, addr, len, out) : 0;
}
