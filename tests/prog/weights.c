/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Read-only mappings of a file that is named like a model's weights, larger than the budget: what
 * a program sees must be what the kernel's page cache would show it. See rows.h.
 */
#include "rows.h"

#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>

#ifndef MADV_COLD
#define MADV_COLD 20
#define MADV_PAGEOUT 21
#endif

static char path[512];
static sigjmp_buf back;
static volatile sig_atomic_t expecting;

static void on_signal(int sig)
{
	if (!expecting)
		_exit(128 + sig);
	expecting = 0;
	siglongjmp(back, sig);
}

/* The signal that the access raises, 0: none. */
static int touch(volatile char *p, bool write)
{
	int sig = sigsetjmp(back, 1);

	if (!sig) {
		expecting = 1;
		if (write)
			*p = 1;
		else
			(void)*p;
	}
	expecting = 0;
	return sig;
}

static void write_version(int fd, size_t first, size_t end, unsigned version)
{
	char page[PAGE];

	for (size_t i = first; i < end; i++) {
		page_fill(page, i, version, SEED);
		CHECK(pwrite(fd, page, PAGE, (off_t)(i * PAGE)) == PAGE, "pwrite: %s", strerror(errno));
	}
}

/* Pages of version 1, open for reading only. */
static int weights(size_t size)
{
	const char *dir = getenv("TEST_DIR");

	signal(SIGSEGV, on_signal);
	signal(SIGBUS, on_signal);
	snprintf(path, sizeof(path), "%s/weights-XXXXXX.gguf", dir ? dir : "/var/tmp");
	int fd = SYS(mkostemps(path, 5, O_CLOEXEC));
	write_version(fd, 0, size / PAGE, 1);
	SYS(close(fd));
	return SYS(open(path, O_RDONLY | O_CLOEXEC));
}

static char *map(int fd, size_t size, int flags, size_t off)
{
	return SYS(mmap(NULL, size, PROT_READ, flags, fd, (off_t)off));
}

static void finish(void)
{
	unlink(path);
}

static void sweep(size_t size)
{
	int fd = weights(size);

	for (int shared = 0; shared < 2; shared++) {
		char *p = map(fd, size, shared ? MAP_SHARED : MAP_PRIVATE, 0);
		for (int round = 0; round < 3; round++)
			check_pages(p, 0, size / PAGE, 1, "sweep");
		SYS(msync(p, size, MS_SYNC));
		SYS(munmap(p, size));
	}
	finish();
}

/* The descriptor and the name need not outlive the mapping. */
static void closed(size_t size)
{
	int fd = weights(size);
	char *p = map(fd, size, MAP_PRIVATE, 0);

	SYS(close(fd));
	finish();
	for (int i = 3; i < 64; i++)
		close(i);
	for (int round = 0; round < 2; round++)
		check_pages(p, 0, size / PAGE, 1, "closed");
}

static void offset(size_t size)
{
	int fd = weights(size);
	size_t first = 301, n = size / PAGE - first - 77;
	char *p = map(fd, n * PAGE - 100, MAP_SHARED, first * PAGE);

	for (int round = 0; round < 2; round++)
		for (size_t i = 0; i < n; i++)
			page_check(p + i * PAGE, first + i, 1, SEED, "offset");
	finish();
}

/* Zeros after the end of the file in its last page, SIGBUS in the next. */
static void tail(size_t size)
{
	int fd = weights(size);
	size_t last = size / PAGE - 3;
	char want[PAGE];

	SYS(truncate(path, (off_t)(last * PAGE + 1000)));
	page_fill(want, last, 1, SEED);
	memset(want + 1000, 0, PAGE - 1000);
	char *p = map(fd, size, MAP_PRIVATE, 0);
	for (int round = 0; round < 2; round++) {
		check_pages(p, 0, last, 1, "before the tail");
		CHECK(!memcmp(p + last * PAGE, want, PAGE), "the last page");
		CHECK(touch(p + (last + 1) * PAGE, false) == SIGBUS, "beyond the end");
	}
	finish();
}

