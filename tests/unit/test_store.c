/* SPDX-License-Identifier: Apache-2.0 */
/* The store chain: stripe, checksum, statistics, URIs, locks. */
#include "test_store_toy.h"

#include "../../include/emfatier-stats.h"
#include "../../src/store/reconnect.h"
#include "../../src/store/store.h"
#include "../../src/store/timer.h"
#include "../../src/store/xxh3.h"

#define SLOT (2u * MIB)

/* --- stripe --- */

static void test_stripe(void **state)
{
	static const char *const uri[] = { "mem:?size=24M", "mem:?size=17M&latency=20us",
					   "mem:?size=40M", "mem:?size=33M" };
	struct emf_backend *member[4], *be;

	(void)state;
	for (unsigned n = 1; n <= 4; n++) {
		for (uint64_t unit = 64 * KIB; unit <= 4 * MIB; unit *= 8) {
			uint64_t smallest = n == 1 ? 24 * MIB : 17 * MIB;
			struct model m = {
				.lane_size = SLOT, .lanes = 8, .steps = 300, .seed = unit + n
			};

			for (unsigned i = 0; i < n; i++)
				member[i] = open_ok("mem", uri[i], 0);
			assert_int_equal(stripe_open(member, n, unit, &be), 0);
			assert_int_equal(be->size, n * (smallest / unit * unit));
			assert_int_equal(be->caps & EMF_CAP_SYNC, n == 1);
			m.q = queue_ok(be, n % 2 ? EMF_QUEUE_BULK : EMF_QUEUE_DEMAND, 8);
			assert_int_equal(model_run(&m), 0);
			m.base = be->size - 8ull * SLOT;
			assert_int_equal(model_run(&m), 0);
			m.q->ops->close(m.q);
			be->ops->close(be);
			for (unsigned i = 0; i < n; i++)
				member[i]->ops->close(member[i]);
		}
	}
}

static void test_stripe_places(void **state)
{
	struct toy toy[3];
	struct emf_backend *member[3] = { &toy[0].be, &toy[1].be, &toy[2].be }, *be;
	unsigned char *buf = pages(SLOT);
	struct emf_queue *q;

	(void)state;
	for (unsigned i = 0; i < 3; i++)
		toy_init(&toy[i], 4 * MIB);
	assert_int_equal(stripe_open(member, 3, 100000, &be), -EINVAL);
	assert_int_equal(stripe_open(member, 3, 32 * KIB, &be), -EINVAL);
	assert_int_equal(stripe_open(member, 0, 64 * KIB, &be), -EINVAL);
	assert_int_equal(stripe_open(member, 3, 8 * MIB, &be), -ENOSPC);
	assert_int_equal(stripe_open(member, 3, 64 * KIB, &be), 0);
	q = queue_ok(be, EMF_QUEUE_BULK, 2);
	fill(buf, SLOT, 1);
	assert_int_equal(transfer(q, EMF_WRITE, 0, SLOT, buf), 0);
	for (unsigned u = 0; u < SLOT / (64 * KIB); u++)
		assert_memory_equal(toy[u % 3].mem + u / 3 * 64 * KIB, buf + u * 64 * KIB,
				    64 * KIB);
	/* A trim is one range for each member, cut to what it takes at once (96 KiB). */
	assert_int_equal(transfer(q, EMF_TRIM, 64 * KIB, 3 * 64 * KIB, NULL), 0);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(toy[i].transfers[EMF_TRIM], 1);
	assert_int_equal(transfer(q, EMF_TRIM, 0, 9 * 64 * KIB, NULL), 0);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(toy[i].transfers[EMF_TRIM], 3);
	/* Past the end, and one bad member. */
	assert_int_equal(transfer(q, EMF_WRITE, be->size - PAGE, 2 * PAGE, buf), -ENOSPC);
	assert_int_equal(transfer(q, EMF_READ, be->size, PAGE, buf), -EINVAL);
	toy[1].fail = -EIO;
	assert_int_equal(transfer(q, EMF_READ, 0, SLOT, buf), -EIO);
	assert_int_equal(transfer(q, EMF_READ, 0, 64 * KIB, buf), 0);
	q->ops->close(q);
	be->ops->close(be);
}

