/* SPDX-License-Identifier: Apache-2.0 */
/* What emfatierd lends, to whom, and for how long; no device takes part. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include <cmocka.h>

#include "emfatierd/session.h"

#define MIB (1ull << 20)
#define SLAB WIRE_MIN_SLAB
#define SLABS 16u
#define LASTS 1000u

static struct pool pool;
static struct tenant tenant[2];
static struct desk desk;
static const uint8_t key_a[WIRE_KEY] = "a", key_b[WIRE_KEY] = "b", key_c[WIRE_KEY] = "c";

static int set_up(void **unused)
{
	struct pool_options opt = { .size = SLABS * SLAB + MIB, .node = -1 };
	char why[128];

	(void)unused;
	tenant[0] = (struct tenant){ .name = "alice", .quota = 8 * SLAB };
	tenant[1] = (struct tenant){ .name = "bob", .quota = UINT64_MAX };
	if (pool_open(&pool, &opt, why, sizeof(why)))
		return -1;
	desk = (struct desk){
		.most_clients = 3,
		.leases = { .pool = &pool, .tenant = tenant, .ntenants = 2, .most = 4, .lasts = LASTS },
	};
	return 0;
}

static int tear_down(void **unused)
{
	(void)unused;
	leases_close(&desk.leases);
	for (unsigned i = 0; i < 2; i++)
		if (tenant[i].used || tenant[i].leases)
			return -1;
	if (pool.clean + pool.dirty != pool.nslabs)
		return -1;
	pool_close(&pool);
	return 0;
}

static bool is_zero(uint32_t slab)
{
	const unsigned char *at = pool_address(&pool, slab);

	return !at[0] && !memcmp(at, at + 1, SLAB - 1);
}

/* --- the pool --- */

static void slabs_are_zero(void **unused)
{
	uint32_t slab[SLABS + 1];

	(void)unused;
	assert_int_equal(pool.nslabs, SLABS);
	assert_int_equal(pool_take(&pool, SLABS + 1, slab), -ENOSPC);
	assert_int_equal(pool.clean, SLABS);
	assert_int_equal(pool_take(&pool, SLABS, slab), 0);
	for (unsigned i = 0; i < SLABS; i++) {
		assert_true(is_zero(slab[i]));
		memset(pool_address(&pool, slab[i]), 0xff, SLAB);
		for (unsigned j = 0; j < i; j++)
			assert_int_not_equal(slab[i], slab[j]);
	}
	assert_int_equal(pool_take(&pool, 1, slab), -ENOSPC);
	assert_false(pool_work(&pool));
	/* one that was given back is zero once it has been worked on, and the others are not touched */
	pool_give(&pool, slab[3], true);
	assert_false(is_zero(slab[3]));
	while (pool_work(&pool))
		;
	assert_true(is_zero(slab[3]));
	assert_int_equal(pool.clean, 1);
	for (unsigned i = 0; i < SLABS; i++)
		if (i != 3)
			assert_int_equal(pool_address(&pool, slab[i])[SLAB - 1], 0xff);
	for (unsigned i = 0; i < SLABS; i++)
		if (i != 3)
			pool_give(&pool, slab[i], true);
	assert_int_equal(pool.dirty, SLABS - 1);
}

