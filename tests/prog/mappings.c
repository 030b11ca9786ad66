/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The mmap family on cold memory: right data where there must be data, zeros
 * where there must be zeros, errors where there must be errors. See rows.h.
 */
#include "rows.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif

static sigjmp_buf back;
static void *volatile fault_at;

static void on_fault(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	(void)context;
	fault_at = info->si_addr;
	siglongjmp(back, 1);
}

static void catch_faults(void)
{
	struct sigaction sa = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_NODEFER};

	SYS(sigaction(SIGSEGV, &sa, NULL));
	SYS(sigaction(SIGBUS, &sa, NULL));
}

static bool faults(volatile char *p, bool write)
{
	fault_at = NULL;
	if (sigsetjmp(back, 1)) {
		CHECK(fault_at == p, "the signal names %p instead of %p", fault_at, (void *)p);
		return true;
	}
	if (write)
		*p = *p;
	else
		(void)*p;
	return false;
}

static void row_mremap_grow(size_t size)
{
	size_t n = size / PAGE;
	char *p = filled(size);

	p = SYS(mremap(p, size, size + size / 2, MREMAP_MAYMOVE));
	check_pages(p, 0, n, 1, "grown");
	check_zeros(p + size, 0, n / 2, "grown");
	fill_pages(p, 0, n + n / 2, 2);
	check_pages(p, 0, n + n / 2, 2, "grown and written");
	SYS(munmap(p, size + size / 2));
}

static void row_mremap_shrink(size_t size)
{
	size_t n = size / PAGE;
	char *p = filled(size);

	CHECK(mremap(p, size, size / 2, 0) == p, "shrinking moved it: %s", strerror(errno));
	check_pages(p, 0, n / 2, 1, "shrunk");
	catch_faults();
	CHECK(faults(p + size / 2, false), "the rest is still there");
	CHECK(faults(p + size - PAGE, false), "the rest is still there");
	/* Not by whole blocks. */
	CHECK(mremap(p, size / 2, size / 2 - 5 * PAGE, 0) == p, "shrinking moved it");
	check_pages(p, 0, n / 2 - 5, 1, "shrunk again");
}

static void row_mremap_fixed(size_t size)
{
	size_t n = size / PAGE;
	char *p = filled(size), *room = map_anon(size + PAGE);

	/* Onto another mapping, off by a page so that blocks don't fit. */
	memset(room, 7, size + PAGE);
	char *q = SYS(mremap(p, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, room + PAGE));
	CHECK(q == room + PAGE, "not there");
	check_pages(q, 0, n, 1, "moved");
	CHECK(room[PAGE - 1] == 7, "the page before it changed");
	catch_faults();
	CHECK(faults(p, false), "the old place is still there");
	fill_pages(q, 0, n, 2);
	chill(size);
	check_pages(q, 0, n, 2, "moved and written");
}

/* The middle moves away, the two ends stay. */
static void row_mremap_part(size_t size)
{
	size_t n = size / PAGE, q4 = n / 4 + 3;
	char *p = filled(size), *room = map_anon(size);
	char *q = SYS(mremap(p + q4 * PAGE, size / 2, size / 2, MREMAP_MAYMOVE | MREMAP_FIXED, room));

	for (size_t i = 0; i < n / 2; i++)
		page_check(q + i * PAGE, i + q4, 1, SEED, "moved part");
	check_pages(p, 0, q4, 1, "head");
	check_pages(p, q4 + n / 2, n, 1, "tail");
	catch_faults();
	CHECK(faults(p + q4 * PAGE, false), "the old place is still there");
	/* Back again. */
	CHECK(mremap(q, size / 2, size / 2, MREMAP_MAYMOVE | MREMAP_FIXED, p + q4 * PAGE) ==
		      p + q4 * PAGE,
	      "not back: %s", strerror(errno));
	check_pages(p, 0, n, 1, "back");
}

