/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A descriptor that is always readable: what a queue gives to poll(2) when it has
 * something to do at once. And one that others make readable.
 */
#ifndef EMF_READY_H
#define EMF_READY_H

#include <errno.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <unistd.h>

static inline int ready_open(void)
{
	int fd = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);

	return fd < 0 ? -errno : fd;
}

static inline int signal_open(void)
{
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

	return fd < 0 ? -errno : fd;
}

static inline void signal_raise(int fd)
{
	uint64_t one = 1;

	(void)!write(fd, &one, sizeof(one));
}

static inline void signal_clear(int fd)
{
	uint64_t n;

	(void)!read(fd, &n, sizeof(n));
}

#endif
