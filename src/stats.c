/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "stats.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "engine.h"
#include "fmt.h"
#include "kernel.h"
#include "log.h"
#include "mailbox.h"
#include "rundir.h"

/* The mailbox lies between. */
#define MAP_OFFSET ((MAILBOX_OFFSET + sizeof(struct mailbox) + K_PAGE - 1) & ~(size_t)(K_PAGE - 1))

static struct emf_stats none, *own;
static char path[300];
static pid_t owner;

struct emf_stats *stats_none(void)
{
	return &none;
}

static ssize_t read_file(const char *name, char *buf, size_t len)
{
	int fd = open(name, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	ssize_t n = read(fd, buf, len - 1);
	close(fd);
	buf[n < 0 ? 0 : n] = 0;
	return n;
}

void stats_command(char *out, size_t len)
{
	ssize_t n = read_file("/proc/self/comm", out, len);

	if (n > 0 && out[n - 1] == '\n')
		out[n - 1] = 0;
}

int stats_run_dir(char *out, size_t len)
{
	return run_dir(out, len, true);
}

/* Field 22 of /proc/self/stat; the name in field 2 may hold anything, so count from its last ')'.
 */
static uint64_t start_time(void)
{
	char text[1024];
	uint64_t v = 0;

	if (read_file("/proc/self/stat", text, sizeof(text)) <= 0)
		return 0;
	const char *p = strrchr(text, ')');
	for (int field = 2; p && field < 22; field++)
		p = strchr(p + 1, ' ');
	for (p = p ? p + 1 : ""; *p >= '0' && *p <= '9'; p++)
		v = v * 10 + (uint64_t)(*p - '0');
	return v;
}

static struct emf_stats *map_segment(void)
{
	char dir[256];
	struct emf_stats *s = NULL;

	if (stats_run_dir(dir, sizeof(dir)))
		return NULL;
	fmt_s(path, sizeof(path), "%s/%d.stats", dir, getpid());
	unlink(path);
	int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return NULL;
	/*
	 * Its space at once: a page that a full file system can't give later would be a SIGBUS. And
	 * beyond the file size limit the call itself would raise SIGXFSZ.
	 */
	struct rlimit most;
	const size_t size = MAILBOX_OFFSET + sizeof(struct mailbox);
	bool fits = !getrlimit(RLIMIT_FSIZE, &most) && most.rlim_cur >= size;
	/* The map behind it stays a hole until somebody wants to see it (observe.c). */
	size_t len = MAP_OFFSET + sizeof(struct emf_map);
	if (fits && !posix_fallocate(fd, 0, (off_t)size)) {
		if (most.rlim_cur < len || ftruncate(fd, (off_t)len))
			len = size;
		long r = k_mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		s = r < 0 && r > -4096 ? NULL : (struct emf_stats *)r;
		if (s && len > size)
			s->map_offset = MAP_OFFSET;
	}
	close(fd);
	if (!s)
		unlink(path);
	else
		owner = getpid();
	return s;
}

void stats_open(const char *command, uint64_t limit)
{
	static pid_t tried; /* a forked child tries anew */

	if (tried == getpid())
		return;
	tried = getpid();

	struct emf_stats *s = map_segment();
	if (!s) {
		log_info("no statistics: cannot write to the run directory");
		return;
	}
	s->version = EMF_STATS_VERSION;
	s->size = sizeof(*s);
	s->pid = (uint32_t)getpid();
	s->start_time = start_time();
	strncpy(s->command, command, sizeof(s->command) - 1);
	s->local_limit = limit;
	s->mode = atomic_load(&engine.phase) == PHASE_FAILED ? EMF_MODE_UNMANAGED : EMF_MODE_IDLE;
	engine.mailbox = (struct mailbox *)((char *)s + MAILBOX_OFFSET);
	mailbox_init(engine.mailbox);
	/* Last: a reader that sees the magic sees the rest. */
	__atomic_store_n(&s->magic, EMF_STATS_MAGIC, __ATOMIC_RELEASE);
	engine.stats = own = s;
}

struct emf_map *stats_map(void)
{
	if (!own || engine.stats != own || !own->map_offset)
		return NULL;
	return (struct emf_map *)((char *)own + MAP_OFFSET);
}

void stats_remove(void)
{
	if (owner == getpid())
		unlink(path);
}
