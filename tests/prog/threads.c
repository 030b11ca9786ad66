/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Threads, signals, descriptors and limits of a program whose memory is cold.
 * See rows.h.
 */
#include "rows.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>

struct part {
	char *p;
	size_t first, end;
	unsigned version;
	bool write;
};

static void *use_part(void *arg)
{
	struct part *t = arg;

	check_pages(t->p, t->first, t->end, t->version, "thread");
	if (t->write)
		fill_pages(t->p, t->first, t->end, t->version + 1);
	return NULL;
}

/* 200 at a time, five times: each thread has its own part of the memory. */
static void row_many(size_t size)
{
	enum { N = 200 };
	size_t n = size / PAGE;
	char *p = filled(size);
	struct part part[N];
	pthread_t t[N];

	for (unsigned round = 1; round <= 5; round++) {
		for (size_t i = 0; i < N; i++) {
			part[i] = (struct part){p, n * i / N, n * (i + 1) / N, round, true};
			CHECK(!pthread_create(&t[i], NULL, use_part, &part[i]), "thread %zu", i);
		}
		for (size_t i = 0; i < N; i++)
			pthread_join(t[i], NULL);
	}
	check_pages(p, 0, n, 6, "after all");
}

static pthread_barrier_t barrier;

static void *use_together(void *arg)
{
	struct part *t = arg;

	for (size_t i = t->first; i < t->end; i += 509) {
		pthread_barrier_wait(&barrier);
		page_check(t->p + i * PAGE, i, t->version, SEED, "all at once");
	}
	return NULL;
}

/* Several threads touch the same cold page in the same moment. */
static void row_same_page(size_t size)
{
	enum { N = 8 };
	char *p = filled(size);
	struct part part = {p, 0, size / PAGE, 1, false};
	pthread_t t[N];

	chill(size);
	pthread_barrier_init(&barrier, NULL, N);
	for (size_t i = 0; i < N; i++)
		CHECK(!pthread_create(&t[i], NULL, use_together, &part), "thread");
	for (size_t i = 0; i < N; i++)
		pthread_join(t[i], NULL);
}

/* Neighbouring words of a page, written by several threads: no write may get lost. */
static void *count_up(void *arg)
{
	struct part *t = arg;

	for (unsigned round = 0; round < 3; round++)
		for (size_t i = 0; i < t->end; i++)
			((uint64_t *)(t->p + i * PAGE))[t->first]++;
	return NULL;
}

static void row_lost_writes(size_t size)
{
	enum { N = 4 };
	size_t n = size / PAGE;
	char *p = map_anon(size);
	struct part part[N];
	pthread_t t[N];

	for (size_t i = 0; i < N; i++) {
		part[i] = (struct part){p, i * 100, n, 0, true};
		CHECK(!pthread_create(&t[i], NULL, count_up, &part[i]), "thread");
	}
	for (size_t i = 0; i < N; i++)
		pthread_join(t[i], NULL);
	for (size_t i = 0; i < n; i++)
		for (size_t k = 0; k < N; k++)
			CHECK(((uint64_t *)(p + i * PAGE))[k * 100] == 3, "page %zu, thread %zu: %lu of 3", i,
			      k, (unsigned long)((uint64_t *)(p + i * PAGE))[k * 100]);
}

static volatile sig_atomic_t alarms;
static char *alarm_memory;
static size_t alarm_pages;

/* One signal, after a while: a timer that repeats could leave a slow machine no time between. */
static void alarm_soon(void)
{
	struct itimerval soon = {{0, 0}, {0, 500}};

	setitimer(ITIMER_REAL, &soon, NULL);
}

/* The handler touches cold memory itself. */
static void on_alarm(int sig)
{
	size_t i = mix((uint64_t)alarms) % alarm_pages;
	int saved = errno;

	(void)sig;
	page_check(alarm_memory + i * PAGE, i, 1, SEED, "in a signal handler");
	alarms++;
	alarm_soon();
	errno = saved;
}

static void row_alarms(size_t size)
{
	struct sigaction sa = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
	struct itimerval never = {{0, 0}, {0, 0}};

	alarm_memory = filled(size);
	alarm_pages = size / PAGE;
	SYS(sigaction(SIGALRM, &sa, NULL));
	alarm_soon();
	char *p = filled(size);
	while (alarms < 200)
		check_pages(p, 0, size / PAGE, 1, "under alarms");
	SYS(setitimer(ITIMER_REAL, &never, NULL));
	check_pages(alarm_memory, 0, size / PAGE, 1, "the handler's memory");
	munmap(alarm_memory, size);
}

