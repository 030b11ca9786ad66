/* SPDX-License-Identifier: Apache-2.0 */
/*
 * work WORK SIZE_MIB SECONDS [THREADS]: a plain program that uses memory in one way; what is
 * measured is what it runs under. It asks for huge pages, as engines do for weights.
 *
 *   fill      writes memory that was never touched, from end to end
 *   copy      memcpy of one half to the other, again and again
 *   sweep     reads all, from end to end, again and again; THREADS share each pass in chunks
 *   fits      the same with the first eighth only: the rest is never touched again
 *   read      reads pages of 4 KiB at random
 *   write     writes pages of 4 KiB at random, every page as often as every other
 *   skewed    the same with nine of ten writes on a tenth of the pages, which lie anywhere
 *   touch     reads a word here and there, blocks far apart; how long those took that were not at
 *             hand at once
 *   touched   the same beside a thread that sweeps half of the memory
 *
 * It says "ready" when all is filled and a bit of the work is done, waits for a line, works for
 * SECONDS, and prints one line of JSON: samples ("values", GB/s of 1e9 bytes or accesses a
 * second), "needed": the bytes that it used meanwhile. Then it waits for the end of its
 * input. It checks what it reads; wrong content ends it with status 1.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096ul
#define WORDS (PAGE / 8)
#define CHUNK (1ul << 20)
#define MAX_SAMPLES 4096
#define BATCHES 20 /* samples of random work in its time */

static uint64_t *mem;
static size_t bytes, npages;
static double seconds;
static unsigned threads = 1;
static double value[MAX_SAMPLES];
static unsigned nvalues;
static uint64_t needed;

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void fail(const char *what, size_t page)
{
	fprintf(stderr, "work: %s, page %zu\n", what, page);
	_exit(1);
}

static void sample(double v)
{
	if (nvalues < MAX_SAMPLES)
		value[nvalues++] = v;
}

static uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15ull;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
	return x ^ (x >> 31);
}

/* xorshift64: incompressible, and cheap beside the memory traffic. */
static uint64_t next(uint64_t *x)
{
	*x ^= *x << 13;
	*x ^= *x >> 7;
	*x ^= *x << 17;
	return *x;
}

/* A page that its number and version make, so that it can be told whether it is right. */
static void put_page(size_t page, uint64_t version)
{
	uint64_t *w = mem + page * WORDS, x = mix(page ^ version << 40), sum = 0;

	for (size_t i = 1; i < WORDS; i++)
		sum += w[i] = next(&x);
	w[0] = sum;
}

static void get_page(size_t page)
{
	const uint64_t *w = mem + page * WORDS;
	uint64_t sum = 0;

	for (size_t i = 1; i < WORDS; i++)
		sum += w[i];
	if (sum != w[0])
		fail("wrong content", page);
}

static uint64_t sum_of(const uint64_t *p, size_t words)
{
	uint64_t s[8] = { 0 };

	for (size_t i = 0; i < words; i += 8)
		for (size_t k = 0; k < 8; k++)
			s[k] += p[i + k];
	return s[0] + s[1] + s[2] + s[3] + s[4] + s[5] + s[6] + s[7];
}

static void ready(void)
{
	puts("ready");
	fflush(stdout);
	while (getchar() != '\n')
		if (feof(stdin))
			_exit(1);
}

/* --- from end to end --- */

static void fill(void)
{
	double begin = now(), from = begin;

	/* A sample an eighth: what is beyond the budget has to go meanwhile. */
	for (size_t page = 0; page < npages; page++) {
		put_page(page, 0);
		if ((page + 1) % (npages / 8) == 0) {
			sample((double)(bytes / 8) / (now() - from) / 1e9);
			from = now();
		}
	}
	needed = bytes;
}

static void copy(void)
{
	char *a = (char *)mem, *b = a + bytes / 2;
	double end = now() + seconds;

	do {
		double from = now();
		memcpy(b, a, bytes / 2);
		sample((double)(bytes / 2) / (now() - from) / 1e9);
		needed += bytes;
	} while (now() < end);
}

static _Atomic size_t next_chunk;
static size_t sweep_bytes;
static _Atomic uint64_t total;

static void *sweeper(void *unused)
{
	uint64_t sum = 0;
	size_t at;

	(void)unused;
	while ((at = atomic_fetch_add(&next_chunk, CHUNK)) < sweep_bytes)
		sum += sum_of(mem + at / 8, CHUNK / 8);
	atomic_fetch_add(&total, sum);
	return NULL;
}

static uint64_t pass(void)
{
	pthread_t t[16];

	next_chunk = total = 0;
	for (unsigned i = 1; i < threads; i++)
		if (pthread_create(t + i, NULL, sweeper, NULL))
			fail("no thread", i);
	sweeper(NULL);
	for (unsigned i = 1; i < threads; i++)
		pthread_join(t[i], NULL);
	return total;
}

static uint64_t first_sum;

static void sweep(void)
{
	double end = now() + seconds;

	do {
		double from = now();
		if (pass() != first_sum)
			fail("a sum is wrong", 0);
		sample((double)sweep_bytes / (now() - from) / 1e9);
		needed += sweep_bytes;
	} while (now() < end || nvalues < 2);
}

/* --- at random --- */

static uint64_t state = 88172645463325252ull;

static size_t any_page(void)
{
	return next(&state) % npages;
}

