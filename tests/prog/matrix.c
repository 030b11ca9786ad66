/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every operation on memory in every state that it can be in:
 *
 *   matrix SIZE BALLAST THREADS [copy] [raw] [share=K/N] [only=OPERATION[/STATE]]
 *          [after=OPERATION/STATE]
 *
 * A cell of the matrix has SIZE bytes, brings them to the state by using BALLAST bytes of
 * other memory (more than the budget), does the operation on a part of them, and
 * checks all of them, in both processes if there are two. It knows of the runtime only
 * what mincore and pagemap tell: away or present, protected or not; from that it counts
 * how often a state was reached ("state NAME REACHED TRIED"). copy: leave out what can't
 * work where pages are copied; raw: also system calls past libc; share: the K-th part of N of
 * the cells, of each operation some; after: with one thread, starts behind that cell.
 */
#include "rows.h"

#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/futex.h>
#include <linux/io_uring.h>
#include <poll.h>
#include <sched.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>

#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif
#ifndef MADV_COLD
#define MADV_COLD 20
#define MADV_PAGEOUT 21
#endif
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif
#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#define MADV_GUARD_REMOVE 103
#endif

enum state { UNTOUCHED, DIRTY, CLEAN, STANDBY, FAR, FLIGHT, STATES };
static const char *const state_names[] = {"untouched", "dirty", "clean", "standby", "far", "flight"};

/* What a page must hold, where it is not simply its version (0: zeros). */
enum { MAYBE = 0x80, TEXT = 0xfd, ANY = 0xfe, GONE = 0xff };

enum { STUCK_SECONDS = 60, MAX_PAGES = 16384 };
static const char text[] = "exit 35";
static const char path[] = "/dev/null";

struct cell {
	char *p;
	size_t n, a, b; /* pages; the operation is on a..b, mostly */
	bool heap;
	enum state state;
	uint8_t *want;
	char name[64];
};

struct worker {
	pthread_t thread, other;
	unsigned me;
	struct cell c;
	int file, out; /* holds version 2 of all pages; takes what is written */
	int sock[2], pipe[2];
	char *buf;
	/* What the disturbing thread reads. */
	char *_Atomic at;
	size_t len;
	atomic_bool idle, stop;
	int ring;
	char *sq, *cq;
	struct io_uring_sqe *sqe;
	struct io_uring_params par;
	unsigned long reached[STATES], tried[STATES], skipped;
};

static size_t pages, ballast_pages;
static unsigned nworkers;
static bool copy_mode, raw_too;
static unsigned share, shares = 1;
static char *ballast;
static const char *only, *after;
static struct worker *workers;
static __thread struct worker *w;
static __thread sigjmp_buf back;
static __thread volatile sig_atomic_t expecting;

