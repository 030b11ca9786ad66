/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What other threads, signals and unusual calls do in the moment of a fork, or past libc. A row
 * for each bug that was found there. See rows.h.
 */
#include "rows.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <sys/time.h>

static atomic_bool stop;

static void *fork_on(void *unused)
{
	while (!stop) {
		pid_t pid = SYS(fork());
		if (!pid)
			_exit(0);
		expect_child(pid, "a child of the other thread");
	}
	return unused;
}

static void fork_meanwhile(void (*fn)(char *p, size_t size), size_t size)
{
	char *p = filled(size / 8);
	pthread_t t;

	chill(size);
	CHECK(!pthread_create(&t, NULL, fork_on, NULL), "thread");
	fn(p, size / 8);
	stop = true;
	pthread_join(t, NULL);
	chill(size);
}

static void move_about(char *p, size_t size)
{
	for (int i = 0; i < 30; i++) {
		char *other = SYS(mmap(NULL, size, PROT_NONE,
				       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
		char *to = mremap(p, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, other);
		CHECK(to == other, "mremap: %s", strerror(errno));
		check_pages(to, 0, size / PAGE, 1, "moved while another thread forks");
		p = to;
	}
}

static void row_move(size_t size)
{
	fork_meanwhile(move_about, size);
}

static void discard_again(char *p, size_t size)
{
	for (int i = 0; i < 30; i++) {
		fill_pages(p, 0, size / PAGE, 1);
		SYS(madvise(p, size, MADV_DONTNEED));
		check_zeros(p, 0, size / PAGE, "discarded while another thread forks");
	}
}

static void row_discard(size_t size)
{
	fork_meanwhile(discard_again, size);
}

static void *reuse(void *arg)
{
	size_t size = *(size_t *)arg;

	while (!stop) {
		char *p = filled(size);
		SYS(munmap(p, size));
		/* A reservation, which is left alone, at the same place. */
		char *q = mmap(p, size, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
		CHECK(q != MAP_FAILED, "mmap");
		check_zeros(q, 0, 8, "fresh memory");
		SYS(munmap(q, size));
	}
	return NULL;
}

/* Addresses are given up and used again, for other things, while the process forks. */
static void row_reuse(size_t size)
{
	size_t part = size / 8, n = size / PAGE;
	char *p = filled(size);
	pthread_t t;

	CHECK(!pthread_create(&t, NULL, reuse, &part), "thread");
	for (int i = 0; i < 20; i++) {
		pid_t pid = SYS(fork());
		if (!pid) {
			check_pages(p, (size_t)i % 7, n / 16, 1, "child");
			_exit(0);
		}
		expect_child(pid, "child");
	}
	stop = true;
	pthread_join(t, NULL);
	check_pages(p, 0, n, 1, "parent");
}

static char *signal_memory;
static size_t signal_pages;
static pid_t parent;

static void on_signal(int sig)
{
	int saved = errno;

	(void)sig;
	for (size_t i = 0; getpid() != parent && i < signal_pages; i += 97)
		page_check(signal_memory + i * PAGE, i, 1, SEED, "a signal handler in the child");
	errno = saved;
}

/* A signal to all of the group, which the child gets as soon as it exists. */
static void row_signal(size_t size)
{
	struct sigaction sa = {.sa_handler = on_signal, .sa_flags = SA_RESTART};

	SYS(setpgid(0, 0));
	parent = getpid();
	signal_pages = size / PAGE;
	signal_memory = filled(size);
	SYS(sigaction(SIGUSR1, &sa, NULL));
	for (int i = 0; i < 10; i++) {
		pid_t killer = SYS(vfork());
		if (!killer) {
			execl("/bin/sh", "sh", "-c",
			      "trap '' USR1; i=0; while [ $i -lt 300 ]; do kill -USR1 0; i=$((i + 1)); done",
			      (char *)NULL);
			_exit(127);
		}
		pid_t pid = SYS(fork());
		if (!pid) {
			usleep(3000);
			_exit(0);
		}
		expect_child(pid, "child");
		expect_child(killer, "killer");
	}
}

/* Small mappings all around, of which some lie beside the runtime's own; far is none of them. */
static void row_fork_near(size_t size)
{
	enum { N = 400 };
	char *p[N];

	/* Before it has started. */
	for (size_t i = 0; i < N; i++) {
		p[i] = SYS(mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
		fill_pages(p[i], 0, 3, (unsigned)i);
		if (i % 2)
			SYS(munmap(p[i] + PAGE, PAGE));
	}
	chill(size);
	for (unsigned round = 0; round < 3; round++) {
		for (size_t i = 0; i < N; i++) {
			page_check(p[i], 0, i, SEED, "parent");
			page_check(p[i] + 2 * PAGE, 2, i, SEED, "parent");
		}
		pid_t pid = SYS(fork());
		if (!pid) {
			alarm(30);
			for (size_t i = 0; i < N; i++)
				page_check(p[i], 0, i, SEED, "child");
			_exit(0);
		}
		expect_child(pid, "child");
	}
}

static size_t shared_size;

static int use_all(void *p)
{
	check_pages(p, 0, shared_size / PAGE, 1, "child with the same descriptors");
	_exit(0);
}

/* The child has the parent's descriptor table, in which the parent closes what was for it. */
static void row_clone_files(size_t size)
{
	char *p = filled(size), *stack = malloc(65536);

	shared_size = size;
	pid_t pid = SYS(clone(use_all, stack + 65536, CLONE_FILES | SIGCHLD, p));
	expect_child(pid, "child");
	check_pages(p, 0, size / PAGE, 1, "parent");
}

/* As libraries ask whether the kernel has it. */
static void row_clone3_probe(size_t size)
{
	(void)size;
	CHECK(syscall(SYS_clone3, NULL, 0) == -1, "clone3 without arguments");
	CHECK(errno == EINVAL || errno == ENOSYS || errno == EPERM, "errno %d", errno);
}

/* Secrets stay, also what they grow by, also past libc. */
static void row_kept_grows(size_t size)
{
#ifdef __x86_64__
	size_t small = 2u << 20, n = size / PAGE;
	char *p = SYS(mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));

	SYS(munmap(p, size));
	p = SYS(mmap(p, small, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
	SYS(madvise(p, small, MADV_DONTDUMP));
	fill_pages(p, 0, small / PAGE, 1);
	if (instruction(SYS_mremap, (long)p, (long)small, (long)size, 0, 0) != (long)p)
		skip("cannot grow in place");
	fill_pages(p, 0, n, 1);
	chill(size);
	check_pages(p, 0, n, 1, "secrets that grew");
#else
	(void)size;
	skip("an instruction of another processor");
#endif
}

/* munmap, mremap and madvise by instructions that nobody interposes. */
static void row_instructions(size_t size)
{
#ifdef __x86_64__
	size_t n = size / PAGE, quarter = size / 4;
	char *p = filled(size);

	chill(size);
	CHECK(!instruction(SYS_madvise, (long)p + 5 * (long)PAGE, (long)quarter, MADV_DONTNEED, 0, 0), "madvise");
	check_pages(p, 0, 5, 1, "before the hole");
	check_zeros(p, 5, 5 + n / 4, "discarded");
	check_pages(p, 5 + n / 4, n, 1, "behind the hole");
	chill(size);
	CHECK(!instruction(SYS_munmap, (long)p + 2 * (long)quarter + (long)PAGE, (long)PAGE, 0, 0, 0), "munmap");
	char *end = p + 3 * quarter;
	long to = instruction(SYS_mremap, (long)end, (long)quarter, (long)(2 * quarter), MREMAP_MAYMOVE, 0);
	CHECK(to > 0, "mremap");
	chill(size);
	check_pages(p, 5 + n / 4, n / 2 + 1, 1, "before it");
	check_pages(p, n / 2 + 2, 3 * (n / 4), 1, "behind it");
	for (size_t i = 0; i < n / 4; i++)
		page_check((char *)to + i * PAGE, 3 * (n / 4) + i, 1, SEED, "moved");
	check_zeros((char *)to, n / 4, n / 2, "grown");
#else
	(void)size;
	skip("an instruction of another processor");
#endif
}

#ifdef __x86_64__
static void expect_inherited(char *p, size_t first, size_t n, const char *what)
{
	pid_t pid = SYS(fork());

	if (!pid) {
		check_zeros(p, first, first + n, what);
		fill_pages(p, first, first + n, 2);
		check_pages(p, first, first + n, 2, what);
		_exit(0);
	}
	expect_child(pid, what);
	check_zeros(p, first, first + n, what);
}
#endif

#ifdef __x86_64__
/* Half of size, to a place with room for all of it; its own stays mapped. */
static char *move_by_instruction(char *p, size_t size)
{
	long half = (long)(size / 2);
	char *place = SYS(mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)), *to;

	chill(size);
	to = (char *)instruction(SYS_mremap, (long)p, half, half,
				 MREMAP_MAYMOVE | MREMAP_FIXED | 4 /* DONTUNMAP */, (long)place);
	CHECK(to == place, "mremap: %ld", (long)to);
	return place;
}

static void grow_by_instruction(char *place, size_t size)
{
	size_t half = size / 2;

	SYS(munmap(place + half, half));
	CHECK(instruction(SYS_mremap, (long)place, (long)half, (long)size, 0, 0) == (long)place, "mremap");
}
#endif

/* What mremap by an instruction leaves behind, or grows by, a child inherits, touched or not. */
static void row_instructions_fork(size_t size)
{
#ifdef __x86_64__
	size_t half = size / 2, n = half / PAGE;
	char *p = filled(half), *place;

	place = move_by_instruction(p, size);
	expect_inherited(p, 0, 300, "left behind");
	grow_by_instruction(place, size);
	expect_inherited(place, n, n, "grown by");
	check_pages(place, 0, n, 1, "moved");
	/* By a part that the parent has touched. */
	memset(p + 7 * PAGE, 0, PAGE);
	expect_inherited(p, 0, 300, "left behind, touched");
#else
	(void)size;
	skip("an instruction of another processor");
#endif
}

#ifdef __x86_64__
static void read_page(char *p, size_t i)
{
	char page[PAGE];
	int fds[2];

	SYS(pipe(fds));
	page_fill(page, i, 2, SEED);
	CHECK(SYS(write(fds[1], page, PAGE)) == PAGE, "write");
	CHECK(SYS(read(fds[0], p + i * PAGE, PAGE)) == PAGE, "read");
	close(fds[0]);
	close(fds[1]);
	check_pages(p, i, i + 1, 2, "read");
}
#endif

/* The same, into which a call reads before anybody has touched it. */
static void row_instructions_read(size_t size)
{
#ifdef __x86_64__
	size_t half = size / 2, n = half / PAGE;
	char *p = filled(half), *place;

	place = move_by_instruction(p, size);
	read_page(p, n - 1);
	grow_by_instruction(place, size);
	read_page(place, 2 * n - 1);
	check_zeros(p, 0, n - 1, "left behind");
	check_zeros(place, n, 2 * n - 1, "grown by");
	check_pages(place, 0, n, 1, "moved");
#else
	(void)size;
	skip("an instruction of another processor");
#endif
}

/* The kernel populates inside the call what locked memory grows by. */
static void row_locked_grows(size_t size)
{
#ifdef __x86_64__
	enum { HAD = 8, N = 600 };
	char *p = filled(HAD * PAGE), *q;

	if (mlock(p, HAD * PAGE))
		skip("may not lock memory");
	chill(size);
	q = (char *)instruction(SYS_mremap, (long)p, HAD * (long)PAGE, N * (long)PAGE, MREMAP_MAYMOVE, 0);
	CHECK((uintptr_t)q < (uintptr_t)-4095, "mremap: %ld", (long)q);
	check_pages(q, 0, HAD, 1, "locked");
	check_zeros(q, HAD, N, "grown by");
	fill_pages(q, HAD, N, 2);
	chill(size);
	check_pages(q, HAD, N, 2, "grown by");
	/* It is one mapping still: mremap takes no more than one. */
	p = SYS(mmap(NULL, N * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	p = mremap(q, N * PAGE, N * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, p);
	CHECK(p != MAP_FAILED, "mremap of all of it: %d", errno);
	check_pages(p, 0, HAD, 1, "locked");
	check_pages(p, HAD, N, 2, "grown by");
#else
	(void)size;
	skip("an instruction of another processor");
#endif
}

/*
 * Of each block the first half may not be written, so that it has to be copied, and the second is
 * shared with a child that lives, so that it can't be moved: such blocks came and went without end.
 */
static void row_parts_shared(size_t size)
{
	enum { HALF = 1 << 20 };
	char *p = filled(size), c;
	int ends[2];

	for (char *at = p + (-(uintptr_t)p & (2 * HALF - 1)); at + HALF <= p + size; at += 2 * HALF)
		SYS(mprotect(at, HALF, PROT_READ));
	SYS(pipe(ends));
	pid_t pid = SYS(fork());
	if (!pid) {
		close(ends[1]);
		(void)!read(ends[0], &c, 1);
		check_pages(p, 0, size / PAGE, 1, "the child's");
		_exit(0);
	}
	close(ends[0]);
	for (int i = 0; i < 2; i++)
		check_pages(p, 0, size / PAGE, 1, "the parent's");
	SYS(mprotect(p, size, PROT_READ | PROT_WRITE));
	fill_pages(p, 0, size / PAGE, 2);
	close(ends[1]);
	expect_child(pid, "who shared it");
	check_pages(p, 0, size / PAGE, 2, "written");
}

static const struct row rows[] = {
	{"fork-move", row_move, true},
	{"fork-discard", row_discard, true},
	{"fork-reuse", row_reuse, true},
	{"fork-signal", row_signal, false},
	{"fork-near", row_fork_near, true},
	{"clone-files", row_clone_files, true},
	{"clone3-probe", row_clone3_probe, false},
	{"kept-grows", row_kept_grows, false},
	{"instructions", row_instructions, true},
	{"locked-grows", row_locked_grows, true},
	{"parts-shared", row_parts_shared, true},
	{"instructions-fork", row_instructions_fork, true},
	{"instructions-read", row_instructions_read, true},
};

ROWS_MAIN(rows)
