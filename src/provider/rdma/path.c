/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE 1 /* syscall, for own.h */
#include "path.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "../own.h"

#define PAGE 4096u
#define RECEIVES 2u
/* In the first page: RECEIVES to be received, one to be sent. */
#define MESSAGES PAGE
#define RESOLVE_MS 2000
/*
 * 4.096 us x 2^16, 0.27 s, and six times more before the other side counts as gone. Seven is for
 * ever to some cards. It counts for both directions.
 */
#define ACK_TIMEOUT 16
#define RETRIES 6
#define READS 16 /* at once: what most cards can */

#define WR_SEND (1ull << 63)
#define WR_RECEIVE (1ull << 62)

static size_t memory_size(const struct path *p)
{
	return MESSAGES + (size_t)p->slots * p->chunk;
}

/* Everything but the card's memory, in one piece. */
static size_t tables_size(const struct path *p)
{
	return p->slots * (sizeof(*p->piece) + sizeof(*p->wr) + sizeof(*p->sge)) +
	       WIRE_MAX_SLABS * sizeof(*p->slab);
}

int path_init(struct path *p, const struct path_terms *terms, const struct sockaddr_storage *peer,
	      unsigned slots, uint32_t chunk)
{
	*p = (struct path){
		.terms = terms, .peer = peer, .control = !slots, .slots = slots, .chunk = chunk
	};
	p->memory = own_alloc(memory_size(p));
	p->slab = own_alloc(tables_size(p));
	if (!p->memory || !p->slab) {
		path_free(p);
		return -ENOMEM;
	}
	/* The card's memory is not copied on a fork: it would keep on writing to one of the copies.
	 */
	(void)syscall(SYS_madvise, p->memory, memory_size(p), MADV_DONTFORK);
	p->wr = (struct ibv_send_wr *)(p->slab + WIRE_MAX_SLABS);
	p->sge = (struct ibv_sge *)(p->wr + slots);
	p->piece = (struct path_piece *)(p->sge + slots);
	return 0;
}

void path_free(struct path *p)
{
	path_stop(p);
	own_free(p->memory, memory_size(p));
	own_free(p->slab, tables_size(p));
	p->memory = NULL;
	p->slab = NULL;
}

void path_stop(struct path *p)
{
	if (p->connected)
		cm.disconnect(p->id);
	if (p->id && p->id->qp)
		cm.destroy_qp(p->id);
	odp_close(&p->odp);
	if (p->mr)
		cm.dereg_mr(p->mr);
	if (p->cq)
		ibv_destroy_cq(p->cq);
	if (p->channel)
		ibv_destroy_comp_channel(p->channel);
	if (p->pd)
		ibv_dealloc_pd(p->pd);
	if (p->id)
		cm.destroy_id(p->id);
	if (p->events)
		cm.destroy_event_channel(p->events);
	p->mr = NULL;
	p->cq = NULL;
	p->channel = NULL;
	p->pd = NULL;
	p->id = NULL;
	p->events = NULL;
	p->connected = p->armed = false;
	p->nstash = 0;
	p->state = PATH_IDLE;
}

/* What it was doing is stopped when somebody takes back the pieces, or starts it anew. */
static void broke(struct path *p, int error)
{
	p->state = PATH_BROKEN;
	p->error = error ? error : -EIO;
}

static void refused(struct path *p, enum wire_status why)
{
	static const int error[WIRE_STATUSES] = {
		[WIRE_DENIED] = -EACCES,      [WIRE_QUOTA] = -EDQUOT, [WIRE_FULL] = -ENOSPC,
		[WIRE_DRAINING] = -ESHUTDOWN, [WIRE_WRONG] = -EPROTO,
	};

	p->refusal = why;
	broke(p, error[why]);
}

/* --- messages --- */

static int post_receive(struct path *p, unsigned i)
{
	struct ibv_sge sge = { .addr = (uintptr_t)(p->memory + i * WIRE_BYTES),
			       .length = WIRE_BYTES,
			       .lkey = p->mr->lkey };
	struct ibv_recv_wr wr = { .wr_id = WR_RECEIVE | i, .sg_list = &sge, .num_sge = 1 }, *bad;

	return -ibv_post_recv(p->id->qp, &wr, &bad);
}

