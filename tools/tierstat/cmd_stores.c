/* SPDX-License-Identifier: Apache-2.0 */
/* tierstat stores and tierstat hist: how fast the far tiers answer, and what threads feel. */
#include <stdio.h>
#include <string.h>

#include "segment.h"
#include "show.h"
#include "text.h"
#include "tool.h"

#define BAR 40

static uint64_t since(uint64_t now, uint64_t before)
{
	return now >= before ? now - before : now;
}

/* In percent of the interval; the busy time that lasts is counted up to now. */
static double busy_share(const struct emf_store_stats *s, const struct emf_store_stats *before,
			 double interval)
{
	double share = (double)since(s->busy_ns, before->busy_ns) / 1e7 / interval;

	return share > 100 ? 100 : share;
}

/* Where store.uri has tiers: how much of what was read each served. */
static void tiers(const struct options *opt, const struct emf_stats *s,
		  const struct emf_stats *before)
{
	uint64_t all = 0, used = 0;

	for (unsigned i = 0; i < s->nstores; i++)
		if (s->store[i].tier && (!i || s->store[i].tier != s->store[i - 1].tier))
			all += since(s->store[i].hits, before->store[i].hits);
	for (unsigned i = 0; i < s->nstores; i++) {
		const struct emf_store_stats *st = &s->store[i];
		uint64_t hits = since(st->hits, before->store[i].hits);
		char text[4][TEXT_NUMBER];

		if (!st->tier)
			continue;
		used += st->used_bytes;
		if (i + 1 < s->nstores && s->store[i + 1].tier == st->tier)
			continue;
		printf("%*stier %u: %s used, %s hits (%.1f%% of all), %s blocks came up, %s down\n",
		       opt->times ? 9 : 0, "", st->tier, text_size(used, text[0]),
		       text_count(hits, text[1]), all ? 100.0 * (double)hits / (double)all : 0.0,
		       text_count(st->promoted, text[2]), text_count(st->demoted, text[3]));
		used = 0;
	}
}

static void stores(const struct options *opt, const struct emf_stats *s,
		   const struct emf_stats *before, double interval, unsigned long n)
{
	if (n)
		putchar('\n');
	printf("%s%-10s %6s %9s %9s %7s %7s %6s %6s %8s %8s %s\n", tool_clock(opt), "STATE", "USED",
	       "READ", "WRITTEN", "READ/s", "WRITE/s", "BUSY%", "ERRORS", "READ-P50", "READ-P99",
	       "STORE");
	for (unsigned i = 0; i < s->nstores; i++) {
		const struct emf_store_stats *st = &s->store[i], *was = &before->store[i];
		char used[TEXT_NUMBER], read[TEXT_NUMBER], written[TEXT_NUMBER], rate[TEXT_NUMBER],
		    wrate[TEXT_NUMBER], p50[TEXT_NUMBER], p99[TEXT_NUMBER], errors[TEXT_NUMBER],
		    uri[sizeof(st->uri)];
		struct emf_hist h;

		hist_since(&st->read_latency, &was->read_latency, &h);
		printf(
		    "%*s%-10s %6s %9s %9s %7s %7s %6.1f %6s %8s %8s %s\n", opt->times ? 9 : 0, "",
		    text_store_state(st->state), text_size(st->used_bytes, used),
		    text_size(st->read_bytes, read), text_size(st->written_bytes, written),
		    text_size((uint64_t)((double)since(st->read_bytes, was->read_bytes) / interval),
			      rate),
		    text_size(
			(uint64_t)((double)since(st->written_bytes, was->written_bytes) / interval),
			wrate),
		    busy_share(st, was, interval), text_count(st->errors, errors),
		    text_time(hist_quantile(&h, 0.5), p50), text_time(hist_quantile(&h, 0.99), p99),
		    text_printable(st->uri, uri, sizeof(uri)));
		if (st->rebuild_bytes)
			printf("%*s%s of it %s\n", opt->times ? 9 : 0, "",
			       text_size(st->rebuild_bytes, used),
			       st->state == EMF_STORE_DEGRADED	 ? "can't be made good now"
			       : st->state == EMF_STORE_DRAINING ? "are still to be moved away"
								 : "are still to be made good");
		if (st->mended_bytes)
			printf("%*s%s of it were found wrong by the patrol, and are made good\n",
			       opt->times ? 9 : 0, "", text_size(st->mended_bytes, used));
	}
	tiers(opt, s, before);
	if (!s->nstores)
		puts("no store is open: all of it fits");
}

