/* SPDX-License-Identifier: Apache-2.0 */
/* A backend of the tests' own: memory that can be damaged, refuse, or be slow. */
#ifndef TEST_STORE_TOY_H
#define TEST_STORE_TOY_H

#include "test_store_util.h"

struct toy {
	struct emf_backend be;
	unsigned char *mem;
	unsigned full_every; /* every so manieth submit is -EAGAIN, though there is room */
	unsigned submits;
	int fail;	 /* status of all transfers, if not 0 */
	bool hangs;	 /* nothing ends but by a close */
	unsigned damage; /* so many writes, from now on, arrive with a wrong byte */
	/* Sees each transfer as it is handed over. */
	void (*before)(struct toy *t, const struct emf_io *io);
	unsigned transfers[3];
};

struct toy_queue {
	struct emf_queue q;
	struct toy *toy;
	struct emf_io *list;
	bool closing;
};

static inline int toy_submit(struct emf_queue *q, struct emf_io *io)
{
	struct toy_queue *tq = (struct toy_queue *)q;
	struct toy *t = tq->toy;

	if (tq->closing || (t->full_every && ++t->submits % t->full_every == 0))
		return -EAGAIN;
	assert_true(io->length <= t->be.max_length);
	t->transfers[io->op]++;
	if (t->before)
		t->before(t, io);
	io->status = t->fail;
	if (!t->fail && io->op == EMF_READ)
		memcpy(io->buf, t->mem + io->offset, io->length);
	else if (!t->fail && io->op == EMF_WRITE)
		memcpy(t->mem + io->offset, io->buf, io->length);
	if (io->op == EMF_WRITE && t->damage && t->damage--)
		t->mem[io->offset] ^= 1;
	q->inflight++;
	io->next = tq->list; /* last in, first out: the order of ends is not promised */
	tq->list = io;
	return 0;
}

static inline int toy_end(struct toy_queue *tq, int status)
{
	struct emf_io *io = tq->list, *next;
	int n = 0;

	tq->list = NULL;
	for (; io; io = next, n++) {
		next = io->next;
		if (status)
			io->status = status;
		tq->q.inflight--;
		io->done(io);
	}
	return n;
}

static inline int toy_poll(struct emf_queue *q)
{
	return ((struct toy_queue *)q)->toy->hangs ? 0 : toy_end((struct toy_queue *)q, 0);
}

static inline int toy_pollfds(struct emf_queue *q, struct pollfd *fds, int max)
{
	(void)q;
	(void)fds;
	(void)max;
	return 0;
}

static inline void toy_queue_close(struct emf_queue *q)
{
	((struct toy_queue *)q)->closing = true;
	toy_end((struct toy_queue *)q, -ECANCELED);
	free(q);
}

static const struct emf_queue_ops toy_queue_ops = {
	.submit = toy_submit,
	.poll = toy_poll,
	.pollfds = toy_pollfds,
	.close = toy_queue_close,
};

static inline int toy_queue_open(struct emf_backend *be, enum emf_queue_kind kind, unsigned depth,
				 struct emf_queue **out)
{
	struct toy_queue *tq = calloc(1, sizeof(*tq));

	(void)kind;
	(void)depth;
	tq->q.ops = &toy_queue_ops;
	tq->toy = (struct toy *)be;
	*out = &tq->q;
	return 0;
}

static const struct emf_backend_ops toy_ops = { .queue_open = toy_queue_open };

static inline void toy_init(struct toy *t, uint64_t size)
{
	*t = (struct toy){
		.be = {
			.ops = &toy_ops,
			.size = size,
			.caps = EMF_CAP_SYNC | EMF_CAP_TRIM,
			.max_length = 96 * KIB,
		},
		.mem = pages(size),
	};
}

#endif