/* Taken before it is zero: nobody waits in the call, and it is nobody's until it is. */
static void slabs_are_owed(void **unused)
{
	uint32_t slab[SLABS], again[SLABS], n = 0;

	(void)unused;
	assert_int_equal(pool_take(&pool, SLABS, slab), 0);
	for (unsigned i = 0; i < SLABS; i++) {
		memset(pool_address(&pool, slab[i]), 0xff, SLAB);
		pool_give(&pool, slab[i], i != 5); /* nobody had it: as it was */
	}
	assert_int_equal(pool.clean, 1);
	memset(pool_address(&pool, slab[5]), 0, SLAB);
	assert_true(pool_work(&pool));
	assert_int_equal(pool_take(&pool, SLABS - 2, again), 0);
	assert_int_equal(pool.clean, 0);
	assert_int_equal(pool.dirty, 2);
	for (unsigned i = 0; i < SLABS - 2; i++)
		n += pool_is_ready(&pool, again[i]);
	assert_int_equal(n + pool.owed, SLABS - 2);
	assert_in_range(n, 2, 3);
	/* given back before it was zero: dirty, and not lost where it was half done */
	pool_give(&pool, again[SLABS - 3], false);
	assert_int_equal(pool.dirty, 3);
	/* those that somebody waits for come first */
	while (pool.owed)
		assert_true(pool_work(&pool));
	assert_int_equal(pool.clean, 0);
	for (unsigned i = 0; i < SLABS - 3; i++)
		assert_true(pool_is_ready(&pool, again[i]) && is_zero(again[i]));
	assert_int_equal(pool_take(&pool, 4, slab), -ENOSPC);
	while (pool_work(&pool))
		;
	assert_int_equal(pool.clean, 3);
	assert_int_equal(pool_take(&pool, 3, slab), 0);
	for (unsigned i = 0; i < 3; i++) {
		assert_true(pool_is_ready(&pool, slab[i]) && is_zero(slab[i]));
		pool_give(&pool, slab[i], false);
	}
	for (unsigned i = 0; i < SLABS - 3; i++)
		pool_give(&pool, again[i], true);
}

/* One that another process uses, as dax: does. */
static void devices_are_locked(void **unused)
{
	char path[] = "/tmp/emf-dax-XXXXXX", why[128];
	struct pool_options opt = { .node = -1, .dax = path };
	int fd = mkstemp(path);
	struct pool p;

	(void)unused;
	assert_true(fd >= 0);
	assert_int_equal(flock(fd, LOCK_EX), 0);
	assert_int_equal(pool_open(&p, &opt, why, sizeof(why)), -EBUSY);
	assert_non_null(strstr(why, "in use by another process"));
	assert_int_equal(flock(fd, LOCK_UN), 0);
	assert_int_equal(pool_open(&p, &opt, why, sizeof(why)), -EINVAL);
	assert_int_equal(flock(fd, LOCK_EX | LOCK_NB), 0); /* it was given up again */
	close(fd);
	unlink(path);
}

static void pool_refuses(void **unused)
{
	static const struct {
		struct pool_options opt;
		int rc;
		const char *why;
	} bad[] = {
		{ { .size = MIB, .node = -1 }, -EINVAL, "at least 2M" },
		{ { .size = 4 * MIB, .node = 1000 }, -EINVAL, "no such node" },
		{ { .node = -1, .dax = "/dev/null" }, -EINVAL, "is not a DAX device" },
		{ { .node = -1, .dax = "/dev/no-dax" }, -ENOENT, "No such file" },
		{ { .size = 1ull << 46, .node = -1 }, -ENOMEM, "are available" },
	};
	struct pool p;
	char why[128];

	(void)unused;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_int_equal(pool_open(&p, &bad[i].opt, why, sizeof(why)), bad[i].rc);
		assert_non_null(strstr(why, bad[i].why));
	}
}

/* --- leases --- */

static struct lease *join(struct tenant *t, const uint8_t *key, uint64_t bytes, bool is_fresh)
{
	struct lease *l;
	bool fresh;

	assert_int_equal(leases_join(&desk.leases, t, key, bytes, &l, &fresh), 0);
	assert_int_equal(fresh, is_fresh);
	return l;
}

static int join_fails(struct tenant *t, const uint8_t *key, uint64_t bytes)
{
	uint64_t used = t->used;
	struct lease *l;
	bool fresh;
	int rc = leases_join(&desk.leases, t, key, bytes, &l, &fresh);

	assert_int_equal(t->used, used);
	return rc;
}

