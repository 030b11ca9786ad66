/* SPDX-License-Identifier: Apache-2.0 */
/* How large a DAX device is, for who maps one. */
#ifndef EMF_PROVIDER_DAXSIZE_H
#define EMF_PROVIDER_DAXSIZE_H

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/* From sysfs; 0: it is no DAX device. */
static inline uint64_t dax_device_size(const struct stat *st)
{
	char path[64], text[32];
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/sys/dev/char/%u:%u/size", major(st->st_rdev),
		 minor(st->st_rdev));
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	text[n > 0 ? n : 0] = '\0';
	return strtoull(text, NULL, 0);
}

#endif
