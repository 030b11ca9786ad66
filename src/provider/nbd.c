/* SPDX-License-Identifier: Apache-2.0 */
/*
 * nbd://HOST[:PORT]/[EXPORT], nbd+unix:///[EXPORT]?socket=PATH, nbds:// and
 * nbds+unix:// (TLS) - an export of any NBD server as a far store, by libnbd.
 *
 * One connection a queue, so that demand reads never stand behind bulk transfers.
 * That needs a server whose connections see each other's writes (it says so by
 * NBD_FLAG_CAN_MULTI_CONN); others are refused, for they would lose data.
 *
 * A connection that breaks, or on which nothing ends for the timeout, stays
 * broken: what is in flight and all that is submitted later ends with -ENOTCONN
 * or -ETIMEDOUT. A new queue is a new connection, for which a quarter of the timeout
 * must do, and which goes to the address of the first: the resolver's and the dynamic
 * linker's locks may be held by a thread that waits for this store. (Only TLS, which
 * checks the name, takes the whole URI again.) libnbd calls back in the middle of its own calls,
 * with its handle locked; so a callback only puts the transfer into a list, and the poll calls
 * `done`. libnbd sends with MSG_NOSIGNAL: no SIGPIPE.
 */
#define _GNU_SOURCE 1 /* POLLRDHUP */
#include <libnbd.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "io.h"

/* What every server takes, by the protocol, if it names no limit of its own. */
#define DEFAULT_MAX_REQUEST (32u << 20)
#define MAX_LENGTH (1u << 30)
#define DEFAULT_TIMEOUT_MS 10000u
#define NS_PER_MS 1000000ull

struct space {
	struct emf_backend be;
	char *uri;
	uint64_t timeout; /* ns */
	uint32_t max_request;
	/* The connection that open made, until the first queue takes it. */
	_Atomic(struct nbd_handle *) spare;
	int ready_fd; /* always readable */
	/* Where the first connection went, if that is all it takes; length 0: use the URI. */
	struct sockaddr_storage peer;
	socklen_t peer_length;
	char *export_name;
};

struct connection {
	struct emf_queue q;
	struct space *space;
	struct nbd_handle *nbd;
	unsigned depth;
	bool closing;
	int broken; /* 0, or the error of all transfers from now on */
	struct io_list ended;
	int timer;
	uint64_t timer_at; /* ns; 0: not armed */
	uint64_t progress; /* ns: when a transfer ended last, or the first was submitted */
};

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* --- connecting --- */

static int fail(char *err, size_t errlen, int rc)
{
	const char *text = nbd_get_error();

	snprintf(err, errlen, "%s", text ? text : "unknown error of libnbd");
	if (rc)
		return rc;
	return nbd_get_errno() > 0 ? -nbd_get_errno() : -EIO;
}

/* Follows the connection until it is ready. Name resolution can't be bounded by us. */
static int negotiate(const struct space *s, struct nbd_handle *nbd, uint64_t timeout, char *err,
		     size_t errlen)
{
	uint64_t deadline = now_ns() + timeout;

	if (s->peer_length
		? nbd_set_export_name(nbd, s->export_name) < 0 ||
		      nbd_aio_connect(nbd, (const struct sockaddr *)&s->peer, s->peer_length) < 0
		: nbd_aio_connect_uri(nbd, s->uri) < 0)
		return fail(err, errlen, 0);
	while (nbd_aio_is_connecting(nbd) > 0) {
		uint64_t now = now_ns();

		if (now >= deadline) {
			snprintf(err, errlen, "no answer within %llu ms",
				 (unsigned long long)(timeout / NS_PER_MS));
			return -ETIMEDOUT;
		}
		if (nbd_poll(nbd, (int)((deadline - now) / NS_PER_MS) + 1) < 0)
			return fail(err, errlen, 0);
	}
	return nbd_aio_is_ready(nbd) > 0 ? 0 : fail(err, errlen, -ENOTCONN);
}

/* What the server must offer, see above. */
static int check_export(struct nbd_handle *nbd, char *err, size_t errlen)
{
	if (nbd_is_read_only(nbd) != 0) {
		snprintf(err, errlen, "the export is read-only");
		return -EROFS;
	}
	if (nbd_can_multi_conn(nbd) <= 0) {
		snprintf(err, errlen,
			 "the server does not allow several connections to one export "
			 "(no multi-conn)");
		return -ENOTSUP;
	}
	if (nbd_get_size(nbd) < IO_PAGE) {
		snprintf(err, errlen, "the export is empty");
		return -ENOSPC;
	}
	if (nbd_get_block_size(nbd, LIBNBD_SIZE_MINIMUM) > IO_PAGE) {
		snprintf(err, errlen, "the server's minimum block size is over %u", IO_PAGE);
		return -ENOTSUP;
	}
	return 0;
}