static void leases_are_shared_by_key(void **unused)
{
	struct lease *a = join(&tenant[0], key_a, 3 * SLAB - 1, true);

	(void)unused;
	assert_int_equal(a->nslabs, 3);
	assert_ptr_equal(join(&tenant[0], key_a, 3 * SLAB, false), a);
	assert_ptr_equal(join(&tenant[0], key_a, 0, false), a);
	assert_int_equal(join_fails(&tenant[0], key_a, 4 * SLAB), -EINVAL);
	/* the key of another tenant's is no way in */
	assert_ptr_not_equal(join(&tenant[1], key_a, 3 * SLAB, true), a);
	assert_int_equal(tenant[0].used, 3 * SLAB);
	assert_int_equal(a->connections, 3);
}

static void leases_have_limits(void **unused)
{
	struct lease *l;

	(void)unused;
	assert_int_equal(join_fails(&tenant[0], key_a, 9 * SLAB), -EDQUOT);
	assert_int_equal(join_fails(&tenant[1], key_a, 17 * SLAB), -ENOSPC);
	assert_int_equal(join_fails(&tenant[1], key_a, INT64_MAX), -ENOSPC);
	assert_int_equal(leases_available(&desk.leases, &tenant[0]), 8 * SLAB);
	join(&tenant[0], key_a, 5 * SLAB, true);
	assert_int_equal(leases_available(&desk.leases, &tenant[0]), 3 * SLAB);
	assert_int_equal(join_fails(&tenant[0], key_b, 4 * SLAB), -EDQUOT);
	/* what is sane: a quarter of what there is */
	l = join(&tenant[1], key_a, 0, true);
	assert_int_equal(l->nslabs, 2);
	join(&tenant[1], key_b, 8 * SLAB, true);
	assert_int_equal(leases_available(&desk.leases, &tenant[1]), SLAB);
	assert_int_equal(join_fails(&tenant[1], key_c, 2 * SLAB), -ENOSPC);
	l = join(&tenant[1], key_c, 0, true);
	assert_int_equal(l->nslabs, 1);
	assert_int_equal(join_fails(&tenant[0], key_c, SLAB), -ENFILE);
	/* or what is usual */
	leases_leave(&desk.leases, l, 0);
	leases_work(&desk.leases, LASTS);
	desk.leases.usual = SLAB + 1;
	assert_int_equal(join_fails(&tenant[1], key_c, 0), -ENOSPC);
	desk.leases.usual = SLAB - 1;
	assert_int_equal(join(&tenant[0], key_c, 0, true)->nslabs, 1);
	assert_int_equal(leases_available(&desk.leases, &tenant[0]), 0);
}

static void leases_end(void **unused)
{
	struct lease *a = join(&tenant[0], key_a, 2 * SLAB, true);
	struct leases *ls = &desk.leases;
	uint32_t slab = a->slab[0];

	(void)unused;
	join(&tenant[0], key_a, 0, false);
	memset(pool_address(&pool, slab), 1, SLAB);
	assert_int_equal(leases_work(ls, 1u << 30), UINT64_MAX);
	leases_leave(ls, a, 5000);
	assert_int_equal(leases_work(ls, 1u << 30), UINT64_MAX); /* one is left */
	leases_leave(ls, a, 6000);
	assert_int_equal(leases_work(ls, 6000 + LASTS - 1), 6000 + LASTS);
	assert_ptr_equal(join(&tenant[0], key_a, 0, false), a); /* back in time, with all it had */
	assert_int_equal(pool_address(&pool, slab)[0], 1);
	leases_leave(ls, a, 7000);
	assert_int_equal(leases_work(ls, 7000 + LASTS), UINT64_MAX);
	assert_int_equal(ls->count, 0);
	assert_int_equal(ls->expired, 1);
	assert_int_equal(tenant[0].used, 0);
	assert_int_equal(pool.clean, SLABS); /* nobody was told where they are */
	a = join(&tenant[0], key_a, 2 * SLAB, true);
	a->used = true;
	leases_leave(ls, a, 7000);
	leases_work(ls, 7000 + LASTS);
	assert_int_equal(pool.dirty, 2);
	while (pool_work(&pool))
		;
	/* one that is ended is nobody's at once, its slabs are given back when all have left */
	a = join(&tenant[0], key_a, 2 * SLAB, true);
	join(&tenant[0], key_a, 0, false);
	lease_end(a);
	struct lease *b = join(&tenant[0], key_a, SLAB, true);
	assert_ptr_not_equal(a, b);
	leases_leave(ls, a, 0);
	assert_int_equal(tenant[0].used, 3 * SLAB);
	leases_leave(ls, a, 0);
	assert_int_equal(tenant[0].used, SLAB);
	assert_int_equal(ls->expired, 2);
}

