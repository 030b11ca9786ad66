/* SPDX-License-Identifier: Apache-2.0 */
/* Mirror and parity over members that fail, lie, hang, go away and come back. */
#include "test_store_scene.h"
#include "test_store_toy.h"

#include "../../src/store/layout.h"
#include "../../src/store/reconnect.h"
#include "../../src/store/redundant.h"
#include "../../src/store/timer.h"

#define MEMBERS 6u
#define SLOTS 10u /* that a test uses */

static const char *uri[MEMBERS];

/* A program may have functions of the same names as what the codec uses: node has this one. */
__attribute__((visibility("default"))) unsigned char gf_mul(unsigned char a, unsigned char b);
unsigned char gf_mul(unsigned char a, unsigned char b)
{
	fail_msg("the codec calls the program's gf_mul(%u, %u)", a, b);
	return 0;
}

/* s.opt and uri may be changed before scene_start. */
static void scene_options(struct scene *s, unsigned n, unsigned data, unsigned more)
{
	for (unsigned i = 0; i < MEMBERS; i++)
		uri[i] = "mem:?size=128M";
	*s = (struct scene){ .opt = {
				 .uri = uri,
				 .nuri = n,
				 .stripe_unit = 512 * KIB,
				 .timeout_ms = 4000,
				 .rebuild_rate = 200 * MIB,
				 .data = data,
				 .more = more,
			     } };
}

static int put(struct scene *s, unsigned slot, uint64_t seed)
{
	fill(s->buf, SLOT, seed);
	return transfer(s->q, EMF_WRITE, (uint64_t)slot * SLOT, SLOT, s->buf);
}

static void expect(struct scene *s, unsigned slot, uint64_t seed)
{
	fill(s->buf, SLOT, seed);
	memset(s->back, 0xee, SLOT);
	assert_int_equal(transfer(s->q, EMF_READ, (uint64_t)slot * SLOT, SLOT, s->back), 0);
	assert_memory_equal(s->buf, s->back, SLOT);
	/* By the cluster, too. */
	memset(s->back, 0xee, 64 * KIB);
	size_t at = (seed * 7 % 32) * 64 * KIB;
	assert_int_equal(transfer(s->q, EMF_READ, (uint64_t)slot * SLOT + at, 64 * KIB, s->back),
			 0);
	assert_memory_equal(s->buf + at, s->back, 64 * KIB);
}

static void put_all(struct scene *s, uint64_t seed)
{
	for (unsigned i = 0; i < SLOTS; i++)
		assert_int_equal(put(s, i, seed + i), 0);
}

static void expect_all(struct scene *s, uint64_t seed)
{
	for (unsigned i = 0; i < SLOTS; i++)
		expect(s, i, seed + i);
}

static unsigned run_model(struct scene *s, unsigned steps, uint64_t seed)
{
	struct model m = { .q = s->q,
			   .lane_size = SLOT,
			   .lanes = 8,
			   .steps = steps,
			   .seed = seed,
			   .slots = true };

	return model_run(&m);
}

/* All ways to lay it out that the settings allow, more or less. */
static const struct {
	unsigned n, data, more;
} shapes[] = { { 2, 1, 1 }, { 3, 1, 1 }, { 3, 1, 2 }, { 3, 2, 1 }, { 4, 3, 1 },
	       { 5, 4, 1 }, { 6, 4, 2 }, { 6, 3, 2 }, { 6, 5, 1 } };
#define SHAPES (sizeof(shapes) / sizeof(shapes[0]))

/* --- where columns lie --- */

