/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the test programs share: page contents that can be checked to the byte,
 * failures with one line that says what was wrong, and the statistics of this
 * process. The programs know nothing of emfatier; they pass without it as well.
 */
#ifndef EMF_TEST_PROG_H
#define EMF_TEST_PROG_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* include this header first */
#endif

#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE ((size_t)4096)
#define WORDS (PAGE / sizeof(uint64_t))

__attribute__((noreturn, format(printf, 1, 2))) static inline void die(const char *fmt, ...)
{
	va_list ap;

	fflush(stdout);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	/* Not exit(): a forked child must not run its parent's handlers. */
	_exit(1);
}

#define CHECK(cond, ...)                                                       \
	do {                                                                   \
		if (!(cond)) {                                                 \
			fprintf(stderr, "%s:%d: %s: ", __FILE__, __LINE__, #cond); \
			die(__VA_ARGS__);                                      \
		}                                                              \
	} while (0)

/* A system call that must not fail. */
#define SYS(call)                                                                            \
	({                                                                                   \
		__auto_type sys_rc_ = (call);                                                \
		if ((intptr_t)sys_rc_ == -1)                                                 \
			die("%s:%d: %s: %s", __FILE__, __LINE__, #call, strerror(errno)); \
		sys_rc_;                                                                     \
	})

/* splitmix64 */
static inline uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15ull;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
	return x ^ (x >> 31);
}

/*
 * Word i of a page. The first two are the page's number and version in clear,
 * so that a failure shows whose data was found instead.
 */
static inline uint64_t page_word(uint64_t page, uint64_t version, uint64_t seed, size_t i)
{
	if (i == 0)
		return page;
	if (i == 1)
		return version;
	return mix(seed ^ (page << 32) ^ (version << 10) ^ i);
}

static inline void page_fill(void *p, uint64_t page, uint64_t version, uint64_t seed)
{
	uint64_t *w = p;

	for (size_t i = 0; i < WORDS; i++)
		w[i] = page_word(page, version, seed, i);
}

static inline size_t first_difference(const void *a, const void *b, size_t n)
{
	const unsigned char *x = a, *y = b;
	size_t i = 0;

	while (i < n && x[i] == y[i])
		i++;
	return i;
}

/* want: a page of the right content, or NULL for zeros. Ends the program if p differs. */
static inline void page_expect(const void *p, const uint64_t *want, uint64_t page,
			       uint64_t version, const char *what)
{
	static const uint64_t zeros[WORDS];
	uint64_t seen[WORDS];

	if (!want)
		want = zeros;
	if (memcmp(p, want, PAGE) == 0)
		return;
	/* Two reads: a page that is right the second time was changed under us. */
	memcpy(seen, p, PAGE);
	size_t at = first_difference(seen, want, PAGE);
	if (at == PAGE)
		die("%s: page %lu at %p, version %lu: wrong at first, right when read again", what,
		    (unsigned long)page, p, (unsigned long)version);
	size_t wrong = 0;
	for (size_t i = 0; i < WORDS; i++)
		wrong += seen[i] != want[i];
	die("%s: page %lu at %p, version %lu: byte %zu is 0x%02x instead of 0x%02x; "
	    "%zu of %zu words differ; its first words are %lx %lx (page, version)",
	    what, (unsigned long)page, p, (unsigned long)version, at,
	    ((unsigned char *)seen)[at], ((const unsigned char *)want)[at], wrong, WORDS,
	    (unsigned long)seen[0], (unsigned long)seen[1]);
}

static inline void page_check(const void *p, uint64_t page, uint64_t version, uint64_t seed,
			      const char *what)
{
	uint64_t want[WORDS];

	for (size_t i = 0; i < WORDS; i++)
		want[i] = page_word(page, version, seed, i);
	page_expect(p, want, page, version, what);
}

/* "64M" */
static inline size_t size_arg(const char *s)
{
	char *end;
	unsigned long n = strtoul(s, &end, 10);

	switch (*end) {
	case 'G':
		n <<= 10; /* fall through */
	case 'M':
		n <<= 10; /* fall through */
	case 'K':
		n <<= 10;
		end++;
	}
	if (*end || !n)
		die("bad size: %s", s);
	return n;
}

/* Is what is asked of the library asked here? Else the program runs without it. */
static inline int watched(void)
{
	const char *out = getenv("TIERSTAT_OUT");

	return out && *out;
}

/*
 * With TIERSTAT_OUT set, $TIERSTAT writes this process's statistics there. Called
 * right before the end, so that a test can assert what has happened. The child
 * is told not to preload: it is not what is measured.
 */
static inline void write_stats(void)
{
	char cmd[1024];
	const char *out = getenv("TIERSTAT_OUT"), *tierstat = getenv("TIERSTAT");

	if (!watched() || !tierstat)
		return;
	snprintf(cmd, sizeof(cmd), "LD_PRELOAD= EMFATIER_DISABLE=1 '%s' --json -p %d > '%s' 2>&1",
		 tierstat, (int)getpid(), out);
	int status = system(cmd);
	/* 3: a store is down; 4: nothing of this process was ever managed. */
	if (status && status != 3 << 8 && status != 4 << 8)
		die("tierstat failed: %s", cmd);
}

#endif
