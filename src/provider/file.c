/* SPDX-License-Identifier: Apache-2.0 */
/*
 * file:/PATH[?size=SIZE] - a local file or block device as a far store, through
 * io_uring and O_DIRECT.
 *
 * PATH is a directory: a file without a name inside it. PATH does not exist: it is
 * created and unlinked at once. In both cases nothing stays behind, however the
 * process ends. A block device is used as it is; any other existing file is
 * refused, for it might be somebody's. The file is sparse: space is taken when it
 * is written and given back by a trim.
 *
 * One ring a queue. Where io_uring is not to be had (old kernels, containers) the
 * transfers are made by pread and pwrite inside the poll (EMF_CAP_SYNC). O_DIRECT
 * is left out where the file system refuses it. liburing is a part of this object: the
 * preloaded library answers to the shared one's names, for the program.
 */
#define _GNU_SOURCE 1 /* O_DIRECT, O_TMPFILE, fallocate, asprintf */
#include <fcntl.h>
#include <liburing.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "io.h"
#include "own.h"
#include "uri.h"

#define MAX_LENGTH (1u << 30) /* also below what one read(2) or write(2) takes */
#define MAX_DEPTH 4096u
#define PUNCH (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)

struct file {
	struct emf_backend be;
	int fd;
};

struct file_queue {
	struct emf_queue q;
	struct file *file;
	unsigned depth;
	bool closing;
	bool uring;
	struct io_uring ring;
	struct io_list todo; /* without a ring: to be done in the next poll */
};

/* How far a transfer has come: the kernel may do less than was asked for. */
static size_t *progress(struct emf_io *io)
{
	return (size_t *)&io->scratch[0];
}

/* Not every file system and device can punch holes. A trim is a hint then. */
static int trim_status(int rc)
{
	return rc == -EOPNOTSUPP || rc == -ENOTTY ? 0 : rc;
}

/* Takes note of what a call returned. True: the transfer has ended. */
static bool advance(struct emf_io *io, int res)
{
	if (io->status) /* refused in submit */
		return true;
	if (res == -EINTR || res == -EAGAIN)
		return false;
	if (io->op == EMF_TRIM) {
		io->status = trim_status(res);
		return true;
	}
	if (res <= 0) { /* 0 is an end of file that can't be: somebody truncated it */
		io->status = res ? res : -EIO;
		return true;
	}
	*progress(io) += (size_t)res;
	return *progress(io) >= io->length;
}

/* --- with a ring --- */

/* There is always room: a ring has an entry for every transfer in flight. */
static void prepare(struct file_queue *fq, struct emf_io *io)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&fq->ring);
	size_t at = *progress(io);
	char *buf = (char *)io->buf + at;
	unsigned length = (unsigned)(io->length - at);

	if (io->status) {
		io_uring_prep_nop(sqe);
		io_uring_sqe_set_data(sqe, io);
		return;
	}
	switch (io->op) {
	case EMF_READ:
		io_uring_prep_read(sqe, fq->file->fd, buf, length, io->offset + at);
		break;
	case EMF_WRITE:
		io_uring_prep_write(sqe, fq->file->fd, buf, length, io->offset + at);
		break;
	case EMF_TRIM:
		io_uring_prep_fallocate(sqe, fq->file->fd, PUNCH, (off_t)io->offset,
					(off_t)io->length);
		break;
	}
	io_uring_sqe_set_data(sqe, io);
}

/* An error leaves the entries in the ring: the next poll tries again. */
static void push_ring(struct file_queue *fq)
{
	if (io_uring_sq_ready(&fq->ring))
		io_uring_submit(&fq->ring);
}

static void reap_ring(struct file_queue *fq, struct io_list *ended)
{
	struct io_uring_cqe *cqe;

	while (!io_uring_peek_cqe(&fq->ring, &cqe)) {
		struct emf_io *io = io_uring_cqe_get_data(cqe);
		int res = cqe->res;

		io_uring_cqe_seen(&fq->ring, cqe);
		if (advance(io, res))
			io_push(ended, io);
		else
			prepare(fq, io);
	}
	push_ring(fq);
}

/* --- without --- */

static void transfer(struct file *f, struct emf_io *io)
{
	ssize_t res;

	if (io->status)
		return;
	do {
		size_t at = *progress(io);
		off_t offset = (off_t)(io->offset + at);
		char *buf = (char *)io->buf + at;

		switch (io->op) {
		case EMF_READ:
			res = pread(f->fd, buf, io->length - at, offset);
			break;
		case EMF_WRITE:
			res = pwrite(f->fd, buf, io->length - at, offset);
			break;
		default:
			res = fallocate(f->fd, PUNCH, offset, (off_t)io->length);
			break;
		}
	} while (!advance(io, res < 0 ? -errno : (int)res));
}

/* --- the queue --- */

