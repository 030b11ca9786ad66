/* SPDX-License-Identifier: Apache-2.0 */
/* How each of the tools speaks of what is wrong, and with what it ends then. */
#ifndef TOOLS_SAY_H
#define TOOLS_SAY_H

enum {
	EXIT_WRONG = 1,	     /* something was found wrong */
	EXIT_USAGE = 2,	     /* usage, or a bad setting */
	EXIT_DEGRADED = 3,   /* a store is down */
	EXIT_NO_PROCESS = 4, /* no such process */
};

/*
 * One line on standard error, behind the tool's name. Returns status, so that a check reads
 * `return say(EXIT_USAGE, ...)`.
 */
int say(int status, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
