/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bugs that were found, a row each: every one of these failed before its fix.
 */
#define _GNU_SOURCE
#include "rows.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <linux/userfaultfd.h>
#include <malloc.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>

enum { BLOCK = 2 << 20 };

static char *block_aligned(size_t size)
{
	char *p = map_anon(size + BLOCK);

	return (char *)(((uintptr_t)p + BLOCK - 1) & ~(uintptr_t)(BLOCK - 1));
}

/* How long what needs chance goes on: without the library there is nothing to be found. */
static time_t seconds(void)
{
	return watched() ? 3 : 1;
}

static bool time_left(time_t end)
{
	return time(NULL) < end;
}

static void on_alarm(int sig)
{
	(void)sig;
}

/*
 * A signal interrupts the wait in a fault; the access then runs again before the page is
 * protected, and the write that follows was not seen.
 */
static void run_signal_write(size_t size)
{
	size_t blocks = size / BLOCK;
	volatile unsigned *word[8];
	unsigned *expect = calloc(blocks * 8, sizeof(*expect)), x = 1;
	char *p = block_aligned(size);
	struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGALRM };
	struct itimerspec often = { { 0, 40000 }, { 0, 40000 } };
	timer_t timer;

	memset(p, 0, size);
	signal(SIGALRM, on_alarm);
	SYS(timer_create(CLOCK_MONOTONIC, &event, &timer));
	SYS(timer_settime(timer, 0, &often, NULL));
	/* Each block is zero until it was chosen once, and then there is nothing to fetch. */
	size_t steps = 0;
	for (time_t end = time(NULL) + seconds(); steps < 4 * blocks || time_left(end); steps++) {
		x = x * 1664525u + 1013904223u;
		size_t b = (x >> 8) % blocks, k = (x >> 3) % 8;
		word[k] = (volatile unsigned *)(p + b * BLOCK + k * PAGE);
		if (*word[k] != expect[b * 8 + k])
			die("block %zu: %u instead of %u", b, *word[k], expect[b * 8 + k]);
		*word[k] = ++expect[b * 8 + k];
	}
	timer_delete(timer);
}

/* A discard that begins and ends inside of blocks; the first one left while the second was fetched. */
static void run_discard_edges(size_t size)
{
	char *p = block_aligned(size);
	unsigned x = 1;

	memset(p, 1, size);
	for (time_t end = time(NULL) + seconds(); time_left(end);) {
		x = x * 1664525u + 1013904223u;
		char *from = p + (x >> 8) % (size / BLOCK - 2) * BLOCK + BLOCK / 2, *to = from + BLOCK;
		memset(from, 7, BLOCK);
		for (size_t i = 0; i < size; i += BLOCK)
			((volatile char *)p)[i];
		SYS(madvise(from, BLOCK, MADV_DONTNEED));
		for (char *q = from; q < to; q += PAGE)
			if (*(volatile char *)q)
				die("old data %zu bytes behind the start of a discard", q - from);
	}
}

/* Fork again and again while blocks come and go: what had just left was zero in the child.
 * (Only the children fetch: what is far stays far in the parent.) */
static void run_fork_often(size_t size)
{
	char *p = filled(size);

	for (time_t end = time(NULL) + seconds(); time_left(end);) {
		pid_t child = SYS(fork());
		if (!child) {
			check_pages(p, 0, size / PAGE, 1, "child");
			_exit(0);
		}
		expect_child(child, "child");
	}
}

static volatile bool writer_done;

static void *write_and_check(void *arg)
{
	size_t pages = *(size_t *)arg;
	char *p = map_anon(pages * PAGE);

	for (unsigned version = 1; version < 4; version++) {
		fill_pages(p, 0, pages, version);
		check_pages(p, 0, pages, version, "thread");
	}
	writer_done = true;
	return NULL;
}

