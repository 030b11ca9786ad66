/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fork and what follows it: both sides keep private copies of memory that was
 * cold at that time, and new programs start as ever. See rows.h.
 */
#include "rows.h"

#include <pthread.h>
#include <pty.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>

extern char **environ;

/* In the child: reads what was there, then writes half of it and reads all again. */
static void use_privately(char *p, size_t n, unsigned version, const char *who)
{
	check_pages(p, 0, n, 1, who);
	fill_pages(p, 0, n / 2, version);
	check_pages(p, 0, n / 2, version, who);
	check_pages(p, n / 2, n, 1, who);
}

/* Both at the same time, so that each side's copies are made under the other's eyes. */
static void both_sides(pid_t (*fork_fn)(void), size_t size)
{
	size_t n = size / PAGE;
	char *p = filled(size);
	pid_t pid = SYS(fork_fn());

	if (!pid) {
		use_privately(p, n, 2, "child");
		_exit(0);
	}
	use_privately(p, n, 3, "parent");
	expect_child(pid, "child");
	check_pages(p, 0, n / 2, 3, "parent after child");
	check_pages(p, n / 2, n, 1, "parent after child");
}

static void row_fork(size_t size)
{
	both_sides(fork, size);
}

/* Past every symbol of libc that could be interposed. */
static pid_t raw_fork(void)
{
	return (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
}

static void row_fork_raw(size_t size)
{
	both_sides(raw_fork, size);
}

/* Without fork handlers. */
static void row_fork_plain(size_t size)
{
	both_sides(_Fork, size);
}

struct shared {
	char *p;
	size_t n;
};

/* In the parent's memory. No libc that would use the thread's data. */
static int use_shared(void *arg)
{
	struct shared *s = arg;

	for (size_t i = 0; i < s->n; i++)
		if (*(uint64_t *)(s->p + i * PAGE) != i)
			return 1;
	for (size_t i = 0; i < s->n / 2; i++)
		page_fill(s->p + i * PAGE, i, 2, SEED);
	return 0;
}

/* A process that shares the memory, far pages and all, with its parent. */
static void row_clone_vm(size_t size)
{
	static char stack[256 << 10] __attribute__((aligned(64)));
	struct shared s = {filled(size / 2), size / 2 / PAGE};

	chill(size / 2);
	pid_t pid = SYS(clone(use_shared, stack + sizeof(stack), CLONE_VM | SIGCHLD, &s));
	expect_child(pid, "child");
	check_pages(s.p, 0, s.n / 2, 2, "after the child");
	check_pages(s.p, s.n / 2, s.n, 1, "after the child");
}

/* Calls fork inside libc. */
static pid_t fork_by_forkpty(void)
{
	int fd;

	return forkpty(&fd, NULL, NULL, NULL);
}

static void row_forkpty(size_t size)
{
	both_sides(fork_by_forkpty, size);
}

/* Only one side does something; the other keeps everything. */
static void row_fork_child_writes(size_t size)
{
	size_t n = size / PAGE;
	char *p = filled(size);
	pid_t pid = SYS(fork());

	if (!pid) {
		fill_pages(p, 0, n, 2);
		check_pages(p, 0, n, 2, "child");
		_exit(0);
	}
	expect_child(pid, "child");
	check_pages(p, 0, n, 1, "parent");
}

static void row_fork_parent_writes(size_t size)
{
	size_t n = size / PAGE;
	char *p = filled(size), c;
	int go[2];

	SYS(pipe(go));
	pid_t pid = SYS(fork());
	if (!pid) {
		CHECK(read(go[0], &c, 1) == 1, "pipe");
		check_pages(p, 0, n, 1, "child");
		_exit(0);
	}
	fill_pages(p, 0, n, 2);
	CHECK(write(go[1], "x", 1) == 1, "pipe");
	expect_child(pid, "child");
	check_pages(p, 0, n, 2, "parent");
}

static void row_grandchild(size_t size)
{
	size_t n = size / PAGE;
	char *p = filled(size);
	pid_t pid = SYS(fork());

	if (!pid) {
		fill_pages(p, 0, n / 4, 2);
		pid_t pid2 = SYS(fork());
		if (!pid2) {
			check_pages(p, 0, n / 4, 2, "grandchild");
			check_pages(p, n / 4, n, 1, "grandchild");
			fill_pages(p, n / 2, n, 3);
			check_pages(p, n / 2, n, 3, "grandchild");
			_exit(0);
		}
		fill_pages(p, n / 4, n / 2, 4);
		expect_child(pid2, "grandchild");
		check_pages(p, 0, n / 4, 2, "child");
		check_pages(p, n / 4, n / 2, 4, "child");
		check_pages(p, n / 2, n, 1, "child");
		_exit(0);
	}
	expect_child(pid, "child");
	check_pages(p, 0, n, 1, "parent");
}

/* The parent is gone when the grandchild looks at its memory. */
static void row_orphan(size_t size)
{
	size_t n = size / PAGE;
	char *p = filled(size), c = 0;
	int up[2], gone[2];

	SYS(pipe(up));
	SYS(pipe(gone));
	pid_t pid = SYS(fork());
	if (!pid) {
		pid_t pid2 = SYS(fork());
		if (!pid2) {
			close(gone[1]);
			/* Ends when the last writer, the middle process, is gone. */
			CHECK(read(gone[0], &c, 1) == 0, "pipe");
			use_privately(p, n, 2, "orphan");
			CHECK(write(up[1], "k", 1) == 1, "pipe");
			_exit(0);
		}
		fill_pages(p, 0, n, 3);
		_exit(0);
	}
	close(gone[1]);
	close(up[1]);
	expect_child(pid, "child");
	fill_pages(p, 0, n, 4);
	CHECK(read(up[0], &c, 1) == 1 && c == 'k', "the orphan did not get through");
	check_pages(p, 0, n, 4, "parent");
}

/* A program that puts itself into the background lives on in a child that libc forked. */
static void row_daemon(size_t size)
{
	size_t n = size / PAGE;
	char *p = filled(size), c = 0;
	int up[2];

	SYS(pipe(up));
	pid_t pid = SYS(fork());
	if (!pid) {
		SYS(daemon(0, 1));
		use_privately(p, n, 2, "daemon");
		CHECK(write(up[1], "k", 1) == 1, "pipe");
		_exit(0);
	}
	close(up[1]);
	expect_child(pid, "child");
	CHECK(read(up[0], &c, 1) == 1 && c == 'k', "the daemon did not get through");
	check_pages(p, 0, n, 1, "parent");
}

static void row_many_children(size_t size)
{
	enum { N = 12 };
	size_t n = size / PAGE;
	char *p = filled(size);
	pid_t pid[N];

	for (unsigned i = 0; i < N; i++) {
		pid[i] = SYS(fork());
		if (!pid[i]) {
			/* Each another part; together they see all of it. */
			check_pages(p, n * i / N, n * (i + 1) / N, 1, "child");
			fill_pages(p, n * i / N, n * (i + 1) / N, 2);
			check_pages(p, n * i / N, n * (i + 1) / N, 2, "child");
			_exit(0);
		}
	}
	for (unsigned i = 0; i < N; i++)
		expect_child(pid[i], "child");
	check_pages(p, 0, n, 1, "parent");
}

/* The same again and again: what a fork costs must be given back. */
static void row_fork_again(size_t size)
{
	size_t n = size / PAGE;
	char *p = filled(size);

	for (unsigned i = 0; i < 30; i++) {
		pid_t pid = SYS(fork());

		if (!pid) {
			check_pages(p, n * i / 30, n * (i + 1) / 30, 1, "child");
			_exit(0);
		}
		expect_child(pid, "child");
	}
	check_pages(p, 0, n, 1, "parent");
}

/* The child unmaps, drops and allocates; the parent doesn't notice. */
static void row_child_unmaps(size_t size)
{
	size_t n = size / PAGE, half = size / 2;
	char *p = filled(size);
	pid_t pid = SYS(fork());

	if (!pid) {
		SYS(munmap(p, half));
		SYS(madvise(p + half, half / 2, MADV_DONTNEED));
		check_zeros(p + half, 0, n / 4, "child after MADV_DONTNEED");
		check_pages(p, n / 2 + n / 4, n, 1, "child");
		char *q = malloc(half);
		CHECK(q, "malloc in the child");
		for (size_t i = 0; i < half / PAGE; i++)
			page_fill(q + i * PAGE, i, 5, SEED);
		check_pages(q, 0, half / PAGE, 5, "the child's own");
		free(q);
		_exit(0);
	}
	expect_child(pid, "child");
	check_pages(p, 0, n, 1, "parent");
}

struct toucher {
	char *p;
	size_t first, end;
	atomic_bool *stop;
	unsigned long rounds;
};

static void *touch(void *arg)
{
	struct toucher *t = arg;

	do {
		check_pages(t->p, t->first, t->end, 1, "thread");
		t->rounds++;
	} while (!atomic_load(t->stop));
	return NULL;
}

/* fork from one thread while others fault. */
static void row_fork_threads(size_t size)
{
	enum { N = 4 };
	size_t n = size / PAGE;
	char *p = filled(size);
	atomic_bool stop = false;
	struct toucher t[N];
	pthread_t id[N];

	for (size_t i = 0; i < N; i++) {
		t[i] = (struct toucher){p, n * i / N, n * (i + 1) / N, &stop, 0};
		CHECK(!pthread_create(&id[i], NULL, touch, &t[i]), "thread");
	}
	for (unsigned i = 0; i < 8; i++) {
		pid_t pid = SYS(fork());

		if (!pid) {
			check_pages(p, n * i / 8, n * (i + 1) / 8, 1, "child");
			fill_pages(p, n * i / 8, n * (i + 1) / 8, 2);
			check_pages(p, n * i / 8, n * (i + 1) / 8, 2, "child");
			char *q = malloc(8u << 20);
			CHECK(q, "malloc in the child of a threaded program");
			memset(q, 1, 8u << 20);
			free(q);
			_exit(0);
		}
		expect_child(pid, "child");
	}
	atomic_store(&stop, true);
	for (size_t i = 0; i < N; i++)
		pthread_join(id[i], NULL);
	check_pages(p, 0, n, 1, "parent");
}

static unsigned handlers;

static void handler(void)
{
	handlers++;
	free(malloc(100000));
}

static void row_atfork(size_t size)
{
	char *p = filled(size);

	CHECK(!pthread_atfork(handler, handler, handler), "pthread_atfork");
	pid_t pid = SYS(fork());
	CHECK(handlers == 2, "%u handlers ran", handlers);
	if (!pid) {
		check_pages(p, 0, size / PAGE, 1, "child");
		_exit(0);
	}
	expect_child(pid, "child");
	check_pages(p, 0, size / PAGE, 1, "parent");
}

static void row_wipeonfork(size_t size)
{
	size_t n = size / PAGE;
	char *p = filled(size);

	SYS(madvise(p, size / 2, MADV_WIPEONFORK));
	SYS(madvise(p + size - size / 4, size / 4, MADV_DONTFORK));
	pid_t pid = SYS(fork());
	if (!pid) {
		check_zeros(p, 0, n / 2, "child after MADV_WIPEONFORK");
		check_pages(p, n / 2, n - n / 4, 1, "child");
		/* Something else may be mapped there by now, but not this. */
		char page[PAGE];
		struct iovec mine = {page, PAGE}, gone = {p + size - PAGE, PAGE};
		CHECK(process_vm_readv(getpid(), &mine, 1, &gone, 1, 0) != PAGE ||
			      memcmp(page, (uint64_t[]){n - 1, 1}, 16),
		      "MADV_DONTFORK memory is there in the child");
		_exit(0);
	}
	expect_child(pid, "child");
	check_pages(p, 0, n, 1, "parent");
}

/* Arguments and environment of a new program lie in cold memory. */
static char **cold_arguments(char *p, size_t size)
{
	static const char *const text[] = {"sh", "-c", "exit $((7 * 5))"};
	char **argv = (char **)p;

	for (size_t i = 0; i < 3; i++) {
		argv[i] = strcpy(p + (i + 1) * (size / 4), text[i]);
	}
	argv[3] = NULL;
	chill(size);
	return argv;
}

static void expect_35(pid_t pid)
{
	int status;

	SYS(waitpid(pid, &status, 0));
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 35, "status %x", (unsigned)status);
}