/* Members that have no room now and then; and a close with much in flight. */
static void test_stripe_full_members(void **state)
{
	struct toy toy[3];
	struct emf_backend *member[3] = { &toy[0].be, &toy[1].be, &toy[2].be }, *be;
	struct model m = { .lane_size = SLOT, .lanes = 4, .steps = 300, .seed = 5 };
	unsigned char *buf = pages(SLOT);
	bool ended = false;
	struct emf_io io = {
		.op = EMF_READ,
		.length = SLOT,
		.buf = buf,
		.done = flag_done,
		.user = &ended,
	};

	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		toy_init(&toy[i], 4 * MIB);
		toy[i].full_every = 2 + i;
	}
	assert_int_equal(stripe_open(member, 3, 64 * KIB, &be), 0);
	m.q = queue_ok(be, EMF_QUEUE_BULK, 4);
	assert_int_equal(model_run(&m), 0);
	assert_int_equal(m.q->ops->submit(m.q, &io), 0);
	assert_false(ended);
	m.q->ops->close(m.q);
	assert_true(ended);
	assert_int_equal(io.status, -ECANCELED);
	be->ops->close(be);
}

/* --- checksum --- */

static void test_xxh3(void **state)
{
	unsigned char *buf = pages(MIB);

	(void)state;
	fill(buf, MIB, 17);
	for (size_t n = 0; n <= MIB; n = n * 3 + 1)
		assert_true(xxh3_base(buf, n) != 0);
#ifdef __x86_64__
	if (!__builtin_cpu_supports("avx2")) {
		print_message("SKIPPED: no AVX2\n");
		skip();
	}
	for (size_t n = 0; n <= MIB; n = n * 3 + 1)
		assert_int_equal(xxh3_base(buf, n), xxh3_avx2(buf, n));
#endif
	munmap(buf, MIB);
}

