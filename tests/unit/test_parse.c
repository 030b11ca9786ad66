/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers as a person writes them: what is taken, what is refused, where it overflows. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "parse.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static void sizes(void **state)
{
	static const struct {
		const char *text;
		bool ok;
		uint64_t bytes;
	} table[] = {
		{ "0", true, 0 },
		{ "1", true, 1 },
		{ "4096", true, 4096 },
		{ "4096B", true, 4096 },
		{ "64K", true, 65536 },
		{ "64k", true, 65536 },
		{ "64KB", true, 65536 },
		{ "64KiB", true, 65536 },
		{ "2M", true, 2ull << 20 },
		{ "2G", true, 2ull << 30 },
		{ "3T", true, 3ull << 40 },
		{ "1.5G", true, 3ull << 29 },
		{ "0.5k", true, 512 },
		{ "0.1K", true, 102 },
		{ "0.000001T", true, 1099511 },
		{ "18446744073709551615", true, UINT64_MAX },
		{ "16777215T", true, 16777215ull << 40 },
		{ "16777215.999999T", true, (16777215ull << 40) + 1099510528264ull },
		{ "18446744073709551616", false, 0 },
		{ "99999999999999999999999", false, 0 },
		{ "16777216T", false, 0 },
		{ "1.0000001G", false, 0 }, /* more digits than are kept */
		{ "", false, 0 },
		{ "G", false, 0 },
		{ ".5G", false, 0 },
		{ "5.G", false, 0 },
		{ "1.5", false, 0 }, /* half a byte */
		{ "1.5B", false, 0 },
		{ "-1", false, 0 },
		{ "+1", false, 0 },
		{ " 1", false, 0 },
		{ "1 ", false, 0 },
		{ "1 G", false, 0 },
		{ "1GG", false, 0 },
		{ "1Gi", false, 0 },
		{ "1iB", false, 0 },
		{ "1GBx", false, 0 },
		{ "1e9", false, 0 },
		{ "0x10", false, 0 },
		{ "12Q", false, 0 },
		{ "50%", false, 0 },
		{ "1,5G", false, 0 },
		{ "inf", false, 0 },
		{ "\xff", false, 0 },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(table); i++) {
		uint64_t bytes = 77;
		bool ok = parse_size(table[i].text, &bytes);

		if (ok != table[i].ok || bytes != (ok ? table[i].bytes : 77))
			fail_msg("parse_size(\"%s\") is %d, %llu", table[i].text, ok,
				 (unsigned long long)bytes);
	}
}

static void durations_and_percents(void **state)
{
	static const struct {
		const char *text;
		int ms; /* -1: refused */
	} durations[] = {
		{ "10s", 10000 }, { "500ms", 500 }, { "1.5s", 1500 }, { "2m", 120000 },
		{ "0.25s", 250 }, { "10", -1 },	    { "1.5ms", -1 },  { "s", -1 },
		{ "", -1 },	  { "-1s", -1 },    { "10sec", -1 },  { "5000000s", -1 },
	};
	static const struct {
		const char *text;
		int percent;
	} percents[] = {
		{ "0", 0 },	{ "97", 97 }, { "97%", 97 }, { "100%", 100 },
		{ "101", -1 },	{ "%", -1 },  { "", -1 },    { "5.5", -1 },
		{ "97%%", -1 }, { "-1", -1 }, { "9x", -1 },  { "99999999999999999999", -1 },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(durations); i++) {
		unsigned ms = 0;

		if ((parse_duration(durations[i].text, &ms) ? (int)ms : -1) != durations[i].ms)
			fail_msg("parse_duration(\"%s\") is %u", durations[i].text, ms);
	}
	for (size_t i = 0; i < COUNT(percents); i++) {
		unsigned p = 0;

		if ((parse_percent(percents[i].text, &p) ? (int)p : -1) != percents[i].percent)
			fail_msg("parse_percent(\"%s\") is %u", percents[i].text, p);
	}
}

int main(void)
{
	/* clang-format off */
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sizes),
		cmocka_unit_test(durations_and_percents),
	};
	/* clang-format on */

	return cmocka_run_group_tests(tests, NULL, NULL);
}