/* Fork in one thread while another grows its memory: accounting and budget survive it. */
static void run_fork_growing(size_t size)
{
	size_t pages = size / PAGE;
	pthread_t thread;

	pthread_create(&thread, NULL, write_and_check, &pages);
	while (!writer_done) {
		pid_t child = SYS(fork());
		if (!child)
			_exit(0);
		SYS(waitpid(child, NULL, 0));
	}
	pthread_join(thread, NULL);
}

/* What locks, protects or marks a part of an allocation must not break free and realloc. */
static void run_free_released(size_t size)
{
	size_t n = size / 4;
	char *p = malloc(n);

	memset(p, 7, n);
	if (!mlock(p, PAGE))
		munlock(p, PAGE);
	free(p);
	p = malloc(n);
	memset(p, 7, n);
	SYS(madvise((void *)(((uintptr_t)p + PAGE - 1) & ~(uintptr_t)(PAGE - 1)), n - PAGE, MADV_DONTDUMP));
	free(p);
	p = malloc(n);
	memset(p, 7, n);
	char *page = (char *)(((uintptr_t)p + n / 2) & ~(uintptr_t)(PAGE - 1));
	SYS(mprotect(page, PAGE, PROT_READ));
	SYS(mprotect(page, PAGE, PROT_READ | PROT_WRITE));
	if (malloc_usable_size(p) < n)
		die("malloc_usable_size: %zu of %zu", malloc_usable_size(p), n);
	p = realloc(p, 2 * n);
	for (size_t i = 0; i < n; i += PAGE)
		if (p[i] != 7)
			die("realloc lost byte %zu", i);
	free(p);
}

static void *read_and_print(void *arg)
{
	sleep(1);
	check_pages(arg, 0, (32 << 20) / PAGE, 1, "last thread");
	puts("the last thread was here");
	return NULL;
}

/* The main thread ends first; the process ends with the last thread of the program, as ever. */
static void run_last_thread(size_t size)
{
	int out[2];

	SYS(pipe(out));
	pid_t child = SYS(fork());
	if (!child) {
		pthread_t thread;
		SYS(dup2(out[1], 1));
		close(out[0]);
		close(out[1]);
		pthread_create(&thread, NULL, read_and_print, filled(size));
		pthread_detach(thread);
		pthread_exit(NULL);
	}
	char text[64] = "";
	int status;
	close(out[1]);
	SYS(waitpid(child, &status, 0));
	SYS(read(out[0], text, sizeof(text) - 1));
	if (status || strcmp(text, "the last thread was here\n"))
		die("status %x, output '%s'", status, text);
}

/* libc makes each thread change its identity, by a signal: also those it does not know to be ours. */
static void run_setuid(size_t size)
{
	if (geteuid())
		skip("not root");
	pid_t child = SYS(fork());
	if (!child) {
		char *p = filled(size);
		SYS(setgid(65534));
		SYS(setuid(65534));
		check_pages(p, 0, size / PAGE, 1, "after setuid");
		_exit(0);
	}
	expect_child(child, "other identity");
}

/* The same in a child whose runtime is just starting its threads: each waited for the other. */
static void run_setuid_child(size_t size)
{
	if (geteuid())
		skip("not root");
	char *p = filled(size);
	for (unsigned i = 0; i < 8; i++) {
		pid_t child = SYS(fork());
		if (!child) {
			SYS(setgid(65534));
			SYS(setuid(65534));
			check_pages(p, i * 64, i * 64 + 64, 1, "after setuid");
			_exit(0);
		}
		expect_child(child, "other identity");
	}
}

int capset(cap_user_header_t head, const cap_user_data_t data);

static void have_capabilities(uint32_t mask)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = { { .effective = mask, .permitted = mask } };

	SYS(capset(&head, data));
}

/*
 * A thread's capabilities are its own. libc aborts the program where one thread may change its
 * identity and another may not, and ours kept, or lost, what the program's only thread did not.
 */
