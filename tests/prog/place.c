/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that is in place on a slow node (store.in_place): it stays there over a fork, leaves it for
 * mlock and when it is used again and again, and what is local never exceeds BUDGET (bytes, of the
 * environment). Of SIZE about three budgets fit; the slow node is NODE. See rows.h; for the lab:
 * tests/vm/tiers-place.sh.
 */
#include "rows.h"

#include <sys/syscall.h>
#include <time.h>

#define BLOCK (2ul << 20)
#define PATIENCE 30 /* seconds, on an emulated machine */

static size_t number(const char *name)
{
	const char *text = getenv(name);

	if (!text)
		die("%s is not set", name);
	return strtoul(text, NULL, 0);
}

/* How many of the pages lie there. */
static size_t pages_on(char *p, size_t len, int node)
{
	size_t sum = 0;

	for (size_t at = 0; at < len; at += BLOCK) {
		size_t n = (len - at < BLOCK ? len - at : BLOCK) / PAGE;
		void *page[BLOCK / PAGE];
		int on[BLOCK / PAGE];

		for (size_t i = 0; i < n; i++)
			page[i] = p + at + i * PAGE;
		SYS(syscall(SYS_move_pages, 0, n, page, NULL, on, 0));
		for (size_t i = 0; i < n; i++)
			sum += on[i] == node;
	}
	return sum;
}

static size_t slow(char *p, size_t len)
{
	return pages_on(p, len, (int)number("NODE"));
}

static void check_budget(char *p, size_t size, const char *who)
{
	size_t n = pages_on(p, size, 0) * PAGE;

	CHECK(n <= number("BUDGET"), "%s: %zu bytes are local", who, n);
}

static void nap(void)
{
	nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
}

/* Filled, and what is over the budget is in place, but for a few blocks that are being sampled. */
static char *placed(size_t size)
{
	char *p = filled(size);
	size_t want = (size - number("BUDGET")) / PAGE - 4 * BLOCK / PAGE;

	for (time_t end = time(NULL) + PATIENCE; slow(p, size) < want; nap()) {
		CHECK(time(NULL) < end, "%zu of %zu pages are in place", slow(p, size), want);
		check_pages(p, 0, size / PAGE, 1, "in place");
	}
	return p;
}

/* Every step'th page from `first` on, with a look at the budget now and then. */
static void write_some(char *p, size_t size, size_t first, size_t step, unsigned version, const char *who)
{
	for (size_t i = first; i < size / PAGE; i += step) {
		page_fill(p + i * PAGE, i, version, SEED);
		if (i % 64 == first)
			check_budget(p, size, who);
	}
}

static void row_fork(size_t size)
{
	char *p = placed(size);
	size_t n = size / PAGE, there = slow(p, size);
	pid_t pid = SYS(fork());
	const char *who = pid ? "the parent" : "the child";
	unsigned mine = pid ? 3 : 2;

	/* A few blocks may have been on their way. */
	CHECK(slow(p, size) + 8 * BLOCK / PAGE >= there, "%s: %zu pages were in place, %zu are", who,
	      there, slow(p, size));
	check_pages(p, 0, n, 1, who);
	check_budget(p, size, who);
	if (!pid && getenv("ANEW")) /* its runtime starts by itself, and is not waited for */
		sleep(2);
	/* One page in two, the other ones in each. */
	write_some(p, size, !pid, 2, mine, who);
	for (size_t i = 0; i < n; i++)
		page_check(p + i * PAGE, i, i % 2 == !pid ? mine : 1, SEED, who);
	if (!pid)
		_exit(0);
	expect_child(pid, "the child");
	/* What the child had, too, comes to be in place again. */
	fill_pages(p, 0, n, 4);
	for (int i = 0; i < 50; i++, nap())
		check_budget(p, size, "afterwards");
	check_pages(p, 0, n, 4, "afterwards");
}

/* Children and their children, each with writes of its own. */
static void row_fork_often(size_t size)
{
	char *p = placed(size);
	size_t n = size / PAGE;

	for (unsigned round = 2; round < 10; round++) {
		pid_t pid = SYS(fork());
		if (!pid) {
			check_pages(p, 0, n, round - 1, "a child");
			write_some(p, size, round, 37, 100, "a child");
			pid_t next = round % 3 ? -1 : SYS(fork());
			for (size_t i = round; i < n; i += 37)
				page_check(p + i * PAGE, i, 100, SEED, "a child, or its child");
			if (next > 0)
				expect_child(next, "a child's child");
			_exit(0);
		}
		write_some(p, size, 0, 1, round, "the parent");
		expect_child(pid, "a child");
		check_pages(p, 0, n, round, "the parent");
	}
}

static void row_lock(size_t size)
{
	char *p = placed(size), *part = p + size / 4 + PAGE;
	size_t len = size / 8;

	if (mlock(part, len))
		skip("mlock is not allowed");
	CHECK(!slow(part, len), "%zu of %zu locked pages are on the slow node", slow(part, len),
	      len / PAGE);
	check_pages(p, 0, size / PAGE, 1, "locked");
	fill_pages(p, 0, size / PAGE, 2);
	CHECK(!slow(part, len), "locked pages went to the slow node");
	SYS(munlock(part, len));
	check_pages(p, 0, size / PAGE, 2, "unlocked");
}

