/* SPDX-License-Identifier: Apache-2.0 */
/* classes FILE: memory by several ways, for classes to tell apart; until its input ends. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define MIB (1ul << 20)

static char *filled(size_t bytes)
{
	char *p = malloc(bytes);

	if (!p)
		exit(1);
	memset(p, 1, bytes);
	return p;
}

static void *load(void *unused)
{
	(void)unused;
	pthread_setname_np(pthread_self(), "loader-1");
	return filled(24 * MIB);
}

int main(int argc, char **argv)
{
	pthread_t thread;
	void *loaded = NULL;
	char *first = filled(8 * MIB);
	int fd = argc > 1 ? open(argv[1], O_RDONLY) : -1;

	pthread_create(&thread, NULL, load, NULL);
	pthread_join(thread, &loaded);
	char *own = filled(40 * MIB);
	char *big =
	    mmap(NULL, 64 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	volatile char *weights = mmap(NULL, 32 * MIB, PROT_READ, MAP_PRIVATE, fd, 0);
	if (big == MAP_FAILED || weights == MAP_FAILED)
		return 1;
	memset(big, 1, 64 * MIB);
	unsigned sum = 0;
	for (size_t i = 0; i < 32 * MIB; i += 4096)
		sum += (unsigned char)weights[i];
	printf("%u of %d\n", sum, first[0] + own[0] + *(char *)loaded);
	fflush(stdout);
	return getchar() == EOF ? 0 : 1;
}
