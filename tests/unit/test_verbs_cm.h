/* SPDX-License-Identifier: Apache-2.0 */
/* The toy's connection manager: a part of test_verbs_toy.h, which includes it. */
#ifndef TEST_VERBS_CM_H
#define TEST_VERBS_CM_H

struct rdma_event_channel *rdma_create_event_channel(void)
{
	struct toy_channel *c = toy_new(TOY_CHANNEL, sizeof(*c));

	if (!c)
		return NULL;
	c->ch.fd = eventfd(0, EFD_CLOEXEC);
	return &c->ch;
}

void rdma_destroy_event_channel(struct rdma_event_channel *ch)
{
	struct toy_channel *c = (struct toy_channel *)ch;

	/* Requests that nobody has looked at. */
	while (c->count)
		rdma_destroy_id(c->event[c->head].e.id);
	for (const struct toy_id *i = toy.ids; i; i = i->next)
		assert_ptr_not_equal(i->id.channel, ch);
	close(ch->fd);
	toy_end(TOY_CHANNEL, ch);
}

static void toy_tell(struct toy_id *id, enum rdma_cm_event_type type, int status,
		     const struct rdma_conn_param *param)
{
	struct toy_channel *c = (struct toy_channel *)id->id.channel;

	assert_true(c->count < TOY_EVENTS);
	c->event[(c->head + c->count++) % TOY_EVENTS].e =
	    (struct rdma_cm_event){ .id = &id->id,
				    .event = type,
				    .status = status,
				    .param.conn = param ? *param : (struct rdma_conn_param){ 0 } };
	toy_raise(c->ch.fd);
}

int rdma_get_cm_event(struct rdma_event_channel *ch, struct rdma_cm_event **event)
{
	struct toy_channel *c = (struct toy_channel *)ch;
	struct toy_event *e;

	if (!c->count) {
		errno = EAGAIN;
		return -1;
	}
	e = malloc(sizeof(*e));
	*e = c->event[c->head];
	c->head = (c->head + 1) % TOY_EVENTS;
	if (!--c->count)
		toy_lower(ch->fd);
	((struct toy_id *)e->e.id)->unacked++;
	*event = &e->e;
	return 0;
}

int rdma_ack_cm_event(struct rdma_cm_event *event)
{
	((struct toy_id *)event->id)->unacked--;
	free(event);
	return 0;
}

int rdma_create_id(struct rdma_event_channel *ch, struct rdma_cm_id **id, void *context,
		   enum rdma_port_space ps)
{
	struct toy_id *i = toy_new(TOY_ID, sizeof(*i));

	if (!i)
		return -1;
	i->id.channel = ch;
	i->id.context = context;
	i->id.ps = ps;
	i->link = &toy.link[0];
	i->next = toy.ids;
	toy.ids = i;
	*id = &i->id;
	return 0;
}

static void toy_part(struct toy_id *i)
{
	struct toy_id *peer = i->peer;

	if (i->id.qp && !((struct toy_qp *)i->id.qp)->failed)
		toy_flush((struct toy_qp *)i->id.qp, IBV_WC_SUCCESS, 0);
	if (i->closed || !peer)
		return;
	i->closed = true;
	if (!peer->closed && !i->link->down)
		toy_tell(peer,
			 i->accepted || i->active ? RDMA_CM_EVENT_DISCONNECTED
						  : RDMA_CM_EVENT_REJECTED,
			 0, NULL);
}

int rdma_disconnect(struct rdma_cm_id *id)
{
	toy_part((struct toy_id *)id);
	if (((struct toy_id *)id)->active)
		toy_run_peer();
	return 0;
}

int rdma_destroy_id(struct rdma_cm_id *id)
{
	struct toy_id *i = (struct toy_id *)id, **at = &toy.ids;
	struct toy_channel *c = (struct toy_channel *)id->channel;
	unsigned kept = 0, all = c->count;
	bool active = i->active;

	assert_null(id->qp);
	assert_int_equal(i->unacked, 0); /* it would wait for ever */
	toy_part(i);
	for (unsigned n = 0; n < all; n++) {
		struct toy_event *e = &c->event[(c->head + n) % TOY_EVENTS];

		if (e->e.id != id)
			c->event[(c->head + kept++) % TOY_EVENTS] = *e;
	}
	c->count = kept;
	if (!kept)
		toy_lower(c->ch.fd);
	if (i->peer)
		i->peer->peer = NULL;
	while (*at != i)
		at = &(*at)->next;
	*at = i->next;
	toy_end(TOY_ID, i);
	if (active)
		toy_run_peer();
	return 0;
}

static uint16_t toy_port(const struct sockaddr *at)
{
	return ntohs(((const struct sockaddr_in *)(const void *)at)->sin_port);
}

int rdma_bind_addr(struct rdma_cm_id *id, struct sockaddr *at)
{
	memcpy(&id->route.addr.src_addr, at, sizeof(struct sockaddr_in));
	return 0;
}

