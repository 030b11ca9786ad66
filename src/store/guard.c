/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Starting the helper: process -> intermediate -> helper. The intermediate sends no
 * signal when it ends and calls no exec (which would make it an ordinary child),
 * so only we can wait for it; the helper becomes an orphan at once. Both share our
 * memory until the helper calls exec, as after vfork: nothing is copied, and no
 * lock that another thread holds is needed, since they make raw system calls only.
 */
#define _GNU_SOURCE 1 /* clone, memfd_create, pipe2 */
#include "guard.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "env.h"
#include "pool.h"
#include "where.h"

#define STACK_BYTES (64u << 10) /* one for the intermediate, one for the helper */
#define FIRST_FD 3
#define NFDS (3 + (int)STORE_LEAVES)

struct spawn {
	const char *program;
	char *const *argv;
	char *const *envp;
	int fd[NFDS]; /* become FIRST_FD and up in the helper */
	int nfds;
	char *stack;
	int error;
};

static long raw_fcntl(int fd, int cmd, long arg)
{
	return syscall(SYS_fcntl, fd, cmd, arg);
}

static int run_helper(void *arg)
{
	struct spawn *s = arg;
	int high[NFDS], null;

	/* Out of the way first: sources and targets may overlap. */
	for (int i = 0; i < s->nfds; i++)
		high[i] = (int)raw_fcntl(s->fd[i], F_DUPFD, FIRST_FD + s->nfds);
	for (int i = 0; i < s->nfds; i++)
		syscall(SYS_dup3, high[i], FIRST_FD + i, 0);
	syscall(SYS_close_range, (unsigned)(FIRST_FD + s->nfds), ~0u, 0u);
	null = (int)syscall(SYS_openat, AT_FDCWD, "/dev/null", O_RDWR | O_CLOEXEC);
	for (int i = 0; i < FIRST_FD; i++)
		syscall(SYS_dup3, null, i, 0);
	syscall(SYS_execve, s->program, s->argv, s->envp);
	s->error = errno;
	syscall(SYS_exit_group, 127);
	return 127;
}

static int run_intermediate(void *arg)
{
	struct spawn *s = arg;

	if (clone(run_helper, s->stack + 2 * STACK_BYTES, CLONE_VM | CLONE_VFORK | SIGCHLD, s) < 0)
		s->error = errno;
	syscall(SYS_exit_group, 0);
	return 0;
}

static int spawn(struct spawn *s)
{
	sigset_t all, old;
	long at = syscall(SYS_mmap, NULL, 2 * STACK_BYTES, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0L);
	int pid, rc;

	if (at == -1)
		return -errno;
	s->stack = (char *)at;
	s->error = 0;
	/* No handler of the program may run in the children, which share its memory. */
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &old);
	pid = clone(run_intermediate, s->stack + STACK_BYTES, CLONE_VM | CLONE_VFORK, s);
	rc = pid < 0 ? -errno : -s->error;
	if (pid > 0)
		syscall(SYS_wait4, pid, NULL, __WALL, NULL);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	syscall(SYS_munmap, s->stack, 2 * STACK_BYTES);
	return rc;
}

/* URIs travel in a memfd, for they may hold secrets that argv would show to all. */
static int write_uris(const struct store *st, const struct store_options *opt)
{
	int fd = memfd_create("emfatier-uris", MFD_CLOEXEC);

	if (fd < 0)
		return -errno;
	for (unsigned i = 0; i < STORE_LEAVES; i++) {
		const struct emf_backend *leaf = st->leaf[i];
		const char *uri = store_uri(st, opt, i);
		int n;

		if (!leaf || !uri)
			continue;
		/* What ended with the process is there to keep the others' places only. */
		if (leaf->caps & EMF_CAP_OUTLIVES)
			n = dprintf(fd, "%s\n", uri);
		else
			n = dprintf(fd, "mem:?size=%llu\n", (unsigned long long)leaf->size);
		if (n < 0) {
			close(fd);
			return -EIO;
		}
	}
	return fd;
}

