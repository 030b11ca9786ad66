/* SPDX-License-Identifier: Apache-2.0 */
/*
 * integrity SIZE THREADS ROUNDS SEED malloc|mmap|memalign|calloc|heap [TOGETHER]
 *
 * Writes and reads every page of SIZE bytes in random order from THREADS threads
 * and ends with status 1 at the first wrong byte. What a page must hold follows
 * from its number, its version and SEED. The versions are kept in a shared
 * mapping, which is never managed: a fault in the runtime can't hide itself by
 * damaging page and version alike.
 *
 * TOGETHER (a power of two, 16) neighbouring pages are visited one after the other,
 * in random order; as the threads share the work, they meet in the same block. With
 * 1, every step is to another place, which costs a transfer of a block for a page.
 *
 * Passes: write all; ROUNDS times check all and rewrite half of it; check all.
 * After SIGUSR1 it begins no further round.
 * Every third 2 MiB is left alone by the first pass, so that there are holes
 * (zeros where the allocator promises zeros), and every eighth version of a page
 * is zeros, so that pages turn to zero and back. The second half of each round
 * visits pages that others are busy with.
 *
 * heap: many allocations of all sizes, by all functions of the family; between the
 * rounds some are freed and taken anew, some grow or shrink.
 */
#include "prog.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>

#define BLOCK_PAGES ((size_t)512)
#define UNKNOWN UINT32_MAX /* the allocator promises nothing about the content */

struct page {
	_Atomic uint32_t busy;
	uint32_t version;
	uint32_t chunk;
};

/* One allocation: `room` pages from `first` on belong to it, `used` of them exist now. */
struct chunk {
	char *base;
	size_t first, room, used;
};

static struct page *pages;
static struct chunk *chunks;
static size_t npages, nchunks, together = 16;
static unsigned mask_bits;
static uint64_t seed;

enum work { WRITE, CHECK_REWRITE, CHECK_ONLY };
static enum work work;
static uint64_t pass;
static _Atomic size_t next;

