/* SPDX-License-Identifier: Apache-2.0 */
/* Tiers: where slots come to lie, by use; that they stay there; tiers that are full or fail. */
#include "test_store_scene.h"
#include "test_store_toy.h"

#include "../../src/store/hierarchy.h"

#define TIERS 3u
#define FIRST 16u /* slots of the first two tiers */
#define SECOND 40u
#define SLOTS 160u

static uint64_t chance;
static unsigned char want[SLOTS][64 * KIB]; /* of each slot the first cluster */
static uint64_t hits[TIERS]; /* reads of each tier, from some time on */

static const char *const three[] = { "mem:?size=1G", "mem:?size=1G&latency=3us&bandwidth=8G",
				     "mem:?size=1G&latency=20us&bandwidth=4G" };
static const uint8_t order[] = { 0, 1, 2 };

static void scene_open(struct scene *s, const char *inject)
{
	static const struct store_tier tier[TIERS] = { { FIRST * SLOT, 100, 95 },
						       { SECOND * SLOT, 95, 90 },
						       { 0, 95, 90 } };

	chance = 4711;
	memset(hits, 0, sizeof(hits));
	*s = (struct scene){ .opt = {
				     .uri = three,
				     .nuri = TIERS,
				     .tier = order,
				     .tiers = tier,
				     .stripe_unit = 512 * KIB,
				     .timeout_ms = 4000,
				     .rebuild_rate = 1ull << 40,
				     .inject = inject,
			     } };
	scene_start(s);
}

static void put(struct scene *s, unsigned slot)
{
	fill(s->buf, SLOT, slot);
	memcpy(want[slot], s->buf, sizeof(want[slot]));
	assert_int_equal(transfer(s->q, EMF_WRITE, (uint64_t)slot * SLOT, SLOT, s->buf), 0);
}

/* Only its first cluster: that is enough to be counted, and quick. */
static void read_once(struct scene *s, unsigned slot)
{
	int tier = hierarchy_tier_of(s->st.hierarchy, slot);

	assert_int_equal(transfer(s->q, EMF_READ, (uint64_t)slot * SLOT, 64 * KIB, s->back), 0);
	/* cmocka compares byte by byte: too slow for so many */
	assert_int_equal(memcmp(want[slot], s->back, sizeof(want[slot])), 0);
	hits[tier]++;
}

static void expect_all(struct scene *s)
{
	for (unsigned i = 0; i < SLOTS; i++) {
		fill(s->buf, SLOT, i);
		assert_int_equal(transfer(s->q, EMF_READ, (uint64_t)i * SLOT, SLOT, s->back), 0);
		assert_memory_equal(s->buf, s->back, SLOT);
	}
}

/* By a distribution: weights of slots, and their sum. */
static unsigned draw(const double *weight, double sum)
{
	double at = (double)(random_next(&chance) >> 11) / 9007199254740992.0 * sum;
	unsigned i = 0;

	while (i + 1 < SLOTS && at >= weight[i])
		at -= weight[i++];
	return i;
}

/* What the thread does now and then, once and at once: behind scene_stop. */
static void look(struct scene *s)
{
	static uint64_t clock = 1ull << 62; /* later than any time that it has set itself */

	hierarchy_work(s->st.hierarchy, clock++);
}

static uint64_t changes(const struct scene *s)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < TIERS; i++)
		n += s->stats[i].promoted + s->stats[i].demoted;
	return n;
}

