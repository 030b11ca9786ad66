/* SPDX-License-Identifier: Apache-2.0 */
/* One line for the user on stderr: "emfatier: ...". */
#ifndef EMFATIER_COMPLAIN_H
#define EMFATIER_COMPLAIN_H

#define EXIT_WRONG 1 /* found wrong */
#define EXIT_USAGE 2 /* usage or bad setting */
#define EXIT_NO_PROCESS 4

/* Returns EXIT_USAGE, so that a check reads `return complain(...)`. */
int complain(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
