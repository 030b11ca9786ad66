/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A queue's queues of several members: what a member has no room for (-EAGAIN) waits in
 * a list of that member. Part of a queue of the stripe, hierarchy or pool
 * link, and of its thread. A member may be NULL: none, for now. Parts, which are what goes to
 * members, begin with a struct emf_io; they are used again and again.
 */
#ifndef EMF_FAN_H
#define EMF_FAN_H

#include "../provider/io.h"
#include "store.h"

struct fan {
	size_t part; /* the size of one */
	struct io_list idle;
	unsigned n;
	struct emf_queue *member[STORE_LEAVES];
	struct io_list waiting[STORE_LEAVES];
};

/* f is all zero but for f->part. On error fan_close is still the caller's to call. */
int fan_open(struct fan *f, struct emf_backend *const *member, unsigned n, enum emf_queue_kind kind,
	     unsigned depth);
/* How deep members' queues are to be, for so many transfers of so many parts on each. */
unsigned fan_depth(unsigned transfers, uint64_t parts);
/* A part of any content; NULL: out of memory. */
void *fan_part(struct fan *f);
void fan_part_done(struct fan *f, struct emf_io *part);
/* In its turn; fan_flush hands over. */
void fan_add(struct fan *f, unsigned member, struct emf_io *io);
void fan_flush(struct fan *f, unsigned member);
void fan_poll(struct fan *f);
/* ready: there is something to do at once. ready_fd is a descriptor that is always readable. */
int fan_pollfds(struct fan *f, struct pollfd *fds, int max, bool ready, int ready_fd);
/* What waits is ended by -ECANCELED. The parts are gone afterwards. */
void fan_close(struct fan *f);

#endif