static void test_oracle(void **state)
{
	struct scene s;
	double weight[SLOTS], sum = 0, oracle[TIERS] = { 0 }, sorted[SLOTS];
	unsigned place[TIERS] = { 0 }, n = 0;

	(void)state;
	scene_open(&s, NULL);
	scene_stop(&s);
	/* Zipf, and which slot has which rank is no matter of order. */
	for (unsigned i = 0; i < SLOTS; i++) {
		sorted[i] = 1.0 / (i + 1);
		weight[i * 77 % SLOTS] = sorted[i];
		sum += sorted[i];
	}
	for (unsigned i = 0; i < SLOTS; i++)
		put(&s, i);
	for (unsigned round = 0; round < 100; round++) {
		for (unsigned i = 0; i < 400; i++)
			read_once(&s, draw(weight, sum));
		look(&s);
	}
	memset(hits, 0, sizeof(hits));
	for (unsigned i = 0; i < 20000; i++)
		read_once(&s, draw(weight, sum));
	for (unsigned i = 0; i < SLOTS; i++)
		place[hierarchy_tier_of(s.st.hierarchy, i)]++;
	for (unsigned t = 0; t < TIERS; t++)
		for (unsigned i = 0; i < (t == 0   ? FIRST
					  : t == 1 ? SECOND
						   : SLOTS) &&
				     n < SLOTS;
		     i++)
			oracle[t] += sorted[n++] / sum;
	for (unsigned t = 0; t < TIERS; t++) {
		double got = (double)hits[t] / 20000;

		print_message("tier %u: %u slots, %.1f%% of the reads; oracle: %.1f%%\n", t + 1,
			      place[t], 100 * got, 100 * oracle[t]);
		assert_true(got > oracle[t] - 0.03 && got < oracle[t] + 0.03);
	}
	expect_all(&s);
	assert_true(s.stats[0].hits >= hits[0] && s.stats[0].tier == 1 && s.stats[2].tier == 3);
	scene_close(&s);
}

static void test_no_ping_pong(void **state)
{
	struct scene s;
	unsigned was[SLOTS], moves[SLOTS] = { 0 }, most = 0;
	uint64_t filled;

	(void)state;
	scene_open(&s, NULL);
	scene_stop(&s);
	for (unsigned i = 0; i < SLOTS; i++)
		put(&s, i);
	look(&s); /* what is over the marks goes down */
	filled = changes(&s);
	for (unsigned i = 0; i < SLOTS; i++)
		was[i] = (unsigned)hierarchy_tier_of(s.st.hierarchy, i);
	for (unsigned round = 0; round < 100; round++) {
		for (unsigned i = 0; i < 400; i++)
			read_once(&s, (unsigned)(random_next(&chance) % SLOTS));
		look(&s);
		for (unsigned i = 0; i < SLOTS; i++) {
			unsigned is = (unsigned)hierarchy_tier_of(s.st.hierarchy, i);

			moves[i] += is != was[i];
			was[i] = is;
		}
	}
	print_message("%u reads at random of %u slots: %llu moves between tiers\n", 40000, SLOTS,
		      (unsigned long long)(changes(&s) - filled));
	/* Not more than two there and back for each slot, in 250 reads of it. */
	assert_true(changes(&s) - filled < 2 * SLOTS);
	/* Nor of any one: each move makes the next less likely. */
	for (unsigned i = 0; i < SLOTS; i++)
		most = moves[i] > most ? moves[i] : most;
	print_message("%u of one slot at most\n", most);
	assert_true(most <= 4);
	expect_all(&s);
	scene_close(&s);
}

/* The marks: what is above them goes down, the least used first. */
static void test_watermarks(void **state)
{
	struct emf_queue *q;
	struct scene s;

	(void)state;
	scene_open(&s, NULL);
	scene_stop(&s);
	for (unsigned i = 0; i < FIRST; i++)
		put(&s, i);
	for (unsigned i = 0; i < FIRST; i++)
		assert_int_equal(hierarchy_tier_of(s.st.hierarchy, i), 0);
	put(&s, FIRST); /* passes the full one over */
	assert_int_equal(hierarchy_tier_of(s.st.hierarchy, FIRST), 1);
	for (unsigned i = 0; i < SECOND; i++)
		put(&s, FIRST + i);
	/* It is full, above its mark of 95%: down to 90% of 40 go to the third. */
	assert_int_equal(s.stats[2].used_bytes, 0);
	look(&s);
	assert_int_equal(s.stats[2].used_bytes, 4 * SLOT);
	assert_int_equal(s.stats[2].demoted, 4);
	/* A trim gives the place back. */
	for (unsigned i = 0; i < FIRST; i++)
		assert_int_equal(transfer(s.q, EMF_TRIM, (uint64_t)i * SLOT, SLOT, NULL), 0);
	assert_int_equal(hierarchy_tier_of(s.st.hierarchy, 0), -1);
	/* Asked by itself: the whole chain would try for all of store.timeout. */
	q = queue_ok(s.st.hierarchy, EMF_QUEUE_DEMAND, 1);
	assert_int_not_equal(transfer(q, EMF_READ, 0, SLOT, s.back), 0);
	q->ops->close(q);
	put(&s, 0);
	assert_int_equal(hierarchy_tier_of(s.st.hierarchy, 0), 0);
	scene_close(&s);
}

