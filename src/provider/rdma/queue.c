/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE 1 /* syscall, for own.h */
#include "queue.h"

#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "../io.h"
#include "../own.h"

#define NS_PER_MS 1000000ull
/*
 * The card's memory is pinned, 1 MiB and 2 MiB for each path of a queue; a limit of locked memory
 * of 8 MiB, as is usual, is enough for two servers.
 */
#define DEMAND_CHUNK (64u << 10)
#define BULK_CHUNK (128u << 10)
#define SLOTS 16u
#define RETRY_NS (500 * NS_PER_MS) /* a path that was lost */
/* A card answers within some us: as long as it is worth to wait awake for one that is due. */
#define SPIN_NS 20000u

struct queue {
	struct emf_queue q;
	struct queue_options o;
	struct path_terms terms; /* a copy: the space's may change when it is opened anew */
	unsigned npaths;
	struct path path[QUEUE_PATHS];
	uint64_t retry_at[QUEUE_PATHS];
	int poll_fd; /* epoll: of all channels, and the timer */
	int timer;
	bool timing, spins, closing;
	int broken; /* 0, or the error of all transfers from now on */
	struct io_list waiting,
	    ended; /* scratch[1] of those waiting: bytes that are pieces by now */
	struct path_piece again[QUEUE_PATHS * SLOTS];
	unsigned nagain;
};

uint64_t queue_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* --- paths --- */

static void watch(struct queue *r, int fd)
{
	struct epoll_event e = { .events = EPOLLIN };

	/* Again: it is there already. A closed one leaves by itself. */
	(void)epoll_ctl(r->poll_fd, EPOLL_CTL_ADD, fd, &e);
}

static void watch_path(struct queue *r, struct path *p)
{
	if (p->events)
		watch(r, p->events->fd);
	if (p->channel)
		watch(r, p->channel->fd);
}

static struct path *best(struct queue *r)
{
	struct path *found = NULL;

	for (unsigned i = 0; i < r->npaths; i++) {
		struct path *p = &r->path[i];

		if (p->state == PATH_READY && path_has_room(p) &&
		    (!found || p->inflight < found->inflight))
			found = p;
	}
	return found;
}

static bool any_ready(const struct queue *r)
{
	for (unsigned i = 0; i < r->npaths; i++)
		if (r->path[i].state == PATH_READY)
			return true;
	return false;
}

/* It is to be lost, or nobody gets back what it had. */
static bool has_failed(const struct path *p)
{
	return p->state == PATH_BROKEN && (p->id || p->head != p->tail);
}

static bool any_has_failed(const struct queue *r)
{
	for (unsigned i = 0; i < r->npaths; i++)
		if (has_failed(&r->path[i]))
			return true;
	return false;
}

/* How long one path may be without progress: where there are others, not as long as all. */
static uint64_t patience(const struct queue *r)
{
	return r->npaths > 1 ? r->o.timeout / 4 : r->o.timeout;
}

/* --- transfers --- */

static void part_ended(void *arg, const struct path_piece *piece)
{
	struct queue *r = arg;

	if (!--piece->io->scratch[0])
		io_push(&r->ended, piece->io);
}

static uint32_t chunk(const struct queue *r)
{
	return r->o.kind == EMF_QUEUE_DEMAND ? DEMAND_CHUNK : BULK_CHUNK;
}

/* False: there is none. Pieces end where chunks of the space do: none lies in two slabs. */
static bool next_piece(struct queue *r, struct path_piece *out)
{
	struct emf_io *io = r->waiting.head;
	uint64_t at;
	size_t length;

	if (r->nagain) {
		*out = r->again[--r->nagain];
		return true;
	}
	if (!io)
		return false;
	at = io->scratch[1];
	length = chunk(r) - (io->offset + at) % chunk(r);
	if (length > io->length - at)
		length = io->length - at;
	*out = (struct path_piece){ .io = io, .at = at, .length = (uint32_t)length };
	io->scratch[0]++;
	io->scratch[1] += length;
	if (io->scratch[1] == io->length) {
		io_pop(&r->waiting);
		io->scratch[0]--; /* that of waiting */
	}
	return true;
}

static void send_all(struct queue *r, uint64_t now)
{
	struct path_piece piece;
	struct path *p;

	while ((p = best(r)) && next_piece(r, &piece))
		path_push(p, &piece, now);
	for (unsigned i = 0; i < r->npaths; i++)
		path_flush(&r->path[i]);
}