static void row_fork_exec(size_t size)
{
	char **argv = cold_arguments(filled(size), size);
	pid_t pid = SYS(fork());

	if (!pid) {
		execv("/bin/sh", argv);
		_exit(1);
	}
	expect_35(pid);
}

static void row_vfork(size_t size)
{
	char *p = filled(size), **argv = cold_arguments(p, size);
	pid_t pid = SYS(vfork());

	if (!pid) {
		execv("/bin/sh", argv);
		_exit(1);
	}
	expect_35(pid);
	/* Skips the head page, which the arguments are in. */
	check_pages(p, 1, size / 4 / PAGE, 1, "after vfork");
}

static void row_posix_spawn(size_t size)
{
	char *p = filled(size), **argv = cold_arguments(p, size);
	pid_t pid;
	int rc = posix_spawn(&pid, "/bin/sh", NULL, NULL, argv, environ);

	CHECK(!rc, "posix_spawn: %s", strerror(rc));
	expect_35(pid);
	check_pages(p, 1, size / 4 / PAGE, 1, "after posix_spawn");
}

static void row_system(size_t size)
{
	char *p = filled(size);

	for (unsigned i = 0; i < 10; i++) {
		int status = system("exit 35");
		CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 35, "status %x", (unsigned)status);
	}
	check_pages(p, 0, size / PAGE, 1, "after system");
}

