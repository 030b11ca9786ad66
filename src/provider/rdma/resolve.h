/* SPDX-License-Identifier: Apache-2.0 */
/* HOST[:PORT] to an address, in bounded time. */
#ifndef EMF_RDMA_RESOLVE_H
#define EMF_RDMA_RESOLVE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

/*
 * text: "host", "host:port", "10.0.0.1:10810", "[fe80::1]:10810". A name is looked up in a thread
 * of libc's, which is left alone when it takes longer than timeout_ms. 0; -EINVAL malformed,
 * -ENOENT no such host, -ETIMEDOUT; err: one line.
 */
int resolve(const char *text, uint64_t timeout_ms, struct sockaddr_storage *out, char *err,
	    size_t errlen);

#endif
