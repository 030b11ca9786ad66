/* SPDX-License-Identifier: Apache-2.0 */
#include "say.h"

#include <err.h>
#include <stdarg.h>
#include <stdio.h>

int say(int status, const char *format, ...)
{
	va_list ap;

	/* what was written before stands before it where both go to the same place */
	fflush(stdout);
	va_start(ap, format);
	vwarnx(format, ap);
	va_end(ap);
	return status;
}
