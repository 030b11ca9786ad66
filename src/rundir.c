/* SPDX-License-Identifier: Apache-2.0 */
#include "rundir.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "env.h"

static int use_dir(const char *path, mode_t mode, bool create)
{
	struct stat st;

	if (create && mkdir(path, mode) && errno != EEXIST)
		return -errno;
	if (lstat(path, &st))
		return -errno;
	if (!S_ISDIR(st.st_mode))
		return -ENOTDIR;
	if ((st.st_uid != geteuid() && st.st_uid != 0) || (st.st_mode & S_IWOTH))
		return -EPERM;
	return 0;
}

/* The index-th place to look at: its path into out. False: there is none such. */
static bool place(unsigned index, char *out, size_t len, mode_t *mode, int *length)
{
	const char *xdg = env_get("XDG_RUNTIME_DIR");

	*mode = 0700;
	switch (index) {
	case 0:
		if (geteuid() != 0)
			return false;
		*mode = 0755;
		*length = snprintf(out, len, "/run/emfatier");
		return true;
	case 1:
		if (!xdg || xdg[0] != '/')
			return false;
		*length = snprintf(out, len, "%s/emfatier", xdg);
		return true;
	default:
		*length = snprintf(out, len, "/tmp/emfatier-%u", (unsigned)geteuid());
		return true;
	}
}

int run_dir(char *out, size_t len, bool create)
{
	const char *env = env_get("EMFATIER_RUN_DIR");
	int length, rc = 0, first_rc = 0;
	unsigned first = 0;
	mode_t mode;

	if (env && *env) {
		/* said in so many words: nothing else will do */
		length = snprintf(out, len, "%s", env);
		if (length < 0 || (size_t)length >= len)
			return -ENAMETOOLONG;
		return use_dir(out, geteuid() ? 0700 : 0755, create);
	}
	for (unsigned i = 0; i < 3; i++) {
		if (!place(i, out, len, &mode, &length))
			continue;
		if (length < 0 || (size_t)length >= len)
			return -ENAMETOOLONG;
		rc = use_dir(out, mode, create);
		if (!rc)
			return 0;
		if (!first_rc) {
			first_rc = rc;
			first = i;
		}
	}
	/* the one that it should have been is the one to talk about */
	place(first, out, len, &mode, &length);
	return first_rc;
}