#define MUST(cond)                                                                                 \
	do {                                                                                       \
		if (!(cond))                                                                       \
			die("%s: line %d: %s: %s", w->c.name, __LINE__, #cond, strerror(errno));   \
	} while (0)

static void on_signal(int sig, siginfo_t *info, void *context)
{
	(void)context;
	if (sig == SIGALRM) {
		for (unsigned i = 0; i < nworkers; i++)
			fprintf(stderr, "%s, ", workers[i].c.name);
		die("stuck for %d s", STUCK_SECONDS);
	}
	if (expecting) {
		expecting = 0;
		siglongjmp(back, 1);
	}
	die("%s: signal %d (code %d) at %p", w ? w->c.name : "?", sig, info->si_code, info->si_addr);
}

static bool faults(volatile char *p, bool write)
{
	if (sigsetjmp(back, 1))
		return true;
	expecting = 1;
	if (write)
		*p = *p;
	else
		(void)*p;
	expecting = 0;
	return false;
}

/* --- contents --- */

static void fill(struct cell *c, size_t a, size_t b, unsigned version)
{
	fill_pages(c->p, a, b, version);
	memset(c->want + a, (int)version, b - a);
}

static void verify(const struct cell *c, const char *when)
{
	char what[128];

	snprintf(what, sizeof(what), "%s, %s", c->name, when);
	for (size_t i = 0; i < c->n; i++) {
		const char *p = c->p + i * PAGE;

		if (c->want[i] == GONE || c->want[i] == ANY)
			continue;
		if (c->want[i] == TEXT)
			CHECK(!strcmp(p, text) && !strcmp(p + 64, path), "%s: the text is gone", what);
		else if (!c->want[i])
			page_expect(p, NULL, i, 0, what);
		else if (!(c->want[i] & MAYBE))
			page_check(p, i, c->want[i], SEED, what);
		else if (((uint64_t *)p)[1])
			page_check(p, i, c->want[i] & 0x7f, SEED, what);
		else
			page_expect(p, NULL, i, 0, what);
	}
}

/* --- states --- */

/* Pages of it that are not mapped just now. */
static size_t away(const struct cell *c)
{
	static __thread unsigned char v[MAX_PAGES + 1];
	char *p = (char *)((uintptr_t)c->p & ~(PAGE - 1));
	size_t sum = 0;

	if (mincore(p, c->n * PAGE, v))
		return 0;
	for (size_t i = 0; i < c->n; i++)
		sum += !(v[i] & 1);
	return sum;
}

/* Pages of it that are mapped and protected by userfaultfd: unchanged since they came. */
static size_t protected_pages(const struct cell *c)
{
	static __thread uint64_t v[MAX_PAGES];
	static int fd = -1;
	size_t sum = 0;

	if (fd < 0)
		fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	if (pread(fd, v, c->n * 8, (off_t)((uintptr_t)c->p / PAGE * 8)) != (ssize_t)(c->n * 8))
		return 0;
	for (size_t i = 0; i < c->n; i++)
		sum += v[i] >> 63 && v[i] >> 57 & 1;
	return sum;
}

/* Uses other memory, a piece of pages first..end of the ballast. */
static void press(size_t first, size_t end)
{
	for (size_t i = first; i < end; i++) {
		const uint64_t *p = (uint64_t *)(ballast + i * PAGE);

		if (p[0] != i || p[1] != 1)
			die("%s: page %zu of the ballast holds %lx %lx", w ? w->c.name : "?", i,
			    (unsigned long)p[0], (unsigned long)p[1]);
	}
}

static void press_until(struct cell *c, size_t enough)
{
	static __thread size_t at;

	for (size_t done = 0; done < 2 * ballast_pages && away(c) < enough; done += 512) {
		size_t end = at + 512 < ballast_pages ? at + 512 : ballast_pages;

		press(at, end);
		at = end == ballast_pages ? 0 : end;
	}
}

static void bring(struct cell *c)
{
	bool there = true;
	size_t n = c->n;

	if (c->state != UNTOUCHED) {
		fill(c, 0, n, 1);
		strcpy(c->p + (n - 2) * PAGE, text);
		strcpy(c->p + (n - 2) * PAGE + 64, path);
		c->want[n - 2] = TEXT;
	}
	switch (c->state) {
	case UNTOUCHED:
		there = away(c) > n / 2;
		break;
	case DIRTY:
		there = away(c) < n / 2;
		break;
	case STANDBY:
		press_until(c, 1);
		there = away(c);
		break;
	case FAR:
	case FLIGHT:
	case CLEAN:
		press_until(c, n - n / 8);
		there = away(c) >= n / 2;
		break;
	default:
		break;
	}
	if (c->state == CLEAN) {
		verify(c, "before");
		there = there && protected_pages(c) > n / 4;
	}
	if (c->state == FLIGHT) {
		w->len = n * PAGE;
		atomic_store(&w->at, c->p);
		usleep(300);
	}
	w->tried[c->state]++;
	w->reached[c->state] += there;
}

/* Reads the operand in ways that can't fault, whatever is done to it, and causes evictions. */
static void *disturb(void *arg)
{
	struct worker *me = arg;
	uint64_t r = me->me;
	size_t at = 0;
	char byte;

	while (!atomic_load(&me->stop)) {
		char *p = atomic_load(&me->at);

		if (!p) {
			atomic_store(&me->idle, true);
			usleep(100);
			continue;
		}
		for (unsigned i = 0; i < 4; i++) {
			r = mix(r);
			struct iovec mine = {&byte, 1}, its = {p + r % me->len, 1};
			process_vm_readv(getpid(), &mine, 1, &its, 1, 0);
		}
		press(at, at + 256);
		at = at + 512 <= ballast_pages ? at + 256 : 0;
	}
	return NULL;
}

static void calm(void)
{
	if (!atomic_load(&w->at))
		return;
	atomic_store(&w->idle, false);
	atomic_store(&w->at, NULL);
	while (!atomic_load(&w->idle))
		usleep(50);
}

/* --- operations --- */

static char *part(struct cell *c)
{
	return c->p + c->a * PAGE;
}

static size_t part_len(struct cell *c)
{
	return (c->b - c->a) * PAGE;
}

static void do_nothing(struct cell *c, long arg)
{
	(void)arg;
	verify(c, "read");
}

static void do_write(struct cell *c, long step)
{
	for (size_t i = c->a; i < c->b; i += (size_t)step)
		fill(c, i, i + 1, 2);
}

static pid_t fork_by(long past)
{
	return past ? (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL) : fork();
}

static void child_begins(void)
{
	alarm(STUCK_SECONDS / 2);
}

static void do_fork(struct cell *c, long past)
{
	size_t half = (c->a + c->b) / 2;
	pid_t pid = fork_by(past);

	MUST(pid >= 0);
	if (!pid) {
		child_begins();
		verify(c, "child");
		fill(c, half, c->n, 3);
		verify(c, "child, after its writes");
		_exit(0);
	}
	fill(c, c->a, c->b, 2);
	verify(c, "parent");
	expect_child(pid, c->name);
}

static int cloned(void *arg)
{
	struct cell *c = arg;

	child_begins();
	verify(c, "clone");
	fill(c, c->a, c->n, 3);
	verify(c, "clone, after its writes");
	return 0;
}

/* By libc's clone, without its fork handlers. */
static void do_clone(struct cell *c, long arg)
{
	size_t len = 256u << 10;
	char *stack = SYS(mmap(NULL, len, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0));
	(void)arg;
	pid_t pid = clone(cloned, stack + len, SIGCHLD, c);
	MUST(pid > 0);
	fill(c, 0, c->b, 2);
	verify(c, "parent");
	expect_child(pid, c->name);
	SYS(munmap(stack, len));
}

static void do_fork_child_writes(struct cell *c, long past)
{
	pid_t pid = fork_by(past);

	MUST(pid >= 0);
	if (!pid) {
		child_begins();
		fill(c, 0, c->n, 3);
		verify(c, "child, after its writes");
		_exit(0);
	}
	expect_child(pid, c->name);
}

static void do_fork_parent_writes(struct cell *c, long past)
{
	int go[2];
	char x = 0;

	MUST(!pipe2(go, O_CLOEXEC));
	pid_t pid = fork_by(past);
	MUST(pid >= 0);
	if (!pid) {
		child_begins();
		MUST(read(go[0], &x, 1) == 1);
		verify(c, "child, after its parent's writes");
		_exit(0);
	}
	fill(c, 0, c->n, 2);
	MUST(write(go[1], &x, 1) == 1);
	expect_child(pid, c->name);
	close(go[0]);
	close(go[1]);
}

static void do_fork_changes(struct cell *c, long past)
{
	pid_t pid = fork_by(past);

	MUST(pid >= 0);
	if (!pid) {
		child_begins();
		MUST(!munmap(part(c), PAGE * 5) && !madvise(c->p, 3 * PAGE, MADV_DONTNEED));
		memset(c->want + c->a, GONE, 5);
		memset(c->want, 0, 3);
		verify(c, "child, after munmap");
		pid_t pid2 = fork();
		MUST(pid2 >= 0);
		if (!pid2) {
			fill(c, c->a + 5, c->b, 4);
			verify(c, "grandchild");
			_exit(0);
		}
		fill(c, 0, c->a, 5);
		verify(c, "child");
		expect_child(pid2, c->name);
		_exit(0);
	}
	expect_child(pid, c->name);
}

static void expect_35(struct cell *c, pid_t pid)
{
	int status;

	MUST(pid > 0 && waitpid(pid, &status, 0) == pid);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 35, "%s: status %x", c->name, (unsigned)status);
}

enum { BY_FORK, BY_VFORK, BY_SPAWN };

static void do_exec(struct cell *c, long how)
{
	/* Only the text is cold: its page is found by the kernel while it makes the new program. */
	char *said = c->p + (c->n - 2) * PAGE;
	char *argv[] = {"sh", "-c", c->want[c->n - 2] == TEXT ? said : (char *)text, NULL};
	char *env[] = {NULL};
	pid_t pid = -1;

	if (how == BY_SPAWN) {
		MUST(!posix_spawn(&pid, "/bin/sh", NULL, NULL, argv, env));
	} else {
		pid = how == BY_FORK ? fork() : vfork();
		if (!pid) {
			execve("/bin/sh", argv, env);
			_exit(1);
		}
	}
	expect_35(c, pid);
}

