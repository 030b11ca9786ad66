/* SPDX-License-Identifier: Apache-2.0 */
/* Mirror and parity whose members join and are drained, and fail meanwhile. */
#include "test_store_live.h"
#include "test_store_toy.h"

#include "../../src/store/reconnect.h"
#include "../../src/store/redundant_int.h"
#include "../../src/store/timer.h"

#define SERVERS 6u

static const char *const mem[] = {
	"mem:?size=64M&latency=1us", "mem:?size=64M&latency=2us", "mem:?size=64M&latency=3us",
	"mem:?size=64M&latency=4us", "mem:?size=64M&latency=5us", "mem:?size=64M&latency=6us",
	"mem:?size=64M&latency=7us",
};

static const struct {
	unsigned n, data, more;
} shapes[] = { { 2, 1, 1 }, { 3, 1, 2 }, { 3, 2, 1 }, { 5, 4, 1 }, { 6, 4, 2 } };
#define SHAPES (sizeof(shapes) / sizeof(shapes[0]))

static void scene_open(struct scene *s, const char *const *uri, unsigned n, unsigned data,
		       unsigned more, bool encrypt, const char *inject)
{
	live_options(s, uri, n, encrypt, inject);
	s->opt.data = data;
	s->opt.more = more;
	scene_start(s);
	assert_ptr_equal(s->st.places, s->st.redundant);
}

/* No slot has two columns on one member, and none has one on this. */
static void check_places(const struct scene *s, unsigned not_on)
{
	const struct redundant *r = (const struct redundant *)s->st.redundant;

	for (unsigned slot = 0; slot < 32; slot++) {
		unsigned seen = not_on < STORE_LEAVES ? 1u << not_on : 0;

		for (unsigned c = 0; c < width(r); c++) {
			unsigned m = member_of(r, slot, c);

			if (m == NOWHERE)
				continue;
			if (seen >> m & 1)
				fail_msg("slot %u: column %u is on %u", slot, c, m);
			seen |= 1u << m;
		}
	}
}

static uint64_t stale(const struct scene *s)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < STORE_LEAVES; i++)
		n += redundant_stale(s->st.redundant, i);
	return n;
}

static void model(struct scene *s, unsigned steps, uint64_t seed)
{
	struct model m = {
		.q = s->q,
		.base = SLOTS * SLOT,
		.lane_size = SLOT,
		.lanes = 8,
		.steps = steps,
		.seed = seed,
		.slots = true,
		.changing = changing,
	};

	assert_int_equal(model_run(&m), 0);
}

/* --- all is well --- */

/* Columns come to the new one; then what another one has goes to the others; always as apart as
 * before, and nothing is lost, whatever is written meanwhile. */
static void test_add_and_drain(void **state)
{
	(void)state;
	for (unsigned i = 0; i < SHAPES; i++) {
		unsigned n = shapes[i].n;
		uint64_t before;
		struct scene s;

		scene_open(&s, mem, n, shapes[i].data, shapes[i].more, i % 2, NULL);
		before = store_capacity(&s.st);
		put_all(&s, 1);
		model(&s, 100, i + 1);
		assert_int_equal(done(&s, false, mem[n]), n);
		assert_true(store_capacity(&s.st) > before);
		model(&s, 300, i + 21);
		wait_state(&s, n, EMF_STORE_OK);
		/* Columns of few slots can't be shared out evenly. */
		assert_true(pool_used(s.st.places, n) >= pool_used(s.st.places, 0) / 2);
		check_places(&s, STORE_LEAVES);
		expect_all(&s, 1);
		unused[3] = true; /* freed, and not trimmed yet */
		assert_int_equal(done(&s, true, mem[0]), 0);
		model(&s, 300, i + 41);
		for (unsigned k = 4; k < SLOTS; k += 3) {
			pthread_mutex_lock(&held[k]);
			assert_int_equal(put(&s, k, 2), 0);
			pthread_mutex_unlock(&held[k]);
			expect(&s, k, 2);
		}
		wait_state(&s, 0, EMF_STORE_DRAINED);
		assert_int_equal(s.stats[0].rebuild_bytes, 0);
		assert_int_equal(stale(&s), 0);
		check_places(&s, 0);
		for (unsigned k = 0; k < SLOTS; k++)
			if (k != 3)
				expect(&s, k, k >= 4 && k % 3 == 1 ? 2 : 1);
		assert_int_equal(store_capacity(&s.st), before);
		wait_left(&s, 0);
		/* It can come back, under the same number. */
		assert_int_equal(done(&s, false, mem[0]), 0);
		wait_state(&s, 0, EMF_STORE_OK);
		unused[3] = false;
		put_all(&s, 3);
		expect_all(&s, 3);
		check_places(&s, STORE_LEAVES);
		scene_close(&s);
	}
}

