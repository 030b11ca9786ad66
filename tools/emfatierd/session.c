/* SPDX-License-Identifier: Apache-2.0 */
#include "session.h"

#include <errno.h>
#include <string.h>

void session_open(struct session *s, struct desk *desk,
		  int (*map)(struct session *s, uint32_t slab, struct wire_slab *out))
{
	*s = (struct session){ .desk = desk, .state = SESSION_HELLO, .map = map };
}

bool session_is_pending(const struct session *s)
{
	return s->state < SESSION_LEASE;
}

static void describe(const struct session *s, struct wire_state *out)
{
	const struct leases *ls = &s->desk->leases;
	uint32_t taken = ls->pool->nslabs - ls->pool->clean - ls->pool->dirty;

	*out = (struct wire_state){
		.draining = ls->draining,
		.clients = s->desk->clients,
		.leases = ls->count,
		.load = (uint32_t)((uint64_t)taken * 1000 / ls->pool->nslabs),
		.size = ls->pool->nslabs * ls->pool->slab_bytes,
		.available = leases_available(ls, s->tenant),
	};
}

/* Does any tenant need a secret? Then all do: options.c sees to that. */
static bool needs_proof(const struct desk *d)
{
	return d->leases.ntenants && d->leases.tenant[0].secret.length;
}

static enum session_verdict on_hello(struct session *s, const struct wire_message *m,
				     struct wire_message *out)
{
	memcpy(s->client_nonce, m->hello.nonce, WIRE_NONCE);
	if (auth_nonce(s->server_nonce, WIRE_NONCE))
		return SESSION_CLOSE;
	*out = (struct wire_message){ .type = WIRE_CHALLENGE };
	memcpy(out->hello.nonce, s->server_nonce, WIRE_NONCE);
	out->hello.prove = needs_proof(s->desk);
	s->state = SESSION_PROVE;
	return SESSION_ANSWER;
}

/*
 * A tenant that there is not costs the same work as one that there is, and gets the same answer.
 * Nobody knows a secret that was just thrown.
 */
static bool is_proven(struct session *s, const struct wire_message *m)
{
	struct tenant *t = leases_tenant(&s->desk->leases, m->proof.tenant);
	struct secret dummy = { .length = WIRE_NONCE };
	const struct secret *secret = t ? &t->secret : &dummy;
	uint8_t want[WIRE_MAC];
	bool proven;

	if (!needs_proof(s->desk)) {
		s->tenant = t;
		return t;
	}
	if (!t && auth_nonce(dummy.bytes, WIRE_NONCE))
		return false;
	proven = !auth_mac(secret, AUTH_CLIENT, s->client_nonce, s->server_nonce, m->proof.tenant,
			   want) &&
		 auth_same(want, m->proof.mac) && t;
	s->tenant = proven ? t : NULL;
	return proven;
}

static enum session_verdict on_prove(struct session *s, const struct wire_message *m,
				     struct wire_message *out)
{
	struct desk *d = s->desk;

	*out = (struct wire_message){ .type = WIRE_WELCOME };
	if (!is_proven(s, m)) {
		d->denied++;
		out->status = WIRE_DENIED;
		return SESSION_LAST;
	}
	if (d->clients >= d->most_clients) {
		out->status = WIRE_FULL;
		return SESSION_LAST;
	}
	if (needs_proof(d) && auth_mac(&s->tenant->secret, AUTH_SERVER, s->client_nonce,
				       s->server_nonce, m->proof.tenant, out->proof.mac))
		return SESSION_CLOSE;
	d->clients++;
	d->welcomed++;
	s->state = SESSION_LEASE;
	describe(s, &out->proof.state);
	return SESSION_ANSWER;
}

static enum wire_status status_of(int rc)
{
	switch (rc) {
	case 0:
		return WIRE_OK;
	case -EDQUOT:
		return WIRE_QUOTA;
	case -ESHUTDOWN:
		return WIRE_DRAINING;
	case -EINVAL:
		return WIRE_WRONG;
	default:
		return WIRE_FULL;
	}
}