static void *remap(void *p, size_t old, size_t new, int flags, void *to)
{
	return raw_too && rand() % 2 ? (void *)syscall(SYS_mremap, p, old, new, flags, to)
				     : mremap(p, old, new, flags, to);
}

static void do_mremap_grow(struct cell *c, long arg)
{
	size_t n = c->n + c->n / 4 + 3;

	(void)arg;
	c->p = remap(c->p, c->n * PAGE, n * PAGE, MREMAP_MAYMOVE, NULL);
	MUST(c->p != MAP_FAILED);
	memset(c->want + c->n, 0, n - c->n);
	c->n = n;
	verify(c, "grown");
	fill(c, n - n / 4, n, 2);
}

/* Without moving it, into room that it gave up before. */
static void do_mremap_in_place(struct cell *c, long arg)
{
	size_t had = c->n;

	(void)arg;
	MUST(remap(c->p, had * PAGE, c->b * PAGE, 0, NULL) == c->p);
	c->n = c->b;
	char *p = remap(c->p, c->n * PAGE, had * PAGE, 0, NULL);
	if (p == MAP_FAILED) {
		/* Another thread's mapping is in the way. */
		MUST(nworkers > 1 && errno == ENOMEM);
		return;
	}
	MUST(p == c->p);
	c->n = had;
	memset(c->want + c->b, 0, had - c->b);
	verify(c, "grown in place");
	fill(c, c->b, had, 2);
}

static void do_mremap_shrink(struct cell *c, long flags)
{
	MUST(remap(c->p, c->n * PAGE, c->b * PAGE, (int)flags, NULL) == c->p);
	c->n = c->b;
}