static char *guard;
static volatile sig_atomic_t segvs;
static char *alt_stack;

/* Makes the guarded page usable, as garbage collectors with write barriers do. */
static void on_segv(int sig, siginfo_t *info, void *context)
{
	char here, *at = info->si_addr;

	(void)sig;
	(void)context;
	CHECK(&here > alt_stack && &here < alt_stack + 65536, "not on the alternate stack");
	CHECK(info->si_code == SEGV_ACCERR, "si_code %d", info->si_code);
	segvs++;
	mprotect((void *)((uintptr_t)at & ~(PAGE - 1)), PAGE, PROT_READ | PROT_WRITE);
}

static void row_segv_handler(size_t size)
{
	struct sigaction sa = {.sa_sigaction = on_segv, .sa_flags = SA_SIGINFO | SA_ONSTACK};
	size_t n = size / PAGE;
	char *p = filled(size);

	alt_stack = map_anon(65536);
	stack_t ss = {.ss_sp = alt_stack, .ss_size = 65536};
	SYS(sigaltstack(&ss, NULL));
	SYS(sigaction(SIGSEGV, &sa, NULL));
	guard = p + 100 * PAGE;
	for (unsigned round = 0; round < 3; round++) {
		SYS(mprotect(guard, 64 * PAGE, PROT_READ));
		fill_pages(p, 100, 164, 1);
		chill(size);
	}
	CHECK(segvs == 3 * 64, "%d faults of the program's own", (int)segvs);
	check_pages(p, 0, n, 1, "after them");
	/* The handler is the program's: what it installed is what it is told. */
	struct sigaction old;
	SYS(sigaction(SIGSEGV, NULL, &old));
	CHECK(old.sa_sigaction == on_segv, "another handler is installed");
}

/* As daemons do at start; some do it once more later. */
static void use_after_close(char *p, size_t size, const char *what)
{
	size_t n = size / PAGE;

	check_pages(p, 0, n, 1, what);
	fill_pages(p, 0, n, 2);
	chill(size);
	check_pages(p, 0, n, 2, what);
}

static void row_closefrom(size_t size)
{
	char *p = filled(size);

	closefrom(3);
	use_after_close(p, size, "after closefrom");
}

static void row_close_range(size_t size)
{
	char *p = filled(size);

	if (close_range(3, ~0u, 0))
		skip("no close_range");
	use_after_close(p, size, "after close_range");
}

static void row_close_range_raw(size_t size)
{
	char *p = filled(size);

	if (syscall(SYS_close_range, 3, ~0u, 0))
		skip("no close_range");
	use_after_close(p, size, "after close_range");
}

static void row_close_all(size_t size)
{
	char *p = filled(size);

	for (int fd = 3; fd < 1024; fd++)
		close(fd);
	use_after_close(p, size, "after close");
	/* The numbers belong to the program. */
	int fd = SYS(open("/dev/null", O_RDWR));
	CHECK(fd == 3, "the lowest free descriptor is %d", fd);
	close(fd);
}

/* Closes what it finds open, as bash, python and systemd's helpers do. */
static void row_close_listed(size_t size)
{
	char *p = filled(size);
	DIR *d = opendir("/proc/self/fd");
	int list[256], n = 0;
	struct dirent *e;

	CHECK(d, "opendir: %s", strerror(errno));
	while ((e = readdir(d)) && n < 256) {
		int fd = atoi(e->d_name);
		if (fd > 2 && fd != dirfd(d))
			list[n++] = fd;
	}
	closedir(d);
	while (n)
		close(list[--n]);
	use_after_close(p, size, "after close");
}

static void row_dup2_over(size_t size)
{
	char *p = filled(size);
	int fd = SYS(open("/dev/null", O_RDWR));

	for (int i = 3; i < 64; i++)
		if (i != fd)
			SYS(dup2(fd, i));
	use_after_close(p, size, "after dup2");
}

static void row_limits(size_t size)
{
	static const struct {
		int what;
		rlim_t value;
	} limit[] = {
		{RLIMIT_NOFILE, 3}, {RLIMIT_FSIZE, 0}, {RLIMIT_CORE, 0}, {RLIMIT_MEMLOCK, 0},
		{RLIMIT_STACK, 1u << 20},
	};
	struct rlimit old[5];
	size_t n = size / PAGE;
	char *p = filled(size);

	for (unsigned i = 0; i < 5; i++) {
		SYS(getrlimit(limit[i].what, &old[i]));
		struct rlimit now = {limit[i].value, old[i].rlim_max};
		SYS(setrlimit(limit[i].what, &now));
	}
	check_pages(p, 0, n, 1, "under limits");
	fill_pages(p, 0, n, 2);
	chill(size);
	check_pages(p, 0, n, 2, "under limits");
	for (unsigned i = 0; i < 5; i++)
		SYS(setrlimit(limit[i].what, &old[i]));
}