static void row_popen(size_t size)
{
	char *p = filled(size), *back = filled(size / 4);
	FILE *f = popen("cat >/dev/null; exit 35", "w");

	CHECK(f && fwrite(p, 1, size, f) == size, "write to a pipe");
	int status = pclose(f);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 35, "status %x", (unsigned)status);
	f = popen("head -c 4194304 /dev/zero; exit 35", "r");
	CHECK(f && fread(back, 1, 4u << 20, f) == 4u << 20, "read from a pipe");
	status = pclose(f);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 35, "status %x", (unsigned)status);
	check_zeros(back, 0, (4u << 20) / PAGE, "from a pipe");
	check_pages(back, (4u << 20) / PAGE, size / 4 / PAGE, 1, "after popen");
	check_pages(p, 0, size / PAGE, 1, "after popen");
}

/* A new program starts with no descriptor of the runtime's and with no signal blocked. */
static void row_exec_clean(size_t size)
{
	char *p = filled(size), line[512] = "";
	unsigned long mask = 1;

	check_pages(p, 0, size / PAGE, 1, "before exec");
	FILE *f = popen("LD_PRELOAD= ls -l /proc/self/fd | LD_PRELOAD= grep -E "
			"' ([3-9]|[0-9]{2,}) -> .*(userfaultfd|io_uring|memfd|emfatier|socket:|deleted)'",
			"r");
	CHECK(f && !fgets(line, sizeof(line), f), "a new program has %s", line);
	pclose(f);
	f = popen("LD_PRELOAD= grep SigBlk /proc/self/status", "r");
	CHECK(f && fscanf(f, "SigBlk: %lx", &mask) == 1 && mask == 0, "signal mask %lx", mask);
	pclose(f);
}

