/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE 1 /* ppoll */
#include "server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <infiniband/verbs.h>
#include <poll.h>
#include <rdma/rdma_cma.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include "../common/http.h"
#include "metrics.h"
#include "notify.h"
#include "../common/say.h"

#define NS_PER_MS 1000000ull
#define MOST_PENDING 32u /* connections that have yet to prove who they are */
#define MOST_CLIENTS 512u
#define MOST_CONNECTIONS (MOST_PENDING + MOST_CLIENTS)
#define PENDING_NS (5000 * NS_PER_MS)
#define LAST_NS (1000 * NS_PER_MS) /* for the last answer to get through */
#define MOST_KEEPALIVE_NS (2000 * NS_PER_MS)
#define BACKLOG 64
#define MOST_EVENTS 64u /* in one turn: others have theirs, whatever comes */
#define RECEIVES 4u
#define SENDS 4u
#define COMPLETIONS (RECEIVES + SENDS + 1) /* at once: of these, and of being alive */
/*
 * 4.096 us x 2^16, 0.27 s, and six times more before the other side counts as gone. (Seven is for
 * ever to some cards, so there is a limit of ours, too.)
 */
#define ACK_TIMEOUT 16
#define RETRIES 6
#define UNANSWERED_NS (10000 * NS_PER_MS)

/* What a completion is of. */
enum { WR_RECEIVE, WR_SEND, WR_KEEPALIVE };

struct connection {
	struct session session; /* first: map_slab gets it */
	struct connection *next;
	struct rdma_cm_id *id;
	struct ibv_pd *pd;
	struct ibv_comp_channel *channel;
	struct ibv_cq *cq;
	uint8_t *message; /* RECEIVES, then SENDS of WIRE_BYTES */
	struct ibv_mr *message_mr;
	struct ibv_mr **slab_mr; /* of the lease's slabs, NULL: not mapped */
	uint32_t nslabs;
	unsigned next_send, sending;
	unsigned later;		     /* the receive of the message that is answered later, and 1 */
	bool established, keepalive; /* one is on its way */
	bool gone, last;	     /* to be closed: now; when all is sent */
	bool more;		     /* completions that nothing will tell of */
	uint64_t deadline;	     /* 0: none */
	uint64_t keepalive_at, keepalive_since;
};