/* One at a time is on its way: the next is sent when the answer has come. */
static void send_message(struct path *p, const struct wire_message *m, enum path_state next)
{
	uint8_t *at = p->memory + RECEIVES * WIRE_BYTES;
	struct ibv_sge sge = { .addr = (uintptr_t)at, .length = WIRE_BYTES, .lkey = p->mr->lkey };
	struct ibv_send_wr wr = {
		.wr_id = WR_SEND,
		.sg_list = &sge,
		.num_sge = 1,
		.opcode = IBV_WR_SEND,
		.send_flags = IBV_SEND_SIGNALED | (p->inlined ? IBV_SEND_INLINE : 0),
	}, *bad;
	int rc;

	wire_encode(m, at);
	rc = -ibv_post_send(p->id->qp, &wr, &bad);
	if (rc)
		broke(p, rc);
	else
		p->state = next;
}

static void send_hello(struct path *p)
{
	struct wire_message m = { .type = WIRE_HELLO };

	if (auth_nonce(p->nonce, WIRE_NONCE)) {
		broke(p, -EIO);
		return;
	}
	memcpy(m.hello.nonce, p->nonce, WIRE_NONCE);
	send_message(p, &m, PATH_HELLO);
}

static void on_challenge(struct path *p, const struct wire_message *in)
{
	struct wire_message m = { .type = WIRE_PROVE };

	memcpy(p->server_nonce, in->hello.nonce, WIRE_NONCE);
	p->prove = in->hello.prove;
	memcpy(m.proof.tenant, p->terms->tenant, WIRE_NAME);
	/* Who has a secret wants to see that the server knows it. */
	if (p->prove != (p->terms->secret.length > 0)) {
		refused(p, WIRE_DENIED);
		return;
	}
	if (p->prove && auth_mac(&p->terms->secret, AUTH_CLIENT, p->nonce, p->server_nonce,
				 p->terms->tenant, m.proof.mac)) {
		broke(p, -EIO);
		return;
	}
	send_message(p, &m, PATH_PROVE);
}

static void on_welcome(struct path *p, const struct wire_message *in)
{
	struct wire_message m = { .type = WIRE_LEASE, .lease.bytes = p->terms->bytes };
	uint8_t want[WIRE_MAC];

	if (in->status) {
		refused(p, in->status);
		return;
	}
	if (p->prove && (auth_mac(&p->terms->secret, AUTH_SERVER, p->nonce, p->server_nonce,
				  p->terms->tenant, want) ||
			 !auth_same(want, in->proof.mac))) {
		refused(p, WIRE_DENIED);
		return;
	}
	p->server = in->proof.state;
	memcpy(m.lease.key, p->terms->key, WIRE_KEY);
	m.lease.hold = p->control;
	send_message(p, &m, PATH_LEASE);
}

static void ask_map(struct path *p)
{
	struct wire_message m = { .type = WIRE_MAP, .map.first = p->mapped };

	send_message(p, &m, PATH_MAP);
}

static void on_leased(struct path *p, const struct wire_message *in)
{
	if (in->status) {
		refused(p, in->status);
		return;
	}
	/* Whole slabs, and not one more than it takes: transfers rely on all of them. */
	if (p->terms->bytes && (in->lease.bytes < p->terms->bytes ||
				in->lease.bytes - p->terms->bytes >= in->lease.slab_bytes)) {
		broke(p, -ESTALE);
		return;
	}
	p->bytes = in->lease.bytes;
	p->slab_bytes = in->lease.slab_bytes;
	p->fresh = in->lease.fresh;
	p->mapped = 0;
	if (p->control)
		p->state = PATH_READY;
	else
		ask_map(p);
}

static void on_mapped(struct path *p, const struct wire_message *in)
{
	uint32_t all = (uint32_t)(p->bytes / p->slab_bytes);

	if (in->status) {
		refused(p, in->status);
		return;
	}
	if (in->map.first != p->mapped || in->map.count > all - p->mapped) {
		broke(p, -EPROTO);
		return;
	}
	memcpy(p->slab + p->mapped, in->map.slab, in->map.count * sizeof(*p->slab));
	p->mapped += in->map.count;
	if (p->mapped == all)
		p->state = PATH_READY;
	else
		ask_map(p);
}

