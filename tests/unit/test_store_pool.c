/* SPDX-License-Identifier: Apache-2.0 */
/* A pool: it begins as a stripe; members join and are drained while it is used; what is refused. */
#include "test_store_live.h"
#include "test_store_toy.h"

#include "../../src/store/lock.h"
#include "../../src/store/pool_int.h"
#include "../../src/store/reconnect.h"
#include "../../src/store/timer.h"

static void scene_open(struct scene *s, const char *const *uri, unsigned n, bool encrypt,
		       const char *inject)
{
	live_options(s, uri, n, encrypt, inject);
	scene_start(s);
	assert_non_null(s->st.pool);
}

static const char *const two[] = { "mem:?size=64M&latency=1us", "mem:?size=64M&latency=2us" };

static void test_model(void **state)
{
	struct scene s;
	struct model m;

	(void)state;
	scene_open(&s, two, 2, false, NULL);
	assert_int_equal(store_capacity(&s.st), 128 * MIB);
	m = (struct model){
		.q = s.q,
		.lane_size = SLOT,
		.lanes = 8,
		.steps = 1500,
		.seed = 5,
		.slots = true,
		.changing = changing,
	};
	assert_int_equal(model_run(&m), 0);
	done(&s, false, "mem:?size=32M");
	m.seed = 6;
	m.steps = 3000;
	m.base = 8 * SLOT;
	assert_int_equal(model_run(&m), 0);
	scene_close(&s);
}

/* All comes to lie elsewhere and is right, whatever was written, or freed, meanwhile. */
static void add_and_drain(bool encrypt)
{
	struct scene s;
	unsigned third;

	scene_open(&s, two, 2, encrypt, NULL);
	put_all(&s, 1);
	assert_true(pool_used(s.st.pool, 0) >= SLOTS * SLOT / 3 &&
		    pool_used(s.st.pool, 1) >= SLOTS * SLOT / 3);
	third = done(&s, false, "mem:?size=64M&latency=3us");
	assert_int_equal(third, 2);
	wait_state(&s, third, EMF_STORE_OK);
	/* It has got its share of what was there. */
	assert_true(pool_used(s.st.pool, 2) >= pool_used(s.st.pool, 0) * 3 / 4);
	assert_int_equal(store_capacity(&s.st), 192 * MIB);
	expect_all(&s, 1);
	unused[3] = true; /* freed, and not trimmed yet */
	assert_int_equal(done(&s, true, two[0]), 0);
	for (unsigned i = 4; i < SLOTS; i += 3) {
		pthread_mutex_lock(&held[i]);
		assert_int_equal(put(&s, i, 2), 0);
		pthread_mutex_unlock(&held[i]);
		expect(&s, i, 2);
	}
	wait_state(&s, 0, EMF_STORE_DRAINED);
	assert_int_equal(s.stats[0].rebuild_bytes, 0);
	for (unsigned i = 0; i < SLOTS; i++)
		if (i != 3)
			expect(&s, i, i >= 4 && i % 3 == 1 ? 2 : 1);
	/* Let go of, it can come back, under the same number. */
	for (unsigned i = 0; i < 200; i++) {
		s.q->ops->poll(s.q);
		usleep(1000);
	}
	assert_int_equal(done(&s, false, two[0]), 0);
	wait_state(&s, 0, EMF_STORE_OK);
	unused[3] = false;
	put_all(&s, 3);
	expect_all(&s, 3);
	scene_close(&s);
}

static void test_add_and_drain(void **state)
{
	(void)state;
	add_and_drain(false);
}

static void test_encrypted(void **state)
{
	(void)state;
	add_and_drain(true);
}

static void test_refused(void **state)
{
	struct scene s;

	(void)state;
	scene_open(&s, two, 1, false, NULL);
	put_all(&s, 1);
	refused(&s, true, two[0], -ENODEV, "it is the last one");
	refused(&s, true, "mem:?size=3M", -ENOENT, "none of the stores");
	refused(&s, false, "nothing:", -EINVAL, "no provider 'nothing'");
	refused(&s, false, "no uri", -EINVAL, "not a URI");
	refused(&s, false, "mem:?size=x", -EINVAL, "mem:");
	children = true;
	refused(&s, false, "mem:?size=64M&latency=9us", -EBUSY, "forked children");
	refused(&s, true, two[0], -EBUSY, "forked children");
	children = false;
	assert_int_equal(done(&s, false, "mem:?size=4M&latency=9us"), 1);
	wait_state(&s, 1, EMF_STORE_OK);
	refused(&s, true, two[0], -ENOSPC, "MiB are on it, and the others have room for 0 MiB");
	expect_all(&s, 1);
	scene_close(&s);
}

