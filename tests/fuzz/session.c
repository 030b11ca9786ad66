/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libFuzzer: what clients may send to emfatierd. The input is a list of steps on a few sessions:
 * bytes as they are, a right message of each kind with bytes changed in it, proofs with the right
 * secret, connections that break, time that passes. After each step what holds for all inputs is
 * checked: no two leases have a slab in common, quotas and counters are right, every answer
 * can be read, nothing is leased to who has not proved who they are, and what is handed out is
 * zero.
 */
#include <string.h>

#include "emfatierd/session.h"
#include "fuzz.h"

#define SESSIONS 4u
#define SLABS 8u
#define LASTS 1000u

static struct pool pool;
static struct tenant tenant[2];
static struct desk desk;
static struct session session[SESSIONS];
static bool open_[SESSIONS], mapped[SESSIONS][SLABS];
static uint64_t now;

static int map(struct session *s, uint32_t slab, struct wire_slab *out)
{
	unsigned char *at;

	MUST(slab < s->lease->nslabs);
	MUST(s->tenant);
	MUST(pool_is_ready(&pool, s->lease->slab[slab]));
	if (next() == 1)
		return -1;
	at = pool_address(&pool, s->lease->slab[slab]);
	/* What its client would do with it. */
	memset(at, 0xff, 64);
	mapped[s - session][slab] = true;
	*out = (struct wire_slab){ .address = (uintptr_t)at, .rkey = slab };
	return 0;
}

static void check(void)
{
	bool taken[SLABS] = { 0 };
	uint64_t used[2] = { 0 };
	uint32_t clients = 0, count = 0, leased = 0, owed = 0;

	for (const struct lease *l = desk.leases.first; l; l = l->next) {
		uint32_t connections = 0;

		for (unsigned i = 0; i < SESSIONS; i++)
			connections += open_[i] && session[i].lease == l;
		MUST(connections == l->connections);
		MUST(!l->ended || connections);
		MUST(l->nslabs && l->nslabs <= SLABS);
		for (uint32_t i = 0; i < l->nslabs; i++) {
			MUST(l->slab[i] < SLABS && !taken[l->slab[i]]);
			taken[l->slab[i]] = true;
			MUST(pool.state[l->slab[i]] == SLAB_TAKEN ||
			     pool.state[l->slab[i]] == SLAB_OWED);
			owed += pool.state[l->slab[i]] == SLAB_OWED;
		}
		used[l->tenant - tenant] += l->nslabs * pool.slab_bytes;
		leased += l->nslabs;
		count++;
	}
	for (unsigned i = 0; i < 2; i++)
		MUST(used[i] == tenant[i].used && tenant[i].used <= tenant[i].quota);
	for (unsigned i = 0; i < SESSIONS; i++) {
		clients += open_[i] && !session_is_pending(&session[i]);
		MUST(!open_[i] || !session_is_pending(&session[i]) || !session[i].lease);
		MUST(!open_[i] || session_is_pending(&session[i]) || session[i].tenant);
	}
	MUST(clients == desk.clients && clients <= desk.most_clients);
	MUST(count == desk.leases.count && count <= desk.leases.most);
	MUST(leased + pool.clean + pool.dirty == SLABS && owed == pool.owed);
}

/* A slab that was mapped is dirty in its first bytes; one that is clean must not be. */
static void check_clean(void)
{
	static const unsigned char zero[64];

	for (uint32_t i = 0; i < SLABS; i++)
		if (pool.state[i] == SLAB_CLEAN)
			MUST(!memcmp(pool_address(&pool, i), zero, sizeof(zero)));
}

static void close_session(unsigned i, bool disconnected)
{
	if (open_[i] && disconnected)
		session_disconnected(&session[i]);
	if (open_[i])
		session_close(&session[i], now);
	open_[i] = false;
	memset(mapped[i], 0, sizeof(mapped[i]));
}

static void make(struct wire_message *m, const struct session *s)
{
	*m = (struct wire_message){ .type = (enum wire_type)(next() % (WIRE_TYPES + 1)) };
	switch (m->type) {
	case WIRE_PROVE:
		strcpy(m->proof.tenant, tenant[next() % 2].name);
		auth_mac(&tenant[0].secret, AUTH_CLIENT, s->client_nonce, s->server_nonce,
			 m->proof.tenant, m->proof.mac);
		break;
	case WIRE_LEASE:
		m->lease.key[0] = (uint8_t)(next() % 3);
		m->lease.bytes = next() * (pool.slab_bytes / 2);
		m->lease.hold = next() & 1;
		break;
	case WIRE_MAP:
		m->map.first = next() % (SLABS + 2);
		break;
	default:
		break;
	}
}

