/* SPDX-License-Identifier: Apache-2.0 */
#include "columns.h"

#include <stddef.h>
#include <string.h>

#include "show.h"
#include "text.h"

enum kind { BYTES, NUMBER, WORD, COUNTER, BYTE_COUNTER, TIME_COUNTER, PERCENT, LATENCY };

struct column {
	const char *name, *head;
	int width; /* negative: to the left */
	enum kind kind;
	size_t offset; /* of the word in struct emf_stats; or get */
	uint64_t (*get)(const struct emf_stats *s);
	const char *(*word)(const struct emf_stats *s, char *out, size_t len);
	const char *help;
};

static uint64_t get_pid(const struct emf_stats *s)
{
	return s->pid;
}

static const char *word_command(const struct emf_stats *s, char *out, size_t len)
{
	return text_printable(s->command, out, len < 16 ? len : 16);
}

static const char *word_mode(const struct emf_stats *s, char *out, size_t len)
{
	(void)out, (void)len;
	return text_mode(s->mode);
}

static const char *word_stores(const struct emf_stats *s, char *out, size_t len)
{
	(void)out, (void)len;
	return text_stores(s);
}

static uint64_t get_faults(const struct emf_stats *s)
{
	return s->faults_demand + s->faults_standby + s->faults_write_protect + s->faults_zero;
}

/* Of what was fetched, or found in a frame, the part that nobody waited for. */
static uint64_t get_ahead(const struct emf_stats *s)
{
	uint64_t all = s->prefetch_useful + s->faults_demand;

	return all ? s->prefetch_useful * 100 / all : 0;
}

static uint64_t get_p50(const struct emf_stats *s)
{
	return hist_quantile(&s->fault_latency, 0.5);
}

static uint64_t get_p99(const struct emf_stats *s)
{
	return hist_quantile(&s->fault_latency, 0.99);
}

/* clang-format off */
#define AT(member) .offset = offsetof(struct emf_stats, member)

static const struct column columns[] = {
	{ "pid", "PID", 7, NUMBER, .get = get_pid, .help = "process" },
	{ "command", "COMMAND", -15, WORD, .word = word_command, .help = "its name" },
	{ "mode", "MODE", -9, WORD, .word = word_mode, .help = "idle, thread or unmanaged" },
	{ "limit", "LIMIT", 6, BYTES, AT(local_limit), .help = "the budget: local.limit" },
	{ "local", "LOCAL", 6, BYTES, AT(local_bytes), .help = "what counts against it" },
	{ "far", "FAR", 6, BYTES, AT(far_bytes), .help = "what is in the stores" },
	{ "managed", "MANAGED", 7, BYTES, AT(managed_bytes), .help = "size of all regions" },
	{ "faults", "FAULTS", 7, COUNTER, .get = get_faults, .help = "of all kinds" },
	{ "fetched", "FETCHED", 7, BYTE_COUNTER, AT(fetched_bytes), .help = "read from the stores" },
	{ "written", "WRITTEN", 7, BYTE_COUNTER, AT(written_bytes), .help = "written to the stores" },
	{ "stall", "STALL", 6, TIME_COUNTER, AT(stall_ns), .help = "that threads waited in faults" },
	{ "store", "STORE", -5, WORD, .word = word_stores, .help = "the worst of all: ok, full, down" },
	{ "peak", "PEAK", 6, BYTES, AT(peak_local_bytes), .help = "the most that was local" },
	{ "regions", "REGIONS", 7, NUMBER, AT(regions), .help = "managed ranges" },
	{ "standby", "STANDBY", 7, BYTES, AT(standby_bytes), .help = "in frames, not mapped" },
	{ "free", "FREE", 6, BYTES, AT(free_frame_bytes), .help = "frames ready for fetches" },
	{ "placed", "PLACED", 6, BYTES, AT(placed_bytes), .help = "on a slow node, used in place" },
	{ "placing", "PLACING", 7, COUNTER, AT(placed_blocks), .help = "blocks copied there" },
	{ "promoted", "PROMOTE", 7, COUNTER, AT(promoted_blocks), .help = "blocks copied back" },
	{ "stuck", "STUCK", 6, BYTES, AT(stuck_bytes), .help = "refused to move: pinned, shared" },
	{ "lost", "LOST", 6, BYTES, AT(lost_bytes), .help = "could not be fetched" },
	{ "demand", "DEMAND", 7, COUNTER, AT(faults_demand), .help = "faults that waited for a store" },
	{ "frame", "FRAME", 7, COUNTER, AT(faults_standby), .help = "faults served from a frame" },
	{ "wprot", "WPROT", 7, COUNTER, AT(faults_write_protect), .help = "first writes" },
	{ "zero", "ZERO", 7, COUNTER, AT(faults_zero), .help = "first touches" },
	{ "starved", "STARVED", 7, COUNTER, AT(faults_starved), .help = "faults that waited for a frame" },
	{ "evicted", "EVICTED", 7, COUNTER, AT(evicted_blocks), .help = "blocks that left" },
	{ "issued", "ISSUED", 7, COUNTER, AT(prefetch_issued), .help = "blocks fetched ahead" },
	{ "useful", "USEFUL", 7, COUNTER, AT(prefetch_useful), .help = "of these touched" },
	{ "wasted", "WASTED", 7, COUNTER, AT(prefetch_wasted), .help = "of these given up untouched" },
	{ "overruns", "OVERRUN", 7, COUNTER, AT(overruns), .help = "times the budget was exceeded" },
	{ "ahead", "AHEAD%", 6, PERCENT, .get = get_ahead, .help = "of fetched blocks, those in time" },
	{ "p50", "P50", 6, LATENCY, .get = get_p50, .help = "median fault, since the start" },
	{ "p99", "P99", 6, LATENCY, .get = get_p99, .help = "99% of faults are faster" },
};
/* clang-format on */