static void test_layout(void **state)
{
	static const uint64_t size[MEMBERS] = { 40 * MIB, 24 * MIB, 64 * MIB,
						24 * MIB, 9 * MIB,  33 * MIB };
	struct layout l;

	(void)state;
	assert_int_equal(layout_init(&l, size, 1, 1, 1), -EINVAL);
	assert_int_equal(layout_init(&l, (const uint64_t[]){ 64 * MIB, MIB }, 2, 1, 1), -ENOSPC);
	for (unsigned shape = 0; shape < SHAPES; shape++) {
		unsigned n = shapes[shape].n, width = shapes[shape].data + shapes[shape].more;
		unsigned char *used[MEMBERS];
		uint64_t total = 0, offset;

		assert_int_equal(layout_init(&l, size, n, shapes[shape].data, shapes[shape].more),
				 0);
		for (unsigned i = 0; i < n; i++)
			used[i] = calloc(size[i] / l.column + 1, 1);
		for (uint64_t s = 0; s < l.slots; s++) {
			unsigned seen = 0;

			for (unsigned c = 0; c < width; c++) {
				unsigned m = layout_place(&l, s, c, &offset);

				assert_true(m < n && offset % l.column == 0 &&
					    offset + l.column <= size[m]);
				assert_false(seen >> m & 1); /* each on another member */
				assert_int_equal(used[m][offset / l.column]++, 0);
				seen |= 1u << m;
				total += l.column;
			}
		}
		/* Nothing is left that would be enough for many more. */
		uint64_t all = 0;
		for (unsigned i = 0; i < n; i++)
			all += size[i];
		if (n > 2 && width < n)
			assert_true(total >= all / 2);
		for (unsigned i = 0; i < n; i++)
			free(used[i]);
	}
}

/* --- all is well --- */

static void test_redundant_model(void **state)
{
	(void)state;
	for (unsigned i = 0; i < SHAPES; i++) {
		struct scene s;

		scene_options(&s, shapes[i].n, shapes[i].data, shapes[i].more);
		uri[1] = "mem:?size=128M&latency=20us";
		s.opt.encrypt = i % 2;
		scene_start(&s);
		assert_int_equal(run_model(&s, 60, 11 + i), 0);
		for (unsigned m = 0; m < shapes[i].n; m++) {
			assert_int_equal(s.stats[m].errors, 0);
			assert_int_equal(s.stats[m].state, EMF_STORE_OK);
			assert_true(s.stats[m].written_bytes > 0);
			if (!s.stats[m].read_bytes)
				fail_msg("%u+%u of %u: member %u is never read", shapes[i].data,
					 shapes[i].more, shapes[i].n, m);
		}
		scene_close(&s);
	}
}

static void test_redundant_edges(void **state)
{
	struct scene s;

	(void)state;
	scene_options(&s, 5, 4, 1);
	scene_start(&s);
	assert_int_equal(transfer(s.q, EMF_WRITE, SLOT - PAGE, 2 * PAGE, s.buf), -EINVAL);
	assert_int_equal(transfer(s.q, EMF_WRITE, s.st.top->size, PAGE, s.buf), -ENOSPC);
	assert_int_equal(transfer(s.q, EMF_READ, 3 * SLOT, SLOT, s.back),
			 -EBADMSG); /* never written */
	assert_int_equal(put(&s, 3, 1), 0);
	assert_int_equal(transfer(s.q, EMF_TRIM, 3 * SLOT, SLOT, NULL), 0);
	assert_int_equal(transfer(s.q, EMF_READ, 3 * SLOT, SLOT, s.back), -EBADMSG);
	scene_close(&s);
}

/* --- members that lie, fail or hang --- */

/* As many as can be lost at once: whatever they do, nothing is seen of it. */
static void all_shapes(const char *fault)
{
	static unsigned first; /* half of them now, the others next time */

	for (unsigned i = first++ % 2; i < SHAPES; i += 2) {
		struct scene s;
		char inject[256] = "";

		scene_options(&s, shapes[i].n, shapes[i].data, shapes[i].more);
		for (unsigned m = 0; m < shapes[i].more; m++)
			snprintf(inject + strlen(inject), sizeof(inject) - strlen(inject),
				 "%s%u:%s", m ? "," : "", m + 1, fault);
		s.opt.inject = inject;
		scene_start(&s);
		if (run_model(&s, 40, 31 + i))
			fail_msg("%s, %u+%u of %u", fault, shapes[i].data, shapes[i].more,
				 shapes[i].n);
		scene_close(&s);
	}
}

