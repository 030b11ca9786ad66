/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tierstat's reader of statistics segments: good ones, leftovers, half written and
 * hostile ones; the quantiles of the histograms; where the segments are kept.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "rundir.h"

/* the tool's own, which no library holds; segment.c is linked */
#include "../../tools/tierstat/hist.c"
#include "../../tools/tierstat/segment.h"

static char tmp[64];
static struct emf_stats written, seen;

static const char *file_of(pid_t pid)
{
	static char path[128];

	snprintf(path, sizeof(path), "%s/%d.stats", tmp, (int)pid);
	return path;
}

static void fill(pid_t pid)
{
	memset(&written, 0, sizeof(written));
	written.magic = EMF_STATS_MAGIC;
	written.version = EMF_STATS_VERSION;
	written.size = sizeof(written);
	written.pid = (uint32_t)pid;
	written.start_time = segment_start_time(pid);
	written.mode = EMF_MODE_THREAD;
	written.nstores = 2;
	strcpy(written.command, "test");
	strcpy(written.store[0].uri, "mem:");
	strcpy(written.store[1].uri, "nbd://host/");
	written.local_limit = 1ull << 40;
	written.stall_ns = UINT64_MAX;
}

static void put(pid_t pid, size_t len)
{
	int fd = open(file_of(pid), O_WRONLY | O_CREAT | O_TRUNC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, &written, len), len);
	close(fd);
}

static void reads_a_segment(void **state)
{
	pid_t self = getpid();

	(void)state;
	fill(self);
	put(self, sizeof(written));
	memset(&seen, 0xff, sizeof(seen));
	assert_int_equal(segment_read(tmp, self, &seen), 0);
	assert_memory_equal(&seen, &written, sizeof(seen));
	assert_false(segment_degraded(&seen));
	assert_true(segment_uptime(&seen) >= 0.001 && segment_uptime(&seen) < 86400);

	written.store[1].state = EMF_STORE_DOWN;
	put(self, sizeof(written));
	assert_int_equal(segment_read(tmp, self, &seen), 0);
	assert_true(segment_degraded(&seen));
	/* a store that is not counted does not count */
	written.nstores = 1;
	put(self, sizeof(written));
	assert_int_equal(segment_read(tmp, self, &seen), 0);
	assert_false(segment_degraded(&seen));
	/* a writer of a later version may have appended to the file, not to the struct */
	assert_int_equal(truncate(file_of(self), sizeof(written) + 4096), 0);
	assert_int_equal(segment_read(tmp, self, &seen), 0);
	unlink(file_of(self));
	assert_int_equal(segment_read(tmp, self, &seen), -ESRCH);
}

static void distrusts_what_it_reads(void **state)
{
	pid_t self = getpid();

	(void)state;
	fill(self);
	put(self, 0);
	assert_int_equal(segment_read(tmp, self, &seen), -EAGAIN);
	put(self, 100);
	assert_int_equal(segment_read(tmp, self, &seen), -EPROTO);
	put(self, sizeof(written) - 8);
	assert_int_equal(segment_read(tmp, self, &seen), -EPROTO);

	written.magic = 0; /* sized, but not filled in yet */
	put(self, sizeof(written));
	assert_int_equal(segment_read(tmp, self, &seen), -EAGAIN);
	written.magic = EMF_STATS_MAGIC + 1;
	put(self, sizeof(written));
	assert_int_equal(segment_read(tmp, self, &seen), -EPROTO);
	fill(self);
	written.version++;
	put(self, sizeof(written));
	assert_int_equal(segment_read(tmp, self, &seen), -EPROTO);
	fill(self);
	written.size -= 8;
	put(self, sizeof(written));
	assert_int_equal(segment_read(tmp, self, &seen), -EPROTO);
	fill(self);
	written.pid++;
	put(self, sizeof(written));
	assert_int_equal(segment_read(tmp, self, &seen), -EPROTO);

	fill(self);
	written.nstores = UINT32_MAX;
	memset(written.command, 'c', sizeof(written.command));
	for (unsigned i = 0; i < EMF_STATS_STORES; i++)
		memset(written.store[i].uri, 'u', sizeof(written.store[i].uri));
	put(self, sizeof(written));
	assert_int_equal(segment_read(tmp, self, &seen), 0);
	assert_int_equal(seen.nstores, EMF_STATS_STORES);
	assert_int_equal(strlen(seen.command), sizeof(seen.command) - 1);
	for (unsigned i = 0; i < EMF_STATS_STORES; i++)
		assert_int_equal(strlen(seen.store[i].uri), sizeof(seen.store[i].uri) - 1);

	/* none of them was removed: the process lives */
	assert_int_equal(access(file_of(self), F_OK), 0);
	unlink(file_of(self));

	/* no links: the directory may be one that others can write to */
	put(self + 1, sizeof(written));
	assert_int_equal(symlink("/dev/zero", file_of(self)), 0);
	assert_int_equal(segment_read(tmp, self, &seen), -ELOOP);
	unlink(file_of(self));
	assert_int_equal(mkdir(file_of(self), 0700), 0);
	assert_int_equal(segment_read(tmp, self, &seen), -EPROTO);
	rmdir(file_of(self));
	assert_int_equal(mkfifo(file_of(self), 0600), 0);
	assert_int_equal(segment_read(tmp, self, &seen), -EPROTO);
	unlink(file_of(self));
	unlink(file_of(self + 1));
}