static void test_failing(void **state)
{
	struct scene s;

	(void)state;
	/* The first refuses all writes, the second some. */
	scene_open(&s, "1:full=1,2:error=0.2");
	for (unsigned i = 0; i < SLOTS; i++)
		put(&s, i);
	for (unsigned i = 0; i < SLOTS; i++)
		assert_in_range(hierarchy_tier_of(s.st.hierarchy, i), 1, 2);
	expect_all(&s);
	assert_true(s.stats[0].used_bytes == 0);
	scene_close(&s);
}

/* Random transfers while slots move, some transfers failing. */
static void test_model(void **state)
{
	(void)state;
	for (unsigned seed = 1; seed <= 2; seed++) {
		struct scene s;
		struct model m = {
			.lane_size = SLOT, .lanes = 8, .steps = 3000, .seed = seed, .slots = true
		};

		scene_open(&s, seed == 2 ? "corrupt=0.02" : NULL);
		m.q = s.q;
		for (unsigned i = 8; i < SLOTS; i++)
			put(&s, i);
		assert_int_equal(model_run(&m), 0);
		scene_close(&s);
	}
}

/* --- a move while the slot is written --- */

static struct emf_queue *writer; /* ends when a move writes to where the slot is to go */
static struct toy fast, slow;

/* What is written gets there only when it ends. */
static int late_submit(struct emf_queue *q, struct emf_io *io)
{
	struct toy_queue *tq = (struct toy_queue *)q;

	if (io->op != EMF_WRITE)
		return toy_submit(q, io);
	if (tq->toy == &slow && writer)
		writer->ops->poll(writer);
	q->inflight++;
	io->status = 0;
	io->next = tq->list;
	tq->list = io;
	return 0;
}

static int late_poll(struct emf_queue *q)
{
	struct toy_queue *tq = (struct toy_queue *)q;

	for (struct emf_io *io = tq->list; io; io = io->next)
		if (io->op == EMF_WRITE)
			memcpy(tq->toy->mem + io->offset, io->buf, io->length);
	return toy_poll(q);
}

static int late_open(struct emf_backend *be, enum emf_queue_kind kind, unsigned depth,
		     struct emf_queue **out)
{
	static const struct emf_queue_ops ops = {
		.submit = late_submit,
		.poll = late_poll,
		.pollfds = toy_pollfds,
		.close = toy_queue_close,
	};
	int rc = toy_queue_open(be, kind, depth, out);

	(*out)->ops = &ops;
	return rc;
}

static void late_init(struct toy *t)
{
	static const struct emf_backend_ops ops = { .queue_open = late_open };

	toy_init(t, 16 * SLOT);
	t->be.ops = &ops;
	t->be.max_length = SLOT;
}

static void ended(struct emf_io *io)
{
	*(bool *)io->user = true;
}

/* It begins before the look that finds the slot, and ends when the copy has been made. */
static void test_written_meanwhile(void **state)
{
	struct hierarchy_tier tier[2] = { { &fast.be, 0, 1, 0, NULL, 0 },
					  { &slow.be, 0, 95, 90, NULL, 0 } };
	unsigned char *buf = pages(SLOT), *back = pages(SLOT);
	struct emf_backend *h;
	bool done = false;

	(void)state;
	late_init(&fast);
	late_init(&slow);
	assert_int_equal(hierarchy_open(tier, 2, 4000, 1ull << 40, &h), 0);
	struct emf_queue *q = queue_ok(h, EMF_QUEUE_BULK, 4);
	fill(buf, SLOT, 1);
	assert_int_equal(transfer(q, EMF_WRITE, 0, SLOT, buf), 0);
	assert_int_equal(hierarchy_tier_of(h, 0), 0);
	fill(buf, SLOT, 2);
	struct emf_io io = {
		.op = EMF_WRITE, .length = SLOT, .buf = buf, .done = ended, .user = &done
	};
	assert_int_equal(q->ops->submit(q, &io), 0);
	writer = q;
	hierarchy_work(h, 1ull << 62);
	writer = NULL;
	assert_true(done);
	assert_int_equal(transfer(q, EMF_READ, 0, SLOT, back), 0);
	assert_memory_equal(buf, back, SLOT);
	/* The next move has it. */
	hierarchy_work(h, 1ull << 63);
	assert_int_equal(hierarchy_tier_of(h, 0), 1);
	assert_int_equal(transfer(q, EMF_READ, 0, SLOT, back), 0);
	assert_memory_equal(buf, back, SLOT);
	q->ops->close(q);
	h->ops->close(h);
}

