/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A toy of librdmacm and libibverbs: both ends of each connection are in this process. It holds its
 * users to what cards do: keys count in their protection domain only, and until they are given up;
 * queues have the length that was asked for; a queue that has failed flushes what is in it;
 * completions come in order. All is counted that must be given back. Any call can be made to fail.
 *
 * What the side that connects does has its effect at once: `toy.peer` (the server's turn) runs
 * within its calls, and when it sleeps. Each link, by the port that was dialled, can be down, or
 * hold back what it is given.
 */
#ifndef TEST_VERBS_TOY_H
#define TEST_VERBS_TOY_H

#include <arpa/inet.h>
#include <infiniband/verbs.h>
#include <rdma/rdma_cma.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>

#undef ibv_reg_mr
#undef ibv_query_port

#define TOY_EVENTS 4096u
#define TOY_QUEUE 64u
#define TOY_LINKS 16u
#define TOY_READS 9 /* what this card can at once */

enum toy_kind { TOY_CHANNEL, TOY_ID, TOY_PD, TOY_COMP, TOY_CQ, TOY_QP, TOY_MR, TOY_KINDS };

struct toy_link {
	bool down, stalled;
	unsigned
	    fail_after; /* so many reads and writes more, then its queue pair fails; 0: never */
};

struct toy_id {
	struct rdma_cm_id id; /* first */
	struct toy_id *next, *peer, *listener;
	struct toy_link *link;
	bool active, listens, accepted, closed; /* active: the one that connects */
	bool silent;				/* nobody: a request that the test made up */
	unsigned unacked;
	struct rdma_conn_param asked, given; /* by its owner */
};

struct toy_event {
	struct rdma_cm_event e; /* first */
};

struct toy_channel {
	struct rdma_event_channel ch; /* first */
	struct toy_event event[TOY_EVENTS];
	unsigned head, count;
};

struct toy_comp {
	struct ibv_comp_channel ch; /* first */
	struct toy_cq *told;	    /* an event of it is there */
};

struct toy_cq {
	struct ibv_cq cq; /* first */
	struct ibv_wc wc[TOY_QUEUE];
	struct toy_qp *qp[TOY_QUEUE]; /* whose send queue it makes room in */
	unsigned frees[TOY_QUEUE];
	unsigned head, count;
	bool armed;
	unsigned unacked;
};

struct toy_work {
	struct ibv_send_wr wr;
	struct ibv_sge sge;
	uint8_t inlined[512];
};

struct toy_qp {
	struct ibv_qp qp; /* first */
	struct toy_id *id;
	struct ibv_qp_cap cap;
	struct toy_work work[TOY_QUEUE];		/* that is to be done */
	unsigned work_head, work_count, in_queue, done; /* done, but not told */
	struct ibv_recv_wr recv[TOY_QUEUE];
	struct ibv_sge recv_sge[TOY_QUEUE];
	unsigned recv_head, recv_count;
	bool failed;
};

struct toy_mr {
	struct ibv_mr mr; /* first */
	struct toy_mr *next;
	int access;
};

static struct {
	struct ibv_device device;
	struct verbs_context verbs;
	int live[TOY_KINDS];
	long calls, fail_at; /* that can fail; which one does; 0: none */
	void (*peer)(void);
	bool peer_runs;
	void (*meanwhile)(void); /* when somebody sleeps, and the peer has yet to do something */
	/* Looks at, and may change, a message of the server's. */
	void (*tamper)(uint8_t *message, uint32_t length);
	struct toy_link link[TOY_LINKS];
	struct toy_id *ids;
	struct toy_mr *mrs;
	uint32_t keys;
	uint64_t ahead; /* ns: of the clock */
	unsigned reads_at_once;
	/* The card takes page faults; is told of them beforehand; what it reached in such memory. */
	bool odp, advice;
	unsigned direct, advised;
	unsigned refused; /* reads and writes that no key allows */
	unsigned flood;	  /* requests more, each when one is answered */
} toy;

/* The clock of all that is linked into the test. */
int clock_gettime(clockid_t clock, struct timespec *ts)
{
	long rc = syscall(SYS_clock_gettime, clock, ts);
	uint64_t ns = (uint64_t)ts->tv_nsec + toy.ahead % 1000000000u;

	ts->tv_sec += (time_t)(toy.ahead / 1000000000u + ns / 1000000000u);
	ts->tv_nsec = (long)(ns % 1000000000u);
	return (int)rc;
}

static bool toy_fails(int error)
{
	if (++toy.calls != toy.fail_at)
		return false;
	errno = error;
	return true;
}

static void *toy_new(enum toy_kind kind, size_t size)
{
	void *p;

	if (toy_fails(ENOMEM))
		return NULL;
	p = calloc(1, size);
	assert_non_null(p);
	toy.live[kind]++;
	return p;
}

static void toy_end(enum toy_kind kind, void *p)
{
	toy.live[kind]--;
	free(p);
}

static void toy_raise(int fd)
{
	uint64_t one = 1;

	assert_int_equal(write(fd, &one, sizeof(one)), sizeof(one));
}

static void toy_lower(int fd)
{
	uint64_t value;

	(void)!read(fd, &value, sizeof(value));
}

/* --- completions --- */

struct ibv_pd *ibv_alloc_pd(struct ibv_context *context)
{
	struct ibv_pd *pd = toy_new(TOY_PD, sizeof(*pd));

	if (pd)
		pd->context = context;
	return pd;
}

int ibv_dealloc_pd(struct ibv_pd *pd)
{
	for (const struct toy_mr *m = toy.mrs; m; m = m->next)
		assert_ptr_not_equal(m->mr.pd, pd);
	toy_end(TOY_PD, pd);
	return 0;
}

struct ibv_comp_channel *ibv_create_comp_channel(struct ibv_context *context)
{
	struct toy_comp *c = toy_new(TOY_COMP, sizeof(*c));

	if (!c)
		return NULL;
	c->ch.context = context;
	c->ch.fd = eventfd(0, EFD_CLOEXEC);
	return &c->ch;
}

int ibv_destroy_comp_channel(struct ibv_comp_channel *channel)
{
	assert_int_equal(channel->refcnt, 0);
	close(channel->fd);
	toy_end(TOY_COMP, channel);
	return 0;
}

struct ibv_cq *ibv_create_cq(struct ibv_context *context, int cqe, void *cq_context,
			     struct ibv_comp_channel *channel, int vector)
{
	struct toy_cq *c = toy_new(TOY_CQ, sizeof(*c));

	(void)vector;
	if (!c)
		return NULL;
	assert_in_range(cqe, 1, TOY_QUEUE);
	c->cq = (struct ibv_cq){
		.context = context, .channel = channel, .cq_context = cq_context, .cqe = cqe
	};
	channel->refcnt++;
	return &c->cq;
}

int ibv_destroy_cq(struct ibv_cq *cq)
{
	struct toy_cq *c = (struct toy_cq *)cq;
	struct toy_comp *comp = (struct toy_comp *)cq->channel;

	assert_int_equal(c->unacked, 0); /* it would wait for ever */
	if (comp->told == c) {
		comp->told = NULL;
		toy_lower(comp->ch.fd);
	}
	comp->ch.refcnt--;
	toy_end(TOY_CQ, c);
	return 0;
}

int ibv_get_cq_event(struct ibv_comp_channel *channel, struct ibv_cq **cq, void **context)
{
	struct toy_comp *c = (struct toy_comp *)channel;

	if (!c->told) {
		errno = EAGAIN;
		return -1;
	}
	*cq = &c->told->cq;
	*context = (*cq)->cq_context;
	c->told->unacked++;
	c->told = NULL;
	toy_lower(channel->fd);
	return 0;
}

void ibv_ack_cq_events(struct ibv_cq *cq, unsigned n)
{
	((struct toy_cq *)cq)->unacked -= n;
}

static int toy_notify(struct ibv_cq *cq, int solicited)
{
	(void)solicited;
	if (toy_fails(EIO))
		return EIO;
	((struct toy_cq *)cq)->armed = true;
	return 0;
}

static void toy_complete(struct ibv_cq *cq, struct ibv_wc wc, struct toy_qp *qp, unsigned frees)
{
	struct toy_cq *c = (struct toy_cq *)cq;
	struct toy_comp *comp = (struct toy_comp *)cq->channel;
	unsigned at = (c->head + c->count) % TOY_QUEUE;

	assert_true((int)c->count < cq->cqe); /* it would be lost, and the queue break */
	c->wc[at] = wc;
	c->qp[at] = qp;
	c->frees[at] = frees;
	c->count++;
	if (!c->armed)
		return;
	c->armed = false;
	assert_true(!comp->told);
	comp->told = c;
	toy_raise(comp->ch.fd);
}

static int toy_poll(struct ibv_cq *cq, int most, struct ibv_wc *wc)
{
	struct toy_cq *c = (struct toy_cq *)cq;
	int n = 0;

	for (; n < most && c->count; n++) {
		wc[n] = c->wc[c->head];
		if (c->qp[c->head])
			c->qp[c->head]->in_queue -= c->frees[c->head];
		c->head = (c->head + 1) % TOY_QUEUE;
		c->count--;
	}
	return n;
}

/* --- memory --- */

struct ibv_mr *ibv_reg_mr(struct ibv_pd *pd, void *addr, size_t length, int access)
{
	struct toy_mr *m = toy_new(TOY_MR, sizeof(*m));

	if (!m)
		return NULL;
	toy.keys += 17;
	m->mr = (struct ibv_mr){ .context = pd->context,
				 .pd = pd,
				 .addr = addr,
				 .length = length,
				 .lkey = toy.keys,
				 .rkey = toy.keys };
	m->access = access;
	m->next = toy.mrs;
	toy.mrs = m;
	return &m->mr;
}

struct ibv_mr *ibv_reg_mr_iova2(struct ibv_pd *pd, void *addr, size_t length, uint64_t iova,
				unsigned access)
{
	assert_true(iova == (uintptr_t)addr);
	return ibv_reg_mr(pd, addr, length, (int)access);
}

int ibv_dereg_mr(struct ibv_mr *mr)
{
	struct toy_mr **at = &toy.mrs;

	/* The memory is somebody else's now: nothing may be left that could reach it. */
	if (((struct toy_mr *)mr)->access & IBV_ACCESS_ON_DEMAND)
		for (const struct toy_id *i = toy.ids; i; i = i->next)
			assert_true(!i->id.qp || i->id.qp->pd != mr->pd);
	while (&(*at)->mr != mr)
		at = &(*at)->next;
	*at = (*at)->next;
	toy_end(TOY_MR, mr);
	return 0;
}

/* Does the key reach all of it? */
static bool toy_reaches(const struct ibv_pd *pd, uint32_t key, uint64_t at, uint64_t length,
			int access)
{
	for (const struct toy_mr *m = toy.mrs; m; m = m->next)
		if (m->mr.pd == pd && m->mr.rkey == key && (m->access & access) == access &&
		    at >= (uintptr_t)m->mr.addr && length <= m->mr.length &&
		    at - (uintptr_t)m->mr.addr <= m->mr.length - length)
			return true;
	return false;
}

static unsigned toy_on_demand(uint32_t key)
{
	for (const struct toy_mr *m = toy.mrs; m; m = m->next)
		if (m->mr.lkey == key)
			return (m->access & IBV_ACCESS_ON_DEMAND) != 0;
	return 0;
}

static int toy_query(struct ibv_context *context, const struct ibv_query_device_ex_input *input,
		     struct ibv_device_attr_ex *attr, size_t size)
{
	(void)context, (void)input;
	assert_int_equal(size, sizeof(*attr));
	if (toy_fails(EIO))
		return EIO;
	memset(attr, 0, sizeof(*attr));
	attr->odp_caps.general_caps = toy.odp ? IBV_ODP_SUPPORT : 0;
	attr->odp_caps.per_transport_caps.rc_odp_caps =
	    toy.odp ? IBV_ODP_SUPPORT_READ | IBV_ODP_SUPPORT_WRITE : IBV_ODP_SUPPORT_SEND;
	return 0;
}

static int toy_advise(struct ibv_pd *pd, enum ibv_advise_mr_advice advice, uint32_t flags,
		      struct ibv_sge *sge, uint32_t n)
{
	(void)flags;
	assert_int_equal(n, 1);
	assert_true(toy_on_demand(sge->lkey));
	assert_true(toy_reaches(pd, sge->lkey, sge->addr, sge->length,
				advice == IBV_ADVISE_MR_ADVICE_PREFETCH_WRITE ? IBV_ACCESS_LOCAL_WRITE : 0));
	if (!toy.advice)
		return EOPNOTSUPP;
	toy.advised++;
	return toy_fails(EFAULT) ? EFAULT : 0;
}

/* --- queue pairs --- */

static void toy_flush(struct toy_qp *q, enum ibv_wc_status first, uint64_t id)
{
	q->failed = true;
	if (first)
		toy_complete(q->qp.send_cq, (struct ibv_wc){ .wr_id = id, .status = first }, q,
			     1 + q->done);
	q->done = 0;
	for (; q->work_count; q->work_count--, q->work_head = (q->work_head + 1) % TOY_QUEUE)
		toy_complete(q->qp.send_cq,
			     (struct ibv_wc){ .wr_id = q->work[q->work_head].wr.wr_id,
					      .status = IBV_WC_WR_FLUSH_ERR },
			     q, 1);
	for (; q->recv_count; q->recv_count--, q->recv_head = (q->recv_head + 1) % TOY_QUEUE)
		toy_complete(q->qp.recv_cq,
			     (struct ibv_wc){ .wr_id = q->recv[q->recv_head].wr_id,
					      .status = IBV_WC_WR_FLUSH_ERR },
			     NULL, 0);
}

static struct toy_qp *toy_peer_qp(const struct toy_qp *q)
{
	const struct toy_id *peer = q->id->peer;

	return peer && !peer->closed ? (struct toy_qp *)peer->id.qp : NULL;
}

static const void *toy_source(const struct toy_qp *q, const struct toy_work *w)
{
	if (w->wr.send_flags & IBV_SEND_INLINE)
		return w->inlined;
	/* A receive buffer is its owner's only: that is all the key must allow. */
	assert_true(toy_reaches(q->qp.pd, w->sge.lkey, w->sge.addr, w->sge.length, 0));
	return (const void *)(uintptr_t)w->sge.addr;
}

static enum ibv_wc_status toy_send(struct toy_qp *q, struct toy_qp *to, const struct toy_work *w)
{
	uint8_t message[512];
	struct ibv_sge *into = &to->recv_sge[to->recv_head];
	struct ibv_wc wc = { .wr_id = to->recv[to->recv_head].wr_id,
			     .opcode = IBV_WC_RECV,
			     .byte_len = w->sge.length };

	assert_true(w->sge.length <= sizeof(message));
	if (!to->recv_count)
		return IBV_WC_RNR_RETRY_EXC_ERR;
	memcpy(message, toy_source(q, w), w->sge.length);
	if (toy.tamper && !q->id->active)
		toy.tamper(message, w->sge.length);
	if (w->sge.length > into->length) {
		toy_flush(to, IBV_WC_LOC_LEN_ERR, wc.wr_id);
		return IBV_WC_REM_INV_REQ_ERR;
	}
	assert_true(
	    toy_reaches(to->qp.pd, into->lkey, into->addr, into->length, IBV_ACCESS_LOCAL_WRITE));
	memcpy((void *)(uintptr_t)into->addr, message, w->sge.length);
	to->recv_head = (to->recv_head + 1) % TOY_QUEUE;
	to->recv_count--;
	toy_complete(to->qp.recv_cq, wc, NULL, 0);
	return IBV_WC_SUCCESS;
}

static enum ibv_wc_status toy_one_sided(struct toy_qp *q, struct toy_qp *to,
					const struct toy_work *w)
{
	bool reads = w->wr.opcode == IBV_WR_RDMA_READ;
	void *remote = (void *)(uintptr_t)w->wr.wr.rdma.remote_addr;

	if (!w->wr.num_sge)
		return IBV_WC_SUCCESS;
	if (!toy_reaches(to->qp.pd, w->wr.wr.rdma.rkey, w->wr.wr.rdma.remote_addr, w->sge.length,
			 reads ? IBV_ACCESS_REMOTE_READ : IBV_ACCESS_REMOTE_WRITE)) {
		toy.refused++;
		toy_flush(to, IBV_WC_SUCCESS, 0);
		return IBV_WC_REM_ACCESS_ERR;
	}
	toy.direct += toy_on_demand(w->sge.lkey);
	if (!reads) {
		memcpy(remote, toy_source(q, w), w->sge.length);
		return IBV_WC_SUCCESS;
	}
	assert_true(
	    toy_reaches(q->qp.pd, w->sge.lkey, w->sge.addr, w->sge.length, IBV_ACCESS_LOCAL_WRITE));
	memcpy((void *)(uintptr_t)w->sge.addr, remote, w->sge.length);
	return IBV_WC_SUCCESS;
}

static enum ibv_wc_status toy_do(struct toy_qp *q, const struct toy_work *w)
{
	struct toy_link *link = q->id->link;
	struct toy_qp *to = toy_peer_qp(q);

	if (q->id->silent && !w->wr.num_sge)
		return IBV_WC_SUCCESS;
	if (link->down || !to || to->failed)
		return IBV_WC_RETRY_EXC_ERR;
	if (w->wr.opcode == IBV_WR_SEND)
		return toy_send(q, to, w);
	if (q->id->active && link->fail_after && !--link->fail_after)
		return IBV_WC_RETRY_EXC_ERR;
	return toy_one_sided(q, to, w);
}

static void toy_work(struct toy_qp *q)
{
	while (q->work_count && !q->failed && !q->id->link->stalled) {
		struct toy_work *w = &q->work[q->work_head];
		enum ibv_wc_status status;

		q->work_head = (q->work_head + 1) % TOY_QUEUE;
		q->work_count--;
		status = toy_do(q, w);
		if (status) {
			toy_flush(q, status, w->wr.wr_id);
		} else if (w->wr.send_flags & IBV_SEND_SIGNALED) {
			toy_complete(q->qp.send_cq, (struct ibv_wc){ .wr_id = w->wr.wr_id }, q,
				     1 + q->done);
			q->done = 0;
		} else {
			q->done++;
		}
	}
}

static void toy_run_peer(void)
{
	if (toy.peer_runs || !toy.peer)
		return;
	toy.peer_runs = true;
	/* As often as it takes to answer, and to end what it ends. */
	for (unsigned i = 0; i < 4; i++)
		toy.peer();
	toy.peer_runs = false;
}

/* Of who is linked into the test: the peer does what it has to do, and then it is slept. */
int poll(struct pollfd *fds, nfds_t n, int ms)
{
	struct timespec now = { 0 },
			limit = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000l };
	void (*meanwhile)(void) = toy.meanwhile;
	int rc;

	for (unsigned i = 0; i < 20 && !toy.peer_runs; i++) {
		now = (struct timespec){ 0 };
		rc = (int)syscall(SYS_ppoll, fds, n, &now, NULL, 0ul);
		if (rc || !ms)
			return rc;
		toy_run_peer();
		if (!meanwhile)
			continue;
		toy.meanwhile = NULL;
		meanwhile();
		toy.meanwhile = meanwhile;
	}
	return (int)syscall(SYS_ppoll, fds, n, ms < 0 ? NULL : &limit, NULL, 0ul);
}

