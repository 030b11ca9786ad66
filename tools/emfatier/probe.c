/* SPDX-License-Identifier: Apache-2.0 */
#include "probe.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <linux/userfaultfd.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* newer than the headers of Debian 12 */
#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif

/* linux/fs.h of 6.7 */
struct scan_arg {
	uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
	uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};
#define SCAN_IOCTL _IOWR('f', 16, struct scan_arg)
#define SCAN_PRESENT (1u << 3)

struct scan_region {
	uint64_t start, end, categories;
};

static int handle(enum probe_uffd_way *way)
{
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	int err = errno, dev;

	*way = UFFD_BY_CALL;
	if (fd >= 0)
		return fd;
	dev = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
	if (dev < 0)
		return -err;
	fd = ioctl(dev, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		fd = -errno;
	close(dev);
	*way = UFFD_BY_DEVICE;
	return fd;
}

int probe_userfaultfd(uint64_t *features, enum probe_uffd_way *way)
{
	struct uffdio_api api = { .api = UFFD_API };
	int fd = handle(way), rc = 0;

	*features = 0;
	if (fd < 0)
		return fd;
	if (ioctl(fd, UFFDIO_API, &api))
		rc = -errno;
	else
		*features = api.features;
	close(fd);
	return rc;
}

bool probe_feature(uint64_t feature)
{
	struct uffdio_api api = { .api = UFFD_API, .features = feature };
	enum probe_uffd_way way;
	int fd = handle(&way);
	bool granted = fd >= 0 && !ioctl(fd, UFFDIO_API, &api);

	if (fd >= 0)
		close(fd);
	return granted;
}

int probe_pagemap_scan(void)
{
	struct scan_region found;
	uint64_t page = (uint64_t)(uintptr_t)&found & ~4095ull;
	struct scan_arg arg = {
		.size = sizeof(arg),
		.start = page,
		.end = page + 4096,
		.vec = (uint64_t)(uintptr_t)&found,
		.vec_len = 1,
		.category_mask = SCAN_PRESENT,
		.return_mask = SCAN_PRESENT,
	};
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC), rc;

	if (fd < 0)
		return -errno;
	rc = ioctl(fd, SCAN_IOCTL, &arg) < 0 ? -errno : 0;
	close(fd);
	return rc;
}

int probe_io_uring(void)
{
	struct io_uring_params params;
	int fd;

	memset(&params, 0, sizeof(params));
	fd = (int)syscall(SYS_io_uring_setup, 1, &params);
	if (fd < 0)
		return -errno;
	close(fd);
	return 0;
}