/* All of it, or only the part, to another place; off: by so many pages not as it was. */
static void do_mremap_fixed(struct cell *c, long off)
{
	size_t n = c->n + 512;
	char *room = map_anon(n * PAGE), *to = room + off * PAGE;

	fill_pages(room, 0, n, 7);
	MUST(remap(c->p, c->n * PAGE, c->n * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to);
	check_pages(room, 0, (size_t)off, 7, c->name);
	for (size_t i = c->n + (size_t)off; i < n; i++)
		page_check(room + i * PAGE, i, 7, SEED, c->name);
	SYS(munmap(to + c->n * PAGE, (n - (size_t)off - c->n) * PAGE));
	if (off)
		SYS(munmap(room, (size_t)off * PAGE));
	c->p = to;
}

static void do_mremap_part(struct cell *c, long arg)
{
	size_t n = c->b - c->a;

	(void)arg;
	char *to = remap(part(c), n * PAGE, n * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, map_anon(n * PAGE));
	MUST(to != MAP_FAILED);
	for (size_t i = 0; i < n; i++)
		if (c->want[c->a + i])
			page_check(to + i * PAGE, c->a + i, c->want[c->a + i], SEED, c->name);
		else
			page_expect(to + i * PAGE, NULL, c->a + i, 0, c->name);
	SYS(munmap(to, n * PAGE));
	memset(c->want + c->a, GONE, n);
	CHECK(nworkers > 1 || faults(part(c), false), "%s: still there", c->name);
}

static void do_mremap_dontunmap(struct cell *c, long arg)
{
	(void)arg;
	char *to = remap(c->p, c->n * PAGE, c->n * PAGE, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL);
	MUST(to != MAP_FAILED);
	check_zeros(c->p, 0, c->n, c->name);
	fill_pages(c->p, 0, c->n, 5);
	char *old = c->p;
	c->p = to;
	verify(c, "moved");
	check_pages(old, 0, c->n, 5, c->name);
	SYS(munmap(old, c->n * PAGE));
}

/* The middle moves away, and what is left there is empty memory. */
static void do_mremap_dontunmap_part(struct cell *c, long arg)
{
	size_t n = c->b - c->a;

	(void)arg;
	char *to = remap(part(c), n * PAGE, n * PAGE, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL);
	MUST(to != MAP_FAILED);
	for (size_t i = 0; i < n; i++)
		if (c->want[c->a + i])
			page_check(to + i * PAGE, c->a + i, c->want[c->a + i], SEED, c->name);
		else
			page_expect(to + i * PAGE, NULL, c->a + i, 0, c->name);
	SYS(munmap(to, n * PAGE));
	memset(c->want + c->a, 0, n);
	verify(c, "left behind");
	fill(c, c->a + 7, c->b, 4);
}

static void do_munmap(struct cell *c, long where)
{
	size_t a = where == 0 ? 0 : c->a, b = where == 2 ? c->n : c->b;
	char *p = c->p + a * PAGE;

	MUST(!(raw_too && rand() % 2 ? (int)syscall(SYS_munmap, p, (b - a) * PAGE)
				     : munmap(p, (b - a) * PAGE)));
	memset(c->want + a, GONE, b - a);
	if (nworkers > 1)
		return;
	CHECK(faults(p, false) && faults(p + (b - a) * PAGE - 1, true), "%s: still there", c->name);
	MUST(pwrite(w->out, p, PAGE, 0) == -1 && errno == EFAULT);
	verify(c, "after munmap");
	/* New memory in the hole is zero. */
	char *q = mmap(p, (b - a) * PAGE, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	if (q == p)
		memset(c->want + a, 0, b - a);
}

enum { OVER_ANON, OVER_NONE, OVER_FILE };

static void do_map_fixed(struct cell *c, long how)
{
	int flags = MAP_FIXED | (how == OVER_FILE ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS);
	int prot = how == OVER_NONE ? PROT_NONE : PROT_READ | PROT_WRITE;

	MUST(mmap(part(c), part_len(c), prot, flags | (how == OVER_NONE ? MAP_NORESERVE : 0),
		  how == OVER_FILE ? w->out : -1, 0) == part(c));
	memset(c->want + c->a, 0, c->b - c->a);
	if (how == OVER_NONE) {
		CHECK(faults(part(c), false), "%s: can be read", c->name);
		MUST(!mprotect(part(c), part_len(c), PROT_READ | PROT_WRITE));
	} else if (how == OVER_FILE) {
		fill(c, c->a, c->b, 3);
		for (size_t i = c->a; i < c->b; i += 9) {
			MUST(pread(w->out, w->buf, PAGE, (off_t)((i - c->a) * PAGE)) == (ssize_t)PAGE);
			page_check(w->buf, i, 3, SEED, c->name);
		}
		MUST(mmap(part(c), part_len(c), prot, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) ==
		     part(c));
		memset(c->want + c->a, 0, c->b - c->a);
	}
	verify(c, "mapped over");
	fill(c, c->a + 5, c->b, 4);
}

static int advise(void *p, size_t len, int advice)
{
	return raw_too && rand() % 2 ? (int)syscall(SYS_madvise, p, len, advice) : madvise(p, len, advice);
}

/* MADV_DONTNEED or MADV_FREE */
static void do_discard(struct cell *c, long advice)
{
	MUST(!advise(part(c), part_len(c), (int)advice));
	for (size_t i = c->a; i < c->b; i++)
		c->want[i] = advice != MADV_FREE || !c->want[i] ? 0 : c->want[i] | MAYBE;
	verify(c, "discarded");
	fill(c, c->a, (c->a + c->b) / 2, 2);
}

static void do_discard_sieve(struct cell *c, long advice)
{
	for (size_t i = c->a; i < c->b; i += 61) {
		MUST(!advise(c->p + i * PAGE, PAGE, (int)advice));
		c->want[i] = 0;
	}
}

static void do_advise(struct cell *c, long advice)
{
	if (advise(part(c), part_len(c), (int)advice))
		CHECK(errno == EINVAL || errno == ENOSYS || errno == EBUSY || errno == EAGAIN, "%s: %s", c->name,
		      strerror(errno));
}

/* Pages that raise a signal, until that is taken back: zeros then. */
static void do_guard(struct cell *c, long arg)
{
	size_t end = c->a + 40;

	(void)arg;
	if (advise(part(c), 40 * PAGE, MADV_GUARD_INSTALL)) {
		MUST(errno == EINVAL); /* since 6.13 */
		return;
	}
	for (size_t i = c->a; i < end; i += 13)
		CHECK(faults(c->p + i * PAGE, i % 2), "%s: page %zu can be used", c->name, i);
	memset(c->want + c->a, GONE, 40);
	verify(c, "guarded");
	MUST(!advise(part(c), 40 * PAGE, MADV_GUARD_REMOVE));
	memset(c->want + c->a, 0, 40);
	verify(c, "not guarded");
	fill(c, c->a + 2, end, 2);
}

static void do_forkless(struct cell *c, long advice)
{
	MUST(!advise(part(c), part_len(c), (int)advice));
	pid_t pid = fork();
	MUST(pid >= 0);
	if (!pid) {
		child_begins();
		memset(c->want + c->a, advice == MADV_DONTFORK ? GONE : 0, c->b - c->a);
		verify(c, "child");
		_exit(0);
	}
	expect_child(pid, c->name);
}

static void do_protect(struct cell *c, long prot)
{
	MUST(!mprotect(part(c), part_len(c), (int)prot));
	for (size_t i = c->a; i < c->b; i += 101)
		CHECK(faults(c->p + i * PAGE, prot == PROT_READ), "%s: page %zu can be used", c->name, i);
	if (prot == PROT_READ)
		verify(c, "read-only");
	MUST(pread(w->file, part(c), PAGE, 0) == -1 && errno == EFAULT);
	MUST(!mprotect(part(c), part_len(c), PROT_READ | PROT_WRITE));
	verify(c, "writable again");
	fill(c, c->a + 3, c->b, 2);
}

enum { BY_PROTECT, BY_SPLICE };

/*
 * To the kernel it is one mapping again after its middle was different for a while, and
 * can be moved as one. (By different flags than those of access it would be cut for good.)
 */
static void do_rejoin(struct cell *c, long how)
{
	struct iovec one = {part(c), PAGE};

	if (how == BY_PROTECT) {
		MUST(!mprotect(part(c), part_len(c), PROT_READ));
		MUST(!mprotect(part(c), part_len(c), PROT_READ | PROT_WRITE));
	} else {
		MUST(vmsplice(w->pipe[1], &one, 1, 0) == (ssize_t)PAGE);
		MUST(read(w->pipe[0], w->buf, PAGE) == (ssize_t)PAGE);
	}
	fill(c, c->a, c->b, 2);
	fill(c, 0, c->a, 3);
	do_mremap_grow(c, 0);
}

static void do_lock(struct cell *c, long onfault)
{
	size_t len = part_len(c) < 1u << 20 ? part_len(c) : 1u << 20;
	unsigned char there;

	if (onfault ? mlock2(part(c), len, MLOCK_ONFAULT) : mlock(part(c), len)) {
		MUST(errno == EPERM || errno == ENOMEM);
		return;
	}
	press(0, ballast_pages);
	for (size_t i = 0; !onfault && i < len / PAGE; i++)
		MUST(!mincore(part(c) + i * PAGE, PAGE, &there) && there & 1);
	MUST(madvise(part(c), len, MADV_DONTNEED) == -1 && errno == EINVAL);
	verify(c, "locked");
	fill(c, c->a, c->b, 2);
	MUST(!munlock(part(c), len));
}

/* --- transfers --- */

static int ring_op(unsigned op, int fd, void *p, unsigned len, uint64_t off)
{
	unsigned tail = *(unsigned *)(w->sq + w->par.sq_off.tail);
	unsigned mask = *(unsigned *)(w->sq + w->par.sq_off.ring_mask);
	unsigned *head = (unsigned *)(w->cq + w->par.cq_off.head);

	w->sqe[tail & mask] = (struct io_uring_sqe){
		.opcode = (uint8_t)op, .fd = fd, .off = off, .addr = (uintptr_t)p, .len = len};
	((unsigned *)(w->sq + w->par.sq_off.array))[tail & mask] = tail & mask;
	atomic_store((_Atomic unsigned *)(w->sq + w->par.sq_off.tail), tail + 1);
	MUST(syscall(SYS_io_uring_enter, w->ring, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) == 1);
	while (atomic_load((_Atomic unsigned *)(w->cq + w->par.cq_off.tail)) == *head)
		syscall(SYS_io_uring_enter, w->ring, 0, 1, IORING_ENTER_GETEVENTS, NULL, 0);
	struct io_uring_cqe *cqe = (struct io_uring_cqe *)(w->cq + w->par.cq_off.cqes) +
				   (*head & *(unsigned *)(w->cq + w->par.cq_off.ring_mask));
	int res = cqe->res;
	atomic_store((_Atomic unsigned *)head, *head + 1);
	return res;
}

static void ring_open(void)
{
	w->ring = (int)syscall(SYS_io_uring_setup, 8, &w->par);
	if (w->ring < 0)
		return;
	size_t sq = w->par.sq_off.array + w->par.sq_entries * 4;
	size_t cq = w->par.cq_off.cqes + w->par.cq_entries * sizeof(struct io_uring_cqe);
	w->sq = SYS(mmap(NULL, sq, PROT_READ | PROT_WRITE, MAP_SHARED, w->ring, IORING_OFF_SQ_RING));
	w->cq = SYS(mmap(NULL, cq, PROT_READ | PROT_WRITE, MAP_SHARED, w->ring, IORING_OFF_CQ_RING));
	w->sqe = SYS(mmap(NULL, w->par.sq_entries * sizeof(struct io_uring_sqe), PROT_READ | PROT_WRITE,
			  MAP_SHARED, w->ring, IORING_OFF_SQES));
}

static ssize_t aio(int op, int fd, void *p, size_t len, off_t off)
{
	aio_context_t ctx = 0;
	struct iocb cb = {.aio_lio_opcode = (uint16_t)op, .aio_fildes = (uint32_t)fd,
			  .aio_buf = (uintptr_t)p, .aio_nbytes = len, .aio_offset = off}, *cbs = &cb;
	struct io_event ev;

	if (syscall(SYS_io_setup, 1, &ctx))
		return -1;
	MUST(syscall(SYS_io_submit, ctx, 1, &cbs) == 1);
	MUST(syscall(SYS_io_getevents, ctx, 1, 1, &ev, NULL) == 1);
	syscall(SYS_io_destroy, ctx);
	return (ssize_t)ev.res;
}

enum how { PLAIN, POSITION, VECTOR, SOCKET, MESSAGE, PIPE, SPLICE, PROCESS, DIRECT, RING, FIXED, AIO };

static size_t cut(struct iovec *iov, char *p, size_t len)
{
	size_t n = 0;

	for (size_t k = 70001; len; p += k, len -= k) {
		k = n == 15 || k > len ? len : k;
		iov[n++] = (struct iovec){p, k};
	}
	return n;
}

static bool ring_fixed(struct cell *c)
{
	struct iovec iov = {part(c), part_len(c)};

	if (w->ring < 0)
		return false;
	if (syscall(SYS_io_uring_register, w->ring, IORING_REGISTER_BUFFERS, &iov, 1)) {
		MUST(errno == ENOMEM || errno == EPERM);
		return false;
	}
	/* It stays where it is now, in every respect. */
	press(0, ballast_pages);
	return true;
}

static void ring_unfix(void)
{
	syscall(SYS_io_uring_register, w->ring, IORING_UNREGISTER_BUFFERS, NULL, 0);
}

/* In pieces that fit into what is between: a pipe, a socket. */
static void through(struct cell *c, enum how how, bool out)
{
	const size_t piece = 32768;

	for (size_t at = 0; at < part_len(c); at += piece) {
		ssize_t len = (ssize_t)(at + piece > part_len(c) ? part_len(c) - at : piece), k;
		char *p = part(c) + at, *b = w->buf;
		struct iovec iov[16], one = {p, (size_t)len};
		struct msghdr msg = {.msg_iov = iov, .msg_iovlen = cut(iov, p, (size_t)len)};
		off_t off = (off_t)(c->a * PAGE + at);

		if (!out && how != SPLICE)
			MUST(pread(w->file, b, (size_t)len, off) == len);
		switch (how) {
		case SOCKET:
			MUST(send(w->sock[0], out ? p : b, (size_t)len, 0) == len);
			MUST(recv(w->sock[1], out ? b : p, (size_t)len, MSG_WAITALL) == len);
			break;
		case MESSAGE:
			if (out) {
				MUST(sendmsg(w->sock[0], &msg, 0) == len);
				MUST(recv(w->sock[1], b, (size_t)len, MSG_WAITALL) == len);
			} else {
				MUST(send(w->sock[0], b, (size_t)len, 0) == len);
				MUST(recvmsg(w->sock[1], &msg, MSG_WAITALL) == len);
			}
			break;
		case PIPE:
			MUST(write(w->pipe[1], out ? p : b, (size_t)len) == len);
			MUST(read(w->pipe[0], out ? b : p, (size_t)len) == len);
			break;
		case SPLICE:
			if (out) {
				MUST(vmsplice(w->pipe[1], &one, 1, 0) == len);
			} else {
				for (ssize_t done = 0; done < len; done += k)
					MUST((k = splice(w->file, &off, w->pipe[1], NULL,
							 (size_t)(len - done), 0)) > 0);
			}
			for (ssize_t done = 0; done < len; done += k)
				MUST((k = read(w->pipe[0], (out ? b : p) + done, (size_t)(len - done))) > 0);
			break;
		default: /* PROCESS */
			iov[0] = (struct iovec){b, (size_t)len};
			if (out)
				MUST(process_vm_readv(getpid(), iov, 1, &one, 1, 0) == len);
			else
				MUST(process_vm_writev(getpid(), iov, 1, &one, 1, 0) == len);
		}
		if (out)
			MUST(pwrite(w->out, b, (size_t)len, (off_t)at) == len);
	}
}

static void direct(int fd, bool on)
{
	if (fcntl(fd, F_SETFL, on ? O_DIRECT : 0) && !on)
		die("fcntl: %s", strerror(errno));
}

static void do_out(struct cell *c, long how)
{
	ssize_t len = (ssize_t)part_len(c), n = len;
	struct iovec iov[16];
	size_t k;

	/* Beside a ring it would keep everything local from then on, where pages are copied. */
	if (copy_mode && (how == DIRECT || how == AIO)) {
		w->skipped++;
		return;
	}
	switch ((enum how)how) {
	case PLAIN:
		MUST(lseek(w->out, 0, SEEK_SET) == 0);
		n = write(w->out, part(c), (size_t)len);
		break;
	case POSITION:
		n = pwrite(w->out, part(c), (size_t)len, 0);
		break;
	case VECTOR:
		k = cut(iov, part(c), (size_t)len);
		n = pwritev(w->out, iov, (int)k, 0);
		break;
	case DIRECT:
		direct(w->out, true);
		n = pwrite(w->out, part(c), (size_t)len, 0);
		direct(w->out, false);
		break;
	case RING:
		n = w->ring < 0 ? pwrite(w->out, part(c), (size_t)len, 0)
				: ring_op(IORING_OP_WRITE, w->out, part(c), (unsigned)len, 0);
		break;
	case FIXED:
		if (!ring_fixed(c))
			return;
		n = ring_op(IORING_OP_WRITE_FIXED, w->out, part(c), (unsigned)len, 0);
		ring_unfix();
		break;
	case AIO:
		direct(w->out, true);
		n = aio(IOCB_CMD_PWRITE, w->out, part(c), (size_t)len, 0);
		direct(w->out, false);
		if (n < 0)
			return;
		break;
	default:
		through(c, (enum how)how, true);
	}
	CHECK(n == len, "%s: %zd of %zd: %s", c->name, n, len, strerror(n < -1 ? (int)-n : errno));
	for (size_t i = c->a; i < c->b; i++) {
		MUST(pread(w->out, w->buf, PAGE, (off_t)((i - c->a) * PAGE)) == (ssize_t)PAGE);
		if (c->want[i])
			page_check(w->buf, i, c->want[i], SEED, c->name);
		else
			page_expect(w->buf, NULL, i, 0, c->name);
	}
}

static void do_in(struct cell *c, long how)
{
	ssize_t len = (ssize_t)part_len(c), n = len;
	off_t off = (off_t)(c->a * PAGE);
	struct iovec iov[16];
	size_t k;

	/* These write to pages that they have pinned: where pages are copied, to the old ones. */
	if (copy_mode && (how == DIRECT || how == FIXED || how == AIO || how == PROCESS)) {
		w->skipped++;
		return;
	}
	switch ((enum how)how) {
	case PLAIN:
		MUST(lseek(w->file, off, SEEK_SET) == off);
		n = read(w->file, part(c), (size_t)len);
		break;
	case POSITION:
		n = pread(w->file, part(c), (size_t)len, off);
		break;
	case VECTOR:
		k = cut(iov, part(c), (size_t)len);
		n = preadv(w->file, iov, (int)k, off);
		break;
	case DIRECT:
		direct(w->file, true);
		n = pread(w->file, part(c), (size_t)len, off);
		direct(w->file, false);
		break;
	case RING:
		if (w->ring < 0)
			return;
		n = ring_op(IORING_OP_READ, w->file, part(c), (unsigned)len, (uint64_t)off);
		break;
	case FIXED:
		if (!ring_fixed(c))
			return;
		verify(c, "registered");
		n = ring_op(IORING_OP_READ_FIXED, w->file, part(c), (unsigned)len, (uint64_t)off);
		ring_unfix();
		break;
	case AIO:
		direct(w->file, true);
		n = aio(IOCB_CMD_PREAD, w->file, part(c), (size_t)len, off);
		direct(w->file, false);
		if (n < 0)
			return;
		break;
	default:
		through(c, (enum how)how, false);
	}
	CHECK(n == len, "%s: %zd of %zd: %s", c->name, n, len, strerror(n < -1 ? (int)-n : errno));
	memset(c->want + c->a, 2, c->b - c->a);
}

/* --- threads, signals, small calls --- */

static void *sleeper(void *arg)
{
	_Atomic int *word = arg;

	while (atomic_load(word) != 42)
		syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, 41, NULL, NULL, 0);
	return NULL;
}

static void do_futex(struct cell *c, long arg)
{
	_Atomic int *word = (_Atomic int *)(part(c) + 512);
	pthread_t t;

	(void)arg;
	c->want[c->a] = ANY;
	atomic_store(word, 41);
	MUST(!pthread_create(&t, NULL, sleeper, word));
	press(0, ballast_pages); /* it goes away under the sleeper */
	CHECK(syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, 40, NULL, NULL, 0) == -1 && errno == EAGAIN,
	      "%s: FUTEX_WAIT", c->name);
	atomic_store(word, 42);
	MUST(syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0) >= 0);
	pthread_join(t, NULL);
}

