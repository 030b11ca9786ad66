/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the links have in common that keep a record of their own for each transfer: a
 * queue with its records behind it, and what is said of a link that changes no bounds.
 * (link.h is for those that only want to look on.)
 */
#ifndef EMF_STORE_QUEUE_H
#define EMF_STORE_QUEUE_H

#include <unistd.h>

#include "../provider/io.h"
#include "emfatier-provider.h"
#include "memory.h"
#include "timer.h"

/*
 * A zeroed queue of `head` bytes with `depth` (0: 1) records of `each` behind it, which begin
 * with a struct emf_io and are all in the io_list at the offset `idle`. store_free frees it.
 */
static inline void *queue_alloc(size_t head, size_t each, unsigned depth, size_t idle)
{
	unsigned n = depth ? depth : 1;
	char *q = store_alloc(1, head + n * each);

	for (unsigned i = 0; q && i < n; i++)
		io_push((struct io_list *)(void *)(q + idle),
			(struct emf_io *)(void *)(q + head + i * each));
	return q;
}

/* The queue below, with a timer for the one above; both or none. */
static inline int queue_open_timed(struct emf_backend *next, enum emf_queue_kind kind,
				   unsigned depth, struct timer *timer, struct emf_queue **out)
{
	int rc = timer_open(timer);

	if (rc)
		return rc;
	rc = next->ops->queue_open(next, kind, depth, out);
	if (rc)
		close(timer->fd);
	return rc;
}

/* What a link says of itself that is as the backend below (link.h's, too). */
static inline struct emf_backend backend_like(const struct emf_backend *next,
					      const struct emf_backend_ops *ops)
{
	return (struct emf_backend){
		.ops = ops,
		.size = next->size,
		.caps = next->caps,
		.max_length = next->max_length,
	};
}

#endif