static void test_redundant_errors(void **state)
{
	(void)state;
	all_shapes("error=0.4,seed=5");
}

static void test_redundant_corrupt(void **state)
{
	struct scene s;

	(void)state;
	all_shapes("corrupt=0.5");
	scene_options(&s, 2, 1, 1);
	s.opt.inject = "2:corrupt=1";
	scene_start(&s);
	put_all(&s, 1);
	expect_all(&s, 1);
	assert_int_equal(s.stats[0].errors, 0);
	assert_true(s.stats[1].errors > 0);
	scene_close(&s);
}

static void test_redundant_full(void **state)
{
	(void)state;
	all_shapes("full=0.5");
}

/* Connections that break, and are had again. */
static void test_redundant_cut(void **state)
{
	(void)state;
	all_shapes("cut=0.02");
}

/* A transfer that never ends: it is cut off, and the others do. */
static void test_redundant_stuck(void **state)
{
	struct scene s;

	(void)state;
	for (unsigned i = 0; i < SHAPES; i += 4) {
		scene_options(&s, shapes[i].n, shapes[i].data, shapes[i].more);
		s.opt.inject = "1:stuck=0.05";
		s.opt.timeout_ms = 2000;
		scene_start(&s);
		assert_int_equal(run_model(&s, 100, 51 + i), 0);
		scene_close(&s);
	}
}

/* A member that is only late gets its column all the same: another may be lost next. */
static void test_redundant_late_write(void **state)
{
	struct scene s;

	(void)state;
	for (unsigned parity = 0; parity < 2; parity++) {
		scene_options(&s, parity ? 3 : 2, parity ? 2 : 1, 1);
		s.opt.inject = "1:stuck=0.2";
		s.opt.timeout_ms = 20000;
		scene_start(&s);
		for (unsigned i = 0; i < SLOTS; i++) {
			assert_int_equal(put(&s, i, i), 0);
			if (s.stats[0].rebuild_bytes)
				fail_msg("parity %u, slot %u: written without one column", parity,
					 i);
		}
		scene_close(&s);
	}
}

/* More than can be lost: an error in time, no wrong data, and what is well is served. */
static void test_redundant_too_many(void **state)
{
	struct scene s;

	(void)state;
	for (unsigned parity = 0; parity < 2; parity++) {
		scene_options(&s, parity ? 4 : 2, parity ? 3 : 1, 1);
		s.opt.inject = parity ? "1:corrupt=1,2:corrupt=1" : "corrupt=1";
		s.opt.timeout_ms = 500;
		scene_start(&s);
		assert_int_equal(put(&s, 0, 5), 0);
		assert_true(transfer(s.q, EMF_READ, 0, SLOT, s.back) < 0);
		scene_close(&s);
		scene_options(&s, parity ? 4 : 2, parity ? 3 : 1, 1);
		s.opt.inject = parity ? "1:error=1,2:error=1" : "error=1";
		s.opt.timeout_ms = 500;
		scene_start(&s);
		assert_true(put(&s, 0, 5) < 0);
		assert_int_equal(transfer(s.q, EMF_TRIM, 0, SLOT, NULL), 0);
		scene_close(&s);
	}
}

/* --- rebuild --- */

static uint64_t left(struct scene *s)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < s->opt.nuri; i++)
		n += s->stats[i].rebuild_bytes;
	return n;
}

static bool all_ok(struct scene *s)
{
	for (unsigned i = 0; i < s->opt.nuri; i++)
		if (s->stats[i].state != EMF_STORE_OK)
			return false;
	return !left(s);
}