/* A store that was full has room again. */
static void test_grows(void **state)
{
	struct scene s;
	unsigned i = 0;

	(void)state;
	scene_open(&s, two, 1, false, NULL);
	while (!put(&s, i, 1))
		i++;
	assert_int_equal(i, 32);
	refused(&s, false, "mem:?size=4K", -ENOSPC, "too small");
	assert_int_equal(times_grown, 0);
	done(&s, false, two[1]);
	assert_int_equal(times_grown, 1); /* before the answer */
	wait_state(&s, 1, EMF_STORE_OK);
	for (; i < 60; i++)
		assert_int_equal(put(&s, i, 1), 0);
	for (i = 0; i < 60; i++)
		expect(&s, i, 1);
	scene_close(&s);
}

static int put_whole(struct scene *s, unsigned slot, unsigned version)
{
	fill(s->buf, SLOT, slot + version * 1000);
	return transfer(s->q, EMF_WRITE, (uint64_t)slot * SLOT, SLOT, s->buf);
}

static void expect_whole(struct scene *s, unsigned slot, unsigned version)
{
	fill(s->buf, SLOT, slot + version * 1000);
	assert_int_equal(transfer(s->q, EMF_READ, (uint64_t)slot * SLOT, SLOT, s->back), 0);
	assert_memory_equal(s->buf, s->back, SLOT);
}

/* Who cleans up after a process that is killed has to know that slots lie elsewhere by then. */
static void test_drain_scatters(void **state)
{
	struct scene s;

	(void)state;
	scene_open(&s, two, 2, false, NULL);
	put_all(&s, 1);
	assert_int_equal(times_scattered, 0);
	done(&s, true, two[1]);
	assert_true(times_scattered > 0);
	scene_close(&s);
}

/* Members of different size: all room is used, and both from the start nearly to the end. */
static void test_sizes(void **state)
{
	static const char *const uri[] = { "mem:?size=16M&latency=1us",
					   "mem:?size=64M&latency=2us" };
	struct scene s;
	unsigned i;

	(void)state;
	scene_open(&s, uri, 2, false, NULL);
	assert_int_equal(store_capacity(&s.st), 80 * MIB);
	for (i = 0; i < 20; i++)
		assert_int_equal(put_whole(&s, i, 1), 0);
	assert_true(pool_used(s.st.pool, 0) > 8 * MIB && pool_used(s.st.pool, 0) < 16 * MIB);
	while (!put_whole(&s, i, 1))
		i++;
	assert_int_equal(i, 40);
	for (i = 0; i < 40; i++)
		expect_whole(&s, i, 1);
	scene_close(&s);
}

/*
 * One that is slower by far gets less as soon as that is known: of what is written anew, and of
 * what was there when it is written again.
 */
static void test_speeds(void **state)
{
	static const char *const uri[] = { "mem:?size=256M&bandwidth=40M",
					   "mem:?size=256M&bandwidth=400M" };
	uint64_t limit = now_ms() + LIMIT_MS, slow = 0, fast = 0;
	unsigned version = 0;
	struct scene s;

	(void)state;
	scene_open(&s, uri, 2, false, NULL);
	do {
		if (now_ms() > limit)
			fail_msg("%llu MiB on the slow one, %llu on the fast one",
				 (unsigned long long)slow / MIB, (unsigned long long)fast / MIB);
		version++;
		for (unsigned i = 0; i < SLOTS; i++)
			assert_int_equal(put_whole(&s, i, version), 0);
		slow = pool_used(s.st.pool, 0);
		fast = pool_used(s.st.pool, 1);
		assert_int_equal(slow + fast, SLOTS * SLOT);
	} while (slow > fast / 2);
	for (unsigned i = SLOTS; i < 2 * SLOTS; i++)
		assert_int_equal(put_whole(&s, i, version), 0);
	assert_true(pool_used(s.st.pool, 0) - slow < (pool_used(s.st.pool, 1) - fast) / 2);
	for (unsigned i = 0; i < 2 * SLOTS; i++)
		expect_whole(&s, i, version);
	scene_close(&s);
}

/* The new one has promised room that it has not; what was there is not lost, and the old one stays.
 */