int cmd_stores(const struct options *opt)
{
	text_exact = opt->bytes;
	return tool_watch(opt, stores);
}

/* A bar of `share` (0..1) of BAR columns, in eighths where the terminal has them. */
static void put_bar(double share, bool utf8)
{
	static const char *const part[] = { "", "▏", "▎", "▍", "▌", "▋", "▊", "▉" };
	unsigned eighths = (unsigned)(share * BAR * 8 + 0.5), full = eighths / 8;

	if (share > 0 && !eighths)
		eighths = 1;
	for (unsigned i = 0; i < full; i++)
		fputs(utf8 ? "█" : "#", stdout);
	if (utf8)
		fputs(part[eighths % 8], stdout);
	else if (!full && eighths)
		putchar('.');
}

/* A line for each power of two. */
static void draw(const struct emf_hist *h)
{
	uint64_t line[64] = { 0 }, total = hist_total(h), most = 0, seen = 0;
	unsigned first = 64, last = 0;
	bool utf8 = text_utf8();

	for (unsigned i = 0; i < EMF_STATS_BUCKETS; i++) {
		uint64_t at = emf_hist_floor(i);
		unsigned e = at ? 63u - (unsigned)__builtin_clzll(at) : 0;

		if (!h->bucket[i])
			continue;
		line[e] += h->bucket[i];
		most = line[e] > most ? line[e] : most;
		first = e < first ? e : first;
		last = e > last ? e : last;
	}
	printf("  %8s %8s %7s %7s\n", "from", "count", "share", "up to");
	for (unsigned e = first; e <= last && first < 64; e++) {
		char from[TEXT_NUMBER], count[TEXT_NUMBER];

		seen += line[e];
		printf("  %8s %8s %6.1f%% %6.1f%% ",
		       e < 10 ? (snprintf(from, sizeof(from), "%uns", e ? 1u << e : 0), from)
			      : text_time(1ull << e, from),
		       text_count(line[e], count), 100 * (double)line[e] / (double)total,
		       100 * (double)seen / (double)total);
		put_bar((double)line[e] / (double)most, utf8);
		putchar('\n');
	}
}

static void one(const char *what, const struct emf_hist *now, const struct emf_hist *before)
{
	struct emf_hist h;
	char n[TEXT_NUMBER], p50[TEXT_NUMBER], p90[TEXT_NUMBER], p99[TEXT_NUMBER],
	    p999[TEXT_NUMBER], max[TEXT_NUMBER];

	hist_since(now, before, &h);
	printf("%s: %s", what, text_count(hist_total(&h), n));
	if (!hist_total(&h)) {
		putchar('\n');
		return;
	}
	printf(", half within %s, 90%% %s, 99%% %s, 99.9%% %s, longest %s\n",
	       text_time(hist_quantile(&h, 0.5), p50), text_time(hist_quantile(&h, 0.9), p90),
	       text_time(hist_quantile(&h, 0.99), p99), text_time(hist_quantile(&h, 0.999), p999),
	       text_time(h.max, max));
	draw(&h);
}

static void histograms(const struct options *opt, const struct emf_stats *s,
		       const struct emf_stats *before, double interval, unsigned long n)
{
	(void)interval;
	if (n)
		putchar('\n');
	fputs(tool_clock(opt), stdout);
	one("faults, until the thread goes on", &s->fault_latency, &before->fault_latency);
	one("of these, found in a frame", &s->standby_latency, &before->standby_latency);
	for (unsigned i = 0; i < s->nstores; i++) {
		char what[sizeof(s->store[i].uri) + 16], uri[sizeof(s->store[i].uri)];

		snprintf(what, sizeof(what), "reads of %s",
			 text_printable(s->store[i].uri, uri, sizeof(uri)));
		one(what, &s->store[i].read_latency, &before->store[i].read_latency);
	}
}

int cmd_hist(const struct options *opt)
{
	return tool_watch(opt, histograms);
}
