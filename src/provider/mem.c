/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mem:[?size=SIZE&latency=TIME&bandwidth=SIZE] - memory of this process as a far
 * store: for tests, for benchmarks, and to simulate a link.
 *
 * The copy is done in submit. Without a link to simulate the transfer ends in the
 * next poll. With one it is due when a link of that bandwidth (bytes a second)
 * would have carried it, plus the latency. The link belongs to the backend: what
 * one queue transfers delays the others, except that a demand transfer only waits
 * for other demand transfers, as if the link served it first (RDMA NICs and TCP
 * share a link between connections in small turns).
 *
 * The memory comes from the kernel directly: the mmap of the process may be ours
 * and would put the far store under its own management.
 */
#define _GNU_SOURCE 1 /* syscall, strsep */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "io.h"
#include "space.h"
#include "uri.h"

#define DEFAULT_SIZE (1ull << 40)
#define MIN_DEFAULT_SIZE (1ull << 30)
#define MAX_LENGTH (1u << 30)

struct mem {
	struct emf_backend be;
	struct space space;
	bool link;	    /* simulated */
	uint64_t latency;   /* ns */
	uint64_t bandwidth; /* bytes a second, 0: unlimited */
	/* When the link has carried all (demand: all demand) that was given to it, ns. */
	_Atomic uint64_t link_free, demand_free;
};

struct mem_queue {
	struct emf_queue q;
	struct mem *mem;
	enum emf_queue_kind kind;
	unsigned depth;
	bool closing;
	int timer;	     /* -1 without a link */
	struct io_list list; /* in the order in which they are due; scratch[0]: when */
};

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* Takes the link for so long after what it is busy with; returns when that ends. */
static uint64_t occupy(_Atomic uint64_t *link_free, uint64_t now, uint64_t ns)
{
	uint64_t old = atomic_load_explicit(link_free, memory_order_relaxed), end;

	do {
		end = (old > now ? old : now) + ns;
	} while (!atomic_compare_exchange_weak_explicit(link_free, &old, end, memory_order_relaxed,
							memory_order_relaxed));
	return end;
}

static uint64_t due(struct mem_queue *mq, uint64_t now, const struct emf_io *io)
{
	struct mem *m = mq->mem;
	uint64_t ns = 0, end, all;

	if (m->bandwidth && io->op != EMF_TRIM)
		ns = (uint64_t)((double)io->length * 1e9 / (double)m->bandwidth);
	all = occupy(&m->link_free, now, ns);
	end = mq->kind == EMF_QUEUE_DEMAND ? occupy(&m->demand_free, now, ns) : all;
	return end + m->latency;
}

/*
 * Where libc's memcpy first reads each target line from memory to write it, the
 * string instruction mostly does not: 13 GB/s instead of 10 for blocks of 2 MiB, and
 * less taken from the bandwidth that the program needs.
 */
static void copy(void *to, const void *from, size_t n)
{
#ifdef __x86_64__
	__asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
#else
	memcpy(to, from, n);
#endif
}

static void transfer(struct mem *m, struct emf_io *io)
{
	unsigned char *at = m->space.base + io->offset;

	switch (io->op) {
	case EMF_READ:
		copy(io->buf, at, io->length);
		break;
	case EMF_WRITE:
		copy(at, io->buf, io->length);
		break;
	case EMF_TRIM:
		io->status = space_trim(&m->space, io->offset, io->length);
		break;
	}
}

static int mem_submit(struct emf_queue *q, struct emf_io *io)
{
	struct mem_queue *mq = (struct mem_queue *)q;
	struct mem *m = mq->mem;
	uint64_t start = 0;

	if (mq->closing || q->inflight >= mq->depth)
		return -EAGAIN;
	if (m->link)
		start = now_ns();
	io->status = io_check(io, m->be.size);
	if (!io->status)
		transfer(m, io);
	/* The copy is not part of the simulation: it counts as if the link did it. */
	if (m->link)
		io->scratch[0] = due(mq, start, io);
	q->inflight++;
	io_push(&mq->list, io);
	return 0;
}

static int mem_poll(struct emf_queue *q)
{
	struct mem_queue *mq = (struct mem_queue *)q;
	struct emf_io *io;
	uint64_t now;
	int n = 0;

	if (!mq->list.head)
		return 0;
	if (!mq->mem->link) {
		struct io_list all = io_take(&mq->list);

		for (; (io = io_pop(&all)); n++)
			io_end(q, io, io->status);
		return n;
	}
	now = now_ns();
	for (; mq->list.head && mq->list.head->scratch[0] <= now; n++) {
		io = io_pop(&mq->list);
		io_end(q, io, io->status);
	}
	return n;
}

