/* SPDX-License-Identifier: Apache-2.0 */
/*
 * copies [MIB]: what leaves local memory is copied past the caches (provider/bytes.h, place.c):
 * is that better than memcpy here? Copies blocks of 2 MiB through MIB (512) of memory each way, and
 * after each block reads what a program has in its caches (256 KiB). One line a way: GB/s of the
 * copies, and how much longer the program's reads take than without any; the best of five rounds.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "provider/bytes.h"

#define BLOCK (2ul << 20)
#define CACHED (256ul << 10)
#define ROUNDS 5

static char *from, *to, *cached;
static size_t blocks;

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static double read_cached(void)
{
	double begin = now();
	uint64_t sum = 0;

	for (size_t i = 0; i < CACHED; i += sizeof(sum))
		sum += *(const uint64_t *)(const void *)(cached + i);
	__asm__ volatile("" : : "r"(sum));
	return now() - begin;
}

static void by_memcpy(void *d, const void *s, size_t n)
{
	memcpy(d, s, n);
	__asm__ volatile("" : : : "memory");
}

static void by_none(void *d, const void *s, size_t n)
{
	(void)d;
	(void)s;
	(void)n;
}

/* Seconds of a block's copy, and of the reads after it. */
static void pass(void (*copy)(void *, const void *, size_t), double *copies, double *reads)
{
	*copies = *reads = 0;
	for (size_t i = 0; i < blocks; i++) {
		read_cached(); /* it is in the caches */
		double begin = now();
		copy(to + i * BLOCK, from + i * BLOCK, BLOCK);
		*copies += now() - begin;
		*reads += read_cached();
	}
}

static void *memory(size_t n)
{
	void *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE,
		       -1, 0);

	if (p == MAP_FAILED) {
		perror("mmap");
		exit(1);
	}
	return p;
}

int main(int argc, char **argv)
{
	static void (*const way[])(void *, const void *, size_t) = { by_none, by_memcpy,
								     bytes_copy_out };
	static const char *const name[] = { "none", "memcpy", "past the caches" };
	double copies[3] = { 1e9, 1e9, 1e9 }, reads[3] = { 1e9, 1e9, 1e9 };

	blocks = (argc > 1 ? strtoul(argv[1], NULL, 10) : 512) / 2;
	from = memory(blocks * BLOCK);
	to = memory(blocks * BLOCK);
	cached = memory(CACHED);
	for (int round = 0; round < ROUNDS; round++)
		for (int w = 0; w < 3; w++) {
			double c, r;
			pass(way[w], &c, &r);
			copies[w] = c < copies[w] ? c : copies[w];
			reads[w] = r < reads[w] ? r : reads[w];
		}
	for (int w = 1; w < 3; w++)
		printf("%-16s %5.2f GB/s, then reads of what was cached take %.2f times as long\n",
		       name[w], (double)(blocks * BLOCK) / copies[w] / 1e9, reads[w] / reads[0]);
	return 0;
}
