/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The common half of a link of the store chain that sits on exactly one backend
 * and passes every transfer on unchanged: it wraps the transfer in one of its
 * own, so that the link is told when it was handed over and when it ended.
 *
 * A link does not own the backend below: its close leaves that open.
 * Threads: as in emfatier-provider.h. The callbacks run in the queue's thread.
 */
#ifndef EMF_LINK_H
#define EMF_LINK_H

#include "emfatier-provider.h"

struct link_io {
	struct emf_io low; /* what the backend below sees */
	struct emf_io *up; /* what the submitter gave */
	uint64_t note;	   /* the link's own */
	struct emf_queue *q;
};

struct link {
	struct emf_backend be;
	struct emf_backend *next;
	/*
	 * The backend below is about to be given / has taken the transfer (which has not
	 * ended before the next poll). Either may be NULL.
	 */
	void (*before)(struct link *l, struct link_io *lio);
	void (*taken)(struct link *l, struct link_io *lio);
	/* It has ended with lio->low.status, which may be changed here. */
	void (*ended)(struct link *l, struct link_io *lio);
	void (*close)(struct link *l);
};

/* Fills l->be after what is below. The callbacks are the caller's to set. */
void link_init(struct link *l, struct emf_backend *next);

#endif