/* Onto those that are left, where there are more than a slot needs. */
static void test_without_spare(void **state)
{
	struct scene s;

	(void)state;
	scene_open(&s, mem, 3, 1, 1, false, NULL);
	put_all(&s, 1);
	assert_int_equal(times_scattered, 0);
	done(&s, true, mem[1]);
	assert_true(times_scattered > 0);
	wait_state(&s, 1, EMF_STORE_DRAINED);
	check_places(&s, 1);
	assert_int_equal(stale(&s), 0);
	expect_all(&s, 1);
	refused(&s, true, mem[0], -ENODEV, "the redundancy needs 2 stores");
	put_all(&s, 2);
	expect_all(&s, 2);
	scene_close(&s);
}

static void test_refused(void **state)
{
	static const char *const sizes[] = { "mem:?size=64M&latency=1us",
					     "mem:?size=64M&latency=2us",
					     "mem:?size=8M&latency=3us" };
	struct scene s;

	(void)state;
	scene_open(&s, sizes, 3, 1, 1, false, NULL);
	/* There is room for it, but no partner. */
	for (unsigned i = 0; i < 8; i++)
		assert_int_equal(put(&s, i, 1), 0);
	refused(&s, true, sizes[0], -ENOSPC, "MiB are on it, and the others have room for");
	put_all(&s, 1);
	refused(&s, true, sizes[0], -ENOSPC, "MiB are on it, and the others have room for");
	refused(&s, false, "mem:?size=1M", -ENOSPC, "too small");
	children = true;
	refused(&s, false, mem[3], -EBUSY, "forked children");
	refused(&s, true, sizes[2], -EBUSY, "forked children");
	children = false;
	done(&s, true, sizes[2]);
	wait_state(&s, 2, EMF_STORE_DRAINED);
	expect_all(&s, 1);
	scene_close(&s);
}

/* Room grows by what finds a partner, and it can all be used. */
static void test_grows(void **state)
{
	unsigned i = 0, index;
	char text[512];
	struct scene s;

	(void)state;
	scene_open(&s, mem, 2, 1, 1, false, NULL);
	while (!put(&s, i, 1))
		i++;
	assert_int_equal(i, 32);
	assert_int_equal(change(&s, false, mem[2], &index, text), 0);
	assert_string_equal(text, "room for 96 MiB, before for 64 MiB");
	assert_int_equal(times_grown, 1);
	assert_int_equal(store_capacity(&s.st), 96 * MIB);
	wait_state(&s, 2, EMF_STORE_OK);
	for (unsigned k = 0; k < 3; k++)
		assert_true(pool_used(s.st.places, k) / SLOT - 21 < 2);
	for (; i < 48; i++)
		assert_int_equal(put(&s, i, 1), 0);
	assert_int_equal(put(&s, i, 1), -ENOSPC);
	for (i = 0; i < 48; i++)
		expect(&s, i, 1);
	scene_close(&s);
}

static void test_children(void **state)
{
	struct scene s;

	(void)state;
	rate = 16 * MIB;
	scene_open(&s, mem, 3, 1, 1, false, NULL);
	rate = 1ull << 40;
	put_all(&s, 1);
	done(&s, true, mem[1]);
	children = true;
	usleep(1500000);
	assert_int_equal(s.stats[1].state, EMF_STORE_DRAINING);
	assert_true(s.stats[1].rebuild_bytes > 0);
	expect_all(&s, 1);
	children = false;
	wait_state(&s, 1, EMF_STORE_DRAINED);
	expect_all(&s, 1);
	scene_close(&s);
}

/* --- members that lie or are full --- */

static void test_damage(void **state)
{
	struct scene s;

	(void)state;
	for (unsigned parity = 0; parity < 2; parity++) {
		unsigned n = parity ? 3 : 2;

		scene_open(&s, mem, n, parity ? 2 : 1, 1, false, "1:corrupt=0.3,seed=3");
		put_all(&s, 1);
		done(&s, false, mem[n]);
		done(&s, true, mem[0]);
		wait_state(&s, 0, EMF_STORE_DRAINED);
		check_places(&s, 0);
		expect_all(&s, 1);
		for (unsigned i = 1; i <= n; i++)
			assert_int_equal(s.stats[i].errors, 0);
		assert_int_equal(stale(&s), 0);
		scene_close(&s);
	}
}

/* The new one has promised room that it has not. */
static void test_stops(void **state)
{
	struct scene s;

	(void)state;
	scene_open(&s, mem, 2, 1, 1, false, "3:full=1");
	put_all(&s, 1);
	done(&s, false, mem[2]);
	wait_state(&s, 2, EMF_STORE_OK);
	assert_int_equal(pool_used(s.st.places, 2), 0);
	done(&s, true, mem[0]);
	wait_state(&s, 0, EMF_STORE_OK);
	assert_int_equal(s.stats[0].rebuild_bytes, 0);
	expect_all(&s, 1);
	scene_close(&s);
}

/* --- members that die --- */

static struct server server[SERVERS];
static const char *uri[SERVERS];

static void servers_start(unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		server_start(&server[i], "-t", "1", "memory", "64M");
		uri[i] = server[i].uri;
	}
}