static int toy_post_send(struct ibv_qp *qp, struct ibv_send_wr *wr, struct ibv_send_wr **bad)
{
	struct toy_qp *q = (struct toy_qp *)qp;

	for (; wr; wr = wr->next) {
		struct toy_work *w = &q->work[(q->work_head + q->work_count) % TOY_QUEUE];

		*bad = wr;
		if (toy_fails(EIO))
			return EIO;
		assert_true(q->in_queue < q->cap.max_send_wr);
		q->in_queue++;
		if (q->failed) {
			toy_complete(
			    qp->send_cq,
			    (struct ibv_wc){ .wr_id = wr->wr_id, .status = IBV_WC_WR_FLUSH_ERR }, q,
			    1);
			continue;
		}
		*w = (struct toy_work){ .wr = *wr };
		if (wr->num_sge)
			w->sge = wr->sg_list[0];
		if (wr->send_flags & IBV_SEND_INLINE) {
			assert_true(w->sge.length <= q->cap.max_inline_data);
			memcpy(w->inlined, (const void *)(uintptr_t)w->sge.addr, w->sge.length);
		}
		q->work_count++;
	}
	toy_work(q);
	if (q->id->active)
		toy_run_peer();
	return 0;
}

static int toy_post_recv(struct ibv_qp *qp, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad)
{
	struct toy_qp *q = (struct toy_qp *)qp;
	unsigned at = (q->recv_head + q->recv_count) % TOY_QUEUE;

	*bad = wr;
	if (toy_fails(EIO))
		return EIO;
	assert_true(q->recv_count < q->cap.max_recv_wr);
	q->recv[at] = *wr;
	q->recv_sge[at] = wr->sg_list[0];
	if (q->failed)
		toy_complete(qp->recv_cq,
			     (struct ibv_wc){ .wr_id = wr->wr_id, .status = IBV_WC_WR_FLUSH_ERR },
			     NULL, 0);
	else
		q->recv_count++;
	return 0;
}