static bool wait_ok(struct scene *s)
{
	uint64_t limit = now_ms() + LIMIT_MS;

	while (!all_ok(s) && now_ms() < limit)
		usleep(5000);
	for (unsigned i = 0; !all_ok(s) && i < s->opt.nuri; i++)
		print_message("store %u: state %u, %llu bytes to rebuild, %llu errors\n", i,
			      s->stats[i].state, (unsigned long long)s->stats[i].rebuild_bytes,
			      (unsigned long long)s->stats[i].errors);
	return all_ok(s);
}

/*
 * One that is back is not said to be whole before what it may have lost is known: who believes it
 * may stop another.
 */
static void test_back_is_not_whole(void **state)
{
	uint64_t limit = now_ms() + LIMIT_MS;
	struct server server;
	struct scene s;

	(void)state;
	NEED_NBDKIT();
	scene_options(&s, 2, 1, 1);
	server_start(&server, "-t", "1", "memory", "128M");
	uri[0] = server.uri;
	scene_start(&s);
	put_all(&s, 1);
	server_kill(&server);
	expect_all(&s, 1);
	while (!reconnect_is_failing(s.st.reconnect[0]) && now_ms() < limit)
		usleep(1000);
	scene_stop(&s);
	server_again(&server, "-t", "1", "memory", "128M");
	while (reconnect_is_down(s.st.reconnect[0]) && now_ms() < limit)
		reconnect_work(s.st.reconnect[0], timer_now());
	assert_int_equal(s.stats[0].state, EMF_STORE_REBUILDING);
	while (!all_ok(&s) && now_ms() < limit) {
		scene_wake(&s);
		store_work(&s.st);
		s.q->ops->poll(s.q);
	}
	assert_true(all_ok(&s));
	expect_all(&s, 1);
	scene_close(&s);
	server_stop(&server);
}

/* What a member has missed or lost is made good; then another may be lost. */
static void test_redundant_rebuild(void **state)
{
	struct server server[MEMBERS];
	struct scene s;

	(void)state;
	NEED_NBDKIT();
	for (unsigned i = 0; i < SHAPES; i += 4) {
		scene_options(&s, shapes[i].n, shapes[i].data, shapes[i].more);
		for (unsigned m = 0; m < s.opt.nuri; m++) {
			server_start(&server[m], "-t", "1", "memory", "256M");
			uri[m] = server[m].uri;
		}
		scene_start(&s);
		put_all(&s, 100);
		/* One after the other is lost with all that it held, and comes back empty. */
		for (unsigned m = 0; m < s.opt.nuri; m++) {
			/* On a busy machine something may have been late. */
			assert_true(wait_ok(&s));
			server_kill(&server[m]);
			expect_all(&s, 100 + m);
			assert_int_equal(s.stats[m].state, EMF_STORE_DOWN);
			put_all(&s, 101 + m);
			expect_all(&s, 101 + m);
			server_again(&server[m], "-t", "1", "memory", "256M");
			if (!wait_ok(&s))
				fail_msg("shape %u, member %u: state %u, %llu bytes left", i, m,
					 s.stats[m].state, (unsigned long long)left(&s));
			expect_all(&s, 101 + m);
		}
		expect_all(&s, 100 + s.opt.nuri);
		scene_close(&s);
		for (unsigned m = 0; m < s.opt.nuri; m++)
			server_stop(&server[m]);
	}
}

/* Frozen: what is late is had elsewhere; when it goes on it is as before. */
static void test_redundant_frozen(void **state)
{
	struct server server[3];
	struct scene s;

	(void)state;
	NEED_NBDKIT();
	scene_options(&s, 3, 2, 1);
	for (unsigned m = 0; m < 3; m++) {
		server_start(&server[m], "-t", "1", "memory", "256M");
		uri[m] = server[m].uri;
	}
	scene_start(&s);
	put_all(&s, 7);
	assert_true(wait_ok(&s));
	assert_int_equal(kill(server[1].pid, SIGSTOP), 0);
	expect_all(&s, 7);
	put_all(&s, 8);
	expect_all(&s, 8);
	assert_int_equal(kill(server[1].pid, SIGCONT), 0);
	assert_true(wait_ok(&s));
	assert_int_equal(kill(server[0].pid, SIGSTOP), 0);
	expect_all(&s, 8);
	assert_int_equal(kill(server[0].pid, SIGCONT), 0);
	scene_close(&s);
	for (unsigned m = 0; m < 3; m++)
		server_stop(&server[m]);
}