static void servers_stop(unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		server_stop(&server[i]);
}

static void put_held(struct scene *s, unsigned version)
{
	for (unsigned i = 0; i < SLOTS; i++) {
		pthread_mutex_lock(&held[i]);
		assert_int_equal(put(s, i, version), 0);
		pthread_mutex_unlock(&held[i]);
	}
}

static void wait_whole(struct scene *s)
{
	uint64_t limit = now_ms() + LIMIT_MS;

	while (stale(s)) {
		if (now_ms() > limit)
			fail_msg("%llu bytes stay stale", (unsigned long long)stale(s));
		s->q->ops->poll(s->q);
		usleep(1000);
	}
}

/*
 * One that is lost with all that it had: its columns are made anew on the one that joins, and then
 * another may be lost. What is gone for good is let go of by a drain.
 */
static void test_replaced(void **state)
{
	(void)state;
	NEED_NBDKIT();
	for (unsigned i = 0; i < 3; i++) {
		unsigned n = shapes[i].n;
		struct scene s;

		servers_start(n + 1);
		scene_open(&s, uri, n, shapes[i].data, shapes[i].more, i % 2, NULL);
		put_all(&s, 1);
		server_kill(&server[0]);
		expect_all(&s, 1);
		put_held(&s, 2); /* degraded */
		wait_state(&s, 0, EMF_STORE_DOWN);
		assert_int_equal(done(&s, false, uri[n]), n);
		expect_all(&s, 2);
		put_held(&s, 3);
		wait_state(&s, n, EMF_STORE_OK);
		wait_whole(&s);
		check_places(&s, 0);
		server_kill(&server[1]);
		expect_all(&s, 3);
		if (i) /* else no redundancy is left */
			put_held(&s, 4);
		server_again(&server[1], "-t", "1", "memory", "64M");
		wait_state(&s, 1, EMF_STORE_OK);
		done(&s, true, uri[0]);
		wait_state(&s, 0, EMF_STORE_DRAINED);
		wait_left(&s, 0);
		expect_all(&s, i ? 4 : 3);
		scene_close(&s);
		servers_stop(n + 1);
	}
}

/* One that is dead is drained: onto those that are left. */
static void test_drain_dead(void **state)
{
	struct scene s;

	(void)state;
	NEED_NBDKIT();
	for (unsigned parity = 0; parity < 2; parity++) {
		unsigned n = 3 + parity;

		servers_start(n);
		scene_open(&s, uri, n, 1 + parity, 1, false, NULL);
		put_all(&s, 1);
		server_kill(&server[n - 1]);
		expect_all(&s, 1);
		done(&s, true, uri[n - 1]);
		wait_state(&s, n - 1, EMF_STORE_DRAINED);
		check_places(&s, n - 1);
		wait_whole(&s);
		server_kill(&server[0]);
		expect_all(&s, 1);
		scene_close(&s);
		servers_stop(n);
	}
}

/* Who comes when one is lost, as a child that is forked, finds all on the others. */
static void test_open_degraded(void **state)
{
	struct emf_queue *q;
	struct scene s;

	(void)state;
	NEED_NBDKIT();
	servers_start(2);
	scene_open(&s, uri, 2, 1, 1, false, NULL);
	put_all(&s, 1);
	server_kill(&server[0]);
	expect_all(&s, 1);
	q = s.q;
	s.q = queue_ok(s.st.top, EMF_QUEUE_DEMAND, 8);
	expect_all(&s, 1);
	s.q->ops->close(s.q);
	s.q = q;
	scene_close(&s);
	servers_stop(2);
}

/* Waits until something was moved, and something is left. */
static void wait_amid(struct scene *s, unsigned i, uint64_t of)
{
	uint64_t limit = now_ms() + LIMIT_MS;

	while (!s->stats[i].rebuild_bytes || s->stats[i].rebuild_bytes > of - 2 * MIB) {
		if (now_ms() > limit)
			fail_msg("%llu of %llu bytes are left",
				 (unsigned long long)s->stats[i].rebuild_bytes,
				 (unsigned long long)of);
		usleep(1000);
	}
}

/* The one that is drained dies in the middle: the rest is made from the others. */
static void test_drained_dies(void **state)
{
	(void)state;
	NEED_NBDKIT();
	for (unsigned parity = 0; parity < 2; parity++) {
		unsigned n = 2 + parity;
		struct scene s;

		servers_start(n + 1);
		rate = 16 * MIB;
		scene_open(&s, uri, n, 1 + parity, 1, false, NULL);
		rate = 1ull << 40;
		put_all(&s, 1);
		done(&s, false, uri[n]);
		done(&s, true, uri[0]);
		wait_amid(&s, 0, pool_used(s.st.places, 0));
		server_kill(&server[0]);
		expect_all(&s, 1);
		for (unsigned k = 0; k < SLOTS; k += 2) {
			pthread_mutex_lock(&held[k]);
			assert_int_equal(put(&s, k, 2), 0);
			pthread_mutex_unlock(&held[k]);
		}
		wait_state(&s, 0, EMF_STORE_DRAINED);
		wait_whole(&s);
		check_places(&s, 0);
		server_kill(&server[1]);
		for (unsigned k = 0; k < SLOTS; k++)
			expect(&s, k, k % 2 ? 1 : 2);
		scene_close(&s);
		servers_stop(n + 1);
	}
}