int rdma_create_qp(struct rdma_cm_id *id, struct ibv_pd *pd, struct ibv_qp_init_attr *attr)
{
	struct toy_qp *q;

	assert_in_range(attr->cap.max_send_wr, 1, TOY_QUEUE);
	q = toy_new(TOY_QP, sizeof(*q));
	if (!q)
		return -1;
	q->qp = (struct ibv_qp){
		.context = id->verbs, .pd = pd, .send_cq = attr->send_cq, .recv_cq = attr->recv_cq
	};
	q->id = (struct toy_id *)id;
	q->cap = attr->cap;
	id->qp = &q->qp;
	return 0;
}

void rdma_destroy_qp(struct rdma_cm_id *id)
{
	struct toy_cq *c = (struct toy_cq *)id->qp->send_cq;

	for (unsigned i = 0; i < TOY_QUEUE; i++)
		if (c->qp[i] == (struct toy_qp *)id->qp)
			c->qp[i] = NULL;
	toy_end(TOY_QP, id->qp);
	id->qp = NULL;
}

#include "test_verbs_cm.h"

/* --- the device --- */

struct ibv_context **rdma_get_devices(int *n)
{
	struct ibv_context **list = calloc(2, sizeof(*list));

	if (n)
		*n = 1;
	list[0] = &toy.verbs.context;
	return list;
}

