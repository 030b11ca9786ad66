/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Each queue has a request, through which its owner and the store's thread deal
 * without a lock; `state` says whose move it is:
 *
 *   FREE      -> IDLE       the owner, queue_open
 *   IDLE      -> WANTED     the owner: it has no connection
 *   WANTED    -> OPENING    the thread
 *   OPENING   -> READY      the thread: `fresh` is the new queue
 *             -> WANTED     the thread: not yet, again later
 *   READY     -> IDLE       the owner: has taken it
 *   OPENING   -> ABANDONED  the owner closes; the thread closes `fresh` and makes it FREE
 *   others    -> FREE       the owner closes
 */
#include "reconnect.h"

#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>

#include "../log.h"
#include "queue.h"
#include "ready.h"

#define REQUESTS 16u /* queues open at once */
#define FIRST_BACKOFF_NS 20000000ull
#define LAST_BACKOFF_NS 2000000000ull

enum state { FREE, IDLE, WANTED, OPENING, READY, ABANDONED };

struct request {
	_Atomic uint32_t state;
	enum emf_queue_kind kind;
	unsigned depth;
	struct emf_queue *fresh;
};

struct reconnect {
	struct emf_backend be;
	struct emf_backend *next;
	struct emf_store_stats *stats;
	int wake_fd;
	int ready_fd;
	_Atomic uint32_t losses;
	_Atomic bool failing;
	struct request request[REQUESTS];
	/* the thread's */
	uint64_t retry_at, backoff;
	bool told; /* that it is down */
	bool rebuilt;
};

struct reconnect_io {
	struct emf_io low; /* first: lists are of these */
	struct emf_io *up;
	struct reconnect_queue *rq;
};

struct reconnect_queue {
	struct emf_queue q;
	struct reconnect *link;
	struct request *request;
	struct emf_queue *next; /* NULL: none */
	int broken;		/* 0, or why: to be closed as soon as nothing is in flight on it */
	bool closing, cutting;
	struct io_list idle, refused;
	struct reconnect_io io[];
};

static bool is_lost(int status)
{
	return status == -ENOTCONN || status == -ETIMEDOUT || status == -ESHUTDOWN ||
	       status == -ECONNRESET || status == -EPIPE;
}

/* --- the owner's side --- */

static void low_done(struct emf_io *low)
{
	struct reconnect_io *ri = (struct reconnect_io *)low;
	struct reconnect_queue *rq = ri->rq;
	struct emf_io *up = ri->up;
	int status = low->status;

	if (is_lost(status) && !rq->broken)
		rq->broken = status;
	if (status == -ECANCELED && rq->cutting)
		status = -ETIMEDOUT;
	io_push(&rq->idle, low);
	io_end(&rq->q, up, status);
}

static void ask(struct reconnect_queue *rq)
{
	rq->next = NULL;
	rq->broken = 0;
	atomic_store(&rq->request->state, WANTED);
	signal_raise(rq->link->wake_fd);
}

static void mark_down(struct reconnect *r)
{
	if (r->stats)
		atomic_store(&r->stats->state, EMF_STORE_DOWN);
}

static void drop_broken(struct reconnect_queue *rq)
{
	if (!rq->broken || !rq->next || rq->next->inflight)
		return;
	rq->next->ops->close(rq->next);
	atomic_fetch_add(&rq->link->losses, 1);
	mark_down(rq->link);
	ask(rq);
}

static void take_fresh(struct reconnect_queue *rq)
{
	if (rq->next || atomic_load(&rq->request->state) != READY)
		return;
	rq->next = rq->request->fresh;
	atomic_store(&rq->request->state, IDLE);
}

bool reconnect_is_up(const struct emf_queue *q)
{
	const struct reconnect_queue *rq = (const struct reconnect_queue *)q;

	return (rq->next && !rq->broken) || atomic_load(&rq->request->state) == READY;
}

void reconnect_cut(struct emf_queue *q)
{
	struct reconnect_queue *rq = (struct reconnect_queue *)q;

	if (!rq->next)
		return;
	rq->broken = -ETIMEDOUT; /* for what is submitted meanwhile */
	rq->cutting = true;
	rq->next->ops->close(rq->next);
	rq->cutting = false;
	ask(rq);
}

int reconnect_watch(struct emf_queue *q, struct pollfd *fds, int max)
{
	struct reconnect_queue *rq = (struct reconnect_queue *)q;

	if (!rq->next || rq->broken || q->inflight)
		return 0;
	return rq->next->ops->pollfds(rq->next, fds, max);
}

void reconnect_broke(struct emf_queue *q)
{
	struct reconnect_queue *rq = (struct reconnect_queue *)q;

	if (rq->next && !rq->broken)
		rq->broken = -ENOTCONN;
	drop_broken(rq);
}