static void row_mremap_dontunmap(size_t size)
{
	size_t n = size / PAGE;
	char *p = filled(size);
	char *q = mremap(p, size, size, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL);

	if (q == MAP_FAILED && errno == EINVAL)
		skip("no MREMAP_DONTUNMAP");
	CHECK(q != MAP_FAILED, "mremap: %s", strerror(errno));
	check_pages(q, 0, n, 1, "moved");
	check_zeros(p, 0, n, "what was left behind");
	fill_pages(p, 0, n, 2);
	check_pages(q, 0, n, 1, "moved");
	check_pages(p, 0, n, 2, "the old place");
}

/* Something else may be mapped at its address by now. */
static bool is_there(char *p, size_t i, uint64_t version)
{
	uint64_t head[2] = {0};
	struct iovec mine = {head, sizeof(head)}, its = {p + i * PAGE, sizeof(head)};

	return process_vm_readv(getpid(), &mine, 1, &its, 1, 0) == sizeof(head) && head[0] == i &&
	       head[1] == version;
}

/* What is left behind by a mapping of secrets is one, too: in a child it is empty, or not there. */
static void row_dontunmap_secret(size_t size)
{
	size_t n = size / PAGE, half = size / 2;
	char *p = filled(half), *no = filled(half);

	SYS(madvise(p, half, MADV_WIPEONFORK));
	SYS(madvise(no, half, MADV_DONTFORK));
	char *q = mremap(p, half, half, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL);
	char *moved = mremap(no, half, half, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL);
	if (q == MAP_FAILED && errno == EINVAL)
		skip("no MREMAP_DONTUNMAP");
	CHECK(q != MAP_FAILED && moved != MAP_FAILED, "mremap: %s", strerror(errno));
	fill_pages(p, 0, n / 2, 2);
	fill_pages(no, 0, n / 2, 2);
	chill(size);
	pid_t pid = SYS(fork());
	if (!pid) {
		check_zeros(p, 0, n / 2, "MADV_WIPEONFORK, left behind, in the child");
		check_zeros(q, 0, n / 2, "MADV_WIPEONFORK, moved, in the child");
		for (size_t i = 0; i < n / 2; i += 100)
			CHECK(!is_there(no, i, 2) && !is_there(moved, i, 1),
			      "MADV_DONTFORK memory is there in the child");
		_exit(0);
	}
	expect_child(pid, "child");
	check_pages(q, 0, n / 2, 1, "moved");
	check_pages(moved, 0, n / 2, 1, "moved");
	check_pages(p, 0, n / 2, 2, "left behind");
	check_pages(no, 0, n / 2, 2, "left behind");
}

/* Shared memory that is moved over other, and stays in its place, is shared memory there as ever. */
static void row_dontunmap_shared(size_t size)
{
	size_t n = (8u << 20) / PAGE;
	char *p = filled(size);
	char *s = SYS(mmap(NULL, n * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));

	fill_pages(s, 0, n, 3);
	char *q = mremap(s, n * PAGE, n * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP, p);
	if (q == MAP_FAILED && errno == EINVAL)
		skip("no MREMAP_DONTUNMAP of shared memory");
	CHECK(q == p, "mremap: %s", strerror(errno));
	check_pages(s, 0, n, 3, "shared memory, left in place");
	fill_pages(s, 0, n, 4);
	check_pages(q, 0, n, 4, "shared memory, moved");
	check_pages(p, n, size / PAGE, 1, "behind it");
}

/* Two reasons to stay local; one is taken back, the other holds. */
static void row_two_reasons(size_t size)
{
	size_t n = size / 4 / PAGE;
	char *p = filled(size / 4);

	SYS(madvise(p, n * PAGE, MADV_WIPEONFORK));
	SYS(madvise(p, n * PAGE, MADV_DONTDUMP));
	SYS(madvise(p, n * PAGE, MADV_DODUMP));
	chill(size);
	pid_t pid = SYS(fork());
	if (!pid) {
		check_zeros(p, 0, n, "MADV_WIPEONFORK in the child");
		_exit(0);
	}
	expect_child(pid, "child");
	check_pages(p, 0, n, 1, "parent");
	SYS(madvise(p, n * PAGE, MADV_DONTDUMP));
	SYS(madvise(p, n * PAGE, MADV_KEEPONFORK));
	unsigned char there;
	chill(size);
	for (size_t i = 0; i < n; i++)
		CHECK(!mincore(p + i * PAGE, PAGE, &there) && there & 1, "a page of a secret left");
	SYS(madvise(p, n * PAGE, MADV_DODUMP));
	chill(size);
	pid = SYS(fork());
	if (!pid) {
		check_pages(p, 0, n, 1, "child, after MADV_KEEPONFORK");
		_exit(0);
	}
	expect_child(pid, "child");
}