/* No more address space: malloc says so, what is there goes on. */
static void row_address_space(size_t size)
{
	unsigned long pages;
	size_t n = size / PAGE;
	char *p = filled(size);
	FILE *f = fopen("/proc/self/statm", "r");
	struct rlimit old, now;

	CHECK(f && fscanf(f, "%lu", &pages) == 1, "statm");
	fclose(f);
	SYS(getrlimit(RLIMIT_AS, &old));
	now = (struct rlimit){pages * PAGE + (16u << 20), old.rlim_max};
	SYS(setrlimit(RLIMIT_AS, &now));
	errno = 0;
	CHECK(!malloc(512u << 20) && errno == ENOMEM, "malloc: errno %d", errno);
	check_pages(p, 0, n, 1, "under RLIMIT_AS");
	fill_pages(p, 0, n, 2);
	check_pages(p, 0, n, 2, "under RLIMIT_AS");
	SYS(setrlimit(RLIMIT_AS, &old));
}

static void *use_for_ever(void *arg)
{
	struct part *t = arg;

	for (;;)
		check_pages(t->p, t->first, t->end, 1, "thread");
	return NULL;
}

static struct part ever[4];

static void start_for_ever(size_t size, pthread_t *t)
{
	size_t n = size / PAGE;
	char *p = filled(size);

	for (size_t i = 0; i < 4; i++) {
		ever[i] = (struct part){p, n * i / 4, n * (i + 1) / 4, 1, false};
		CHECK(!pthread_create(&t[i], NULL, use_for_ever, &ever[i]), "thread");
	}
	chill(size);
}

/* The program ends while its threads are in the middle of faults. */
static void row_exit(size_t size)
{
	pthread_t t[4];

	start_for_ever(size, t);
	write_stats();
	exit(0);
}

static void *leave(void *arg)
{
	(void)arg;
	write_stats();
	_exit(0);
}

static void row_exit_thread(size_t size)
{
	pthread_t t[4], last;

	start_for_ever(size, t);
	CHECK(!pthread_create(&last, NULL, leave, NULL), "thread");
	for (;;)
		pause();
}

static void row_abort(size_t size)
{
	pid_t pid = SYS(fork());
	int status;

	if (!pid) {
		struct rlimit none = {0, 0};
		pthread_t t[4];

		setrlimit(RLIMIT_CORE, &none);
		start_for_ever(size, t);
		abort();
	}
	SYS(waitpid(pid, &status, 0));
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT, "status %x", (unsigned)status);
}

static void row_cancel(size_t size)
{
	pthread_t t[4];

	start_for_ever(size, t);
	for (size_t i = 0; i < 4; i++)
		pthread_cancel(t[i]);
	/* They have no cancellation point: only that all of this is survived. */
	check_pages(ever[0].p, 0, ever[3].end, 1, "after pthread_cancel");
	write_stats();
	_exit(0);
}

static unsigned deep(char *p, size_t n, unsigned depth)
{
	char page[PAGE];

	page_fill(page, depth, 1, SEED);
	page_check(p + depth % n * PAGE, depth % n, 1, SEED, "deep");
	unsigned below = depth ? deep(p, n, depth - 1) : 0;
	page_check(page, depth, 1, SEED, "stack");
	return below + 1;
}

static void *dive(void *arg)
{
	struct part *t = arg;

	CHECK(deep(t->p, t->end, 7000) == 7001, "depth");
	return NULL;
}

/* Recursion through 28 MiB of stack, larger than a managed region has to be. */
static void row_deep_stack(size_t size)
{
	struct part part = {filled(size), 0, size / PAGE, 1, false};
	pthread_attr_t attr;
	pthread_t t;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 64u << 20);
	CHECK(!pthread_create(&t, &attr, dive, &part), "thread");
	pthread_join(t, NULL);
}

enum { CROWD = 16 };