static void on_message(struct path *p, unsigned i, uint32_t length)
{
	struct wire_message m;
	int rc = wire_decode(p->memory + i * WIRE_BYTES, length, &m);

	if (!rc)
		rc = post_receive(p, i);
	if (rc)
		broke(p, rc);
	else if (p->state == PATH_HELLO && m.type == WIRE_CHALLENGE)
		on_challenge(p, &m);
	else if (p->state == PATH_PROVE && m.type == WIRE_WELCOME)
		on_welcome(p, &m);
	else if (p->state == PATH_LEASE && m.type == WIRE_LEASED)
		on_leased(p, &m);
	else if (p->state == PATH_MAP && m.type == WIRE_MAPPED)
		on_mapped(p, &m);
	else if (p->state == PATH_RELEASE && m.type == WIRE_RELEASED)
		p->state = PATH_RELEASED;
	else
		broke(p, -EPROTO);
}

void path_release(struct path *p)
{
	struct wire_message m = { .type = WIRE_RELEASE };

	send_message(p, &m, PATH_RELEASE);
}

/* --- connecting --- */

static int make_queue_pair(struct path *p)
{
	struct ibv_qp_init_attr attr = {
		.qp_type = IBV_QPT_RC,
		.cap = { .max_send_wr = p->slots + 2,
			 .max_recv_wr = RECEIVES,
			 .max_send_sge = 1,
			 .max_recv_sge = 1,
			 .max_inline_data = WIRE_BYTES },
	};

	p->pd = ibv_alloc_pd(p->id->verbs);
	p->channel = ibv_create_comp_channel(p->id->verbs);
	if (!p->pd || !p->channel || fcntl(p->channel->fd, F_SETFL, O_NONBLOCK))
		return -errno;
	p->cq = ibv_create_cq(p->id->verbs, (int)(p->slots + 2 + RECEIVES), NULL, p->channel, 0);
	p->mr = cm.reg_mr(p->pd, p->memory, memory_size(p), IBV_ACCESS_LOCAL_WRITE);
	if (!p->cq || !p->mr)
		return -errno;
	if (p->direct)
		odp_open(&p->odp, p->pd, p->terms->frames, p->terms->frames_bytes);
	attr.send_cq = attr.recv_cq = p->cq;
	p->inlined = true;
	if (cm.create_qp(p->id, p->pd, &attr)) {
		p->inlined = false;
		attr.cap.max_inline_data = 0;
		if (cm.create_qp(p->id, p->pd, &attr))
			return -errno;
	}
	for (unsigned i = 0; i < RECEIVES; i++) {
		int rc = post_receive(p, i);

		if (rc)
			return rc;
	}
	return 0;
}

static int begin_connect(struct path *p)
{
	struct rdma_conn_param param = { .responder_resources = 1,
					 .retry_count = RETRIES,
					 .rnr_retry_count = RETRIES };
	uint8_t timeout = ACK_TIMEOUT;
	struct ibv_device_attr attr;
	int rc;

	/*
	 * There a write has ended when it has left, not when it has arrived, and who reads needs
	 * memory that the other side may write to.
	 */
	if (p->id->verbs->device->transport_type == IBV_TRANSPORT_IWARP)
		return -EPROTONOSUPPORT;
	rc = make_queue_pair(p);
	if (rc)
		return rc;
	if (ibv_query_device(p->id->verbs, &attr))
		return -EIO;
	param.initiator_depth =
	    attr.max_qp_init_rd_atom < READS ? (uint8_t)attr.max_qp_init_rd_atom : READS;
	(void)cm.set_option(p->id, RDMA_OPTION_ID, RDMA_OPTION_ID_ACK_TIMEOUT, &timeout,
			    sizeof(timeout));
	return cm.connect(p->id, &param) ? -errno : 0;
}

static void on_event(struct path *p, enum rdma_cm_event_type type, int status)
{
	int rc = 0;

	if (type == RDMA_CM_EVENT_ADDR_RESOLVED && p->state == PATH_ADDRESS) {
		p->state = PATH_ROUTE;
		rc = cm.resolve_route(p->id, RESOLVE_MS) ? -errno : 0;
	} else if (type == RDMA_CM_EVENT_ROUTE_RESOLVED && p->state == PATH_ROUTE) {
		p->state = PATH_CONNECT;
		rc = begin_connect(p);
	} else if (type == RDMA_CM_EVENT_ESTABLISHED && p->state == PATH_CONNECT) {
		p->connected = true;
		send_hello(p);
	} else if (type == RDMA_CM_EVENT_REJECTED) {
		rc = -ECONNREFUSED;
	} else if (type == RDMA_CM_EVENT_UNREACHABLE) {
		rc = -EHOSTUNREACH;
	} else if (type == RDMA_CM_EVENT_ADDR_CHANGE) {
		rc = 0; /* of the interface: what it means for us shows */
	} else {
		rc = status < 0 && status != -1 ? status : -ENOTCONN;
	}
	if (rc)
		broke(p, rc);
}

