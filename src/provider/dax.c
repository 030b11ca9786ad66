/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dax:/dev/daxX.Y, dax:/PATH?size=SIZE - byte-addressable memory, mapped: a device, or a
 * file on a file system with DAX.
 *
 * A device is used as a whole, under an exclusive lock (flock): one that is in use is refused.
 * PATH is a directory: a file without a name in it; or a file to be made, which is unlinked at
 * once. Any other file is refused, for it might be somebody's. Where the file system has no
 * DAX the file is mapped all the same, through the page cache.
 */
#define _GNU_SOURCE 1 /* syscall, O_TMPFILE, fallocate */
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/mman.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "bytes.h"
#include "daxsize.h"
#include "uri.h"

#define MAX_LENGTH (1u << 30)
#define MIN_SIZE (2ull << 20)

struct dax {
	struct bytes b;
	int fd; /* holds the lock */
	bool device;
};

static int dax_trim(struct bytes *b, uint64_t offset, size_t length)
{
	const struct dax *d = (const struct dax *)b;

	if (d->device)
		return 0;
	return fallocate(d->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset,
			 (off_t)length) &&
		       errno != EOPNOTSUPP
		   ? -errno
		   : 0;
}

/* A hole is filled now: a store to it would be SIGBUS when the file system is full. */
static int dax_room(struct bytes *b, const struct emf_io *io)
{
	const struct dax *d = (const struct dax *)b;

	if (d->device ||
	    !fallocate(d->fd, FALLOC_FL_KEEP_SIZE, (off_t)io->offset, (off_t)io->length) ||
	    errno == EOPNOTSUPP)
		return 0;
	return -errno;
}

static void dax_close(struct emf_backend *be)
{
	struct dax *d = (struct dax *)be;

	if (d->b.base)
		syscall(SYS_munmap, d->b.base, (size_t)d->b.be.size);
	if (d->fd >= 0)
		close(d->fd);
	own_free(d, sizeof(*d));
}

static int dax_descriptors(const struct emf_backend *be, int *fds, int max)
{
	if (max < 1)
		return -E2BIG;
	fds[0] = ((const struct dax *)be)->fd;
	return 1;
}

/* The mapping is shared, and came with the fork. */
static int dax_forked(struct emf_backend *be, const int *fds)
{
	((struct dax *)be)->fd = fds[0];
	return 1;
}

static void dax_forget(struct emf_backend *be)
{
	struct dax *d = (struct dax *)be;

	syscall(SYS_munmap, d->b.base, (size_t)d->b.be.size);
}

static const struct emf_backend_ops backend_ops = {
	.queue_open = bytes_queue_open,
	.close = dax_close,
	.descriptors = dax_descriptors,
	.forked = dax_forked,
	.forget = dax_forget,
};

static int open_device(struct dax *d, const char *path, uint64_t *size, char *err, size_t errlen)
{
	struct stat st;
	uint64_t has;

	d->device = true;
	d->fd = open(path, O_RDWR | O_CLOEXEC);
	if (d->fd < 0) {
		int rc = -errno;

		snprintf(err, errlen, "%s%s", strerror(-rc),
			 rc == -ENXIO || rc == -ENODEV
			     ? "; is it online as system memory? Then use numa:N"
			 : rc == -EACCES || rc == -EPERM ? "; its mode or group must let you write"
							 : "");
		return rc;
	}
	if (flock(d->fd, LOCK_EX | LOCK_NB)) {
		int rc = errno == EWOULDBLOCK ? -EBUSY : -errno;

		snprintf(err, errlen, "%s",
			 rc == -EBUSY ? "in use by another process" : strerror(-rc));
		return rc;
	}
	has = fstat(d->fd, &st) ? 0 : dax_device_size(&st);
	if (!has) {
		snprintf(err, errlen, "not a DAX device (it has no size in sysfs)");
		return -ENODEV;
	}
	/* Mappings must be aligned as the device is: the whole of it is. */
	*size = has;
	return 0;
}