static uint64_t doubtful; /* where a write was cut off */

static void hang_once(struct toy *t, const struct emf_io *io)
{
	if (io->op != EMF_WRITE)
		return;
	assert_int_not_equal(io->offset, doubtful);
	if (doubtful == UINT64_MAX) {
		doubtful = io->offset;
		t->hangs = true;
	}
}

/* A move's write that was cut off may come to pass after the next that is put there: none is. */
static void test_cut_off(void **state)
{
	struct hierarchy_tier tier[2] = { { &fast.be, 0, 1, 0, NULL, 0 },
					  { &slow.be, 0, 95, 90, NULL, 0 } };
	unsigned char *buf = pages(SLOT), *back = pages(SLOT);
	uint64_t limit = now_ms() + LIMIT_MS;
	struct emf_backend *h;

	(void)state;
	toy_init(&fast, 16 * SLOT);
	toy_init(&slow, 16 * SLOT);
	fast.be.max_length = slow.be.max_length = SLOT;
	slow.before = hang_once;
	doubtful = UINT64_MAX;
	assert_int_equal(hierarchy_open(tier, 2, 40, 1ull << 40, &h), 0);
	struct emf_queue *q = queue_ok(h, EMF_QUEUE_BULK, 4);
	fill(buf, SLOT, 1);
	assert_int_equal(transfer(q, EMF_WRITE, 0, SLOT, buf), 0);
	hierarchy_work(h, 1ull << 62);
	assert_true(slow.hangs);
	assert_int_equal(hierarchy_tier_of(h, 0), 0);
	slow.hangs = false;
	while (hierarchy_tier_of(h, 0) == 0) {
		assert_true(now_ms() < limit);
		usleep(10000);
		hierarchy_work(h, 1ull << 63);
	}
	assert_int_equal(transfer(q, EMF_READ, 0, SLOT, back), 0);
	assert_memory_equal(buf, back, SLOT);
	q->ops->close(q);
	h->ops->close(h);
}

static uint64_t address_space(void)
{
	unsigned long pages_now = 0;
	FILE *f = fopen("/proc/self/statm", "r");

	if (f && fscanf(f, "%lu", &pages_now) != 1)
		pages_now = 0;
	if (f)
		fclose(f);
	return (uint64_t)pages_now * PAGE;
}

/* A child can't share tiers: it gives back the memory in which they are. */
static void test_forgotten(void **state)
{
	struct scene s;
	int status;

	(void)state;
	scene_open(&s, NULL);
	put(&s, 0);
	pid_t pid = fork();
	assert_int_not_equal(pid, -1);
	if (!pid) {
		uint64_t before = address_space();
		store_forget(&s.st);
		_exit(before - address_space() < TIERS * 1024ull * MIB);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	read_once(&s, 0);
	scene_close(&s);
}

static void test_too_small(void **state)
{
	static const char *const uri[] = { "mem:?size=1M", "mem:?size=4M" };
	struct store_tier tier[2] = { { 0, 95, 90 }, { 0, 95, 90 } };
	struct store_options opt = { .uri = uri,
				     .nuri = 2,
				     .tier = order,
				     .tiers = tier,
				     .stripe_unit = 512 * KIB,
				     .timeout_ms = 100,
				     .provider_dir = providers_dir() };
	struct store st;
	char err[512] = "";

	(void)state;
	assert_int_equal(store_open(&st, &opt, err, sizeof(err)), -ENOSPC);
	assert_non_null(strstr(err, "store.uri"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_watermarks),
		cmocka_unit_test(test_failing),
		cmocka_unit_test(test_model),
		cmocka_unit_test(test_oracle),
		cmocka_unit_test(test_no_ping_pong),
		cmocka_unit_test(test_too_small),
		cmocka_unit_test(test_written_meanwhile),
		cmocka_unit_test(test_cut_off),
		cmocka_unit_test(test_forgotten),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
