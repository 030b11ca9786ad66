/* SPDX-License-Identifier: Apache-2.0 */
/* local.limit=auto: what is read of the system, from made-up files, and what is made of it. */
#include <fcntl.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "test_tree.h"

#include "governor.h"
#include "pressure.h"

#define MIB (1ull << 20)
#define GIB (1ull << 30)
#define SECOND 1000000000ull

/* --- reading --- */

static char root[64];

static void put(const char *path, const char *text)
{
	tree_put(root, path, text);
}

static int make_root(void **state)
{
	(void)state;
	strcpy(root, "/tmp/emf-test-governor-XXXXXX");
	return mkdtemp(root) ? 0 : -1;
}

static int remove_root(void **state)
{
	char cmd[128];

	(void)state;
	snprintf(cmd, sizeof(cmd), "rm -rf '%s'", root);
	return system(cmd);
}

#define PSI(some) "some avg10=1.00 avg60=2.00 avg300=3.00 total=" some "\nfull avg10=0.00 total=7\n"

static void reads_version_2(void **state)
{
	struct memory_sample s;

	(void)state;
	put("/proc/meminfo", "MemTotal: 16777216 kB\nMemFree: 1 kB\nMemAvailable:    8388608 kB\n");
	put("/proc/self/statm", "500000 1024 300 1 0 2 0\n");
	put("/proc/self/cgroup", "0::/a/b\n");
	put("/proc/pressure/memory", PSI("11"));
	pressure_read(root, &s);
	assert_int_equal(s.total, 16 * GIB);
	assert_int_equal(s.room, 8 * GIB);
	assert_int_equal(s.rss, 4 * MIB);
	assert_int_equal(s.stall_us, 11);

	put("/sys/fs/cgroup/a/b/memory.max", "max\n");
	put("/sys/fs/cgroup/a/b/memory.current", "1073741824\n");
	put("/sys/fs/cgroup/a/memory.max", "4294967296\n");
	put("/sys/fs/cgroup/a/memory.current", "3221225472\n");
	put("/sys/fs/cgroup/a/memory.pressure", PSI("22"));
	pressure_read(root, &s);
	assert_int_equal(s.total, 4 * GIB);
	assert_int_equal(s.room, 1 * GIB);
	assert_int_equal(s.stall_us, 22); /* the nearest that has one */
	put("/sys/fs/cgroup/a/b/memory.pressure", PSI("33"));
	put("/sys/fs/cgroup/a/memory.stat",
	    "anon 5\nfile 9\nactive_file 7\nkernel_inactive_file 3\ninactive_file 1073741824\n");
	pressure_read(root, &s);
	assert_int_equal(s.stall_us, 33);
	assert_int_equal(s.room, 2 * GIB);
	/* the throttle counts like the wall */
	put("/sys/fs/cgroup/a/b/memory.high", "1610612736\n");
	pressure_read(root, &s);
	assert_int_equal(s.total, 1536 * MIB);
	assert_int_equal(s.room, 512 * MIB);
	/* it may be over its limit */
	put("/sys/fs/cgroup/a/b/memory.current", "1710612736\n");
	pressure_read(root, &s);
	assert_int_equal(s.room, 0);
}

static void reads_version_1(void **state)
{
	struct memory_sample s;

	(void)state;
	put("/proc/meminfo", "MemTotal: 16777216 kB\nMemAvailable: 16000000 kB\n");
	put("/proc/self/cgroup", "4:memory:/x/y\n0::/\n");
	put("/proc/pressure/memory", PSI("44"));
	put("/sys/fs/cgroup/memory/x/memory.limit_in_bytes", "1073741824\n");
	put("/sys/fs/cgroup/memory/x/memory.usage_in_bytes", "805306368\n");
	put("/sys/fs/cgroup/memory/x/y/memory.limit_in_bytes", "9223372036854771712\n");
	put("/sys/fs/cgroup/memory/x/y/memory.usage_in_bytes", "805306368\n");
	put("/sys/fs/cgroup/memory/x/memory.stat",
	    "inactive_file 1\ntotal_inactive_file 104857600\n");
	pressure_read(root, &s);
	assert_int_equal(s.total, GIB);
	assert_int_equal(s.room, 356 * MIB);
	assert_int_equal(s.stall_us, 44);
}

