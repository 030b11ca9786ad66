/* SPDX-License-Identifier: Apache-2.0 */
/* What every provider must do, whatever is behind it. LANE: bytes that one of DEPTH transfers plays
 * in. */
#ifndef TEST_PROVIDER_RUNS_H
#define TEST_PROVIDER_RUNS_H

#include "test_store_util.h"

#define DEPTH 8u
#ifndef LANE
#define LANE (3u * MIB + 12u * KIB)
#endif

static inline void run_model(struct emf_backend *be, enum emf_queue_kind kind, unsigned steps)
{
	struct emf_queue *q = queue_ok(be, kind, DEPTH);
	struct model m = {
		.q = q, .lane_size = LANE, .lanes = DEPTH, .steps = steps, .seed = 4711
	};

	assert_int_equal(model_run(&m), 0);
	assert_int_equal(q->inflight, 0);
	assert_int_equal(q->ops->poll(q), 0);
	q->ops->close(q);
}

/* What every provider must refuse, and go on. */
static inline void run_bounds(struct emf_backend *be)
{
	struct emf_queue *q = queue_ok(be, EMF_QUEUE_DEMAND, 2);
	unsigned char *buf = pages(2 * PAGE);
	uint64_t last = be->size - PAGE;

	fill(buf, PAGE, 1);
	assert_int_equal(transfer(q, EMF_WRITE, last, PAGE, buf), 0);
	assert_int_equal(transfer(q, EMF_WRITE, last, 2 * PAGE, buf), -ENOSPC);
	assert_int_equal(transfer(q, EMF_WRITE, be->size, PAGE, buf), -ENOSPC);
	assert_int_equal(transfer(q, EMF_WRITE, UINT64_MAX - PAGE + 1, 2 * PAGE, buf), -ENOSPC);
	assert_int_equal(transfer(q, EMF_READ, be->size, PAGE, buf), -EINVAL);
	assert_int_equal(transfer(q, EMF_TRIM, be->size, PAGE, NULL), -EINVAL);
	assert_int_equal(transfer(q, EMF_READ, 512, PAGE, buf), -EINVAL);
	assert_int_equal(transfer(q, EMF_READ, 0, 0, buf), -EINVAL);
	assert_int_equal(transfer(q, EMF_READ, last, PAGE, buf + PAGE), 0);
	assert_memory_equal(buf, buf + PAGE, PAGE);
	q->ops->close(q);
	munmap(buf, 2 * PAGE);
}

static inline void count_done(struct emf_io *io)
{
	++*(unsigned *)io->user;
}

/* A full queue says so, and its close ends what is in flight. */
static inline void run_full_and_close(struct emf_backend *be)
{
	struct emf_queue *q = queue_ok(be, EMF_QUEUE_BULK, 2);
	unsigned char *buf = pages(3 * MIB);
	unsigned ended = 0;
	struct emf_io io[3];

	for (unsigned i = 0; i < 3; i++)
		io[i] = (struct emf_io){
			.op = EMF_WRITE,
			.status = 1,
			.offset = i * MIB,
			.length = MIB,
			.buf = buf + i * MIB,
			.done = count_done,
			.user = &ended,
		};
	assert_int_equal(q->ops->submit(q, &io[0]), 0);
	assert_int_equal(q->ops->submit(q, &io[1]), 0);
	assert_int_equal(q->ops->submit(q, &io[2]), -EAGAIN);
	assert_int_equal(q->inflight, 2);
	q->ops->close(q);
	assert_int_equal(ended, 2);
	assert_int_equal(io[0].status, -ECANCELED);
	assert_int_equal(io[1].status, -ECANCELED);
	munmap(buf, 3 * MIB);
}

static inline void run_all(struct emf_backend *be, unsigned steps)
{
	run_model(be, EMF_QUEUE_DEMAND, steps);
	run_model(be, EMF_QUEUE_BULK, steps);
	run_bounds(be);
	run_full_and_close(be);
}

#endif
