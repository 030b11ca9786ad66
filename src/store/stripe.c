/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The stripe link: unit u of the space is unit u / n of member u % n. Members of
 * different size count as large as the smallest.
 *
 * A read or write is cut at the borders of units (neighbouring units of one member
 * are not neighbours in the buffer), a trim into one range for each member.
 *
 * The link does not own its members: its close leaves them open.
 */
#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "../arena.h"
#include "fan.h"

#define MAX_MEMBERS 16
#define MAX_LENGTH (64u << 20)
#define BLOCK (2u << 20) /* what the engine usually transfers */

struct stripe {
	struct emf_backend be;
	unsigned n;
	uint64_t unit;
	int ready_fd; /* always readable */
	struct emf_backend *member[MAX_MEMBERS];
};

struct part {
	struct emf_io io;
	struct emf_io *whole; /* its scratch[0]: how many parts are left */
	unsigned member;
};

struct stripe_queue {
	struct emf_queue q;
	struct stripe *stripe;
	unsigned depth;
	bool closing;
	int ended; /* transfers, counted for the result of poll */
	struct io_list refused;
	struct fan fan;
};

static void end_part(struct stripe_queue *sq, struct part *p, int status)
{
	struct emf_io *whole = p->whole;

	fan_part_done(&sq->fan, &p->io);
	if (status && !whole->status)
		whole->status = status;
	if (!--whole->scratch[0]) {
		sq->ended++;
		io_end(&sq->q, whole, whole->status);
	}
}

static void part_done(struct emf_io *io)
{
	end_part(io->user, (struct part *)io, io->status);
}

/* Adds a part for a range of a member to the list; false: out of memory. */
static bool add_part(struct stripe_queue *sq, struct io_list *parts, struct emf_io *whole,
		     unsigned member, uint64_t offset, size_t length, char *buf)
{
	struct part *p = fan_part(&sq->fan);

	if (!p)
		return false;
	*p = (struct part){
		.io = {
			.op = whole->op,
			.offset = offset,
			.length = length,
			.buf = buf,
			.done = part_done,
			.user = sq,
		},
		.whole = whole,
		.member = member,
	};
	io_push(parts, &p->io);
	whole->scratch[0]++;
	return true;
}

static bool cut(struct stripe_queue *sq, struct emf_io *io, struct io_list *parts)
{
	struct stripe *s = sq->stripe;
	uint64_t offset = io->offset, end = offset + io->length;
	char *buf = io->buf;

	while (offset < end) {
		uint64_t u = offset / s->unit, in_unit = offset % s->unit;
		unsigned member = (unsigned)(u % s->n);
		uint64_t n = s->unit - in_unit;

		if (n > end - offset)
			n = end - offset;
		if (n > s->member[member]->max_length)
			n = s->member[member]->max_length;
		if (!add_part(sq, parts, io, member, u / s->n * s->unit + in_unit, (size_t)n, buf))
			return false;
		offset += n;
		buf += n;
	}
	return true;
}

/* How many bytes of the first `offset` bytes of the space lie on the member. */
static uint64_t bytes_before(const struct stripe *s, unsigned member, uint64_t offset)
{
	uint64_t u = offset / s->unit, at = u % s->n;

	return u / s->n * s->unit + (member < at ? s->unit : member == at ? offset % s->unit : 0);
}

static bool cut_trim(struct stripe_queue *sq, struct emf_io *io, struct io_list *parts)
{
	struct stripe *s = sq->stripe;

	for (unsigned i = 0; i < s->n; i++) {
		uint64_t at = bytes_before(s, i, io->offset);
		uint64_t end = bytes_before(s, i, io->offset + io->length);

		while (at < end) {
			uint64_t n = end - at;

			if (n > s->member[i]->max_length)
				n = s->member[i]->max_length;
			if (!add_part(sq, parts, io, i, at, (size_t)n, NULL))
				return false;
			at += n;
		}
	}
	return true;
}

static int stripe_submit(struct emf_queue *q, struct emf_io *io)
{
	struct stripe_queue *sq = (struct stripe_queue *)q;
	struct io_list parts = { 0 };
	struct emf_io *part;

	if (sq->closing || q->inflight >= sq->depth)
		return -EAGAIN;
	q->inflight++;
	io->scratch[0] = 0;
	io->status = io_check(io, sq->stripe->be.size);
	if (!io->status && !(io->op == EMF_TRIM ? cut_trim : cut)(sq, io, &parts))
		io->status = -ENOMEM;
	if (io->status) {
		while ((part = io_pop(&parts)))
			fan_part_done(&sq->fan, part);
		io_push(&sq->refused, io);
		return 0;
	}
	while ((part = io_pop(&parts)))
		fan_add(&sq->fan, ((struct part *)part)->member, part);
	for (unsigned i = 0; i < sq->stripe->n; i++)
		fan_flush(&sq->fan, i);
	return 0;
}