static __thread volatile uintptr_t handler_stack;

static void on_usr1(int sig)
{
	char here[3000];

	(void)sig;
	memset(here, 1, sizeof(here));
	handler_stack = (uintptr_t)here;
}

static void do_altstack(struct cell *c, long arg)
{
	size_t len = 64u << 10;
	stack_t ss = {.ss_sp = part(c), .ss_size = len}, old;

	(void)arg;
	memset(c->want + c->a, ANY, len / PAGE);
	MUST(!sigaltstack(&ss, &old));
	for (unsigned i = 0; i < 3; i++) {
		handler_stack = 0;
		MUST(!pthread_kill(pthread_self(), SIGUSR1));
		MUST(handler_stack - (uintptr_t)part(c) < len);
		if (!i)
			press(0, ballast_pages);
	}
	MUST(!sigaltstack(&old, NULL));
}

static int deep(int n)
{
	volatile char frame[2000];

	memset((char *)frame, n, sizeof(frame));
	int r = n ? deep(n - 1) + 1 : 0;
	return frame[1000] == (char)n ? r : -1000;
}

static void *on_own_stack(void *arg)
{
	struct worker *of = arg;

	press(0, ballast_pages / 2);
	if (deep(200) != 200)
		die("%s: the stack changed", of->c.name);
	return NULL;
}