/* The new one dies in the middle and comes back empty, or is drained again. */
static void test_new_one_dies(void **state)
{
	(void)state;
	NEED_NBDKIT();
	for (unsigned back = 0; back < 2; back++) {
		struct scene s;

		servers_start(3);
		rate = 16 * MIB;
		scene_open(&s, uri, 2, 1, 1, false, NULL);
		rate = 1ull << 40;
		put_all(&s, 1);
		done(&s, false, uri[2]);
		while (pool_used(s.st.places, 2) < 4 * MIB)
			usleep(1000);
		server_kill(&server[2]);
		expect_all(&s, 1);
		put_held(&s, 2);
		expect_all(&s, 2);
		if (back) {
			server_again(&server[2], "-t", "1", "memory", "64M");
			wait_state(&s, 2, EMF_STORE_OK);
		} else {
			wait_state(&s, 2, EMF_STORE_DOWN);
			done(&s, true, uri[2]);
			wait_state(&s, 2, EMF_STORE_DRAINED);
		}
		wait_whole(&s);
		check_places(&s, back ? STORE_LEAVES : 2);
		server_kill(&server[0]);
		expect_all(&s, 2);
		scene_close(&s);
		servers_stop(3);
	}
}

/* One of the others dies while one is drained. */
static void test_other_dies(void **state)
{
	struct scene s;

	(void)state;
	NEED_NBDKIT();
	servers_start(4);
	rate = 16 * MIB;
	scene_open(&s, uri, 3, 2, 1, false, NULL);
	rate = 1ull << 40;
	put_all(&s, 1);
	done(&s, false, uri[3]);
	done(&s, true, uri[0]);
	wait_amid(&s, 0, pool_used(s.st.places, 0));
	server_kill(&server[1]);
	expect_all(&s, 1);
	put_held(&s, 2);
	expect_all(&s, 2);
	server_again(&server[1], "-t", "1", "memory", "64M");
	wait_state(&s, 0, EMF_STORE_DRAINED);
	wait_whole(&s);
	server_kill(&server[2]);
	expect_all(&s, 2);
	scene_close(&s);
	servers_stop(4);
}

/* --- without threads: what happens between two steps of a move --- */

static struct direct {
	struct toy toy[4];
	struct emf_backend *member[4], *mirror, *sums;
	struct emf_store_stats stats[STORE_LEAVES];
	struct emf_queue *q;
	unsigned char *buf, *back;
	/* What happens at the first such transfer of that toy. */
	const struct toy *at;
	enum emf_op op;
	void (*what)(void);
} d;

#define TOYS 4u

static const struct emf_parity *codec(void)
{
	char path[PATH_MAX + 64];
	const struct emf_parity *codec;

	snprintf(path, sizeof(path), "%s/link-parity.so", providers_dir());
	codec = dlsym(dlopen(path, RTLD_NOW | RTLD_LOCAL), "emf_parity");
	assert_non_null(codec);
	return codec;
}

static bool is_used(uint64_t slot)
{
	return !unused[slot];
}

static void nothing(uint64_t slot)
{
	(void)slot;
}

/* Two copies, or two parts and parity. */
static void open_parts(unsigned k)
{
	struct spread_options o = {
		.k = k,
		.m = 1,
		.codec = k > 1 ? codec() : NULL,
		.unit = 64 * KIB,
		.timeout_ms = 4000,
		.wake_fd = -1,
		.live = true,
		.hold = is_used,
		.release = nothing,
		.stats = d.stats,
	};

	d = (struct direct){ .buf = pages(SLOT), .back = pages(SLOT) };
	for (unsigned i = 0; i < TOYS; i++) {
		toy_init(&d.toy[i], 8 * MIB);
		d.toy[i].be.max_length = SLOT;
		d.toy[i].be.caps |= EMF_CAP_CUTS;
		assert_int_equal(reconnect_open(&d.toy[i].be, NULL, -1, &d.member[i]), 0);
	}
	assert_int_equal(redundant_open(d.member, k + 1, &o, &d.mirror), 0);
	assert_int_equal(checksum_open(d.mirror, STORE_CLUSTER, &d.sums), 0);
	redundant_set_sums(d.mirror, d.sums);
	checksum_trust(d.sums);
	d.q = queue_ok(d.sums, EMF_QUEUE_BULK, 4);
}

static void direct_open(void)
{
	open_parts(1);
}