static void test_stops(void **state)
{
	struct scene s;

	(void)state;
	scene_open(&s, two, 1, false, "2:full=1");
	put_all(&s, 1);
	done(&s, false, "mem:?size=64M&latency=4us");
	wait_state(&s, 1, EMF_STORE_OK);
	done(&s, true, two[0]);
	wait_state(&s, 0, EMF_STORE_OK);
	assert_int_equal(pool_used(s.st.pool, 1), 0);
	expect_all(&s, 1);
	put_all(&s, 2); /* goes to the one that works */
	expect_all(&s, 2);
	scene_close(&s);
}

/* What arrives damaged is read, and written, again: never believed. */
static void test_damage(void **state)
{
	struct scene s;

	(void)state;
	scene_open(&s, two, 1, false, "1:corrupt=0.05,2:corrupt=0.05,seed=3");
	for (unsigned i = 0; i < SLOTS; i++)
		assert_int_equal(put(&s, i, 1), 0);
	done(&s, false, "mem:?size=64M&latency=4us");
	done(&s, true, two[0]);
	wait_state(&s, 0, EMF_STORE_DRAINED);
	expect_all(&s, 1);
	scene_close(&s);
}

/* A drain waits for children to end, who find all meanwhile. */
static void test_children(void **state)
{
	struct scene s;

	(void)state;
	rate = 16 * MIB;
	scene_open(&s, two, 2, false, NULL);
	rate = 1ull << 40;
	put_all(&s, 1);
	done(&s, true, two[1]);
	children = true;
	usleep(2500000);
	assert_int_equal(s.stats[1].state, EMF_STORE_DRAINING);
	assert_true(s.stats[1].rebuild_bytes > 0);
	expect_all(&s, 1);
	children = false;
	wait_state(&s, 1, EMF_STORE_DRAINED);
	expect_all(&s, 1);
	scene_close(&s);
}

/* The old one is killed when it is empty. */
static void test_servers(void **state)
{
	struct scene s;
	struct server a, b;
	const char *uri[1];

	(void)state;
	NEED_NBDKIT();
	server_start(&a, "-t", "1", "memory", "64M");
	server_start(&b, "-t", "1", "memory", "64M");
	uri[0] = a.uri;
	scene_open(&s, uri, 1, false, NULL);
	put_all(&s, 1);
	refused(&s, false, a.uri, -EINVAL, "already");
	refused(&s, false, "nbd+unix:///?socket=/nowhere", -ENOENT, "nowhere");
	assert_int_equal(done(&s, false, b.uri), 1);
	assert_int_equal(done(&s, true, a.uri), 0);
	wait_state(&s, 0, EMF_STORE_DRAINED);
	server_kill(&a);
	expect_all(&s, 1);
	put_all(&s, 2);
	expect_all(&s, 2);
	scene_close(&s);
	server_stop(&b);
	rmdir(a.dir);
}

/* The other is away for a while: the drain waits for it. */
static void test_other_is_away(void **state)
{
	struct scene s;
	struct server a, b;
	const char *uri[1];
	char disk[80];

	(void)state;
	NEED_NBDKIT();
	server_start(&a, "-t", "1", "memory", "64M");
	strcpy(disk, "/tmp/emf-disk-XXXXXX");
	int fd = mkstemp(disk);
	assert_true(fd >= 0 && !ftruncate(fd, 64 * MIB));
	server_start(&b, "-t", "1", "file", disk);
	uri[0] = a.uri;
	scene_open(&s, uri, 1, false, NULL);
	put_all(&s, 1);
	done(&s, false, b.uri);
	wait_state(&s, 1, EMF_STORE_OK);
	server_kill(&b);
	for (unsigned i = 0; i < SLOTS; i++)
		assert_true(!put(&s, i, 2) || !put(&s, i, 2)); /* it is noticed; then elsewhere */
	wait_state(&s, 1, EMF_STORE_DOWN);
	done(&s, true, a.uri);
	for (unsigned i = 0; i < 500; i++) { /* rounds over all slots */
		usleep(1000);
		assert_int_equal(s.stats[0].state, EMF_STORE_DRAINING);
	}
	server_again(&b, "-t", "1", "file", disk);
	wait_state(&s, 0, EMF_STORE_DRAINED);
	expect_all(&s, 2);
	scene_close(&s);
	server_stop(&a);
	server_stop(&b);
	close(fd);
	unlink(disk);
}

/* Holds the lock of the space as the guard of a process does that is gone. Returns the holder. */
static pid_t hold_lock(const char *uri, const char *dir)
{
	int sync[2], status;
	pid_t pid, holder = 0;
	char err[256];

	assert_int_equal(pipe(sync), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		int fd = lock_space(uri, dir, 1000, err, sizeof(err));

		holder = fd < 0 ? -1 : fork();
		if (!holder) {
			alarm(60);
			for (;;)
				pause();
		}
		_exit(write(sync[1], &holder, sizeof(holder)) != sizeof(holder));
	}
	assert_int_equal(read(sync[0], &holder, sizeof(holder)), sizeof(holder));
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(holder > 0);
	close(sync[0]);
	close(sync[1]);
	return holder;
}