static void do_thread_stack(struct cell *c, long arg)
{
	size_t len = 1u << 20;
	pthread_attr_t attr;
	pthread_t t;

	(void)arg;
	memset(c->want + c->a, ANY, len / PAGE);
	for (unsigned i = 0; i < 2; i++) {
		pthread_attr_init(&attr);
		MUST(!pthread_attr_setstack(&attr, part(c), len));
		MUST(!pthread_create(&t, &attr, on_own_stack, w));
		pthread_join(t, NULL);
		pthread_attr_destroy(&attr);
	}
}

static void *reads_and_ends(void *arg)
{
	struct worker *of = arg;

	w = of;
	verify(&of->c, "another thread");
	fill(&of->c, of->c.a, of->c.b, 2);
	return part(&of->c);
}

static void do_thread(struct cell *c, long arg)
{
	pthread_t t;
	void *result;

	(void)arg;
	MUST(!pthread_create(&t, NULL, reads_and_ends, w) && !pthread_join(t, &result));
	MUST(result == part(c));
}

static void do_small(struct cell *c, long arg)
{
	char *said = c->p + (c->n - 2) * PAGE + 64;
	struct stat *st = (struct stat *)(part(c) + PAGE - 40); /* over a page's border */
	struct timespec *ts = (struct timespec *)(part(c) + 3 * PAGE);
	struct pollfd *pfd = (struct pollfd *)(part(c) + 5 * PAGE);

	(void)arg;
	memset(c->want + c->a, ANY, 6);
	int fd = open(c->want[c->n - 2] == TEXT ? said : path, O_RDWR | O_CLOEXEC);
	MUST(fd >= 0);
	MUST(!fstat(fd, st) && S_ISCHR(st->st_mode));
	MUST(!syscall(SYS_clock_gettime, CLOCK_MONOTONIC, ts) && ts->tv_nsec < 1000000000);
	*pfd = (struct pollfd){fd, POLLOUT, 0};
	MUST(poll(pfd, 1, 1000) == 1 && pfd->revents & POLLOUT);
	close(fd);
}