/* This program replaced by another while its memory is far and threads fault. */
static void row_exec_self(size_t size)
{
	char *p = filled(size), bytes[32];
	atomic_bool stop = false;
	struct toucher t = {p, 0, size / PAGE, &stop, 0};
	pthread_t id;

	CHECK(!pthread_create(&id, NULL, touch, &t), "thread");
	chill(size);
	snprintf(bytes, sizeof(bytes), "%zuK", size >> 10);
	execl("/proc/self/exe", "processes", "fork", bytes, NULL);
	die("exec: %s", strerror(errno));
}

/*
 * Not dumpable: its /proc/self is root's. Another user's program then goes unmanaged if it
 * was before the start, which must not harm it.
 */
static void row_undumpable(size_t size)
{
	SYS(prctl(PR_SET_DUMPABLE, 0));
	char *p = filled(size);
	chill(size);
	check_pages(p, 0, size / PAGE, 1, "not dumpable");
	/* Holes, swapped pages and full ones are told apart by what the kernel says of them. */
	SYS(madvise(p, size / 2, MADV_DONTNEED));
	chill(size);
	check_zeros(p, 0, size / 2 / PAGE, "not dumpable");
	check_pages(p, size / 2 / PAGE, size / PAGE, 1, "not dumpable");
}

static void row_undumpable_later(size_t size)
{
	char *p = filled(size);

	chill(size);
	row_undumpable(size);
	check_pages(p, 0, size / PAGE, 1, "not dumpable");
	SYS(prctl(PR_SET_DUMPABLE, 1)); /* for tierstat */
}

/*
 * A child that gives up its rights at once: libc makes all threads do so, by a signal to each,
 * while the runtime's are just being made.
 */
static void row_fork_setuid(size_t size)
{
	char *p = filled(size);

	if (geteuid())
		skip("not root");
	for (unsigned i = 0; i < 8; i++) {
		pid_t pid = SYS(fork());

		if (!pid) {
			SYS(setgid(65534));
			SYS(setuid(65534));
			CHECK(setuid(0), "still root");
			use_privately(p, size / PAGE / 8, 2, "child");
			_exit(0);
		}
		expect_child(pid, "child");
	}
	check_pages(p, 0, size / PAGE, 1, "parent");
}

static const struct row rows[] = {
	{"fork", row_fork, true},
	{"fork-raw", row_fork_raw, true},
	{"fork-plain", row_fork_plain, true},
	{"clone-vm", row_clone_vm, true},
	{"forkpty", row_forkpty, true},
	{"fork-child-writes", row_fork_child_writes, true},
	{"fork-parent-writes", row_fork_parent_writes, true},
	{"grandchild", row_grandchild, true},
	{"orphan", row_orphan, true},
	{"daemon", row_daemon, true},
	{"many-children", row_many_children, true},
	{"fork-again", row_fork_again, true},
	{"child-unmaps", row_child_unmaps, true},
	{"fork-threads", row_fork_threads, true},
	{"atfork", row_atfork, true},
	{"wipeonfork", row_wipeonfork, false},
	{"fork-exec", row_fork_exec, true},
	{"vfork", row_vfork, true},
	{"posix-spawn", row_posix_spawn, true},
	{"system", row_system, true},
	{"popen", row_popen, true},
	{"exec-clean", row_exec_clean, true},
	{"exec-self", row_exec_self, true},
	{"fork-setuid", row_fork_setuid, true},
	{"undumpable", row_undumpable, true},
	{"undumpable-later", row_undumpable_later, true},
};

ROWS_MAIN(rows)