static void read_events(struct path *p)
{
	struct pollfd fds = { .fd = p->events->fd, .events = POLLIN };
	struct rdma_cm_event *e;

	/* Much cheaper than to ask for one that is not there. */
	if (poll(&fds, 1, 0) <= 0)
		return;
	while (p->state != PATH_BROKEN && !cm.get_cm_event(p->events, &e)) {
		enum rdma_cm_event_type type = e->event;
		int status = e->status;

		cm.ack_cm_event(e);
		/* The server ends the connection when it has answered a release. */
		if (p->state != PATH_RELEASED)
			on_event(p, type, status);
	}
}

void path_start(struct path *p)
{
	const struct sockaddr *to = (const struct sockaddr *)p->peer;

	path_stop(p);
	p->error = 0;
	p->refusal = WIRE_OK;
	p->server = (struct wire_state){ 0 };
	p->head = p->posted = p->tail = 0;
	p->inflight = 0;
	p->events = cm.create_event_channel();
	if (!p->events || fcntl(p->events->fd, F_SETFL, O_NONBLOCK) ||
	    cm.create_id(p->events, &p->id, NULL, RDMA_PS_TCP) ||
	    cm.resolve_addr(p->id, NULL, (struct sockaddr *)(uintptr_t)to, RESOLVE_MS)) {
		broke(p, -errno);
		return;
	}
	p->state = PATH_ADDRESS;
}

/* --- completions --- */

/* Data: all up to this one have ended. False: it is of a message, or of nothing. */
static bool on_completion(struct path *p, const struct ibv_wc *wc, uint64_t *until)
{
	if (wc->status != IBV_WC_SUCCESS) {
		broke(p, -ENOTCONN);
		return false;
	}
	if (wc->wr_id & WR_SEND)
		return false;
	if (wc->wr_id & WR_RECEIVE) {
		on_message(p, (unsigned)(wc->wr_id & ~WR_RECEIVE), wc->byte_len);
		return false;
	}
	*until = wc->wr_id + 1;
	return true;
}

static int next_completion(struct path *p, struct ibv_wc *wc)
{
	if (!p->nstash)
		return ibv_poll_cq(p->cq, 1, wc);
	*wc = p->stash[0];
	memmove(p->stash, p->stash + 1, (size_t)--p->nstash * sizeof(*wc));
	return 1;
}

static void read_channel(struct path *p)
{
	struct ibv_cq *cq;
	void *context;

	while (!ibv_get_cq_event(p->channel, &cq, &context)) {
		ibv_ack_cq_events(cq, 1);
		p->armed = false;
	}
}

void path_step(struct path *p)
{
	struct ibv_wc wc;
	uint64_t until;

	if (p->state == PATH_IDLE || p->state == PATH_BROKEN)
		return;
	/* Answers before events: the last word is sent before the line is cut. */
	while (p->cq && p->state > PATH_CONNECT && p->state != PATH_READY &&
	       p->state != PATH_BROKEN && next_completion(p, &wc) > 0)
		on_completion(p, &wc, &until);
	read_events(p);
	/* For who sleeps until the next. */
	if (p->cq && p->state != PATH_BROKEN && p->state != PATH_READY) {
		read_channel(p);
		if (path_arm(p))
			path_step(p);
	}
}

bool path_arm(struct path *p)
{
	if (p->state == PATH_BROKEN || p->nstash)
		return true;
	if (p->armed || !p->cq)
		return false;
	if (ibv_req_notify_cq(p->cq, 0)) {
		broke(p, -EIO);
		return true;
	}
	p->armed = true;
	p->nstash = ibv_poll_cq(p->cq, PATH_STASH, p->stash);
	if (p->nstash < 0) {
		p->nstash = 0;
		broke(p, -EIO);
	}
	return p->nstash || p->state == PATH_BROKEN;
}

/* --- transfers --- */

static uint8_t *slot(const struct path *p, uint64_t i)
{
	return p->memory + MESSAGES + i % p->slots * p->chunk;
}