static int reconnect_submit(struct emf_queue *q, struct emf_io *io)
{
	struct reconnect_queue *rq = (struct reconnect_queue *)q;
	struct reconnect_io *ri;
	int rc;

	if (rq->closing)
		return -EAGAIN;
	take_fresh(rq);
	ri = (struct reconnect_io *)io_pop(&rq->idle);
	if (!ri)
		return -EAGAIN;
	*ri = (struct reconnect_io){
		.low = { .op = io->op,
			 .offset = io->offset,
			 .length = io->length,
			 .buf = io->buf,
			 .done = low_done },
		.up = io,
		.rq = rq,
	};
	rc = rq->next && !rq->broken ? rq->next->ops->submit(rq->next, &ri->low) : -ENOTCONN;
	if (rc == -EAGAIN) {
		io_push(&rq->idle, &ri->low);
		return rc;
	}
	q->inflight++;
	if (rc)
		io_push(&rq->refused, &ri->low);
	return 0;
}

static int reconnect_poll(struct emf_queue *q)
{
	struct reconnect_queue *rq = (struct reconnect_queue *)q;
	struct io_list refused = io_take(&rq->refused);
	struct emf_io *low;
	int n = 0;

	for (; (low = io_pop(&refused)); n++) {
		low->status = -ENOTCONN;
		struct emf_io *up = ((struct reconnect_io *)low)->up;
		io_push(&rq->idle, low);
		io_end(q, up, -ENOTCONN);
	}
	if (rq->next)
		n += rq->next->ops->poll(rq->next);
	drop_broken(rq);
	take_fresh(rq);
	return n;
}

static int reconnect_pollfds(struct emf_queue *q, struct pollfd *fds, int max)
{
	struct reconnect_queue *rq = (struct reconnect_queue *)q;

	if (max < 1)
		return 0;
	if (rq->refused.head) {
		if (rq->link->be.caps & EMF_CAP_SYNC)
			return 0;
		fds[0] = (struct pollfd){ .fd = rq->link->ready_fd, .events = POLLIN };
		return 1;
	}
	if (rq->next && q->inflight)
		return rq->next->ops->pollfds(rq->next, fds, max);
	return 0;
}

static void leave_request(struct request *r)
{
	uint32_t state = atomic_load(&r->state);

	do {
		if (state == READY) {
			r->fresh->ops->close(r->fresh);
			break;
		}
	} while (
	    !atomic_compare_exchange_weak(&r->state, &state, state == OPENING ? ABANDONED : FREE));
	if (state == READY)
		atomic_store(&r->state, FREE);
}

static void reconnect_queue_close(struct emf_queue *q)
{
	struct reconnect_queue *rq = (struct reconnect_queue *)q;
	struct emf_io *low;

	rq->closing = true;
	if (rq->next)
		rq->next->ops->close(rq->next);
	while ((low = io_pop(&rq->refused))) {
		low->status = -ECANCELED;
		low_done(low);
	}
	leave_request(rq->request);
	store_free(rq);
}

static const struct emf_queue_ops queue_ops = {
	.submit = reconnect_submit,
	.poll = reconnect_poll,
	.pollfds = reconnect_pollfds,
	.close = reconnect_queue_close,
};

static struct request *take_request(struct reconnect *r)
{
	for (unsigned i = 0; i < REQUESTS; i++) {
		uint32_t state = FREE;

		if (atomic_compare_exchange_strong(&r->request[i].state, &state, IDLE))
			return &r->request[i];
	}
	return NULL;
}

/* A queue without a connection yet. */
static int new_queue(struct reconnect *r, enum emf_queue_kind kind, unsigned depth,
		     struct reconnect_queue **out)
{
	struct reconnect_queue *rq;

	rq = queue_alloc(sizeof(*rq), sizeof(rq->io[0]), depth,
			 offsetof(struct reconnect_queue, idle));
	if (!rq)
		return -ENOMEM;
	rq->request = take_request(r);
	if (!rq->request) {
		store_free(rq);
		return -EMFILE;
	}
	rq->q.ops = &queue_ops;
	rq->link = r;
	rq->request->kind = kind;
	rq->request->depth = depth;
	*out = rq;
	return 0;
}

static int reconnect_queue_open(struct emf_backend *be, enum emf_queue_kind kind, unsigned depth,
				struct emf_queue **out)
{
	struct reconnect *r = (struct reconnect *)be;
	struct reconnect_queue *rq;
	int rc = new_queue(r, kind, depth, &rq);

	if (rc)
		return rc;
	rc = r->next->ops->queue_open(r->next, kind, depth, &rq->next);
	if (rc) {
		atomic_store(&rq->request->state, FREE);
		store_free(rq);
		return rc;
	}
	*out = &rq->q;
	return 0;
}

int reconnect_queue_later(struct emf_backend *be, enum emf_queue_kind kind, unsigned depth,
			  struct emf_queue **out)
{
	struct reconnect_queue *rq;
	int rc = new_queue((struct reconnect *)be, kind, depth, &rq);

