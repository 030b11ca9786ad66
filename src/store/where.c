/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE 1 /* dladdr */
#include <dlfcn.h>
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>

#include "where.h"

int where_dir(char *buf, size_t length)
{
	Dl_info self, program;
	char *path, *slash;
	int rc = 0;

	if (!dladdr((void *)(uintptr_t)where_dir, &self))
		return -ENOENT;
	/* The linker knows the program only by its argv[0], which may be any word. */
	if (dladdr((void *)getauxval(AT_PHDR), &program) && program.dli_fbase == self.dli_fbase)
		path = realpath("/proc/self/exe", NULL);
	else
		path = realpath(self.dli_fname, NULL);
	if (!path)
		return -errno;
	slash = strrchr(path, '/');
	*slash = '\0';
	if (strlen(path) < length)
		strcpy(buf, path);
	else
		rc = -ENAMETOOLONG;
	free(path);
	return rc;
}
