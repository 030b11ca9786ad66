/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The malloc family: what its callers rely on, for small blocks and for large
 * ones whose memory is cold. See rows.h.
 */
#include "rows.h"

#include <malloc.h>
#include <pthread.h>

/* The compiler knows malloc and would answer some of these by itself. */
static void *volatile keep;

#define HIDE(p)           \
	({                \
		keep = (p); \
		keep;     \
	})

static size_t volatile huge = (size_t)PTRDIFF_MAX;
static size_t volatile wraps = (size_t)1 << 33; /* its square is 0 */

static char *filled_heap(size_t size)
{
	char *p = malloc(size);

	CHECK(p, "malloc of %zu", size);
	CHECK((uintptr_t)p % 16 == 0, "%p is not aligned", (void *)p);
	fill_pages(p, 0, size / PAGE, 1);
	return p;
}

static void row_realloc_grow(size_t size)
{
	size_t n = 1 + (16u << 10) / PAGE;
	char *p = filled_heap(n * PAGE);

	/* Through every size from small to far beyond the budget. */
	while (n * PAGE < size / 2) {
		size_t m = n * 3 / 2 + 1;

		p = realloc(p, m * PAGE);
		CHECK(p, "realloc to %zu", m * PAGE);
		fill_pages(p, n, m, 1);
		n = m;
	}
	chill(size);
	check_pages(p, 0, n, 1, "grown");
	/* One big step, all of it cold. */
	p = realloc(p, size);
	CHECK(p, "realloc to %zu", size);
	check_pages(p, 0, n, 1, "grown once more");
	free(p);
}

static void row_realloc_shrink(size_t size)
{
	size_t n = size / PAGE;
	char *p = filled_heap(size);

	while (n > 2) {
		n = n * 2 / 3;
		p = realloc(p, n * PAGE);
		CHECK(p, "realloc to %zu", n * PAGE);
		check_pages(p, 0, n, 1, "shrunk");
	}
	p = realloc(p, 100);
	CHECK(p, "realloc to 100");
	CHECK(((uint64_t *)p)[0] == 0 && ((uint64_t *)p)[1] == 1, "content");
	p = realloc(p, 16u << 20);
	CHECK(p && ((uint64_t *)p)[1] == 1, "content");
	free(p);
}

/*
 * Blocks full of data are freed, cold; calloc of the same sizes must hold zeros.
 * Nothing is fetched: what was freed is dropped, and zeros need no far memory.
 */
static void row_calloc(size_t size)
{
	enum { N = 16 };
	char *p[N];

	for (unsigned round = 0; round < 4; round++) {
		for (unsigned i = 0; i < N; i++)
			p[i] = filled_heap(size / N);
		for (unsigned i = 0; i < N; i++)
			free(p[i]);
		for (unsigned i = 0; i < N; i++) {
			p[i] = calloc(size / N / 8, 8);
			CHECK(p[i], "calloc");
		}
		for (unsigned i = 0; i < N; i++) {
			check_zeros(p[i], 0, size / N / PAGE, "calloc");
			free(p[i]);
		}
	}
	/* The small ones. */
	for (size_t bytes = 8; bytes < 1u << 20; bytes *= 2) {
		unsigned char *q = malloc(bytes);

		memset(q, 0xff, bytes);
		free(HIDE(q));
		q = calloc(1, bytes);
		for (size_t i = 0; i < bytes; i++)
			CHECK(q[i] == 0, "calloc of %zu: byte %zu is %02x", bytes, i, q[i]);
		free(q);
	}
}

/* Memory that is freed must not count for ever: many times the size passes through. */
static void row_churn(size_t size)
{
	enum { N = 8 };
	char *p[N] = {NULL};

	for (unsigned i = 0; i < 12 * N; i++) {
		size_t bytes = size / N - (mix(i) % 64) * PAGE;

		free(p[i % N]);
		p[i % N] = filled_heap(bytes);
		if (i > N)
			page_check(p[(i + 1) % N], 0, 1, SEED, "a block that is in use");
	}
	for (unsigned i = 0; i < N; i++)
		free(p[i]);
}