static void discard_by(size_t size, bool raw)
{
	int fd = weights(size);
	size_t n = size / PAGE;
	char *p = map(fd, size, MAP_PRIVATE, 0);

	check_pages(p, 0, n, 1, "before");
	for (size_t at = 5; at + 700 < n; at += 1900) {
		check_pages(p, at, at + 700, 1, "just before");
		if (raw)
			SYS(syscall(SYS_madvise, p + (at + 3) * PAGE, 600 * PAGE, MADV_DONTNEED));
		else
			SYS(madvise(p + (at + 3) * PAGE, 600 * PAGE, MADV_DONTNEED));
		check_pages(p, at, at + 700, 1, "discarded");
	}
	SYS(madvise(p, size, MADV_DONTNEED));
	check_pages(p, 0, n, 1, "all discarded");
	finish();
}

static void discard(size_t size)
{
	discard_by(size, false);
}

static void discard_raw(size_t size)
{
	discard_by(size, true);
}

static void written(size_t size)
{
	int fd = weights(size), zero = SYS(open("/dev/zero", O_RDONLY));
	size_t n = size / PAGE;
	char *p = map(fd, size, MAP_PRIVATE, 0);

	for (size_t i = 0; i < n; i += 997) {
		if (i % 2)
			check_pages(p, i, i + 1, 1, "before");
		CHECK(touch(p + i * PAGE, true) == SIGSEGV, "a write to page %zu", i);
	}
	CHECK(read(zero, p + 3 * PAGE, 10) < 0 && errno == EFAULT, "read(2) into it");
	for (int round = 0; round < 2; round++)
		check_pages(p, 0, n, 1, "after");
	finish();
}

static void private_write(size_t size)
{
	int fd = weights(size);
	size_t n = size / PAGE, a = n / 4 + 3, b = n / 2 - 5;
	char *p = map(fd, size, MAP_PRIVATE, 0), page[PAGE];

	check_pages(p, 0, n, 1, "before");
	SYS(mprotect(p + a * PAGE, (b - a) * PAGE, PROT_READ | PROT_WRITE));
	fill_pages(p, a, b, 2);
	for (int round = 0; round < 2; round++) {
		check_pages(p, 0, a, 1, "below");
		check_pages(p, a, b, 2, "written");
		check_pages(p, b, n, 1, "above");
	}
	CHECK(pread(fd, page, PAGE, (off_t)(a * PAGE)) == PAGE, "pread");
	page_check(page, a, 1, SEED, "the file");
	SYS(madvise(p + a * PAGE, (b - a) * PAGE, MADV_DONTNEED));
	check_pages(p, 0, n, 1, "given up");
	CHECK(touch(p, true) == SIGSEGV, "a write to the rest");
	finish();
}

static void shared_protect(size_t size)
{
	int fd = weights(size);
	char *p = map(fd, size, MAP_SHARED, 0);

	check_pages(p, 0, size / PAGE, 1, "before");
	CHECK(mprotect(p, size, PROT_READ | PROT_WRITE) && errno == EACCES, "mprotect");
	SYS(mprotect(p, size, PROT_READ));
	check_pages(p, 0, size / PAGE, 1, "after");
	finish();
}

/* Open for writing it is shared memory: what is written must be seen at once. */
static void shared_writable(size_t size)
{
	size_t n = size / PAGE;

	SYS(close(weights(size)));
	int fd = SYS(open(path, O_RDWR | O_CLOEXEC));
	char *p = map(fd, size, MAP_SHARED, 0);
	check_pages(p, 0, n, 1, "before");
	write_version(fd, n / 3, n / 2, 2);
	check_pages(p, n / 3, n / 2, 2, "just written");
	SYS(mprotect(p, PAGE, PROT_READ | PROT_WRITE));
	finish();
}