static void direct_close(void)
{
	d.q->ops->close(d.q);
	d.sums->ops->close(d.sums);
	d.mirror->ops->close(d.mirror);
	for (unsigned i = 0; i < TOYS; i++) {
		d.member[i]->ops->close(d.member[i]);
		munmap(d.toy[i].mem, 8 * MIB);
	}
	munmap(d.buf, SLOT);
	munmap(d.back, SLOT);
}

static void direct_put(unsigned slot, unsigned version)
{
	fill(d.buf, SLOT, slot + version * 1000);
	assert_int_equal(transfer(d.q, EMF_WRITE, (uint64_t)slot * SLOT, SLOT, d.buf), 0);
}

static void direct_expect(unsigned slot, unsigned version)
{
	fill(d.buf, SLOT, slot + version * 1000);
	assert_int_equal(transfer(d.q, EMF_READ, (uint64_t)slot * SLOT, SLOT, d.back), 0);
	assert_memory_equal(d.buf, d.back, SLOT);
}

static void add_member(unsigned i)
{
	assert_int_equal(pool_add(d.mirror, i, d.member[i]), 0);
	d.q->ops->poll(d.q);
	reconnect_work(d.member[i], timer_now());
	d.q->ops->poll(d.q);
}

static void direct_add(void)
{
	add_member(2);
}

static void direct_work(void)
{
	uint64_t limit = now_ms() + LIMIT_MS;

	while (redundant_work(d.mirror, timer_now()) != UINT64_MAX) {
		if (now_ms() > limit)
			fail_msg("no end of it");
		d.q->ops->poll(d.q);
		usleep(1000);
	}
}

static uint64_t direct_stale(void)
{
	return redundant_stale(d.mirror, 0) + redundant_stale(d.mirror, 1) +
	       redundant_stale(d.mirror, 2);
}

/* Both copies of it are what was written, each at its place. */
static void direct_same(unsigned slot, unsigned version)
{
	const struct redundant *r = (const struct redundant *)d.mirror;

	fill(d.buf, SLOT, slot + version * 1000);
	assert_int_not_equal(member_of(r, slot, 0), member_of(r, slot, 1));
	for (unsigned c = 0; c < 2; c++) {
		uint32_t place = pool_look(&r->p, slot, c);

		assert_true(place != 0);
		assert_memory_equal(
		    d.buf, d.toy[PLACE_MEMBER(place)].mem + (size_t)PLACE_INDEX(place) * SLOT,
		    SLOT);
	}
	direct_expect(slot, version);
}

static void between(struct toy *t, const struct emf_io *io)
{
	if (t != d.at || io->op != d.op)
		return;
	d.at = NULL;
	d.what();
}

static void watch(unsigned toy, enum emf_op op, void (*what)(void))
{
	d.at = &d.toy[toy];
	d.op = op;
	d.what = what;
	for (unsigned i = 0; i < TOYS; i++)
		d.toy[i].before = between;
}

static void put_two(void)
{
	direct_put(0, 2);
}

/* The write fails on one, which may be where the column is moved from. */
static void put_two_of_one(void)
{
	for (unsigned i = 0; i < 2; i++) {
		d.toy[0].fail = i ? 0 : -EIO;
		if (!i)
			direct_put(0, 2);
	}
}

static void draining(void (*what)(void))
{
	static const struct {
		unsigned toy;
		enum emf_op op;
	} moment[] = { { 0, EMF_READ }, { 2, EMF_WRITE }, { 2, EMF_READ }, { 0, EMF_TRIM } };

	for (unsigned i = 0; i < 4; i++) {
		direct_open();
		direct_put(0, 1);
		direct_add();
		assert_int_equal(pool_drain(d.mirror, 0), 0);
		watch(moment[i].toy, moment[i].op, what);
		direct_work();
		assert_null(d.at);
		direct_same(0, 2);
		assert_int_equal(direct_stale(), 0);
		assert_int_equal(pool_used(d.mirror, 0), 0);
		assert_true(pool_is_leaving(d.mirror, 0));
		direct_close();
	}
}

/*
 * A write that was decided upon before the slot was held, and comes while it is moved: it is what
 * is read from then on, and nothing of it that failed is forgotten.
 */
static void test_write_between(void **state)
{
	(void)state;
	draining(put_two);
	draining(put_two_of_one);
}

static void put_second_part(void)
{
	assert_int_equal(transfer(d.q, EMF_WRITE, SLOT / 2, SLOT / 2, d.buf), 0);
}

/*
 * A part that had no place gets one while another part is on its way to the same member: only one
 * of them comes there.
 */
static void test_stays_apart(void **state)
{
	const struct redundant *r;
	unsigned from;

	(void)state;
	open_parts(2);
	assert_int_equal(transfer(d.q, EMF_WRITE, 0, SLOT / 2, d.buf), 0);
	r = (const struct redundant *)d.mirror;
	from = member_of(r, 0, 0);
	assert_int_equal(member_of(r, 0, 1), NOWHERE);
	add_member(3);
	assert_int_equal(pool_drain(d.mirror, from), 0);
	watch(3, EMF_WRITE, put_second_part);
	direct_work();
	assert_null(d.at);
	direct_put(0, 1);
	direct_expect(0, 1);
	for (unsigned a = 0; a < 3; a++)
		for (unsigned b = 0; b < a; b++)
			assert_int_not_equal(member_of(r, 0, a), member_of(r, 0, b));
	direct_close();
}