/* Words that lie across the border of two blocks: one instruction needs four blocks at once. */
static void *across(void *arg)
{
	const struct part *t = arg;
	size_t block = 2u << 20, blocks = t->end;
	unsigned x = (unsigned)t->first + 1;

	for (unsigned i = 0; i < 12; i++) {
		x = x * 1664525u + 1013904223u;
		/* Each thread has borders of its own to write to. */
		char *from = t->p + (1 + (x >> 8) % (blocks - 1)) * block - 4,
		     *to = t->p + (1 + t->first) * block - 4 - (i + 1) * 8;
		if (i % 2)
			to = t->p + (1 + t->first) * block - 4;
#ifdef __x86_64__
		char *s = from, *d = to;
		__asm__ volatile("movsq" : "+S"(s), "+D"(d) : : "memory");
#else
		memmove(to, from, 8);
#endif
	}
	return NULL;
}

/* Many threads at once, with a budget that is less than what they need together. */
static void row_crowd(size_t size)
{
	size_t block = 2u << 20, blocks = size / block;
	char *p = map_anon(size + block);
	struct part part[CROWD];
	pthread_t t[CROWD];

	p = (char *)(((uintptr_t)p + block - 1) & ~(uintptr_t)(block - 1));
	memset(p, 7, size);
	for (size_t i = 0; i < CROWD; i++) {
		part[i] = (struct part){p, i, blocks, 0, true};
		CHECK(!pthread_create(&t[i], NULL, across, &part[i]), "thread");
	}
	for (size_t i = 0; i < CROWD; i++)
		pthread_join(t[i], NULL);
	for (size_t i = 0; i < size; i += PAGE)
		CHECK(p[i] == 7 && p[i + PAGE - 1] == 7, "page %zu", i / PAGE);
}

static void *end_at_once(void *arg)
{
	return arg;
}

static pthread_mutex_t *robust;

static void *die_with_it(void *arg)
{
	pthread_mutex_lock(robust);
	return arg;
}

/*
 * Stacks and mutexes in memory that is cold: what the kernel writes there when a thread ends
 * is not lost, or who joins, or waits for the dead, would wait for ever.
 */
static void row_own_stacks(size_t size)
{
	enum { N = 4, ROUNDS = 300, STACK = 64 << 10 };
	char *p = map_anon((8u << 20) + size), *q = map_anon(8u << 20);
	pthread_mutexattr_t shared;
	pthread_t t[N];

	fill_pages(p, 0, size / PAGE, 1);
	robust = (pthread_mutex_t *)(q + (4u << 20));
	pthread_mutexattr_init(&shared);
	pthread_mutexattr_setrobust(&shared, PTHREAD_MUTEX_ROBUST);
	CHECK(!pthread_mutex_init(robust, &shared), "a robust mutex");
	for (unsigned round = 0; round < ROUNDS; round++) {
		for (size_t i = 0; i < N; i++) {
			pthread_attr_t attr;
			pthread_attr_init(&attr);
			CHECK(!pthread_attr_setstack(&attr, q + i * (2u << 20), STACK), "a stack");
			CHECK(!pthread_create(&t[i], &attr, i ? end_at_once : die_with_it, q), "thread");
			pthread_attr_destroy(&attr);
		}
		for (size_t i = 0; i < N; i++)
			pthread_join(t[i], NULL);
		int rc = pthread_mutex_lock(robust);
		CHECK(rc == EOWNERDEAD && !pthread_mutex_consistent(robust), "mutex: %s", strerror(rc));
		pthread_mutex_unlock(robust);
		check_pages(p, round * 20 % (size / PAGE - 64), round * 20 % (size / PAGE - 64) + 20, 1,
			    "other memory");
	}
	check_pages(p, 0, size / PAGE, 1, "other memory");
}

static const struct row rows[] = {
	{"many", row_many, true},
	{"same-page", row_same_page, true},
	{"lost-writes", row_lost_writes, true},
	{"alarms", row_alarms, true},
	{"segv-handler", row_segv_handler, true},
	{"closefrom", row_closefrom, true},
	{"close-range", row_close_range, true},
	{"close-range-raw", row_close_range_raw, true},
	{"close-all", row_close_all, true},
	{"close-listed", row_close_listed, true},
	{"dup2-over", row_dup2_over, true},
	{"limits", row_limits, true},
	{"address-space", row_address_space, true},
	{"exit", row_exit, true},
	{"exit-thread", row_exit_thread, true},
	{"abort", row_abort, false},
	{"cancel", row_cancel, true},
	{"deep-stack", row_deep_stack, true},
	{"own-stacks", row_own_stacks, true},
	{"crowd", row_crowd, true},
};

ROWS_MAIN(rows)
