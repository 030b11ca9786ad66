/* SPDX-License-Identifier: Apache-2.0 */
/* What a system call uses is not taken meanwhile, wherever the block's boundaries are. */
#include "pinned.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "block.h"
#include "kernel.h"

#define AT (64 * (uintptr_t)BLOCK_SIZE)

static bool can_take(uintptr_t start)
{
	bool can = pinned_take(start, false);

	if (can)
		pinned_taken();
	return can;
}

static void test_each_page(void **state)
{
	/* A block at its place, and two of regions that mremap has moved. */
	static const uintptr_t offset[] = { 0, K_PAGE, BLOCK_SIZE - K_PAGE };
	struct pinned p;

	(void)state;
	for (size_t i = 0; i < 3; i++) {
		uintptr_t start = AT + offset[i];
		for (uintptr_t at = start; at < start + BLOCK_SIZE; at += K_PAGE) {
			pinned_begin(&p, at, K_PAGE);
			assert_false(can_take(start));
			pinned_end(&p);
			assert_true(can_take(start));
		}
	}
}

static void test_range(void **state)
{
	struct pinned p;

	(void)state;
	pinned_begin(&p, AT, 3 * BLOCK_SIZE);
	for (int i = -1; i < 3; i++) {
		bool beside = i == -1;
		assert_int_equal(can_take(AT + (uintptr_t)i * BLOCK_SIZE), beside);
		assert_false(can_take(AT + (uintptr_t)i * BLOCK_SIZE + K_PAGE));
	}
	assert_true(can_take(AT + 3 * BLOCK_SIZE));
	pinned_end(&p);
}

static void test_all(void **state)
{
	struct pinned p;

	(void)state;
	pinned_begin(&p, 0, 0);
	assert_false(can_take(AT));
	pinned_end(&p);
	assert_true(can_take(AT));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_each_page),
		cmocka_unit_test(test_range),
		cmocka_unit_test(test_all),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