/* --- the heap --- */

static void do_realloc(struct cell *c, long n)
{
	size_t now = n > 0 ? c->n + (size_t)n : c->b;

	c->p = realloc(c->p, now * PAGE);
	MUST(c->p);
	if (now > c->n)
		memset(c->want + c->n, ANY, now - c->n);
	c->n = now;
	verify(c, "after realloc");
	fill(c, c->n - 50, c->n, 2);
}

static void do_free(struct cell *c, long arg)
{
	(void)arg;
	free(c->p);
	c->p = calloc(c->n, PAGE);
	MUST(c->p);
	memset(c->want, 0, c->n);
	verify(c, "calloc");
	free(c->p);
	MUST(!posix_memalign((void **)&c->p, 1u << 21, c->n * PAGE) && (uintptr_t)c->p % (1u << 21) == 0);
	fill(c, 0, c->n, 3);
}

enum { F_HEAP = 1, F_RAW = 2, F_SHORT = 4 /* needs no second look after all went far */ };

static const struct {
	const char *name;
	void (*run)(struct cell *c, long arg);
	long arg;
	unsigned flags;
} all[] = {
	{"read", do_nothing, 0, 0},
	{"write", do_write, 1, 0},
	{"write-some", do_write, 67, 0},
	{"fork", do_fork, 0, 0},
	{"fork-child-writes", do_fork_child_writes, 0, 0},
	{"fork-parent-writes", do_fork_parent_writes, 0, 0},
	{"fork-changes", do_fork_changes, 0, 0},
	{"clone", do_clone, 0, 0},
	{"fork-raw", do_fork, 1, F_RAW},
	{"fork-raw-child-writes", do_fork_child_writes, 1, F_RAW},
	{"fork-raw-parent-writes", do_fork_parent_writes, 1, F_RAW},
	{"fork-exec", do_exec, BY_FORK, 0},
	{"vfork-exec", do_exec, BY_VFORK, F_SHORT},
	{"posix-spawn", do_exec, BY_SPAWN, F_SHORT},
	{"mremap-grow", do_mremap_grow, 0, 0},
	{"mremap-in-place", do_mremap_in_place, 0, 0},
	{"mremap-shrink", do_mremap_shrink, 0, 0},
	{"mremap-shrink-maymove", do_mremap_shrink, MREMAP_MAYMOVE, 0},
	{"mremap-fixed", do_mremap_fixed, 0, 0},
	{"mremap-fixed-odd", do_mremap_fixed, 3, 0},
	{"mremap-part", do_mremap_part, 0, 0},
	{"mremap-dontunmap", do_mremap_dontunmap, 0, 0},
	{"mremap-dontunmap-part", do_mremap_dontunmap_part, 0, 0},
	{"munmap-head", do_munmap, 0, 0},
	{"munmap-middle", do_munmap, 1, 0},
	{"munmap-tail", do_munmap, 2, 0},
	{"map-over", do_map_fixed, OVER_ANON, 0},
	{"map-none-over", do_map_fixed, OVER_NONE, 0},
	{"map-file-over", do_map_fixed, OVER_FILE, 0},
	{"dontneed", do_discard, MADV_DONTNEED, 0},
	{"free", do_discard, MADV_FREE, 0},
	{"dontneed-locked", do_discard, MADV_DONTNEED_LOCKED, 0},
	{"dontneed-sieve", do_discard_sieve, MADV_DONTNEED, 0},
	{"remove", do_advise, MADV_REMOVE, F_SHORT},
	{"guard", do_guard, 0, 0},
	{"populate-read", do_advise, MADV_POPULATE_READ, F_SHORT},
	{"populate-write", do_advise, MADV_POPULATE_WRITE, 0},
	{"hugepage", do_advise, MADV_HUGEPAGE, F_SHORT},
	{"nohugepage", do_advise, MADV_NOHUGEPAGE, 0},
	{"collapse", do_advise, MADV_COLLAPSE, 0},
	{"willneed", do_advise, MADV_WILLNEED, F_SHORT},
	{"cold", do_advise, MADV_COLD, F_SHORT},
	{"pageout", do_advise, MADV_PAGEOUT, 0},
	{"dontdump", do_advise, MADV_DONTDUMP, 0},
	{"mergeable", do_advise, MADV_MERGEABLE, 0},
	{"dontfork", do_forkless, MADV_DONTFORK, 0},
	{"wipeonfork", do_forkless, MADV_WIPEONFORK, 0},
	{"mprotect-read", do_protect, PROT_READ, 0},
	{"mprotect-none", do_protect, PROT_NONE, 0},
	{"mprotect-mremap", do_rejoin, BY_PROTECT, 0},
	{"vmsplice-mremap", do_rejoin, BY_SPLICE, 0},
	{"mlock", do_lock, 0, 0},
	{"mlock-onfault", do_lock, 1, 0},
	{"out-write", do_out, PLAIN, F_SHORT},
	{"out-pwrite", do_out, POSITION, F_SHORT},
	{"out-pwritev", do_out, VECTOR, F_SHORT},
	{"out-send", do_out, SOCKET, F_SHORT},
	{"out-sendmsg", do_out, MESSAGE, F_SHORT},
	{"out-pipe", do_out, PIPE, F_SHORT},
	{"out-vmsplice", do_out, SPLICE, F_SHORT},
	{"out-process", do_out, PROCESS, F_SHORT},
	{"out-direct", do_out, DIRECT, F_SHORT},
	{"out-uring", do_out, RING, F_SHORT},
	{"out-uring-fixed", do_out, FIXED, F_SHORT},
	{"out-aio", do_out, AIO, F_SHORT},
	{"in-read", do_in, PLAIN, 0},
	{"in-pread", do_in, POSITION, 0},
	{"in-preadv", do_in, VECTOR, 0},
	{"in-recv", do_in, SOCKET, 0},
	{"in-recvmsg", do_in, MESSAGE, 0},
	{"in-pipe", do_in, PIPE, 0},
	{"in-splice", do_in, SPLICE, 0},
	{"in-process", do_in, PROCESS, 0},
	{"in-direct", do_in, DIRECT, 0},
	{"in-uring", do_in, RING, 0},
	{"in-uring-fixed", do_in, FIXED, 0},
	{"in-aio", do_in, AIO, 0},
	{"futex", do_futex, 0, F_SHORT},
	{"altstack", do_altstack, 0, F_SHORT},
	{"thread-stack", do_thread_stack, 0, F_SHORT},
	{"thread", do_thread, 0, 0},
	{"small", do_small, 0, F_SHORT},
	{"realloc-grow", do_realloc, 700, F_HEAP},
	{"realloc-shrink", do_realloc, 0, F_HEAP},
	{"free-calloc", do_free, 0, F_HEAP},
	{"heap-fork", do_fork, 0, F_HEAP},
	{"heap-write", do_out, POSITION, F_HEAP | F_SHORT},
	{"heap-read", do_in, POSITION, F_HEAP},
};

