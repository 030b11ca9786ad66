/* SPDX-License-Identifier: Apache-2.0 */
#include "self.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "store/where.h"

bool self_find(const char *name, char *out, size_t len)
{
	char dir[PATH_MAX];
	const char *slash;

	if (where_dir(dir, sizeof(dir)))
		strcpy(dir, ".");
	if (snprintf(out, len, "%s/%s", dir, name) < (int)len && !access(out, F_OK))
		return true;
	/* not DIR/../lib: the path is shown, and put into LD_PRELOAD */
	slash = strrchr(dir, '/');
	if (slash && snprintf(out, len, "%.*s/lib/%s", (int)(slash - dir), dir, name) < (int)len &&
	    !access(out, F_OK))
		return true;
	snprintf(out, len, "%s/%s", dir, name);
	return false;
}