#define NCOLUMNS ((int)(sizeof(columns) / sizeof(columns[0])))

const int columns_default[] = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, -1 };

static int find(const char *name, size_t len)
{
	for (int i = 0; i < NCOLUMNS; i++) {
		if (strlen(columns[i].name) == len && !strncmp(columns[i].name, name, len))
			return i;
	}
	return -1;
}

bool columns_parse(const char *text, int *choice, char *wrong, size_t len)
{
	int n = 0;

	for (;; text++) {
		size_t k = strcspn(text, ",");
		int i = find(text, k);

		if (i < 0 || n == COLUMNS_MAX - 1) {
			snprintf(wrong, len, "%.*s", (int)k, text);
			return false;
		}
		choice[n++] = i;
		text += k;
		if (!*text)
			break;
	}
	choice[n] = -1;
	return true;
}

void columns_describe(FILE *out)
{
	for (int i = 0; i < NCOLUMNS; i++)
		fprintf(out, "  %-10s %s\n", columns[i].name, columns[i].help);
}

/* Exact sizes are longer than what people read. */
static int width_of(const struct column *c)
{
	return text_exact && (c->kind == BYTES || c->kind == BYTE_COUNTER) ? 15 : c->width;
}

void columns_header(const int *choice)
{
	for (const int *i = choice; *i >= 0; i++) {
		const struct column *c = &columns[*i];

		if (c->width < 0 && i[1] < 0)
			printf("%s%s", i == choice ? "" : " ", c->head);
		else
			printf("%s%*s", i == choice ? "" : " ", width_of(c), c->head);
	}
	putchar('\n');
}

static uint64_t value_of(const struct column *c, const struct emf_stats *s)
{
	return c->get ? c->get(s) : *(const uint64_t *)((const char *)s + c->offset);
}

static const char *cell(const struct column *c, const struct emf_stats *s,
			const struct emf_stats *before, double interval, char *out, size_t len)
{
	uint64_t v, was;

	if (c->kind == WORD)
		return c->word(s, out, len);
	v = value_of(c, s);
	if (before && c->kind >= COUNTER && c->kind <= TIME_COUNTER) {
		was = value_of(c, before);
		v = (uint64_t)((double)(v >= was ? v - was : v) / interval);
	}
	switch (c->kind) {
	case BYTES:
	case BYTE_COUNTER:
		return text_size(v, out);
	case COUNTER:
		return text_count(v, out);
	case TIME_COUNTER:
		if (!before)
			return text_time(v, out);
		snprintf(out, len, "%.1f%%", (double)v / 1e7);
		return out;
	case PERCENT:
		snprintf(out, len, "%u", (unsigned)v);
		return out;
	case LATENCY:
		return text_time(v, out);
	default:
		snprintf(out, len, "%llu", (unsigned long long)v);
		return out;
	}
}

void columns_line(const int *choice, const struct emf_stats *s, const struct emf_stats *before,
		  double interval)
{
	for (const int *i = choice; *i >= 0; i++) {
		const struct column *c = &columns[*i];
		char text[64];
		const char *shown = cell(c, s, before, interval, text, sizeof(text));

		if (c->width < 0 && i[1] < 0)
			printf("%s%s", i == choice ? "" : " ", shown);
		else
			printf("%s%*s", i == choice ? "" : " ", width_of(c), shown);
	}
	putchar('\n');
}