enum { ALL = sizeof(all) / sizeof(*all) };

static void give_back(struct cell *c)
{
	if (c->heap) {
		free(c->p);
		return;
	}
	/* Not over the holes: another thread may have mapped something there. */
	for (size_t i = 0, k; i < c->n; i = k) {
		for (k = i + 1; k < c->n && (c->want[k] == GONE) == (c->want[i] == GONE); k++)
			;
		if (c->want[i] != GONE)
			SYS(munmap(c->p + i * PAGE, (k - i) * PAGE));
	}
}

static void run_cell(size_t op, enum state state)
{
	struct cell *c = &w->c;

	snprintf(c->name, sizeof(c->name), "%s/%s", all[op].name, state_names[state]);
	if (after) {
		if (!strcmp(c->name, after))
			after = NULL;
		return;
	}
	if (only) {
		size_t len = strlen(only);
		if (strncmp(c->name, only, len) || (c->name[len] && c->name[len] != '/'))
			return;
	}
	if ((all[op].flags & F_RAW && !raw_too) || (op + (size_t)state) % shares != share)
		return;
	alarm(STUCK_SECONDS);
	c->heap = all[op].flags & F_HEAP;
	/* What malloc gives holds anything. */
	if (c->heap && state == UNTOUCHED)
		return;
	c->n = pages;
	c->a = pages / 4 + 3;
	c->b = pages - pages / 4 - 3;
	c->state = state;
	memset(c->want, 0, pages);
	c->p = c->heap ? malloc(pages * PAGE) : map_anon(pages * PAGE);
	MUST(c->p);
	bring(c);
	all[op].run(c, all[op].arg);
	calm();
	verify(c, "after it");
	if (!(all[op].flags & F_SHORT)) {
		press_until(c, c->n / 2);
		verify(c, "after all was away");
	}
	give_back(c);
}

static void open_worker(struct worker *me, unsigned i)
{
	int size = 1 << 20;

	w = me;
	me->me = i;
	me->c.want = malloc(2 * MAX_PAGES);
	me->buf = mmap(NULL, 1u << 16, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	me->file = SYS(temp_file(O_RDWR | O_CLOEXEC));
	me->out = SYS(temp_file(O_RDWR | O_CLOEXEC));
	SYS(ftruncate(me->out, (off_t)(pages * PAGE)));
	for (size_t k = 0; k < pages; k++) {
		page_fill(me->buf, k, 2, SEED);
		MUST(pwrite(me->file, me->buf, PAGE, (off_t)(k * PAGE)) == (ssize_t)PAGE);
	}
	MUST(!fsync(me->file)); /* what is written back later is slow to read past the cache */
	SYS(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, me->sock));
	setsockopt(me->sock[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	SYS(pipe2(me->pipe, O_CLOEXEC));
	ring_open();
	if (pthread_create(&me->other, NULL, disturb, me))
		die("pthread_create");
}

static void *work(void *arg)
{
	w = arg;
	/* Several share the cells, each in an order of its own, so that all meet all. */
	for (size_t k = 0; k < ALL * STATES; k++) {
		size_t i = nworkers > 1 ? (k * 131 + w->me * 97) % (ALL * STATES) : k;

		if ((i / STATES + i % STATES) % nworkers == w->me)
			run_cell(i / STATES, (enum state)(i % STATES));
	}
	return NULL;
}

int main(int argc, char **argv)
{
	struct sigaction sa = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_NODEFER};
	struct sigaction usr1 = {.sa_handler = on_usr1, .sa_flags = SA_ONSTACK};
	unsigned long tried = 0, skipped = 0;

	if (argc < 4)
		die("usage: %s SIZE BALLAST THREADS [copy] [raw] [share=K/N] [only=OPERATION[/STATE]] "
		    "[after=OPERATION/STATE]",
		    argv[0]);
	pages = size_arg(argv[1]) / PAGE;
	ballast_pages = size_arg(argv[2]) / PAGE / 512 * 512;
	nworkers = (unsigned)atoi(argv[3]);
	for (int i = 4; i < argc; i++) {
		if (!strcmp(argv[i], "copy"))
			copy_mode = true;
		else if (!strcmp(argv[i], "raw"))
			raw_too = true;
		else if (sscanf(argv[i], "share=%u/%u", &share, &shares) == 2 && share < shares)
			;
		else if (!strncmp(argv[i], "only=", 5))
			only = argv[i] + 5;
		else if (!strncmp(argv[i], "after=", 6) && nworkers == 1)
			after = argv[i] + 6;
		else
			die("what is %s?", argv[i]);
	}
	if (!nworkers || pages > MAX_PAGES / 2 || pages < 1100 || !ballast_pages)
		die("not that size");
	SYS(sigaction(SIGSEGV, &sa, NULL));
	SYS(sigaction(SIGBUS, &sa, NULL));
	SYS(sigaction(SIGALRM, &sa, NULL));
	SYS(sigaction(SIGUSR1, &usr1, NULL));
	ballast = filled(ballast_pages * PAGE);
	workers = calloc(nworkers, sizeof(*workers));
	for (unsigned i = 0; i < nworkers; i++)
		open_worker(&workers[i], i);
	for (unsigned i = 0; i < nworkers; i++)
		if (pthread_create(&workers[i].thread, NULL, work, &workers[i]))
			die("pthread_create");
	for (unsigned i = 0; i < nworkers; i++) {
		pthread_join(workers[i].thread, NULL);
		atomic_store(&workers[i].stop, true);
		pthread_join(workers[i].other, NULL);
	}
	for (int s = 0; s < STATES; s++) {
		unsigned long r = 0, t = 0;

		for (unsigned i = 0; i < nworkers; i++) {
			r += workers[i].reached[s];
			t += workers[i].tried[s];
			skipped += s ? 0 : workers[i].skipped;
		}
		printf("state %s %lu %lu\n", state_names[s], r, t);
		tried += t;
	}
	printf("%lu cells, %lu of them left out\n", tried, skipped);
	fflush(stdout);
	alarm(0);
	write_stats();
	return 0;
}
