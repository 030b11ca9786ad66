/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hold SIZE_MIB: fills so much memory, says "ready", then does what it reads, a word a line:
 *   check   reads every page, compares, says "right"
 *   sweep   checks without end until the next line comes; says how often: "swept N"
 *   fork    lets a child check, and checks itself; says "right"
 *   more N  holds N MiB more; says "ready"
 *   leave   ends its only thread by pthread_exit, and so itself with status 0
 * Ends with its input. With a page of wrong content it fails at once.
 */
#include "prog.h"

#include <poll.h>
#include <pthread.h>
#include <sys/wait.h>

#define AREAS 16

static struct {
	char *p;
	size_t len;
} area[AREAS];
static unsigned areas;

static void more(size_t mib)
{
	CHECK(mib && areas < AREAS, "how much?");
	size_t len = mib << 20;
	char *p = SYS(mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));

	for (size_t at = 0; at < len; at += PAGE)
		for (size_t i = 0; i < WORDS; i++)
			((uint64_t *)(p + at))[i] = mix((uintptr_t)p + at + i);
	area[areas].p = p;
	area[areas++].len = len;
}

static void check(void)
{
	for (unsigned a = 0; a < areas; a++)
		for (size_t at = 0; at < area[a].len; at += PAGE) {
			const uint64_t *w = (const uint64_t *)(area[a].p + at);
			for (size_t i = 0; i < WORDS; i++)
				CHECK(w[i] == mix((uintptr_t)w + i), "page %p, word %zu: %lx",
				      (const void *)w, i, (unsigned long)w[i]);
		}
}

static void check_both(void)
{
	int status;
	pid_t pid = SYS(fork());

	check();
	if (!pid)
		_exit(0);
	SYS(waitpid(pid, &status, 0));
	CHECK(!status, "the child's status is %x", status);
}

static unsigned sweep(void)
{
	struct pollfd in = { .fd = 0, .events = POLLIN };
	unsigned n = 0;

	do {
		check();
		n++;
	} while (!poll(&in, 1, 0));
	return n;
}

/* Without a buffer behind it, so that sweep sees the next line coming. */
static int next_line(char *out, size_t len)
{
	size_t n = 0;

	while (n + 1 < len && read(0, out + n, 1) == 1 && out[n] != '\n')
		n++;
	out[n] = 0;
	return n > 0;
}

int main(int argc, char **argv)
{
	char line[64];

	CHECK(argc == 2, "usage: hold SIZE_MIB");
	setvbuf(stdout, NULL, _IOLBF, 0);
	more(strtoul(argv[1], NULL, 10));
	puts("ready");
	while (next_line(line, sizeof(line))) {
		if (!strcmp(line, "check")) {
			check();
			puts("right");
		} else if (!strcmp(line, "sweep")) {
			printf("swept %u\n", sweep());
		} else if (!strcmp(line, "fork")) {
			check_both();
			puts("right");
		} else if (!strcmp(line, "leave")) {
			pthread_exit(NULL);
		} else if (!strncmp(line, "more ", 5)) {
			more(strtoul(line + 5, NULL, 10));
			puts("ready");
		} else {
			die("%s?", line);
		}
	}
	return 0;
}