static void test_checksum(void **state)
{
	struct toy toy;
	struct emf_backend *be;
	struct emf_queue *q;
	unsigned char *buf = pages(SLOT), *back = pages(SLOT);
	const uint64_t at = 4ull * MIB;

	(void)state;
	toy_init(&toy, 8 * MIB);
	toy.be.max_length = 8 * MIB;
	assert_int_equal(checksum_open(&toy.be, STORE_CLUSTER, &be), 0);
	assert_int_equal(be->size, 8 * MIB);
	q = queue_ok(be, EMF_QUEUE_DEMAND, 4);
	fill(buf, SLOT, 23);

	/* Never written. */
	assert_int_equal(transfer(q, EMF_READ, at, SLOT, back), -EBADMSG);
	assert_false(checksum_matches(be, at, SLOT, buf));

	/* A whole slot: readable as a whole and by the cluster, not by other pieces. */
	assert_int_equal(transfer(q, EMF_WRITE, at, SLOT, buf), 0);
	assert_true(checksum_matches(be, at, SLOT, buf));
	assert_true(checksum_matches(be, at + 64 * KIB, 128 * KIB, buf + 64 * KIB));
	assert_false(checksum_matches(be, at + 64 * KIB, 128 * KIB, buf));
	assert_false(checksum_matches(be, at + PAGE, PAGE, buf + PAGE));
	assert_false(checksum_matches(be, at, 0, buf));
	assert_false(checksum_matches(be, 8ull * MIB, PAGE, buf));
	assert_false(checksum_matches(be, UINT64_MAX - PAGE + 1, PAGE, buf));
	assert_int_equal(transfer(q, EMF_READ, at, SLOT, back), 0);
	assert_memory_equal(buf, back, SLOT);
	assert_int_equal(transfer(q, EMF_READ, at + 192 * KIB, 64 * KIB, back), 0);
	assert_int_equal(transfer(q, EMF_READ, at + 4 * KIB, 60 * KIB, back), -EBADMSG);
	assert_int_equal(transfer(q, EMF_READ, at, 4 * KIB, back), -EBADMSG);
	assert_int_equal(transfer(q, EMF_READ, at - 64 * KIB, 128 * KIB, back), -EBADMSG);

	/* Any one bit. */
	for (size_t bit = 7; bit < SLOT * 8ull; bit += SLOT * 8ull / 50 + 3) {
		uint64_t cluster = bit / 8 / (64 * KIB) * 64 * KIB;

		toy.mem[at + bit / 8] ^= (unsigned char)(1u << bit % 8);
		assert_int_equal(transfer(q, EMF_READ, at, SLOT, back), -EBADMSG);
		assert_int_equal(transfer(q, EMF_READ, at + cluster, 64 * KIB, back), -EBADMSG);
		toy.mem[at + bit / 8] ^= (unsigned char)(1u << bit % 8);
	}
	assert_int_equal(transfer(q, EMF_READ, at, SLOT, back), 0);

	/* A shorter write replaces the slot: the old rest must not pass, though it is there. */
	assert_int_equal(transfer(q, EMF_WRITE, at + 20 * KIB, 100 * KIB, buf), 0);
	assert_int_equal(transfer(q, EMF_READ, at + 20 * KIB, 100 * KIB, back), 0);
	assert_memory_equal(buf, back, 100 * KIB);
	assert_int_equal(transfer(q, EMF_READ, at, SLOT, back), -EBADMSG);
	assert_int_equal(transfer(q, EMF_READ, at + 128 * KIB, 64 * KIB, back), -EBADMSG);
	assert_int_equal(transfer(q, EMF_READ, at + 20 * KIB, 96 * KIB, back), -EBADMSG);
	assert_int_equal(transfer(q, EMF_READ, at + 24 * KIB, 96 * KIB, back), -EBADMSG);
	assert_int_equal(transfer(q, EMF_READ, at, 64 * KIB, back), -EBADMSG);

	/* A failed write leaves nothing known, a refused one changes nothing. */
	assert_int_equal(transfer(q, EMF_WRITE, at, SLOT, buf), 0);
	toy.fail = -EIO;
	assert_int_equal(transfer(q, EMF_WRITE, at, 64 * KIB, back), -EIO);
	toy.fail = 0;
	assert_int_equal(transfer(q, EMF_READ, at, SLOT, back), -EBADMSG);
	assert_false(checksum_matches(be, at, SLOT, buf));

	/* Trimmed. */
	assert_int_equal(transfer(q, EMF_WRITE, at, SLOT, buf), 0);
	assert_int_equal(transfer(q, EMF_TRIM, at, SLOT, NULL), 0);
	assert_int_equal(transfer(q, EMF_READ, at, SLOT, back), -EBADMSG);
	q->ops->close(q);
	be->ops->close(be);
	munmap(buf, SLOT);
	munmap(back, SLOT);
}

