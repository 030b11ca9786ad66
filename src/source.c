/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "source.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "config.h"
#include "fmt.h"
#include "kernel.h"

#define SOURCES 256u
/* 1, the number of the source, the offset: 16 TiB. */
#define ADDRESS (1ull << 63)
#define SHIFT 44

static struct source table[SOURCES];
static unsigned used; /* none from here on ever was */

static int describe(int fd, struct source *out)
{
	struct stat st;

	if (fstat(fd, &st))
		return -errno;
	out->dev = st.st_dev;
	out->ino = st.st_ino;
	out->size = (uint64_t)st.st_size;
	out->mtime = (uint64_t)st.st_mtim.tv_sec * 1000000000ull + (uint64_t)st.st_mtim.tv_nsec;
	return S_ISREG(st.st_mode) ? 0 : -EINVAL;
}

/* What lives in memory anyway would be there twice. */
static bool in_memory(int fd)
{
	struct statfs fs;

	if (k_syscall(SYS_fstatfs, fd, (long)&fs, 0, 0, 0, 0))
		return true;
	return fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC ||
	       fs.f_type == HUGETLBFS_MAGIC || fs.f_type == PROC_SUPER_MAGIC ||
	       fs.f_type == SYSFS_MAGIC;
}

int source_look(int fd, struct source *out, const char **why)
{
	char link[64];

	memset(out, 0, sizeof(*out));
	out->fd = -1;
	*why = "it is no regular file";
	int err = describe(fd, out);
	if (err)
		return err;
	fmt_s(link, sizeof(link), "/proc/thread-self/fd/%d", fd);
	long n = k_syscall(SYS_readlink, (long)link, (long)out->path, sizeof(out->path), 0, 0, 0);
	*why = "its path is not known, or too long";
	if (n <= 0 || n >= (long)sizeof(out->path) || out->path[0] != '/')
		return -ENAMETOOLONG;
	out->path[n] = 0;
	*why = "it is larger than 16 TiB";
	if (out->size >> SHIFT)
		return -EFBIG;
	*why = "its file system is in memory";
	return in_memory(fd) ? -EINVAL : 0;
}

bool source_is_weights_name(const char *path)
{
	static const char *const globs[] = { "*.gguf",	    "*.safetensors", "*.onnx",
					     "*.onnx_data", "*.onnx.data",   "*.pt",
					     "*.pth",	    "*.bin" };

	for (size_t i = 0; i < sizeof(globs) / sizeof(globs[0]); i++)
		if (config_glob(globs[i], path))
			return true;
	return false;
}

/* Caches of model hubs have links to files that are named by their hash. */
bool source_is_weights(int fd, const struct source *s)
{
	unsigned char head[9];
	uint64_t header;

	if (source_is_weights_name(s->path))
		return true;
	if (k_syscall(SYS_pread64, fd, (long)head, sizeof(head), 0, 0, 0) != sizeof(head))
		return false;
	if (!memcmp(head, "GGUF", 4))
		return true;
	/* safetensors: the length of its header, which is JSON. */
	memcpy(&header, head, sizeof(header));
	return header > 1 && header < 100u << 20 && header < s->size && head[8] == '{';
}

static bool same(const struct source *a, const struct source *b)
{
	return a->dev == b->dev && a->ino == b->ino && a->size == b->size && a->mtime == b->mtime;
}

struct source *source_get(const struct source *look)
{
	struct source *free = NULL;

	for (unsigned i = 0; i < SOURCES; i++) {
		struct source *s = table + i;
		if (s->refs && !s->stale && same(s, look)) {
			s->refs++;
			return s;
		}
		if (!s->refs && !free)
			free = s;
	}
	if (!free)
		return NULL;
	*free = *look;
	free->refs = 1;
	free->sent = -1;
	if (used <= (unsigned)(free - table))
		used = (unsigned)(free - table) + 1;
	return free;
}

void source_hold(struct source *s)
{
	if (s)
		s->refs++;
}

void source_put(struct source *s)
{
	if (!s || --s->refs || s->fd < 0)
		return;
	/* A read that is under way has a hold of its own on the file. */
	close(s->fd);
	s->fd = -1;
}

static int open_as(const char *path, struct source *s)
{
	struct source now;

	s->direct = true;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_DIRECT);
	if (fd < 0) {
		s->direct = false;
		fd = open(path, O_RDONLY | O_CLOEXEC);
	}
	if (fd < 0)
		return -errno;
	if (describe(fd, &now) || !same(&now, s)) {
		close(fd);
		return -ESTALE;
	}
	return fd;
}

int source_open(struct source *s, int fd)
{
	char link[64];
	struct source now;

	if (s->fd >= 0)
		return 0;
	int copy = fd < 0 ? -EBADF : k_borrow_fd(fd);
	if (copy >= 0 && (describe(copy, &now) || !same(&now, s))) {
		close(copy);
		copy = -ESTALE;
	}
	fmt_s(link, sizeof(link), "/proc/thread-self/fd/%d", copy);
	s->fd = open_as(copy < 0 ? s->path : link, s);
	if (s->fd >= 0 && copy >= 0)
		close(copy);
	if (s->fd < 0 && copy >= 0) {
		/* It may be read by who opened it only. Its flags are the program's. */
		s->fd = copy;
		s->direct = false;
	}
	if (s->fd < 0) {
		int err = s->fd;
		s->fd = -1;
		return err;
	}
	/* What the page cache has of it already, nobody needs there. */
	k_syscall(SYS_fadvise64, s->fd, 0, 0, POSIX_FADV_DONTNEED, 0, 0);
	return 0;
}

bool source_changed(struct source *s)
{
	struct source now = *s;

	if (s->fd < 0 || describe(s->fd, &now) || same(&now, s))
		return false;
	s->size = now.size;
	s->mtime = now.mtime;
	return true;
}

uint64_t source_address(const struct source *s, uint64_t offset)
{
	return ADDRESS | (uint64_t)(s - table) << SHIFT | offset;
}

bool source_is_address(uint64_t address)
{
	return address & ADDRESS;
}

struct source *source_of(uint64_t address, uint64_t *offset)
{
	*offset = address & ((1ull << SHIFT) - 1);
	return table + ((address & ~ADDRESS) >> SHIFT) % SOURCES;
}

struct source *source_at(unsigned i)
{
	for (unsigned k = 0; k < used; k++)
		if (table[k].refs && table[k].fd >= 0 && !i--)
			return table + k;
	return NULL;
}

static int sent; /* by the last source_descriptors */

int source_descriptors(int *fds, int max)
{
	sent = 0;
	for (struct source *s = table; s < table + used; s++) {
		s->sent = -1;
		if (!s->refs || s->fd < 0)
			continue;
		if (sent == max)
			return -E2BIG;
		fds[sent] = s->fd;
		s->sent = sent++;
	}
	return sent;
}

void source_forget(void)
{
	for (struct source *s = table; s < table + used; s++)
		s->fd = -1;
}

int source_forked(const int *fds)
{
	bool taken[SOURCES] = { false };

	for (struct source *s = table; s < table + used; s++)
		if (s->refs && s->sent >= 0) {
			s->fd = fds[s->sent];
			taken[s->sent] = true;
		}
	for (int i = 0; i < sent; i++)
		if (!taken[i])
			close(fds[i]);
	return sent;
}