static int mem_pollfds(struct emf_queue *q, struct pollfd *fds, int max)
{
	struct mem_queue *mq = (struct mem_queue *)q;
	struct itimerspec when = { 0 };

	if (mq->timer < 0 || !mq->list.head || max < 1)
		return 0;
	/* Absolute and in the past is fine: it fires at once. */
	when.it_value.tv_sec = (time_t)(mq->list.head->scratch[0] / 1000000000u);
	when.it_value.tv_nsec = (long)(mq->list.head->scratch[0] % 1000000000u);
	timerfd_settime(mq->timer, TFD_TIMER_ABSTIME, &when, NULL);
	fds[0] = (struct pollfd){ .fd = mq->timer, .events = POLLIN };
	return 1;
}

static void mem_queue_close(struct emf_queue *q)
{
	struct mem_queue *mq = (struct mem_queue *)q;

	mq->closing = true;
	io_end_all(q, &mq->list, -ECANCELED);
	if (mq->timer >= 0)
		close(mq->timer);
	own_free(mq, sizeof(*mq));
}

static const struct emf_queue_ops queue_ops = {
	.submit = mem_submit,
	.poll = mem_poll,
	.pollfds = mem_pollfds,
	.close = mem_queue_close,
};

static int mem_queue_open(struct emf_backend *be, enum emf_queue_kind kind, unsigned depth,
			  struct emf_queue **out)
{
	struct mem_queue *mq = own_alloc(sizeof(*mq));

	if (!mq)
		return -ENOMEM;
	mq->q.ops = &queue_ops;
	mq->mem = (struct mem *)be;
	mq->kind = kind;
	mq->depth = depth ? depth : 1;
	mq->timer = -1;
	if (mq->mem->link) {
		mq->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
		if (mq->timer < 0) {
			int rc = -errno;

			own_free(mq, sizeof(*mq));
			return rc;
		}
	}
	*out = &mq->q;
	return 0;
}

static void mem_close(struct emf_backend *be)
{
	struct mem *m = (struct mem *)be;

	space_unmap(&m->space);
	own_free(m, sizeof(*m));
}

static const struct emf_backend_ops backend_ops = {
	.queue_open = mem_queue_open,
	.close = mem_close,
	.descriptors = space_descriptors,
	.forked = space_forked,
	.forget = mem_close,
};

static int parse(struct mem *m, char *query, uint64_t *size, char *err, size_t errlen)
{
	char *key, *value;

	while (uri_query_next(&query, &key, &value)) {
		bool ok;

		if (!strcmp(key, "size")) {
			ok = uri_size(value, size) && *size >= IO_PAGE && *size < 1ull << 47;
			*size &= ~(uint64_t)(IO_PAGE - 1);
		} else if (!strcmp(key, "latency")) {
			ok = uri_duration(value, &m->latency);
			m->link = true;
		} else if (!strcmp(key, "bandwidth")) {
			ok = uri_size(value, &m->bandwidth) && m->bandwidth;
			m->link = true;
		} else {
			snprintf(err, errlen,
				 "no parameter '%s'; mem: has size, latency, bandwidth", key);
			return -EINVAL;
		}
		if (!ok) {
			snprintf(err, errlen,
				 "bad value in %s=%s; e.g. size=4G, latency=3us, "
				 "bandwidth=12G",
				 key, value);
			return -EINVAL;
		}
	}
	return 0;
}

static int mem_open(const char *uri, unsigned timeout_ms, struct emf_backend **out, char *err,
		    size_t errlen)
{
	struct mem *m = own_alloc(sizeof(*m));
	char *copy = strdup(uri), *query = copy;
	uint64_t size = 0;
	int rc = -ENOMEM;

	(void)timeout_ms;
	if (!m || !copy) {
		snprintf(err, errlen, "out of memory");
		goto fail;
	}
	strsep(&query, "?");
	if (strcmp(copy, "mem:")) {
		snprintf(err, errlen, "mem: has no path; write mem: or mem:?size=SIZE");
		rc = -EINVAL;
		goto fail;
	}
	rc = parse(m, query, &size, err, errlen);
	if (rc)
		goto fail;
	if (size) {
		rc = space_map(&m->space, size);
	} else { /* as much address space as a strict overcommit or ulimit -v allows */
		for (size = DEFAULT_SIZE;
		     (rc = space_map(&m->space, size)) && size > MIN_DEFAULT_SIZE;)
			size /= 2;
	}
	if (rc) {
		snprintf(err, errlen, "cannot map %llu bytes: %s", (unsigned long long)size,
			 strerror(-rc));
		goto fail;
	}
	m->be.size = size;
	m->be.ops = &backend_ops;
	m->be.caps = EMF_CAP_TRIM | EMF_CAP_CUTS | (m->link ? 0 : EMF_CAP_SYNC);
	m->be.max_length = MAX_LENGTH;
	free(copy);
	*out = &m->be;
	return 0;
fail:
	free(copy);
	own_free(m, sizeof(*m));
	return rc;
}

__attribute__((visibility("default"))) const struct emf_provider emf_provider = {
	.abi = EMF_PROVIDER_ABI,
	.name = "mem",
	.open = mem_open,
};
