/* SPDX-License-Identifier: Apache-2.0 */
/*
 * walk HOW SIZE SECONDS: fills SIZE bytes and then goes through them for SECONDS. HOW: read or
 * write (from end to end, again and again), random (a byte here and there), lock (reads, the
 * upper half being locked). Prints its PID once it has filled them, for who watches it.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static uint64_t next_random(void)
{
	static uint64_t x = 88172645463325252ull;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	return x;
}

int main(int argc, char **argv)
{
	if (argc != 4)
		return 2;
	size_t size = strtoull(argv[2], NULL, 0), n = size / 8;
	double end = now() + 1e9, seconds = atof(argv[3]);
	volatile uint64_t *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint64_t sum = 0;

	if (p == MAP_FAILED)
		return 1;
	for (size_t i = 0; i < n; i++)
		p[i] = next_random();
	if (!strcmp(argv[1], "lock") && mlock((char *)(uintptr_t)p + size / 2, size / 2))
		return 1;
	printf("%d\n", (int)getpid());
	fflush(stdout);
	for (end = now() + seconds; now() < end;) {
		if (!strcmp(argv[1], "random")) {
			sum += p[next_random() % n];
			continue;
		}
		for (size_t i = 0; i < n && (i % 65536 || now() < end); i += 8) {
			if (!strcmp(argv[1], "write"))
				p[i] = i;
			else
				sum += p[i];
		}
	}
	return sum == 1;
}