static void forks(size_t size)
{
	int fd = weights(size);
	size_t n = size / PAGE;
	char *p = map(fd, size, MAP_SHARED, 0);

	check_pages(p, 0, n, 1, "before");
	for (int i = 0; i < 3; i++) {
		pid_t pid = SYS(fork());
		if (!pid) {
			check_pages(p, 0, n, 1, "child");
			CHECK(touch(p + (n - 2) * PAGE, true) == SIGSEGV, "the child writes");
			check_pages(p, 0, n, 1, "child again");
			_exit(0);
		}
		check_pages(p, n / 3, n, 1, "parent");
		expect_child(pid, "child");
	}
	check_pages(p, 0, n, 1, "after");
	finish();
}

/* Of two files the child gets one: with that its own descriptor, and none of the program's is closed. */
static void fork_one(size_t size)
{
	size_t half = size / 2, n = half / PAGE;
	int spare[40], fd = weights(half);
	char *a = map(fd, half, MAP_PRIVATE, 0);

	finish();
	SYS(close(weights(half)));
	fd = SYS(open(path, O_RDWR | O_CLOEXEC));
	write_version(fd, 0, n, 2);
	SYS(close(fd));
	fd = SYS(open(path, O_RDONLY | O_CLOEXEC));
	char *b = map(fd, half, MAP_PRIVATE, 0);
	for (size_t i = 0; i < sizeof(spare) / sizeof(*spare); i++)
		spare[i] = SYS(open("/dev/null", O_RDONLY | O_CLOEXEC));
	check_pages(a, 0, n, 1, "before");
	check_pages(b, 0, n, 2, "before");
	SYS(madvise(a, half, MADV_DONTFORK));
	pid_t pid = SYS(fork());
	if (!pid) {
		check_pages(b, 0, n, 2, "child");
		for (size_t i = 0; i < sizeof(spare) / sizeof(*spare); i++)
			CHECK(fcntl(spare[i], F_GETFD) >= 0, "a descriptor of the program's is closed");
		_exit(0);
	}
	expect_child(pid, "child");
	check_pages(a, 0, n, 1, "parent");
	finish();
}

/* KiB of anonymous memory that are in memory. */
static long anonymous(void)
{
	FILE *f = fopen("/proc/self/status", "r");
	char line[128];
	long kib = 0;

	CHECK(f, "/proc/self/status");
	while (fgets(line, sizeof(line), f))
		sscanf(line, "RssAnon: %ld", &kib);
	fclose(f);
	return kib;
}

static void expect_no_more(long before, size_t size)
{
	long now = anonymous();

	CHECK(now - before < (long)(size >> 12), "a fork took %ld KiB more", now - before);
}

/* A child that shares the descriptor table can't go on with what is far: it maps the file anew. */
static void fork_apart(size_t size)
{
	int fd = weights(size), go[2];
	size_t n = size / PAGE, part = 256;
	char *p = map(fd, size, MAP_PRIVATE, 0), c;

	finish();
	for (int round = 0; round < 2; round++)
		check_pages(p, 0, n, 1, "before");
	for (size_t at = part; at + part <= n; at += 2 * part)
		SYS(madvise(p + at * PAGE, part * PAGE, MADV_DONTNEED));
	SYS(pipe(go));
	long before = anonymous();
	pid_t pid = (pid_t)SYS(syscall(SYS_clone, CLONE_FILES | SIGCHLD, 0, 0, 0, 0));
	if (!pid) {
		SYS(prctl(PR_SET_PDEATHSIG, SIGKILL));
		SYS(read(go[0], &c, 1));
		for (int round = 0; round < 2; round++)
			check_pages(p, 0, n, 1, "child");
		CHECK(touch(p + (n - 2) * PAGE, true) == SIGSEGV, "the child writes");
		_exit(0);
	}
	expect_no_more(before, size);
	SYS(write(go[1], "x", 1));
	check_pages(p, 0, n, 1, "parent");
	expect_child(pid, "child");
	CHECK(touch(p + n / 2 * PAGE, true) == SIGSEGV, "the parent writes");
	check_pages(p, 0, n, 1, "after");
}