/* As the server does. */
static void close_ended(void)
{
	for (unsigned k = 0; k < SESSIONS; k++)
		if (open_[k] && session[k].lease && session[k].lease->ended)
			close_session(k, false);
}

static void send_message(unsigned i)
{
	uint8_t bytes[WIRE_BYTES + 8] = { 0 };
	size_t length = WIRE_BYTES;
	struct wire_message m, answer;
	bool pending = session_is_pending(&session[i]);
	unsigned changes;
	enum session_verdict v;

	make(&m, &session[i]);
	wire_encode(&m, bytes);
	changes = next();
	for (unsigned n = 0; n < changes % 4; n++) {
		unsigned at = next();

		bytes[at] = (uint8_t)next();
	}
	if (changes == 255)
		length = next() % sizeof(bytes);
	if (changes == 254)
		for (size_t n = 0; n < WIRE_BYTES; n++)
			bytes[n] = (uint8_t)next();
	v = session_input(&session[i], bytes, length, &answer);
	/* Only a right proof lets anybody in. */
	if (pending && !session_is_pending(&session[i]))
		MUST(v == SESSION_ANSWER && bytes[6] == WIRE_PROVE);
	if (v == SESSION_LATER) {
		MUST(!leases_are_ready(&desk.leases, session[i].lease));
	} else if (v != SESSION_CLOSE) {
		wire_encode(&answer, bytes);
		MUST(!wire_decode(bytes, WIRE_BYTES, &m));
	}
	check();
	if (v != SESSION_ANSWER && v != SESSION_LATER)
		close_session(i, false);
	close_ended();
}

static void clean_some(void)
{
	uint8_t bytes[WIRE_BYTES];
	struct wire_message m;

	pool_work(&pool);
	for (unsigned i = 0; i < SESSIONS; i++) {
		if (!open_[i] || !session_later(&session[i], &m))
			continue;
		MUST(m.type == WIRE_LEASED && leases_are_ready(&desk.leases, session[i].lease));
		wire_encode(&m, bytes);
		MUST(!wire_decode(bytes, WIRE_BYTES, &m));
	}
}

static void set_up(void)
{
	struct pool_options opt = { .size = SLABS * WIRE_MIN_SLAB, .node = -1 };
	char why[128];

	MUST(!pool_open(&pool, &opt, why, sizeof(why)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (!pool.base)
		set_up();
	input = data;
	left = size;
	tenant[0] = (struct tenant){ .name = "a", .quota = 4 * WIRE_MIN_SLAB };
	tenant[1] = (struct tenant){ .name = "bb", .quota = UINT64_MAX };
	if (next() & 1) {
		tenant[0].secret = (struct secret){ 16, "0123456789abcdef" };
		tenant[1].secret = tenant[0].secret;
	}
	desk = (struct desk){
		.most_clients = 3,
		.leases = { .pool = &pool,
			    .tenant = tenant,
			    .ntenants = 2,
			    .most = 3,
			    .lasts = LASTS },
	};
	now = 0;
	while (left) {
		unsigned step = next(), i = step % SESSIONS;

		if (!open_[i]) {
			session_open(&session[i], &desk, map);
			open_[i] = true;
		}
		switch (step / SESSIONS % 8) {
		case 0:
			close_session(i, next() & 1);
			close_ended();
			break;
		case 1:
			now += 50u * next();
			leases_work(&desk.leases, now);
			break;
		case 2:
			desk.leases.draining = next() > 250;
			break;
		case 3:
			clean_some();
			break;
		default:
			send_message(i);
		}
		check();
	}
	for (unsigned i = 0; i < SESSIONS; i++)
		close_session(i, false);
	leases_close(&desk.leases);
	check();
	/* Cleaning is slow beside the rest: what is dirty from this input is what the next one
	 * gets. */
	if (pool.dirty > SLABS / 2)
		while (pool_work(&pool))
			;
	check_clean();
	return 0;
}
