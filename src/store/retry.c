/* SPDX-License-Identifier: Apache-2.0 */
#include "retry.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>

#include "queue.h"

#define REREADS 3u
#define FIRST_NS 1000000ull
#define LAST_NS 50000000ull

struct retry {
	struct emf_backend be;
	struct emf_backend *next;
	uint64_t timeout; /* ns */
};

struct retry_io {
	struct emf_io low; /* first: lists are of these */
	struct emf_io *up;
	struct retry_queue *rq;
	uint64_t begin, at; /* ns; at: of the next attempt */
	uint64_t backoff;
	unsigned bad;
};

struct retry_queue {
	struct emf_queue q;
	struct retry *link;
	struct emf_queue *next;
	struct timer timer;
	bool closing;
	struct io_list idle, waiting;
	struct retry_io io[];
};

static void end(struct retry_io *ri, int status)
{
	struct retry_queue *rq = ri->rq;
	struct emf_io *up = ri->up;

	io_push(&rq->idle, &ri->low);
	io_end(&rq->q, up, status);
}

/* Is it worth another attempt? If so ri->at says when. */
static bool again(struct retry_io *ri, int status)
{
	uint64_t now;

	if (ri->low.op != EMF_READ || !status || status == -EINVAL || ri->rq->closing)
		return false;
	if (status == -EBADMSG && ++ri->bad > REREADS)
		return false;
	now = timer_now();
	if (now - ri->begin >= ri->rq->link->timeout)
		return false;
	ri->backoff = !ri->backoff ? FIRST_NS : ri->backoff < LAST_NS ? ri->backoff * 2 : LAST_NS;
	ri->at = now + ri->backoff;
	if (ri->at > ri->begin + ri->rq->link->timeout)
		ri->at = ri->begin + ri->rq->link->timeout;
	return true;
}

static void low_done(struct emf_io *low)
{
	struct retry_io *ri = (struct retry_io *)low;

	if (again(ri, low->status))
		io_push(&ri->rq->waiting, low);
	else
		end(ri, low->status);
}

static int retry_submit(struct emf_queue *q, struct emf_io *io)
{
	struct retry_queue *rq = (struct retry_queue *)q;
	struct retry_io *ri = rq->closing ? NULL : (struct retry_io *)io_pop(&rq->idle);
	int rc;

	if (!ri)
		return -EAGAIN;
	*ri = (struct retry_io){
		.low = { .op = io->op,
			 .offset = io->offset,
			 .length = io->length,
			 .buf = io->buf,
			 .done = low_done },
		.up = io,
		.rq = rq,
		.begin = io->op == EMF_READ ? timer_now() : 0,
	};
	rc = rq->next->ops->submit(rq->next, &ri->low);
	if (rc)
		io_push(&rq->idle, &ri->low);
	else
		q->inflight++;
	return rc;
}

static int retry_poll(struct emf_queue *q)
{
	struct retry_queue *rq = (struct retry_queue *)q;
	struct io_list all = { 0 };
	struct emf_io *low;
	uint64_t now = 0;

	if (rq->waiting.head) {
		now = timer_now();
		all = io_take(&rq->waiting);
	}
	while ((low = io_pop(&all))) {
		if (((struct retry_io *)low)->at > now || rq->next->ops->submit(rq->next, low))
			io_push(&rq->waiting, low);
	}
	/* Of those that end below some may only wait for another attempt: counted all the same. */
	return rq->next->ops->poll(rq->next);
}

static int retry_pollfds(struct emf_queue *q, struct pollfd *fds, int max)
{
	struct retry_queue *rq = (struct retry_queue *)q;
	uint64_t first = UINT64_MAX;
	int n = 0;

	if (!q->inflight || max < 1)
		return 0;
	for (const struct emf_io *low = rq->waiting.head; low; low = low->next)
		if (((const struct retry_io *)low)->at < first)
			first = ((const struct retry_io *)low)->at;
	if (rq->next->inflight) {
		n = rq->next->ops->pollfds(rq->next, fds, max);
		if (!n) /* it needs no waiting */
			return 0;
	}
	if (first < UINT64_MAX && n < max) {
		timer_set(&rq->timer, first);
		fds[n++] = (struct pollfd){ .fd = rq->timer.fd, .events = POLLIN };
	}
	return n;
}

static void retry_queue_close(struct emf_queue *q)
{
	struct retry_queue *rq = (struct retry_queue *)q;
	struct emf_io *low;

	rq->closing = true;
	rq->next->ops->close(rq->next);
	while ((low = io_pop(&rq->waiting)))
		end((struct retry_io *)low, -ECANCELED);
	close(rq->timer.fd);
	store_free(rq);
}

static const struct emf_queue_ops queue_ops = {
	.submit = retry_submit,
	.poll = retry_poll,
	.pollfds = retry_pollfds,
	.close = retry_queue_close,
};

static int retry_queue_open(struct emf_backend *be, enum emf_queue_kind kind, unsigned depth,
			    struct emf_queue **out)
{
	struct retry *r = (struct retry *)be;
	struct retry_queue *rq;
	int rc;

	rq = queue_alloc(sizeof(*rq), sizeof(rq->io[0]), depth, offsetof(struct retry_queue, idle));
	if (!rq)
		return -ENOMEM;
	rc = queue_open_timed(r->next, kind, depth, &rq->timer, &rq->next);
	if (rc) {
		store_free(rq);
		return rc;
	}
	rq->q.ops = &queue_ops;
	rq->link = r;
	*out = &rq->q;
	return 0;
}

static void retry_close(struct emf_backend *be)
{
	store_free(be);
}

static const struct emf_backend_ops backend_ops = {
	.queue_open = retry_queue_open,
	.close = retry_close,
};

int retry_open(struct emf_backend *next, unsigned timeout_ms, struct emf_backend **out)
{
	struct retry *r = store_alloc(1, sizeof(*r));

	if (!r)
		return -ENOMEM;
	r->next = next;
	r->timeout = timeout_ms * 1000000ull;
	r->be = backend_like(next, &backend_ops);
	*out = &r->be;
	return 0;
}