static int file_submit(struct emf_queue *q, struct emf_io *io)
{
	struct file_queue *fq = (struct file_queue *)q;

	if (fq->closing || q->inflight >= fq->depth)
		return -EAGAIN;
	q->inflight++;
	*progress(io) = 0;
	io->status = io_check(io, fq->file->be.size);
	if (!io->status && io->length > MAX_LENGTH)
		io->status = -EINVAL;
	if (fq->uring) {
		prepare(fq, io);
		push_ring(fq);
	} else {
		io_push(&fq->todo, io);
	}
	return 0;
}

static int file_poll(struct emf_queue *q)
{
	struct file_queue *fq = (struct file_queue *)q;
	struct io_list list = { 0 };
	struct emf_io *io;
	int n = 0;

	if (!q->inflight)
		return 0;
	if (fq->uring)
		reap_ring(fq, &list);
	else
		list = io_take(&fq->todo);
	for (; (io = io_pop(&list)); n++) {
		if (!fq->uring)
			transfer(fq->file, io);
		io_end(q, io, io->status);
	}
	return n;
}

static int file_pollfds(struct emf_queue *q, struct pollfd *fds, int max)
{
	struct file_queue *fq = (struct file_queue *)q;

	if (!fq->uring || !q->inflight || max < 1)
		return 0;
	push_ring(fq);
	fds[0] = (struct pollfd){ .fd = fq->ring.ring_fd, .events = POLLIN };
	return 1;
}

static void file_queue_close(struct emf_queue *q)
{
	struct file_queue *fq = (struct file_queue *)q;
	struct io_list list = { 0 };

	fq->closing = true;
	if (!fq->uring) {
		io_end_all(q, &fq->todo, -ECANCELED);
		own_free(fq, sizeof(*fq));
		return;
	}
	/* The kernel may still use the buffers: disk transfers can only be waited for. */
	while (q->inflight) {
		struct io_uring_cqe *cqe;

		push_ring(fq);
		io_uring_wait_cqe(&fq->ring, &cqe);
		reap_ring(fq, &list);
		io_end_all(q, &list, -ECANCELED);
	}
	io_uring_queue_exit(&fq->ring);
	own_free(fq, sizeof(*fq));
}

static const struct emf_queue_ops queue_ops = {
	.submit = file_submit,
	.poll = file_poll,
	.pollfds = file_pollfds,
	.close = file_queue_close,
};

static int file_queue_open(struct emf_backend *be, enum emf_queue_kind kind, unsigned depth,
			   struct emf_queue **out)
{
	struct file_queue *fq = own_alloc(sizeof(*fq));

	(void)kind;
	if (!fq)
		return -ENOMEM;
	fq->q.ops = &queue_ops;
	fq->file = (struct file *)be;
	fq->depth = !depth ? 1 : depth < MAX_DEPTH ? depth : MAX_DEPTH;
	fq->uring = !(be->caps & EMF_CAP_SYNC);
	if (fq->uring) {
		int rc = io_uring_queue_init(fq->depth, &fq->ring, 0);

		if (rc) {
			own_free(fq, sizeof(*fq));
			return rc;
		}
	}
	*out = &fq->q;
	return 0;
}

/* --- the space --- */

static void file_close(struct emf_backend *be)
{
	struct file *f = (struct file *)be;

	close(f->fd);
	own_free(f, sizeof(*f));
}

static int file_descriptors(const struct emf_backend *be, int *fds, int max)
{
	if (max < 1)
		return -E2BIG;
	fds[0] = ((const struct file *)be)->fd;
	return 1;
}

static int file_forked(struct emf_backend *be, const int *fds)
{
	((struct file *)be)->fd = fds[0];
	return 1;
}

static const struct emf_backend_ops backend_ops = {
	.queue_open = file_queue_open,
	.close = file_close,
	.descriptors = file_descriptors,
	.forked = file_forked,
};

static int open_flags(const char *path, int flags)
{
	int fd = open(path, flags | O_RDWR | O_CLOEXEC, 0600);

	return fd < 0 ? -errno : fd;
}

/* A file in dir that never has a name, or has one for a moment only. */
static int open_in_directory(const char *dir)
{
	int fd = open_flags(dir, O_TMPFILE | O_EXCL);
	uint64_t random;
	char *path;

	if (fd != -EOPNOTSUPP && fd != -EISDIR && fd != -ENOENT && fd != -EINVAL)
		return fd;
	if (getrandom(&random, sizeof(random), 0) != sizeof(random))
		return -errno;
	if (asprintf(&path, "%s/.emfatier-%016llx", dir, (unsigned long long)random) < 0)
		return -ENOMEM;
	fd = open_flags(path, O_CREAT | O_EXCL);
	if (fd >= 0)
		unlink(path);
	free(path);
	return fd;
}

/* Free space of the file system, cut to what this process may write. */
static uint64_t free_space(int fd)
{
	struct statvfs vfs;
	struct rlimit limit;
	uint64_t size;

	if (fstatvfs(fd, &vfs))
		return 0;
	size = (uint64_t)vfs.f_bavail * vfs.f_frsize;
	if (!getrlimit(RLIMIT_FSIZE, &limit) && limit.rlim_cur < size)
		size = limit.rlim_cur;
	return size & ~(uint64_t)(IO_PAGE - 1);
}

