/* SPDX-License-Identifier: Apache-2.0 */
/*
 * walk HOW SIZE SECONDS: fills SIZE bytes and then goes through them for SECONDS. HOW:
 *
 *   read     from end to end, again and again
 *   write    the same, and changes them
 *   random   a word here and there
 *   think    reads as well, and does something else between blocks of 2 MiB
 *   sealed   the same with what may not be written any more
 *   pin      reads, a sixteenth being pinned by the kernel, which nobody is told
 *   fresh    fills new memory and gives it back, again and again
 *   apart    a word here and there in each quarter, by a thread of its own; then says which threads
 *            "emf-fault" there are, and how many bytes each has read from descriptors. Then one
 *            of its threads alone for as long, and the same as "alone"
 *
 * Prints its PID once it has filled them, for who watches it.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <linux/io_uring.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define BLOCK ((size_t)2 << 20)
#define LINE 8 /* words */

static double end;
static uint64_t sum;

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

static volatile uint64_t *filled(size_t size)
{
	volatile uint64_t *p =
	    mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		exit(1);
	for (size_t i = 0; i < size / sizeof(*p); i++)
		p[i] = next_random();
	return p;
}

static void read_all(volatile uint64_t *p, size_t n, bool think)
{
	for (size_t i = 0; i < n; i += LINE) {
		if (i % (BLOCK / sizeof(*p)) == 0) {
			if (now() >= end)
				return;
			if (think)
				usleep(5000);
		}
		sum += p[i];
	}
}

static void write_all(volatile uint64_t *p, size_t n)
{
	for (size_t i = 0; i < n; i += LINE) {
		if (i % (BLOCK / sizeof(*p)) == 0 && now() >= end)
			return;
		p[i] = i;
	}
}

/* As a buffer of io_uring's, by system calls that no library is asked for. */
static bool pin(volatile uint64_t *p, size_t len)
{
	struct io_uring_params params = { 0 };
	struct iovec iov = { (void *)(uintptr_t)p, len };
	long ring = syscall(SYS_io_uring_setup, 1, &params);

	return ring >= 0 && !syscall(SYS_io_uring_register, ring, IORING_REGISTER_BUFFERS, &iov, 1);
}

struct part {
	volatile uint64_t *p;
	size_t n;
	uint64_t random;
};

static void *jump(void *arg)
{
	struct part *part = arg;
	uint64_t own = 0;

	for (unsigned i = 0; i % 64 || now() < end; i++) {
		part->random = part->random * 6364136223846793005ull + 1442695040888963407ull;
		own += part->p[(part->random >> 20) % part->n];
	}
	__atomic_fetch_add(&sum, own, __ATOMIC_RELAXED);
	return NULL;
}

static void jump_apart(volatile uint64_t *p, size_t n, unsigned threads)
{
	struct part part[4];
	pthread_t t[4];

	for (unsigned i = 0; i < threads; i++) {
		part[i] = (struct part){ p + n / 4 * i, n / 4, i };
		if (pthread_create(t + i, NULL, jump, part + i))
			exit(1);
	}
	for (unsigned i = 0; i < threads; i++)
		pthread_join(t[i], NULL);
}

static void say_who_served(const char *when)
{
	DIR *d = opendir("/proc/self/task");
	struct dirent *e;

	while (d && (e = readdir(d))) {
		char path[300], name[32] = "";
		unsigned long long bytes;
		FILE *f;

		snprintf(path, sizeof(path), "/proc/self/task/%s/comm", e->d_name);
		f = fopen(path, "r");
		if (f && fscanf(f, "%31s", name) != 1)
			name[0] = 0;
		if (f)
			fclose(f);
		if (strncmp(name, "emf-fault", 9))
			continue;
		snprintf(path, sizeof(path), "/proc/self/task/%s/io", e->d_name);
		f = fopen(path, "r");
		if (f && fscanf(f, "rchar: %llu", &bytes) == 1)
			printf("%s%s %llu\n", when, name, bytes);
		if (f)
			fclose(f);
	}
	closedir(d);
}

int main(int argc, char **argv)
{
	if (argc != 4)
		return 2;
	const char *how = argv[1];
	size_t size = strtoull(argv[2], NULL, 0), n = size / sizeof(uint64_t);
	volatile uint64_t *p = filled(size);

	if (!strcmp(how, "pin") && !pin(p, size / 16)) {
		puts("cannot pin");
		return 77;
	}
	if (!strcmp(how, "sealed") && mprotect((void *)(uintptr_t)p, size, PROT_READ))
		return 1;
	printf("%d\n", (int)getpid());
	fflush(stdout);
	end = now() + atof(argv[3]);
	while (now() < end) {
		if (!strcmp(how, "random")) {
			sum += p[next_random() % n];
		} else if (!strcmp(how, "write")) {
			write_all(p, n);
		} else if (!strcmp(how, "fresh")) {
			munmap((void *)(uintptr_t)p, size);
			p = filled(size);
		} else if (!strcmp(how, "apart")) {
			jump_apart(p, n, 4);
			say_who_served("");
			end = now() + atof(argv[3]);
			jump_apart(p, n, 1);
			say_who_served("alone ");
		} else {
			read_all(p, n, !strcmp(how, "think") || !strcmp(how, "sealed"));
		}
	}
	return sum == 1;
}