/* With a child that has it, too: what the kernel copies is local. */
static void row_lock_shared(size_t size)
{
	char *p = placed(size);
	size_t len = size / 8;
	int go[2];

	SYS(pipe(go));
	pid_t pid = SYS(fork());
	if (!pid) {
		char c;
		close(go[1]);
		SYS(read(go[0], &c, 1));
		check_pages(p, 0, size / PAGE, 1, "the child");
		_exit(0);
	}
	if (mlock(p + size / 4, len))
		skip("mlock is not allowed");
	CHECK(!slow(p + size / 4, len), "locked pages are on the slow node");
	fill_pages(p, 0, size / PAGE, 2);
	close(go[1]);
	expect_child(pid, "the child");
	check_pages(p, 0, size / PAGE, 2, "the parent");
}

static void row_lock_all(size_t size)
{
	char *p = placed(size);

	if (mlockall(MCL_CURRENT))
		skip("mlockall is not allowed");
	CHECK(!slow(p, size), "locked pages are on the slow node");
	check_pages(p, 0, size / PAGE, 1, "locked");
}

/* Of read-only memory MOVE takes nothing, and puts nothing there. */
static void row_read_only(size_t size)
{
	char *p = placed(size);

	SYS(mprotect(p, size, PROT_READ));
	check_pages(p, 0, size / PAGE, 1, "read-only");
	sleep(5);
	check_pages(p, 0, size / PAGE, 1, "read-only");
	SYS(mprotect(p, size, PROT_READ | PROT_WRITE));
	fill_pages(p, 0, size / PAGE, 2);
	check_pages(p, 0, size / PAGE, 2, "writable again");
}

/* What is used again and again comes back, what is not stays. */
static void row_promote(size_t size)
{
	char *p = placed(size), *hot = NULL;
	size_t n = BLOCK / PAGE;

	for (size_t at = BLOCK - (uintptr_t)p % BLOCK; at + BLOCK <= size && !hot; at += BLOCK)
		if (slow(p + at, BLOCK) == n)
			hot = p + at;
	CHECK(hot, "no block is in place");
	for (time_t end = time(NULL) + PATIENCE; slow(hot, BLOCK); nap()) {
		CHECK(time(NULL) < end, "what is used stays on the slow node");
		page_check(hot, (size_t)(hot - p) / PAGE, 1, SEED, "used");
	}
	check_budget(p, size, "afterwards");
	check_pages(p, 0, size / PAGE, 1, "afterwards");
}

/*
 * With a class of place=interleave: every second block goes there though the budget has room for
 * more, and stays there, however often it is used.
 */
static void row_interleave(size_t size)
{
	char *p = filled(size), *end = p + size;
	char *first = p + (BLOCK - (uintptr_t)p % BLOCK) % BLOCK;
	size_t blocks = (size_t)(end - first) / BLOCK, n = size / PAGE, there = 0;
	bool was[64] = {0};

	CHECK(blocks <= 64, "%zu blocks are too many", blocks);
	for (time_t stop = time(NULL) + 2 * PATIENCE; there + 2 < blocks / 2; nap()) {
		CHECK(time(NULL) < stop, "%zu of %zu blocks are on the slow node", there, blocks);
		check_pages(p, 0, n, 1, "interleaved");
		there = 0;
		for (size_t i = 0; i < blocks; i++)
			there += was[i] = slow(first + i * BLOCK, BLOCK) == BLOCK / PAGE;
	}
	for (time_t stop = time(NULL) + PATIENCE / 3; time(NULL) < stop;)
		check_pages(p, 0, n, 1, "used");
	/* But for one that is out on a sample. */
	size_t left = 0;
	for (size_t i = 0; i < blocks; i++)
		left += was[i] && slow(first + i * BLOCK, BLOCK) < BLOCK / PAGE;
	CHECK(left <= 1 + there / 4, "%zu of %zu blocks have left the slow node", left, there);
	check_budget(p, size, "interleaved");
	fill_pages(p, 0, n, 2);
	check_pages(p, 0, n, 2, "written");
}

static void row_discard(size_t size)
{
	char *p = placed(size);
	size_t n = size / PAGE;

	/* Whole blocks, and parts of some. */
	SYS(madvise(p + 3 * PAGE, size / 2, MADV_DONTNEED));
	check_zeros(p, 3, 3 + n / 2, "given back");
	check_pages(p, 3 + n / 2, n, 1, "kept");
	fill_pages(p, 0, n, 2);
	check_budget(p, size, "filled anew");
	check_pages(p, 0, n, 2, "filled anew");
}

static void row_move(size_t size)
{
	char *p = placed(size), *to;
	size_t n = size / PAGE;

	to = SYS(mremap(p, size, 2 * size, MREMAP_MAYMOVE));
	check_pages(to, 0, n, 1, "moved");
	SYS(munmap(to + 5 * PAGE, size / 3));
	check_pages(to, 5 + n / 3, n, 1, "cut");
	fill_pages(to, 5 + n / 3, 2 * n, 2);
	check_budget(to + 5 * PAGE + n / 3 * PAGE, 2 * size - 5 * PAGE - n / 3 * PAGE, "cut");
	check_pages(to, 5 + n / 3, 2 * n, 2, "filled anew");
}

static const struct row rows[] = {
	{"fork", row_fork, true},
	{"fork-often", row_fork_often, true},
	{"lock", row_lock, true},
	{"lock-shared", row_lock_shared, true},
	{"lock-all", row_lock_all, true},
	{"read-only", row_read_only, true},
	{"promote", row_promote, true},
	{"interleave", row_interleave, true},
	{"discard", row_discard, true},
	{"move", row_move, true},
};

ROWS_MAIN(rows)
