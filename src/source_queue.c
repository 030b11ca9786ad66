/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ring is used by the system calls themselves: liburing is a library of the provider's, not
 * of every process. Sources: linux/io_uring.h, io_uring(7).
 */
#define _GNU_SOURCE
#include "source_queue.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "arena.h"
#include "kernel.h"
#include "provider/io.h"
#include "source.h"

struct ring {
	int fd; /* -1: none */
	_Atomic unsigned *sq_tail, *cq_head, *cq_tail;
	unsigned sq_mask, cq_mask, *sq_array;
	unsigned unsent;
	struct io_uring_sqe *sqes;
	struct io_uring_cqe *cqes;
};

struct source_queue {
	struct emf_queue q;
	struct emf_queue *store;
	unsigned depth, reads; /* reads: of sources, in flight */
	bool opened;
	struct ring ring;
	struct io_list todo; /* without a ring: for the next poll */
};

static size_t *progress(struct emf_io *io)
{
	return (size_t *)&io->scratch[0];
}

/* --- the ring --- */

static void *map_ring(int fd, size_t len, uint64_t what)
{
	long r =
	    k_mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, (off_t)what);

	return r < 0 ? NULL : (void *)r;
}

static int ring_open(struct ring *r, unsigned depth)
{
	struct io_uring_params p = { 0 };

	r->fd = (int)k_syscall(SYS_io_uring_setup, depth, (long)&p, 0, 0, 0, 0);
	if (r->fd < 0)
		return r->fd;
	char *sq =
	    map_ring(r->fd, p.sq_off.array + p.sq_entries * sizeof(unsigned), IORING_OFF_SQ_RING);
	char *cq = map_ring(r->fd, p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe),
			    IORING_OFF_CQ_RING);
	r->sqes = map_ring(r->fd, p.sq_entries * sizeof(struct io_uring_sqe), IORING_OFF_SQES);
	if (!sq || !cq || !r->sqes) {
		/* What was mapped is left: it happens once, when address space is short. */
		k_syscall(SYS_close, r->fd, 0, 0, 0, 0, 0);
		r->fd = -1;
		return -ENOMEM;
	}
	r->sq_tail = (_Atomic unsigned *)(sq + p.sq_off.tail);
	r->sq_array = (unsigned *)(sq + p.sq_off.array);
	r->sq_mask = p.sq_entries - 1;
	r->cq_head = (_Atomic unsigned *)(cq + p.cq_off.head);
	r->cq_tail = (_Atomic unsigned *)(cq + p.cq_off.tail);
	r->cqes = (struct io_uring_cqe *)(cq + p.cq_off.cqes);
	r->cq_mask = p.cq_entries - 1;
	return 0;
}

/* There is always room: as many entries as there may be reads in flight. */
static void ring_add(struct ring *r, struct emf_io *io)
{
	unsigned tail = atomic_load_explicit(r->sq_tail, memory_order_relaxed),
		 i = tail & r->sq_mask;
	size_t at = *progress(io);
	uint64_t offset;

	r->sqes[i] = (struct io_uring_sqe){
		.opcode = IORING_OP_READ,
		.fd = source_of(io->offset, &offset)->fd,
		.addr = (uint64_t)(uintptr_t)io->buf + at,
		.len = (unsigned)(io->length - at),
		.user_data = (uint64_t)(uintptr_t)io,
	};
	r->sqes[i].off = offset + at;
	r->sq_array[i] = i;
	atomic_store_explicit(r->sq_tail, tail + 1, memory_order_release);
	r->unsent++;
}

/* What the kernel does not take now it is offered again by the next poll. */
static void ring_send(struct ring *r)
{
	if (!r->unsent)
		return;
	long n = k_syscall(SYS_io_uring_enter, r->fd, r->unsent, 0, 0, 0, 0);
	if (n > 0)
		r->unsent -= (unsigned)n;
}

/* --- reads --- */

/* The file system or device wants other alignments than pages: go by the page cache. */
static bool turn_indirect(struct source *s)
{
	if (!s->direct)
		return false;
	int flags = fcntl(s->fd, F_GETFL);
	s->direct = false;
	return flags >= 0 && !fcntl(s->fd, F_SETFL, flags & ~O_DIRECT);
}

static void forget_cached(const struct source *s, uint64_t offset, size_t len)
{
	if (!s->direct)
		k_syscall(SYS_fadvise64, s->fd, (long)offset, (long)len, POSIX_FADV_DONTNEED, 0, 0);
}

