/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The queues of a provider whose space is mapped and can be loaded and stored to: transfers are
 * copies, made in submit, and end in the next poll. Writes go past the caches: what leaves local
 * memory is not used soon.
 */
#ifndef EMF_PROVIDER_BYTES_H
#define EMF_PROVIDER_BYTES_H

#include <string.h>
#ifdef __x86_64__
#include <emmintrin.h>
#endif

#include "io.h"
#include "own.h"

struct bytes {
	struct emf_backend be;
	unsigned char *base;
	/* Before a write: 0, or -ENOSPC. NULL: there is always room. */
	int (*room)(struct bytes *b, const struct emf_io *io);
	int (*trim)(struct bytes *b, uint64_t offset, size_t length);
};

struct bytes_queue {
	struct emf_queue q;
	struct bytes *bytes;
	unsigned depth;
	bool closing;
	struct io_list list;
};

/* n is a multiple of a page, both are aligned to one. */
static inline void bytes_copy_out(void *to, const void *from, size_t n)
{
#ifdef __x86_64__
	__m128i *d = to;
	const __m128i *s = from, *end = (const __m128i *)(const void *)((const char *)from + n);

	for (; s < end; s += 4, d += 4) {
		__m128i a = _mm_load_si128(s), b = _mm_load_si128(s + 1), c = _mm_load_si128(s + 2),
			e = _mm_load_si128(s + 3);

		_mm_stream_si128(d, a);
		_mm_stream_si128(d + 1, b);
		_mm_stream_si128(d + 2, c);
		_mm_stream_si128(d + 3, e);
	}
	_mm_sfence();
#else
	memcpy(to, from, n);
#endif
}

static inline int bytes_submit(struct emf_queue *q, struct emf_io *io)
{
	struct bytes_queue *bq = (struct bytes_queue *)q;
	struct bytes *b = bq->bytes;

	if (bq->closing || q->inflight >= bq->depth)
		return -EAGAIN;
	io->status = io_check(io, b->be.size);
	if (!io->status && io->op == EMF_WRITE && b->room)
		io->status = b->room(b, io);
	if (!io->status && io->op == EMF_READ)
		memcpy(io->buf, b->base + io->offset, io->length);
	else if (!io->status && io->op == EMF_WRITE)
		bytes_copy_out(b->base + io->offset, io->buf, io->length);
	else if (!io->status)
		io->status = b->trim(b, io->offset, io->length);
	q->inflight++;
	io_push(&bq->list, io);
	return 0;
}

static inline int bytes_poll(struct emf_queue *q)
{
	struct io_list all = io_take(&((struct bytes_queue *)q)->list);
	struct emf_io *io;
	int n = 0;

	for (; (io = io_pop(&all)); n++)
		io_end(q, io, io->status);
	return n;
}

static inline int bytes_pollfds(struct emf_queue *q, struct pollfd *fds, int max)
{
	(void)q;
	(void)fds;
	(void)max;
	return 0;
}

static inline void bytes_queue_close(struct emf_queue *q)
{
	struct bytes_queue *bq = (struct bytes_queue *)q;

	bq->closing = true;
	io_end_all(q, &bq->list, -ECANCELED);
	own_free(bq, sizeof(*bq));
}

static inline int bytes_queue_open(struct emf_backend *be, enum emf_queue_kind kind, unsigned depth,
				   struct emf_queue **out)
{
	static const struct emf_queue_ops ops = {
		.submit = bytes_submit,
		.poll = bytes_poll,
		.pollfds = bytes_pollfds,
		.close = bytes_queue_close,
	};
	struct bytes_queue *bq = own_alloc(sizeof(*bq));

	(void)kind;
	if (!bq)
		return -ENOMEM;
	bq->q.ops = &ops;
	bq->bytes = (struct bytes *)be;
	bq->depth = depth ? depth : 1;
	*out = &bq->q;
	return 0;
}

#endif