static void leases_drain(void **unused)
{
	struct lease *a = join(&tenant[0], key_a, SLAB, true);

	(void)unused;
	desk.leases.draining = true;
	assert_int_equal(join_fails(&tenant[0], key_b, SLAB), -ESHUTDOWN);
	assert_int_equal(leases_available(&desk.leases, &tenant[0]), 0);
	assert_ptr_equal(join(&tenant[0], key_a, SLAB, false), a);
}

/* --- sessions --- */

static int map_fails;

static int map(struct session *s, uint32_t slab, struct wire_slab *out)
{
	assert_in_range(slab, 0, s->lease->nslabs - 1);
	if (map_fails)
		return -ENOMEM;
	*out = (struct wire_slab){ .address = (uintptr_t)pool_address(&pool, s->lease->slab[slab]),
				   .rkey = slab };
	return 0;
}

static enum session_verdict say(struct session *s, const struct wire_message *m,
				struct wire_message *out)
{
	struct wire_message answer;
	uint8_t bytes[WIRE_BYTES];
	enum session_verdict v;

	wire_encode(m, bytes);
	v = session_input(s, bytes, sizeof(bytes), &answer);
	if (v != SESSION_CLOSE && v != SESSION_LATER) { /* what goes out can be read */
		wire_encode(&answer, bytes);
		assert_int_equal(wire_decode(bytes, sizeof(bytes), out), 0);
	}
	return v;
}

static const uint8_t my_nonce[WIRE_NONCE] = { 42 };

/* Up to the answer of PROVE, with this secret. */
static enum session_verdict introduce(struct session *s, const char *name,
				      const struct secret *secret, struct wire_message *out)
{
	struct wire_message m = { .type = WIRE_HELLO };
	uint8_t nonce[WIRE_NONCE];

	session_open(s, &desk, map);
	memcpy(m.hello.nonce, my_nonce, WIRE_NONCE);
	assert_int_equal(say(s, &m, out), SESSION_ANSWER);
	assert_int_equal(out->type, WIRE_CHALLENGE);
	assert_int_equal(out->hello.prove, secret != NULL);
	memcpy(nonce, out->hello.nonce, WIRE_NONCE);
	assert_true(session_is_pending(s));
	m = (struct wire_message){ .type = WIRE_PROVE };
	strcpy(m.proof.tenant, name);
	if (secret)
		assert_int_equal(auth_mac(secret, AUTH_CLIENT, my_nonce, nonce, name, m.proof.mac), 0);
	return say(s, &m, out);
}

static void welcome(struct session *s, const char *name, const struct secret *secret)
{
	struct wire_message out;

	assert_int_equal(introduce(s, name, secret, &out), SESSION_ANSWER);
	assert_int_equal(out.type, WIRE_WELCOME);
	assert_int_equal(out.status, WIRE_OK);
	assert_false(session_is_pending(s));
}

static struct wire_message lease(struct session *s, const uint8_t *key, uint64_t bytes)
{
	struct wire_message m = { .type = WIRE_LEASE, .lease.bytes = bytes }, out;

	memcpy(m.lease.key, key, WIRE_KEY);
	assert_int_equal(say(s, &m, &out), SESSION_ANSWER);
	assert_int_equal(out.type, WIRE_LEASED);
	return out;
}

static const struct secret right = { 16, "0123456789abcdef" }, wrong = { 16, "0123456789abcdeF" };

