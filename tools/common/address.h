/* SPDX-License-Identifier: Apache-2.0 */
/* Where to listen, as a person writes it. */
#ifndef TOOLS_ADDRESS_H
#define TOOLS_ADDRESS_H

#include <netdb.h>
#include <stdbool.h>

/*
 * "9464", ":9464", "127.0.0.1:9464", "[::1]:9464", "host", "::1". A port alone is on the
 * loopback; without one it is `port`. flags: AI_NUMERICHOST, or 0: names may be looked up. To be
 * freed by freeaddrinfo; NULL and *why.
 */
struct addrinfo *address_find(const char *text, const char *port, int flags, const char **why);

/* Does nobody outside of this machine reach it? */
bool address_is_loopback(const struct sockaddr *at);

#endif
