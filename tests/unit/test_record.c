/* SPDX-License-Identifier: Apache-2.0 */
/* Records: what was added comes back, and a file that is cut, bent or hostile is found out. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

/* the tool's own, which no library holds */
#include "../../tools/tierstat/record.c"

#define READINGS 40

static char file[] = "/tmp/emf-test-record-XXXXXX";
static struct emf_stats reading[READINGS], seen;

static uint64_t next_random(void)
{
	static uint64_t x = 88172645463325252ull;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	return x;
}

static int setup(void **state)
{
	struct record *r;

	(void)state;
	memset(reading, 0, sizeof(reading));
	for (unsigned i = 0; i < READINGS; i++) {
		uint64_t *word = (uint64_t *)&reading[i];

		/* two processes, in turn */
		if (i >= 2)
			reading[i] = reading[i - 2];
		/* some words change, a little, by much, backwards */
		for (unsigned k = 0; k < 30; k++)
			word[WORDS - 1 - next_random() % 500] += next_random() >> (next_random() % 64);
		reading[i].pid = 100 + i % 2;
		reading[i].nstores = 2;
		reading[i].history_count = 0;
		strcpy(reading[i].command, i % 2 ? "odd" : "even");
		/* as a reader has them in any case */
		for (unsigned k = 0; k < EMF_STATS_STORES; k++)
			reading[i].store[k].uri[sizeof(reading[i].store[k].uri) - 1] = '\0';
	}
	assert_int_equal(record_create(file, &r), 0);
	for (unsigned i = 0; i < READINGS; i++)
		assert_int_equal(record_add(r, 1000 + i, &reading[i]), 0);
	assert_int_equal(record_close(r), 0);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	unlink(file);
	return 0;
}

/* How many readings of the file are as they were; *rc: how it ended. */
static unsigned good(int *rc)
{
	struct record *r;
	uint64_t time_ns;
	unsigned n = 0;

	*rc = record_open(file, &r);
	if (*rc)
		return 0;
	while ((*rc = record_next(r, &time_ns, &seen)) == 1) {
		assert_true(seen.nstores <= EMF_STATS_STORES);
		if (n < READINGS && time_ns == 1000 + n &&
		    !memcmp(&seen, &reading[n], offsetof(struct emf_stats, history_count)))
			n++;
	}
	record_close(r);
	return n;
}

static void comes_back(void **state)
{
	struct stat st;
	int rc;

	(void)state;
	assert_int_equal(good(&rc), READINGS);
	assert_int_equal(rc, 0);
	/* it is small */
	assert_int_equal(stat(file, &st), 0);
	assert_true((size_t)st.st_size < READINGS * sizeof(struct emf_stats) / 50);
}

static void cut_short(void **state)
{
	struct stat st;
	int rc;

	(void)state;
	assert_int_equal(stat(file, &st), 0);
	for (off_t len = st.st_size - 1; len >= (off_t)sizeof(struct head); len -= 37) {
		assert_int_equal(truncate(file, len), 0);
		assert_true(good(&rc) < READINGS);
		assert_int_equal(rc, 0);
	}
	assert_int_equal(truncate(file, sizeof(struct head) - 1), 0);
	good(&rc);
	assert_int_equal(rc, -EPROTO);
}

static void bent(void **state)
{
	struct stat st;
	int fd, rc;

	(void)state;
	assert_int_equal(stat(file, &st), 0);
	for (unsigned i = 0; i < 3000; i++) {
		off_t at = (off_t)(next_random() % (uint64_t)st.st_size);
		unsigned char was, now;

		fd = open(file, O_RDWR);
		assert_true(fd >= 0);
		assert_int_equal(pread(fd, &was, 1, at), 1);
		now = (unsigned char)(was ^ (1u << next_random() % 8));
		assert_int_equal(pwrite(fd, &now, 1, at), 1);
		good(&rc); /* anything but a crash */
		assert_true(rc <= 0);
		assert_int_equal(pwrite(fd, &was, 1, at), 1);
		close(fd);
	}
	assert_int_equal(good(&rc), READINGS);
}

static void of_another_version(void **state)
{
	struct head h = { MAGIC, EMF_STATS_VERSION + 1, WORDS };
	int fd = open(file, O_WRONLY), rc;

	(void)state;
	assert_int_equal(pwrite(fd, &h, sizeof(h), 0), sizeof(h));
	close(fd);
	good(&rc);
	assert_int_equal(rc, -EPROTO);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(comes_back, setup, teardown),
		cmocka_unit_test_setup_teardown(cut_short, setup, teardown),
		cmocka_unit_test_setup_teardown(bent, setup, teardown),
		cmocka_unit_test_setup_teardown(of_another_version, setup, teardown),
	};
	int fd = mkstemp(file);

	if (fd < 0)
		return 1;
	close(fd);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
