/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who has which slabs. A lease belongs to a tenant, is named by the key that its client made up,
 * and is held by connections. When the last of them is gone it waits for another one, for as long
 * as leases last, and then ends; it ends at once when its client says so. The slabs of one that
 * has ended go back to the pool when no connection is left whose card could still reach them. A new
 * one may have to wait until its slabs are overwritten: nobody may have any of them before.
 *
 * No thread but the caller's, no clock but the one that it passes (ns, monotonic).
 */
#ifndef EMFATIERD_LEASE_H
#define EMFATIERD_LEASE_H

#include "pool.h"
#include "provider/rdma/auth.h"
#include "provider/rdma/wire.h"

#define LEASE_TENANTS 64u

struct tenant {
	char name[WIRE_NAME];
	uint64_t quota; /* bytes */
	uint64_t used;
	uint32_t leases;
	struct secret secret; /* length 0: needs none */
};

struct lease {
	struct lease *next;
	struct tenant *tenant;
	uint8_t key[WIRE_KEY];
	bool ended;
	bool used; /* somebody was told where its slabs are */
	uint32_t connections;
	uint64_t until; /* without connections */
	uint32_t nslabs;
	uint32_t slab[];
};

struct leases {
	struct pool *pool;
	struct tenant *tenant;
	uint32_t ntenants;
	uint32_t most;	/* at once */
	uint64_t lasts; /* ns */
	uint64_t usual; /* bytes, where none are asked for; 0: a quarter of what is available */
	bool draining;	/* no new ones */
	uint32_t count;
	struct lease *first;
	uint64_t made, expired; /* since the start */
};

/* NULL: there is none of that name. */
struct tenant *leases_tenant(struct leases *ls, const char *name);
/* Bytes that the tenant could lease now. */
uint64_t leases_available(const struct leases *ls, const struct tenant *t);

/*
 * One more connection for the tenant's lease of that key; made if there is none, with `bytes`,
 * or, where that is 0, the usual. 0 and *fresh; -EINVAL other
 * bytes than it has; -EDQUOT, -ENOSPC, -ENFILE, -ESHUTDOWN (draining), -ENOMEM.
 */
int leases_join(struct leases *ls, struct tenant *t, const uint8_t key[WIRE_KEY], uint64_t bytes,
		struct lease **out, bool *fresh);
/* May its clients have its slabs? Else pool_work brings that nearer. */
bool leases_are_ready(const struct leases *ls, const struct lease *l);
/* A connection is gone. */
void leases_leave(struct leases *ls, struct lease *l, uint64_t now);
/* It ends now: the caller gets its connections to leave. */
void lease_end(struct lease *l);
/* Ends what has waited for too long. When to come next; UINT64_MAX: nothing waits. */
uint64_t leases_work(struct leases *ls, uint64_t now);
/* All end, and are forgotten; no connection is left. */
void leases_close(struct leases *ls);

#endif