/* All ends that has not ended yet. */
static void break_queue(struct queue *r, int error)
{
	struct path_piece piece;
	struct emf_io *io;

	r->broken = error;
	for (unsigned i = 0; i < r->npaths; i++) {
		path_stop(&r->path[i]);
		while (path_take_back(&r->path[i], &piece))
			r->again[r->nagain++] = piece;
	}
	while (r->nagain) {
		piece = r->again[--r->nagain];
		piece.io->status = error;
		part_ended(r, &piece);
	}
	while ((io = io_pop(&r->waiting))) {
		io->status = error;
		if (!--io->scratch[0])
			io_push(&r->ended, io);
	}
}

static void lose_path(struct queue *r, unsigned i, uint64_t now)
{
	struct path *p = &r->path[i];
	struct path_piece piece;

	path_stop(p);
	while (path_take_back(p, &piece))
		r->again[r->nagain++] = piece;
	p->state = PATH_BROKEN;
	r->retry_at[i] = now + RETRY_NS;
}

static void tend_path(struct queue *r, unsigned i, uint64_t now)
{
	struct path *p = &r->path[i];

	if (has_failed(p)) {
		lose_path(r, i, now);
	} else if (p->state == PATH_BROKEN && now >= r->retry_at[i] && r->npaths > 1) {
		path_start(p);
		r->retry_at[i] = now + r->o.timeout;
	}
	if (path_is_connecting(p)) {
		path_step(p);
		watch_path(r, p);
		if (path_is_connecting(p) && now >= r->retry_at[i])
			p->state = PATH_BROKEN;
		/* Not the memory that the others reach: theirs has ended. */
		if (p->state == PATH_READY && p->fresh && any_ready(r))
			break_queue(r, -ENOTCONN);
	} else if (p->state == PATH_READY) {
		path_step(p); /* its events */
		if (p->head != p->tail && now - p->progress > patience(r))
			p->state = PATH_BROKEN;
	}
	if (has_failed(p))
		lose_path(r, i, now);
}

/* Comes by now and then while something is under way: a card does not tell what it waits for. */
static void keep_time(struct queue *r, bool on)
{
	uint64_t every = patience(r) / 4;
	struct itimerspec when = { 0 };

	if (on == r->timing)
		return;
	r->timing = on;
	if (on) {
		when.it_value.tv_sec = (time_t)(every / 1000000000u);
		when.it_value.tv_nsec = (long)(every % 1000000000u) | 1;
		when.it_interval = when.it_value;
	}
	timerfd_settime(r->timer, 0, &when, NULL);
}

static void tend(struct queue *r, uint64_t now)
{
	for (unsigned i = 0; i < r->npaths && !r->broken; i++)
		tend_path(r, i, now);
	if (!r->broken && !any_ready(r))
		break_queue(r, -ENOTCONN);
}

static int queue_submit(struct emf_queue *q, struct emf_io *io)
{
	struct queue *r = (struct queue *)q;
	uint64_t now;

	if (r->closing || q->inflight >= r->o.depth)
		return -EAGAIN;
	now = queue_now();
	/* What happened while nobody looked. */
	if (!q->inflight++ && !r->broken)
		tend(r, now);
	io->status = io_check(io, r->o.size);
	if (!io->status)
		io->status = r->broken;
	/* Space that is leased stays: there is nothing to do for a trim. */
	if (io->status || io->op == EMF_TRIM) {
		io_push(&r->ended, io);
		return 0;
	}
	io->scratch[0] = 1;
	io->scratch[1] = 0;
	io_push(&r->waiting, io);
	send_all(r, now);
	keep_time(r, true);
	return 0;
}

static unsigned poll_paths(struct queue *r, uint64_t now)
{
	unsigned n = 0;

	for (unsigned i = 0; i < r->npaths; i++)
		n += path_poll(&r->path[i], part_ended, r, now);
	return n;
}

static int queue_poll(struct emf_queue *q)
{
	struct queue *r = (struct queue *)q;
	bool spins = r->spins && r->o.kind == EMF_QUEUE_DEMAND && !r->ended.head;
	uint64_t now, begin, ticks;
	unsigned parts = 0;
	int n;

	if (!q->inflight)
		return 0;
	begin = now = queue_now();
	while (!r->broken && !(parts = poll_paths(r, now)) && spins && now - begin < SPIN_NS)
		now = queue_now();
	/* Where things go on there is nothing to look after, but a path that has failed. */
	if (!parts || any_has_failed(r)) {
		(void)!read(r->timer, &ticks, sizeof(ticks));
		if (!r->broken)
			tend(r, now);
	}
	if (!r->broken)
		send_all(r, now);
	for (n = 0; r->ended.head; n++) {
		struct emf_io *io = io_pop(&r->ended);

		io_end(q, io, io->status);
		if ((unsigned)n >= r->o.depth) /* who submits in `done` has its turn, too */
			break;
	}
	if (!q->inflight)
		keep_time(r, false);
	return n;
}