static void proof_is_needed(void **unused)
{
	struct wire_message out;
	struct session s;
	uint8_t want[WIRE_MAC];

	(void)unused;
	tenant[0].secret = tenant[1].secret = right;
	assert_int_equal(introduce(&s, "alice", &wrong, &out), SESSION_LAST);
	assert_int_equal(out.status, WIRE_DENIED);
	session_close(&s, 0);
	assert_int_equal(introduce(&s, "mallory", &right, &out), SESSION_LAST);
	assert_int_equal(out.status, WIRE_DENIED);
	session_close(&s, 0);
	assert_int_equal(desk.denied, 2);
	assert_int_equal(desk.clients, 0);
	/* the server shows that it knows the secret, too */
	assert_int_equal(introduce(&s, "alice", &right, &out), SESSION_ANSWER);
	assert_int_equal(auth_mac(&right, AUTH_SERVER, my_nonce, s.server_nonce, "alice", want), 0);
	assert_memory_equal(out.proof.mac, want, WIRE_MAC);
	assert_int_equal(out.proof.state.available, 8 * SLAB);
	assert_int_equal(desk.clients, 1);
	session_close(&s, 0);
	assert_int_equal(desk.clients, 0);
	/* each tenant's own */
	tenant[1].secret = wrong;
	assert_int_equal(introduce(&s, "bob", &right, &out), SESSION_LAST);
	session_close(&s, 0);
	welcome(&s, "bob", &wrong);
	session_close(&s, 0);
}

static void old_proofs_do_not_count(void **unused)
{
	struct wire_message m = { .type = WIRE_PROVE, .proof.tenant = "alice" }, out;
	struct session s;

	(void)unused;
	tenant[0].secret = tenant[1].secret = right;
	welcome(&s, "alice", &right);
	assert_int_equal(auth_mac(&right, AUTH_CLIENT, my_nonce, s.server_nonce, "alice", m.proof.mac),
			 0);
	session_close(&s, 0);
	struct wire_message hello = { .type = WIRE_HELLO };
	memcpy(hello.hello.nonce, my_nonce, WIRE_NONCE);
	session_open(&s, &desk, map);
	assert_int_equal(say(&s, &hello, &out), SESSION_ANSWER);
	assert_int_equal(say(&s, &m, &out), SESSION_LAST);
	assert_int_equal(out.status, WIRE_DENIED);
	session_close(&s, 0);
}

/* In every state only what is due there; before the proof nothing else is even looked at. */
static void order(void **unused)
{
	(void)unused;
	for (unsigned state = SESSION_HELLO; state <= SESSION_LEASED; state++) {
		if (state == SESSION_CLEANING) /* see leases_wait */
			continue;
		for (unsigned type = WIRE_HELLO; type < WIRE_TYPES; type++) {
			struct wire_message m = { .type = (enum wire_type)type }, out;
			bool due = (state == SESSION_HELLO && type == WIRE_HELLO) ||
				   (state == SESSION_PROVE && type == WIRE_PROVE) ||
				   (state == SESSION_LEASE && type == WIRE_LEASE) ||
				   (state == SESSION_LEASED &&
				    (type == WIRE_MAP || type == WIRE_RELEASE)) ||
				   (state >= SESSION_LEASE && type == WIRE_ASK);
			uint64_t malformed = desk.malformed;
			struct session s;

			session_open(&s, &desk, map);
			if (state == SESSION_PROVE) {
				struct wire_message hello = { .type = WIRE_HELLO };
				assert_int_equal(say(&s, &hello, &out), SESSION_ANSWER);
			} else if (state >= SESSION_LEASE) {
				welcome(&s, "alice", NULL);
			}
			if (state == SESSION_LEASED)
				assert_int_equal(lease(&s, key_a, SLAB).status, WIRE_OK);
			if (type == WIRE_PROVE)
				strcpy(m.proof.tenant, "bob");
			assert_int_equal(s.state, state);
			assert_int_equal(say(&s, &m, &out) != SESSION_CLOSE, due);
			assert_int_equal(desk.malformed, malformed + !due);
			session_close(&s, 0);
			leases_work(&desk.leases, UINT64_MAX);
		}
	}
	assert_int_equal(desk.clients, 0);
	assert_int_equal(desk.leases.count, 0);
}