static unsigned seen;

static void look(void)
{
	seen++;
	direct_expect(0, 1);
	/* Both copies were right. */
	assert_int_equal(direct_stale(), 0);
}

/* Reads find it at any moment of a move. */
static void test_read_between(void **state)
{
	static const enum emf_op op[] = { EMF_READ, EMF_WRITE, EMF_READ, EMF_TRIM };
	static const unsigned toy[] = { 0, 2, 2, 0 };

	(void)state;
	for (unsigned i = 0; i < 4; i++) {
		direct_open();
		direct_put(0, 1);
		direct_add();
		assert_int_equal(pool_drain(d.mirror, 0), 0);
		watch(toy[i], op[i], look);
		seen = 0;
		direct_work();
		assert_int_equal(seen, 1);
		direct_same(0, 1);
		direct_close();
	}
}

static void fail_source(void)
{
	d.toy[0].fail = -EIO;
}

/* The one that is drained fails from the first read on: the other copy is what is put there. */
static void test_source_fails(void **state)
{
	(void)state;
	direct_open();
	for (unsigned i = 0; i < 3; i++)
		direct_put(i, 1);
	direct_add();
	assert_int_equal(pool_drain(d.mirror, 0), 0);
	watch(0, EMF_READ, fail_source);
	direct_work();
	assert_null(d.at);
	assert_true(pool_is_leaving(d.mirror, 0));
	for (unsigned i = 0; i < 3; i++)
		direct_same(i, 1);
	direct_close();
}

/* What is wrong on the one that is drained does not come along, nor does what arrives wrong. */
static void test_wrong(void **state)
{
	(void)state;
	direct_open();
	d.toy[0].damage = 2;
	for (unsigned i = 0; i < 3; i++)
		direct_put(i, 1);
	direct_add();
	d.toy[2].damage = 2;
	assert_int_equal(pool_drain(d.mirror, 0), 0);
	direct_work();
	assert_true(pool_is_leaving(d.mirror, 0));
	for (unsigned i = 0; i < 3; i++)
		direct_same(i, 1);
	direct_close();
}

/* Both copies are wrong: it stays where it is, and is not said to be drained. */
static void test_lost(void **state)
{
	(void)state;
	direct_open();
	direct_put(0, 1);
	direct_put(1, 1);
	d.toy[0].mem[0] ^= 1;
	d.toy[1].mem[0] ^= 1;
	direct_add();
	assert_int_equal(pool_drain(d.mirror, 0), 0);
	for (unsigned i = 0; i < 100 && pool_drain(d.mirror, 0) == -EALREADY; i++) {
		redundant_work(d.mirror, timer_now());
		d.q->ops->poll(d.q);
		usleep(10000);
	}
	assert_false(pool_is_leaving(d.mirror, 0));
	direct_expect(1, 1);
	assert_int_equal(transfer(d.q, EMF_READ, 0, SLOT, d.back), -EBADMSG);
	direct_close();
}

static unsigned doubtful_writes;

static void hang(struct toy *t, const struct emf_io *io)
{
	doubtful_writes += io->op == EMF_WRITE && io->offset == 0;
	t->hangs |= io->op == d.op && io->offset == 0;
}

static void go_on(void)
{
	assert_true(d.toy[0].hangs);
	d.toy[0].hangs = false;
	reconnect_work(d.member[0], timer_now());
	d.q->ops->poll(d.q);
}

static void hanging(enum emf_op op)
{
	direct_open();
	direct_put(0, 1);
	direct_add();
	assert_int_equal(pool_used(d.mirror, 0), SLOT);
	d.op = op;
	d.toy[0].before = hang;
	if (op == EMF_WRITE) {
		struct emf_io io = { .op = op, .length = SLOT, .buf = d.buf, .done = flag_done };
		bool ended = false;

		io.user = &ended;
		assert_int_equal(submit_wait(d.q, &io), 0);
		while (!ended) {
			d.q->ops->poll(d.q);
			if (d.toy[0].hangs && reconnect_is_down(d.member[0])) {
				d.op = EMF_READ;
				go_on();
			}
			usleep(1000);
		}
	}
	assert_int_equal(transfer(d.q, EMF_TRIM, 0, SLOT, NULL), 0);
	if (op == EMF_TRIM)
		go_on();
	d.op = EMF_READ;
	doubtful_writes = 0;
	for (unsigned i = 1; i < 4; i++)
		direct_put(i, 1);
	assert_int_equal(doubtful_writes, 0);
	assert_int_equal(pool_used(d.mirror, 0) + pool_used(d.mirror, 1) + pool_used(d.mirror, 2),
			 7 * SLOT);
	d.toy[0].before = NULL;
	direct_work();
	for (unsigned i = 1; i < 4; i++)
		direct_same(i, 1);
	direct_close();
}