static int find_program(char *path, size_t length)
{
	static const char *const place[] = { "emfatier", "../bin/emfatier", "../../bin/emfatier" };
	char dir[PATH_MAX];
	struct stat st;
	int rc = where_dir(dir, sizeof(dir));

	if (rc)
		return rc;
	for (size_t i = 0; i < sizeof(place) / sizeof(place[0]); i++) {
		int n = snprintf(path, length, "%s/%s", dir, place[i]);

		if (n > 0 && (size_t)n < length && !stat(path, &st) && S_ISREG(st.st_mode) &&
		    !access(path, X_OK))
			return 0;
	}
	return -ENOENT;
}

static int start(struct spawn *s, const struct store *st, const struct store_options *opt,
		 uint64_t nslots, uint64_t slot_bytes)
{
	/* Of the environment only what libnbd finds its certificates by. */
	const char *home = env_get("HOME");
	char home_var[PATH_MAX + 8], numbers[7][24];
	char *envp[] = { "PATH=/usr/bin:/bin", NULL, NULL };
	char *argv[32];
	int n = 0;

	if (home && snprintf(home_var, sizeof(home_var), "HOME=%s", home) < (int)sizeof(home_var))
		envp[1] = home_var;
	snprintf(numbers[0], sizeof(numbers[0]), "%llu", (unsigned long long)nslots);
	snprintf(numbers[1], sizeof(numbers[1]), "%llu", (unsigned long long)slot_bytes);
	snprintf(numbers[2], sizeof(numbers[2]), "%llu", (unsigned long long)opt->stripe_unit);
	snprintf(numbers[3], sizeof(numbers[3]), "%u", opt->timeout_ms);
	snprintf(numbers[4], sizeof(numbers[4]), "%u", opt->data);
	snprintf(numbers[5], sizeof(numbers[5]), "%u", opt->more);
	snprintf(numbers[6], sizeof(numbers[6]), "%llu", (unsigned long long)opt->generation);
	/* The numbers of descriptors are their places in s->fd, from FIRST_FD. */
	const char *const fixed[] = {
		"emfatier", "reap",	"--slots",	"3",	    "--life",	    "4",
		"--uris",   "5",	"--nslots",	numbers[0], "--slot-bytes", numbers[1],
		"--stripe", numbers[2], "--timeout-ms", numbers[3], "--data",	    numbers[4],
		"--more",   numbers[5], "--generation", numbers[6],
	};
	for (size_t i = 0; i < sizeof(fixed) / sizeof(fixed[0]); i++)
		argv[n++] = (char *)(uintptr_t)fixed[i];
	/* Where slots lie on tiers, or where they are not as at first, died with the process. */
	if (st->hierarchy || opt->generation || (st->places && pool_is_scattered(st->places)))
		argv[n++] = (char *)(uintptr_t) "--whole";
	if (opt->provider_dir) {
		argv[n++] = (char *)(uintptr_t) "--providers";
		argv[n++] = (char *)(uintptr_t)opt->provider_dir;
	}
	argv[n] = NULL;
	s->argv = argv;
	s->envp = envp;
	return spawn(s);
}

int guard_start_program(const char *program, const struct store *st,
			const struct store_options *opt, int slots_fd, uint64_t nslots,
			uint64_t slot_bytes)
{
	struct spawn s = { .program = program };
	int life[2], uris, rc;

	if (pipe2(life, O_CLOEXEC))
		return -errno;
	uris = write_uris(st, opt);
	if (uris < 0) {
		rc = uris;
		goto close_life;
	}
	s.fd[s.nfds++] = slots_fd;
	s.fd[s.nfds++] = life[0];
	s.fd[s.nfds++] = uris;
	for (unsigned i = 0; i < STORE_LEAVES; i++)
		if (store_uri(st, opt, i) && st->lock_fd[i] >= 0)
			s.fd[s.nfds++] = st->lock_fd[i];
	rc = start(&s, st, opt, nslots, slot_bytes);
	close(uris);
close_life:
	close(life[0]);
	if (rc)
		close(life[1]);
	return rc ? rc : life[1];
}

int guard_start(const struct store *st, const struct store_options *opt, int slots_fd,
		uint64_t nslots, uint64_t slot_bytes)
{
	char program[PATH_MAX];
	int rc = find_program(program, sizeof(program));

	return rc ? rc : guard_start_program(program, st, opt, slots_fd, nslots, slot_bytes);
}