/* --- without redundancy --- */

struct come_back {
	struct server *server;
	_Atomic bool came, stop;
};

/* While somebody waits for it. The server ends with this thread, so that stays. */
static void *come_back(void *arg)
{
	struct come_back *b = arg;

	usleep(300000);
	b->came = true;
	server_again(b->server, "file", "/dev/shm/emf-test-retry");
	while (!b->stop)
		usleep(10000);
	return NULL;
}

/* A store that comes back within the timeout costs the wait; one that does not, an error. */
static void test_retry(void **state)
{
	struct server server;
	struct scene s;
	struct come_back back = { .server = &server };
	pthread_t thread;

	(void)state;
	NEED_NBDKIT();
	scene_options(&s, 1, 0, 0);
	remove("/dev/shm/emf-test-retry");
	int fd = open("/dev/shm/emf-test-retry", O_RDWR | O_CREAT | O_TRUNC, 0600);
	assert_int_equal(ftruncate(fd, 64 * MIB), 0);
	close(fd);
	server_start(&server, "file", "/dev/shm/emf-test-retry");
	uri[0] = server.uri;
	scene_start(&s);
	assert_int_equal(put(&s, 0, 1), 0);
	server_kill(&server);
	assert_int_equal(pthread_create(&thread, NULL, come_back, &back), 0);
	expect(&s, 0, 1);
	assert_true(back.came);
	assert_true(wait_ok(&s));
	assert_int_equal(put(&s, 1, 2), 0);
	server_kill(&server);
	assert_true(put(&s, 2, 3) < 0);
	assert_true(transfer(s.q, EMF_READ, 0, SLOT, s.back) < 0);
	assert_int_equal(s.stats[0].state, EMF_STORE_DOWN);
	scene_close(&s);
	back.stop = true;
	pthread_join(thread, NULL);
	server_stop(&server);
	unlink("/dev/shm/emf-test-retry");
}

/* A reply that was damaged on its way is asked for again. */
static void test_retry_damaged(void **state)
{
	struct scene s;

	(void)state;
	scene_options(&s, 1, 0, 0);
	s.opt.inject = "corrupt=0.3,error=0.1,seed=3";
	scene_start(&s);
	for (unsigned i = 0; i < 10; i++)
		while (put(&s, i, i))
			;
	for (unsigned i = 0, bad = 0; i < 10; i++) {
		int rc = transfer(s.q, EMF_READ, (uint64_t)i * SLOT, SLOT, s.back);

		fill(s.buf, SLOT, i);
		if (!rc)
			assert_memory_equal(s.buf, s.back, SLOT);
		bad += rc != 0;
		assert_true(bad < 3); /* 4 in a row: 0.8% */
	}
	scene_close(&s);
}

/*
 * So is what the server takes for a bad request: it was damaged on its way there, or the answer was
 * on its way back.
 */
static void test_retry_refused(void **state)
{
	struct server server;
	struct scene s;

	(void)state;
	NEED_NBDKIT();
	scene_options(&s, 1, 0, 0);
	server_start(&server, "-t", "1", "--filter=error", "memory", "64M", "error=EINVAL",
		     "error-pread-rate=20%");
	uri[0] = server.uri;
	scene_start(&s);
	for (unsigned i = 0; i < 10; i++)
		assert_int_equal(put(&s, i, i), 0);
	for (unsigned i = 0; i < 10; i++)
		expect(&s, i, i);
	assert_true(s.stats[0].errors > 0);
	scene_close(&s);
	server_stop(&server);
}

