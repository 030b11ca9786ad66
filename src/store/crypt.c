/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For every cluster that was written the link keeps the nonce and the tag, in memory
 * of its own: 32 bytes for 64 KiB, 0.05%. They are the version: what an earlier write
 * left on the server has another nonce and another tag. The place and the bounds
 * of what was written are bound in as additional data.
 *
 * A nonce has 96 bits: an epoch of 32, which no two processes of a family share
 * (the next one is taken from a page that all of them map), and a counter of 64.
 * The key belongs to the family, so no nonce is ever used twice with it.
 */
#define _GNU_SOURCE 1 /* syscall */
#include "crypt.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "queue.h"
#include "ready.h"
#include "store.h"

#define PAGE 4096u
#ifndef SLOT
#define SLOT (2u << 20)
#endif
#define BUFFERS 2u /* for writes, a queue: one on the wire while the next is sealed */

struct version {
	uint64_t counter;
	uint32_t epoch;
	uint32_t bounds; /* 0: nothing is known */
	uint8_t tag[AEAD_TAG];
};

struct crypt {
	struct emf_backend be;
	struct emf_backend *next;
	const struct emf_aead *aead;
	struct aead *key;
	struct version *version; /* of each cluster; used by one thread at a time, as the slot is */
	size_t table_bytes;
	_Atomic uint32_t *epochs; /* shared by the family */
	uint32_t epoch;
	_Atomic uint64_t counter;
	_Atomic uint32_t contexts; /* a mask of those in use */
	int ready_fd;
};

/* What is authenticated beside the content. */
struct bound {
	uint64_t offset;
	uint64_t counter;
	uint32_t epoch;
	uint32_t bounds;
};

struct crypt_io {
	struct emf_io low; /* first: lists are of these */
	struct emf_io *up;
	struct crypt_queue *cq;
	void *buffer; /* of a write */
};

struct crypt_queue {
	struct emf_queue q;
	struct crypt *crypt;
	struct emf_queue *next;
	unsigned context;
	bool closing;
	struct io_list idle, waiting;
	void *buffer[BUFFERS];
	unsigned nbuffers; /* free ones are the first */
	struct crypt_io io[];
};

static void *map(size_t bytes, int flags)
{
	long at =
	    syscall(SYS_mmap, NULL, bytes, PROT_READ | PROT_WRITE, MAP_ANONYMOUS | flags, -1, 0L);

	return at == -1 ? NULL : (void *)at;
}

/* --- sealing --- */

static size_t piece(uint64_t offset, size_t length)
{
	size_t left = STORE_CLUSTER - (size_t)(offset % STORE_CLUSTER);

	return length < left ? length : left;
}

static uint32_t bounds_of(uint64_t offset, size_t length)
{
	return (uint32_t)(offset % STORE_CLUSTER / PAGE) << 8 | (uint32_t)(length / PAGE);
}

static void nonce_of(const struct version *v, uint8_t nonce[AEAD_NONCE])
{
	memcpy(nonce, &v->epoch, sizeof(v->epoch));
	memcpy(nonce + sizeof(v->epoch), &v->counter, sizeof(v->counter));
}

static struct bound bound_of(const struct version *v, uint64_t offset)
{
	return (struct bound){ offset, v->counter, v->epoch, v->bounds };
}

static void forget(struct crypt *c, uint64_t start, uint64_t end)
{
	for (uint64_t i = start / STORE_CLUSTER;
	     i * STORE_CLUSTER < end && i * STORE_CLUSTER < c->be.size; i++)
		c->version[i].bounds = 0;
}

/* A write replaces the whole content of the slots that it touches. */
static void forget_slots(struct crypt *c, const struct emf_io *io)
{
	uint64_t end = io->offset + io->length;

	forget(c, io->offset / SLOT * SLOT, (end + SLOT - 1) / SLOT * SLOT);
}

static int seal(struct crypt_queue *cq, const struct emf_io *io, void *to)
{
	struct crypt *c = cq->crypt;
	uint64_t offset = io->offset;
	const char *from = io->buf;
	int rc = 0;

	forget_slots(c, io);
	for (size_t left = io->length, n; left && !rc; left -= n) {
		struct version *v = &c->version[offset / STORE_CLUSTER];
		uint8_t nonce[AEAD_NONCE];

		n = piece(offset, left);
		v->epoch = c->epoch;
		v->counter = atomic_fetch_add_explicit(&c->counter, 1, memory_order_relaxed);
		v->bounds = bounds_of(offset, n);
		struct bound b = bound_of(v, offset);
		nonce_of(v, nonce);
		rc = c->aead->seal(c->key, cq->context, nonce, &b, sizeof(b), to, from, n, v->tag);
		offset += n;
		from += n;
		to = (char *)to + n;
	}
	if (rc)
		forget_slots(c, io);
	return rc;
}

