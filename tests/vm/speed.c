/* SPDX-License-Identifier: Apache-2.0 */
/*
 * speed URI: what the provider of the URI does, without what is above it. Prints "latency US
 * bandwidth MIB": the median of demand reads of 4 KiB, one at a time, and bulk reads of 1 MiB, eight
 * at once. Every read is checked.
 */
#include "../unit/test_store_util.h"

#define READS 400u
#define BULKS 48u
#define DEPTH 8u
#define SPACE (16u * MIB)

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static double latency(struct emf_backend *be, const unsigned char *want)
{
	struct emf_queue *q = queue_ok(be, EMF_QUEUE_DEMAND, 1);
	unsigned char *buf = pages(PAGE);
	uint64_t took[READS], seed = 9;

	for (unsigned i = 0; i < READS; i++) {
		uint64_t at = random_next(&seed) % (SPACE / PAGE) * PAGE, start = now_ns();

		assert_int_equal(transfer(q, EMF_READ, at, PAGE, buf), 0);
		took[i] = now_ns() - start;
		assert_memory_equal(buf, want + at, PAGE);
	}
	q->ops->close(q);
	qsort(took, READS, sizeof(took[0]), compare);
	return (double)took[READS / 2] / 1e3;
}

struct stream {
	struct emf_queue *q;
	unsigned started, ended;
	uint64_t until; /* ns: when the last was ended */
};

static void again(struct emf_io *io)
{
	struct stream *s = io->user;

	assert_int_equal(io->status, 0);
	s->ended++;
	s->until = now_ns();
	if (s->started == BULKS)
		return;
	io->offset = s->started++ * (uint64_t)MIB % SPACE;
	assert_int_equal(s->q->ops->submit(s->q, io), 0);
}

static double bandwidth(struct emf_backend *be, const unsigned char *want)
{
	struct stream s = { .q = queue_ok(be, EMF_QUEUE_BULK, DEPTH) };
	unsigned char *buf = pages(DEPTH * MIB);
	struct emf_io io[DEPTH];
	uint64_t start = now_ns();

	for (unsigned i = 0; i < DEPTH; i++) {
		io[i] = (struct emf_io){ .op = EMF_READ,
					 .offset = s.started++ * (uint64_t)MIB,
					 .length = MIB,
					 .buf = buf + i * MIB,
					 .done = again,
					 .user = &s };
		assert_int_equal(s.q->ops->submit(s.q, &io[i]), 0);
	}
	while (s.ended < BULKS)
		turn(s.q);
	for (unsigned i = 0; i < DEPTH; i++)
		assert_memory_equal(buf + i * MIB, want + io[i].offset, MIB);
	s.q->ops->close(s.q);
	return BULKS / ((double)(s.until - start) / 1e9);
}

static char *uri;

static void measure(void **state)
{
	struct emf_backend *be = open_ok("rdma", uri, 0);
	struct emf_queue *q = queue_ok(be, EMF_QUEUE_BULK, 1);
	unsigned char *want = pages(SPACE);
	double us, mib;

	(void)state;
	fill(want, SPACE, 4);
	assert_int_equal(transfer(q, EMF_WRITE, 0, SPACE, want), 0);
	q->ops->close(q);
	us = latency(be, want);
	mib = bandwidth(be, want);
	printf("latency %.1f bandwidth %.2f\n", us, mib);
	be->ops->close(be);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(measure) };

	if (argc != 2)
		return 2;
	uri = argv[1];
	return cmocka_run_group_tests(tests, NULL, NULL);
}