/* More files than fit into one message to the child. */
static void fork_many(size_t size)
{
	enum { FILES = 100, BYTES = 4 << 20 };
	char *p[FILES];

	for (size_t i = 0; i < FILES; i++) {
		SYS(close(weights(PAGE)));
		int fd = SYS(open(path, O_RDWR | O_CLOEXEC));
		write_version(fd, 0, 1, (unsigned)i);
		SYS(ftruncate(fd, BYTES));
		SYS(close(fd));
		fd = SYS(open(path, O_RDONLY | O_CLOEXEC));
		p[i] = map(fd, BYTES, MAP_PRIVATE, 0);
		SYS(close(fd));
		finish();
	}
	for (int round = 0; round < 2; round++)
		for (size_t i = 0; i < FILES; i++) {
			page_check(p[i], 0, i, SEED, "before");
			check_zeros(p[i], BYTES / PAGE - 1, BYTES / PAGE, "before");
		}
	long before = anonymous();
	pid_t pid = SYS(fork());
	if (!pid) {
		for (size_t i = 0; i < FILES; i++)
			page_check(p[i], 0, i, SEED, "child");
		_exit(0);
	}
	expect_no_more(before, size);
	expect_child(pid, "child");
	for (size_t i = 0; i < FILES; i++)
		page_check(p[i], 0, i, SEED, "parent");
}

static void unmap_parts(size_t size)
{
	int fd = weights(size);
	size_t n = size / PAGE, a = n / 4 + 3, b = n / 2 - 5;
	char *p = map(fd, size, MAP_PRIVATE, 0);

	check_pages(p, 0, n, 1, "before");
	SYS(munmap(p + a * PAGE, (b - a) * PAGE));
	CHECK(touch(p + a * PAGE, false) == SIGSEGV, "the hole");
	for (int round = 0; round < 2; round++) {
		check_pages(p, 0, a, 1, "below");
		check_pages(p, b, n, 1, "above");
	}
	SYS(munmap(p, size));
	CHECK(touch(p, false) == SIGSEGV, "all");
	finish();
}

static void remaps(size_t size)
{
	int fd = weights(size);
	size_t n = size / PAGE;
	char *p = map(fd, size / 2, MAP_PRIVATE, 0);

	check_pages(p, 0, n / 2, 1, "before");
	p = SYS(mremap(p, size / 2, size, MREMAP_MAYMOVE));
	check_pages(p, 0, n, 1, "grown");
	p = SYS(mremap(p, size, size / 4, 0));
	check_pages(p, 0, n / 4, 1, "shrunk");
	char *to = map_anon(size);
	p = SYS(mremap(p, size / 4, size / 4, MREMAP_MAYMOVE | MREMAP_FIXED, to));
	check_pages(p, 0, n / 4, 1, "moved");
	finish();
}

/* What nobody knows the content of raises SIGBUS, at worst. */
static void remaps_past_libc(size_t size)
{
#ifdef __x86_64__
	int fd = weights(size);
	size_t n = size / PAGE;
	char *p = map(fd, size / 2, MAP_PRIVATE, 0);

	check_pages(p, 0, n / 2, 1, "before");
	long to = instruction(SYS_mremap, (long)p, (long)size / 2, (long)size, MREMAP_MAYMOVE, 0);
	CHECK(to > 0, "mremap: %ld", to);
	p = (char *)to;
	for (size_t i = n / 2; i < n; i++) {
		int sig = touch(p + i * PAGE, false);
		CHECK(!sig || sig == SIGBUS, "page %zu raises %d", i, sig);
		if (!sig)
			check_pages(p, i, i + 1, 1, "grown");
	}
	check_pages(p, 0, n / 2, 1, "moved");
	finish();
#else
	(void)size;
	skip("an instruction of another processor");
#endif
}

