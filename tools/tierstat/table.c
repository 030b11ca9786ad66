/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>

#include "segment.h"
#include "show.h"
#include "text.h"

void show_rates_header(const char *first)
{
	if (first)
		printf("%-9s", "");
	printf("%-31s %-27s %-13s %-20s %5s\n", "---------- memory MiB ---------",
	       "--------- faults/s --------", "--- MiB/s ---", "---- prefetch/s ----", "stall");
	if (first)
		printf("%-9s", first);
	printf("%7s %7s %7s %7s %6s %6s %6s %6s %6s %6s %6s %6s %6s %5s\n", "limit", "local", "far",
	       "managed", "far", "frame", "wprot", "zero", "fetch", "write", "issued", "useful",
	       "wasted", "%");
}

/* A counter that has become smaller is another program's: the process called exec. */
static double rate(uint64_t now, uint64_t before, double interval)
{
	return (double)(now >= before ? now - before : now) / interval;
}

/* At most `width` characters, for any rate. */
static void put_rate(double value, unsigned width)
{
	char text[TEXT_NUMBER];

	if (value < (width > 5 ? 999999.5 : 99999.5))
		printf(" %*.0f", (int)width, value);
	else
		printf(" %*s", (int)width, text_count((uint64_t)value, text));
}

static uint64_t mib(uint64_t bytes)
{
	return (bytes + (1u << 19)) >> 20;
}

void show_rates_line(const struct emf_stats *s, const struct emf_stats *before, double interval)
{
	const double mebi = 1 << 20;
	const double rates[] = {
		rate(s->faults_demand, before->faults_demand, interval),
		rate(s->faults_standby, before->faults_standby, interval),
		rate(s->faults_write_protect, before->faults_write_protect, interval),
		rate(s->faults_zero, before->faults_zero, interval),
		rate(s->fetched_bytes, before->fetched_bytes, interval) / mebi,
		rate(s->written_bytes, before->written_bytes, interval) / mebi,
		rate(s->prefetch_issued, before->prefetch_issued, interval),
		rate(s->prefetch_useful, before->prefetch_useful, interval),
		rate(s->prefetch_wasted, before->prefetch_wasted, interval),
	};
	double stall = rate(s->stall_ns, before->stall_ns, interval) / 1e7;

	printf("%7" PRIu64 " %7" PRIu64 " %7" PRIu64 " %7" PRIu64, mib(s->local_limit),
	       mib(s->local_bytes), mib(s->far_bytes), mib(s->managed_bytes));
	for (size_t i = 0; i < sizeof(rates) / sizeof(rates[0]); i++)
		put_rate(rates[i], 6);
	if (stall < 999.95)
		printf(" %5.1f", stall);
	else
		put_rate(stall, 5);
	putchar('\n');
}