/*
 * What the kernel has not sent by the time that the connection is given up, or the process ends,
 * shall not be sent after it: where it was to be written may be another process's by then, and what
 * waits for a network to come back can take long. So TCP is to reset, unless all has been answered.
 */
static void reset_at_close(struct nbd_handle *nbd, bool reset)
{
	struct linger l = { .l_onoff = reset };

	setsockopt(nbd_aio_get_fd(nbd), SOL_SOCKET, SO_LINGER, &l, sizeof(l));
}

static int dial(const struct space *s, uint64_t timeout, struct nbd_handle **out, char *err,
		size_t errlen)
{
	struct nbd_handle *nbd = nbd_create();
	int rc;

	if (!nbd)
		return fail(err, errlen, -ENOMEM);
	/* Otherwise libnbd zeroes every buffer before it reads into it. */
	nbd_set_pread_initialize(nbd, false);
	nbd_set_uri_allow_transports(nbd, LIBNBD_ALLOW_TRANSPORT_TCP | LIBNBD_ALLOW_TRANSPORT_UNIX);
	/* The URI is the operator's: it may name a file of TLS keys. */
	nbd_set_uri_allow_local_file(nbd, true);
	rc = negotiate(s, nbd, timeout, err, errlen);
	if (!rc)
		rc = check_export(nbd, err, errlen);
	if (rc) {
		nbd_close(nbd);
		return rc;
	}
	reset_at_close(nbd, true);
	*out = nbd;
	return 0;
}

static void note_peer(struct space *s, struct nbd_handle *nbd)
{
	socklen_t length = sizeof(s->peer);

	if (nbd_get_tls_negotiated(nbd) != 0 ||
	    getpeername(nbd_aio_get_fd(nbd), (struct sockaddr *)&s->peer, &length) ||
	    (s->peer.ss_family != AF_INET && s->peer.ss_family != AF_INET6))
		return;
	s->export_name = nbd_get_export_name(nbd);
	if (s->export_name)
		s->peer_length = length;
}

/* --- transfers --- */

/*
 * In a call of libnbd. Returning 1 frees the command. EINVAL would say that we had asked for what
 * can't be, and nobody would ask again: but what was sent was right (io_check), so it, or the
 * answer, was damaged on its way.
 */
static int request_ended(void *user, int *error)
{
	struct emf_io *io = user;
	struct connection *c = (struct connection *)(uintptr_t)io->scratch[1];

	if (*error > 0 && !io->status)
		io->status = *error == EINVAL ? -EIO : -*error;
	if (!--io->scratch[0])
		io_push(&c->ended, io);
	return 1;
}

static int request(struct connection *c, struct emf_io *io, size_t at, size_t length)
{
	nbd_completion_callback cb = { .callback = request_ended, .user_data = io };
	char *buf = (char *)io->buf + at;
	uint64_t offset = io->offset + at;
	int64_t cookie = -1;

	switch (io->op) {
	case EMF_READ:
		cookie = nbd_aio_pread(c->nbd, buf, length, offset, cb, 0);
		break;
	case EMF_WRITE:
		cookie = nbd_aio_pwrite(c->nbd, buf, length, offset, cb, 0);
		break;
	case EMF_TRIM:
		cookie = nbd_aio_trim(c->nbd, length, offset, cb, 0);
		break;
	}
	return cookie < 0 ? -ENOTCONN : 0;
}

/* So that somebody who sleeps on pollfds comes by when the timeout is over. */
static void arm_timer(struct connection *c)
{
	struct itimerspec when = { 0 };

	c->timer_at = c->progress + c->space->timeout;
	when.it_value.tv_sec = (time_t)(c->timer_at / 1000000000u);
	when.it_value.tv_nsec = (long)(c->timer_at % 1000000000u);
	timerfd_settime(c->timer, TFD_TIMER_ABSTIME, &when, NULL);
}