static int unseal(struct crypt_queue *cq, const struct emf_io *io)
{
	struct crypt *c = cq->crypt;
	uint64_t offset = io->offset;
	char *at = io->buf;

	for (size_t left = io->length, n; left; left -= n) {
		const struct version *v = &c->version[offset / STORE_CLUSTER];
		uint8_t nonce[AEAD_NONCE];
		int rc;

		n = piece(offset, left);
		if (v->bounds != bounds_of(offset, n))
			return -EBADMSG;
		struct bound b = bound_of(v, offset);
		nonce_of(v, nonce);
		rc = c->aead->unseal(c->key, cq->context, nonce, &b, sizeof(b), at, n, v->tag);
		if (rc)
			return rc;
		offset += n;
		at += n;
	}
	return 0;
}

/* --- the queue --- */

static void low_done(struct emf_io *low)
{
	struct crypt_io *ci = (struct crypt_io *)low;
	struct crypt_queue *cq = ci->cq;
	struct emf_io *up = ci->up;
	int status = low->status;

	if (ci->buffer)
		cq->buffer[cq->nbuffers++] = ci->buffer;
	if (low->op == EMF_WRITE && status)
		forget_slots(cq->crypt, up);
	else if (low->op == EMF_READ && !status)
		status = unseal(cq, up);
	else if (low->op == EMF_TRIM && !status)
		forget(cq->crypt, up->offset, up->offset + up->length);
	io_push(&cq->idle, low);
	io_end(&cq->q, up, status);
}

/* False: it has to wait. An error of libcrypto's ends it in the next poll, through the list. */
static bool start(struct crypt_queue *cq, struct crypt_io *ci)
{
	struct emf_io *up = ci->up;

	if (up->op == EMF_WRITE && !ci->buffer) {
		if (!cq->nbuffers)
			return false;
		void *buffer = cq->buffer[--cq->nbuffers];
		ci->low.status = seal(cq, up, buffer);
		ci->low.buf = ci->buffer = buffer;
	}
	return !ci->low.status && !cq->next->ops->submit(cq->next, &ci->low);
}

static int crypt_submit(struct emf_queue *q, struct emf_io *io)
{
	struct crypt_queue *cq = (struct crypt_queue *)q;
	struct crypt_io *ci;

	if (cq->closing)
		return -EAGAIN;
	ci = (struct crypt_io *)io_pop(&cq->idle);
	if (!ci)
		return -EAGAIN;
	*ci = (struct crypt_io){
		.low = {
			.op = io->op,
			.offset = io->offset,
			.length = io->length,
			.buf = io->buf,
			.done = low_done,
		},
		.up = io,
		.cq = cq,
	};
	q->inflight++;
	ci->low.status = io_check(io, cq->crypt->be.size);
	if (!ci->low.status && io->op != EMF_TRIM && io->length > CRYPT_LENGTH)
		ci->low.status = -EINVAL;
	/* Writes in order; a read need not wait for their buffers. */
	if (ci->low.status || (io->op != EMF_READ && cq->waiting.head) || !start(cq, ci))
		io_push(&cq->waiting, &ci->low);
	return 0;
}

static int start_waiting(struct crypt_queue *cq)
{
	struct emf_io *low;
	int ended = 0;

	while ((low = io_pop(&cq->waiting))) {
		struct crypt_io *ci = (struct crypt_io *)low;

		if (!low->status && start(cq, ci))
			continue;
		if (!low->status) {
			io_push_front(&cq->waiting, low);
			break;
		}
		/* Refused: nothing that is known has changed. */
		struct emf_io *up = ci->up;
		int status = low->status;
		if (ci->buffer)
			cq->buffer[cq->nbuffers++] = ci->buffer;
		io_push(&cq->idle, low);
		io_end(&cq->q, up, status);
		ended++;
	}
	return ended;
}

static int crypt_poll(struct emf_queue *q)
{
	struct crypt_queue *cq = (struct crypt_queue *)q;
	int n = start_waiting(cq);

	n += cq->next->ops->poll(cq->next);
	return n + start_waiting(cq);
}

static int crypt_pollfds(struct emf_queue *q, struct pollfd *fds, int max)
{
	struct crypt_queue *cq = (struct crypt_queue *)q;

	if (!q->inflight || cq->crypt->be.caps & EMF_CAP_SYNC || max < 1)
		return 0;
	if (cq->next->inflight && !(cq->waiting.head && cq->waiting.head->status))
		return cq->next->ops->pollfds(cq->next, fds, max);
	fds[0] = (struct pollfd){ .fd = cq->crypt->ready_fd, .events = POLLIN };
	return 1;
}

static void free_queue(struct crypt_queue *cq)
{
	atomic_fetch_and(&cq->crypt->contexts, ~(1u << cq->context));
	for (unsigned i = 0; i < cq->nbuffers; i++)
		syscall(SYS_munmap, cq->buffer[i], CRYPT_LENGTH);
	store_free(cq);
}

