/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A queue of the provider: a connection over each of the paths to the server (path.h), over which
 * the pieces of all transfers go, each over the one that has the fewest bytes under way. A path
 * that is lost gives back its pieces, which the others do again, and is connected anew while they
 * go on; when none is left the queue is broken, for good.
 *
 * A piece that is done again may be written twice with the same content. The first of the two, if
 * it is still on its way through the network, can arrive after a later write only if the network
 * holds it for longer than a transfer takes to fail; then the checksum of what is read differs.
 */
#ifndef EMF_RDMA_QUEUE_H
#define EMF_RDMA_QUEUE_H

#include "path.h"

#define QUEUE_PATHS 4u

struct queue_options {
	const struct path_terms *terms;
	const struct sockaddr_storage *peer;
	unsigned npeers; /* at most QUEUE_PATHS */
	uint64_t size;
	enum emf_queue_kind kind;
	unsigned depth;
	uint64_t timeout; /* ns: without any progress */
	int ready_fd;	  /* always readable */
};

/* Until one path is READY, for at most connect_ms; then the others go on by themselves. */
int queue_open(const struct queue_options *o, unsigned connect_ms, struct emf_queue **out);

/* Moves the path on until it is `wanted`, is BROKEN, or the time is over: -errno. */
int queue_wait(struct path *p, enum path_state wanted, uint64_t until);
uint64_t queue_now(void);

#endif