/* By the unit, of which a cluster has four: each is read alone, and a part of one is not. */
static void test_checksum_unit(void **state)
{
	unsigned char *buf = pages(SLOT), *back = pages(SLOT);
	struct emf_backend *be;
	struct emf_queue *q;
	struct toy toy;

	(void)state;
	toy_init(&toy, 2 * SLOT);
	toy.be.max_length = SLOT;
	assert_int_equal(checksum_open(&toy.be, STORE_UNIT, &be), 0);
	q = queue_ok(be, EMF_QUEUE_DEMAND, 4);
	fill(buf, SLOT, 29);
	assert_int_equal(transfer(q, EMF_WRITE, SLOT, SLOT, buf), 0);
	for (size_t at = 0; at < SLOT; at += STORE_UNIT) {
		assert_int_equal(transfer(q, EMF_READ, SLOT + at, STORE_UNIT, back), 0);
		assert_memory_equal(back, buf + at, STORE_UNIT);
		assert_int_equal(transfer(q, EMF_READ, SLOT + at, PAGE, back), -EBADMSG);
	}
	assert_int_equal(transfer(q, EMF_READ, SLOT + STORE_CLUSTER, STORE_CLUSTER, back), 0);

	/* One bit is the fault of its unit alone. */
	toy.mem[SLOT + STORE_UNIT + 5] ^= 1;
	assert_int_equal(transfer(q, EMF_READ, SLOT, STORE_UNIT, back), 0);
	assert_int_equal(transfer(q, EMF_READ, SLOT + STORE_UNIT, STORE_UNIT, back), -EBADMSG);
	assert_int_equal(transfer(q, EMF_READ, SLOT, STORE_CLUSTER, back), -EBADMSG);
	toy.mem[SLOT + STORE_UNIT + 5] ^= 1;

	/* What begins within a unit: there it ends with the unit. */
	assert_int_equal(transfer(q, EMF_WRITE, SLOT + PAGE, 5 * PAGE, buf), 0);
	assert_int_equal(transfer(q, EMF_READ, SLOT + PAGE, 3 * PAGE, back), 0);
	assert_int_equal(transfer(q, EMF_READ, SLOT + STORE_UNIT, 2 * PAGE, back), 0);
	assert_int_equal(transfer(q, EMF_READ, SLOT + STORE_UNIT, STORE_UNIT, back), -EBADMSG);
	assert_int_equal(transfer(q, EMF_READ, SLOT, STORE_UNIT, back), -EBADMSG);

	q->ops->close(q);
	be->ops->close(be);
	munmap(buf, SLOT);
	munmap(back, SLOT);
}

/* --- the whole chain --- */

static int open_store(struct store *st, const char *const *uri, unsigned n, const char *run_dir,
		      struct emf_store_stats *stats, char *err)
{
	struct store_options opt = {
		.uri = uri,
		.nuri = n,
		.stripe_unit = 256 * KIB,
		.timeout_ms = 1000,
		.provider_dir = providers_dir(),
		.run_dir = run_dir,
		.stats = stats,
	};

	err[0] = '\0';
	return store_open(st, &opt, err, 512);
}

static void run_store(struct store *st, unsigned steps)
{
	struct model m = {
		.lane_size = SLOT, .lanes = 8, .steps = steps, .seed = 77, .slots = true
	};

	m.q = queue_ok(st->top, EMF_QUEUE_BULK, 8);
	assert_int_equal(model_run(&m), 0);
	m.q->ops->close(m.q);
}

static void test_store_mem(void **state)
{
	static const char *const uri[] = { "mem:?size=64M", "mem:?size=64M&latency=50us" };
	struct emf_store_stats *stats = calloc(2, sizeof(*stats));
	unsigned char *buf = pages(SLOT);
	uint64_t reads = 0;
	struct emf_queue *q;
	struct store st;
	char err[512];

	(void)state;
	for (unsigned n = 1; n <= 2; n++) {
		assert_int_equal(open_store(&st, uri, n, NULL, stats, err), 0);
		assert_int_equal(st.nleaves, n);
		assert_int_equal(st.top->size, n * 64ull * MIB);
		assert_false(st.outlives);
		run_store(&st, 300);
		store_close(&st);
	}
	assert_string_equal(stats[1].uri, uri[1]);
	memset(stats, 0, 2 * sizeof(*stats));

	assert_int_equal(open_store(&st, uri, 2, NULL, stats, err), 0);
	q = queue_ok(st.top, EMF_QUEUE_DEMAND, 1);
	fill(buf, SLOT, 3);
	assert_int_equal(transfer(q, EMF_WRITE, 0, SLOT, buf), 0);
	assert_true(store_matches(&st, 0, SLOT, buf));
	assert_false(store_matches(&st, SLOT, SLOT, buf));
	assert_int_equal(transfer(q, EMF_READ, 0, SLOT, buf), 0);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(stats[i].written_bytes, SLOT / 2);
		assert_int_equal(stats[i].read_bytes, SLOT / 2);
		assert_int_equal(stats[i].errors, 0);
		assert_int_equal(stats[i].state, EMF_STORE_OK);
		assert_true(stats[i].read_latency.max > 0);
	}
	assert_true(stats[1].read_latency.max >= 50000);
	for (unsigned i = 0; i < EMF_STATS_BUCKETS; i++)
		reads += stats[0].read_latency.bucket[i];
	assert_int_equal(reads, SLOT / (256 * KIB) / 2);
	q->ops->close(q);
	store_close(&st);
	free(stats);
	munmap(buf, SLOT);
}