static void crypt_queue_close(struct emf_queue *q)
{
	struct crypt_queue *cq = (struct crypt_queue *)q;
	struct emf_io *low;

	cq->closing = true;
	cq->next->ops->close(cq->next);
	while ((low = io_pop(&cq->waiting))) {
		low->status = -ECANCELED;
		low_done(low);
	}
	free_queue(cq);
}

static const struct emf_queue_ops queue_ops = {
	.submit = crypt_submit,
	.poll = crypt_poll,
	.pollfds = crypt_pollfds,
	.close = crypt_queue_close,
};

static int take_context(struct crypt *c, unsigned *context)
{
	uint32_t used = atomic_load(&c->contexts);

	for (unsigned i = 0; i < CRYPT_CONTEXTS; i++)
		while (!(used & 1u << i))
			if (atomic_compare_exchange_weak(&c->contexts, &used, used | 1u << i)) {
				*context = i;
				return 0;
			}
	return -EMFILE;
}

static int crypt_queue_open(struct emf_backend *be, enum emf_queue_kind kind, unsigned depth,
			    struct emf_queue **out)
{
	struct crypt *c = (struct crypt *)be;
	struct crypt_queue *cq;
	int rc;

	cq = queue_alloc(sizeof(*cq), sizeof(cq->io[0]), depth, offsetof(struct crypt_queue, idle));
	if (!cq)
		return -ENOMEM;
	cq->q.ops = &queue_ops;
	cq->crypt = c;
	rc = take_context(c, &cq->context);
	if (rc) {
		store_free(cq);
		return rc;
	}
	/* Address space: only what writes touch takes memory. */
	for (; cq->nbuffers < BUFFERS; cq->nbuffers++) {
		cq->buffer[cq->nbuffers] = map(CRYPT_LENGTH, MAP_PRIVATE | MAP_NORESERVE);
		if (!cq->buffer[cq->nbuffers])
			rc = -ENOMEM;
		if (rc)
			break;
	}
	if (!rc)
		rc = c->next->ops->queue_open(c->next, kind, depth, &cq->next);
	if (rc) {
		free_queue(cq);
		return rc;
	}
	*out = &cq->q;
	return 0;
}

/* --- the link --- */

static void crypt_close(struct emf_backend *be)
{
	struct crypt *c = (struct crypt *)be;

	if (c->key)
		c->aead->close(c->key);
	if (c->version)
		syscall(SYS_munmap, c->version, c->table_bytes);
	if (c->epochs)
		syscall(SYS_munmap, c->epochs, PAGE);
	if (c->ready_fd >= 0)
		close(c->ready_fd);
	store_free(c);
}

void crypt_forget(struct emf_backend *be)
{
	struct crypt *c = (struct crypt *)be;

	c->aead->forget(c->key);
	c->key = NULL;
}

static int crypt_forked(struct emf_backend *be, const int *fds)
{
	struct crypt *c = (struct crypt *)be;
	int rc = c->aead->forked(c->key);

	(void)fds;
	c->epoch = atomic_fetch_add(c->epochs, 1);
	if (!c->epoch) /* it has gone round: 2^32 forks */
		return -EOVERFLOW;
	atomic_store(&c->counter, 0);
	atomic_store(&c->contexts, 0);
	c->ready_fd = ready_open();
	return rc ? rc : c->ready_fd < 0 ? c->ready_fd : 0;
}

static const struct emf_backend_ops backend_ops = {
	.queue_open = crypt_queue_open,
	.close = crypt_close,
	.forked = crypt_forked,
};

int crypt_open(struct emf_backend *next, const struct emf_aead *aead, struct emf_backend **out,
	       char *err, size_t errlen)
{
	struct crypt *c = store_alloc(1, sizeof(*c));
	int rc = -ENOMEM;

	snprintf(err, errlen, "out of memory");
	if (!c)
		return rc;
	c->ready_fd = ready_open();
	c->next = next;
	c->aead = aead;
	c->be = backend_like(next, &backend_ops);
	c->be.max_length = CRYPT_LENGTH;
	c->table_bytes = (size_t)(next->size / STORE_CLUSTER + 1) * sizeof(*c->version);
	c->version = map(c->table_bytes, MAP_PRIVATE | MAP_NORESERVE);
	c->epochs = map(PAGE, MAP_SHARED);
	if (c->ready_fd >= 0 && c->version && c->epochs) {
		/* A huge page of it is for 4 GiB of store. */
		syscall(SYS_madvise, c->version, c->table_bytes, MADV_NOHUGEPAGE);
		atomic_store(c->epochs, 2);
		c->epoch = 1;
		rc = aead->open(CRYPT_CONTEXTS, &c->key, err, errlen);
	}
	if (rc) {
		crypt_close(&c->be);
		return rc;
	}
	*out = &c->be;
	return 0;
}
