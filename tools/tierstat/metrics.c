/* SPDX-License-Identifier: Apache-2.0 */
#include "metrics.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "show.h"
#include "text.h"
#include "tool.h"

/* Upper edges of the histograms' buckets: 2^n ns, from 1 us to 17 s. */
#define EDGE_FIRST 10u
#define EDGE_LAST 34u

struct snapshot {
	struct emf_stats *all;
	unsigned n, room;
};

static void keep(const struct emf_stats *s, unsigned index, void *arg)
{
	struct snapshot *to = arg;

	(void)index;
	if (to->n == to->room) {
		unsigned room = to->room ? to->room * 2 : 8;
		void *more = realloc(to->all, room * sizeof(*to->all));

		if (!more)
			return;
		to->all = more;
		to->room = room;
	}
	to->all[to->n++] = *s;
}

static void head(FILE *f, const char *name, const char *type, const char *help)
{
	fprintf(f, "# HELP emfatier_%s %s\n# TYPE emfatier_%s %s\n", name, help, name, type);
}

/* What a label's value may not have is replaced, or escaped. */
static const char *label(const char *text, char *out, size_t len)
{
	char plain[256];
	size_t n = 0;

	text_printable(text, plain, sizeof(plain));
	for (const char *p = plain; *p && n + 2 < len; p++) {
		if (*p == '"' || *p == '\\')
			out[n++] = '\\';
		out[n++] = *p;
	}
	out[n] = '\0';
	return out;
}

static void labels(FILE *f, const struct emf_stats *s)
{
	char command[2 * sizeof(s->command)];

	fprintf(f, "pid=\"%u\",command=\"%s\"", s->pid,
		label(s->command, command, sizeof(command)));
}

