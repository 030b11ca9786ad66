/* SPDX-License-Identifier: Apache-2.0 */
/* /metrics by HTTP: libmicrohttpd, which is loaded only for that. One server a process. */
#ifndef TOOLS_HTTP_H
#define TOOLS_HTTP_H

#include <stdbool.h>
#include <stdio.h>
#include <sys/socket.h>

/* False: it is not installed, and *why says so. */
bool http_load(const char **why);

/*
 * Serves at `at` what `page` writes, and at / who it is. With a thread of the library's own, in
 * which `page` runs then; else whenever http_work is called: when http_fd can be read, and after
 * http_timeout (ms; -1: never).
 * 0, or -errno.
 */
int http_open(const struct sockaddr *at, const char *who, void (*page)(void *arg, FILE *f),
	      void *arg, bool thread);
int http_fd(void);
int http_timeout(void);
void http_work(void);
void http_close(void);

#endif