static void row_align(size_t size)
{
	static const size_t bytes[] = {1, 100, 4096, 70000, 3u << 20, 9u << 20};

	(void)size;
	for (size_t align = sizeof(void *); align <= 4u << 20; align *= 2)
		for (size_t i = 0; i < sizeof(bytes) / sizeof(*bytes); i++) {
			void *p[3] = {NULL};

			CHECK(posix_memalign(&p[0], align, bytes[i]) == 0, "posix_memalign %zu", align);
			p[1] = aligned_alloc(align, (bytes[i] + align - 1) / align * align);
			p[2] = memalign(align, bytes[i]);
			for (unsigned k = 0; k < 3; k++) {
				CHECK(p[k] && (uintptr_t)p[k] % align == 0, "%p for alignment %zu, way %u",
				      p[k], align, k);
				memset(p[k], 0x5a, bytes[i]);
				CHECK(malloc_usable_size(p[k]) >= bytes[i], "usable size");
				/* realloc must cope with what memalign gave. */
				if (k == 0) {
					p[k] = realloc(p[k], bytes[i] * 2);
					CHECK(p[k], "realloc");
					CHECK(((char *)p[k])[bytes[i] - 1] == 0x5a, "content");
				}
			}
			for (unsigned k = 0; k < 3; k++)
				free(p[k]);
		}
}

static void row_memalign(size_t size)
{
	void *p = NULL;

	(void)size;
	p = valloc(5000);
	CHECK(p && (uintptr_t)p % PAGE == 0, "valloc");
	free(p);
	p = pvalloc(5000);
	CHECK(p && (uintptr_t)p % PAGE == 0 && malloc_usable_size(p) >= 8192, "pvalloc");
	memset(p, 1, 8192);
	free(p);
	p = valloc(9u << 20);
	CHECK(p && (uintptr_t)p % PAGE == 0, "large valloc");
	memset(p, 1, 9u << 20);
	free(p);
	/* Errors: by the result, errno untouched, the pointer untouched. */
	p = &size;
	errno = 0;
	CHECK(posix_memalign(&p, 3, 100) == EINVAL, "alignment 3");
	CHECK(posix_memalign(&p, 24, 100) == EINVAL, "alignment 24");
	CHECK(posix_memalign(&p, 4, 100) == EINVAL, "less than a pointer");
	CHECK(posix_memalign(&p, 0, 100) == EINVAL, "alignment 0");
	CHECK(posix_memalign(&p, 64, huge) == ENOMEM, "huge");
	CHECK(posix_memalign(&p, 1u << 20, huge) == ENOMEM, "huge");
	CHECK(p == (void *)&size, "the pointer changed on an error");
}

static void row_edges(size_t size)
{
	void *volatile a, *volatile b;

	(void)size;
	a = malloc(0);
	b = malloc(0);
	CHECK(a && b && a != b, "malloc(0): %p %p", a, b);
	free(a);
	free(b);
	a = calloc(0, 8);
	CHECK(a, "calloc(0)");
	free(a);
	free(NULL);
	a = realloc(NULL, 100);
	CHECK(a, "realloc of NULL");
	errno = 0;
	CHECK(!realloc(a, 0), "realloc to 0 frees, as glibc's does");

	errno = 0;
	CHECK(!(a = malloc(huge)) && errno == ENOMEM, "malloc: errno %d", errno);
	errno = 0;
	CHECK(!(a = malloc(huge * 2 + 1)) && errno == ENOMEM, "malloc(SIZE_MAX): errno %d", errno);
	errno = 0;
	CHECK(!(a = malloc((size_t)1 << 46)) && errno == ENOMEM, "malloc(64T): errno %d", errno);
	errno = 0;
	CHECK(!(a = calloc(huge, 4)) && errno == ENOMEM, "calloc: errno %d", errno);
	errno = 0;
	CHECK(!(a = calloc(wraps, wraps + 1)) && errno == ENOMEM,
	      "calloc overflow: errno %d", errno);
	errno = 0;
	CHECK(!(a = aligned_alloc(4096, huge)) && errno == ENOMEM, "aligned_alloc: errno %d", errno);

	/* A failed realloc leaves the block alone. */
	b = strcpy(malloc(100), "still here");
	errno = 0;
	CHECK(!(a = realloc(b, huge)) && errno == ENOMEM, "realloc: errno %d", errno);
	errno = 0;
	CHECK(!(a = reallocarray(b, wraps, wraps)) && errno == ENOMEM,
	      "reallocarray overflow: errno %d", errno);
	CHECK(!strcmp(b, "still here"), "content after a failed realloc");
	b = reallocarray(b, 100, 50);
	CHECK(b && !strcmp(b, "still here"), "reallocarray");
	errno = 123;
	free(b);
	CHECK(errno == 123, "free changed errno");
	b = malloc(64u << 20);
	errno = 123;
	free(b);
	CHECK(errno == 123, "free of a large block changed errno");
}