/*
 * A member that is being opened is not seen by who forks, not even in part: a child would use it.
 * One that is refused leaves what was shown of the one before.
 */
static void test_number_again(void **state)
{
	char dir[] = "/tmp/emf-run-XXXXXX", text[512], path[128];
	struct dirent *e;
	struct scene s;
	struct server a, b;
	const char *uri[2];
	unsigned index;
	pid_t holder;
	int rc;

	(void)state;
	NEED_NBDKIT();
	assert_non_null(mkdtemp(dir));
	server_start(&a, "-t", "1", "memory", "64M");
	server_start(&b, "-t", "1", "memory", "64M");
	uri[0] = a.uri;
	uri[1] = b.uri;
	run_dir = dir;
	scene_open(&s, uri, 2, false, NULL);
	run_dir = NULL;
	put_all(&s, 1);
	done(&s, true, a.uri);
	wait_state(&s, 0, EMF_STORE_DRAINED);
	wait_left(&s, 0);
	refused(&s, false, "mem:?size=4K", -ENOSPC, "too small");
	refused(&s, false, "nbd+unix:///?socket=/nowhere", -ENOENT, "nowhere");
	assert_int_equal(s.stats[0].state, EMF_STORE_DRAINED);
	assert_string_equal(s.stats[0].uri, a.uri);
	holder = hold_lock(a.uri, dir);
	assert_true(store_change_ask(&s.st, false, a.uri));
	scene_wake(&s);
	for (unsigned i = 0; i < 300; i++) {
		usleep(1000);
		still(true);
		bool whole = !s.st.leaf[0] || s.st.reconnect[0];
		still(false);
		assert_true(whole);
		assert_false(store_change_answer(&s.st, &rc, &index, text, sizeof(text)));
	}
	kill(holder, SIGKILL);
	while (!store_change_answer(&s.st, &rc, &index, text, sizeof(text)))
		usleep(1000);
	assert_int_equal(rc, 0);
	assert_int_equal(index, 0);
	wait_state(&s, 0, EMF_STORE_OK);
	expect_all(&s, 1);
	scene_close(&s);
	server_stop(&a);
	server_stop(&b);
	DIR *d = opendir(dir);
	while (d && (e = readdir(d)))
		if (snprintf(path, sizeof(path), "%s/%s", dir, e->d_name) > 0 &&
		    e->d_name[0] != '.')
			unlink(path);
	closedir(d);
	rmdir(dir);
}

/* --- without threads: what happens between two steps of a move --- */

#define UNIT (64u * KIB)
#define COLUMNS (SLOT / UNIT)

static struct direct {
	struct toy toy[2];
	struct emf_backend *member[2], *pool;
	struct emf_queue *q;
	unsigned char *buf, *back;
	/* The write in the middle: at the first such transfer of that toy. */
	const struct toy *at;
	enum emf_op op;
	uint64_t doubtful; /* where a trim was cut off */
} d;

static void direct_open(unsigned timeout_ms)
{
	struct spread_options o = { .unit = UNIT, .timeout_ms = timeout_ms, .wake_fd = -1 };

	d = (struct direct){ .buf = pages(SLOT), .back = pages(SLOT), .doubtful = UINT64_MAX };
	for (unsigned i = 0; i < 2; i++) {
		toy_init(&d.toy[i], 8 * MIB);
		assert_int_equal(reconnect_open(&d.toy[i].be, NULL, -1, &d.member[i]), 0);
	}
	assert_int_equal(pool_open(d.member, 1, &o, &d.pool), 0);
	d.q = queue_ok(d.pool, EMF_QUEUE_BULK, 4);
}

