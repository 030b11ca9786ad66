/* SPDX-License-Identifier: Apache-2.0 */
/* tierstat why: each cause from two readings that were made up to show it, and nothing else. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

/* the tool's own, which no library holds */
#include "../../tools/tierstat/hist.c"
#include "../../tools/tierstat/text.c"
#include "../../tools/tierstat/why.c"

#define MIB (1ull << 20)
#define S 1000000000ull

static struct emf_stats before, now;
static struct why_input in;
static struct why w;

/* A read of so long, n times in the interval. */
static void reads(unsigned store, unsigned n, uint64_t ns)
{
	now.store[store].read_latency.bucket[emf_hist_bucket(ns)] += n;
	now.store[store].read_bytes += n * 2 * MIB;
	now.fetched_bytes += n * 2 * MIB;
}

/* A sweep over twice its budget: half of the time waiting, everything fetched ahead. */
static int setup(void **state)
{
	(void)state;
	memset(&before, 0, sizeof(before));
	before.mode = EMF_MODE_THREAD;
	before.move = 1;
	before.local_limit = before.local_bytes = 1024 * MIB;
	before.far_bytes = 1024 * MIB;
	before.managed_bytes = 2048 * MIB;
	before.nstores = 1;
	strcpy(before.store[0].uri, "nbd://mem1");
	before.store[0].read_latency.bucket[emf_hist_bucket(2000000)] = 1000;
	now = before;
	in = (struct why_input){ .now = &now,
				 .before = &before,
				 .seconds = 2,
				 .mover = {0.2, 0},
				 .fault = {0.1, 0},
				 .now_ns = 1000 * S };
	now.stall_ns = 1 * S;
	now.faults_demand = 500;
	now.touches = 1000;
	now.touches_near = 950;
	now.prefetch_issued = now.prefetch_useful = 500;
	now.store[0].busy_ns = S;
	reads(0, 1000, 2000000);
	return 0;
}

static void judge(enum why_cause want)
{
	why_judge(&in, &w);
	if (w.cause != want)
		fail_msg("%s instead of %s: %s", why_name(w.cause), why_name(want), w.headline);
	assert_true(w.headline[0]);
	for (unsigned i = 0; i < w.nevidence; i++)
		assert_true(w.evidence[i][0] && strlen(w.evidence[i]) < sizeof(w.evidence[0]) - 1);
	for (unsigned i = 0; i < w.nadvice; i++)
		assert_true(w.advice[i][0] && strlen(w.advice[i]) < sizeof(w.advice[0]) - 1);
	if (want != WHY_NOTHING && want != WHY_UNMANAGED && want != WHY_FIRST_TOUCH)
		assert_true(w.nevidence && w.nadvice);
}

static void nothing(void **state)
{
	(void)state;
	now.stall_ns = S / 100;
	judge(WHY_NOTHING);
	now.mode = EMF_MODE_IDLE;
	now.stall_ns = S;
	judge(WHY_NOTHING);
	assert_non_null(strstr(w.headline, "fits"));
	now.mode = EMF_MODE_UNMANAGED;
	judge(WHY_UNMANAGED);
}

static void stores(void **state)
{
	(void)state;
	now.store[0].state = EMF_STORE_FULL;
	judge(WHY_STORE_FULL);
	now.store[0].state = EMF_STORE_DOWN;
	now.store[0].errors = 3;
	judge(WHY_STORE_DOWN);
	assert_non_null(strstr(w.evidence[0], "nbd://mem1"));
}

/* Nothing came back, so no wait has been counted. */
static void silence(void **state)
{
	(void)state;
	now = before;
	now.store[0].inflight = before.store[0].inflight = 4;
	now.store[0].busy_since = before.store[0].busy_since = 995 * S;
	judge(WHY_SLOW_STORE);
	assert_non_null(strstr(w.evidence[0], "5.0 s"));
	assert_non_null(strstr(w.evidence[0], "4 transfers"));
}

static void pins(void **state)
{
	(void)state;
	now.stuck_bytes = 200 * MIB;
	judge(WHY_READ_AHEAD);
	now.stuck_bytes = 512 * MIB;
	in.kept_bytes = 64 * MIB;
	judge(WHY_PINNED);
	assert_non_null(strstr(w.evidence[0], "512M"));
	assert_non_null(strstr(w.evidence[1], "64.0M"));
}

static void threads(void **state)
{
	(void)state;
	in.mover.ran = 0.97;
	judge(WHY_MOVERS);
	assert_non_null(strstr(w.evidence[0], "emf-mover uses 97%"));
	assert_int_equal(w.nevidence, 1);
	in.mover = (struct why_thread){0.4, 0.5};
	judge(WHY_MOVERS);
	assert_non_null(strstr(w.evidence[0], "emf-mover uses 40%"));
	assert_non_null(strstr(w.evidence[1], "50%"));
	in.mover = (struct why_thread){0.3, 0.1};
	in.fault.ran = 0.9;
	judge(WHY_MOVERS);
	assert_non_null(strstr(w.evidence[0], "emf-fault"));
	in.mover.ran = in.fault.ran = -1; /* unknown */
	judge(WHY_READ_AHEAD);
}

