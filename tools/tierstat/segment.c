/* SPDX-License-Identifier: Apache-2.0 */
#include "segment.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define SUFFIX ".stats"

uint64_t segment_start_time(pid_t pid)
{
	char path[64], text[1024];
	unsigned long long start = 0;
	ssize_t n = -1;
	char *p;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		n = read(fd, text, sizeof(text) - 1);
		close(fd);
	}
	if (n <= 0)
		return 0;
	text[n] = '\0';
	/* the command is in parentheses and may hold anything, parentheses too */
	p = strrchr(text, ')');
	if (!p)
		return 0;
	for (int field = 2; field < 22 && p; field++)
		p = strchr(p + 1, ' ');
	return p && sscanf(p, "%llu", &start) == 1 ? start : 0;
}

/* Removes path if it still is the file that fd was opened on. */
static void remove_leftover(const char *path, int fd)
{
	struct stat opened, named;

	if (!fstat(fd, &opened) && !lstat(path, &named) && opened.st_dev == named.st_dev &&
	    opened.st_ino == named.st_ino)
		unlink(path);
}

/* Word by word, as the writer writes: no counter is torn. */
static void copy_words(void *to, const void *from, size_t len)
{
	const emf_stat *src = from;
	uint64_t *dst = to;

	for (size_t i = 0; i < len / sizeof(*dst); i++)
		dst[i] = atomic_load_explicit(&src[i], memory_order_relaxed);
}

_Static_assert(sizeof(struct emf_stats) % sizeof(uint64_t) == 0, "copied word by word");

static void make_safe(struct emf_stats *s)
{
	s->command[sizeof(s->command) - 1] = '\0';
	if (s->nstores > EMF_STATS_STORES)
		s->nstores = EMF_STATS_STORES;
	for (unsigned i = 0; i < s->nstores; i++)
		s->store[i].uri[sizeof(s->store[i].uri) - 1] = '\0';
}

static int copy_segment(int fd, pid_t pid, struct emf_stats *out)
{
	struct stat st;
	void *map;

	if (fstat(fd, &st))
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EPROTO;
	if (st.st_size < (off_t)sizeof(*out))
		return st.st_size == 0 ? -EAGAIN : -EPROTO;
	map = mmap(NULL, sizeof(*out), PROT_READ, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		return -errno;
	copy_words(out, map, sizeof(*out));
	munmap(map, sizeof(*out));
	if (!out->magic)
		return -EAGAIN;
	if (out->magic != EMF_STATS_MAGIC || out->version != EMF_STATS_VERSION ||
	    out->size != sizeof(*out) || out->pid != (uint32_t)pid)
		return -EPROTO;
	make_safe(out);
	return 0;
}

int segment_read(const char *dir, pid_t pid, struct emf_stats *out)
{
	uint64_t start = segment_start_time(pid);
	char path[PATH_MAX];
	int fd, rc;

	if (snprintf(path, sizeof(path), "%s/%d" SUFFIX, dir, (int)pid) >= (int)sizeof(path))
		return -ENAMETOOLONG;
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0)
		return errno == ENOENT ? -ESRCH : -errno;
	rc = copy_segment(fd, pid, out);
	/* whatever it holds: a file of a process that is gone is nobody's */
	if (!start || (!rc && out->start_time != start)) {
		remove_leftover(path, fd);
		rc = -ESRCH;
	}
	close(fd);
	return rc;
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int read_map(int fd, uint64_t offset, struct emf_map *out)
{
	char *to = (char *)out;
	size_t done = 0;

	/* not mapped: a file that was cut short is an error here, not a SIGBUS */
	while (done < sizeof(*out)) {
		ssize_t n = pread(fd, to + done, sizeof(*out) - done, (off_t)(offset + done));

		if (n <= 0)
			return n ? -errno : -EPROTO;
		done += (size_t)n;
	}
	return 0;
}

/* Nothing that it says may lead out of its tables. */
static bool map_valid(const struct emf_map *m)
{
	if (m->nregions > EMF_MAP_REGIONS || m->ncells > EMF_MAP_CELLS || !m->block_bytes ||
	    !m->blocks_per_cell)
		return false;
	for (unsigned i = 0; i < m->nregions; i++) {
		const struct emf_map_region *r = &m->region[i];

		if (r->first_cell > m->ncells || r->cells > m->ncells - r->first_cell)
			return false;
	}
	return true;
}

/* One try. -EAGAIN: it is being written, or older than asked for. */
static int try_map(int fd, uint64_t offset, uint64_t asked, struct emf_map *out)
{
	uint64_t before, after;
	int rc = read_map(fd, offset, out);

	if (rc)
		return rc;
	before = out->sequence;
	if (before % 2 || out->written_at < asked)
		return -EAGAIN;
	/* the copy counts when nobody wrote before its end */
	if (pread(fd, &after, sizeof(after), (off_t)offset) != (ssize_t)sizeof(after))
		return -EPROTO;
	if (after != before)
		return -EAGAIN;
	if (!map_valid(out))
		return -EPROTO;
	for (unsigned i = 0; i < out->nregions; i++)
		out->region[i].class[sizeof(out->region[i].class) - 1] = '\0';
	return 0;
}

static int wait_for_map(int fd, struct emf_stats *s, double patience, struct emf_map *out)
{
	uint64_t asked = now_ns(), offset = s->map_offset, end = asked + (uint64_t)(patience * 1e9);
	int rc;

	if (!offset)
		return -ENODATA;
	for (;;) {
		atomic_store_explicit(&s->map_wanted, now_ns(), memory_order_relaxed);
		rc = try_map(fd, offset, asked, out);
		if (rc != -EAGAIN)
			return rc;
		if (now_ns() >= end)
			return -ENODATA;
		nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
	}
}

int segment_map(const char *dir, pid_t pid, double patience, struct emf_map *out)
{
	static struct emf_stats s;
	struct stat st;
	char path[PATH_MAX];
	int rc = segment_read(dir, pid, &s), fd;
	void *map;

	if (rc)
		return rc;
	snprintf(path, sizeof(path), "%s/%d" SUFFIX, dir, (int)pid);
	fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) || st.st_size < (off_t)sizeof(s)) {
		close(fd);
		return -EPROTO;
	}
	map = mmap(NULL, sizeof(s), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	rc = map == MAP_FAILED ? -errno : wait_for_map(fd, map, patience, out);
	if (map != MAP_FAILED)
		munmap(map, sizeof(s));
	close(fd);
	return rc;
}