/* --- two copies, without threads --- */

static struct direct {
	struct toy toy[2];
	struct emf_backend *member[2], *mirror, *sums;
	struct emf_queue *q;
	unsigned char *all, *back; /* what is stored */
} d;

static void direct_open(void)
{
	struct spread_options o = {
		.k = 1, .m = 1, .unit = 64 * KIB, .timeout_ms = 4000, .wake_fd = -1
	};

	d = (struct direct){ .all = pages(SLOTS * SLOT), .back = pages(SLOT) };
	for (unsigned i = 0; i < 2; i++) {
		toy_init(&d.toy[i], 32 * MIB);
		d.toy[i].be.max_length = SLOT;
		d.toy[i].be.caps |= EMF_CAP_CUTS;
		assert_int_equal(reconnect_open(&d.toy[i].be, NULL, -1, &d.member[i]), 0);
	}
	assert_int_equal(redundant_open(d.member, 2, &o, &d.mirror), 0);
	assert_int_equal(checksum_open(d.mirror, STORE_CLUSTER, &d.sums), 0);
	redundant_set_sums(d.mirror, d.sums);
	checksum_trust(d.sums);
	d.q = queue_ok(d.sums, EMF_QUEUE_DEMAND, 1);
	fill(d.all, SLOTS * SLOT, 1);
}

static void direct_close(void)
{
	d.q->ops->close(d.q);
	d.sums->ops->close(d.sums);
	d.mirror->ops->close(d.mirror);
	for (unsigned i = 0; i < 2; i++) {
		d.member[i]->ops->close(d.member[i]);
		munmap(d.toy[i].mem, 32 * MIB);
	}
	munmap(d.all, SLOTS * SLOT);
	munmap(d.back, SLOT);
}

static void direct_put(unsigned slot)
{
	uint64_t at = (uint64_t)slot * SLOT;

	assert_int_equal(transfer(d.q, EMF_WRITE, at, SLOT, d.all + at), 0);
}

static void direct_expect(uint64_t at, size_t length)
{
	assert_int_equal(transfer(d.q, EMF_READ, at, length, d.back), 0);
	assert_memory_equal(d.all + at, d.back, length);
}

static void direct_work(void)
{
	uint64_t limit = now_ms() + LIMIT_MS;

	while (redundant_work(d.mirror, timer_now()) != UINT64_MAX) {
		assert_true(now_ms() < limit);
		usleep(1000);
	}
}

/* Both members have the same: the copies lie at the same places. */
static void direct_same(void)
{
	assert_memory_equal(d.toy[0].mem, d.toy[1].mem, SLOTS * SLOT);
}

/*
 * A copy that is wrong comes out however often the same is read; then all of its member are looked
 * at, and what is made good is looked at once more: its way may be what is bad.
 */
static void test_wrong_copies(void **state)
{
	(void)state;
	for (unsigned bad = 0; bad < 2; bad++) {
		direct_open();
		d.toy[bad].damage = SLOTS;
		for (unsigned i = 0; i < SLOTS; i++)
			direct_put(i);
		direct_expect(0, 64 * KIB);
		direct_expect(0, 64 * KIB);
		d.toy[bad].damage = 3;
		direct_work();
		direct_same();
		assert_int_equal(d.toy[bad].damage, 0);
		for (unsigned i = 0; i < SLOTS; i++)
			direct_expect((uint64_t)i * SLOT, SLOT);
		direct_close();
	}
}

static unsigned armed; /* 2: something was made good, and is not read back yet */

static void put_between(struct toy *t, const struct emf_io *io)
{
	if (armed == 1 && io->op == EMF_WRITE) {
		armed = 2;
	} else if (armed == 2 && io->op == EMF_READ) {
		armed = 0;
		fill(d.all, SLOT, 2);
		d.toy[1].fail = -EIO;
		direct_put(0);
		d.toy[1].fail = 0;
	}
	(void)t;
}