static void reads_nonsense(void **state)
{
	struct memory_sample s;

	(void)state;
	put("/proc/meminfo", "MemAvailable: -\nMemTotal: 1048576 kB");
	put("/proc/self/statm", "x");
	put("/proc/self/cgroup", "0::/a/b");
	put("/proc/pressure/memory", "full total=8\n");
	put("/sys/fs/cgroup/a/b/memory.max", "5x");
	put("/sys/fs/cgroup/a/b/memory.current", "");
	put("/sys/fs/cgroup/a/b/memory.pressure", "some total=\n");
	pressure_read(root, &s);
	assert_int_equal(s.total, GIB);
	assert_int_equal(s.room, UINT64_MAX);
	assert_int_equal(s.stall_us, UINT64_MAX);
	assert_int_equal(s.rss, 0);
}

/* --- deciding: a machine that is made up, too; its clock ticks in seconds --- */

struct process {
	struct governor g;
	uint64_t budget, wants, local, unmanaged;
};

struct machine {
	uint64_t total, others, now, stall_us;
	struct process p[3];
	unsigned n;
	uint64_t hurts_above; /* tasks wait when more than that is used; 0: never */
};

static uint64_t used(const struct machine *m)
{
	uint64_t sum = m->others;

	for (unsigned i = 0; i < m->n; i++)
		sum += m->p[i].local + m->p[i].unmanaged;
	return sum;
}

static void start(struct machine *m, uint64_t total, unsigned n)
{
	*m = (struct machine){ .total = total, .n = n };
	for (unsigned i = 0; i < n; i++)
		m->p[i] = (struct process){ .budget = total / 100 * 80, .wants = total };
}

static void tick(struct machine *m)
{
	m->now += SECOND;
	if (m->hurts_above && used(m) > m->hurts_above)
		m->stall_us += 300000;
	for (unsigned i = 0; i < m->n; i++) {
		struct process *p = m->p + i;
		uint64_t use = used(m);
		struct memory_sample s = {
			.total = m->total,
			.room = use < m->total ? m->total - use : 0,
			.rss = p->local + p->unmanaged,
			.stall_us = m->stall_us,
		};

		p->budget = governor_step(&p->g, &s, p->local, p->budget, m->now);
		/* Programs fill what they may, evictions are done within the second. */
		p->local = p->wants < p->budget ? p->wants : p->budget;
	}
}

static void run(struct machine *m, unsigned seconds)
{
	while (seconds--)
		tick(m);
}

/* How much it goes up and down in so many seconds. */
static uint64_t swing(struct machine *m, unsigned seconds)
{
	uint64_t low = UINT64_MAX, high = 0;

	while (seconds--) {
		tick(m);
		low = m->p[0].budget < low ? m->p[0].budget : low;
		high = m->p[0].budget > high ? m->p[0].budget : high;
	}
	return high - low;
}

static void stays_when_all_is_well(void **state)
{
	struct machine m;

	(void)state;
	start(&m, 16 * GIB, 1);
	m.p[0].wants = 4 * GIB;
	assert_int_equal(swing(&m, 3600), 0);
	assert_int_equal(m.p[0].budget, 16 * GIB / 100 * 80);
}

static void leaves_room_for_the_rest_of_the_process(void **state)
{
	struct machine m;

	(void)state;
	start(&m, 16 * GIB, 1);
	run(&m, 60);
	m.p[0].unmanaged = 4 * GIB;
	run(&m, 60);
	assert_in_range(m.p[0].budget, 8 * GIB, 9 * GIB);
	assert_true(used(&m) < m.total);
	m.p[0].unmanaged = 0;
	run(&m, 600);
	assert_in_range(m.p[0].budget, 12 * GIB + 512 * MIB, 13 * GIB);
}

