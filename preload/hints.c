/* SPDX-License-Identifier: Apache-2.0 */
/* The one function behind include/emfatier.h. */
#include <errno.h>

#include "hint.h"
#include "preload.h"

EXPORT long emfatier_hint(int what, const void *addr, size_t len, const char *name);
long emfatier_hint(int what, const void *addr, size_t len, const char *name)
{
	int saved = errno;
	long r = hint_give(what, addr, len, name);

	errno = saved;
	return r;
}