static int queue_pollfds(struct emf_queue *q, struct pollfd *fds, int max)
{
	struct queue *r = (struct queue *)q;
	bool now = r->ended.head || r->broken || any_has_failed(r);

	if (!q->inflight || max < 1)
		return 0;
	for (unsigned i = 0; i < r->npaths && !now; i++)
		if (r->path[i].state == PATH_READY)
			now = path_arm(&r->path[i]);
	fds[0] = (struct pollfd){ .fd = now ? r->o.ready_fd : r->poll_fd, .events = POLLIN };
	return 1;
}

/* --- opening and closing --- */

int queue_wait(struct path *p, enum path_state wanted, uint64_t until)
{
	while (p->state != wanted && p->state != PATH_BROKEN) {
		uint64_t now = queue_now();
		struct pollfd fds[2];
		nfds_t n = 0;

		path_step(p);
		if (p->state == wanted || p->state == PATH_BROKEN)
			break;
		if (now >= until)
			return -ETIMEDOUT;
		fds[n++] = (struct pollfd){ .fd = p->events->fd, .events = POLLIN };
		if (p->channel)
			fds[n++] = (struct pollfd){ .fd = p->channel->fd, .events = POLLIN };
		poll(fds, n, (int)((until - now) / NS_PER_MS) + 1);
	}
	return p->state == wanted ? 0 : p->error;
}

static void queue_close(struct emf_queue *q)
{
	struct queue *r = (struct queue *)q;

	r->closing = true;
	if (!r->broken)
		break_queue(r, -ECANCELED);
	io_end_all(q, &r->ended, -ECANCELED);
	for (unsigned i = 0; i < r->npaths; i++)
		path_free(&r->path[i]);
	if (r->timer >= 0)
		close(r->timer);
	if (r->poll_fd >= 0)
		close(r->poll_fd);
	auth_forget(&r->terms.secret);
	own_free(r, sizeof(*r));
}

/* All at once; until the first one is there. */
static int connect_paths(struct queue *r, unsigned connect_ms)
{
	uint64_t now = queue_now(), until = now + connect_ms * NS_PER_MS;
	struct pollfd fds = { .fd = r->poll_fd, .events = POLLIN };

	for (unsigned i = 0; i < r->npaths; i++) {
		path_start(&r->path[i]);
		r->retry_at[i] = until;
	}
	for (; now < until; now = queue_now()) {
		unsigned broken = 0;

		for (unsigned i = 0; i < r->npaths; i++) {
			path_step(&r->path[i]);
			watch_path(r, &r->path[i]);
			if (r->path[i].state == PATH_READY)
				return 0;
			/* Its events would keep us from sleeping until another is there. */
			if (has_failed(&r->path[i]))
				lose_path(r, i, now);
			broken += r->path[i].state == PATH_BROKEN;
		}
		if (broken == r->npaths)
			return r->path[0].error;
		poll(&fds, 1, (int)((until - now) / NS_PER_MS) + 1);
	}
	return -ETIMEDOUT;
}

int queue_open(const struct queue_options *o, unsigned connect_ms, struct emf_queue **out)
{
	static const struct emf_queue_ops ops = {
		.submit = queue_submit,
		.poll = queue_poll,
		.pollfds = queue_pollfds,
		.close = queue_close,
	};
	struct queue *r = own_alloc(sizeof(*r));
	int rc = 0;

	if (!r)
		return -ENOMEM;
	own_keep_secret(r, sizeof(*r)); /* of the terms */
	r->q.ops = &ops;
	r->o = *o;
	r->o.depth = o->depth ? o->depth : 1;
	r->terms = *o->terms;
	r->poll_fd = epoll_create1(EPOLL_CLOEXEC);
	r->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	/* On one processor whoever waits awake keeps others from what it waits for. */
	r->spins = sysconf(_SC_NPROCESSORS_ONLN) > 1;
	if (r->poll_fd < 0 || r->timer < 0)
		rc = -errno;
	for (unsigned i = 0; i < o->npeers && !rc; i++) {
		rc = path_init(&r->path[i], &r->terms, &o->peer[i], SLOTS, chunk(r));
		/* A few KiB are copied sooner than the card is told where they are. */
		r->path[i].direct = o->kind == EMF_QUEUE_BULK;
		r->npaths += !rc;
	}
	if (!rc) {
		watch(r, r->timer);
		rc = connect_paths(r, connect_ms);
	}
	if (rc) {
		queue_close(&r->q);
		return rc;
	}
	*out = &r->q;
	return 0;
}