/*
 * A write that was decided upon before the slot was held, and comes while it is made good: what it
 * failed to write is not forgotten.
 */
static void test_write_between(void **state)
{
	(void)state;
	direct_open();
	d.toy[0].damage = 1;
	direct_put(0);
	direct_expect(0, 64 * KIB);
	direct_expect(0, 64 * KIB);
	d.toy[0].before = put_between;
	armed = 1;
	direct_work();
	assert_int_equal(armed, 0);
	assert_memory_equal(d.toy[0].mem, d.all, SLOT);
	assert_memory_equal(d.toy[1].mem, d.all, SLOT);
	direct_close();
}

static void hang(struct toy *t, const struct emf_io *io)
{
	t->hangs |= io->op == EMF_TRIM;
}

/* A trim that was cut off comes to pass after the next write there: that is looked at once more. */
static void test_late_trim(void **state)
{
	(void)state;
	direct_open();
	direct_put(0);
	d.toy[0].before = hang;
	assert_int_equal(transfer(d.q, EMF_TRIM, 0, SLOT, NULL), 0);
	assert_true(d.toy[0].hangs);
	d.toy[0].before = NULL;
	d.toy[0].hangs = false;
	reconnect_work(d.member[0], timer_now());
	d.q->ops->poll(d.q);
	direct_put(0);
	memset(d.toy[0].mem, 0, SLOT);
	direct_work();
	direct_same();
	direct_expect(0, SLOT);
	direct_close();
}

static bool sluggish;

static void drag(struct toy *t, const struct emf_io *io)
{
	(void)t;
	if (sluggish && io->op == EMF_READ)
		usleep(5000);
}

/* Reads of the first toy, of so many of both. */
static unsigned of_first(unsigned reads)
{
	unsigned before = d.toy[0].transfers[EMF_READ];

	for (unsigned i = 0; i < reads; i++)
		direct_expect((uint64_t)(i % SLOTS) * SLOT + i * 7 % 32 * 64 * KIB, 64 * KIB);
	return d.toy[0].transfers[EMF_READ] - before;
}

/* Copies of a slow member are read elsewhere, but for a few that tell when it is not any more. */
static void test_slow(void **state)
{
	uint64_t limit = now_ms() + LIMIT_MS;
	unsigned n;

	(void)state;
	direct_open();
	for (unsigned i = 0; i < SLOTS; i++)
		direct_put(i);
	d.toy[0].before = drag;
	sluggish = true;
	n = of_first(400);
	assert_true(n > 0 && n < 40);
	sluggish = false;
	while (of_first(400) < 100)
		assert_true(now_ms() < limit);
	direct_close();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_slow),
		cmocka_unit_test(test_wrong_copies),
		cmocka_unit_test(test_write_between),
		cmocka_unit_test(test_late_trim),
		cmocka_unit_test(test_layout),
		cmocka_unit_test(test_redundant_model),
		cmocka_unit_test(test_redundant_edges),
		cmocka_unit_test(test_redundant_errors),
		cmocka_unit_test(test_redundant_corrupt),
		cmocka_unit_test(test_redundant_full),
		cmocka_unit_test(test_redundant_cut),
		cmocka_unit_test(test_redundant_stuck),
		cmocka_unit_test(test_redundant_late_write),
		cmocka_unit_test(test_redundant_too_many),
		cmocka_unit_test(test_back_is_not_whole),
		cmocka_unit_test(test_redundant_rebuild),
		cmocka_unit_test(test_redundant_frozen),
		cmocka_unit_test(test_retry),
		cmocka_unit_test(test_retry_damaged),
		cmocka_unit_test(test_retry_refused),
	};

	if (getenv("EMF_TEST")) /* one alone */
		cmocka_set_test_filter(getenv("EMF_TEST"));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