static void test_store_file_default(void **state)
{
	struct store st;
	char err[512], dir[] = "/var/tmp/emf-test-XXXXXX", sub[64];
	struct emf_store_stats *stats = calloc(1, sizeof(*stats));

	(void)state;
	assert_non_null(mkdtemp(dir));
	setenv("XDG_CACHE_HOME", dir, 1);
	assert_int_equal(open_store(&st, NULL, 0, NULL, stats, err), 0);
	snprintf(sub, sizeof(sub), "file:%s/emfatier", dir);
	assert_string_equal(stats->uri, sub);
	run_store(&st, 100);
	store_close(&st);
	assert_int_equal(rmdir(sub + strlen("file:")), 0);
	assert_int_equal(rmdir(dir), 0);

	setenv("XDG_CACHE_HOME", "/no/such/place", 1);
	assert_int_equal(open_store(&st, NULL, 0, NULL, stats, err), 0);
	assert_string_equal(stats->uri, "file:/var/tmp");
	store_close(&st);
	unsetenv("XDG_CACHE_HOME");
	assert_int_equal(open_store(&st, NULL, 0, NULL, stats, err), 0);
	assert_string_equal(stats->uri, "file:/var/tmp");
	store_close(&st);
	free(stats);
}

static void test_store_full(void **state)
{
	static const char *const uri[] = { "file:/var/tmp?size=4M" };
	struct emf_store_stats *stats = calloc(1, sizeof(*stats));
	unsigned char *buf = pages(SLOT);
	struct emf_queue *q;
	struct store st;
	char err[512];

	(void)state;
	assert_int_equal(open_store(&st, uri, 1, NULL, stats, err), 0);
	q = queue_ok(st.top, EMF_QUEUE_BULK, 1);
	assert_int_equal(transfer(q, EMF_WRITE, 2 * SLOT, SLOT, buf), -ENOSPC);
	assert_int_equal(stats->state, EMF_STORE_FULL);
	assert_int_equal(stats->errors, 1);
	assert_int_equal(transfer(q, EMF_WRITE, SLOT, SLOT, buf), 0);
	assert_int_equal(stats->state, EMF_STORE_OK);
	q->ops->close(q);
	store_close(&st);
	free(stats);
	munmap(buf, SLOT);
}

static void test_store_nbd(void **state)
{
	struct emf_store_stats *stats = calloc(2, sizeof(*stats));
	unsigned char *buf = pages(SLOT);
	struct server s[2];
	struct emf_queue *q;
	struct store st;
	char err[512];

	(void)state;
	NEED_NBDKIT();
	for (unsigned i = 0; i < 2; i++)
		server_start(&s[i], "memory", "64M");
	const char *const uri[] = { s[0].uri, s[1].uri };
	assert_int_equal(open_store(&st, uri, 2, NULL, stats, err), 0);
	assert_true(st.outlives);
	run_store(&st, 200);
	q = queue_ok(st.top, EMF_QUEUE_DEMAND, 1);
	assert_int_equal(transfer(q, EMF_WRITE, 0, SLOT, buf), 0);
	server_stop(&s[1]);
	assert_int_equal(transfer(q, EMF_READ, 0, SLOT, buf), -ENOTCONN);
	assert_int_equal(stats[0].state, EMF_STORE_OK);
	assert_int_equal(stats[1].state, EMF_STORE_DOWN);
	assert_true(stats[1].errors > 0);
	q->ops->close(q);
	store_close(&st);
	server_stop(&s[0]);
	free(stats);
	munmap(buf, SLOT);
}