/* clang-format off */
#define AT(member) offsetof(struct emf_stats, member)
static const struct metric {
	const char *name, *type, *label, *help; /* the same name again: another label of it */
	size_t offset;
	double scale;
} metrics[] = {
	{ "local_limit_bytes", "gauge", "", "Budget for what can be moved (local.limit).", AT(local_limit), 1 },
	{ "local_bytes", "gauge", "", "Local memory that counts against the budget.", AT(local_bytes), 1 },
	{ "local_peak_bytes", "gauge", "", "The most that was local.", AT(peak_local_bytes), 1 },
	{ "far_bytes", "gauge", "", "Memory that is in the far stores.", AT(far_bytes), 1 },
	{ "managed_bytes", "gauge", "", "Size of all managed regions.", AT(managed_bytes), 1 },
	{ "standby_bytes", "gauge", "", "Memory in frames that is not mapped.", AT(standby_bytes), 1 },
	{ "free_frame_bytes", "gauge", "", "Frames that are ready for fetches.", AT(free_frame_bytes), 1 },
	{ "placed_bytes", "gauge", "", "Memory of a slow node, used in place (store.in_place).", AT(placed_bytes), 1 },
	{ "placed_blocks_total", "counter", "", "Blocks copied to the slow node, in place.", AT(placed_blocks), 1 },
	{ "promoted_blocks_total", "counter", "", "Blocks copied back to local memory, as they were used.", AT(promoted_blocks), 1 },
	{ "stuck_bytes", "gauge", "", "Local memory that refuses to move (pinned, shared).", AT(stuck_bytes), 1 },
	{ "lost_bytes", "gauge", "", "Memory that could not be fetched.", AT(lost_bytes), 1 },
	{ "regions", "gauge", "", "Managed ranges of memory.", AT(regions), 1 },
	{ "faults_total", "counter", ",kind=\"demand\"", "Faults by what served them: demand waited for a store, standby was in a frame.", AT(faults_demand), 1 },
	{ "faults_total", "counter", ",kind=\"standby\"", "", AT(faults_standby), 1 },
	{ "faults_total", "counter", ",kind=\"write_protect\"", "", AT(faults_write_protect), 1 },
	{ "faults_total", "counter", ",kind=\"zero\"", "", AT(faults_zero), 1 },
	{ "faults_starved_total", "counter", "", "Faults that waited for a frame.", AT(faults_starved), 1 },
	{ "stall_seconds_total", "counter", "", "Time that threads waited in faults, summed over threads.", AT(stall_ns), 1e-9 },
	{ "fetched_bytes_total", "counter", "", "Read from the far stores.", AT(fetched_bytes), 1 },
	{ "written_bytes_total", "counter", "", "Written to the far stores.", AT(written_bytes), 1 },
	{ "dropped_bytes_total", "counter", ",kind=\"clean\"", "Evicted without a write: clean was in the store already, zero needs none.", AT(dropped_clean_bytes), 1 },
	{ "dropped_bytes_total", "counter", ",kind=\"zero\"", "", AT(dropped_zero_bytes), 1 },
	{ "evicted_blocks_total", "counter", "", "Blocks that left local memory.", AT(evicted_blocks), 1 },
	{ "prefetch_issued_blocks_total", "counter", "", "Blocks fetched ahead.", AT(prefetch_issued), 1 },
	{ "prefetch_useful_blocks_total", "counter", "", "Blocks fetched ahead and then touched.", AT(prefetch_useful), 1 },
	{ "prefetch_wasted_blocks_total", "counter", "", "Blocks fetched ahead and given up untouched.", AT(prefetch_wasted), 1 },
	{ "budget_overruns_total", "counter", "", "Times the budget had to be exceeded.", AT(overruns), 1 },
};
#undef AT
#define AT(member) offsetof(struct emf_store_stats, member)
static const struct metric store_metrics[] = {
	{ "store_used_bytes", "gauge", "", "Space in use in the store.", AT(used_bytes), 1 },
	{ "store_rebuild_bytes", "gauge", "", "What the store lacks still after it was away.", AT(rebuild_bytes), 1 },
	{ "store_looked_bytes_total", "counter", "", "Read only to see whether it is right.", AT(looked_bytes), 1 },
	{ "store_mended_bytes_total", "counter", "", "Found wrong where nobody knew, and made good.", AT(mended_bytes), 1 },
	{ "store_tier_hits_total", "counter", "", "Reads that the store's tier served.", AT(hits), 1 },
	{ "store_tier_promoted_blocks_total", "counter", "", "Blocks that came into the tier from a slower one.", AT(promoted), 1 },
	{ "store_tier_demoted_blocks_total", "counter", "", "Blocks that came into the tier from a faster one.", AT(demoted), 1 },
	{ "store_inflight_transfers", "gauge", "", "Reads and writes under way.", AT(inflight), 1 },
	{ "store_read_bytes_total", "counter", "", "Read from the store.", AT(read_bytes), 1 },
	{ "store_written_bytes_total", "counter", "", "Written to the store.", AT(written_bytes), 1 },
	{ "store_errors_total", "counter", "", "Transfers that failed.", AT(errors), 1 },
	{ "store_busy_seconds_total", "counter", "", "Time with a transfer under way.", AT(busy_ns), 1e-9 },
};
/* clang-format on */

static void value(FILE *f, const void *base, const struct metric *m)
{
	uint64_t v = *(const uint64_t *)((const char *)base + m->offset);

	if (m->scale == 1)
		fprintf(f, "%" PRIu64 "\n", v);
	else
		fprintf(f, "%.9f\n", (double)v * m->scale);
}

static void scalars(FILE *f, const struct snapshot *snap)
{
	for (size_t i = 0; i < sizeof(metrics) / sizeof(metrics[0]); i++) {
		const struct metric *m = &metrics[i];

		if (m->help[0])
			head(f, m->name, m->type, m->help);
		for (unsigned k = 0; k < snap->n; k++) {
			fprintf(f, "emfatier_%s{", m->name);
			labels(f, &snap->all[k]);
			fprintf(f, "%s} ", m->label);
			value(f, &snap->all[k], m);
		}
	}
}

static void store_label(FILE *f, const struct emf_stats *s, unsigned i)
{
	char uri[2 * sizeof(s->store[0].uri)];

	labels(f, s);
	fprintf(f, ",store=\"%s\"", label(s->store[i].uri, uri, sizeof(uri)));
}

