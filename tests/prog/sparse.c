/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sparse WORK SIZE READS SEED: memory that is hit here and there, and what else happens to blocks
 * of which only some pages are in place. READS pages at random, by two threads, and in between, by
 * WORK:
 *
 *   read     nothing else
 *   write    some of the pages are written
 *   punch    pages are discarded, neighbours of what was read among them
 *   move     a part is moved by mremap, and back
 *   protect  a part is read-only for a while
 *   fork     a child reads and writes, and so does the parent
 *   sweep    all is read from end to end
 *   runs     of each three pages more, not far behind it
 *   alone    nothing else, and by one thread; says how often a thread under SCHED_IDLE was given a core,
 *            and how many go before it
 *   shared   not at random but from end to end, by threads that take their pieces from one counter as
 *            those of a matrix product do, and then some at random
 *   beside   by one thread in the second half, beside one that reads the first half from end to end, again
 *            and again
 *
 * Every page is checked at each read, and all of them at the end.
 */
#include "prog.h"

#include <dirent.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <sys/wait.h>

enum { CLUSTER = 16, THREADS = 2, ROUNDS = 16, TOURS = 4, PIECE = 40 };

static char *mem;
static size_t pages, reads, threads = THREADS;
static bool runs;
static uint32_t *version; /* of each page; 0: zeros */

static void write_page(size_t i)
{
	uint64_t *w = (uint64_t *)(mem + i * PAGE);

	version[i]++;
	for (size_t k = 0; k < WORDS; k++)
		w[k] = mix(i * WORDS + k + ((uint64_t)version[i] << 40));
}

static void check_page(size_t i, const char *when)
{
	const uint64_t *w = (const uint64_t *)(mem + i * PAGE);

	/* The first and one more: what is between has come with them. */
	for (size_t k = 0; k < WORDS; k += WORDS / 2 + 1) {
		uint64_t want = version[i] ? mix(i * WORDS + k + ((uint64_t)version[i] << 40)) : 0;
		CHECK(w[k] == want, "page %zu, word %zu, %s: %#llx, not %#llx", i, k, when,
		      (unsigned long long)w[k], (unsigned long long)want);
	}
}

static void check_all(const char *when)
{
	for (size_t i = 0; i < pages; i++)
		check_page(i, when);
}

struct reader {
	uint64_t state;
	unsigned write; /* one in so many; 0: none */
	size_t first, n;
};

static size_t next(struct reader *r)
{
	r->state = mix(r->state);
	return r->first + (r->state >> 8) % r->n;
}

/* Each thread has pages of its own, in the same blocks: the odd, or the even ones. */
static void *read_some(void *arg)
{
	struct reader *r = arg;

	for (size_t k = 0; k < reads / threads / ROUNDS; k++) {
		size_t i = next(r) / threads * threads + r->first % threads;
		if (i >= pages)
			continue;
		check_page(i, "at random");
		for (size_t n = 1; runs && n <= 3 && i + n * (CLUSTER + 4) < pages; n++)
			check_page(i + n * (CLUSTER + 4), "behind one at random");
		if (r->write && r->state % r->write == 0)
			write_page(i);
	}
	return NULL;
}

static void read_random(uint64_t seed, unsigned write)
{
	struct reader r[THREADS];
	pthread_t t[THREADS];

	for (unsigned i = 0; i < threads; i++) {
		r[i] = (struct reader){ mix(seed * THREADS + i), write, i, pages - i };
		CHECK(!pthread_create(t + i, NULL, read_some, r + i), "no thread");
	}
	for (unsigned i = 0; i < threads; i++)
		pthread_join(t[i], NULL);
}

static _Atomic size_t piece;

static void *read_pieces(void *unused)
{
	size_t i;

	(void)unused;
	while ((i = PIECE * atomic_fetch_add(&piece, 1)) < pages)
		for (size_t k = 0; k < PIECE && i + k < pages; k++)
			check_page(i + k, "in pieces");
	return NULL;
}

static void read_shared(uint64_t seed)
{
	struct reader r = { mix(seed), 0, 0, pages };
	pthread_t t[THREADS];

	piece = 0;
	for (unsigned i = 0; i < threads; i++)
		CHECK(!pthread_create(t + i, NULL, read_pieces, NULL), "no thread");
	for (unsigned i = 0; i < threads; i++)
		pthread_join(t[i], NULL);
	for (int k = 0; k < 8; k++)
		check_page(next(&r), "after the pieces");
}

static atomic_bool enough;

static void *read_first_half(void *unused)
{
	(void)unused;
	while (!enough)
		for (size_t i = 0; i < pages / 2 && !enough; i++)
			check_page(i, "in the sweep");
	return NULL;
}