static void removes_leftovers(void **state)
{
	pid_t self = getpid(), child;

	(void)state;
	/* another process of the same PID */
	fill(self);
	written.start_time--;
	put(self, sizeof(written));
	assert_int_equal(segment_read(tmp, self, &seen), -ESRCH);
	assert_int_equal(access(file_of(self), F_OK), -1);

	/* a process that is gone, whatever its file holds */
	child = fork();
	assert_true(child >= 0);
	if (!child) {
		pause();
		_exit(0);
	}
	fill(child);
	put(child, sizeof(written));
	assert_int_equal(segment_read(tmp, child, &seen), 0);
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	assert_int_equal(segment_read(tmp, child, &seen), -ESRCH);
	assert_int_equal(access(file_of(child), F_OK), -1);
	put(child, 10);
	assert_int_equal(segment_read(tmp, child, &seen), -ESRCH);
	assert_int_equal(access(file_of(child), F_OK), -1);
}

static void lists_by_name(void **state)
{
	static const char *const others[] = { "x.stats",	   "12",
					      "12.stats.old",	   "012.stats",
					      "99999999999.stats", ".stats",
					      "-5.stats",	   "lock" };
	char path[128];
	pid_t *pids;

	(void)state;
	assert_int_equal(segment_list("/nonexistent", &pids), -ENOENT);
	assert_null(pids);
	assert_int_equal(segment_list(tmp, &pids), 0);
	free(pids);
	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
		snprintf(path, sizeof(path), "%s/%s", tmp, others[i]);
		close(open(path, O_WRONLY | O_CREAT, 0600));
	}
	for (pid_t pid = 300; pid > 0; pid -= 3)
		put(pid, 0);
	assert_int_equal(segment_list(tmp, &pids), 100);
	for (int i = 0; i < 100; i++)
		assert_int_equal(pids[i], 3 * (i + 1));
	free(pids);
	for (pid_t pid = 300; pid > 0; pid -= 3)
		unlink(file_of(pid));
	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
		snprintf(path, sizeof(path), "%s/%s", tmp, others[i]);
		unlink(path);
	}
}

