/* SPDX-License-Identifier: Apache-2.0 */
#include "fan.h"

#include "../arena.h"

#define MAX_MEMBER_DEPTH 1024u

int fan_open(struct fan *f, struct emf_backend *const *member, unsigned n, enum emf_queue_kind kind,
	     unsigned depth)
{
	int rc = 0;

	for (f->n = 0; f->n < n && !rc; f->n++)
		rc = member[f->n]->ops->queue_open(member[f->n], kind, depth, &f->member[f->n]);
	return rc;
}

unsigned fan_depth(unsigned transfers, uint64_t parts)
{
	uint64_t depth = transfers * parts;

	return depth < MAX_MEMBER_DEPTH ? (unsigned)depth : MAX_MEMBER_DEPTH;
}

void *fan_part(struct fan *f)
{
	struct emf_io *part = io_pop(&f->idle);

	return part ? part : arena_alloc(f->part);
}

void fan_part_done(struct fan *f, struct emf_io *part)
{
	io_push_front(&f->idle, part);
}

void fan_add(struct fan *f, unsigned member, struct emf_io *io)
{
	io_push(&f->waiting[member], io);
}

void fan_flush(struct fan *f, unsigned member)
{
	struct emf_queue *mq = f->member[member];
	struct io_list *waiting = &f->waiting[member];
	struct emf_io *io;

	while ((io = io_pop(waiting))) {
		if (!mq || mq->ops->submit(mq, io)) {
			io_push_front(waiting, io);
			return;
		}
	}
}

void fan_poll(struct fan *f)
{
	for (unsigned i = 0; i < f->n; i++) {
		if (f->member[i] && f->member[i]->inflight)
			f->member[i]->ops->poll(f->member[i]);
		fan_flush(f, i);
	}
}

int fan_pollfds(struct fan *f, struct pollfd *fds, int max, bool ready, int ready_fd)
{
	int n = 0;

	if (max < 1)
		return 0;
	for (unsigned i = 0; i < f->n && n < max; i++) {
		struct emf_queue *mq = f->member[i];
		int got = 0;

		if (!mq)
			continue;
		if (mq->inflight)
			got = mq->ops->pollfds(mq, fds + n, max - n);
		/* One member that needs no waiting, and nobody waits for the others either. */
		if (!got && (mq->inflight || f->waiting[i].head))
			ready = true;
		n += got;
	}
	if (!ready && n)
		return n;
	fds[0] = (struct pollfd){ .fd = ready_fd, .events = POLLIN };
	return 1;
}

void fan_close(struct fan *f)
{
	struct emf_io *io;

	for (unsigned i = 0; i < f->n; i++) {
		if (f->member[i])
			f->member[i]->ops->close(f->member[i]);
		while ((io = io_pop(&f->waiting[i]))) {
			io->status = -ECANCELED;
			io->done(io);
		}
	}
	while ((io = io_pop(&f->idle)))
		arena_free(io, f->part);
}