static void run_setuid_caps(size_t size)
{
	if (geteuid())
		skip("not root");
	pid_t child = SYS(fork());
	if (!child) {
		char *p = filled(size);
		SYS(prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0));
		for (unsigned cap = 0; !prctl(PR_CAPBSET_DROP, cap, 0, 0, 0); cap++)
			;
		SYS(setuid(65534));
		have_capabilities(1u << CAP_SETGID | 1u << CAP_SETUID);
		SYS(setgid(65534));
		have_capabilities(0);
		CHECK(setuid(0) == -1 && errno == EPERM, "root again");
		check_pages(p, 0, size / PAGE, 1, "after setuid");
		_exit(0);
	}
	expect_child(child, "other identity");
	child = SYS(fork());
	if (!child) {
		char *p = filled(size);
		have_capabilities(1u << CAP_SYS_PTRACE);
		CHECK(setuid(65534) == -1 && errno == EPERM, "without the right to");
		check_pages(p, 0, size / PAGE, 1, "without capabilities");
		_exit(0);
	}
	expect_child(child, "same identity");
}

/*
 * Of blocks that were cut while they were far the child gets one half: the other one's end there
 * must not end the child's part in the slot, or the parent writes to it.
 */
static void run_fork_part(size_t size)
{
	char *p = filled(size), c;
	size_t at, first = (BLOCK - (uintptr_t)p % BLOCK) % BLOCK, half = BLOCK / 2;
	int go[2];

	for (at = first; at + BLOCK <= size; at += BLOCK)
		SYS(madvise(p + at, half, MADV_DONTFORK));
	SYS(pipe(go));
	pid_t child = SYS(fork());
	if (!child) {
		SYS(read(go[0], &c, 1));
		for (at = first; at + BLOCK <= size; at += BLOCK)
			check_pages(p, (at + half) / PAGE, (at + BLOCK) / PAGE, 1, "child");
		_exit(0);
	}
	fill_pages(p, 0, size / PAGE, 2);
	check_pages(p, 0, size / PAGE, 2, "parent");
	SYS(write(go[1], "x", 1));
	expect_child(child, "child");
	check_pages(p, 0, size / PAGE, 2, "parent, after the child");
}

/*
 * The parent writes while the child still shares: MOVE of a huge page that was split meets
 * a shared page, and had moved one page more than it said, which then was lost.
 */
static void run_write_after_fork(size_t size)
{
	size_t n = size / PAGE;

	for (unsigned round = 0; round < 6; round++) {
		char *p = filled(size), c;
		int go[2];
		SYS(pipe(go));
		pid_t child = SYS(fork());
		if (!child) {
			SYS(read(go[0], &c, 1));
			_exit(0);
		}
		fill_pages(p, 0, n, 2);
		SYS(write(go[1], "x", 1));
		expect_child(child, "child");
		check_pages(p, 0, n, 2, "parent");
		SYS(munmap(p, size));
		close(go[0]);
		close(go[1]);
	}
}

struct cutter {
	char *p;
	size_t size;
	volatile bool stop;
};

/* Makes a page here and there read-only and writable again: mappings are cut and joined. */
static void *cut_and_join(void *arg)
{
	struct cutter *c = arg;
	unsigned x = 1;

	while (!c->stop) {
		x = x * 1664525u + 1013904223u;
		char *page = c->p + (x >> 8) % (c->size / PAGE) * PAGE;
		SYS(mprotect(page, PAGE, PROT_READ));
		SYS(mprotect(page, PAGE, PROT_READ | PROT_WRITE));
	}
	return NULL;
}

/*
 * Read-only parts leave by copy and madvise, which is reported anew where a mapping is cut
 * meanwhile: that passed for a discard by the program, and the block was zeros.
 */