static struct {
	struct desk *desk;
	struct rdma_event_channel *events;
	struct ibv_context **devices;
	struct rdma_cm_id *listener[OPTIONS_LISTEN];
	unsigned nlisteners;
	struct connection *first;
	unsigned count;
	int signals;
	bool metrics, failed;
	uint64_t keepalive, drain; /* ns */
	uint64_t drain_until;	   /* 0: not yet */
	uint64_t told_denied;	   /* when */
} server = { .signals = -1 };

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static uint64_t sooner(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* --- what a connection may reach --- */

static int map_slab(struct session *s, uint32_t slab, struct wire_slab *out)
{
	struct connection *c = (struct connection *)s;
	const struct pool *p = s->desk->leases.pool;
	unsigned char *at = pool_address(p, s->lease->slab[slab]);

	if (!c->slab_mr) {
		c->slab_mr = calloc(s->lease->nslabs, sizeof(*c->slab_mr));
		if (!c->slab_mr)
			return -ENOMEM;
		c->nslabs = s->lease->nslabs;
	}
	if (!c->slab_mr[slab])
		c->slab_mr[slab] = ibv_reg_mr(c->pd, at, (size_t)p->slab_bytes,
					      IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ |
						  IBV_ACCESS_REMOTE_WRITE);
	if (!c->slab_mr[slab])
		return -errno;
	*out = (struct wire_slab){ .address = (uintptr_t)at, .rkey = c->slab_mr[slab]->rkey };
	return 0;
}

/* --- connections --- */

static int post_receive(struct connection *c, unsigned i)
{
	struct ibv_sge sge = {
		.addr = (uintptr_t)(c->message + i * WIRE_BYTES),
		.length = WIRE_BYTES,
		.lkey = c->message_mr->lkey,
	};
	struct ibv_recv_wr wr = { .wr_id = (uint64_t)i << 8 | WR_RECEIVE,
				  .sg_list = &sge,
				  .num_sge = 1 },
			   *bad;

	return -ibv_post_recv(c->id->qp, &wr, &bad);
}

static int post_send(struct connection *c, const struct wire_message *m)
{
	uint8_t *at = c->message + (RECEIVES + c->next_send) * WIRE_BYTES;
	struct ibv_sge sge = { .addr = (uintptr_t)at,
			       .length = WIRE_BYTES,
			       .lkey = c->message_mr->lkey };
	struct ibv_send_wr wr = {
		.wr_id = WR_SEND,
		.sg_list = &sge,
		.num_sge = 1,
		.opcode = IBV_WR_SEND,
		.send_flags = IBV_SEND_SIGNALED,
	}, *bad;
	int rc;

	if (c->sending == SENDS) /* it asks, and does not take the answers */
		return -ENOBUFS;
	wire_encode(m, at);
	rc = -ibv_post_send(c->id->qp, &wr, &bad);
	if (!rc) {
		c->next_send = (c->next_send + 1) % SENDS;
		c->sending++;
	}
	return rc;
}

/* Of no length: it needs no key, reaches no memory, and is acknowledged. */
static int post_keepalive(struct connection *c)
{
	struct ibv_send_wr wr = {
		.wr_id = WR_KEEPALIVE,
		.opcode = IBV_WR_RDMA_WRITE,
		.send_flags = IBV_SEND_SIGNALED,
	}, *bad;
	int rc = -ibv_post_send(c->id->qp, &wr, &bad);

	c->keepalive = !rc;
	c->keepalive_since = now_ns();
	return rc;
}

/* Whatever of it there is. The order is what the head of server.h promises. */
static void free_connection(struct connection *c)
{
	if (c->established)
		rdma_disconnect(c->id);
	if (c->id->qp)
		rdma_destroy_qp(c->id);
	for (uint32_t i = 0; i < c->nslabs; i++)
		if (c->slab_mr[i])
			ibv_dereg_mr(c->slab_mr[i]);
	free(c->slab_mr);
	if (c->message_mr)
		ibv_dereg_mr(c->message_mr);
	free(c->message);
	if (c->cq)
		ibv_destroy_cq(c->cq);
	if (c->channel)
		ibv_destroy_comp_channel(c->channel);
	if (c->pd)
		ibv_dealloc_pd(c->pd);
	rdma_destroy_id(c->id);
	session_close(&c->session, now_ns());
	free(c);
}

static int make_queue_pair(struct connection *c)
{
	struct ibv_qp_init_attr attr = {
		.qp_type = IBV_QPT_RC,
		.cap = { .max_send_wr = SENDS + 1,
			 .max_recv_wr = RECEIVES,
			 .max_send_sge = 1,
			 .max_recv_sge = 1 },
	};

	c->pd = ibv_alloc_pd(c->id->verbs);
	c->channel = ibv_create_comp_channel(c->id->verbs);
	if (!c->pd || !c->channel || fcntl(c->channel->fd, F_SETFL, O_NONBLOCK))
		return -errno;
	c->cq = ibv_create_cq(c->id->verbs, COMPLETIONS, NULL, c->channel, 0);
	if (!c->cq)
		return -errno;
	attr.send_cq = attr.recv_cq = c->cq;
	if (ibv_req_notify_cq(c->cq, 0) || rdma_create_qp(c->id, c->pd, &attr))
		return -errno;
	c->message = calloc(RECEIVES + SENDS, WIRE_BYTES);
	if (!c->message)
		return -ENOMEM;
	/* What the card may write into is this side's only: no key of it is told to anybody. */
	c->message_mr =
	    ibv_reg_mr(c->pd, c->message, (RECEIVES + SENDS) * WIRE_BYTES, IBV_ACCESS_LOCAL_WRITE);
	return c->message_mr ? 0 : -errno;
}

static int accept_connection(struct connection *c, const struct rdma_conn_param *asked)
{
	uint8_t timeout = ACK_TIMEOUT;
	struct rdma_conn_param param = { .rnr_retry_count = RETRIES };
	struct ibv_device_attr attr;
	int rc = make_queue_pair(c);

	for (unsigned i = 0; i < RECEIVES && !rc; i++)
		rc = post_receive(c, i);
	if (rc)
		return rc;
	/* As many reads at once as it likes, and the card can. (What it initiates is told as what
	 * this side is to respond to.) */
	if (!ibv_query_device(c->id->verbs, &attr))
		param.responder_resources = asked->responder_resources < attr.max_qp_rd_atom
						? asked->responder_resources
						: (uint8_t)attr.max_qp_rd_atom;
	(void)rdma_set_option(c->id, RDMA_OPTION_ID, RDMA_OPTION_ID_ACK_TIMEOUT, &timeout,
			      sizeof(timeout));
	return rdma_accept(c->id, &param) ? -errno : 0;
}

/* Where many come and say nothing, the oldest goes: who knows what to say is done by then. */
static void make_room(void)
{
	struct connection *oldest = NULL;
	unsigned n = 0;

	for (struct connection *c = server.first; c; c = c->next)
		if (session_is_pending(&c->session) && !c->gone) {
			oldest = c;
			n++;
		}
	if (n >= MOST_PENDING)
		oldest->gone = true;
}

/* Closes those that are to be closed: nobody is in the middle of one here. */
static void sweep(void)
{
	struct connection **at = &server.first, *c;

	while ((c = *at)) {
		bool ended = c->session.lease && c->session.lease->ended;

		if (!c->gone && !(c->last ? !c->sending : ended)) {
			at = &c->next;
			continue;
		}
		*at = c->next;
		server.count--;
		free_connection(c);
	}
}

static void on_request(struct rdma_cm_id *id, const struct rdma_conn_param *asked)
{
	struct connection *c = NULL;

	make_room();
	sweep();
	if (server.count < MOST_CONNECTIONS)
		c = calloc(1, sizeof(*c));
	if (!c) {
		rdma_reject(id, NULL, 0);
		rdma_destroy_id(id);
		return;
	}
	c->id = id;
	id->context = c;
	session_open(&c->session, server.desk, map_slab);
	c->deadline = now_ns() + PENDING_NS;
	if (accept_connection(c, asked)) {
		rdma_reject(id, NULL, 0);
		free_connection(c);
		return;
	}
	c->next = server.first;
	server.first = c;
	server.count++;
}

/* --- what happens --- */

/* Not more than a line a second: anybody can make them. */
static void tell_denied(struct connection *c, uint64_t now)
{
	char text[INET6_ADDRSTRLEN] = "?";
	const struct sockaddr *peer = rdma_get_peer_addr(c->id);

	if (server.told_denied && now - server.told_denied < 1000 * NS_PER_MS)
		return;
	server.told_denied = now;
	if (peer->sa_family == AF_INET)
		inet_ntop(AF_INET, &((const struct sockaddr_in *)(const void *)peer)->sin_addr,
			  text, sizeof(text));
	else if (peer->sa_family == AF_INET6)
		inet_ntop(AF_INET6, &((const struct sockaddr_in6 *)(const void *)peer)->sin6_addr,
			  text, sizeof(text));
	say(0, "denied: wrong secret or tenant, from %s", text);
}

/* And the receive is free for the next. */
static void answer(struct connection *c, unsigned i, const struct wire_message *m)
{
	if (post_send(c, m) || post_receive(c, i))
		c->gone = true;
}

static void on_message(struct connection *c, unsigned i, uint32_t length)
{
	uint64_t now = now_ns(), denied = server.desk->denied;
	struct wire_message out;
	enum session_verdict verdict;

	verdict = session_input(&c->session, c->message + i * WIRE_BYTES, length, &out);
	if (server.desk->denied != denied)
		tell_denied(c, now);
	if (!session_is_pending(&c->session) && !c->last)
		c->deadline = 0;
	switch (verdict) {
	case SESSION_ANSWER:
		answer(c, i, &out);
		break;
	case SESSION_LAST:
		c->last = true;
		c->deadline = now + LAST_NS;
		c->gone = post_send(c, &out) != 0;
		break;
	case SESSION_LATER:
		c->later = i + 1;
		break;
	case SESSION_CLOSE:
		c->gone = true;
	}
}

/* Memory is clean that somebody waits for. */
static void answer_later(void)
{
	struct wire_message out;

	for (struct connection *c = server.first; c; c = c->next) {
		if (!c->later || c->gone || !session_later(&c->session, &out))
			continue;
		answer(c, c->later - 1, &out);
		c->later = 0;
	}
}

static void on_completion(struct connection *c, const struct ibv_wc *wc)
{
	if (wc->status != IBV_WC_SUCCESS) {
		c->gone = true;
		return;
	}
	switch (wc->wr_id & 0xff) {
	case WR_RECEIVE:
		if (!c->last && !c->gone)
			on_message(c, (unsigned)(wc->wr_id >> 8), wc->byte_len);
		break;
	case WR_SEND:
		c->sending--;
		break;
	case WR_KEEPALIVE:
		c->keepalive = false;
		break;
	}
}

static void read_completions(struct connection *c)
{
	struct ibv_cq *cq;
	void *context;
	struct ibv_wc wc;
	unsigned n = 0;

	while (!ibv_get_cq_event(c->channel, &cq, &context))
		ibv_ack_cq_events(cq, 1);
	if (ibv_req_notify_cq(c->cq, 0))
		c->gone = true;
	/* No more than there can have been: a client that asks without end is not all there is. */
	for (; !c->gone && n < COMPLETIONS && ibv_poll_cq(c->cq, 1, &wc) > 0; n++)
		on_completion(c, &wc);
	c->more = n == COMPLETIONS;
}

static void on_event(enum rdma_cm_event_type type, struct rdma_cm_id *id,
		     const struct rdma_conn_param *param)
{
	struct connection *c = id->context;

	switch (type) {
	case RDMA_CM_EVENT_CONNECT_REQUEST:
		on_request(id, param);
		break;
	case RDMA_CM_EVENT_ESTABLISHED:
		c->established = true;
		break;
	case RDMA_CM_EVENT_DISCONNECTED:
		if (c)
			session_disconnected(&c->session);
		/* fall through */
	case RDMA_CM_EVENT_CONNECT_ERROR:
	case RDMA_CM_EVENT_UNREACHABLE:
	case RDMA_CM_EVENT_REJECTED:
	case RDMA_CM_EVENT_TIMEWAIT_EXIT:
	case RDMA_CM_EVENT_DEVICE_REMOVAL:
		if (c)
			c->gone = true;
		else if (type == RDMA_CM_EVENT_DEVICE_REMOVAL)
			server.failed = true;
		break;
	default:
		break;
	}
}

static void read_events(void)
{
	struct rdma_cm_event *e;

	for (unsigned n = 0; n < MOST_EVENTS && !rdma_get_cm_event(server.events, &e); n++) {
		enum rdma_cm_event_type type = e->event;
		struct rdma_conn_param param = e->param.conn;
		struct rdma_cm_id *id = e->id;

		param.private_data = NULL; /* gone with the event, and never looked at */
		rdma_ack_cm_event(e);
		on_event(type, id, &param);
		/* An id must not be destroyed while events of it are read. */
		sweep();
	}
}

/* The metrics' server may have something to do that its descriptor does not tell. */
static uint64_t metrics_due(uint64_t now)
{
	int ms = server.metrics ? http_timeout() : -1;

	return ms < 0 ? UINT64_MAX : now + (unsigned)ms * NS_PER_MS;
}

/* When there is something to do next. */
static uint64_t watch_time(uint64_t now)
{
	uint64_t next = UINT64_MAX;

	for (struct connection *c = server.first; c; c = c->next) {
		if (c->deadline && now >= c->deadline)
			c->gone = true;
		if (c->deadline)
			next = sooner(next, c->deadline);
		if (!c->established || c->gone || c->last)
			continue;
		if (now >= c->keepalive_at) {
			if (c->keepalive ? now - c->keepalive_since >= UNANSWERED_NS
					 : post_keepalive(c) != 0)
				c->gone = true;
			c->keepalive_at = now + server.keepalive;
		}
		next = sooner(next, c->keepalive_at);
	}
	return next;
}

static void drain(uint64_t now)
{
	struct leases *ls = &server.desk->leases;

	ls->draining = true;
	server.drain_until = now + server.drain;
	notify_send("STOPPING=1\nSTATUS=Waiting for leases to end");
	if (ls->count)
		say(0, "draining: %u leases", ls->count);
}

static void read_signals(uint64_t now)
{
	struct signalfd_siginfo info;

	while (read(server.signals, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
		if (!server.drain_until)
			drain(now);
		else
			server.drain_until = now;
	}
}

/* True: it is over. */
static bool is_drained(uint64_t now)
{
	return server.drain_until && (!server.desk->leases.count || now >= server.drain_until);
}

static void wait_for_something(struct pollfd *fds, uint64_t next, bool busy)
{
	uint64_t now = now_ns(), left = next > now ? next - now : 0;
	struct timespec ts = { .tv_sec = (time_t)(left / 1000000000u),
			       .tv_nsec = (long)(left % 1000000000u) };
	nfds_t n = 3;

	fds[0] = (struct pollfd){ .fd = server.signals, .events = POLLIN };
	fds[1] = (struct pollfd){ .fd = server.events->fd, .events = POLLIN };
	fds[2] = (struct pollfd){ .fd = server.metrics ? http_fd() : -1, .events = POLLIN };
	for (const struct connection *c = server.first; c; c = c->next) {
		fds[n++] = (struct pollfd){ .fd = c->channel->fd, .events = POLLIN };
		busy |= c->more;
	}
	if (busy)
		ts = (struct timespec){ 0 };
	if (ppoll(fds, n, next == UINT64_MAX && !busy ? NULL : &ts, NULL) < 0)
		for (nfds_t i = 0; i < n; i++)
			fds[i].revents = 0;
}

/* What is due by time, then what has come. True: there is more to do at once. */
static bool one_turn(bool busy)
{
	static struct pollfd fds[3 + MOST_CONNECTIONS];
	struct leases *ls = &server.desk->leases;
	uint64_t now = now_ns(), next = watch_time(now);
	nfds_t n = 3;

	sweep();
	next = sooner(next, leases_work(ls, now));
	next = sooner(next, metrics_due(now));
	if (server.drain_until)
		next = sooner(next, server.drain_until);
	wait_for_something(fds, next, busy);
	if (fds[0].revents)
		read_signals(now_ns());
	for (struct connection *c = server.first; c; c = c->next)
		if (fds[n++].revents || c->more)
			read_completions(c);
	sweep();
	if (fds[1].revents)
		read_events();
	if (server.metrics) /* its time-outs, too */
		http_work();
	busy = pool_work(ls->pool);
	answer_later();
	return busy;
}

int server_run(void)
{
	bool busy = false;

	while (!is_drained(now_ns()) && !server.failed)
		busy = one_turn(busy);
	if (server.failed)
		return say(-EIO, "the RDMA device is gone");
	return 0;
}

/* --- start and end --- */

bool server_possible(void)
{
	int n = 0;
	struct ibv_device **list = ibv_get_device_list(&n);

	if (list)
		ibv_free_device_list(list);
	return n > 0;
}

static int fail(char *err, size_t errlen, const char *what, const char *which)
{
	int rc = errno ? -errno : -EIO;

	snprintf(err, errlen, "%s%s: %s", what, which, strerror(-rc));
	return rc;
}

static void print_metrics(void *desk, FILE *f)
{
	metrics_print(desk, f);
}

static int listen_at(const struct options *o, unsigned i, char *err, size_t errlen)
{
	struct rdma_cm_id **id = &server.listener[i];

	if (rdma_create_id(server.events, id, NULL, RDMA_PS_TCP))
		return fail(err, errlen, "rdma_create_id", "");
	server.nlisteners = i + 1;
	if (rdma_bind_addr(*id, o->listen[i]->ai_addr) || rdma_listen(*id, BACKLOG))
		return fail(err, errlen, "--listen ", o->listen_text[i]);
	return 0;
}

static int open_events(void)
{
	sigset_t signals;

	server.events = rdma_create_event_channel();
	/* All devices now: librdmacm would open them when it first meets them, which is too late.
	 */
	if (server.events)
		server.devices = rdma_get_devices(NULL);
	if (!server.devices || fcntl(server.events->fd, F_SETFL, O_NONBLOCK))
		return -1;
	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	server.signals = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
	return server.signals;
}

int server_open(struct desk *desk, const struct options *o, char *err, size_t errlen)
{
	uint64_t lasts = o->lease_ms * NS_PER_MS;
	const char *why;
	int rc = 0;

	server.desk = desk;
	server.drain = o->drain_ms * NS_PER_MS;
	server.keepalive = lasts / 4 < MOST_KEEPALIVE_NS ? lasts / 4 : MOST_KEEPALIVE_NS;
	desk->most_clients = MOST_CLIENTS;
	if (open_events() < 0)
		return fail(err, errlen, "cannot open RDMA devices", "");
	for (unsigned i = 0; i < o->nlisten && !rc; i++)
		rc = listen_at(o, i, err, errlen);
	if (rc || !o->metrics)
		return rc;
	if (!http_load(&why)) {
		snprintf(err, errlen, "--metrics %s", why);
		return -ENOENT;
	}
	rc = http_open(o->metrics->ai_addr, "emfatierd", print_metrics, desk, false);
	if (rc) {
		snprintf(err, errlen, "--metrics: %s", strerror(-rc));
		return rc;
	}
	server.metrics = true;
	return 0;
}

void server_close(void)
{
	for (struct connection *c = server.first; c; c = c->next)
		c->gone = true;
	sweep();
	if (server.metrics)
		http_close();
	for (unsigned i = 0; i < server.nlisteners; i++)
		rdma_destroy_id(server.listener[i]);
	if (server.devices)
		rdma_free_devices(server.devices);
	if (server.events)
		rdma_destroy_event_channel(server.events);
	if (server.signals >= 0)
		close(server.signals);
}