/* PID of "PID.stats", or 0. */
static pid_t pid_of(const char *name)
{
	char *end;
	long pid;

	if (name[0] < '1' || name[0] > '9')
		return 0;
	errno = 0;
	pid = strtol(name, &end, 10);
	return errno || pid > INT_MAX || strcmp(end, SUFFIX) ? 0 : (pid_t)pid;
}

static int compare(const void *a, const void *b)
{
	pid_t x = *(const pid_t *)a, y = *(const pid_t *)b;

	return (x > y) - (x < y);
}

int segment_list(const char *dir, pid_t **pids)
{
	DIR *d = opendir(dir);
	struct dirent *e;
	pid_t *list = NULL;
	int n = 0, room = 0;

	*pids = NULL;
	if (!d)
		return -errno;
	while ((e = readdir(d))) {
		pid_t pid = pid_of(e->d_name);

		if (!pid)
			continue;
		if (n == room) {
			room = room ? 2 * room : 64;
			pid_t *more = realloc(list, (size_t)room * sizeof(*list));
			if (!more) {
				free(list);
				closedir(d);
				return -ENOMEM;
			}
			list = more;
		}
		list[n++] = pid;
	}
	closedir(d);
	if (n)
		qsort(list, (size_t)n, sizeof(*list), compare);
	*pids = list;
	return n;
}

double segment_uptime(const struct emf_stats *s)
{
	struct timespec now;
	double up;

	/* start_time counts clock ticks since boot, sleep included */
	clock_gettime(CLOCK_BOOTTIME, &now);
	up = (double)now.tv_sec + (double)now.tv_nsec / 1e9 -
	     (double)s->start_time / (double)sysconf(_SC_CLK_TCK);
	return up > 0.001 ? up : 0.001;
}

int segment_degraded(const struct emf_stats *s)
{
	for (unsigned i = 0; i < s->nstores; i++) {
		if (s->store[i].state == EMF_STORE_DOWN || s->store[i].state == EMF_STORE_DEGRADED)
			return 1;
	}
	return 0;
}