/* A command may be named so that /proc/PID/stat looks odd. */
static void start_times_of_odd_names(void **state)
{
	pid_t self = getpid(), child = fork();
	char path[64];
	int fd, status;

	(void)state;
	if (!child) {
		uint64_t start = segment_start_time(getpid());

		fd = open("/proc/self/comm", O_WRONLY);
		if (fd < 0 || write(fd, "a) S 1 (2 ) 3", 13) != 13)
			_exit(1);
		_exit(start && segment_start_time(getpid()) == start ? 0 : 2);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	snprintf(path, sizeof(path), "/proc/%d/stat", (int)self);
	assert_int_equal(access(path, R_OK), 0);
	assert_int_equal(segment_start_time(INT_MAX), 0);
}

static void add(struct emf_hist *h, uint64_t ns, uint64_t times)
{
	h->bucket[emf_hist_bucket(ns)] += times;
	if (ns > h->max)
		h->max = ns;
}

static void quantiles(void **state)
{
	static struct emf_hist h;

	(void)state;
	memset(&h, 0, sizeof(h));
	assert_int_equal(hist_quantile(&h, 0.5), 0);
	add(&h, 1000, 1);
	assert_int_equal(hist_quantile(&h, 0.5), 1000);
	assert_int_equal(hist_quantile(&h, 0.999), 1000);
	memset(&h, 0, sizeof(h));
	add(&h, 3, 50);
	add(&h, 5, 49);
	add(&h, 100000, 1);
	assert_int_equal(hist_quantile(&h, 0.5), 3);
	assert_int_equal(hist_quantile(&h, 0.51), 5);
	assert_int_equal(hist_quantile(&h, 0.99), 5);
	assert_int_equal(hist_quantile(&h, 0.999), 100000);

	/* never below the value, never more than an eighth above it, and in order */
	for (uint64_t ns = 1; ns < 1ull << 33; ns = ns * 9 / 8 + 1) {
		memset(&h, 0, sizeof(h));
		add(&h, ns, 10);
		add(&h, 1ull << 34, 1);
		uint64_t q = hist_quantile(&h, 0.5);
		assert_true(q >= ns && q - ns <= ns / 8);
		assert_int_equal(hist_quantile(&h, 0.999), 1ull << 34);
	}
	memset(&h, 0xff, sizeof(h)); /* counts that overflow */
	assert_true(hist_quantile(&h, 0.5) <= h.max);
}

static void run_directory(void **state)
{
	char dir[PATH_MAX], path[256], small[8];

	(void)state;
	snprintf(path, sizeof(path), "%s/run", tmp);
	setenv("EMFATIER_RUN_DIR", path, 1);
	assert_int_equal(run_dir(dir, sizeof(dir), false), -ENOENT);
	assert_string_equal(dir, path);
	assert_int_equal(run_dir(dir, sizeof(dir), true), 0);
	assert_int_equal(run_dir(dir, sizeof(dir), true), 0);
	assert_int_equal(run_dir(dir, sizeof(dir), false), 0);
	assert_string_equal(dir, path);
	assert_int_equal(run_dir(small, sizeof(small), false), -ENAMETOOLONG);

	assert_int_equal(chmod(path, 01777), 0); /* as /tmp itself */
	assert_int_equal(run_dir(dir, sizeof(dir), true), -EPERM);
	assert_int_equal(rmdir(path), 0);
	assert_int_equal(symlink(tmp, path), 0);
	assert_int_equal(run_dir(dir, sizeof(dir), true), -ENOTDIR);
	assert_int_equal(run_dir(dir, sizeof(dir), false), -ENOTDIR);
	assert_int_equal(unlink(path), 0);
	close(open(path, O_WRONLY | O_CREAT, 0600));
	assert_int_equal(run_dir(dir, sizeof(dir), true), -ENOTDIR);
	assert_int_equal(unlink(path), 0);
	if (!geteuid()) {
		assert_int_equal(mkdir(path, 0700), 0);
		assert_int_equal(chown(path, 65534, 65534), 0);
		assert_int_equal(run_dir(dir, sizeof(dir), true), -EPERM);
		assert_int_equal(rmdir(path), 0);
	}
	snprintf(path, sizeof(path), "%s/no/run", tmp);
	setenv("EMFATIER_RUN_DIR", path, 1);
	assert_int_equal(run_dir(dir, sizeof(dir), true), -ENOENT);
	unsetenv("EMFATIER_RUN_DIR");
}

/* Without root and without EMFATIER_RUN_DIR. In a child, which may give up its rights. */
static int user_directories(void)
{
	char dir[PATH_MAX], want[128];
	struct stat st;

	if (!geteuid() && (chown(tmp, 54321, 54321) || setuid(54321)))
		return 1;
	setenv("XDG_RUNTIME_DIR", tmp, 1);
	snprintf(want, sizeof(want), "%s/emfatier", tmp);
	if (run_dir(dir, sizeof(dir), true) || strcmp(dir, want) || stat(dir, &st) ||
	    (st.st_mode & 07777) != 0700)
		return 2;
	if (rmdir(dir))
		return 3;
	/* one that is not there, and one that must not be relative */
	setenv("XDG_RUNTIME_DIR", "/nonexistent", 1);
	snprintf(want, sizeof(want), "/tmp/emfatier-%u", (unsigned)geteuid());
	if (run_dir(dir, sizeof(dir), true) || strcmp(dir, want))
		return 4;
	setenv("XDG_RUNTIME_DIR", "tmp", 1);
	if (run_dir(dir, sizeof(dir), true) || strcmp(dir, want))
		return 5;
	if (rmdir(dir) && errno != ENOTEMPTY)
		return 6;
	return 0;
}

static void run_directory_of_users(void **state)
{
	int status;
	pid_t child = fork();

	(void)state;
	if (!child)
		_exit(user_directories());
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	if (!geteuid())
		assert_int_equal(chown(tmp, 0, 0), 0);
}

#define MAP_AT ((sizeof(struct emf_stats) + 4095) & ~(size_t)4095)

static struct emf_map map, map_seen;

static uint64_t clock_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void put_map(pid_t pid)
{
	int fd;

	written.map_offset = MAP_AT;
	put(pid, sizeof(written));
	fd = open(file_of(pid), O_WRONLY);
	assert_int_equal(pwrite(fd, &map, sizeof(map), MAP_AT), sizeof(map));
	close(fd);
}

static int read_map_of(pid_t pid)
{
	return segment_map(tmp, pid, 0.02, &map_seen);
}

/* Two regions, written a minute from now: no older than when it is asked for. */
static void good_map(void)
{
	memset(&map, 0, sizeof(map));
	map.sequence = 8;
	map.written_at = clock_ns() + 60000000000ull;
	map.block_bytes = 2u << 20;
	map.blocks_per_cell = 1;
	map.nregions = map.regions_total = 2;
	map.ncells = 12;
	map.region[0] = (struct emf_map_region){ .start = 4096, .length = 8u << 21, .cells = 8 };
	map.region[1] = (struct emf_map_region){ .first_cell = 8, .cells = 4 };
	memset(map.region[1].class, 'x', sizeof(map.region[1].class));
	map.cell[3] = EMF_CELL_FAR | 15 << 4;
}

static void reads_a_map(void **state)
{
	pid_t self = getpid();

	(void)state;
	fill(self);
	good_map();
	put_map(self);
	assert_int_equal(read_map_of(self), 0);
	assert_int_equal(map_seen.cell[3], EMF_CELL_FAR | 15 << 4);
	assert_int_equal(map_seen.region[0].cells, 8);
	/* terminated, whatever it was */
	assert_int_equal(strlen(map_seen.region[1].class), sizeof(map.region[1].class) - 1);
	/* and it was asked for */
	assert_int_equal(segment_read(tmp, self, &seen), 0);
	assert_true(seen.map_wanted && seen.map_wanted <= clock_ns());

	/* being written; old; none at all */
	map.sequence++;
	put_map(self);
	assert_int_equal(read_map_of(self), -ENODATA);
	good_map();
	map.written_at = 1;
	put_map(self);
	assert_int_equal(read_map_of(self), -ENODATA);
	written.map_offset = 0;
	put(self, sizeof(written));
	assert_int_equal(read_map_of(self), -ENODATA);
	written.map_offset = 1ull << 62;
	put(self, sizeof(written));
	assert_int_equal(read_map_of(self), -EPROTO);
	assert_int_equal(read_map_of(1), -ESRCH);
	unlink(file_of(self));
}

static void distrusts_a_map(void **state)
{
	pid_t self = getpid();

	(void)state;
	fill(self);
	good_map();
	map.nregions = EMF_MAP_REGIONS + 1;
	put_map(self);
	assert_int_equal(read_map_of(self), -EPROTO);
	good_map();
	map.ncells = EMF_MAP_CELLS + 1;
	put_map(self);
	assert_int_equal(read_map_of(self), -EPROTO);
	good_map();
	map.region[1].cells = 5;
	put_map(self);
	assert_int_equal(read_map_of(self), -EPROTO);
	good_map();
	map.region[0].first_cell = UINT32_MAX;
	put_map(self);
	assert_int_equal(read_map_of(self), -EPROTO);
	good_map();
	map.blocks_per_cell = 0;
	put_map(self);
	assert_int_equal(read_map_of(self), -EPROTO);
	/* cut short in the middle of it */
	good_map();
	put_map(self);
	assert_int_equal(truncate(file_of(self), MAP_AT + 100), 0);
	assert_int_equal(read_map_of(self), -EPROTO);
	unlink(file_of(self));
}

static void heat_fades(void **state)
{
	unsigned last = 15;

	(void)state;
	assert_int_equal(emf_heat(0), 15);
	assert_int_equal(emf_heat(124999999), 15);
	assert_int_equal(emf_heat(125000000), 14);
	assert_int_equal(emf_heat(7900000000), 9);
	assert_int_equal(emf_heat(8100000000), 8);
	for (uint64_t age = 1; age; age *= 2) {
		assert_true(emf_heat(age) <= last);
		last = emf_heat(age);
	}
	assert_int_equal(last, 0);
}

static int set_up(void **state)
{
	(void)state;
	strcpy(tmp, "/tmp/emf-test-stats-XXXXXX");
	return mkdtemp(tmp) ? 0 : -1;
}

static int tear_down(void **state)
{
	(void)state;
	/* fails when a test left something: it should not */
	return rmdir(tmp);
}

int main(void)
{
	/* clang-format off */
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reads_a_segment),
		cmocka_unit_test(distrusts_what_it_reads),
		cmocka_unit_test(reads_a_map),
		cmocka_unit_test(distrusts_a_map),
		cmocka_unit_test(heat_fades),
		cmocka_unit_test(removes_leftovers),
		cmocka_unit_test(lists_by_name),
		cmocka_unit_test(start_times_of_odd_names),
		cmocka_unit_test(quantiles),
		cmocka_unit_test(run_directory),
		cmocka_unit_test(run_directory_of_users),
	};
	/* clang-format on */

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