static int open_file(struct dax *d, const char *path, bool is_dir, uint64_t size, char *err,
		     size_t errlen)
{
	int rc = 0;

	if (size < MIN_SIZE) {
		snprintf(err, errlen, "a file needs ?size=SIZE, 2M and more");
		return -EINVAL;
	}
	d->fd = is_dir ? open(path, O_RDWR | O_CLOEXEC | O_TMPFILE, 0600)
		       : open(path, O_RDWR | O_CLOEXEC | O_CREAT | O_EXCL, 0600);
	if (d->fd >= 0 && !is_dir)
		unlink(path);
	if (d->fd < 0 || ftruncate(d->fd, (off_t)size)) {
		rc = -errno;
		snprintf(err, errlen, "%s", strerror(-rc));
	}
	return rc;
}

static int map(struct dax *d, uint64_t size, char *err, size_t errlen)
{
	long at = syscall(SYS_mmap, NULL, (size_t)size, PROT_READ | PROT_WRITE,
			  MAP_SHARED_VALIDATE | MAP_SYNC, d->fd, 0L);

	if (at == -1)
		at = syscall(SYS_mmap, NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED,
			     d->fd, 0L);
	if (at == -1) {
		int rc = -errno;

		snprintf(err, errlen, "cannot map %llu bytes: %s", (unsigned long long)size,
			 strerror(-rc));
		return rc;
	}
	d->b.base = (unsigned char *)at;
	d->b.be.size = size;
	return 0;
}

static int open_path(struct dax *d, const char *path, uint64_t *size, char *err, size_t errlen)
{
	struct stat st;
	bool exists = !stat(path, &st);

	if (!exists && !strncmp(path, "/dev/", 5)) {
		snprintf(err, errlen,
			 "there is no such device; `emfatier topo` lists those of this host");
		return -ENOENT;
	}
	if (exists && S_ISCHR(st.st_mode))
		return open_device(d, path, size, err, errlen);
	if (exists && !S_ISDIR(st.st_mode)) {
		snprintf(err, errlen,
			 "exists, and might be somebody's; name a directory or a new file");
		return -EEXIST;
	}
	return open_file(d, path, exists, *size, err, errlen);
}

static int dax_open(const char *uri, unsigned timeout_ms, struct emf_backend **out, char *err,
		    size_t errlen)
{
	struct dax *d = own_alloc(sizeof(*d));
	char *text = strdup(uri), *query = text, *path, *key, *value;
	uint64_t size = 0;
	int rc = d && text ? 0 : -ENOMEM;

	(void)timeout_ms;
	if (rc) {
		free(text);
		own_free(d, sizeof(*d));
		return rc;
	}
	d->fd = -1;
	d->b.be.ops = &backend_ops;
	strsep(&query, "?");
	path = text + strlen("dax:");
	if (*path != '/' || !uri_decode(path)) {
		snprintf(err, errlen, "write dax:/dev/daxX.Y or dax:/DIRECTORY?size=SIZE");
		rc = -EINVAL;
	}
	while (!rc && uri_query_next(&query, &key, &value)) {
		if (strcmp(key, "size") || !uri_size(value, &size)) {
			snprintf(err, errlen, "'%s=%s': dax: has size=SIZE", key, value);
			rc = -EINVAL;
		}
		size &= ~(uint64_t)(IO_PAGE - 1);
	}
	if (!rc)
		rc = open_path(d, path, &size, err, errlen);
	if (!rc)
		rc = map(d, size, err, errlen);
	free(text);
	if (rc) {
		dax_close(&d->b.be);
		return rc;
	}
	d->b.room = dax_room;
	d->b.trim = dax_trim;
	d->b.be.caps = EMF_CAP_CUTS | EMF_CAP_SYNC | EMF_CAP_BYTES | (d->device ? 0 : EMF_CAP_TRIM);
	d->b.be.max_length = MAX_LENGTH;
	*out = &d->b.be;
	return 0;
}

__attribute__((visibility("default"))) const struct emf_provider emf_provider = {
	.abi = EMF_PROVIDER_ABI,
	.name = "dax",
	.open = dax_open,
};
