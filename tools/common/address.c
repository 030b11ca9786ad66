/* SPDX-License-Identifier: Apache-2.0 */
#include "address.h"

#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

/* libc takes any number, and "", and cuts it to 16 bits. Names of services begin with a letter. */
static bool is_port(const char *text)
{
	unsigned v = 0;

	if ((*text | 0x20) >= 'a' && (*text | 0x20) <= 'z')
		return true;
	for (; *text >= '0' && *text <= '9' && v <= 65535; text++)
		v = v * 10 + (unsigned)(*text - '0');
	return !*text && v && v <= 65535;
}

struct addrinfo *address_find(const char *text, const char *port, int flags, const char **why)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | flags },
			*found;
	char host[256], *colon, *name = host;
	size_t n;
	int rc;

	snprintf(host, sizeof(host), "%s", text);
	colon = strrchr(host, ':');
	if (strspn(host, "0123456789") == strlen(host)) {
		port = text;
		snprintf(host, sizeof(host), "127.0.0.1");
	} else if (colon && (colon == host || strchr(host, ':') == colon || host[0] == '[')) {
		/* Anything else with a colon is an IPv6 address without a port. */
		if (colon == host || colon[-1] == ']' || host[0] != '[') {
			port = text + (colon - host) + 1;
			*colon = '\0';
		}
	}
	if (!is_port(port) || strlen(text) >= sizeof(host)) {
		*why = "a port is a number from 1 to 65535";
		return NULL;
	}
	n = strlen(host);
	if (host[0] == '[' && host[n - 1] == ']') {
		host[n - 1] = '\0';
		name++;
	}
	rc = getaddrinfo(*name ? name : NULL, port, &hints, &found);
	if (!rc)
		return found;
	*why = gai_strerror(rc);
	return NULL;
}

bool address_is_loopback(const struct sockaddr *at)
{
	if (at->sa_family == AF_INET)
		return ntohl(((const struct sockaddr_in *)(const void *)at)->sin_addr.s_addr) >>
			   24 ==
		       127;
	if (at->sa_family == AF_INET6) {
		const struct in6_addr *a =
		    &((const struct sockaddr_in6 *)(const void *)at)->sin6_addr;

		return IN6_IS_ADDR_LOOPBACK(a) ||
		       (IN6_IS_ADDR_V4MAPPED(a) && a->s6_addr[12] == 127);
	}
	return false;
}
