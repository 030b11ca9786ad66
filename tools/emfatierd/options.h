/* SPDX-License-Identifier: Apache-2.0 */
/* The command line of emfatierd, checked as a whole: nothing is begun with half of it wrong. */
#ifndef EMFATIERD_OPTIONS_H
#define EMFATIERD_OPTIONS_H

#include <netdb.h>

#include "lease.h"
#include "pool.h"

#define OPTIONS_LISTEN 8u

struct options {
	struct addrinfo *listen[OPTIONS_LISTEN];
	const char *listen_text[OPTIONS_LISTEN];
	unsigned nlisten;
	struct pool_options pool;
	struct addrinfo *metrics; /* NULL: none */
	const char *user;	  /* to run as when started by root */
	unsigned lease_ms, drain_ms;
	struct tenant tenant[LEASE_TENANTS];
	uint32_t ntenants; /* at least one; all have a secret, or none has */
};

/* -1: go on; else the exit status: what was to be said is said. */
int options_parse(struct options *o, int argc, char **argv);

#endif