/* What a read returned. True: it has ended. */
static bool advance(struct emf_io *io, long res)
{
	uint64_t offset;
	struct source *s = source_of(io->offset, &offset);

	if (res == -EINTR || res == -EAGAIN || (res == -EINVAL && turn_indirect(s)))
		return false;
	io->status = 0;
	if (res < 0) {
		io->status = (int)res;
		return true;
	}
	*progress(io) += (size_t)res;
	size_t have = *progress(io);
	/* It ends in the middle of a page only at the end of the file. */
	if (have < io->length && res && !(have % K_PAGE))
		return false;
	if (have < io->length) {
		memset((char *)io->buf + have, 0, io->length - have);
		if (offset + have < s->size)
			io->status = -ESTALE;
	}
	forget_cached(s, offset, io->length);
	return true;
}

static void read_now(struct emf_io *io)
{
	uint64_t offset;
	struct source *s = source_of(io->offset, &offset);
	long res;

	do {
		size_t at = *progress(io);
		res = k_syscall(SYS_pread64, s->fd, (long)((char *)io->buf + at),
				(long)(io->length - at), (long)(offset + at), 0, 0);
	} while (!advance(io, res));
}

static void count(struct source_queue *sq)
{
	sq->q.inflight = sq->store->inflight + sq->reads;
}

static int sq_submit(struct emf_queue *q, struct emf_io *io)
{
	struct source_queue *sq = (struct source_queue *)q;
	int err = 0;

	if (!source_is_address(io->offset)) {
		err = sq->store->ops->submit(sq->store, io);
		count(sq);
		return err;
	}
	if (sq->reads == sq->depth)
		return -EAGAIN;
	if (!sq->opened) {
		sq->opened = true;
		ring_open(&sq->ring, sq->depth);
	}
	*progress(io) = 0;
	sq->reads++;
	if (sq->ring.fd >= 0) {
		ring_add(&sq->ring, io);
		ring_send(&sq->ring);
	} else {
		io_push(&sq->todo, io);
	}
	count(sq);
	return 0;
}

static void reap(struct ring *r, struct io_list *ended)
{
	unsigned head = atomic_load_explicit(r->cq_head, memory_order_relaxed);

	while (head != atomic_load_explicit(r->cq_tail, memory_order_acquire)) {
		struct io_uring_cqe e = r->cqes[head++ & r->cq_mask];
		struct emf_io *io = (struct emf_io *)(uintptr_t)e.user_data;
		atomic_store_explicit(r->cq_head, head, memory_order_release);
		if (advance(io, e.res))
			io_push(ended, io);
		else
			ring_add(r, io);
	}
	ring_send(r);
}

static int sq_poll(struct emf_queue *q)
{
	struct source_queue *sq = (struct source_queue *)q;
	struct io_list ended = { 0 };
	struct emf_io *io;
	int n = sq->store->inflight ? sq->store->ops->poll(sq->store) : 0;

	if (sq->reads && sq->ring.fd >= 0) {
		reap(&sq->ring, &ended);
	} else if (sq->reads) {
		ended = io_take(&sq->todo);
		for (io = ended.head; io; io = io->next)
			read_now(io);
	}
	while ((io = io_pop(&ended))) {
		sq->reads--;
		n++;
		io->done(io);
	}
	count(sq);
	return n;
}

static int sq_pollfds(struct emf_queue *q, struct pollfd *fds, int max)
{
	struct source_queue *sq = (struct source_queue *)q;
	int n = 0, more;

	if (sq->reads && (sq->ring.fd < 0 || sq->ring.unsent || max < 1))
		return 0;
	if (sq->reads)
		fds[n++] = (struct pollfd){ .fd = sq->ring.fd, .events = POLLIN };
	if (!sq->store->inflight)
		return n;
	more = sq->store->ops->pollfds(sq->store, fds + n, max - n);
	return more ? n + more : 0;
}

static void sq_close(struct emf_queue *q)
{
	struct source_queue *sq = (struct source_queue *)q;

	while (sq->reads)
		sq_poll(q);
	sq->store->ops->close(sq->store);
	if (sq->ring.fd >= 0)
		k_syscall(SYS_close, sq->ring.fd, 0, 0, 0, 0, 0);
	arena_free(sq, sizeof(*sq));
}

int source_queue_wrap(struct emf_queue **q, unsigned depth)
{
	static const struct emf_queue_ops ops = {
		.submit = sq_submit,
		.poll = sq_poll,
		.pollfds = sq_pollfds,
		.close = sq_close,
	};
	struct source_queue *sq = arena_alloc(sizeof(*sq));

	if (!sq)
		return -ENOMEM;
	sq->q.ops = &ops;
	sq->store = *q;
	sq->depth = depth;
	sq->ring.fd = -1;
	*q = &sq->q;
	return 0;
}