static void run_protect_cuts(size_t size)
{
	struct cutter c = { block_aligned(size / 2), size / 2, false };
	char *other = map_anon(size / 2);
	size_t n = size / 2 / PAGE;
	pthread_t thread;

	fill_pages(c.p, 0, n, 1);
	fill_pages(other, 0, n, 1);
	/* It stays read-only for long, so that all of its block leaves by copy. */
	for (size_t i = 7; i < n; i += BLOCK / PAGE)
		SYS(mprotect(c.p + i * PAGE, PAGE, PROT_READ));
	pthread_create(&thread, NULL, cut_and_join, &c);
	for (time_t end = time(NULL) + seconds(); time_left(end);) {
		check_pages(c.p, 0, n, 1, "cut and joined");
		check_pages(other, 0, n, 1, "other memory");
	}
	c.stop = true;
	pthread_join(thread, NULL);
}

/* Percent of what is in memory of [p, p + size) that is in huge pages. */
static unsigned huge_share(const char *p, size_t size)
{
	FILE *f = fopen("/proc/self/smaps", "r");
	unsigned long start, end, kib, rss = 0, huge = 0;
	int inside = 0;
	char line[512];

	if (!f)
		die("/proc/self/smaps");
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			inside = start < (uintptr_t)p + size && end > (uintptr_t)p;
		else if (inside && sscanf(line, "Rss: %lu", &kib) == 1)
			rss += kib;
		else if (inside && sscanf(line, "AnonHugePages: %lu", &kib) == 1)
			huge += kib;
	}
	fclose(f);
	return rss ? (unsigned)(huge * 100 / rss) : 0;
}

/*
 * A huge page that is moved to where a page table is gets split, and leaves a page table behind: one
 * that was split in any way split all others in time.
 */
static void run_stays_huge(size_t size)
{
	char *p = block_aligned(size / 2), *other = map_anon(4 * BLOCK);
	unsigned x = 1;

	SYS(madvise(p, size / 2, MADV_HUGEPAGE));
	fill_pages(p, 0, size / 2 / PAGE, 1);
	if (huge_share(p, size / 2) < 50) {
		printf("the kernel has no huge pages for us\n");
		exit(77);
	}
	/* By itself the kernel leaves split what mprotect has split, and mending takes its time. */
	bool tiered = watched();
	time_t whole_again = time(NULL) + seconds(), end = whole_again + 2 * seconds();
	while (time_left(end) || (tiered && time_left(end + 10 * seconds()) && huge_share(p, size / 2) < 30)) {
		x = x * 1664525u + 1013904223u;
		size_t i = (x >> 8) % (size / 2 / PAGE);
		if (time_left(whole_again) && (x >> 4) % 512 == 0) {
			SYS(mprotect(p + i * PAGE, PAGE, PROT_READ));
			SYS(mprotect(p + i * PAGE, PAGE, PROT_READ | PROT_WRITE));
		}
		*(volatile char *)other = 1;
		SYS(madvise(other, 4 * BLOCK, MADV_DONTNEED));
		/* All of its block, or clusters of it would do. */
		for (size_t k = i / (BLOCK / PAGE) * (BLOCK / PAGE), n = 0; n < BLOCK / PAGE; n += 8)
			check_pages(p, k + n, k + n + 1, 1, "huge");
	}
	if (tiered && huge_share(p, size / 2) < 30)
		die("only %u%% of it is in huge pages", huge_share(p, size / 2));
}

static sigjmp_buf back;
static volatile sig_atomic_t armed;

static void jump_back(int sig)
{
	(void)sig;
	if (!armed)
		return;
	armed = 0;
	siglongjmp(back, 1);
}

/* Where the stack frames were that were left. */
__attribute__((noinline)) static size_t overwritten(void)
{
	volatile char area[4096];
	size_t n = 0;

	for (size_t i = 0; i < sizeof(area); i++)
		area[i] = 7;
	usleep(50);
	for (size_t i = 0; i < sizeof(area); i++)
		n += area[i] != 7;
	return n;
}

