/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One walk over the fields serves both directions, so that they can't differ. What a type does
 * not have is not touched; whatever is left of the message is zero, and is checked to be.
 */
#include "wire.h"

#include <errno.h>
#include <string.h>

#define MAGIC 0x64666d65u /* "emfd" */

struct walk {
	uint8_t *at;
	const uint8_t *end;
	bool decode;
	bool bad;
};

/* A number of n bytes, at most max. */
static uint64_t number(struct walk *w, unsigned n, uint64_t value, uint64_t max)
{
	if (w->bad || (size_t)(w->end - w->at) < n) {
		w->bad = true;
		return value;
	}
	if (w->decode)
		value = 0;
	for (unsigned i = 0; i < n; i++) {
		if (w->decode)
			value |= (uint64_t)w->at[i] << 8 * i;
		else
			w->at[i] = (uint8_t)(value >> 8 * i);
	}
	w->at += n;
	w->bad |= value > max;
	return value;
}

static void bytes(struct walk *w, void *field, size_t n)
{
	if (w->bad || (size_t)(w->end - w->at) < n) {
		w->bad = true;
		return;
	}
	if (w->decode)
		memcpy(field, w->at, n);
	else
		memcpy(w->at, field, n);
	w->at += n;
}

static void flag(struct walk *w, bool *field)
{
	*field = number(w, 1, *field, 1);
}

static void u32(struct walk *w, uint32_t *field, uint32_t max)
{
	*field = (uint32_t)number(w, 4, *field, max);
}

static void u64(struct walk *w, uint64_t *field, uint64_t max)
{
	*field = number(w, 8, *field, max);
}

static void name(struct walk *w, char field[WIRE_NAME])
{
	size_t length;

	bytes(w, field, WIRE_NAME);
	if (w->bad)
		return;
	length = strnlen(field, WIRE_NAME);
	w->bad = length == WIRE_NAME || !wire_is_name(field);
	for (size_t i = length; i < WIRE_NAME && !w->bad; i++)
		w->bad = field[i] != '\0';
}

static void state(struct walk *w, struct wire_state *s)
{
	flag(w, &s->draining);
	u32(w, &s->clients, UINT32_MAX);
	u32(w, &s->leases, UINT32_MAX);
	u32(w, &s->load, 1000);
	u64(w, &s->size, INT64_MAX);
	u64(w, &s->available, s->size);
}

static void leased(struct walk *w, struct wire_message *m)
{
	u64(w, &m->lease.bytes, INT64_MAX);
	u64(w, &m->lease.slab_bytes, WIRE_MAX_SLAB);
	flag(w, &m->lease.fresh);
	u32(w, &m->lease.lasts_ms, UINT32_MAX);
	if (w->bad)
		return;
	if (m->status) { /* nothing was leased */
		w->bad = m->lease.bytes || m->lease.slab_bytes || m->lease.fresh;
		return;
	}
	uint64_t slab = m->lease.slab_bytes;
	w->bad = slab < WIRE_MIN_SLAB || slab & (slab - 1) || !m->lease.bytes ||
		 m->lease.bytes % slab || m->lease.bytes / slab > WIRE_MAX_SLABS;
}

static void mapped(struct walk *w, struct wire_message *m)
{
	u32(w, &m->map.first, WIRE_MAX_SLABS - 1);
	u32(w, &m->map.count, WIRE_SLABS);
	for (uint32_t i = 0; !w->bad && i < m->map.count; i++) {
		u64(w, &m->map.slab[i].address, UINT64_MAX);
		u32(w, &m->map.slab[i].rkey, UINT32_MAX);
	}
	w->bad |= m->status ? m->map.count != 0
			    : !m->map.count || m->map.first + m->map.count > WIRE_MAX_SLABS;
}

static void body(struct walk *w, struct wire_message *m)
{
	switch (m->type) {
	case WIRE_HELLO:
		bytes(w, m->hello.nonce, WIRE_NONCE);
		break;
	case WIRE_CHALLENGE:
		bytes(w, m->hello.nonce, WIRE_NONCE);
		flag(w, &m->hello.prove);
		break;
	case WIRE_PROVE:
		name(w, m->proof.tenant);
		bytes(w, m->proof.mac, WIRE_MAC);
		break;
	case WIRE_WELCOME:
		bytes(w, m->proof.mac, WIRE_MAC);
		state(w, &m->proof.state);
		break;
	case WIRE_LEASE:
		bytes(w, m->lease.key, WIRE_KEY);
		u64(w, &m->lease.bytes, INT64_MAX);
		flag(w, &m->lease.hold);
		break;
	case WIRE_LEASED:
		leased(w, m);
		break;
	case WIRE_MAP:
		u32(w, &m->map.first, WIRE_MAX_SLABS - 1);
		break;
	case WIRE_MAPPED:
		mapped(w, m);
		break;
	case WIRE_STATE:
		state(w, &m->state);
		break;
	case WIRE_ASK:
	case WIRE_RELEASE:
	case WIRE_RELEASED:
		break;
	case WIRE_TYPES:
		w->bad = true;
	}
}

static bool has_status(enum wire_type type)
{
	return type == WIRE_WELCOME || type == WIRE_LEASED || type == WIRE_MAPPED ||
	       type == WIRE_STATE || type == WIRE_RELEASED;
}

static void walk(struct walk *w, struct wire_message *m)
{
	w->bad |= number(w, 4, MAGIC, UINT32_MAX) != MAGIC;
	w->bad |= number(w, 2, WIRE_VERSION, UINT16_MAX) != WIRE_VERSION;
	m->type = (enum wire_type)number(w, 1, m->type, WIRE_TYPES - 1);
	w->bad |= m->type < WIRE_HELLO;
	m->status = (enum wire_status)number(w, 1, m->status,
					     has_status(m->type) ? WIRE_STATUSES - 1 : WIRE_OK);
	if (!w->bad)
		body(w, m);
}

void wire_encode(const struct wire_message *m, uint8_t out[WIRE_BYTES])
{
	struct walk w = { .at = out, .end = out + WIRE_BYTES };
	struct wire_message copy = *m;

	memset(out, 0, WIRE_BYTES);
	walk(&w, &copy);
}

int wire_decode(const void *data, size_t length, struct wire_message *out)
{
	uint8_t copy[WIRE_BYTES];
	struct walk w = { .at = copy, .end = copy + WIRE_BYTES, .decode = true };
	struct wire_message m;

	if (length != WIRE_BYTES)
		return -EPROTO;
	/* Once: who sent it may still be writing there. */
	memcpy(copy, data, WIRE_BYTES);
	memset(&m, 0, sizeof(m));
	walk(&w, &m);
	for (; !w.bad && w.at < w.end; w.at++)
		w.bad = *w.at != 0;
	if (w.bad)
		return -EPROTO;
	*out = m;
	return 0;
}

const char *wire_status_text(enum wire_status status)
{
	static const char *const text[] = {
		[WIRE_OK] = "ok",
		[WIRE_DENIED] = "the server denies access: wrong secret or tenant",
		[WIRE_QUOTA] = "more than the tenant's quota leaves",
		[WIRE_FULL] = "the server has no room left",
		[WIRE_DRAINING] = "the server is shutting down",
		[WIRE_WRONG] = "the server did not expect that",
	};

	return text[status];
}

bool wire_is_name(const char *text)
{
	static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
				      "0123456789._-";
	size_t length = strspn(text, letters);

	return length && length < WIRE_NAME && !text[length];
}