int rdma_listen(struct rdma_cm_id *id, int backlog)
{
	(void)backlog;
	((struct toy_id *)id)->listens = true;
	return 0;
}

int rdma_resolve_addr(struct rdma_cm_id *id, struct sockaddr *from, struct sockaddr *to, int ms)
{
	struct toy_id *i = (struct toy_id *)id;

	(void)from, (void)ms;
	if (toy_fails(ENODEV))
		return -1;
	memcpy(&id->route.addr.dst_addr, to, sizeof(struct sockaddr_in));
	i->active = true;
	i->link = &toy.link[toy_port(to) % TOY_LINKS];
	id->verbs = &toy.verbs.context;
	toy_tell(i, RDMA_CM_EVENT_ADDR_RESOLVED, 0, NULL);
	return 0;
}

int rdma_resolve_route(struct rdma_cm_id *id, int ms)
{
	(void)ms;
	if (toy_fails(EHOSTUNREACH))
		return -1;
	toy_tell((struct toy_id *)id, RDMA_CM_EVENT_ROUTE_RESOLVED, 0, NULL);
	return 0;
}

static struct toy_id *toy_listener(uint16_t port);
static struct toy_id *toy_request(struct toy_id *listener, const struct rdma_conn_param *param);

/* One more, for as long as there are to be some. */
static void toy_flow(void)
{
	if (!toy.flood)
		return;
	toy.flood--;
	toy_request(toy_listener(4000), &(struct rdma_conn_param){ .initiator_depth = 1 });
}

static struct toy_id *toy_listener(uint16_t port)
{
	for (struct toy_id *i = toy.ids; i; i = i->next)
		if (i->listens && toy_port(&i->id.route.addr.src_addr) == port)
			return i;
	return NULL;
}

/* A request for it, as from nobody: it is not told what comes of it. */
static struct toy_id *toy_request(struct toy_id *listener, const struct rdma_conn_param *param)
{
	struct rdma_conn_param seen = *param;
	struct rdma_cm_id *id = NULL;

	assert_int_equal(
	    rdma_create_id(listener->id.channel, &id, listener->id.context, RDMA_PS_TCP), 0);
	((struct toy_id *)id)->silent = true;
	id->verbs = &toy.verbs.context;
	id->route.addr.dst_addr.sa_family = AF_INET;
	/* Each side's own view: what the one initiates, the other responds to. */
	seen.initiator_depth = param->responder_resources;
	seen.responder_resources = param->initiator_depth;
	((struct toy_id *)id)->asked = seen;
	toy_tell((struct toy_id *)id, RDMA_CM_EVENT_CONNECT_REQUEST, 0, &seen);
	return (struct toy_id *)id;
}

int rdma_connect(struct rdma_cm_id *id, struct rdma_conn_param *param)
{
	struct toy_id *i = (struct toy_id *)id,
		      *l = toy_listener(toy_port(&id->route.addr.dst_addr)), *peer;

	if (toy_fails(ECONNREFUSED))
		return -1;
	assert_in_range(param->initiator_depth, 1, TOY_READS);
	if (i->link->down) {
		toy_tell(i, RDMA_CM_EVENT_UNREACHABLE, -ETIMEDOUT, NULL);
		return 0;
	}
	if (!l) {
		toy_tell(i, RDMA_CM_EVENT_REJECTED, 8, NULL);
		return 0;
	}
	long at = toy.fail_at;
	toy.fail_at = 0; /* of the kernel's own there are enough */
	peer = toy_request(l, param);
	toy.fail_at = at;
	peer->link = i->link;
	peer->silent = false;
	peer->peer = i;
	i->peer = peer;
	i->given = *param;
	toy_run_peer();
	return 0;
}

int rdma_accept(struct rdma_cm_id *id, struct rdma_conn_param *param)
{
	struct toy_id *i = (struct toy_id *)id;

	if (toy_fails(EINVAL))
		return -1;
	assert_true(param->responder_resources <= TOY_READS);
	assert_true(param->initiator_depth <= i->asked.initiator_depth);
	i->accepted = true;
	i->given = *param;
	toy.reads_at_once = param->responder_resources;
	if (i->peer)
		toy_tell(i->peer, RDMA_CM_EVENT_ESTABLISHED, 0, NULL);
	toy_tell(i, RDMA_CM_EVENT_ESTABLISHED, 0, NULL);
	toy_flow();
	return 0;
}

int rdma_reject(struct rdma_cm_id *id, const void *data, uint8_t length)
{
	struct toy_id *i = (struct toy_id *)id;

	(void)data, (void)length;
	i->accepted = false;
	toy_part(i);
	toy_flow();
	return 0;
}

int rdma_set_option(struct rdma_cm_id *id, int level, int name, void *value, size_t length)
{
	(void)id, (void)level, (void)name, (void)value, (void)length;
	return 0;
}

#endif