static int connection_submit(struct emf_queue *q, struct emf_io *io)
{
	struct connection *c = (struct connection *)q;
	struct space *s = c->space;

	if (c->closing || q->inflight >= c->depth)
		return -EAGAIN;
	if (!q->inflight++) {
		c->progress = now_ns();
		if (!c->timer_at)
			arm_timer(c);
	}
	io->status = io_check(io, s->be.size);
	if (!io->status)
		io->status = c->broken;
	/* Parts still out, and one for this function: it may not end before the last is sent. */
	io->scratch[0] = 1;
	io->scratch[1] = (uintptr_t)c;
	if (io->op != EMF_TRIM || s->be.caps & EMF_CAP_TRIM) {
		for (size_t at = 0; at < io->length && !io->status; at += s->max_request) {
			size_t left = io->length - at;
			size_t length = left < s->max_request ? left : s->max_request;
			int rc;

			io->scratch[0]++;
			rc = request(c, io, at, length);
			if (rc) {
				io->scratch[0]--;
				io->status = rc;
			}
		}
	}
	if (!--io->scratch[0])
		io_push(&c->ended, io);
	return 0;
}

/*
 * Ends the connection: libnbd reads the end of the stream and calls back for all
 * that is in flight, after which nobody writes into the buffers any more.
 */
static void break_connection(struct connection *c, int status)
{
	if (!c->broken)
		c->broken = status;
	shutdown(nbd_aio_get_fd(c->nbd), SHUT_RDWR);
	while (nbd_aio_is_dead(c->nbd) == 0 && nbd_aio_is_closed(c->nbd) == 0) {
		if (nbd_aio_get_direction(c->nbd) & LIBNBD_AIO_DIRECTION_READ)
			nbd_aio_notify_read(c->nbd);
		else
			nbd_aio_notify_write(c->nbd);
	}
}

/* Lets libnbd do what it can without waiting, until something has ended. */
static void move_on(struct connection *c)
{
	int rc = 0;

	while (!c->ended.head && !c->broken && (rc = nbd_poll(c->nbd, 0)) > 0) {
		if (nbd_aio_is_dead(c->nbd) || nbd_aio_is_closed(c->nbd))
			c->broken = -ENOTCONN;
	}
	if (rc < 0)
		break_connection(c, -ENOTCONN);
}

static void watch_progress(struct connection *c, bool ended)
{
	uint64_t now = now_ns();

	if (ended)
		c->progress = now;
	if (c->q.inflight && !c->broken && now - c->progress >= c->space->timeout)
		break_connection(c, -ETIMEDOUT);
	if (now >= c->timer_at) {
		c->timer_at = 0;
		if (c->q.inflight && !c->broken)
			arm_timer(c);
	}
}

static int end_all(struct connection *c)
{
	struct io_list all = io_take(&c->ended);
	struct emf_io *io;
	int n = 0;

	for (; (io = io_pop(&all)); n++)
		io_end(&c->q, io, io->status && c->broken ? c->broken : io->status);
	return n;
}

static int connection_poll(struct emf_queue *q)
{
	struct connection *c = (struct connection *)q;
	int n = 0, more;

	if (!q->inflight)
		return 0;
	do { /* not forever: `done` may submit as fast as the server answers */
		move_on(c);
		more = end_all(c);
		n += more;
	} while (more && q->inflight && (unsigned)n < c->depth);
	watch_progress(c, n > 0);
	return n;
}

static int connection_pollfds(struct emf_queue *q, struct pollfd *fds, int max)
{
	struct connection *c = (struct connection *)q;
	unsigned direction;
	int events = 0;

	if (max < 1 || (!q->inflight && c->broken))
		return 0;
	if (!q->inflight) { /* only an end is worth a word */
		fds[0] = (struct pollfd){ .fd = nbd_aio_get_fd(c->nbd), .events = POLLRDHUP };
		return 1;
	}
	if (c->ended.head || c->broken) {
		fds[0] = (struct pollfd){ .fd = c->space->ready_fd, .events = POLLIN };
		return 1;
	}
	direction = nbd_aio_get_direction(c->nbd);
	if (direction & LIBNBD_AIO_DIRECTION_READ)
		events |= POLLIN;
	if (direction & LIBNBD_AIO_DIRECTION_WRITE)
		events |= POLLOUT;
	fds[0] = (struct pollfd){ .fd = nbd_aio_get_fd(c->nbd), .events = (short)events };
	if (max < 2)
		return 1;
	fds[1] = (struct pollfd){ .fd = c->timer, .events = POLLIN };
	return 2;
}

static void connection_close(struct emf_queue *q)
{
	struct connection *c = (struct connection *)q;

	c->closing = true;
	if (q->inflight) {
		break_connection(c, -ECANCELED);
		io_end_all(q, &c->ended, -ECANCELED);
	} else if (nbd_aio_is_ready(c->nbd) > 0) {
		reset_at_close(c->nbd, false);
		nbd_aio_disconnect(c->nbd, 0);
	}
	nbd_close(c->nbd);
	close(c->timer);
	free(c);
}

