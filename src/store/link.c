/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "../arena.h"
#include "link.h"
#include "queue.h"

struct link_queue {
	struct emf_queue q;
	struct link *link;
	struct emf_queue *next;
	size_t bytes;	      /* of this with its io */
	struct link_io *idle; /* linked by .up, reused as a pointer to the next */
	struct link_io io[];
};

static void put(struct link_queue *lq, struct link_io *lio)
{
	lio->up = (struct emf_io *)lq->idle;
	lq->idle = lio;
}

static struct link_io *get(struct link_queue *lq)
{
	struct link_io *lio = lq->idle;

	if (lio)
		lq->idle = (struct link_io *)lio->up;
	return lio;
}

static void done(struct emf_io *low)
{
	struct link_io *lio = low->user;
	struct link_queue *lq = (struct link_queue *)lio->q;
	struct emf_io *up = lio->up;

	lq->link->ended(lq->link, lio);
	up->status = low->status;
	put(lq, lio);
	lq->q.inflight--;
	up->done(up);
}

static int queue_submit(struct emf_queue *q, struct emf_io *io)
{
	struct link_queue *lq = (struct link_queue *)q;
	struct link *l = lq->link;
	struct link_io *lio = get(lq);
	int rc;

	if (!lio)
		return -EAGAIN;
	lio->up = io;
	lio->q = q;
	lio->low = (struct emf_io){
		.op = io->op,
		.offset = io->offset,
		.length = io->length,
		.buf = io->buf,
		.done = done,
		.user = lio,
	};
	if (l->before)
		l->before(l, lio);
	rc = lq->next->ops->submit(lq->next, &lio->low);
	if (rc) {
		put(lq, lio);
		return rc;
	}
	q->inflight++;
	if (l->taken)
		l->taken(l, lio);
	return 0;
}

static int queue_poll(struct emf_queue *q)
{
	struct link_queue *lq = (struct link_queue *)q;

	return lq->next->ops->poll(lq->next);
}

static int queue_pollfds(struct emf_queue *q, struct pollfd *fds, int max)
{
	struct link_queue *lq = (struct link_queue *)q;

	return lq->next->ops->pollfds(lq->next, fds, max);
}

static void queue_close(struct emf_queue *q)
{
	struct link_queue *lq = (struct link_queue *)q;

	lq->next->ops->close(lq->next);
	arena_free(lq, lq->bytes);
}

static const struct emf_queue_ops queue_ops = {
	.submit = queue_submit,
	.poll = queue_poll,
	.pollfds = queue_pollfds,
	.close = queue_close,
};

static int link_queue_open(struct emf_backend *be, enum emf_queue_kind kind, unsigned depth,
			   struct emf_queue **out)
{
	struct link *l = (struct link *)be;
	struct link_queue *lq;
	int rc;

	if (!depth)
		depth = 1;
	size_t bytes = sizeof(*lq) + depth * sizeof(lq->io[0]);
	lq = arena_alloc(bytes);
	if (!lq)
		return -ENOMEM;
	lq->bytes = bytes;
	rc = l->next->ops->queue_open(l->next, kind, depth, &lq->next);
	if (rc) {
		arena_free(lq, lq->bytes);
		return rc;
	}
	lq->q.ops = &queue_ops;
	lq->link = l;
	for (unsigned i = depth; i-- > 0;)
		put(lq, &lq->io[i]);
	*out = &lq->q;
	return 0;
}

static void link_close(struct emf_backend *be)
{
	struct link *l = (struct link *)be;

	l->close(l);
}

static const struct emf_backend_ops backend_ops = {
	.queue_open = link_queue_open,
	.close = link_close,
};

void link_init(struct link *l, struct emf_backend *next)
{
	l->next = next;
	l->be = backend_like(next, &backend_ops);
}