/* All of what malloc_usable_size says may be used. */
static void row_usable(size_t size)
{
	CHECK(malloc_usable_size(NULL) == 0, "of NULL");
	for (size_t bytes = 1; bytes <= size / 2; bytes = bytes * 3 / 2 + 1) {
		char *p = malloc(bytes);
		size_t usable = malloc_usable_size(p);

		CHECK(usable >= bytes && usable < bytes + bytes / 2 + (4u << 20), "%zu for %zu", usable,
		      bytes);
		memset(p, 1, usable);
		p[usable - 1] = 2;
		p = realloc(p, usable + 1);
		CHECK(p && p[usable - 1] == 2, "content");
		free(p);
	}
}

/* What libc itself takes from malloc and the program frees. */
static void row_libc(size_t size)
{
	char *line = NULL, *text = NULL, *s;
	size_t cap = 0, len = 0, large = size / 4;

	s = strdup("text");
	CHECK(s && !strcmp(s, "text"), "strdup");
	free(s);
	CHECK(asprintf(&s, "%0*d", 100000, 7) == 100000, "asprintf");
	free(s);
	FILE *f = open_memstream(&text, &len);
	for (size_t i = 0; i < large; i += 64)
		CHECK(fprintf(f, "%063zu\n", i) == 64, "open_memstream");
	CHECK(!fclose(f) && len == large, "length %zu", len);
	f = fmemopen(text, len, "r");
	for (size_t i = 0; i < large; i += 64)
		CHECK(getline(&line, &cap, f) == 64 && strtoul(line, NULL, 10) == i, "line %zu: %s", i, line);
	fclose(f);
	free(line);
	free(text);
	/* Part of glibc's interface: they may do nothing, but must be there and work. */
	mallopt(M_MMAP_THRESHOLD, 1 << 20);
	malloc_trim(0);
	(void)mallinfo2();
}

struct box {
	char *block[64];
	size_t bytes;
};

static void *give(void *arg)
{
	struct box *b = arg;

	for (unsigned i = 0; i < 64; i++)
		b->block[i] = filled_heap(b->bytes);
	return NULL;
}

static void *take(void *arg)
{
	struct box *b = arg;

	for (unsigned i = 0; i < 64; i++) {
		check_pages(b->block[i], 0, b->bytes / PAGE, 1, "another thread's block");
		free(b->block[i]);
	}
	return NULL;
}

/* One thread allocates, another frees. */
static void row_threads(size_t size)
{
	struct box box = {.bytes = size / 64 / PAGE * PAGE};
	pthread_t t;

	for (unsigned i = 0; i < 6; i++) {
		CHECK(!pthread_create(&t, NULL, give, &box), "thread");
		pthread_join(t, NULL);
		CHECK(!pthread_create(&t, NULL, take, &box), "thread");
		pthread_join(t, NULL);
	}
}

static const struct row rows[] = {
	{"realloc-grow", row_realloc_grow, true},
	{"realloc-shrink", row_realloc_shrink, true},
	{"calloc", row_calloc, false},
	{"churn", row_churn, true},
	{"align", row_align, false},
	{"memalign", row_memalign, false},
	{"edges", row_edges, false},
	{"usable", row_usable, false},
	{"libc", row_libc, false},
	{"threads", row_threads, false},
};

ROWS_MAIN(rows)