/* A connection that is lost, and had again at once: the store is not shown as down for ever. */
static void test_back_at_once(void **state)
{
	struct emf_store_stats *stats = calloc(1, sizeof(*stats));
	unsigned char *buf = pages(PAGE);
	struct emf_backend *be;
	struct emf_queue *q;
	struct toy t;

	(void)state;
	toy_init(&t, MIB);
	assert_int_equal(reconnect_open(&t.be, stats, -1, &be), 0);
	q = queue_ok(be, EMF_QUEUE_DEMAND, 1);
	t.fail = -ENOTCONN;
	assert_int_equal(transfer(q, EMF_READ, 0, PAGE, buf), -ENOTCONN);
	assert_int_equal(stats->state, EMF_STORE_DOWN);
	t.fail = 0;
	assert_int_equal(reconnect_work(be, timer_now()), UINT64_MAX);
	assert_int_equal(stats->state, EMF_STORE_OK);
	assert_int_equal(transfer(q, EMF_READ, 0, PAGE, buf), 0);
	q->ops->close(q);
	be->ops->close(be);
	free(stats);
	munmap(t.mem, MIB);
	munmap(buf, PAGE);
}

static void store_fails(const char *const *uri, unsigned n, int rc, const char *line)
{
	struct store st;
	char err[512];
	int got = open_store(&st, uri, n, NULL, NULL, err);

	if ((rc && got != rc) || got >= 0 || !strstr(err, line) || strchr(err, '\n'))
		fail_msg("got %d '%s', expected %d '%s'", got, err, rc, line);
}

static void test_store_bad_uri(void **state)
{
	const char *many[17];

	(void)state;
	for (unsigned i = 0; i < 17; i++)
		many[i] = "mem:";
	store_fails(many, 17, -EINVAL, "at most 16");
#define FAILS(uri, rc, line) store_fails((const char *const[]){ uri }, 1, rc, line)
	FAILS("foo:bar", -EINVAL,
	      "store.uri: 'foo:bar': no provider 'foo'; use file:, numa:, dax:, mem:, rdma://, nbd:// or nbd+unix://");
	FAILS("", -EINVAL, "store.uri: '': not a URI");
	FAILS("nonsense", -EINVAL, "store.uri: 'nonsense': not a URI");
	FAILS("../../tmp/x:", -EINVAL, "not a URI");
	FAILS("mem:?size=many", -EINVAL, "store.uri: 'mem:?size=many': bad value in size=many");
	FAILS("file:/no/such/place/x", -ENOENT, "store.uri: 'file:/no/such/place/x': No such file");
	FAILS("nbd://me:secret@[::1", 0, "store.uri: 'nbd://[::1': ");
	FAILS("nbd+unix:///?socket=/no/such/socket", -ENOENT, "No such file");
	/* One good member does not stay open. */
	store_fails((const char *const[]){ "mem:", "foo:" }, 2, -EINVAL, "no provider 'foo'");
}

static void test_store_no_secrets(void **state)
{
	static const char *const uri[] = { "nbd://me:secret@127.0.0.1:1/x" };
	struct emf_store_stats *stats = calloc(1, sizeof(*stats));
	struct store st;
	char err[512];

	(void)state;
	assert_true(open_store(&st, uri, 1, NULL, stats, err) < 0);
	assert_null(strstr(err, "secret"));
	assert_non_null(strstr(err, "nbd://127.0.0.1:1/x"));
	free(stats);
}

