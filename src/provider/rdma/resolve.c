/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE 1 /* getaddrinfo_a */
#include "resolve.h"

#include <errno.h>
#include <netdb.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "wire.h"

/* Lives on when nobody waits for it any more: libc writes to it. */
struct lookup {
	struct gaicb request;
	struct addrinfo hints;
	char host[256], port[8];
};

static bool split(const char *text, struct lookup *l)
{
	const char *end = text + strcspn(text, *text == '[' ? "]" : ":"), *port = NULL;
	unsigned long number;
	size_t n;
	char *rest;

	if (*text == '[') {
		text++;
		if (*end != ']' || (end[1] && end[1] != ':'))
			return false;
		port = end[1] ? end + 2 : NULL;
	} else if (*end) {
		port = end + 1;
	}
	n = (size_t)(end - text);
	if (!n || n >= sizeof(l->host))
		return false;
	memcpy(l->host, text, n);
	number = port ? strtoul(port, &rest, 10) : WIRE_PORT;
	if (port && (*port < '0' || *port > '9' || *rest))
		return false;
	snprintf(l->port, sizeof(l->port), "%u", (unsigned)(number & 0xffff));
	return number && number <= 65535;
}

/* EAI_*, EAI_AGAIN where it takes too long; *pending: libc is still at it. */
static int look_up(struct lookup *l, uint64_t timeout_ms, bool *pending)
{
	struct gaicb *list[] = { &l->request };
	struct timespec ts = { .tv_sec = (time_t)(timeout_ms / 1000),
			       .tv_nsec = (long)(timeout_ms % 1000) * 1000000 };
	int rc;

	/* Numbers take no time, and no thread. */
	l->hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV;
	rc = getaddrinfo(l->host, l->port, &l->hints, &l->request.ar_result);
	if (rc != EAI_NONAME)
		return rc;
	l->hints.ai_flags = AI_NUMERICSERV | AI_ADDRCONFIG;
	l->request.ar_name = l->host;
	l->request.ar_service = l->port;
	l->request.ar_request = &l->hints;
	rc = getaddrinfo_a(GAI_NOWAIT, list, 1, NULL);
	if (rc)
		return rc;
	while ((rc = gai_suspend((const struct gaicb *const *)list, 1, &ts)) == EAI_INTR)
		;
	rc = gai_error(&l->request);
	if (rc == EAI_INPROGRESS) {
		rc = gai_cancel(&l->request);
		*pending = rc != EAI_CANCELED && rc != EAI_ALLDONE;
		rc = EAI_AGAIN;
	}
	return rc;
}

int resolve(const char *text, uint64_t timeout_ms, struct sockaddr_storage *out, char *err,
	    size_t errlen)
{
	struct lookup *l = calloc(1, sizeof(*l));
	bool pending = false;
	int rc;

	if (!l)
		return -ENOMEM;
	l->hints.ai_socktype = SOCK_STREAM;
	if (!split(text, l)) {
		free(l);
		snprintf(err, errlen, "'%s': write HOST or HOST:PORT", text);
		return -EINVAL;
	}
	rc = look_up(l, timeout_ms, &pending);
	if (!rc)
		memcpy(out, l->request.ar_result->ai_addr, l->request.ar_result->ai_addrlen);
	else
		snprintf(err, errlen, "cannot find %s: %s", l->host,
			 rc == EAI_AGAIN ? "no answer in time" : gai_strerror(rc));
	if (!rc)
		freeaddrinfo(l->request.ar_result);
	if (!pending)
		free(l);
	return !rc ? 0 : rc == EAI_AGAIN ? -ETIMEDOUT : -ENOENT;
}