static void store_scalars(FILE *f, const struct snapshot *snap)
{
	head(f, "store_up", "gauge", "1: the store answers, 0: it is down.");
	for (unsigned k = 0; k < snap->n; k++)
		for (unsigned i = 0; i < snap->all[k].nstores; i++) {
			fputs("emfatier_store_up{", f);
			store_label(f, &snap->all[k], i);
			fprintf(f, "} %d\n", snap->all[k].store[i].state != EMF_STORE_DOWN);
		}
	for (size_t j = 0; j < sizeof(store_metrics) / sizeof(store_metrics[0]); j++) {
		const struct metric *m = &store_metrics[j];

		head(f, m->name, m->type, m->help);
		for (unsigned k = 0; k < snap->n; k++)
			for (unsigned i = 0; i < snap->all[k].nstores; i++) {
				fprintf(f, "emfatier_%s{", m->name);
				store_label(f, &snap->all[k], i);
				fputs("} ", f);
				value(f, &snap->all[k].store[i], m);
			}
	}
}

/* store: an index, or -1 for the faults of the process. */
static void histogram(FILE *f, const char *name, const struct emf_stats *s, int store)
{
	const struct emf_hist *h = store < 0 ? &s->fault_latency : &s->store[store].read_latency;
	uint64_t seen = 0, total = hist_total(h);
	double sum = 0;
	unsigned i = 0;

	for (unsigned e = EDGE_FIRST; e <= EDGE_LAST + 1; e++) {
		for (; i < EMF_STATS_BUCKETS && (e > EDGE_LAST || emf_hist_floor(i) < 1ull << e);
		     i++) {
			seen += h->bucket[i];
			sum += (double)h->bucket[i] * (double)emf_hist_floor(i) * 1.06e-9;
		}
		fprintf(f, "emfatier_%s_bucket{", name);
		if (store < 0)
			labels(f, s);
		else
			store_label(f, s, (unsigned)store);
		if (e > EDGE_LAST)
			fprintf(f, ",le=\"+Inf\"} %" PRIu64 "\n", total);
		else
			fprintf(f, ",le=\"%.9f\"} %" PRIu64 "\n", (double)(1ull << e) * 1e-9, seen);
	}
	for (int part = 0; part < 2; part++) {
		fprintf(f, "emfatier_%s_%s{", name, part ? "count" : "sum");
		if (store < 0)
			labels(f, s);
		else
			store_label(f, s, (unsigned)store);
		if (part)
			fprintf(f, "} %" PRIu64 "\n", total);
		else
			fprintf(f, "} %.9f\n", store < 0 ? (double)s->stall_ns * 1e-9 : sum);
	}
}

int metrics_write(const struct options *opt, FILE *out)
{
	struct snapshot snap = { 0 };
	unsigned shown;
	int status = tool_for_all(opt, keep, &snap, &shown);

	head(out, "process_info", "gauge", "A managed process; mode is idle, thread or unmanaged.");
	for (unsigned k = 0; k < snap.n; k++) {
		fputs("emfatier_process_info{", out);
		labels(out, &snap.all[k]);
		fprintf(out, ",mode=\"%s\",version=\"" EMFATIER_VERSION "\"} 1\n",
			text_mode(snap.all[k].mode));
	}
	scalars(out, &snap);
	head(out, "fault_latency_seconds", "histogram", "How long a thread waits in a fault.");
	for (unsigned k = 0; k < snap.n; k++)
		histogram(out, "fault_latency_seconds", &snap.all[k], -1);
	store_scalars(out, &snap);
	head(out, "store_read_latency_seconds", "histogram", "How long a read of the store takes.");
	for (unsigned k = 0; k < snap.n; k++)
		for (unsigned i = 0; i < snap.all[k].nstores; i++)
			histogram(out, "store_read_latency_seconds", &snap.all[k], (int)i);
	free(snap.all);
	return status;
}
