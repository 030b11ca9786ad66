/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fmt.h"

static enum log_level level = LOG_WARN;
static char path[256]; /* empty: standard error */
static dev_t err_dev;
static ino_t err_ino;
static __thread bool own_table __attribute__((tls_model("initial-exec")));

static const char *const names[] = { "error", "warn", "info", "debug" };

bool log_open(const char *spec)
{
	struct stat st;

	if (!fstat(STDERR_FILENO, &st)) {
		err_dev = st.st_dev;
		err_ino = st.st_ino;
	}
	if (!spec || !*spec)
		return true;

	const char *colon = strchr(spec, ':');
	size_t n = colon ? (size_t)(colon - spec) : strlen(spec);
	for (int i = 0; i <= LOG_DEBUG; i++) {
		if (strlen(names[i]) != n || memcmp(names[i], spec, n))
			continue;
		if (colon && strlen(colon + 1) >= sizeof(path))
			return false;
		level = (enum log_level)i;
		if (colon)
			strcpy(path, colon + 1);
		return true;
	}
	return false;
}

void log_own_table(void)
{
	own_table = true;
}

/* The program's descriptor 2, in a table that is not the program's. */
static int borrow_stderr(void)
{
	int pidfd = (int)syscall(SYS_pidfd_open, getpid(), 0);
	if (pidfd < 0)
		return -1;
	int fd = (int)syscall(SYS_pidfd_getfd, pidfd, STDERR_FILENO, 0);
	close(pidfd);
	return fd;
}

static void write_line(const char *line, size_t len)
{
	struct stat st;
	bool borrowed = false;
	int fd = STDERR_FILENO;

	if (*path) {
		fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY, 0600);
		borrowed = true;
	} else if (own_table) {
		fd = borrow_stderr();
		borrowed = true;
	}
	if (fd < 0)
		return;
	if (*path || (!fstat(fd, &st) && st.st_dev == err_dev && st.st_ino == err_ino)) {
		/* a lost log line is no reason to stop anything */
		ssize_t ignored = write(fd, line, len);
		(void)ignored;
	}
	if (borrowed)
		close(fd);
}

void log_at(enum log_level l, const char *fmt, ...)
{
	char line[512];
	int saved = errno;
	va_list ap;

	if (l > level)
		return;
	size_t n = l <= LOG_WARN ? fmt_s(line, sizeof(line) - 1, "emfatier: ")
				 : fmt_s(line, sizeof(line) - 1, "emfatier[%d]: ", getpid());
	va_start(ap, fmt);
	n += fmt_v(line + n, sizeof(line) - 1 - n, fmt, ap);
	va_end(ap);
	line[n++] = '\n';
	write_line(line, n);
	errno = saved;
}
