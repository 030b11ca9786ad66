/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE 1 /* F_OFD_SETLK, asprintf */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "lock.h"
#include "xxh3.h"

#define RETRY_MS 20u

/* Different spellings of one export that are easily met get one name. */
static uint64_t name_of(const char *uri)
{
	static const char port[] = ":10809";
	char *copy = strdup(uri), *at;
	size_t length;
	uint64_t name;

	if (!copy)
		return xxh3_base(uri, strlen(uri));
	at = strstr(copy, port);
	if (at && (!at[strlen(port)] || at[strlen(port)] == '/'))
		memmove(at, at + strlen(port), strlen(at + strlen(port)) + 1);
	length = strlen(copy);
	while (length && copy[length - 1] == '/')
		copy[--length] = '\0';
	name = xxh3_base(copy, length);
	free(copy);
	return name;
}

/* Who holds the lock, as it wrote itself; 0: it did not yet. */
static pid_t holder(int fd)
{
	char text[24] = "";

	return pread(fd, text, sizeof(text) - 1, 0) > 0 ? (pid_t)atol(text) : 0;
}

/*
 * Gone, and only its guard holds the lock still. So it is also if the holder is this
 * process: then it called exec, and this is the new program.
 */
static bool is_gone(pid_t pid)
{
	return pid <= 0 || pid == getpid() || (kill(pid, 0) && errno == ESRCH);
}

static int acquire(int fd, unsigned timeout_ms, char *err, size_t errlen)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	char text[24];
	int n;

	for (unsigned waited = 0; fcntl(fd, F_OFD_SETLK, &lock); waited += RETRY_MS) {
		struct timespec ts = { .tv_nsec = RETRY_MS * 1000000 };
		pid_t pid;

		if (errno != EAGAIN && errno != EACCES) {
			int rc = -errno;

			snprintf(err, errlen, "cannot lock: %s", strerror(-rc));
			return rc;
		}
		pid = holder(fd);
		if (is_gone(pid) && waited < timeout_ms) {
			nanosleep(&ts, NULL);
			continue;
		}
		snprintf(err, errlen,
			 "in use by process %ld%s; each process needs an export of "
			 "its own",
			 (long)pid, is_gone(pid) ? ", whose space is being given back" : "");
		return -EBUSY;
	}
	n = snprintf(text, sizeof(text), "%ld\n", (long)getpid());
	if (ftruncate(fd, 0) || pwrite(fd, text, (size_t)n, 0) != n) {
		snprintf(err, errlen, "cannot write the lock file");
		return -EIO;
	}
	return 0;
}

int lock_space(const char *uri, const char *run_dir, unsigned timeout_ms, char *err, size_t errlen)
{
	char *path;
	int fd, rc;

	if (asprintf(&path, "%s/store-%016llx.lock", run_dir, (unsigned long long)name_of(uri)) <
	    0) {
		snprintf(err, errlen, "out of memory");
		return -ENOMEM;
	}
	(void)mkdir(run_dir, 0700);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0) {
		rc = -errno;
		snprintf(err, errlen, "cannot open the lock %s: %s", path, strerror(-rc));
	} else {
		rc = acquire(fd, timeout_ms, err, errlen);
		if (rc)
			close(fd);
	}
	free(path);
	return rc ? rc : fd;
}