static void uneven_stores(void **state)
{
	(void)state;
	before.nstores = now.nstores = 3;
	strcpy(now.store[1].uri, "nbd://mem2");
	strcpy(now.store[2].uri, "nbd://mem3");
	reads(1, 1000, 2100000);
	reads(2, 1000, 9000000);
	judge(WHY_SLOW_STORE);
	assert_non_null(strstr(w.evidence[0], "nbd://mem3 takes 9ms, of the others 2ms"));
}

/* Twice as many at a time, each as long as one alone. */
static void late_store(void **state)
{
	(void)state;
	now.store[0].busy_ns = 19 * S / 10;
	reads(0, 1000, 2000000);
	judge(WHY_SLOW_STORE);
	assert_non_null(strstr(w.evidence[0], "latency"));
}

static void link_is_full(void **state)
{
	(void)state;
	now.store[0].busy_ns = 2 * S;
	/* queued: they take longer than one alone */
	now.store[0].read_latency = before.store[0].read_latency;
	now.store[0].read_bytes = now.fetched_bytes = 0;
	reads(0, 1000, 8000000);
	judge(WHY_LINK);
	assert_non_null(strstr(w.evidence[0], "busy 100%"));
	/* 2000 MiB in 2 s: 1000 MiB/s; 1024 MiB are far */
	assert_true(w.bandwidth > 999.0 * MIB && w.bandwidth < 1001.0 * MIB);
	assert_true(w.pass > 1.02 && w.pass < 1.03);
	now.written_bytes = now.store[0].written_bytes = 1500 * MIB;
	judge(WHY_WRITE_BACK);
	assert_non_null(strstr(w.advice[0], "flash attention"));
}

/* The time that lasts counts as busy, too. */
static void link_that_never_rests(void **state)
{
	(void)state;
	before.store[0].inflight = now.store[0].inflight = 2;
	before.store[0].busy_since = now.store[0].busy_since = 900 * S;
	now.store[0].busy_ns = before.store[0].busy_ns;
	now.store[0].read_latency = before.store[0].read_latency;
	reads(0, 1000, 8000000);
	judge(WHY_LINK);
}

static void jumps(void **state)
{
	(void)state;
	now.touches_near = 300;
	judge(WHY_RANDOM);
	assert_non_null(strstr(w.evidence[0], "30%"));
}

static void small_budget(void **state)
{
	(void)state;
	now.prefetch_wasted = 200;
	judge(WHY_BUDGET);
	assert_non_null(strstr(w.evidence[0], "40%"));
	now.prefetch_wasted = 0;
	now.faults_starved = 400;
	judge(WHY_BUDGET);
	assert_non_null(strstr(w.evidence[0], "200 faults a second found no frame"));
	now.faults_starved = 0;
	now.prefetch_issued = 0;
	before.local_limit = now.local_limit = 16 * MIB;
	judge(WHY_BUDGET);
	assert_non_null(strstr(w.evidence[0], "no room"));
}

static void filling(void **state)
{
	(void)state;
	now.faults_zero = 5000;
	now.faults_demand = 10;
	judge(WHY_FIRST_TOUCH);
	/* what it waits for a core while nobody waits for it does no harm */
	now.stall_ns = S / 3;
	in.fault = (struct why_thread){ 0.1, 0.8 };
	judge(WHY_FIRST_TOUCH);
	now.stall_ns = 3 * S;
	judge(WHY_MOVERS);
	assert_non_null(strstr(w.evidence[0], "emf-fault uses 10%"));
}

/* Another program under the PID: counters begin anew. */
static void counters_that_fell(void **state)
{
	(void)state;
	before.stall_ns = 1000 * S;
	before.fetched_bytes = 1ull << 60;
	before.store[0].busy_ns = 1000 * S;
	why_judge(&in, &w);
	assert_true(w.stall >= 0 && w.stall < 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(nothing, setup),
		cmocka_unit_test_setup(stores, setup),
		cmocka_unit_test_setup(silence, setup),
		cmocka_unit_test_setup(pins, setup),
		cmocka_unit_test_setup(threads, setup),
		cmocka_unit_test_setup(uneven_stores, setup),
		cmocka_unit_test_setup(late_store, setup),
		cmocka_unit_test_setup(link_is_full, setup),
		cmocka_unit_test_setup(link_that_never_rests, setup),
		cmocka_unit_test_setup(jumps, setup),
		cmocka_unit_test_setup(small_budget, setup),
		cmocka_unit_test_setup(filling, setup),
		cmocka_unit_test_setup(counters_that_fell, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