/* A lock that is refused keeps nothing local: the budget holds (see semantics.sh). */
static void row_mlock_refused(size_t size)
{
	struct rlimit none = {0, 0};
	char *p = filled(size);

	pid_t pid = SYS(fork());
	if (!pid) {
		/* Its store is open before it may lock nothing. */
		check_pages(p, 0, size / PAGE, 1, "child");
		SYS(setrlimit(RLIMIT_MEMLOCK, &none));
		if (!geteuid())
			SYS(setuid(65534));
		CHECK(mlock(p, size) == -1 && (errno == ENOMEM || errno == EPERM), "mlock is allowed");
		chill(size);
		unsigned char there;
		size_t away = 0;
		for (size_t i = 0; i < size / PAGE; i++)
			away += !mincore(p + i * PAGE, PAGE, &there) && !(there & 1);
		CHECK(!getenv("EMFATIER_CONF") || away > size / PAGE / 2, "only %zu pages are away", away);
		check_pages(p, 0, size / PAGE, 1, "not locked");
		_exit(0);
	}
	expect_child(pid, "child");
	check_pages(p, 0, size / PAGE, 1, "parent");
}

/* Again and again to other sizes, as realloc of a growing array does. */
static void row_mremap_steps(size_t size)
{
	size_t n = 16, max = size / PAGE;
	char *p = map_anon(n * PAGE);

	fill_pages(p, 0, n, 1);
	while (n < max) {
		size_t m = n + n / 2 + 3;

		if (m > max)
			m = max;
		p = SYS(mremap(p, n * PAGE, m * PAGE, MREMAP_MAYMOVE));
		fill_pages(p, n, m, 1);
		n = m;
	}
	check_pages(p, 0, n, 1, "grown in steps");
	while (n > 64) {
		size_t m = n - n / 3;

		p = SYS(mremap(p, n * PAGE, m * PAGE, MREMAP_MAYMOVE));
		n = m;
	}
	check_pages(p, 0, n, 1, "shrunk in steps");
}