static const struct emf_queue_ops queue_ops = {
	.submit = connection_submit,
	.poll = connection_poll,
	.pollfds = connection_pollfds,
	.close = connection_close,
};

static int space_queue_open(struct emf_backend *be, enum emf_queue_kind kind, unsigned depth,
			    struct emf_queue **out)
{
	struct space *s = (struct space *)be;
	struct connection *c = calloc(1, sizeof(*c));
	char err[256];
	int rc = -ENOMEM;

	(void)kind;
	if (!c)
		return rc;
	c->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (c->timer < 0) {
		rc = -errno;
		goto free_connection;
	}
	c->nbd = atomic_exchange(&s->spare, NULL);
	if (c->nbd) { /* it may have been idle for long */
		nbd_poll(c->nbd, 0);
		if (nbd_aio_is_ready(c->nbd) <= 0) {
			nbd_close(c->nbd);
			c->nbd = NULL;
		}
	}
	if (!c->nbd) {
		rc = dial(s, s->timeout / 4, &c->nbd, err, sizeof(err));
		if (rc)
			goto close_timer;
	}
	if ((uint64_t)nbd_get_size(c->nbd) < s->be.size) { /* another server by now */
		rc = -ESTALE;
		goto close_nbd;
	}
	c->q.ops = &queue_ops;
	c->space = s;
	c->depth = depth ? depth : 1;
	*out = &c->q;
	return 0;
close_nbd:
	nbd_close(c->nbd);
close_timer:
	close(c->timer);
free_connection:
	free(c);
	return rc;
}

static void space_close(struct emf_backend *be)
{
	struct space *s = (struct space *)be;
	struct nbd_handle *spare = atomic_load(&s->spare);

	if (spare)
		nbd_close(spare);
	close(s->ready_fd);
	free(s->export_name);
	free(s->uri);
	free(s);
}

/* A child has connections of its own. */
static int space_descriptors(const struct emf_backend *be, int *fds, int max)
{
	(void)be;
	(void)fds;
	(void)max;
	return 0;
}

static int space_forked(struct emf_backend *be, const int *fds)
{
	struct space *s = (struct space *)be;

	(void)fds;
	/* The parent's connection is its own, and is not to be ended from here. */
	atomic_store(&s->spare, NULL);
	s->ready_fd = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
	return s->ready_fd < 0 ? -errno : 0;
}

static const struct emf_backend_ops backend_ops = {
	.queue_open = space_queue_open,
	.close = space_close,
	.descriptors = space_descriptors,
	.forked = space_forked,
};

static int space_open(const char *uri, unsigned timeout_ms, struct emf_backend **out, char *err,
		      size_t errlen)
{
	struct space *s = calloc(1, sizeof(*s));
	struct nbd_handle *nbd;
	int64_t max;
	int rc;

	if (!s) {
		snprintf(err, errlen, "out of memory");
		return -ENOMEM;
	}
	s->timeout = (timeout_ms ? timeout_ms : DEFAULT_TIMEOUT_MS) * NS_PER_MS;
	s->uri = strdup(uri);
	s->ready_fd = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
	if (!s->uri || s->ready_fd < 0) {
		rc = s->uri ? -errno : -ENOMEM;
		snprintf(err, errlen, "%s", strerror(-rc));
		goto fail;
	}
	rc = dial(s, s->timeout, &nbd, err, errlen);
	if (rc)
		goto fail;
	note_peer(s, nbd);
	atomic_store(&s->spare, nbd);
	max = nbd_get_block_size(nbd, LIBNBD_SIZE_MAXIMUM);
	s->max_request = max >= IO_PAGE && max < DEFAULT_MAX_REQUEST
			     ? (uint32_t)max & ~(IO_PAGE - 1)
			     : DEFAULT_MAX_REQUEST;
	s->be.ops = &backend_ops;
	s->be.size = (uint64_t)nbd_get_size(nbd) & ~(uint64_t)(IO_PAGE - 1);
	s->be.caps = EMF_CAP_OUTLIVES | EMF_CAP_MALLOC | EMF_CAP_CUTS | EMF_CAP_CONNECTS |
		     (nbd_can_trim(nbd) > 0 ? EMF_CAP_TRIM : 0);
	s->be.max_length = MAX_LENGTH;
	*out = &s->be;
	return 0;
fail:
	if (s->ready_fd >= 0)
		close(s->ready_fd);
	free(s->uri);
	free(s);
	return rc;
}

__attribute__((visibility("default"))) const struct emf_provider emf_provider = {
	.abi = EMF_PROVIDER_ABI,
	.name = "nbd",
	.open = space_open,
};
