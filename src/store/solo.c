/* SPDX-License-Identifier: Apache-2.0 */
#include "solo.h"

#include <poll.h>

#include "timer.h"

#define FDS 64

static void done(struct emf_io *io)
{
	*(bool *)io->user = false;
}

int solo_transfer(struct emf_backend *be, struct emf_queue **q, const struct emf_io *what,
		  unsigned timeout_ms)
{
	uint64_t limit = timer_now() + timeout_ms * 1000000ull / 4;
	bool pending = true;
	struct emf_io io = {
		.op = what->op,
		.offset = what->offset,
		.length = what->length,
		.buf = what->buf,
		.done = done,
		.user = &pending,
	};
	int rc = *q ? 0 : be->ops->queue_open(be, EMF_QUEUE_BULK, 1, q);

	if (rc) {
		*q = NULL;
		return rc;
	}
	(*q)->ops->poll(*q); /* it may have got a new connection */
	if ((*q)->ops->submit(*q, &io))
		return -EAGAIN;
	while (pending) {
		struct pollfd fds[FDS];
		int n = (*q)->ops->pollfds(*q, fds, FDS);

		if (n > 0)
			poll(fds, (nfds_t)n, 50);
		(*q)->ops->poll(*q);
		if (pending && timer_now() > limit)
			solo_close(q); /* ends it */
	}
	return io.status;
}

void solo_close(struct emf_queue **q)
{
	if (*q)
		(*q)->ops->close(*q);
	*q = NULL;
}
