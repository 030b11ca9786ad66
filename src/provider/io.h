/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Small helpers that every backend needs: lists of transfers (linked by
 * emf_io.next, which belongs to whoever holds the transfer), the check of a
 * transfer's bounds, and its end. No locks, no allocation: a list belongs to one
 * queue and so to one thread.
 */
#ifndef EMF_PROVIDER_IO_H
#define EMF_PROVIDER_IO_H

#include <errno.h>
#include <stdbool.h>

#include "emfatier-provider.h"

#define IO_PAGE 4096u

/* First in, first out; all zero is empty. */
struct io_list {
	struct emf_io *head, *last;
};

static inline void io_push(struct io_list *l, struct emf_io *io)
{
	io->next = NULL;
	if (l->head)
		l->last->next = io;
	else
		l->head = io;
	l->last = io;
}

static inline void io_push_front(struct io_list *l, struct emf_io *io)
{
	io->next = l->head;
	if (!l->head)
		l->last = io;
	l->head = io;
}

static inline struct emf_io *io_pop(struct io_list *l)
{
	struct emf_io *io = l->head;

	if (io)
		l->head = io->next;
	return io;
}

/* Empties l into the result: what is pushed meanwhile is left for next time. */
static inline struct io_list io_take(struct io_list *l)
{
	struct io_list all = *l;

	l->head = NULL;
	return all;
}

/* 0, -EINVAL, or -ENOSPC for a write that does not fit into `size` bytes. */
static inline int io_check(const struct emf_io *io, uint64_t size)
{
	uintptr_t buf = io->op == EMF_TRIM ? 0 : (uintptr_t)io->buf;

	if (!io->length || (io->offset | io->length | buf) % IO_PAGE)
		return -EINVAL;
	if (io->offset > size || io->length > size - io->offset)
		return io->op == EMF_WRITE ? -ENOSPC : -EINVAL;
	return 0;
}

/* May submit again: nothing of the io may be used afterwards. */
static inline void io_end(struct emf_queue *q, struct emf_io *io, int status)
{
	q->inflight--;
	io->status = status;
	io->done(io);
}

/* Ends all that is in the list by now; returns how many. */
static inline int io_end_all(struct emf_queue *q, struct io_list *l, int status)
{
	struct io_list all = io_take(l);
	struct emf_io *io;
	int n = 0;

	for (; (io = io_pop(&all)); n++)
		io_end(q, io, status);
	return n;
}

#endif