static void read_beside(uint64_t seed)
{
	struct reader r = { mix(seed), 0, pages / 2, pages / 2 };
	pthread_t t;

	CHECK(!pthread_create(&t, NULL, read_first_half, NULL), "no thread");
	for (size_t k = 0; k < reads; k++)
		check_page(next(&r), "beside the sweep");
	enough = true;
	pthread_join(t, NULL);
}

static void punch(uint64_t seed)
{
	struct reader r = { mix(seed), 0, 0, pages };

	for (int k = 0; k < 8; k++) {
		size_t i = next(&r), n = 1 + r.state % (2 * CLUSTER);
		if (i + n > pages)
			n = pages - i;
		check_page(i, "before it is discarded");
		SYS(madvise(mem + i * PAGE, n * PAGE, MADV_DONTNEED));
		memset(version + i, 0, n * sizeof(*version));
		check_page(i, "discarded");
		check_page(i + n - 1, "discarded");
		if (k & 1)
			write_page(i);
	}
}

static void move(uint64_t seed)
{
	struct reader r = { mix(seed), 0, 0, pages / 2 };
	size_t i = next(&r), n = 1 + r.state % (pages / 2 - 1);
	char *to = SYS(
	    mmap(NULL, n * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
	char *was = mem;

	SYS(mremap(mem + i * PAGE, n * PAGE, n * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to));
	mem = to - i * PAGE;
	for (size_t k = i; k < i + n; k += 1 + mix(k) % 99) {
		check_page(k, "moved");
		if (k % 3 == 0)
			write_page(k);
	}
	mem = was;
	SYS(mremap(to, n * PAGE, n * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, mem + i * PAGE));
}

static void protect(uint64_t seed)
{
	struct reader r = { mix(seed), 0, 0, pages / 2 };
	size_t i = next(&r), n = 1 + r.state % (pages / 2 - 1);

	SYS(mprotect(mem + i * PAGE, n * PAGE, PROT_READ));
	read_random(seed, 0);
	SYS(mprotect(mem + i * PAGE, n * PAGE, PROT_READ | PROT_WRITE));
}

static void family(uint64_t seed)
{
	pid_t child = SYS(fork());

	read_random(seed + !child, 4);
	if (!child) {
		check_all("in the child");
		_exit(0);
	}
	int status;
	SYS(waitpid(child, &status, 0));
	CHECK(!status, "the child ended with %#x", status);
}

/* The program has none such itself: it is the one that serves faults nearby (src/follow.h). */
static void tell_near(void)
{
	char path[300];
	unsigned long long times = 0;
	unsigned before = 0;
	struct dirent *e;
	DIR *d = opendir("/proc/self/task");

	while (d && (e = readdir(d))) {
		FILE *f;
		before += atoi(e->d_name) && getpriority(PRIO_PROCESS, (id_t)atoi(e->d_name)) <
						 getpriority(PRIO_PROCESS, 0);
		if (sched_getscheduler(atoi(e->d_name)) != SCHED_IDLE || e->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "/proc/self/task/%s/schedstat", e->d_name);
		f = fopen(path, "r");
		if (f && fscanf(f, "%*u %*u %llu", &times) != 1)
			times = 0;
		if (f)
			fclose(f);
	}
	closedir(d);
	printf("near %llu\nbefore %u\n", times, before);
}

int main(int argc, char **argv)
{
	if (argc != 5)
		die("usage: sparse WORK SIZE READS SEED");
	const char *work = argv[1];
	uint64_t seed = strtoull(argv[4], NULL, 10);

	pages = size_arg(argv[2]) / PAGE;
	reads = strtoull(argv[3], NULL, 10);
	mem = SYS(
	    mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	if (!strcmp(work, "alone"))
		threads = 1;
	runs = !strcmp(work, "runs");
	version = calloc(pages, sizeof(*version));
	for (size_t i = 0; i < pages; i++)
		write_page(i);
	bool beside = !strcmp(work, "beside"), shared = !strcmp(work, "shared");
	for (uint64_t k = 0; shared && k < TOURS * ROUNDS; k++)
		read_shared(seed * ROUNDS * TOURS + k);
	if (beside)
		read_beside(seed);
	for (uint64_t k = 0; !shared && !beside && k < ROUNDS; k++) {
		read_random(seed * ROUNDS + k, !strcmp(work, "write") ? 8 : 0);
		if (!strcmp(work, "punch"))
			punch(seed * ROUNDS + k);
		else if (!strcmp(work, "move"))
			move(seed * ROUNDS + k);
		else if (!strcmp(work, "protect"))
			protect(seed * ROUNDS + k);
		else if (!strcmp(work, "fork") && k % 4 == 0)
			family(seed * ROUNDS + k);
		else if (!strcmp(work, "sweep"))
			check_all("from end to end");
	}
	/* What is asked of the statistics is asked of reads at random alone. */
	write_stats();
	check_all("in the end");
	if (threads == 1)
		tell_near();
	return 0;
}
