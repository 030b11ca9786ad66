/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE 1 /* syscall */
#include "measure.h"

#include <errno.h>
#include <linux/mempolicy.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define MAX_NODES 1024
#define LINE 64u
#define FIRST_BYTES (256u << 10) /* tells how much more is worth the time */
#define LIMIT_NS 200000000ull	 /* for each of three */

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static uint64_t mb_a_second(uint64_t bytes, uint64_t ns)
{
	return bytes * 1000 / (ns ? ns : 1);
}

static uint64_t fill(char *p, size_t bytes)
{
	uint64_t begin = now_ns();

	memset(p, 1, bytes);
	__asm__ volatile("" : : "r"(p) : "memory");
	return now_ns() - begin;
}

static uint64_t sweep(const char *p, size_t bytes)
{
	const uint64_t *at = (const uint64_t *)(const void *)p;
	uint64_t begin = now_ns(), sum = 0;

	for (size_t i = 0; i < bytes / sizeof(*at); i++)
		sum += at[i];
	__asm__ volatile("" : : "r"(sum));
	return now_ns() - begin;
}

/* A tour of all lines whose steps prefetchers don't guess (a full-period LCG). ns a step. */
static uint64_t chase(char *p, size_t bytes)
{
	uint32_t lines = (uint32_t)(bytes / LINE), at = 0, steps = 0;
	uint64_t begin;

	for (uint32_t i = 0; i < lines; i++)
		memcpy(p + (size_t)i * LINE,
		       &(uint32_t){ (i * 1664525u + 1013904223u) & (lines - 1) }, sizeof(at));
	begin = now_ns();
	do {
		for (unsigned i = 0; i < 64; i++)
			memcpy(&at, p + (size_t)at * LINE, sizeof(at));
		steps += 64;
	} while (steps < lines && now_ns() - begin < LIMIT_NS);
	__asm__ volatile("" : : "r"(at));
	return (now_ns() - begin) / steps;
}

int measure_node(unsigned node, uint64_t bytes, struct speed *out)
{
	unsigned long mask[MAX_NODES / (8 * sizeof(unsigned long))] = { 0 };
	const unsigned bits = 8 * sizeof(unsigned long);
	size_t size = FIRST_BYTES;
	char *p;

	if (node >= MAX_NODES)
		return -EINVAL;
	while (size * 2 <= bytes)
		size *= 2;
	p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		return -errno;
	mask[node / bits] = 1ul << node % bits;
	if (syscall(SYS_mbind, p, size, MPOL_BIND, mask, (unsigned long)MAX_NODES, 0)) {
		int rc = -errno;

		munmap(p, size);
		return rc;
	}
	/* Twice: the first time includes the kernel's zeroing. */
	uint64_t first = fill(p, FIRST_BYTES);
	size_t use = FIRST_BYTES;
	while (use * 2 <= size && first * (use * 2 / FIRST_BYTES) < LIMIT_NS)
		use *= 2;
	fill(p, use);
	out->write_mb = mb_a_second(use, fill(p, use));
	out->read_mb = mb_a_second(use, sweep(p, use));
	out->latency_ns = chase(p, use);
	munmap(p, size);
	return 0;
}