static void sessions_lease(void **unused)
{
	struct wire_message m = { .type = WIRE_MAP }, out;
	struct session s, other;

	(void)unused;
	welcome(&s, "alice", NULL);
	assert_int_equal(lease(&s, key_a, 100 * SLAB).status, WIRE_FULL);
	assert_int_equal(lease(&s, key_a, 9 * SLAB).status, WIRE_QUOTA);
	/* a no is not the end */
	out = lease(&s, key_a, 7 * SLAB);
	assert_int_equal(out.status, WIRE_OK);
	assert_true(out.lease.fresh);
	assert_int_equal(out.lease.bytes, 7 * SLAB);
	assert_int_equal(out.lease.slab_bytes, SLAB);
	welcome(&other, "alice", NULL);
	assert_int_equal(lease(&other, key_a, SLAB).status, WIRE_WRONG);
	assert_false(lease(&other, key_a, 0).lease.fresh);
	/* what it may reach is the lease's */
	m.map.first = 5;
	assert_int_equal(say(&s, &m, &out), SESSION_ANSWER);
	assert_int_equal(out.map.count, 2);
	assert_int_equal(out.map.slab[1].rkey, 6);
	assert_int_equal(out.map.slab[1].address, (uintptr_t)pool_address(&pool, s.lease->slab[6]));
	m.map.first = 7;
	assert_int_equal(say(&s, &m, &out), SESSION_ANSWER);
	assert_int_equal(out.status, WIRE_WRONG);
	map_fails = 1;
	m.map.first = 0;
	assert_int_equal(say(&s, &m, &out), SESSION_ANSWER);
	assert_int_equal(out.status, WIRE_FULL);
	map_fails = 0;
	m = (struct wire_message){ .type = WIRE_ASK };
	assert_int_equal(say(&s, &m, &out), SESSION_ANSWER);
	assert_int_equal(out.state.clients, 2);
	assert_int_equal(out.state.leases, 1);
	assert_int_equal(out.state.load, 7 * 1000 / SLABS);
	assert_int_equal(out.state.available, SLAB);
	/* a release is for all of the lease's connections; who owns them closes them */
	m = (struct wire_message){ .type = WIRE_RELEASE };
	assert_int_equal(say(&s, &m, &out), SESSION_LAST);
	assert_int_equal(out.type, WIRE_RELEASED);
	assert_true(other.lease->ended);
	session_close(&s, 0);
	assert_int_equal(tenant[0].used, 7 * SLAB);
	session_close(&other, 0);
	assert_int_equal(tenant[0].used, 0);
}

/* What was somebody's is not handed out before it is zero; nobody else waits for that. */
static void leases_wait(void **unused)
{
	struct wire_message m = { .type = WIRE_LEASE, .lease.bytes = 7 * SLAB }, out;
	struct session s, other, third;

	(void)unused;
	welcome(&other, "bob", NULL);
	assert_int_equal(lease(&other, key_a, SLABS * SLAB).status, WIRE_OK);
	other.lease->used = true;
	for (unsigned i = 0; i < SLABS; i++)
		memset(pool_address(&pool, i), 0xff, SLAB);
	lease_end(other.lease);
	session_close(&other, 0);
	assert_int_equal(pool.dirty, SLABS);
	welcome(&s, "alice", NULL);
	assert_int_equal(say(&s, &m, &out), SESSION_LATER);
	assert_int_equal(tenant[0].used, 7 * SLAB);
	welcome(&third, "alice", NULL); /* of the same lease */
	m.lease.bytes = 0;
	assert_int_equal(say(&third, &m, &out), SESSION_LATER);
	while (!leases_are_ready(&desk.leases, s.lease)) {
		assert_false(session_later(&s, &out));
		welcome(&other, "bob", NULL);
		session_close(&other, 0);
		assert_true(pool_work(&pool));
	}
	assert_true(session_later(&s, &out));
	assert_int_equal(out.type, WIRE_LEASED);
	assert_int_equal(out.lease.bytes, 7 * SLAB);
	assert_true(out.lease.fresh);
	assert_true(session_later(&third, &out));
	assert_false(out.lease.fresh);
	assert_false(session_later(&s, &out)); /* once */
	for (unsigned i = 0; i < 7; i++)
		assert_true(is_zero(s.lease->slab[i]));
	session_close(&s, 0);
	session_close(&third, 0);
	/* who gives up leaves nothing behind; who says something else meanwhile is closed */
	leases_work(&desk.leases, LASTS);
	welcome(&s, "bob", NULL);
	m.lease.bytes = SLABS * SLAB;
	assert_int_equal(say(&s, &m, &out), SESSION_LATER);
	m = (struct wire_message){ .type = WIRE_ASK };
	assert_int_equal(say(&s, &m, &out), SESSION_CLOSE);
	session_close(&s, 0);
	leases_work(&desk.leases, LASTS);
	assert_int_equal(tenant[1].used, 0);
	assert_int_equal(pool.owed, 0);
	while (pool_work(&pool))
		;
	assert_int_equal(pool.clean, SLABS);
}

