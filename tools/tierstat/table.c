/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>

#include "segment.h"
#include "show.h"

/* At most 5 characters: 0, 940, 1.5K, 64K, 31.2M, 1023G. */
static const char *human(uint64_t n, unsigned base, char *out, size_t len)
{
	static const char units[] = " KMGTPE";
	double v = (double)n;
	unsigned u = 0;

	while (v >= (double)base - 0.5 && u < 6) {
		v /= base;
		u++;
	}
	if (!u)
		snprintf(out, len, "%" PRIu64, n);
	else
		snprintf(out, len, "%.*f%c", v < 99.95 ? 1 : 0, v, units[u]);
	return out;
}

static const char *size(uint64_t bytes, char *out)
{
	return human(bytes, 1024, out, 16);
}

static const char *count(uint64_t n, char *out)
{
	return human(n, 1000, out, 16);
}

static const char *mode_name(uint32_t mode)
{
	return mode == EMF_MODE_IDLE ? "idle" : mode == EMF_MODE_THREAD ? "thread" : "unmanaged";
}

/* The worst of all. */
static const char *stores_state(const struct emf_stats *s)
{
	const char *state = s->nstores ? "ok" : "-";

	for (unsigned i = 0; i < s->nstores; i++) {
		if (s->store[i].state == EMF_STORE_DOWN)
			return "down";
		if (s->store[i].state == EMF_STORE_FULL)
			state = "full";
	}
	return state;
}

/* "80us", "950ms", "12.3s", "41m", "3.2h" of time that threads waited. */
static const char *seconds(uint64_t ns, char *out, size_t len)
{
	double s = (double)ns / 1e9;

	if (!ns)
		snprintf(out, len, "0");
	else if (s < 0.0009995)
		snprintf(out, len, "%.0fus", s * 1e6);
	else if (s < 0.9995)
		snprintf(out, len, "%.0fms", s * 1000);
	else if (s < 600)
		snprintf(out, len, "%.1fs", s);
	else if (s < 36000)
		snprintf(out, len, "%.0fm", s / 60);
	else
		snprintf(out, len, "%.0fh", s / 3600);
	return out;
}

static const char *printable(const char *text, char *out, size_t len)
{
	size_t n = 0;

	for (; text[n] && n + 1 < len; n++)
		out[n] = text[n] >= ' ' && text[n] <= '~' ? text[n] : '?';
	out[n] = '\0';
	return out;
}

void show_list_header(void)
{
	printf("%7s %-15s %-9s %6s %6s %6s %7s %7s %7s %7s %6s %s\n", "PID", "COMMAND", "MODE",
	       "LIMIT", "LOCAL", "FAR", "MANAGED", "FAULTS", "FETCHED", "WRITTEN", "STALL",
	       "STORE");
}

void show_list_line(const struct emf_stats *s)
{
	char command[16], limit[16], local[16], far[16], managed[16], faults[16], fetched[16],
	    written[16], stall[16];

	printf(
	    "%7u %-15s %-9s %6s %6s %6s %7s %7s %7s %7s %6s %s\n", s->pid,
	    printable(s->command, command, sizeof(command)), mode_name(s->mode),
	    size(s->local_limit, limit), size(s->local_bytes, local), size(s->far_bytes, far),
	    size(s->managed_bytes, managed),
	    count(s->faults_demand + s->faults_standby + s->faults_write_protect + s->faults_zero,
		  faults),
	    size(s->fetched_bytes, fetched), size(s->written_bytes, written),
	    seconds(s->stall_ns, stall, sizeof(stall)), stores_state(s));
}

void show_rates_header(void)
{
	printf("%-31s %-27s %-13s %-20s %5s\n", "---------- memory MiB ---------",
	       "--------- faults/s --------", "--- MiB/s ---", "---- prefetch/s ----", "stall");
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
	char text[16];

	if (value < (width > 5 ? 999999.5 : 99999.5))
		printf(" %*.0f", (int)width, value);
	else
		printf(" %*s", (int)width, count((uint64_t)value, text));
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
