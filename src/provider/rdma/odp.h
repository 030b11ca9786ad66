/* SPDX-License-Identifier: Apache-2.0 */
/*
 * On-demand paging: keys for the runtime's frames, of cards that resolve page faults as a processor
 * does. Nothing of them is pinned, so UFFDIO_MOVE takes pages away from there and puts others: the
 * kernel tells the card, which asks for what is there when it is used next. So what is read lands
 * in the frame, and what is written is taken from there, with no copy in between.
 *
 * Registered are parts of the frames' area, when the first transfer comes by: the kernel keeps a
 * table for each page of them. Belongs to one thread.
 */
#ifndef EMF_RDMA_ODP_H
#define EMF_RDMA_ODP_H

#include <infiniband/verbs.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ODP_WINDOWS 256u

struct odp {
	struct ibv_pd *pd; /* NULL: the card can't, or there is nothing to register */
	uintptr_t base;
	size_t bytes, window;
	bool asks; /* the card can't be told beforehand */
	struct ibv_mr *mr[ODP_WINDOWS];
};

void odp_open(struct odp *o, struct ibv_pd *pd, const void *base, size_t bytes);
/*
 * May the card use this itself? Then *key is for it, and its pages are there, to be written to if
 * `lands`; else it has to be copied.
 */
bool odp_key(struct odp *o, const void *buf, uint32_t length, bool lands, uint32_t *key);
/* No queue pair is left that could use a key. */
void odp_close(struct odp *o);

#endif