/* Makes the new file `size` bytes long; 0: as long as there is space. */
static int size_file(struct file *f, uint64_t size, char *err, size_t errlen)
{
	struct rlimit limit;

	if (!size)
		size = free_space(f->fd);
	if (!size) {
		snprintf(err, errlen, "no free space");
		return -ENOSPC;
	}
	/* Beyond the limit ftruncate and write raise SIGXFSZ, which ends the program. */
	if (!getrlimit(RLIMIT_FSIZE, &limit) && limit.rlim_cur < size) {
		snprintf(err, errlen, "size is over the file size limit (ulimit -f)");
		return -EFBIG;
	}
	if (ftruncate(f->fd, (off_t)size)) {
		int rc = -errno;

		snprintf(err, errlen, "cannot make a file of %llu bytes: %s",
			 (unsigned long long)size, strerror(-rc));
		return rc;
	}
	f->be.size = size;
	return 0;
}

static int size_device(struct file *f, uint64_t size, char *err, size_t errlen)
{
	uint64_t have = 0;

	if (ioctl(f->fd, BLKGETSIZE64, &have)) {
		int rc = -errno;

		snprintf(err, errlen, "cannot read the size of the device: %s", strerror(-rc));
		return rc;
	}
	have &= ~(uint64_t)(IO_PAGE - 1);
	if (size > have) {
		snprintf(err, errlen,
			 "the device has %llu bytes, less than size=", (unsigned long long)have);
		return -EINVAL;
	}
	f->be.size = size ? size : have;
	f->be.caps |= EMF_CAP_OUTLIVES;
	return 0;
}

static int open_path(struct file *f, const char *path, uint64_t size, char *err, size_t errlen)
{
	struct stat st;
	bool device = false;
	int flags;

	if (stat(path, &st)) {
		f->fd = errno == ENOENT ? open_flags(path, O_CREAT | O_EXCL) : -errno;
		if (f->fd >= 0)
			unlink(path);
	} else if (S_ISDIR(st.st_mode)) {
		f->fd = open_in_directory(path);
	} else if (S_ISBLK(st.st_mode)) {
		device = true;
		f->fd = open_flags(path, O_EXCL); /* not while it is mounted */
	} else {
		f->fd = -EEXIST;
	}
	if (f->fd < 0) {
		snprintf(err, errlen, "%s",
			 f->fd == -EEXIST
			     ? "the file exists; name a directory, a new file or a block device"
			     : strerror(-f->fd));
		return f->fd;
	}
	flags = fcntl(f->fd, F_GETFL);
	(void)fcntl(f->fd, F_SETFL, flags | O_DIRECT);
	return device ? size_device(f, size, err, errlen) : size_file(f, size, err, errlen);
}

static int parse(char *query, uint64_t *size, char *err, size_t errlen)
{
	char *key, *value;

	while (uri_query_next(&query, &key, &value)) {
		if (strcmp(key, "size")) {
			snprintf(err, errlen, "no parameter '%s'; file: has size", key);
			return -EINVAL;
		}
		if (!uri_size(value, size) || *size < IO_PAGE) {
			snprintf(err, errlen, "bad value in size=%s; e.g. size=64G", value);
			return -EINVAL;
		}
		*size &= ~(uint64_t)(IO_PAGE - 1);
	}
	return 0;
}

static bool have_io_uring(void)
{
	struct io_uring ring;

	if (io_uring_queue_init(1, &ring, 0))
		return false;
	io_uring_queue_exit(&ring);
	return true;
}

static int file_open(const char *uri, unsigned timeout_ms, struct emf_backend **out, char *err,
		     size_t errlen)
{
	struct file *f = own_alloc(sizeof(*f));
	char *copy = strdup(uri), *query = copy, *path;
	uint64_t size = 0;
	int rc = -ENOMEM;

	(void)timeout_ms;
	if (!f || !copy) {
		snprintf(err, errlen, "out of memory");
		goto fail;
	}
	f->fd = -1;
	strsep(&query, "?");
	path = copy + strlen("file:");
	if (strncmp(copy, "file:", 5) || *path != '/' || !uri_decode(path)) {
		snprintf(err, errlen, "not file:/PATH; the path is absolute, %%XX in it is a byte");
		rc = -EINVAL;
		goto fail;
	}
	rc = parse(query, &size, err, errlen);
	if (!rc)
		rc = open_path(f, path, size, err, errlen);
	if (rc < 0)
		goto fail;
	f->be.ops = &backend_ops;
	f->be.caps |= EMF_CAP_TRIM | (have_io_uring() ? 0 : EMF_CAP_SYNC);
	f->be.max_length = MAX_LENGTH;
	free(copy);
	*out = &f->be;
	return 0;
fail:
	if (f && f->fd >= 0)
		close(f->fd);
	free(copy);
	own_free(f, sizeof(*f));
	return rc;
}

__attribute__((visibility("default"))) const struct emf_provider emf_provider = {
	.abi = EMF_PROVIDER_ABI,
	.name = "file",
	.open = file_open,
};