static void direct_close(void)
{
	d.q->ops->close(d.q);
	d.pool->ops->close(d.pool);
	for (unsigned i = 0; i < 2; i++) {
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

static void direct_add(void)
{
	assert_int_equal(pool_add(d.pool, 1, d.member[1]), 0);
	d.q->ops->poll(d.q);
	reconnect_work(d.member[1], timer_now());
	d.q->ops->poll(d.q);
}

static void direct_settle(void)
{
	uint64_t limit = now_ms() + LIMIT_MS;

	while (pool_work(d.pool, timer_now()) != UINT64_MAX) {
		if (now_ms() > limit)
			fail_msg("no end of it");
		usleep(1000);
	}
}

static void put_between(struct toy *t, const struct emf_io *io)
{
	if (t != d.at || io->op != d.op)
		return;
	d.at = NULL;
	direct_put(0, 2);
}

/*
 * A write that was decided upon before the slot was held, and comes while it is moved: it is what
 * is read from then on.
 */
static void test_write_between(void **state)
{
	static const struct {
		unsigned toy;
		enum emf_op op;
	} moment[] = { { 0, EMF_READ }, { 1, EMF_WRITE }, { 1, EMF_READ } };

	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		direct_open(40);
		direct_put(0, 1);
		direct_add();
		d.at = &d.toy[moment[i].toy];
		d.op = moment[i].op;
		d.toy[0].before = d.toy[1].before = put_between;
		direct_settle();
		assert_null(d.at);
		direct_expect(0, 2);
		assert_int_equal(pool_used(d.pool, 0), SLOT / 2);
		assert_int_equal(pool_used(d.pool, 1), SLOT / 2);
		direct_close();
	}
}

/* Who writes all the time where nothing is to be moved from keeps no member from being filled. */
static void test_write_beside(void **state)
{
	struct pool *p;

	(void)state;
	direct_open(40);
	for (unsigned i = 0; i < 4; i++)
		direct_put(i, 1);
	direct_add();
	p = (struct pool *)d.pool;
	atomic_fetch_add(&p->users[0], WRITER);
	direct_settle();
	assert_true(pool_is_state(p, 1, MEMBER_USED));
	assert_int_equal(pool_used(d.pool, 1), 2 * SLOT);
	atomic_fetch_sub(&p->users[0], WRITER);
	for (unsigned i = 0; i < 4; i++)
		direct_expect(i, 1);
	direct_close();
}

static void hang_at_trim(struct toy *t, const struct emf_io *io)
{
	if (io->op == EMF_TRIM && d.doubtful == UINT64_MAX) {
		d.doubtful = io->offset;
		t->hangs = true;
	}
	assert_false(io->op == EMF_WRITE && io->offset == d.doubtful);
}

/*
 * A member that does not answer any more holds up the store's thread, which others need, but once;
 * and where a trim may still come to pass nothing is written.
 */
static void test_hanging_trim(void **state)
{
	unsigned before;

	(void)state;
	direct_open(40);
	direct_put(0, 1);
	direct_put(1, 1);
	direct_add();
	d.toy[0].before = hang_at_trim;
	for (unsigned i = 0; d.doubtful == UINT64_MAX; i++) {
		before = d.toy[0].transfers[EMF_TRIM];
		pool_work(d.pool, timer_now());
		assert_true(d.toy[0].transfers[EMF_TRIM] - before <= 1);
		assert_true(i < 10000);
		usleep(1000);
	}
	d.toy[0].hangs = false;
	direct_settle();
	direct_expect(0, 1);
	direct_expect(1, 1);
	for (unsigned i = 0; i < 6; i++)
		direct_put(i, 2);
	for (unsigned i = 0; i < 6; i++)
		direct_expect(i, 2);
	direct_close();
}

static void hang_at_read(struct toy *t, const struct emf_io *io)
{
	t->hangs |= io->op == EMF_READ;
}

/* The store's thread comes back to one that has held it up, but not at once. */
static void test_hanging_read(void **state)
{
	(void)state;
	direct_open(2000);
	direct_put(0, 1);
	direct_put(1, 1); /* the round does not end with the first */
	direct_add();
	d.toy[0].before = hang_at_read;
	assert_true(pool_work(d.pool, timer_now()) > timer_now());
	d.toy[0].before = NULL;
	d.toy[0].hangs = false;
	direct_settle();
	direct_expect(0, 1);
	direct_close();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_model),	     cmocka_unit_test(test_add_and_drain),
		cmocka_unit_test(test_encrypted),    cmocka_unit_test(test_refused),
		cmocka_unit_test(test_grows),	     cmocka_unit_test(test_stops),
		cmocka_unit_test(test_damage),	     cmocka_unit_test(test_children),
		cmocka_unit_test(test_servers),	     cmocka_unit_test(test_other_is_away),
		cmocka_unit_test(test_number_again), cmocka_unit_test(test_write_between),
		cmocka_unit_test(test_write_beside), cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_speeds),	     cmocka_unit_test(test_drain_scatters),
		cmocka_unit_test(test_hanging_trim), cmocka_unit_test(test_hanging_read),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
