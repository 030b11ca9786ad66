/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Allocates, grows, checks and frees blocks of all sizes from some threads; prints a
 * sum that does not depend on the allocator. It is linked with the allocator to be tried.
 */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#ifdef MIMALLOC /* which Debian has as a shared object only: it would not come before a preload */
#include <mimalloc-override.h>
#endif

#define THREADS 4
#ifndef BLOCKS
#define BLOCKS 3000
#endif

struct piece {
	unsigned char *p;
	size_t n;
	unsigned char c;
};

static uint64_t next(uint64_t *s)
{
	*s += 0x9e3779b97f4a7c15ull;
	uint64_t x = *s;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
	return x ^ (x >> 31);
}

static void check(const struct piece *b, const char *when)
{
	for (size_t i = 0; i < b->n; i++)
		if (b->p[i] != b->c) {
			fprintf(stderr, "%s: byte %zu of %zu at %p is %02x instead of %02x\n", when,
				i, b->n, (void *)b->p, b->p[i], b->c);
			abort();
		}
}

static void *work(void *arg)
{
	uint64_t seed = (uintptr_t)arg, sum = 0;
	struct piece *b = calloc(BLOCKS, sizeof(*b));

	for (int i = 0; i < ROUNDS * BLOCKS; i++) {
		struct piece *x = b + next(&seed) % BLOCKS;
		uint64_t what = next(&seed), shift = next(&seed) % 17 + 3;
		size_t n = next(&seed) & (((size_t)1 << shift) - 1);

		if (what % 8 == 0)
			n *= 16;
		if (x->p)
			check(x, "old");
		if (x->p && what % 3 == 0) {
			free(x->p);
			x->p = NULL;
			x->n = 0;
			continue;
		}
		size_t kept = x->n < n ? x->n : n;
		x->p = realloc(x->p, n + 1);
		if (!x->p)
			abort();
		x->n = kept;
		check(x, "after realloc");
		x->n = n;
		x->c = (unsigned char)what;
		memset(x->p, x->c, n);
		sum += n * x->c;
	}
	for (int i = 0; i < BLOCKS; i++) {
		if (b[i].p)
			check(b + i, "last");
		free(b[i].p);
	}
	free(b);
	return (void *)(uintptr_t)sum;
}

static uint64_t all(void)
{
	pthread_t t[THREADS];
	uint64_t sum = 0;
	void *one;

	for (uintptr_t i = 0; i < THREADS; i++)
		if (pthread_create(t + i, NULL, work, (void *)(i + 1)))
			abort();
	for (int i = 0; i < THREADS; i++) {
		pthread_join(t[i], &one);
		sum += (uintptr_t)one;
	}
	return sum;
}

static void *again(void *sum)
{
	*(uint64_t *)sum = all();
	return NULL;
}

/* Children, made while other threads allocate, do the same once more. */
static int forks(uint64_t sum)
{
	uint64_t other = 0;
	pthread_t t;
	int status, bad = 0;

	if (pthread_create(&t, NULL, again, &other))
		abort();
	for (int i = 0; i < 2; i++) {
		usleep(20000);
		pid_t pid = fork();
		if (!pid)
			_exit(all() != sum);
		bad |= waitpid(pid, &status, 0) != pid || status;
	}
	pthread_join(t, NULL);
	return bad || other != sum;
}

int main(int argc, char **argv)
{
	uint64_t sum = all();

	(void)argv;
	printf("%lu\n", (unsigned long)sum);
	return argc > 1 ? forks(sum) : 0;
}