/* A handler jumps out of a mmap that the runtime had been asked about: it answered to that stack. */
static void run_jump_out(size_t size)
{
	struct itimerval often = { { 0, 137 }, { 0, 137 } }, never = { 0 };
	char *p = filled(size), *volatile q;
	volatile unsigned jumps = 0;

	signal(SIGALRM, jump_back);
	SYS(setitimer(ITIMER_REAL, &often, NULL));
	for (volatile time_t end = time(NULL) + seconds(); time_left(end);) {
		q = NULL;
		if (!sigsetjmp(back, 1)) {
			armed = 1;
			q = mmap(NULL, 2 * BLOCK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
				 0);
			armed = 0;
		} else {
			jumps++;
			if (overwritten())
				die("the stack was written to");
		}
		if (q)
			SYS(munmap(q, 2 * BLOCK));
	}
	SYS(setitimer(ITIMER_REAL, &never, NULL));
	if (!jumps)
		skip("no signal came in time");
	check_pages(p, 0, size / PAGE, 1, "after");
}

static volatile bool old_kernel;

/* Is [start, end) in one mapping? By whatever thread, without libc's buffers. */
static bool in_one_mapping(uintptr_t start, uintptr_t end)
{
	char buf[4096];
	uintptr_t v = 0, from = 0;
	int field = 0, fd = SYS(open("/proc/self/maps", O_RDONLY | O_CLOEXEC));
	bool found = false;
	ssize_t n;

	while ((n = read(fd, buf, sizeof(buf))) > 0)
		for (ssize_t i = 0; i < n; i++) {
			char c = buf[i];
			if (c == '\n') {
				field = 0;
				v = 0;
			} else if (field == 0 && c == '-') {
				from = v;
				field = 1;
				v = 0;
			} else if (field == 1 && c == ' ') {
				found |= from <= start && end <= v;
				field = 2;
			} else if (field < 2) {
				v = v << 4 | (uintptr_t)(c <= '9' ? c - '0' : c - 'a' + 10);
			}
		}
	close(fd);
	return found;
}

/* The runtime's, too. Kernels before 6.6 protect within one mapping. */
int ioctl(int fd, unsigned long request, ...)
{
	va_list ap;

	va_start(ap, request);
	void *arg = va_arg(ap, void *);
	va_end(ap);
	const struct uffdio_range *r = arg;
	if (old_kernel && request == UFFDIO_WRITEPROTECT &&
	    !in_one_mapping(r->start, r->start + r->len)) {
		errno = ENOENT;
		return -1;
	}
	return (int)syscall(SYS_ioctl, fd, request, arg);
}

/* Advice to a part of a block cuts its mapping; who then wrote to it waited for ever. */
static void run_protect_parts(size_t size)
{
	char *p = block_aligned(size);
	const size_t n = BLOCK / PAGE;

	old_kernel = true;
	fill_pages(p, 0, size / PAGE, 1);
	check_pages(p, 0, size / PAGE, 1, "before");
	for (size_t at = BLOCK / 2; at < size; at += BLOCK)
		SYS(madvise(p + at, 16 * PAGE, MADV_NOHUGEPAGE));
	/* First what was read last, and so is there. */
	for (size_t i = size / PAGE; i; i -= n)
		fill_pages(p, i - n, i, 2);
	for (int round = 0; round < 2; round++)
		check_pages(p, 0, size / PAGE, 2, "written");
}

static const struct row rows[] = {
	{ "signal-write", run_signal_write, true },
	{ "discard-edges", run_discard_edges, true },
	{ "fork-often", run_fork_often, false },
	{ "fork-growing", run_fork_growing, false },
	{ "free-released", run_free_released, false },
	{ "last-thread", run_last_thread, false },
	{ "setuid", run_setuid, false },
	{ "setuid-child", run_setuid_child, false },
	{ "setuid-caps", run_setuid_caps, false },
	{ "write-after-fork", run_write_after_fork, true },
	{ "fork-part", run_fork_part, true },
	{ "protect-cuts", run_protect_cuts, true },
	{ "stays-huge", run_stays_huge, true },
	{ "jump-out", run_jump_out, true },
	{ "protect-parts", run_protect_parts, true },
};

ROWS_MAIN(rows)