/*
 * Where a trim, or a write, was cut off, and may still come to pass, no other slot gets the place.
 */
static void test_hanging(void **state)
{
	(void)state;
	hanging(EMF_TRIM);
	hanging(EMF_WRITE);
}

/* --- the patrol --- */

/* What it does in so many milliseconds in which nobody reads. */
static void patrol(unsigned ms)
{
	static uint64_t now;
	uint64_t end, next;

	now = now < timer_now() ? timer_now() : now;
	for (end = now + ms * 1000000ull; now < end; now = next) {
		next = redundant_patrol(d.mirror, now);
		if (next > end)
			break;
		direct_work();
	}
	now = end;
}

static uint64_t mended(void)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < TOYS; i++)
		n += d.stats[i].mended_bytes;
	return n;
}

static unsigned transfers(enum emf_op op)
{
	unsigned n = 0;

	for (unsigned i = 0; i < TOYS; i++)
		n += d.toy[i].transfers[op];
	return n;
}

/* What a member has of a slot's column. */
static unsigned char *at_member(unsigned slot, unsigned column)
{
	const struct redundant *r = (const struct redundant *)d.mirror;
	uint32_t place = pool_look(&r->p, slot, column);

	assert_true(place != 0);
	return d.toy[PLACE_MEMBER(place)].mem + PLACE_INDEX(place) * r->layout.column;
}

/*
 * One part of what was written arrives damaged, and one gets so where it lies: both are made good
 * while the others are there, though nobody has read them.
 */
static void test_patrol_mends(void **state)
{
	(void)state;
	for (unsigned k = 1; k < 3; k++) {
		unsigned n = k + 1;

		for (unsigned column = 0; column < n; column++) {
			open_parts(k);
			for (unsigned i = 0; i < 4; i++)
				direct_put(i, 1);
			*at_member(3, column) ^= 1;
			patrol(60000);
			assert_int_equal(mended(), SLOT / k);
			*at_member(1, column) ^= 1;
			patrol(60000);
			assert_int_equal(mended(), 2 * SLOT / k);
			memset(at_member(1, !column), 0, SLOT / k);
			memset(at_member(3, !column), 0, SLOT / k);
			for (unsigned i = 0; i < 4; i++)
				direct_expect(i, 1);
			direct_close();
		}
	}
}

/* What others have of the set is theirs to look at. */
static void test_patrol_leaves_others(void **state)
{
	(void)state;
	direct_open();
	direct_put(0, 1);
	direct_put(1, 1);
	patrol(60000);
	unused[1] = true;
	*at_member(1, 0) ^= 1;
	patrol(60000);
	assert_int_equal(mended(), 0);
	unused[1] = false;
	patrol(60000);
	assert_int_equal(mended(), SLOT);
	direct_same(1, 1);
	direct_close();
}

/* It reads at most ten slots a second, and next to none where nothing has been written. */
static void test_patrol_is_cheap(void **state)
{
	unsigned before;

	(void)state;
	direct_open();
	patrol(60000);
	assert_int_equal(transfers(EMF_READ), 0);
	for (unsigned i = 0; i < 4; i++)
		direct_put(i, 1);
	patrol(60000);
	before = transfers(EMF_READ);
	assert_true(before >= 4 * 2);
	patrol(600000);
	assert_true(transfers(EMF_READ) > before);
	assert_true(transfers(EMF_READ) - before <= 60 * 2);
	for (unsigned i = 0; i < 60; i++) {
		for (unsigned k = 0; k < 4; k++)
			direct_put(k, i);
		before = transfers(EMF_READ);
		patrol(1000);
		assert_true(transfers(EMF_READ) - before <= 11 * 2);
	}
	direct_close();
}

/* However much is written, what is not comes to its turn. */
static void test_patrol_beside_others(void **state)
{
	(void)state;
	direct_open();
	for (unsigned i = 0; i < 4; i++)
		direct_put(i, 1);
	patrol(60000);
	*at_member(3, 0) ^= 1;
	for (unsigned i = 0; i < 100 && !mended(); i++) {
		for (unsigned k = 0; k < 3; k++)
			direct_put(k, i);
		patrol(200);
	}
	direct_same(3, 1);
	direct_close();
}

/* A write comes while the patrol reads, or makes good: it is what is there then. */
static void test_patrol_beside_write(void **state)
{
	static const enum emf_op op[] = { EMF_READ, EMF_WRITE };

	(void)state;
	for (unsigned i = 0; i < 4; i++) {
		direct_open();
		direct_put(0, 1);
		*at_member(0, i / 2) ^= 1;
		watch(op[i % 2] == EMF_WRITE ? i / 2 : 1, op[i % 2], put_two);
		patrol(60000);
		assert_null(d.at);
		direct_same(0, 2);
		assert_int_equal(direct_stale(), 0);
		direct_close();
	}
}