static void locked(size_t size)
{
	int fd = weights(size);
	size_t n = size / PAGE;
	char *p = map(fd, size, MAP_SHARED, 0);

	check_pages(p, 0, n, 1, "before");
	if (mlock(p + 5 * PAGE, 3 * PAGE))
		skip("mlock is not permitted");
	check_pages(p, 0, n, 1, "locked");
	SYS(munlock(p + 5 * PAGE, 3 * PAGE));
	check_pages(p, 0, n, 1, "unlocked");
	finish();
}

static void twice(size_t size)
{
	int fd = weights(size);
	size_t n = size / PAGE;
	char *p = map(fd, size, MAP_SHARED, 0), *q = map(fd, size, MAP_PRIVATE, 0);

	for (int round = 0; round < 2; round++) {
		check_pages(p, 0, n, 1, "one");
		check_pages(q, 0, n, 1, "the other");
	}
	SYS(munmap(p, size));
	check_pages(q, 0, n, 1, "the other alone");
	finish();
}

static void fixed(size_t size)
{
	int fd = weights(size);
	size_t n = size / PAGE;
	char *at = filled(size);

	SYS(mmap(at + 3 * PAGE, size - 7 * PAGE, PROT_READ, MAP_PRIVATE | MAP_FIXED, fd, (off_t)PAGE));
	for (int round = 0; round < 2; round++) {
		check_pages(at, 0, 3, 1, "below");
		for (size_t i = 3; i < n - 4; i++)
			page_check(at + i * PAGE, i - 2, 1, SEED, "mapped");
		check_pages(at, n - 4, n, 1, "above");
	}
	finish();
}

static void advice(size_t size)
{
	int fd = weights(size);
	size_t n = size / PAGE;
	char *p = map(fd, size, MAP_SHARED | MAP_POPULATE, 0);

	SYS(madvise(p, size, MADV_RANDOM));
	for (size_t i = 0; i < 2000; i++)
		check_pages(p, i * 7919 % n, i * 7919 % n + 1, 1, "random");
	CHECK(!posix_madvise(p, size, POSIX_MADV_WILLNEED), "posix_madvise");
	SYS(madvise(p, size, MADV_SEQUENTIAL));
	check_pages(p, 0, n, 1, "sequential");
	SYS(madvise(p, size, MADV_COLD));
	CHECK(!posix_madvise(p, size, POSIX_MADV_DONTNEED), "posix_madvise");
	CHECK(madvise(p, size, MADV_FREE) && errno == EINVAL, "MADV_FREE");
	check_pages(p, 0, n, 1, "cold");
	finish();
}

/* The kernel reads what is away. */
static void system_calls(size_t size)
{
	int fd = weights(size), out = SYS(temp_file(O_CLOEXEC));
	char *p = map(fd, size, MAP_PRIVATE, 0), page[PAGE];

	for (size_t at = 0; at < size;) {
		ssize_t n = SYS(write(out, p + at, size - at));
		at += (size_t)n;
	}
	for (size_t i = 0; i < size / PAGE; i++) {
		CHECK(pread(out, page, PAGE, (off_t)(i * PAGE)) == PAGE, "pread");
		page_check(page, i, 1, SEED, "written");
	}
	finish();
}

static bool within_seconds(bool (*is)(char *), char *p)
{
	for (int i = 0; i < 3000; i++) { /* more than it can take: something hangs */
		if (is(p))
			return true;
		nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
	}
	return false;
}

static size_t all;
/* Some may still come from what was being read when it was noticed, until the next look. */
static bool is_new(char *p)
{
	for (size_t i = all; i--;)
		if (((volatile uint64_t *)(p + i * PAGE))[1] != 2)
			return false;
	return true;
}

static void changed(size_t size)
{
	int fd = weights(size), rw = SYS(open(path, O_RDWR | O_CLOEXEC));
	size_t n = size / PAGE;
	char *p = map(fd, size, MAP_SHARED, 0);

	check_pages(p, 0, n, 1, "before");
	write_version(rw, 0, n, 2);
	all = n;
	CHECK(within_seconds(is_new, p), "what was written to the file is not seen");
	check_pages(p, 0, n, 2, "changed");
	finish();
}