	if (rc)
		return rc;
	ask(rq);
	*out = &rq->q;
	return 0;
}

void reconnect_set_rebuilt(struct emf_backend *be)
{
	((struct reconnect *)be)->rebuilt = true;
}

/* --- the thread's side --- */

bool reconnect_is_down(const struct emf_backend *be)
{
	const struct reconnect *r = (const struct reconnect *)be;

	for (unsigned i = 0; i < REQUESTS; i++) {
		uint32_t state = atomic_load(&r->request[i].state);

		if (state == WANTED || state == OPENING)
			return true;
	}
	return false;
}

uint32_t reconnect_losses(const struct emf_backend *be)
{
	return atomic_load(&((const struct reconnect *)be)->losses);
}

bool reconnect_is_failing(const struct emf_backend *be)
{
	return atomic_load(&((const struct reconnect *)be)->failing);
}

static void serve(struct reconnect *r, struct request *q)
{
	uint32_t state = WANTED;
	int rc;

	if (!atomic_compare_exchange_strong(&q->state, &state, OPENING))
		return;
	rc = r->next->ops->queue_open(r->next, q->kind, q->depth, &q->fresh);
	if (rc) {
		r->backoff = !r->backoff			? FIRST_BACKOFF_NS
			     : r->backoff < LAST_BACKOFF_NS / 2 ? r->backoff * 2
								: LAST_BACKOFF_NS;
		r->retry_at = timer_now() + r->backoff;
		atomic_store(&r->failing, true);
	} else {
		/* It was away: also where we had cut the connection, it may be another by now. */
		if (r->backoff)
			atomic_fetch_add(&r->losses, 1);
		r->backoff = 0;
		atomic_store(&r->failing, false);
	}
	state = OPENING;
	if (atomic_compare_exchange_strong(&q->state, &state, rc ? WANTED : READY))
		return;
	if (!rc)
		q->fresh->ops->close(q->fresh);
	atomic_store(&q->state, FREE);
}

static void tell(struct reconnect *r, bool down)
{
	uint32_t was = EMF_STORE_DOWN;

	/* Also where it was had again before it was told. */
	if (!down && r->stats)
		atomic_compare_exchange_strong(&r->stats->state, &was,
					       r->rebuilt ? EMF_STORE_REBUILDING : EMF_STORE_OK);
	if (down == r->told)
		return;
	r->told = down;
	if (down)
		mark_down(r);
	if (down)
		log_warn("store %s does not answer; trying to reach it",
			 r->stats ? r->stats->uri : "?");
	else
		log_warn("store %s is back", r->stats ? r->stats->uri : "?");
}

uint64_t reconnect_work(struct emf_backend *be, uint64_t now)
{
	struct reconnect *r = (struct reconnect *)be;

	for (unsigned i = 0; i < REQUESTS && now >= r->retry_at; i++)
		serve(r, &r->request[i]);
	bool down = reconnect_is_down(be);
	/* A connection that was cut for being late, and is had again at once, is not worth a line.
	 */
	if (!down || r->backoff)
		tell(r, down);
	return down ? r->retry_at : UINT64_MAX;
}

/* --- the link --- */

static void reconnect_close(struct emf_backend *be)
{
	close(((struct reconnect *)be)->ready_fd);
	store_free(be);
}

static int reconnect_link_forked(struct emf_backend *be, const int *fds)
{
	struct reconnect *r = (struct reconnect *)be;

	(void)fds;
	for (unsigned i = 0; i < REQUESTS; i++)
		r->request[i].state = FREE;
	r->retry_at = r->backoff = 0;
	r->told = r->failing = false;
	r->ready_fd = ready_open();
	return r->ready_fd < 0 ? r->ready_fd : 0;
}

void reconnect_forked(struct emf_backend *be, struct emf_store_stats *stats, int wake_fd)
{
	struct reconnect *r = (struct reconnect *)be;

	r->stats = stats;
	r->wake_fd = wake_fd;
}

static const struct emf_backend_ops backend_ops = {
	.queue_open = reconnect_queue_open,
	.close = reconnect_close,
	.forked = reconnect_link_forked,
};

int reconnect_open(struct emf_backend *next, struct emf_store_stats *stats, int wake_fd,
		   struct emf_backend **out)
{
	struct reconnect *r = store_alloc(1, sizeof(*r));
	int rc;

	if (!r)
		return -ENOMEM;
	r->next = next;
	r->stats = stats;
	r->wake_fd = wake_fd;
	r->be = backend_like(next, &backend_ops);
	r->ready_fd = ready_open();
	if (r->ready_fd < 0) {
		rc = r->ready_fd;
		store_free(r);
		return rc;
	}
	*out = &r->be;
	return 0;
}