static void test_store_lock(void **state)
{
	char dir[] = "/tmp/emf-test-XXXXXX", expect[96], err[512], path[320];
	int to_child[2], from_child[2];
	struct store st, second;
	struct server s;
	pid_t pid;
	char c = 0;

	(void)state;
	NEED_NBDKIT();
	assert_non_null(mkdtemp(dir));
	server_start(&s, "memory", "64M");
	const char *const uri[] = { s.uri, s.uri };
	assert_int_equal(open_store(&st, uri, 2, dir, NULL, err), -EINVAL);
	assert_non_null(strstr(err, "named twice"));

	/* A process that lives has it. */
	assert_int_equal(pipe(to_child), 0);
	assert_int_equal(pipe(from_child), 0);
	pid = fork();
	if (!pid) {
		bool ok = !open_store(&st, uri, 1, dir, NULL, err);

		(void)!write(from_child[1], ok ? "y" : "n", 1);
		(void)!read(to_child[0], &c, 1);
		_exit(0); /* without store_close */
	}
	assert_int_equal(read(from_child[0], &c, 1), 1);
	assert_int_equal(c, 'y');
	assert_int_equal(open_store(&second, uri, 1, dir, NULL, err), -EBUSY);
	snprintf(expect, sizeof(expect),
		 "in use by process %d; each process needs an export of its own", (int)pid);
	assert_non_null(strstr(err, expect));
	/* It ends: the space is free. */
	assert_int_equal(write(to_child[1], "x", 1), 1);
	waitpid(pid, NULL, 0);
	assert_int_equal(open_store(&second, uri, 1, dir, NULL, err), 0);
	/* A child that goes on with it keeps it, and finds there what the parent wrote. */
	unsigned char *buf = pages(SLOT);
	struct emf_queue *q = queue_ok(second.top, EMF_QUEUE_BULK, 1);
	memset(buf, 0x5a, SLOT);
	assert_int_equal(transfer(q, EMF_WRITE, SLOT, SLOT, buf), 0);
	pid = fork();
	if (!pid) {
		int fds[8], n = store_descriptors(&second, fds, 8);

		for (int i = 0; i < n; i++)
			fds[i] = dup(fds[i]);
		bool ok = n == 1 && !store_forked(&second, fds, NULL);
		memset(buf, 0, SLOT);
		ok = ok && !second.top->ops->queue_open(second.top, EMF_QUEUE_DEMAND, 1, &q) &&
		     !transfer(q, EMF_READ, SLOT, SLOT, buf) && buf[SLOT - 1] == 0x5a;
		(void)!write(from_child[1], ok ? "a" : "n", 1);
		(void)!read(to_child[0], &c, 1);
		_exit(0);
	}
	assert_int_equal(read(from_child[0], &c, 1), 1);
	assert_int_equal(c, 'a');
	q->ops->close(q);
	munmap(buf, SLOT);
	store_close(&second);
	assert_int_equal(open_store(&second, uri, 1, dir, NULL, err), -EBUSY);
	assert_int_equal(write(to_child[1], "x", 1), 1);
	waitpid(pid, NULL, 0);
	assert_int_equal(open_store(&second, uri, 1, dir, NULL, err), 0);
	store_close(&second);
	server_stop(&s);
	for (unsigned i = 0; i < 2; i++) {
		close(to_child[i]);
		close(from_child[i]);
	}

	DIR *d = opendir(dir);
	struct dirent *e;

	while ((e = readdir(d))) {
		snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);
		unlink(path);
	}
	closedir(d);
	assert_int_equal(rmdir(dir), 0);
}

/* --- several threads, a queue each --- */

static void test_store_threads(void **state)
{
	static const char *const uri[] = { "mem:?size=64M",
					   "mem:?size=32M&latency=10us&bandwidth=20G",
					   "file:/var/tmp?size=64M" };
	struct emf_store_stats *stats = calloc(3, sizeof(*stats));
	struct store st;
	char err[512];

	(void)state;
	assert_int_equal(open_store(&st, uri, 3, NULL, stats, err), 0);
	model_run_threads(st.top, &(struct model){ .lane_size = SLOT,
						   .lanes = 4,
						   .steps = 150,
						   .seed = 5,
						   .slots = true });
	store_close(&st);
	free(stats);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_stripe),
		cmocka_unit_test(test_stripe_places),
		cmocka_unit_test(test_stripe_full_members),
		cmocka_unit_test(test_xxh3),
		cmocka_unit_test(test_checksum),
		cmocka_unit_test(test_checksum_unit),
		cmocka_unit_test(test_store_mem),
		cmocka_unit_test(test_store_file_default),
		cmocka_unit_test(test_store_full),
		cmocka_unit_test(test_store_nbd),
		cmocka_unit_test(test_back_at_once),
		cmocka_unit_test(test_store_bad_uri),
		cmocka_unit_test(test_store_no_secrets),
		cmocka_unit_test(test_store_lock),
		cmocka_unit_test(test_store_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