/* A child that only lives: what was in memory at the fork is shared with it. */
static pid_t idle_child(void)
{
	pid_t pid = SYS(fork());

	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	pause();
	_exit(0);
}

static void end_child(pid_t pid)
{
	SYS(kill(pid, SIGKILL));
	SYS(waitpid(pid, NULL, 0));
}

static void changed_shared(size_t size)
{
	int fd = weights(size), rw = SYS(open(path, O_RDWR | O_CLOEXEC));
	size_t n = size / PAGE;
	char *p = map(fd, size, MAP_SHARED, 0);

	check_pages(p, 0, n, 1, "before");
	pid_t child = idle_child();
	write_version(rw, 0, n, 2);
	all = n;
	CHECK(within_seconds(is_new, p), "what was written to the file is not seen");
	check_pages(p, 0, n, 2, "changed");
	end_child(child);
	finish();
}

/* Is a part of it anonymous memory that may only be read? It is for who wrote to it. */
static bool read_only(const char *p, size_t size)
{
	FILE *f = fopen("/proc/self/maps", "r");
	unsigned long start, end, inode;
	bool found = false;
	char line[512], may[5];

	CHECK(f, "/proc/self/maps");
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "%lx-%lx %4s %*s %*s %lu", &start, &end, may, &inode) == 4)
			found |= start < (uintptr_t)p + size && end > (uintptr_t)p && !inode &&
				 may[1] == '-';
	fclose(f);
	return found;
}

/* What is shared leaves by being discarded. */
static void sweep_shared(size_t size)
{
	int fd = weights(size);
	size_t n = size / PAGE;
	char *p = map(fd, size, MAP_PRIVATE, 0);

	check_pages(p, 0, n, 1, "before");
	/* So that some of what is in memory has a page missing. */
	for (size_t at = 77; at < n; at += 512)
		SYS(madvise(p + at * PAGE, PAGE, MADV_DONTNEED));
	pid_t child = idle_child();
	for (int round = 0; round < 2; round++)
		check_pages(p, 0, n, 1, "shared");
	CHECK(!read_only(p, size), "it has become read-only");
	end_child(child);
	finish();
}

static volatile bool hang, hanging;

static bool is_of_runtime(pid_t tid)
{
	char file[64], name[16] = "";
	int fd;

	snprintf(file, sizeof(file), "/proc/self/task/%d/comm", (int)tid);
	fd = open(file, O_RDONLY);
	if (fd >= 0 && read(fd, name, sizeof(name)) < 0)
		name[0] = 0;
	close(fd);
	return !strncmp(name, "emf-", 4);
}

static void go_on(int listener, uint64_t id)
{
	struct seccomp_notif_resp r = {.id = id, .flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE};

	ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &r);
}

/* A server that does not answer, to threads of the runtime. */
static void *server(void *arg)
{
	struct pollfd p = {.fd = *(int *)arg, .events = POLLIN};
	uint64_t waiting[64];
	size_t n = 0;

	for (;;) {
		while (!hang && n)
			go_on(p.fd, waiting[--n]);
		hanging = n;
		if (poll(&p, 1, 1) <= 0)
			continue;
		struct seccomp_notif m = {0};
		if (ioctl(p.fd, SECCOMP_IOCTL_NOTIF_RECV, &m))
			continue;
		if (hang && n < 64 && is_of_runtime((pid_t)m.pid)) {
			waiting[n++] = m.id;
		} else {
			go_on(p.fd, m.id);
		}
	}
	return NULL;
}

