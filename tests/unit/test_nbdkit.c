/* SPDX-License-Identifier: Apache-2.0 */
/* Our plugin of nbdkit, without nbdkit: threads that want something while memory is overwritten. */
#define _GNU_SOURCE 1
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

#if __has_include(<nbdkit-plugin.h>)
#undef fail
#include "../../tools/nbdkit/plugin.c"

#define SLABS 16u

/* --- nbdkit's side --- */

static const char *name;

void nbdkit_error(const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	vprint_message(format, ap);
	va_end(ap);
	print_message("\n");
}

const char *nbdkit_export_name(void)
{
	return name;
}

char *nbdkit_realpath(const char *path)
{
	(void)path;
	return NULL;
}

/* --- */

static void *opens(void *unused)
{
	(void)unused;
	return emf_open(0);
}

/*
 * Who gives up the lock and wants it again, as the worker does for each few MiB that it overwrites,
 * gets it after those who wait.
 */
static void who_waits_is_next(void **state)
{
	void *client;
	pthread_t other;

	(void)state;
	pool_options.size = SLABS * WIRE_MIN_SLAB;
	assert_int_equal(emf_config_complete(), 0);
	assert_int_equal(emf_after_fork(), 0);
	name = "a";
	for (unsigned round = 0; round < 20; round++) {
		leases.lasts = 0;
		enter();
		leases_work(&leases, UINT64_MAX);
		assert_int_equal(leases.count, 0);
		while (pool_work(&pool))
			;
		assert_int_equal(pthread_create(&other, NULL, opens, NULL), 0);
		/* It; or the worker, which may have just been started. */
		for (unsigned i = 0; i < 2 && !leases.count; i++) {
			while (!pthread_mutex_trylock(&gate)) {
				pthread_mutex_unlock(&gate);
				usleep(1000);
			}
			leave();
			enter();
		}
		assert_int_equal(leases.count, 1);
		leave();
		pthread_join(other, &client);
		assert_non_null(client);
		emf_close(client);
	}
	emf_unload();
	assert_int_equal(leases.count, 0);
}

/* As the operator is told when it starts, not each client when it comes. */
static void settings_fit(void **state)
{
	(void)state;
	leases.ntenants = 0;
	leases.usual = 2 * WIRE_MIN_SLAB;
	pool_options.size = WIRE_MIN_SLAB;
	assert_int_equal(emf_config_complete(), -1);
	pool_options.size = 4 * WIRE_MIN_SLAB;
	assert_int_equal(emf_config("quota", "a:2M"), 0);
	assert_int_equal(emf_config_complete(), -1);
	leases.ntenants = 0;
	assert_int_equal(emf_config("quota", "a:4M"), 0);
	assert_int_equal(emf_config_complete(), 0);
	pool_options.dax = "/dev/null";
	assert_int_equal(emf_config("node", "0"), 0);
	assert_int_equal(emf_config_complete(), -1);
	pool_options.node = -1;
	pool_options.size = 0;
	assert_int_equal(emf_config_complete(), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(who_waits_is_next),
		cmocka_unit_test(settings_fit),
	};

	return cmocka_run_group_tests_name("nbdkit plugin", tests, NULL, NULL);
}
#else
static void none(void **state)
{
	(void)state;
	print_message("SKIPPED: no nbdkit-plugin-dev\n");
	skip();
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(none) };

	return cmocka_run_group_tests_name("nbdkit plugin", tests, NULL, NULL);
}
#endif
