/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A program of rows: `PROGRAM list` prints the name of each and `cold` or `-`,
 * `PROGRAM ROW SIZE` runs one with SIZE bytes of memory, of which a test that
 * gives a smaller budget can expect a part to be far (`cold` rows use all of it).
 * Exit 0: as it must be; 77: can't be tried here, the reason is on stdout.
 */
#ifndef EMF_TEST_ROWS_H
#define EMF_TEST_ROWS_H

#include "prog.h"

#include <stdbool.h>
#include <sys/wait.h>

struct row {
	const char *name;
	void (*run)(size_t size);
	bool cold;
};

enum { SEED = 20 };

__attribute__((noreturn)) static inline void skip(const char *why)
{
	printf("%s\n", why);
	fflush(stdout);
	_exit(77);
}

static inline char *map_anon(size_t size)
{
	return SYS(mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
}

#ifdef __x86_64__
/* A system call that nobody interposes. */
static inline long instruction(long n, long a, long b, long c, long d, long e)
{
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;

	__asm__ volatile("syscall"
			 : "+a"(n)
			 : "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
			 : "rcx", "r11", "memory");
	return n;
}
#endif

/* Pages first.. of the area hold (page, version). */
static inline void fill_pages(char *p, size_t first, size_t end, unsigned version)
{
	for (size_t i = first; i < end; i++)
		page_fill(p + i * PAGE, i, version, SEED);
}

static inline void check_pages(const char *p, size_t first, size_t end, unsigned version,
			       const char *what)
{
	for (size_t i = first; i < end; i++)
		page_check(p + i * PAGE, i, version, SEED, what);
}

static inline void check_zeros(const char *p, size_t first, size_t end, const char *what)
{
	for (size_t i = first; i < end; i++)
		page_expect(p + i * PAGE, NULL, i, 0, what);
}

/* What most rows start from: an area of version 1; beyond the budget, most of it is far. */
static inline char *filled(size_t size)
{
	char *p = map_anon(size);

	fill_pages(p, 0, size / PAGE, 1);
	return p;
}

/* Uses so much other memory that what was used before gets cold. */
static inline void chill(size_t size)
{
	char *p = filled(size);

	check_pages(p, 0, size / PAGE, 1, "other memory");
	SYS(munmap(p, size));
}

/* The child must end by itself with status 0. */
static inline void expect_child(pid_t pid, const char *what)
{
	int status;

	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			die("%s: waitpid: %s", what, strerror(errno));
	if (WIFSIGNALED(status))
		die("%s: ended by signal %d", what, WTERMSIG(status));
	if (WEXITSTATUS(status))
		die("%s: exit status %d", what, WEXITSTATUS(status));
}

/* In a filesystem that knows O_DIRECT, as a rule; already unlinked. */
static inline int temp_file(int flags)
{
	char path[512];
	const char *dir = getenv("TEST_DIR");

	snprintf(path, sizeof(path), "%s/rows-XXXXXX", dir ? dir : "/var/tmp");
	int fd = mkostemp(path, flags);
	if (fd < 0)
		return -1;
	unlink(path);
	return fd;
}

static inline int rows_main(int argc, char **argv, const struct row *rows, size_t n)
{
	if (argc == 2 && !strcmp(argv[1], "list")) {
		for (size_t i = 0; i < n; i++)
			printf("%s %s\n", rows[i].name, rows[i].cold ? "cold" : "-");
		return 0;
	}
	if (argc != 3)
		die("usage: %s list | ROW SIZE", argv[0]);
	for (size_t i = 0; i < n; i++)
		if (!strcmp(argv[1], rows[i].name)) {
			rows[i].run(size_arg(argv[2]));
			write_stats();
			return 0;
		}
	die("no such row: %s", argv[1]);
}

#define ROWS_MAIN(rows)                                                     \
	int main(int argc, char **argv)                                     \
	{                                                                   \
		return rows_main(argc, argv, rows, sizeof(rows) / sizeof(*(rows))); \
	}

#endif