/* The hot tenth is scattered: page k of it is the k-th of a permutation. */
static size_t skewed_page(void)
{
	uint64_t r = next(&state);
	size_t k = r % 10 ? (r >> 8) % (npages / 10) : (r >> 8) % npages;

	/* An odd factor is a permutation of a power of two; what falls outside goes round again. */
	size_t mask = 1;
	while (mask < npages)
		mask <<= 1;
	do
		k = (k * 0x9e3779b1ul + 12345) & (mask - 1);
	while (k >= npages);
	return k;
}

static void random_work(size_t (*pick)(void), bool write, double time, bool keep)
{
	double begin = now(), from = begin, t;
	uint64_t done = 0, before = 0;

	while ((t = now()) < begin + time) {
		for (int i = 0; i < 16; i++) {
			size_t page = pick();
			if (write)
				put_page(page, done + (uint64_t)i);
			else
				get_page(page);
		}
		done += 16;
		if (keep && t - from >= time / BATCHES) {
			sample((double)(done - before) / (now() - from));
			from = now();
			before = done;
		}
	}
	if (keep)
		needed = done * PAGE;
}

/* --- what a fault takes --- */

static _Atomic bool enough;

static void *sweep_half(void *unused)
{
	(void)unused;
	while (!enough)
		for (size_t at = 0; at < bytes / 2 && !enough; at += CHUNK)
			if (sum_of(mem + at / 8, CHUNK / 8) == 1)
				fail("a sum is wrong", at);
	return NULL;
}

static double waits[1 << 16];
static unsigned nwaits;

static int ascending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

#define TOUCHES 200 /* for a quantile of 99% */
#define PATIENCE 20 /* times the time that was given */

/* Microseconds of the touches that took longer than memory does, even behind a TLB miss. */
static void touch(double time, unsigned least)
{
	double begin = now(), t = begin;
	size_t half = npages / 2;

	while (nwaits < sizeof(waits) / sizeof(waits[0]) &&
	       (t < begin + time || (nwaits < least && t < begin + PATIENCE * time))) {
		size_t page = half + next(&state) % half;
		double from = now();
		uint64_t w = *(volatile uint64_t *)(mem + page * WORDS);
		double us = (now() - from) * 1e6;

		(void)w;
		if (us > 3)
			waits[nwaits++] = us;
		needed += PAGE;
		t = now();
	}
}

static void touches(bool beside)
{
	pthread_t t;

	if (beside && pthread_create(&t, NULL, sweep_half, NULL))
		fail("no thread", 0);
	touch(seconds / 4, 0); /* streams are found, budgets are filled */
	nwaits = 0;
	touch(seconds, TOUCHES);
	enough = true;
	if (beside)
		pthread_join(t, NULL);
	qsort(waits, nwaits, sizeof(waits[0]), ascending);
	if (nwaits)
		printf("{\"waits\": %u, \"p50_us\": %.1f, \"p99_us\": %.1f}\n", nwaits,
		       waits[nwaits / 2], waits[(size_t)nwaits * 99 / 100]);
	else
		puts("{\"waits\": 0}");
}

int main(int argc, char **argv)
{
	const char *work = argc > 3 ? argv[1] : "";

	bytes = argc > 3 ? strtoul(argv[2], NULL, 10) << 20 : 0;
	seconds = argc > 3 ? atof(argv[3]) : 0;
	if (argc > 4)
		threads = (unsigned)atoi(argv[4]);
	npages = bytes / PAGE;
	if (bytes < 16 * CHUNK || seconds <= 0 || threads < 1 || threads > 16) {
		fprintf(stderr, "usage: work WORK SIZE_MIB SECONDS [THREADS]\n");
		return 2;
	}
	mem = aligned_alloc((size_t)2 << 20, bytes);
	if (!mem) {
		perror("work");
		return 1;
	}
	madvise(mem, bytes, MADV_HUGEPAGE);
	bool fits = !strcmp(work, "fits"), sweeps = fits || !strcmp(work, "sweep");
	sweep_bytes = fits ? bytes / 8 / CHUNK * CHUNK : bytes;
	bool is_fill = !strcmp(work, "fill");
	if (!is_fill)
		for (size_t page = 0; page < npages; page++)
			put_page(page, 0);

	size_t (*pick)(void) = !strcmp(work, "skewed") ? skewed_page : any_page;
	bool writes = !strcmp(work, "write") || !strcmp(work, "skewed");
	bool is_random = writes || !strcmp(work, "read");

	if (sweeps) {
		first_sum = pass();
	} else if (is_random) {
		random_work(pick, writes, seconds / 2, false);
	}
	ready();
	if (is_fill)
		fill();
	else if (!strcmp(work, "copy"))
		copy();
	else if (sweeps)
		sweep();
	else if (is_random)
		random_work(pick, writes, seconds, true);
	else if (!strcmp(work, "touch") || !strcmp(work, "touched"))
		touches(!strcmp(work, "touched"));
	else
		fail("no such work", 0);
	if (nvalues) {
		printf("{\"needed\": %lu, \"values\": [", (unsigned long)needed);
		for (unsigned i = 0; i < nvalues; i++)
			printf("%s%.4g", i ? ", " : "", value[i]);
		puts("]}");
	}
	fflush(stdout);
	while (getchar() != EOF)
		;
	return 0;
}