static enum session_verdict on_lease(struct session *s, const struct wire_message *m,
				     struct wire_message *out)
{
	struct leases *ls = &s->desk->leases;
	int rc = leases_join(ls, s->tenant, m->lease.key, m->lease.bytes, &s->lease, &s->fresh);

	*out = (struct wire_message){ .type = WIRE_LEASED, .status = status_of(rc) };
	if (rc)
		return SESSION_ANSWER;
	s->state = SESSION_CLEANING;
	s->holds = m->lease.hold;
	return session_later(s, out) ? SESSION_ANSWER : SESSION_LATER;
}

bool session_later(struct session *s, struct wire_message *out)
{
	const struct leases *ls = &s->desk->leases;

	if (s->state != SESSION_CLEANING || !leases_are_ready(ls, s->lease))
		return false;
	s->state = SESSION_LEASED;
	*out = (struct wire_message){
		.type = WIRE_LEASED,
		.lease = { .bytes = s->lease->nslabs * ls->pool->slab_bytes,
			   .slab_bytes = ls->pool->slab_bytes,
			   .fresh = s->fresh,
			   .lasts_ms = (uint32_t)(ls->lasts / 1000000) },
	};
	return true;
}

static enum session_verdict on_map(struct session *s, const struct wire_message *m,
				   struct wire_message *out)
{
	uint32_t first = m->map.first, n = 0;
	int rc = 0;

	*out = (struct wire_message){ .type = WIRE_MAPPED };
	out->map.first = first;
	s->lease->used = true;
	for (; !rc && n < WIRE_SLABS && first + n < s->lease->nslabs; n += !rc)
		rc = s->map(s, first + n, &out->map.slab[n]);
	out->map.count = n;
	if (!n) /* none of the lease's slabs, or the card can't take more */
		out->status = rc ? WIRE_FULL : WIRE_WRONG;
	return SESSION_ANSWER;
}

static enum session_verdict on_ask(struct session *s, struct wire_message *out)
{
	*out = (struct wire_message){ .type = WIRE_STATE };
	describe(s, &out->state);
	return SESSION_ANSWER;
}

static enum session_verdict on_release(struct session *s, struct wire_message *out)
{
	lease_end(s->lease);
	*out = (struct wire_message){ .type = WIRE_RELEASED };
	return SESSION_LAST;
}

enum session_verdict session_input(struct session *s, const void *data, size_t length,
				   struct wire_message *out)
{
	struct wire_message m;
	bool known = s->state >= SESSION_LEASE && s->state != SESSION_CLEANING;

	if (!wire_decode(data, length, &m)) {
		if (m.type == WIRE_HELLO && s->state == SESSION_HELLO)
			return on_hello(s, &m, out);
		if (m.type == WIRE_PROVE && s->state == SESSION_PROVE)
			return on_prove(s, &m, out);
		if (m.type == WIRE_LEASE && s->state == SESSION_LEASE)
			return on_lease(s, &m, out);
		if (m.type == WIRE_MAP && s->state == SESSION_LEASED)
			return on_map(s, &m, out);
		if (m.type == WIRE_RELEASE && s->state == SESSION_LEASED)
			return on_release(s, out);
		if (m.type == WIRE_ASK && known)
			return on_ask(s, out);
	}
	s->desk->malformed++;
	return SESSION_CLOSE;
}

void session_disconnected(struct session *s)
{
	if (s->holds)
		lease_end(s->lease);
}

void session_close(struct session *s, uint64_t now)
{
	if (s->lease)
		leases_leave(&s->desk->leases, s->lease, now);
	if (!session_is_pending(s))
		s->desk->clients--;
	s->lease = NULL;
	s->holds = false;
	s->state = SESSION_HELLO;
}