static void lose_and_hang(struct toy *t, const struct emf_io *io)
{
	if (io->op != EMF_READ || t->hangs)
		return;
	t->before = NULL;
	t->hangs = true;
	memset(t->mem + io->offset, 0, io->length);
}

static void cut_at(unsigned slot)
{
	struct emf_io io = { .op = EMF_READ, .length = SLOT, .done = flag_done };
	bool ended = false;

	direct_open();
	for (unsigned i = 0; i < 4; i++)
		direct_put(i, 1);
	patrol(60000);
	d.toy[0].before = lose_and_hang;
	io.offset = (uint64_t)slot * SLOT;
	io.user = &ended;
	io.buf = d.back;
	assert_int_equal(submit_wait(d.q, &io), 0);
	while (!ended) {
		d.q->ops->poll(d.q);
		usleep(1000);
	}
	assert_int_equal(io.status, 0);
	assert_true(d.toy[0].hangs);
	d.toy[0].hangs = false;
	reconnect_work(d.member[0], timer_now());
	d.q->ops->poll(d.q);
	assert_int_equal(direct_stale(), 0);
	patrol(50);
	assert_true(mended() > 0);
	direct_same(slot, 1);
	direct_close();
}

/* A server made something else of a request, and never answered: what it was about is looked at
 * first. */
static void test_patrol_after_cut(void **state)
{
	(void)state;
	for (unsigned slot = 0; slot < 4; slot++)
		cut_at(slot);
}

/* A server that dies while nobody asks for anything is missed, and what it had made good. */
static void test_dies_idle(void **state)
{
	(void)state;
	NEED_NBDKIT();
	for (unsigned i = 0; i < 3; i++) {
		unsigned n = shapes[i].n;
		struct scene s;

		servers_start(n);
		scene_open(&s, uri, n, shapes[i].data, shapes[i].more, i % 2, NULL);
		put_held(&s, 1);
		server_kill(&server[1]);
		server_again(&server[1], "-t", "1", "memory", "64M");
		wait_state(&s, 1, EMF_STORE_REBUILDING);
		wait_state(&s, 1, EMF_STORE_OK);
		wait_whole(&s);
		server_kill(&server[0]);
		expect_all(&s, 1);
		scene_close(&s);
		servers_stop(n);
	}
}

static void wait_looked(struct scene *s)
{
	uint64_t limit = now_ms() + LIMIT_MS;

	for (unsigned i = 0; i < s->opt.nuri; i++)
		while (!atomic_load(&s->stats[i].looked_bytes)) {
			if (now_ms() > limit)
				fail_msg("nobody looks at store %u", i);
			usleep(1000);
		}
}

static void set_unused(bool all)
{
	for (unsigned i = 0; i < SLOTS; i++)
		unused[i] = all;
}

/* The end of a connection is seen though nothing is read, not even by the patrol. */
static void test_gone_at_rest(void **state)
{
	struct scene s;

	(void)state;
	NEED_NBDKIT();
	servers_start(2);
	scene_open(&s, uri, 2, 1, 1, false, NULL);
	put_held(&s, 1);
	wait_looked(&s);
	set_unused(true);
	server_kill(&server[1]);
	wait_state(&s, 1, EMF_STORE_DOWN);
	set_unused(false);
	server_again(&server[1], "-t", "1", "memory", "64M");
	wait_state(&s, 1, EMF_STORE_OK);
	wait_whole(&s);
	server_kill(&server[0]);
	expect_all(&s, 1);
	scene_close(&s);
	servers_stop(2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_patrol_beside_others),
		cmocka_unit_test(test_gone_at_rest),
		cmocka_unit_test(test_patrol_after_cut),
		cmocka_unit_test(test_patrol_mends),
		cmocka_unit_test(test_patrol_leaves_others),
		cmocka_unit_test(test_patrol_is_cheap),
		cmocka_unit_test(test_patrol_beside_write),
		cmocka_unit_test(test_dies_idle),
		cmocka_unit_test(test_write_between),
		cmocka_unit_test(test_read_between),
		cmocka_unit_test(test_source_fails),
		cmocka_unit_test(test_wrong),
		cmocka_unit_test(test_lost),
		cmocka_unit_test(test_hanging),
		cmocka_unit_test(test_add_and_drain),
		cmocka_unit_test(test_without_spare),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_grows),
		cmocka_unit_test(test_children),
		cmocka_unit_test(test_damage),
		cmocka_unit_test(test_stops),
		cmocka_unit_test(test_replaced),
		cmocka_unit_test(test_drain_dead),
		cmocka_unit_test(test_drained_dies),
		cmocka_unit_test(test_new_one_dies),
		cmocka_unit_test(test_other_dies),
		cmocka_unit_test(test_open_degraded),
		cmocka_unit_test(test_stays_apart),
	};

	if (getenv("EMF_TEST")) /* one alone */
		cmocka_set_test_filter(getenv("EMF_TEST"));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