static int stripe_poll(struct emf_queue *q)
{
	struct stripe_queue *sq = (struct stripe_queue *)q;
	struct io_list refused = io_take(&sq->refused);
	struct emf_io *io;

	sq->ended = 0;
	while ((io = io_pop(&refused))) {
		sq->ended++;
		io_end(q, io, io->status);
	}
	fan_poll(&sq->fan);
	return sq->ended;
}

static int stripe_pollfds(struct emf_queue *q, struct pollfd *fds, int max)
{
	struct stripe_queue *sq = (struct stripe_queue *)q;
	struct stripe *s = sq->stripe;

	if (!q->inflight || s->be.caps & EMF_CAP_SYNC)
		return 0;
	return fan_pollfds(&sq->fan, fds, max, sq->refused.head, s->ready_fd);
}

static void stripe_queue_close(struct emf_queue *q)
{
	struct stripe_queue *sq = (struct stripe_queue *)q;

	sq->closing = true;
	fan_close(&sq->fan);
	io_end_all(q, &sq->refused, -ECANCELED);
	arena_free(sq, sizeof(*sq));
}

static const struct emf_queue_ops queue_ops = {
	.submit = stripe_submit,
	.poll = stripe_poll,
	.pollfds = stripe_pollfds,
	.close = stripe_queue_close,
};

static int stripe_queue_open(struct emf_backend *be, enum emf_queue_kind kind, unsigned depth,
			     struct emf_queue **out)
{
	struct stripe *s = (struct stripe *)be;
	struct stripe_queue *sq = arena_alloc(sizeof(*sq));
	/* A block's parts on one member, one more for a cut in the middle of a unit. */
	uint64_t parts = BLOCK / s->unit / s->n + 1;
	int rc;

	if (!sq)
		return -ENOMEM;
	sq->q.ops = &queue_ops;
	sq->stripe = s;
	sq->depth = depth ? depth : 1;
	sq->fan.part = sizeof(struct part);
	rc = fan_open(&sq->fan, s->member, s->n, kind, fan_depth(sq->depth, parts));
	if (rc) {
		stripe_queue_close(&sq->q);
		return rc;
	}
	*out = &sq->q;
	return 0;
}

static void stripe_close(struct emf_backend *be)
{
	struct stripe *s = (struct stripe *)be;

	close(s->ready_fd);
	arena_free(s, sizeof(*s));
}

static int stripe_forked(struct emf_backend *be, const int *fds)
{
	struct stripe *s = (struct stripe *)be;

	(void)fds;
	s->ready_fd = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
	return s->ready_fd < 0 ? -errno : 0;
}

static const struct emf_backend_ops backend_ops = {
	.queue_open = stripe_queue_open,
	.close = stripe_close,
	.forked = stripe_forked,
};

int stripe_open(struct emf_backend *const *member, unsigned n, uint64_t unit,
		struct emf_backend **out)
{
	uint64_t size = UINT64_MAX;
	uint32_t any = 0, all = UINT32_MAX;
	struct stripe *s;

	if (!n || n > MAX_MEMBERS || unit < STORE_CLUSTER || unit & (unit - 1))
		return -EINVAL;
	for (unsigned i = 0; i < n; i++) {
		if (member[i]->size < size)
			size = member[i]->size;
		any |= member[i]->caps;
		all &= member[i]->caps;
	}
	size -= size % unit;
	if (!size || size > UINT64_MAX / n)
		return -ENOSPC;
	s = arena_alloc(sizeof(*s));
	if (!s)
		return -ENOMEM;
	s->ready_fd = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
	if (s->ready_fd < 0) {
		int rc = -errno;

		arena_free(s, sizeof(*s));
		return rc;
	}
	s->n = n;
	s->unit = unit;
	for (unsigned i = 0; i < n; i++)
		s->member[i] = member[i];
	s->be.ops = &backend_ops;
	s->be.size = size * n;
	s->be.caps =
	    (all & (EMF_CAP_SYNC | EMF_CAP_BYTES)) | (any & (EMF_CAP_TRIM | EMF_CAP_OUTLIVES));
	s->be.max_length = MAX_LENGTH;
	*out = &s->be;
	return 0;
}