void path_push(struct path *p, const struct path_piece *piece, uint64_t now)
{
	unsigned i = (unsigned)(p->tail % p->slots);
	uint64_t offset = piece->io->offset + piece->at;
	const struct wire_slab *slab = p->slab + offset / p->slab_bytes;
	char *at = (char *)piece->io->buf + piece->at;
	uint32_t key;

	p->piece[i] = *piece;
	if (!odp_key(&p->odp, at, piece->length, piece->io->op == EMF_READ, &key)) {
		key = p->mr->lkey;
		if (piece->io->op == EMF_WRITE)
			memcpy(slot(p, p->tail), at, piece->length);
		at = (char *)slot(p, p->tail);
	}
	p->sge[i] = (struct ibv_sge){ .addr = (uintptr_t)at, .length = piece->length, .lkey = key };
	p->wr[i] = (struct ibv_send_wr){
		.wr_id = p->tail,
		.sg_list = &p->sge[i],
		.num_sge = 1,
		.opcode = piece->io->op == EMF_WRITE ? IBV_WR_RDMA_WRITE : IBV_WR_RDMA_READ,
		/* So that slots come back while later ones are under way. */
		.send_flags = i % (p->slots / 4 ? p->slots / 4 : 1) ? 0 : IBV_SEND_SIGNALED,
		.wr.rdma = { .remote_addr = slab->address + offset % p->slab_bytes,
			     .rkey = slab->rkey },
	};
	if (p->head == p->tail)
		p->progress = now;
	p->tail++;
	p->inflight += piece->length;
}

void path_flush(struct path *p)
{
	struct ibv_send_wr *first = &p->wr[p->posted % p->slots], *bad;
	int rc;

	if (p->posted == p->tail || p->state != PATH_READY)
		return;
	for (uint64_t i = p->posted; i < p->tail; i++)
		p->wr[i % p->slots].next = i + 1 < p->tail ? &p->wr[(i + 1) % p->slots] : NULL;
	p->wr[(p->tail - 1) % p->slots].send_flags = IBV_SEND_SIGNALED;
	p->posted = p->tail;
	rc = ibv_post_send(p->id->qp, first, &bad);
	if (rc)
		broke(p, -ENOTCONN);
}

static void end_piece(struct path *p)
{
	const struct path_piece *piece = &p->piece[p->head % p->slots];

	if (piece->io->op == EMF_READ &&
	    p->sge[p->head % p->slots].addr == (uintptr_t)slot(p, p->head))
		memcpy((char *)piece->io->buf + piece->at, slot(p, p->head), piece->length);
	p->inflight -= piece->length;
	p->head++;
}

unsigned path_poll(struct path *p, void (*ended)(void *arg, const struct path_piece *piece),
		   void *arg, uint64_t now)
{
	unsigned n = 0;
	struct ibv_wc wc;
	uint64_t until;
	int rc = 0;

	if (p->armed)
		read_channel(p);
	while (p->state == PATH_READY && (rc = next_completion(p, &wc)) > 0) {
		if (!on_completion(p, &wc, &until))
			continue;
		if (until <= p->head || until > p->posted) {
			broke(p, -EPROTO);
			break;
		}
		for (; p->head < until; n++) {
			struct path_piece piece = p->piece[p->head % p->slots];

			end_piece(p);
			ended(arg, &piece);
		}
		p->progress = now;
	}
	if (rc < 0)
		broke(p, -EIO);
	return n;
}

bool path_take_back(struct path *p, struct path_piece *out)
{
	if (p->head == p->tail)
		return false;
	*out = p->piece[p->head++ % p->slots];
	p->inflight -= out->length;
	return true;
}

void path_why(const struct path *p, char *out, size_t length)
{
	const char *text = strerror(-p->error);

	if (p->server.size && (p->refusal == WIRE_QUOTA || p->refusal == WIRE_FULL)) {
		snprintf(out, length, "%s: %llu MiB of %llu MiB are available, %u%% are leased",
			 wire_status_text(p->refusal),
			 (unsigned long long)(p->server.available >> 20),
			 (unsigned long long)(p->server.size >> 20), p->server.load / 10);
		return;
	}
	if (p->refusal)
		text = wire_status_text(p->refusal);
	else if (p->error == -ENODEV)
		text = "no RDMA device leads there";
	else if (p->error == -EPROTONOSUPPORT)
		text = "the device that leads there is iWARP; InfiniBand or RoCE is needed";
	else if (p->error == -ENOMEM)
		text =
		    "the card's memory can't be had; a higher limit of locked memory (ulimit -l) "
		    "may do";
	else if (p->error == -ECONNREFUSED)
		text = "nobody listens there, or the server has too many clients";
	else if (p->error == -ESTALE)
		text = "the server has another lease for us";
	snprintf(out, length, "%s", text);
}