/* All threads ask it from now on: seccomp_unotify(2). */
static void start_server(void)
{
	static int listener;
	struct sock_filter code[] = {
	    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
	    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_fstat, 0, 1),
	    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
	    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog filter = {sizeof(code) / sizeof(code[0]), code};
	pthread_t thread;

	SYS(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	listener = (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER,
				SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_TSYNC |
				    SECCOMP_FILTER_FLAG_TSYNC_ESRCH,
				&filter);
	if (listener < 0)
		skip("no seccomp notifications here");
	CHECK(!pthread_create(&thread, NULL, server, &listener), "pthread_create");
}

static void on_alarm(int sig)
{
	static const char text[] = "faults wait for the file's server\n";

	(void)sig;
	_exit(write(2, text, sizeof(text) - 1) > 0 ? 1 : 2);
}

static void expect_hanging(void)
{
	for (int i = 0; watched() && i < 500 && !hanging; i++)
		usleep(10000);
	CHECK(hanging || !watched(), "nobody asked for the file");
}

static void *map_and_check(void *arg)
{
	size_t size = *(size_t *)arg;
	char *p = map(weights(size), size, MAP_PRIVATE, 0);

	check_pages(p, 0, size / PAGE, 1, "mapped late");
	finish();
	return NULL;
}

/* Other memory does not wait for it: when it is looked at again, and when it is opened. */
static void server_hangs(size_t size)
{
	size_t n = size / PAGE, half = size / 2;
	char *p = map(weights(half), half, MAP_PRIVATE, 0), *q = filled(size);
	pthread_t thread;

	finish();
	check_pages(p, 0, n / 2, 1, "before");
	start_server();
	signal(SIGALRM, on_alarm);
	alarm(40);
	for (int round = 0; round < 2; round++) {
		hang = true;
		if (round)
			CHECK(!pthread_create(&thread, NULL, map_and_check, &half),
			      "pthread_create");
		expect_hanging();
		for (int i = 0; i < 2; i++)
			check_pages(q, 0, n, 1, "other memory");
		hang = false;
		while (hanging)
			usleep(1000);
	}
	pthread_join(thread, NULL);
	alarm(0);
	check_pages(p, 0, n / 2, 1, "after");
}

/* munmap past libc: while everything fits nobody is told. */
static void unmap_unseen(char *p, size_t size)
{
#ifdef __x86_64__
	long rc = SYS_munmap;

	__asm__ volatile("syscall" : "+a"(rc) : "D"(p), "S"(size) : "rcx", "r11", "memory");
	CHECK(!rc, "munmap: %s", strerror((int)-rc));
#else
	SYS(munmap(p, size));
#endif
}

/* A file is mapped where memory was that has gone unseen. */
static void over_unseen(size_t size)
{
	size_t part = size / 16, n = part / PAGE;
	int fd = weights(part);
	char *p = filled(part);

	unmap_unseen(p, part);
	SYS(mmap(p, part, PROT_READ, MAP_PRIVATE | MAP_FIXED_NOREPLACE, fd, 0));
	check_pages(p, 0, n, 1, "the file");
	write_version(SYS(open(path, O_RDWR | O_CLOEXEC)), 0, n, 2);
	SYS(munmap(p, part));
	SYS(mmap(p, part, PROT_READ, MAP_PRIVATE | MAP_FIXED_NOREPLACE, fd, 0));
	/* From here on it does not fit any more. */
	char *q = filled(size);
	for (int round = 0; round < 2; round++) {
		check_pages(p, 0, n, 2, "the file");
		check_pages(q, 0, size / PAGE, 1, "memory");
	}
	finish();
}

static bool is_gone(char *p)
{
	return touch(p, false) == SIGBUS;
}

static void truncated(size_t size)
{
	int fd = weights(size);
	size_t n = size / PAGE, left = n / 2 + 7;
	char *p = map(fd, size, MAP_PRIVATE, 0);

	check_pages(p, 0, n, 1, "before");
	SYS(truncate(path, (off_t)(left * PAGE)));
	CHECK(within_seconds(is_gone, p + (n - 1) * PAGE), "what was cut off is still there");
	CHECK(within_seconds(is_gone, p + left * PAGE), "the first page that was cut off");
	for (int round = 0; round < 2; round++)
		check_pages(p, 0, left, 1, "what is left");
	finish();
}

/* The same where advice has cut its mapping: what is not touched does no harm. */
static void truncated_parts(size_t size)
{
	int fd = weights(size);
	size_t n = size / PAGE, left = n / 2 + 7;
	char *p = map(fd, size, MAP_PRIVATE, 0);

	check_pages(p, 0, n, 1, "before");
	for (size_t at = 256; at + 16 < n; at += 512)
		madvise(p + at * PAGE, 16 * PAGE, MADV_NOHUGEPAGE);
	SYS(truncate(path, (off_t)(left * PAGE)));
	/* Time enough to notice it without being told by a fault. */
	if (watched())
		nanosleep(&(struct timespec){ .tv_sec = 2, .tv_nsec = 500000000 }, NULL);
	CHECK(within_seconds(is_gone, p + (n - 1) * PAGE), "what was cut off is still there");
	check_pages(p, 0, left, 1, "what is left");
	finish();
}

struct reader {
	pthread_t thread;
	char *p;
	size_t n, first;
};

static void *read_all(void *arg)
{
	struct reader *r = arg;

	for (size_t i = 0; i < r->n; i++)
		check_pages(r->p, (r->first + i) % r->n, (r->first + i) % r->n + 1, 1, "thread");
	return NULL;
}

static void readers(size_t size)
{
	int fd = weights(size);
	struct reader r[4];

	for (unsigned i = 0; i < 4; i++) {
		r[i] = (struct reader){ .p = i ? r[0].p : map(fd, size, MAP_SHARED, 0),
					.n = size / PAGE,
					.first = i % 2 ? i * 3000 : 0 };
		CHECK(!pthread_create(&r[i].thread, NULL, read_all, r + i), "pthread_create");
	}
	for (unsigned i = 0; i < 4; i++)
		pthread_join(r[i].thread, NULL);
	finish();
}

/* It is mapped while everything fits; what comes then makes it too much. */
static void fitted(size_t size)
{
	int fd = weights(size / 8);
	size_t n = size / 8 / PAGE;
	char *p = map(fd, size / 8, MAP_PRIVATE, 0);

	check_pages(p, 0, n, 1, "before");
	char *q = filled(size);
	for (int round = 0; round < 2; round++) {
		check_pages(p, 0, n, 1, "the file");
		check_pages(q, 0, size / PAGE, 1, "memory");
	}
	finish();
}

static const struct row rows[] = {
	{ "weights-sweep", sweep, true },
	{ "weights-closed", closed, true },
	{ "weights-offset", offset, true },
	{ "weights-tail", tail, true },
	{ "weights-discard", discard, true },
	{ "weights-discard-raw", discard_raw, true },
	{ "weights-written", written, true },
	{ "weights-private-write", private_write, true },
	{ "weights-shared-protect", shared_protect, true },
	{ "weights-shared-writable", shared_writable, false },
	{ "weights-fork", forks, true },
	{ "weights-fork-one", fork_one, true },
	{ "weights-fork-apart", fork_apart, true },
	{ "weights-fork-many", fork_many, true },
	{ "weights-unmap", unmap_parts, true },
	{ "weights-remap", remaps, false },
	{ "weights-remap-past-libc", remaps_past_libc, false },
	{ "weights-locked", locked, true },
	{ "weights-twice", twice, true },
	{ "weights-fixed", fixed, true },
	{ "weights-advice", advice, true },
	{ "weights-system-calls", system_calls, true },
	{ "weights-changed", changed, true },
	{ "weights-changed-shared", changed_shared, true },
	{ "weights-sweep-shared", sweep_shared, true },
	{ "weights-server-hangs", server_hangs, true },
	{ "weights-truncated", truncated, true },
	{ "weights-truncated-parts", truncated_parts, true },
	{ "weights-readers", readers, true },
	{ "weights-fitted", fitted, true },
	{ "weights-over-unseen", over_unseen, true },
};

ROWS_MAIN(rows)