/* Never managed: MAP_SHARED. */
static void *table(size_t bytes)
{
	return SYS(mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
}

/* A permutation of 0..npages-1 for each pass, without memory: mix in mask_bits, walk the cycle. */
static size_t permute(size_t i)
{
	const uint64_t mask = (1ull << mask_bits) - 1;
	const uint64_t a = mix(seed + pass) | 1, b = mix(seed - pass) | 1;
	uint64_t x = i / together, within = i % together;

	do {
		x = (x * a + b) & mask;
		x ^= x >> (mask_bits / 2 + 1);
		x = (x * b + a) & mask;
		x ^= x >> (mask_bits / 3 + 1);
	} while (x >= npages / together);
	return x * together + (within * a + b) % together;
}

static bool is_zeros(uint32_t version)
{
	return version % 8 == 0;
}

static void put(size_t n, char *at)
{
	struct page *pg = &pages[n];

	pg->version = pg->version == UNKNOWN ? 1 : pg->version + 1;
	if (is_zeros(pg->version))
		memset(at, 0, PAGE);
	else
		page_fill(at, n, pg->version, seed);
}

static void verify(size_t n, const char *at)
{
	const struct page *pg = &pages[n];

	if (pg->version == UNKNOWN)
		return;
	if (is_zeros(pg->version))
		page_expect(at, NULL, n, pg->version, "zeros");
	else
		page_check(at, n, pg->version, seed, "data");
}

static void visit(size_t n, bool write, bool check)
{
	struct page *pg = &pages[n];
	const struct chunk *c = &chunks[pg->chunk];

	if (n - c->first >= c->used)
		return;
	while (atomic_exchange_explicit(&pg->busy, 1, memory_order_acquire))
		sched_yield();
	char *at = c->base + (n - c->first) * PAGE;
	if (check)
		verify(n, at);
	if (write)
		put(n, at);
	atomic_store_explicit(&pg->busy, 0, memory_order_release);
}

static void *worker(void *arg)
{
	size_t i;

	while ((i = atomic_fetch_add(&next, 1)) < npages) {
		size_t n = permute(i);
		bool odd = mix(n + pass) & 1;

		switch (work) {
		case WRITE:
			if (n / BLOCK_PAGES % 3 != 2)
				visit(n, true, false);
			break;
		case CHECK_REWRITE:
			visit(n, odd, true);
			/* What another thread has just visited or is visiting. */
			visit(permute(i > 2 ? i - 2 : i), odd, true);
			break;
		case CHECK_ONLY:
			visit(n, false, true);
			break;
		}
	}
	return arg;
}

static void run_pass(enum work w, size_t nthreads)
{
	pthread_t thread[64];

	work = w;
	pass++;
	atomic_store(&next, 0);
	for (size_t i = 0; i < nthreads; i++)
		if (pthread_create(&thread[i], NULL, worker, NULL))
			die("no thread");
	for (size_t i = 0; i < nthreads; i++)
		pthread_join(thread[i], NULL);
}

static void set_versions(struct chunk *c, size_t from, size_t to, uint32_t version)
{
	for (size_t i = from; i < to; i++)
		pages[c->first + i].version = version;
}

/* Which function allocates a chunk follows from r. */
static void take(struct chunk *c, uint64_t r)
{
	size_t bytes = c->used * PAGE;
	void *p = NULL;
	bool zeros = false;

	switch (r % 4) {
	case 0:
		p = malloc(bytes);
		break;
	case 1:
		p = calloc(c->used, PAGE);
		zeros = true;
		break;
	case 2:
		if (posix_memalign(&p, (size_t)4096 << (r / 4 % 11), bytes))
			p = NULL;
		break;
	case 3:
		p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (p == MAP_FAILED)
			p = NULL;
		zeros = true;
		break;
	}
	if (!p)
		die("no memory for %zu bytes", bytes);
	c->base = p;
	set_versions(c, 0, c->used, zeros ? 0 : UNKNOWN);
}

static bool is_mmap(uint64_t r)
{
	return r % 4 == 3;
}

static void drop(struct chunk *c, uint64_t r)
{
	if (is_mmap(r))
		SYS(munmap(c->base, c->used * PAGE));
	else
		free(c->base);
}

static void resize(struct chunk *c, uint64_t r, size_t used)
{
	char *p;

	if (is_mmap(r))
		p = SYS(mremap(c->base, c->used * PAGE, used * PAGE, MREMAP_MAYMOVE));
	else
		p = realloc(c->base, used * PAGE);
	if (!p)
		die("no memory for %zu bytes", used * PAGE);
	c->base = p;
	if (used > c->used)
		set_versions(c, c->used, used, is_mmap(r) ? 0 : UNKNOWN);
	c->used = used;
}

static uint64_t chunk_random(size_t i)
{
	return mix(seed * 31 + i);
}

/* Some chunks change between the rounds; each keeps its way of allocation. */
static void stir(unsigned round)
{
	for (size_t i = 0; i < nchunks; i++) {
		struct chunk *c = &chunks[i];
		uint64_t r = chunk_random(i), what = mix(r + round);

		switch (what % 4) {
		case 0:
			drop(c, r);
			c->used = c->room;
			take(c, r);
			break;
		case 1:
			resize(c, r, 1 + what / 4 % c->room);
			break;
		}
	}
}

static void allocate_heap(size_t total)
{
	size_t left = total / PAGE;

	chunks = table((left + 1) * sizeof(*chunks));
	for (npages = 0; left; nchunks++) {
		uint64_t r = chunk_random(nchunks);
		/* 4 KiB to 16 MiB, each power of two as likely as the other. */
		size_t n = ((size_t)1 << (r >> 8) % 12) + (r >> 32) % 97;
		struct chunk *c = &chunks[nchunks];

		if (n > left)
			n = left;
		*c = (struct chunk){.first = npages, .room = n, .used = n};
		for (size_t i = 0; i < n; i++)
			pages[npages + i].chunk = (uint32_t)nchunks;
		take(c, r);
		npages += n;
		left -= n;
	}
}

static void allocate_one(size_t total, const char *how)
{
	static const char *const name[] = {"malloc", "calloc", "memalign", "mmap"};
	uint64_t r = 0;

	while (r < 4 && strcmp(how, name[r]))
		r++;
	if (r == 4)
		die("no such way to allocate: %s", how);
	if (!strcmp(how, "memalign"))
		r += 4 * 9; /* 2 MiB */
	chunks = table(sizeof(*chunks));
	nchunks = 1;
	npages = total / PAGE;
	chunks[0] = (struct chunk){.room = npages, .used = npages};
	take(&chunks[0], r);
}

static volatile sig_atomic_t enough;

static void on_usr1(int sig)
{
	(void)sig;
	enough = 1;
}

int main(int argc, char **argv)
{
	signal(SIGUSR1, on_usr1);
	if (argc != 6 && argc != 7)
		die("usage: integrity SIZE THREADS ROUNDS SEED malloc|mmap|memalign|calloc|heap [TOGETHER]");
	size_t total = size_arg(argv[1]), nthreads = strtoul(argv[2], NULL, 10);
	unsigned rounds = (unsigned)strtoul(argv[3], NULL, 10);
	seed = strtoull(argv[4], NULL, 0);
	if (nthreads < 1 || nthreads > 64)
		die("1 to 64 threads");
	if (argc == 7)
		together = strtoul(argv[6], NULL, 10);
	if (!together || (together & (together - 1)) || total % (together * PAGE))
		die("TOGETHER: a power of two of pages that divides the size");
	printf("integrity: %s by %s, %zu threads, %u rounds, seed %lu\n", argv[1], argv[5], nthreads,
	       rounds, (unsigned long)seed);
	fflush(stdout);

	bool heap = !strcmp(argv[5], "heap");
	pages = table(total / PAGE * sizeof(*pages));
	if (heap)
		allocate_heap(total);
	else
		allocate_one(total, argv[5]);
	while ((1ull << mask_bits) < npages / together)
		mask_bits++;

	run_pass(WRITE, nthreads);
	for (unsigned i = 0; i < rounds && !enough; i++) {
		run_pass(CHECK_REWRITE, nthreads);
		if (heap)
			stir(i);
	}
	run_pass(CHECK_ONLY, nthreads);
	printf("integrity: %zu pages right\n", npages);
	fflush(stdout);
	write_stats();
	return 0;
}