/* Odd numbers of pages: blocks of 2 MiB are cut. */
static void unmap_part(size_t size, size_t from, size_t end, long (*unmap)(char *, size_t))
{
	size_t n = size / PAGE;
	char *p = filled(size);

	SYS(unmap(p + from * PAGE, (end - from) * PAGE));
	check_pages(p, 0, from, 1, "before the hole");
	check_pages(p, end, n, 1, "behind the hole");
	catch_faults();
	CHECK(faults(p + from * PAGE, false), "still there");
	CHECK(faults(p + (end - 1) * PAGE, true), "still there");
	chill(size);
	check_pages(p, 0, from, 1, "before the hole");
	check_pages(p, end, n, 1, "behind the hole");
	/* New memory in the hole is zero, whatever was far there. */
	CHECK(mmap(p + from * PAGE, (end - from) * PAGE, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == p + from * PAGE,
	      "mmap: %s", strerror(errno));
	check_zeros(p + from * PAGE, 0, end - from, "new memory in the hole");
	fill_pages(p, from, end, 1);
	chill(size);
	check_pages(p, 0, n, 1, "all");
	SYS(munmap(p, size));
}

static long by_munmap(char *p, size_t n)
{
	return munmap(p, n);
}

static long by_raw_munmap(char *p, size_t n)
{
	return syscall(SYS_munmap, p, n);
}

static void row_munmap_head(size_t size)
{
	unmap_part(size, 0, size / PAGE / 2 + 5, by_munmap);
}

static void row_munmap_middle(size_t size)
{
	unmap_part(size, size / PAGE / 3, size / PAGE / 2 + 5, by_munmap);
}

static void row_munmap_tail(size_t size)
{
	unmap_part(size, size / PAGE / 2 + 5, size / PAGE, by_munmap);
}

static void row_munmap_raw(size_t size)
{
	unmap_part(size, size / PAGE / 3, size / PAGE / 2 + 5, by_raw_munmap);
}

/* Page by page, every second one: what is left must not move. */
static void row_munmap_sieve(size_t size)
{
	size_t n = size / PAGE, from = n / 3, end = from + 1200;
	char *p = filled(size);

	for (size_t i = from; i < end; i += 2)
		SYS(munmap(p + i * PAGE, PAGE));
	check_pages(p, 0, from, 1, "before");
	for (size_t i = from + 1; i < end; i += 2)
		page_check(p + i * PAGE, i, 1, SEED, "in the sieve");
	check_pages(p, end, n, 1, "behind");
	SYS(munmap(p, size));
}

/* Two mappings that happen to be neighbours are unmapped by one call. */
static void row_munmap_across(size_t size)
{
	size_t n = size / PAGE, half = size / 2;
	char *p = map_anon(size);

	for (unsigned i = 0; i < 2; i++)
		CHECK(mmap(p + i * half, half, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == p + i * half,
		      "mmap: %s", strerror(errno));
	fill_pages(p, 0, n, 1);
	SYS(munmap(p + size / 4, half));
	check_pages(p, 0, n / 4, 1, "head");
	check_pages(p, n - n / 4, n, 1, "tail");
	catch_faults();
	CHECK(faults(p + half, false), "still there");
	/* Over the holes, from end to end. */
	SYS(munmap(p, size));
	CHECK(faults(p, false), "still there");
}

static void row_dontneed(size_t size)
{
	size_t n = size / PAGE, from = n / 4 + 3, end = n - n / 4 - 3;
	char *p = filled(size);

	SYS(madvise(p + from * PAGE, (end - from) * PAGE, MADV_DONTNEED));
	check_pages(p, 0, from, 1, "before");
	check_zeros(p + from * PAGE, 0, end - from, "MADV_DONTNEED");
	check_pages(p, end, n, 1, "behind");
	fill_pages(p, from, end, 2);
	chill(size);
	check_pages(p, from, end, 2, "written again");
	SYS(madvise(p, size, MADV_DONTNEED));
	chill(size);
	check_zeros(p, 0, n, "all of it");
}

static void row_dontneed_raw(size_t size)
{
	size_t n = size / PAGE, from = n / 4 + 3, end = n - n / 4 - 3;
	char *p = filled(size);

	SYS(syscall(SYS_madvise, p + from * PAGE, (end - from) * PAGE, MADV_DONTNEED));
	chill(size);
	check_pages(p, 0, from, 1, "before");
	check_zeros(p + from * PAGE, 0, end - from, "MADV_DONTNEED");
	check_pages(p, end, n, 1, "behind");
}

/* One page here and there, in blocks of which the rest is needed. */
static void row_dontneed_pages(size_t size)
{
	size_t n = size / PAGE;
	char *p = filled(size);

	for (size_t i = 5; i < n; i += 97)
		SYS(madvise(p + i * PAGE, PAGE, MADV_DONTNEED));
	for (unsigned pass = 0; pass < 2; pass++) {
		for (size_t i = 0; i < n; i++)
			if (i % 97 == 5)
				page_expect(p + i * PAGE, NULL, i, 0, "MADV_DONTNEED");
			else
				page_check(p + i * PAGE, i, 1, SEED, "neighbour");
		chill(size);
	}
}

static void row_free(size_t size)
{
	size_t n = size / PAGE;
	char *p = filled(size);

	SYS(madvise(p, size, MADV_FREE));
	chill(size);
	for (size_t i = 0; i < n; i++) {
		const uint64_t *w = (uint64_t *)(p + i * PAGE);

		/* A page is whole, the old one or zeros. */
		if (w[1] == 0)
			page_expect(w, NULL, i, 0, "MADV_FREE");
		else
			page_check(w, i, 1, SEED, "MADV_FREE");
	}
	fill_pages(p, 0, n, 2);
	chill(size);
	check_pages(p, 0, n, 2, "written after MADV_FREE");
}

/* Advice that must not change any content. */
static void row_advice(size_t size)
{
	static const int advice[] = {MADV_NORMAL,   MADV_RANDOM,     MADV_SEQUENTIAL, MADV_WILLNEED,
				     MADV_HUGEPAGE, MADV_NOHUGEPAGE, MADV_DONTDUMP,   MADV_DODUMP,
				     MADV_COLD,	    MADV_PAGEOUT,    MADV_MERGEABLE,  MADV_UNMERGEABLE};
	size_t n = size / PAGE;
	char *p = filled(size);

	for (size_t i = 0; i < sizeof(advice) / sizeof(*advice); i++) {
		if (madvise(p + 3 * PAGE, size - 7 * PAGE, advice[i]))
			CHECK(errno == EINVAL, "advice %d: %s", advice[i], strerror(errno));
		check_pages(p, 0, n, 1, "after advice");
	}
	CHECK(madvise(p + 1, PAGE, MADV_DONTNEED) == -1 && errno == EINVAL, "unaligned");
	CHECK(madvise(p, PAGE, 12345) == -1 && errno == EINVAL, "unknown advice");
	SYS(munmap(p, size));
	CHECK(madvise(p, PAGE, MADV_DONTNEED) == -1 && errno == ENOMEM, "nothing mapped");
}

static void row_mprotect_read(size_t size)
{
	size_t n = size / PAGE, from = n / 4 + 3, end = n - n / 4 - 3;
	char *p = filled(size);

	catch_faults();
	SYS(mprotect(p + from * PAGE, (end - from) * PAGE, PROT_READ));
	for (size_t i = from; i < end; i += 61) {
		CHECK(faults(p + i * PAGE, true), "page %zu can be written", i);
		CHECK(!faults(p + i * PAGE, false), "page %zu can't be read", i);
	}
	check_pages(p, 0, n, 1, "read-only");
	chill(size);
	CHECK(faults(p + from * PAGE + 9, true), "can be written");
	SYS(mprotect(p + from * PAGE, (end - from) * PAGE, PROT_READ | PROT_WRITE));
	check_pages(p, 0, n, 1, "writable again");
	fill_pages(p, 0, n, 2);
	chill(size);
	check_pages(p, 0, n, 2, "written");
}

static void row_mprotect_none(size_t size)
{
	size_t n = size / PAGE, from = n / 4 + 3, end = n - n / 4 - 3;
	char *p = filled(size);

	catch_faults();
	SYS(mprotect(p + from * PAGE, (end - from) * PAGE, PROT_NONE));
	for (size_t i = from; i < end; i += 61)
		CHECK(faults(p + i * PAGE, i % 2), "page %zu can be used", i);
	CHECK(!faults(p, true), "a neighbour can't be used");
	chill(size);
	CHECK(faults(p + from * PAGE, false), "can be used");
	SYS(mprotect(p + from * PAGE, (end - from) * PAGE, PROT_READ | PROT_WRITE));
	check_pages(p, 0, n, 1, "usable again");
	fill_pages(p, 0, n, 2);
	check_pages(p, 0, n, 2, "written");
}

/* Reserved first and made usable piece by piece, as allocators and V8 do. */
static void row_reserve(size_t size)
{
	size_t n = size / PAGE;
	char *p = SYS(mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));

	for (size_t at = 0; at < size; at += 8u << 20) {
		size_t end = at + (8u << 20) < size ? at + (8u << 20) : size;

		SYS(mprotect(p + at, end - at, PROT_READ | PROT_WRITE));
		fill_pages(p, at / PAGE, end / PAGE, 1);
	}
	check_pages(p, 0, n, 1, "reservation");
	SYS(madvise(p, size / 2, MADV_DONTNEED));
	SYS(mprotect(p, size / 2, PROT_NONE));
	check_pages(p, n / 2, n, 1, "the other half");
	SYS(mprotect(p, size / 2, PROT_READ | PROT_WRITE));
	check_zeros(p, 0, n / 2, "given back");
}

/* Not a page of it may be away. */
static void check_resident(char *p, size_t size, const char *what)
{
	size_t n = size / PAGE;
	unsigned char *v = malloc(n);

	CHECK(v, "malloc");
	SYS(mincore(p, size, v));
	for (size_t i = 0; i < n; i++)
		CHECK(v[i] & 1, "%s: page %zu of %zu is not resident", what, i, n);
	free(v);
}

/* A child has none of its parent's locks: what it makes longer is not locked, and can be discarded. */
static void row_mlock_fork(size_t size)
{
	const size_t n = size / PAGE, k = 16;
	char *p = filled(size), *q;

	if (mlock(p, k * PAGE)) {
		CHECK(errno == EPERM || errno == ENOMEM, "mlock: %s", strerror(errno));
		skip("mlock is not permitted");
	}
	chill(size);
	pid_t pid = SYS(fork());
	if (!pid) {
		q = mremap(p, k * PAGE, 2 * k * PAGE, MREMAP_MAYMOVE);
		CHECK(q != MAP_FAILED, "mremap: %s", strerror(errno));
		check_pages(q, 0, k, 1, "the child's");
		check_zeros(q, k, 2 * k, "what it has more");
		SYS(madvise(q, 2 * k * PAGE, MADV_DONTNEED));
		check_zeros(q, 0, 2 * k, "discarded");
		check_pages(p, k, n, 1, "the rest");
		_exit(0);
	}
	expect_child(pid, "the child");
	check_pages(p, 0, n, 1, "the parent's");
	SYS(munlock(p, k * PAGE));
}

static void row_mlock(size_t size)
{
	size_t n = size / PAGE, k = 1500;
	char *p = filled(size);

	if (mlock(p + 3 * PAGE, k * PAGE)) {
		CHECK(errno == EPERM || errno == ENOMEM, "mlock: %s", strerror(errno));
		skip("not allowed to lock 6 MiB");
	}
	check_resident(p + 3 * PAGE, k * PAGE, "after mlock");
	chill(size);
	check_resident(p + 3 * PAGE, k * PAGE, "locked memory under pressure");
	check_pages(p, 0, n, 1, "locked");
	fill_pages(p, 0, n, 2);
	SYS(munlock(p + 3 * PAGE, k * PAGE));
	chill(size);
	check_pages(p, 0, n, 2, "unlocked");
	/* Memory that starts locked. */
	char *q = mmap(NULL, k * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_LOCKED,
		       -1, 0);
	CHECK(q != MAP_FAILED, "MAP_LOCKED: %s", strerror(errno));
	fill_pages(q, 0, k, 3);
	chill(size);
	check_resident(q, k * PAGE, "MAP_LOCKED");
	check_pages(q, 0, k, 3, "MAP_LOCKED");
}

/*
 * A runtime in this process that has reserved address space for itself must not
 * have it filled by mlockall. If it is, the host would run out of memory: a watcher
 * ends us before.
 */
static void watch_resident(size_t limit)
{
	pid_t watched = getpid();

	if (SYS(fork()))
		return;
	for (;;) {
		char path[64];
		unsigned long total, resident;

		snprintf(path, sizeof(path), "/proc/%d/statm", (int)watched);
		FILE *f = fopen(path, "r");
		if (!f || getppid() != watched || fscanf(f, "%lu %lu", &total, &resident) != 2)
			_exit(0);
		fclose(f);
		if (resident * PAGE > limit) {
			kill(watched, SIGKILL);
			die("%lu MiB got resident", resident >> 8);
		}
		usleep(5000);
	}
}

static void row_mlockall(size_t size)
{
	size_t n = size / PAGE;

	watch_resident(8 * size);
	char *p = filled(size);

	if (mlockall(MCL_CURRENT | MCL_FUTURE)) {
		CHECK(errno == EPERM || errno == ENOMEM, "mlockall: %s", strerror(errno));
		skip("not allowed to lock all memory");
	}
	check_resident(p, size, "after mlockall");
	check_pages(p, 0, n, 1, "locked");
	char *q = map_anon(8u << 20);
	check_resident(q, 8u << 20, "new memory after MCL_FUTURE");
	fill_pages(p, 0, n, 2);
	SYS(munlockall());
	chill(size);
	check_pages(p, 0, n, 2, "unlocked");
}

static void row_map_fixed(size_t size)
{
	size_t n = size / PAGE, from = n / 4 + 3, end = n - n / 4 - 3;
	char *p = filled(size), *at = p + from * PAGE;

	CHECK(mmap(at, (end - from) * PAGE, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == at,
	      "mmap: %s", strerror(errno));
	check_pages(p, 0, from, 1, "before");
	check_zeros(at, 0, end - from, "new");
	check_pages(p, end, n, 1, "behind");
	fill_pages(p, from, end, 1);
	chill(size);

	/* A file over a part of it. */
	int fd = SYS(temp_file(O_RDWR));
	char page[PAGE];
	for (size_t i = 0; i < end - from; i++) {
		page_fill(page, from + i, 2, SEED);
		CHECK(write(fd, page, PAGE) == PAGE, "file");
	}
	CHECK(mmap(at, (end - from) * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) == at,
	      "mmap: %s", strerror(errno));
	check_pages(p, 0, from, 1, "before");
	check_pages(p, from, end, 2, "file");
	check_pages(p, end, n, 1, "behind");
	fill_pages(p, from, end, 3);
	for (size_t i = 0; i < end - from; i += 7) {
		CHECK(pread(fd, page, PAGE, (off_t)(i * PAGE)) == PAGE, "file");
		page_check(page, from + i, 3, SEED, "written through the mapping");
	}
	SYS(munmap(p, size));
}

static void row_populate(size_t size)
{
	size_t n = size / PAGE;
	char *p = SYS(mmap(NULL, size, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0));

	check_zeros(p, 0, n, "MAP_POPULATE");
	fill_pages(p, 0, n, 1);
	check_pages(p, 0, n, 1, "written");
	/* What is far comes back for it, and goes again. */
	for (int advice = 22 /* MADV_POPULATE_READ */; advice < 24; advice++) {
		if (madvise(p, size, advice))
			CHECK(errno == EINVAL, "advice %d: %s", advice, strerror(errno));
		check_pages(p, 0, n, 1, "populated");
	}
}

/* Never written: zeros, also beside what was written, also after it went far. */
static void row_hole(size_t size)
{
	size_t n = size / PAGE;
	char *p = map_anon(size);

	for (size_t i = 0; i < n; i += 1031)
		page_fill(p + i * PAGE, i, 1, SEED);
	for (unsigned pass = 0; pass < 2; pass++) {
		for (size_t i = 0; i < n; i++)
			if (i % 1031 == 0)
				page_check(p + i * PAGE, i, 1, SEED, "written");
			else
				page_expect(p + i * PAGE, NULL, i, 0, "hole");
		chill(size);
	}
	/* Zeros that were written are zeros, too. */
	memset(p, 0, size);
	chill(size);
	check_zeros(p, 0, n, "written zeros");
}

static unsigned count_maps(void)
{
	unsigned lines = 0;
	int c, fd = SYS(open("/proc/self/maps", O_RDONLY));
	char buf[4096];

	while ((c = (int)SYS(read(fd, buf, sizeof(buf)))) > 0)
		for (int i = 0; i < c; i++)
			lines += buf[i] == '\n';
	close(fd);
	return lines;
}

/* Thousands of small mappings; the kernel allows 65530 for all of a process. */
static void row_many_small(size_t size)
{
	enum { N = 4000 };
	static char *p[N];
	size_t n = size / N / PAGE;

	for (unsigned i = 0; i < N; i++) {
		p[i] = map_anon(n * PAGE);
		fill_pages(p[i], 0, n, i + 1);
	}
	CHECK(count_maps() < 30000, "%u mappings", count_maps());
	for (unsigned i = 0; i < N; i += 2)
		SYS(munmap(p[i], n * PAGE));
	for (unsigned i = 1; i < N; i += 2)
		check_pages(p[i], 0, n, i + 1, "small mapping");
	CHECK(count_maps() < 30000, "%u mappings", count_maps());
	for (unsigned i = 1; i < N; i += 2)
		SYS(munmap(p[i], n * PAGE));
}

static void row_errors(size_t size)
{
	char *p = filled(size);

	CHECK(mmap(NULL, 0, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED &&
		      errno == EINVAL,
	      "length 0");
	CHECK(mmap(NULL, (size_t)1 << 62, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) ==
			      MAP_FAILED &&
		      errno == ENOMEM,
	      "huge");
	CHECK(mmap(p, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE,
		   -1, 0) == MAP_FAILED &&
		      errno == EEXIST,
	      "MAP_FIXED_NOREPLACE over memory that is far");
	CHECK(munmap(p + 1, PAGE) == -1 && errno == EINVAL, "unaligned munmap");
	CHECK(munmap(p, 0) == -1 && errno == EINVAL, "munmap of nothing");
	CHECK(mremap(p + 1, PAGE, PAGE, MREMAP_MAYMOVE) == MAP_FAILED && errno == EINVAL, "unaligned");
	CHECK(mremap(p, size, 0, MREMAP_MAYMOVE) == MAP_FAILED && errno == EINVAL, "to size 0");
	CHECK(mremap(p, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, p + PAGE) == MAP_FAILED &&
		      errno == EINVAL,
	      "onto itself");
	/* Neighbours in the way: without MAYMOVE it can't grow. */
	SYS(mmap(p + size / 2, size / 2, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
		 -1, 0));
	CHECK(mremap(p, PAGE, size, 0) == MAP_FAILED && errno == ENOMEM, "no room");
	CHECK(mprotect(p + 1, PAGE, PROT_READ) == -1 && errno == EINVAL, "unaligned mprotect");
	errno = 0;
	check_pages(p, 0, size / 2 / PAGE, 1, "after errors");
	SYS(munmap(p, size));
	CHECK(mprotect(p, PAGE, PROT_READ) == -1 && errno == ENOMEM, "mprotect of nothing");
	CHECK(mremap(p, PAGE, 2 * PAGE, MREMAP_MAYMOVE) == MAP_FAILED && errno == EFAULT, "of nothing");
}

static const struct row rows[] = {
	{"mremap-grow", row_mremap_grow, true},
	{"mremap-shrink", row_mremap_shrink, true},
	{"mremap-fixed", row_mremap_fixed, true},
	{"mremap-part", row_mremap_part, true},
	{"mremap-dontunmap", row_mremap_dontunmap, true},
	{"dontunmap-secret", row_dontunmap_secret, true},
	{"dontunmap-shared", row_dontunmap_shared, true},
	{"two-reasons", row_two_reasons, true},
	{"mremap-steps", row_mremap_steps, false},
	{"munmap-head", row_munmap_head, true},
	{"munmap-middle", row_munmap_middle, true},
	{"munmap-tail", row_munmap_tail, true},
	{"munmap-raw", row_munmap_raw, true},
	{"munmap-sieve", row_munmap_sieve, true},
	{"munmap-across", row_munmap_across, true},
	{"dontneed", row_dontneed, true},
	{"dontneed-raw", row_dontneed_raw, true},
	{"dontneed-pages", row_dontneed_pages, true},
	{"free", row_free, true},
	{"advice", row_advice, true},
	{"mprotect-read", row_mprotect_read, true},
	{"mprotect-none", row_mprotect_none, true},
	{"reserve", row_reserve, false},
	{"mlock", row_mlock, true},
	{"mlock-fork", row_mlock_fork, true},
	{"mlock-refused", row_mlock_refused, true},
	{"mlockall", row_mlockall, true},
	{"map-fixed", row_map_fixed, true},
	{"populate", row_populate, true},
	{"hole", row_hole, true},
	{"many-small", row_many_small, false},
	{"errors", row_errors, true},
};

ROWS_MAIN(rows)
