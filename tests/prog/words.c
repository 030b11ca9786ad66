/* SPDX-License-Identifier: Apache-2.0 */
/*
 * words SIZE FILE: fills SIZE with words that are easy to find, reads its second eighth again
 * (so that it is here and in the store), writes FILE.ready, waits for FILE.go, reads the first
 * page, fills a quarter of SIZE elsewhere, and then reads every page. Says how many were right,
 * how many raised SIGBUS (they are lost) and how many were wrong; status 1 when one was wrong.
 */
#include "prog.h"

#include <setjmp.h>
#include <signal.h>

static sigjmp_buf lost;

static void on_sigbus(int sig)
{
	(void)sig;
	siglongjmp(lost, 1);
}

/* The word that every page repeats, with its number. */
static void word(char out[32], size_t page)
{
	memcpy(out, "far-memory-secret 00000000000000", 32);
	for (int i = 30; page; page /= 10)
		out[i--] = (char)('0' + page % 10);
}

static void fill(char *at, size_t page)
{
	for (size_t i = 0; i < PAGE; i += 32)
		word(at + i, page);
}

__attribute__((noinline)) static int is_right(const char *at, size_t page)
{
	char want[32];

	word(want, page);
	for (size_t i = 0; i < PAGE; i += 32)
		if (memcmp(at + i, want, 32))
			return 0;
	return 1;
}

__attribute__((noinline)) static void check_all(char *p, size_t n)
{
	volatile size_t right = 0, bus = 0, wrong = 0;

	signal(SIGBUS, on_sigbus);
	for (volatile size_t i = 0; i < n; i++) {
		if (sigsetjmp(lost, 1))
			bus++;
		else if (is_right(p + i * PAGE, i))
			right++;
		else
			wrong++;
	}
	printf("right %zu lost %zu wrong %zu\n", right, bus, wrong);
	fflush(stdout);
	if (wrong)
		_exit(1);
}

/* It may be lost: that is counted later. */
static void check_first(char *p)
{
	signal(SIGBUS, on_sigbus);
	if (!sigsetjmp(lost, 1) && !is_right(p, 0))
		die("the first page is wrong");
}

int main(int argc, char **argv)
{
	char path[4096];

	if (argc != 3)
		die("usage: words SIZE FILE");
	size_t size = size_arg(argv[1]);
	char *p = SYS(mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	for (size_t i = 0; i < size / PAGE; i++)
		fill(p + i * PAGE, i);
	for (size_t i = size / PAGE / 8; i < size / PAGE / 4; i++)
		if (!is_right(p + i * PAGE, i))
			die("page %zu is wrong", i);
	snprintf(path, sizeof(path), "%s.ready", argv[2]);
	fclose(fopen(path, "w"));
	snprintf(path, sizeof(path), "%s.go", argv[2]);
	while (access(path, F_OK))
		usleep(20000);
	char *q = SYS(mmap(NULL, size / 4, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	check_first(p);
	for (size_t i = 0; i < size / 4 / PAGE; i++)
		fill(q + i * PAGE, i);
	check_all(p, size / PAGE);
	write_stats();
	return 0;
}