/* The connection that holds a lease takes it along, when its client ends it; the others do not. */
static void holders_take_it_along(void **unused)
{
	struct wire_message m = { .type = WIRE_LEASE, .lease = { .bytes = SLAB, .hold = true } }, out;
	struct session holder, other;

	(void)unused;
	welcome(&other, "alice", NULL);
	assert_int_equal(lease(&other, m.lease.key, SLAB).status, WIRE_OK);
	welcome(&holder, "alice", NULL);
	session_disconnected(&holder); /* it has none yet */
	assert_int_equal(say(&holder, &m, &out), SESSION_ANSWER);
	assert_int_equal(out.status, WIRE_OK);
	session_disconnected(&other);
	assert_false(holder.lease->ended);
	/* lost, not ended: it may come back */
	session_close(&holder, 0);
	assert_false(other.lease->ended);
	welcome(&holder, "alice", NULL);
	assert_int_equal(say(&holder, &m, &out), SESSION_ANSWER);
	session_disconnected(&holder);
	assert_true(other.lease->ended);
	session_close(&holder, 0);
	session_close(&other, 0);
	assert_int_equal(tenant[0].used, 0);
}

static void clients_have_a_limit(void **unused)
{
	struct wire_message out;
	struct session s[4];

	(void)unused;
	for (unsigned i = 0; i < 3; i++)
		welcome(&s[i], "bob", NULL);
	assert_int_equal(introduce(&s[3], "bob", NULL, &out), SESSION_LAST);
	assert_int_equal(out.status, WIRE_FULL);
	session_close(&s[3], 0);
	session_close(&s[0], 0);
	welcome(&s[3], "bob", NULL);
	for (unsigned i = 1; i < 4; i++)
		session_close(&s[i], 0);
	assert_int_equal(desk.clients, 0);
}

static void malformed(void **unused)
{
	struct wire_message out, hello = { .type = WIRE_HELLO };
	uint8_t bytes[WIRE_BYTES + 1];
	struct session s;

	(void)unused;
	wire_encode(&hello, bytes);
	session_open(&s, &desk, map);
	assert_int_equal(session_input(&s, bytes, WIRE_BYTES + 1, &out), SESSION_CLOSE);
	assert_int_equal(session_input(&s, bytes, 0, &out), SESSION_CLOSE);
	bytes[200] = 1;
	assert_int_equal(session_input(&s, bytes, WIRE_BYTES, &out), SESSION_CLOSE);
	assert_int_equal(desk.malformed, 3);
	session_close(&s, 0);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(slabs_are_zero), TEST(slabs_are_owed), cmocka_unit_test(pool_refuses),
		cmocka_unit_test(devices_are_locked),
		TEST(leases_are_shared_by_key), TEST(leases_have_limits), TEST(leases_end),
		TEST(leases_drain), TEST(proof_is_needed), TEST(old_proofs_do_not_count), TEST(order),
		TEST(sessions_lease), TEST(leases_wait), TEST(holders_take_it_along), TEST(clients_have_a_limit), TEST(malformed),
	};

	return cmocka_run_group_tests_name("lend", tests, NULL, NULL);
}
