/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sweep SIZE PASSES: fills SIZE bytes with random words, then reads them from
 * end to end PASSES times. Prints a line for each pass with its GB/s (1e9 bytes)
 * and the sum of all words, which must be the same every time. It is a plain
 * program: what is measured is what it runs under.
 *
 * It asks for huge pages, as engines do for weights: whoever serves the memory
 * may use them.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static uint64_t fill(uint64_t *p, size_t n)
{
	/* xorshift64: incompressible, and cheap beside the memory traffic. */
	uint64_t x = 88172645463325252ull, sum = 0;

	for (size_t i = 0; i < n; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		p[i] = x;
		sum += x;
	}
	return sum;
}

static uint64_t add_up(const uint64_t *p, size_t n)
{
	uint64_t s[8] = {0};

	for (size_t i = 0; i < n; i += 8)
		for (size_t k = 0; k < 8; k++)
			s[k] += p[i + k];
	return s[0] + s[1] + s[2] + s[3] + s[4] + s[5] + s[6] + s[7];
}

/* With TIERSTAT_OUT, $TIERSTAT writes this process's statistics there. */
static void write_stats(void)
{
	const char *out = getenv("TIERSTAT_OUT"), *tierstat = getenv("TIERSTAT");
	char cmd[1024];

	if (!out || !tierstat)
		return;
	snprintf(cmd, sizeof(cmd), "LD_PRELOAD= '%s' --json -p %d > '%s'", tierstat, (int)getpid(),
		 out);
	if (system(cmd) != 0)
		fprintf(stderr, "sweep: tierstat failed\n");
}

int main(int argc, char **argv)
{
	char *end;
	size_t bytes = argc == 3 ? strtoul(argv[1], &end, 10) : 0;
	int passes = argc == 3 ? atoi(argv[2]) : 0;

	if (bytes && *end == 'M')
		bytes <<= 20;
	else if (bytes && *end == 'G')
		bytes <<= 30;
	if (bytes < 4096 || passes < 1) {
		fprintf(stderr, "usage: sweep SIZE[M|G] PASSES\n");
		return 2;
	}
	size_t n = bytes / 64 * 8;
	uint64_t *p = aligned_alloc((size_t)2 << 20, bytes);
	if (!p) {
		perror("sweep");
		return 1;
	}
	madvise(p, bytes, MADV_HUGEPAGE);

	double t = now();
	uint64_t sum = fill(p, n);
	printf("fill %.3f GB/s sum %016lx\n", (double)n * 8 / (now() - t) / 1e9, (unsigned long)sum);
	int bad = 0;
	for (int i = 1; i <= passes; i++) {
		t = now();
		uint64_t got = add_up(p, n);
		printf("pass %d %.3f GB/s sum %016lx\n", i, (double)n * 8 / (now() - t) / 1e9,
		       (unsigned long)got);
		fflush(stdout);
		bad |= got != sum;
	}
	write_stats();
	if (bad)
		fprintf(stderr, "sweep: a sum is wrong\n");
	return bad;
}