void rdma_free_devices(struct ibv_context **list)
{
	free(list);
}

struct ibv_device **ibv_get_device_list(int *n)
{
	*n = 0;
	return NULL;
}

void ibv_free_device_list(struct ibv_device **list)
{
	(void)list;
}

int ibv_query_device(struct ibv_context *context, struct ibv_device_attr *attr)
{
	(void)context;
	if (toy_fails(EIO))
		return EIO;
	*attr = (struct ibv_device_attr){ .max_qp_rd_atom = TOY_READS,
					  .max_qp_init_rd_atom = TOY_READS };
	return 0;
}

static void toy_reset(void)
{
	memset(&toy, 0, sizeof(toy));
	toy.device.transport_type = IBV_TRANSPORT_IB;
	toy.verbs.context.device = &toy.device;
	toy.verbs.context.ops.poll_cq = toy_poll;
	toy.verbs.context.ops.req_notify_cq = toy_notify;
	toy.verbs.context.ops.post_send = toy_post_send;
	toy.verbs.context.ops.post_recv = toy_post_recv;
	toy.verbs.context.abi_compat = __VERBS_ABI_IS_EXTENDED;
	toy.verbs.sz = sizeof(toy.verbs);
	toy.verbs.query_device_ex = toy_query;
	toy.verbs.advise_mr = toy_advise;
}

/* What was held back goes on. */
__attribute__((unused)) static void toy_go_on(struct toy_link *link)
{
	link->stalled = false;
	for (struct toy_id *i = toy.ids; i; i = i->next)
		if (i->link == link && i->id.qp)
			toy_work((struct toy_qp *)i->id.qp);
}

#endif
