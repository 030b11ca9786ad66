/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mechanism [ROUNDS]: what the kernel takes for a page fault that a handler thread resolves by
 * moving 2 MiB that are at hand (UFFDIO_MOVE), with nothing of a runtime around it. One line
 * of JSON: microseconds from reading the event to having woken the thread (handler), which is
 * what the runtime's own histogram counts, and from the touch to going on (thread).
 * Status 77 and a line of why where this kernel can't.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifndef UFFD_FEATURE_MOVE /* 6.8 */
#define UFFD_FEATURE_MOVE (1 << 16)
#define _UFFDIO_MOVE 0x05
struct uffdio_move {
	__u64 dst, src, len, mode;
	__s64 move;
};
#define UFFDIO_MOVE _IOWR(UFFDIO, _UFFDIO_MOVE, struct uffdio_move)
#define UFFDIO_MOVE_MODE_DONTWAKE ((__u64)1 << 0)
#endif

#define BLOCK (2ul << 20)
#define BLOCKS 32

static int uffd;
static char *far, *frames;
static double handler_us[1 << 16], thread_us[1 << 16];
static unsigned nhandler;

static double now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec * 1e6 + (double)ts.tv_nsec / 1e3;
}

static void cannot(const char *what)
{
	printf("%s: %s\n", what, strerror(errno));
	exit(77);
}

static int move(char *to, char *from)
{
	struct uffdio_move m = {
		.dst = (uintptr_t)to,
		.src = (uintptr_t)from,
		.len = BLOCK,
		.mode = UFFDIO_MOVE_MODE_DONTWAKE,
	};

	return ioctl(uffd, UFFDIO_MOVE, &m);
}

static void *handler(void *unused)
{
	struct pollfd p = { .fd = uffd, .events = POLLIN };
	struct uffd_msg msg;

	(void)unused;
	while (poll(&p, 1, -1) >= 0) {
		if (read(uffd, &msg, sizeof(msg)) != sizeof(msg))
			continue;
		double from = now_us();
		size_t block = (msg.arg.pagefault.address - (uintptr_t)far) / BLOCK;
		struct uffdio_range r = { (uintptr_t)far + block * BLOCK, BLOCK };

		if (move(far + block * BLOCK, frames + block * BLOCK) || ioctl(uffd, UFFDIO_WAKE, &r))
			cannot("UFFDIO_MOVE");
		if (nhandler < sizeof(handler_us) / sizeof(handler_us[0]))
			handler_us[nhandler++] = now_us() - from;
	}
	return NULL;
}

static char *area(void)
{
	char *p = mmap(NULL, (BLOCKS + 1) * BLOCK, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		cannot("mmap");
	p = (char *)(((uintptr_t)p + BLOCK - 1) & ~(BLOCK - 1));
	madvise(p, BLOCKS * BLOCK, MADV_HUGEPAGE);
	return p;
}

static void register_area(char *p, uint64_t mode)
{
	struct uffdio_register r = { .range = { (uintptr_t)p, BLOCKS * BLOCK }, .mode = mode };

	if (ioctl(uffd, UFFDIO_REGISTER, &r))
		cannot("UFFDIO_REGISTER");
}

static int ascending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double quantile(double *v, unsigned n, double q)
{
	qsort(v, n, sizeof(*v), ascending);
	return v[(unsigned)((double)(n - 1) * q)];
}

int main(int argc, char **argv)
{
	unsigned rounds = argc > 1 ? (unsigned)atoi(argv[1]) : 50, n = 0;
	struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_MOVE };
	pthread_t t;

	uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (uffd < 0)
		cannot("userfaultfd");
	if (ioctl(uffd, UFFDIO_API, &api))
		cannot("UFFD_FEATURE_MOVE");
	far = area();
	frames = area();
	memset(frames, 1, BLOCKS * BLOCK);
	register_area(far, UFFDIO_REGISTER_MODE_MISSING);
	register_area(frames, UFFDIO_REGISTER_MODE_WP);
	if (pthread_create(&t, NULL, handler, NULL))
		cannot("pthread_create");
	for (unsigned round = 0; round < rounds; round++)
		for (unsigned i = 0; i < BLOCKS; i++) {
			char *p = far + i * BLOCK;
			double from = now_us();
			char c = *(volatile char *)(p + 4096);
			double us = now_us() - from;

			if (c != 1)
				cannot("wrong content");
			/* The first round warms up. */
			if (round && n < sizeof(thread_us) / sizeof(thread_us[0]))
				thread_us[n++] = us;
			if (move(frames + i * BLOCK, p))
				cannot("UFFDIO_MOVE back");
		}
	printf("{\"faults\": %u, \"handler_p50_us\": %.2f, \"handler_p99_us\": %.2f, "
	       "\"thread_p50_us\": %.2f, \"thread_p99_us\": %.2f}\n",
	       n, quantile(handler_us, nhandler, 0.5), quantile(handler_us, nhandler, 0.99),
	       quantile(thread_us, n, 0.5), quantile(thread_us, n, 0.99));
	return 0;
}
