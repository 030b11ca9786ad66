/* SPDX-License-Identifier: Apache-2.0 */
/* What the main thread changes of its identity in itself alone: identity.h. The program's calls,
 * with memory of its own: as it makes them (trap.h). */
#define _GNU_SOURCE
#include <stdarg.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "identity.h"
#include "preload.h"

EXPORT int prctl(int what, ...)
{
	va_list rest;
	long a[4];

	va_start(rest, what);
	for (unsigned i = 0; i < 4; i++)
		a[i] = va_arg(rest, long);
	va_end(rest);
	int r = (int)syscall(SYS_prctl, what, a[0], a[1], a[2], a[3]);
	if (r >= 0)
		identity_prctl(what, a[0], a[1], a[2], a[3]);
	return r;
}

int capset(void *head, const void *data);
EXPORT int capset(void *head, const void *data)
{
	int r = (int)syscall(SYS_capset, head, data);

	if (!r)
		identity_capset(head, data);
	return r;
}
