/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The wire of emfatierd: connections by librdmacm, one thread, one loop. What is said on them is
 * session.c's; here are queue pairs, what cards may reach, and time.
 *
 * Each connection has a protection domain of its own, in which nothing can be reached but the
 * slabs of its lease that it asked for; they are registered in it for this connection alone. When
 * it goes, or the lease ends, the queue pair is destroyed and the slabs are unregistered before
 * anything else happens to them.
 *
 * A client that vanished without a word is noticed by an empty write to it every now and then,
 * which its card must acknowledge.
 */
#ifndef EMFATIERD_SERVER_H
#define EMFATIERD_SERVER_H

#include "options.h"
#include "session.h"

/* Is there any RDMA device? Opens none. */
bool server_possible(void);
/* Opens all devices and listens. 0, or -errno and err: one line. Once a process. */
int server_open(struct desk *desk, const struct options *o, char *err, size_t errlen);
/* Until it is told to end (SIGTERM, SIGINT: they must be blocked) and has drained, or -errno. */
int server_run(void);
/* All connections end. */
void server_close(void);

#endif
