/* SPDX-License-Identifier: Apache-2.0 */
/* One line for the operator on stderr: "emfatierd: ...". */
#ifndef EMFATIERD_SAY_H
#define EMFATIERD_SAY_H

#define EXIT_WRONG 1
#define EXIT_USAGE 2

/* Returns status, so that a check reads `return say(EXIT_USAGE, ...)`. */
int say(int status, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
