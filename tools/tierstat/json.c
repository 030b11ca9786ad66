/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "show.h"
#include "text.h"

/* The length of the valid UTF-8 sequence at p (no overlong form, no surrogate), or 0. */
static unsigned utf8_length(const unsigned char *p)
{
	static const struct {
		unsigned char first, last, second_min, second_max, length;
	} forms[] = {
		{ 0xc2, 0xdf, 0x80, 0xbf, 2 }, { 0xe0, 0xe0, 0xa0, 0xbf, 3 },
		{ 0xe1, 0xec, 0x80, 0xbf, 3 }, { 0xed, 0xed, 0x80, 0x9f, 3 },
		{ 0xee, 0xef, 0x80, 0xbf, 3 }, { 0xf0, 0xf0, 0x90, 0xbf, 4 },
		{ 0xf1, 0xf3, 0x80, 0xbf, 4 }, { 0xf4, 0xf4, 0x80, 0x8f, 4 },
	};

	for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
		unsigned n = 2;

		if (p[0] < forms[i].first || p[0] > forms[i].last)
			continue;
		if (p[1] < forms[i].second_min || p[1] > forms[i].second_max)
			return 0;
		while (n < forms[i].length && p[n] >= 0x80 && p[n] <= 0xbf)
			n++;
		return n == forms[i].length ? n : 0;
	}
	return 0;
}

void json_string(const char *text)
{
	const unsigned char *p = (const unsigned char *)text;

	putchar('"');
	while (*p) {
		unsigned n = *p < 0x80 ? 1 : utf8_length(p);

		if (!n)
			fputs("\\ufffd", stdout);
		else if (*p == '"' || *p == '\\')
			printf("\\%c", *p);
		else if (*p < 0x20 || *p == 0x7f)
			printf("\\u%04x", *p);
		else
			fwrite(p, 1, n, stdout);
		p += n ? n : 1;
	}
	putchar('"');
}

static double us(uint64_t ns)
{
	return (double)ns / 1000;
}

static void put_store(const struct emf_store_stats *st)
{
	fputs("{\"uri\": ", stdout);
	json_string(st->uri);
	printf(
	    ", \"state\": \"%s\", \"used_bytes\": %" PRIu64 ", \"read_bytes\": %" PRIu64
	    ", \"written_bytes\": %" PRIu64
	    ", \"read_latency_us\": {\"p50\": %.3f, \"p99\": %.3f}, \"errors\": %" PRIu64
	    ", \"busy_seconds\": %.6f, \"rebuild_bytes\": %" PRIu64 ", \"looked_bytes\": %" PRIu64
	    ", \"mended_bytes\": %" PRIu64 ", \"tier\": %u, \"hits\": %" PRIu64
	    ", \"promoted\": %" PRIu64 ", \"demoted\": %" PRIu64 "}",
	    text_store_state(st->state), st->used_bytes, st->read_bytes, st->written_bytes,
	    us(hist_quantile(&st->read_latency, 0.5)), us(hist_quantile(&st->read_latency, 0.99)),
	    st->errors, (double)st->busy_ns / 1e9, st->rebuild_bytes, st->looked_bytes,
	    st->mended_bytes, st->tier, st->hits, st->promoted, st->demoted);
}

static void put_latency(int in, const char *name, const struct emf_hist *h)
{
	printf("%*s  \"%s\": {\"p50\": %.3f, \"p90\": %.3f, \"p99\": %.3f, \"p999\": %.3f, "
	       "\"max\": %.3f},\n",
	       in, "", name, us(hist_quantile(h, 0.5)), us(hist_quantile(h, 0.9)),
	       us(hist_quantile(h, 0.99)), us(hist_quantile(h, 0.999)), us(h->max));
}

void show_json(const struct emf_stats *s, unsigned indent)
{
	const struct {
		const char *name;
		uint64_t value;
	} counters[] = {
		{ "local_limit", s->local_limit },
		{ "local_bytes", s->local_bytes },
		{ "peak_local_bytes", s->peak_local_bytes },
		{ "far_bytes", s->far_bytes },
		{ "managed_bytes", s->managed_bytes },
		{ "free_frame_bytes", s->free_frame_bytes },
		{ "standby_bytes", s->standby_bytes },
		{ "lost_bytes", s->lost_bytes },
		{ "regions", s->regions },
		{ "faults_demand", s->faults_demand },
		{ "faults_standby", s->faults_standby },
		{ "faults_write_protect", s->faults_write_protect },
		{ "faults_zero", s->faults_zero },
		{ "fetched_bytes", s->fetched_bytes },
		{ "written_bytes", s->written_bytes },
		{ "dropped_clean_bytes", s->dropped_clean_bytes },
		{ "dropped_zero_bytes", s->dropped_zero_bytes },
		{ "evicted_blocks", s->evicted_blocks },
		{ "overruns", s->overruns },
		{ "faults_starved", s->faults_starved },
		{ "stuck_bytes", s->stuck_bytes },
		{ "placed_bytes", s->placed_bytes },
		{ "placed_blocks", s->placed_blocks },
		{ "promoted_blocks", s->promoted_blocks },
		{ "prefetch_issued", s->prefetch_issued },
		{ "prefetch_useful", s->prefetch_useful },
		{ "prefetch_wasted", s->prefetch_wasted },
	};
	int in = (int)indent;

	printf("{\n%*s  \"pid\": %u,\n%*s  \"command\": ", in, "", s->pid, in, "");
	json_string(s->command);
	printf(",\n%*s  \"uffd_mode\": \"%s\",\n%*s  \"move\": %s,\n", in, "", text_mode(s->mode),
	       in, "", s->move ? "true" : "false");
	for (size_t i = 0; i < sizeof(counters) / sizeof(counters[0]); i++)
		printf("%*s  \"%s\": %" PRIu64 ",\n", in, "", counters[i].name, counters[i].value);
	printf("%*s  \"stall_seconds\": %.6f,\n", in, "", (double)s->stall_ns / 1e9);
	put_latency(in, "fault_latency_us", &s->fault_latency);
	put_latency(in, "standby_latency_us", &s->standby_latency);
	printf("%*s  \"stores\": [", in, "");
	for (unsigned i = 0; i < s->nstores; i++) {
		printf("%s\n%*s    ", i ? "," : "", in, "");
		put_store(&s->store[i]);
	}
	if (s->nstores)
		printf("\n%*s  ", in, "");
	printf("]\n%*s}", in, "");
}
