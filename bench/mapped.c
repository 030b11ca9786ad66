/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mapped FILE SECONDS: maps FILE read-only and sweeps it from end to end, again and again; prints
 * GB/s (of 1e9 bytes) of the median sweep after the first, their number, and a checksum.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>

#define SWEEPS 4096

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static int ascending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static uint64_t sum(const uint64_t *p, size_t n)
{
	uint64_t s = 0;

	for (size_t i = 0; i < n; i++)
		s += p[i];
	return s;
}

int main(int argc, char **argv)
{
	static double took[SWEEPS];
	struct stat st;
	unsigned n = 0;
	int fd = argc == 3 ? open(argv[1], O_RDONLY) : -1;

	if (fd < 0 || fstat(fd, &st)) {
		fprintf(stderr, "usage: mapped FILE SECONDS\n");
		return 2;
	}
	size_t words = (size_t)st.st_size / sizeof(uint64_t);
	const uint64_t *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED) {
		perror("mmap");
		return 1;
	}
	double begin = now(), end = begin + atof(argv[2]);
	uint64_t first = sum(p, words);
	printf("first sweep %.2f s\n", now() - begin);
	while (n < SWEEPS && (now() < end || n < 2)) {
		double at = now();
		if (sum(p, words) != first) {
			fprintf(stderr, "mapped: another checksum than before\n");
			return 1;
		}
		took[n++] = now() - at;
	}
	qsort(took, n, sizeof(*took), ascending);
	printf("%.3f GB/s in the median of %u sweeps, checksum %016llx\n",
	       (double)st.st_size / took[n / 2] / 1e9, n, (unsigned long long)first);
	return 0;
}