static void follows_the_limit(void **state)
{
	struct machine m;

	(void)state;
	start(&m, 16 * GIB, 1);
	run(&m, 60);
	m.total = 4 * GIB;
	run(&m, 30);
	assert_in_range(m.p[0].budget, 3 * GIB, 4 * GIB);
	assert_int_equal(swing(&m, 600), 0);
	m.total = 8 * GIB;
	run(&m, 3);
	assert_true(m.p[0].budget < 4 * GIB); /* slowly */
	run(&m, 600);
	assert_in_range(m.p[0].budget, 6 * GIB, 7 * GIB);
}

static void makes_room_for_others(void **state)
{
	struct machine m;

	(void)state;
	start(&m, 16 * GIB, 1);
	run(&m, 60);
	m.others = 10 * GIB;
	run(&m, 30);
	assert_in_range(used(&m), 14 * GIB, 16 * GIB);
	assert_true(swing(&m, 600) < 256 * MIB);
	m.others = 0;
	run(&m, 600);
	assert_in_range(m.p[0].budget, 12 * GIB + 512 * MIB, 13 * GIB);
}

static void several_share(void **state)
{
	struct machine m;

	(void)state;
	start(&m, 16 * GIB, 3);
	run(&m, 120);
	assert_in_range(used(&m), 13 * GIB, 16 * GIB);
	assert_true(swing(&m, 1200) < 512 * MIB);
}

/* Tasks wait from a point on that nothing but PSI shows: it comes to rest below. */
static void finds_what_is_too_much(void **state)
{
	struct machine m;
	unsigned hurt = 0;

	(void)state;
	start(&m, 16 * GIB, 1);
	m.others = 3 * GIB; /* not plenty of room any more */
	m.hurts_above = 13 * GIB;
	run(&m, 120);
	assert_true(used(&m) < 13 * GIB);
	run(&m, 3600);
	for (unsigned i = 0; i < 3600; i++) {
		uint64_t before = m.stall_us;
		tick(&m);
		hurt += m.stall_us != before;
	}
	assert_in_range(hurt, 0, 40); /* about a second in 100, or less */
	assert_in_range(used(&m), 9 * GIB, 13 * GIB);
	/* and when the reason is gone it takes all of it again */
	m.hurts_above = 0;
	run(&m, 3600);
	assert_true(m.p[0].budget > 12 * GIB);
}

static void is_bounded(void **state)
{
	struct machine m;

	(void)state;
	start(&m, 16 * GIB, 1);
	m.others = 10 * GIB;
	m.hurts_above = 1;
	run(&m, 3600);
	assert_in_range(m.p[0].budget, 2 * GIB, 4 * GIB);
	m.others = 64 * GIB;
	run(&m, 3600);
	assert_in_range(m.p[0].budget, 256 * MIB, GIB);
}

/* Waits with plenty of memory left are no reason. */
static void ignores_the_waits_of_others(void **state)
{
	struct machine m;

	(void)state;
	start(&m, 16 * GIB, 1);
	m.p[0].wants = 2 * GIB;
	m.hurts_above = 1;
	run(&m, 600);
	assert_int_equal(m.p[0].budget, 16 * GIB / 100 * 80);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(reads_version_2, make_root, remove_root),
		cmocka_unit_test_setup_teardown(reads_version_1, make_root, remove_root),
		cmocka_unit_test_setup_teardown(reads_nonsense, make_root, remove_root),
		cmocka_unit_test(stays_when_all_is_well),
		cmocka_unit_test(leaves_room_for_the_rest_of_the_process),
		cmocka_unit_test(follows_the_limit),
		cmocka_unit_test(makes_room_for_others),
		cmocka_unit_test(several_share),
		cmocka_unit_test(finds_what_is_too_much),
		cmocka_unit_test(is_bounded),
		cmocka_unit_test(ignores_the_waits_of_others),
	};

	return cmocka_run_group_tests_name("governor", tests, NULL, NULL);
}
