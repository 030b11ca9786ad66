/* SPDX-License-Identifier: Apache-2.0 */
/* policysim: see usage. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "block.h"
#include "replay.h"

static const char usage[] =
    "usage: policysim [-o PREFIX] [-l BLOCKS] TRACE|NAME...\n"
    "Replays tours of programs through their memory under every policy of emfatier, with\n"
    "25, 50, 75 and 90% of it local, and prints what each fetched, beside Belady's optimum\n"
    "and an exact LRU. TRACE is a file of engine.trace, .xz too; NAME one that is made up:\n"
    " ";

static const struct {
	const char *name;
	enum emf_evict evict;
} policies[] = { { "auto", EMF_EVICT_AUTO },
		 { "loop", EMF_EVICT_LOOP },
		 { "lfu", EMF_EVICT_LFU },
		 { "lru", EMF_EVICT_LRU } };
static const struct {
	const char *name;
	enum emf_prefetch prefetch;
} prefetchers[] = { { "auto", EMF_PREFETCH_AUTO },
		    { "sequential", EMF_PREFETCH_SEQUENTIAL },
		    { "trend", EMF_PREFETCH_TREND },
		    { "learned", EMF_PREFETCH_LEARNED } };
#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static const unsigned percents[] = { 25, 50, 75, 90 };
static const char *prefix;
static double link_speed;

static double rate(uint64_t fetched, uint64_t touches)
{
	return touches ? 100.0 - 100.0 * (double)fetched / (double)touches : 100.0;
}

static void evictions(const struct tour *t, size_t blocks, FILE *data)
{
	printf("  %-6s %8s", "local", "optimum");
	for (size_t p = 0; p < COUNT(policies); p++)
		printf(" %8s", policies[p].name);
	printf(" %8s %12s %12s   hit rate, %%\n", "true-lru", "fetched", "optimum's");
	for (size_t i = 0; i < COUNT(percents); i++) {
		size_t capacity = blocks * percents[i] / 100;
		uint64_t optimum = replay_optimum(t, capacity, NULL), lru = replay_lru(t, capacity);
		struct replay a = { 0 };
		for (size_t p = 0; p < COUNT(policies); p++) {
			struct replay r = { .evict = policies[p].evict, .prefetch = EMF_PREFETCH_OFF,
					    .capacity = capacity, .link = link_speed };
			replay_run(&r, t);
			if (!p) {
				a = r;
				printf("  %3u%%   %8.1f", percents[i], rate(optimum, r.touches));
				if (data)
					fprintf(data, "%u %.2f %.2f", percents[i], rate(optimum, r.touches),
						rate(lru, r.touches));
			}
			printf(" %8.1f", replay_hit_rate(&r));
			if (data)
				fprintf(data, " %.2f", replay_hit_rate(&r));
		}
		printf(" %8.1f %8lu MiB %8lu MiB\n", rate(lru, a.touches),
		       (unsigned long)(a.fetched << (BLOCK_SHIFT - 20)),
		       (unsigned long)(optimum << (BLOCK_SHIFT - 20)));
		if (data)
			fputc('\n', data);
	}
}

static void prefetches(const struct tour *t, size_t blocks)
{
	printf("  %-6s", "local");
	for (size_t p = 0; p < COUNT(prefetchers); p++)
		printf(" %21s", prefetchers[p].name);
	printf("   useful of issued, in time of fetched, speed of all-local\n");
	for (size_t i = 0; i < COUNT(percents); i++) {
		printf("  %3u%%  ", percents[i]);
		for (size_t p = 0; p < COUNT(prefetchers); p++) {
			struct replay r = { .prefetch = prefetchers[p].prefetch,
					    .capacity = blocks * percents[i] / 100, .link = link_speed };
			replay_run(&r, t);
			printf("   %5.1f%% %5.1f%% %4.2f",
			       r.issued ? 100.0 * (double)r.useful / (double)r.issued : 100.0,
			       r.fetched ? 100.0 * (double)r.useful / (double)r.fetched : 100.0,
			       (double)t->n / r.time);
		}
		putchar('\n');
	}
}

/* What was fetched from mark to mark (a token, a tour), at half of it local. */
static void over_time(const struct tour *t, size_t blocks, FILE *data)
{
	unsigned *a = calloc(t->nmarks + 1, sizeof(*a)), *o = calloc(t->nmarks + 1, sizeof(*o));
	struct replay r = { .capacity = blocks / 2, .prefetch = EMF_PREFETCH_OFF, .series = a };

	if (!a || !o)
		abort();
	replay_run(&r, t);
	replay_optimum(t, blocks / 2, o);
	for (size_t i = 0; i < t->nmarks; i++) {
		size_t end = i + 1 < t->nmarks ? t->mark[i + 1] : t->n, n = end - t->mark[i];
		fprintf(data, "%zu %.2f %.2f\n", i, rate(o[i], n), rate(a[i], n));
	}
	free(a);
	free(o);
}

static FILE *output(const char *name, const char *suffix)
{
	char path[512];

	if (!prefix)
		return NULL;
	snprintf(path, sizeof(path), "%s%s%s", prefix, name, suffix);
	FILE *f = fopen(path, "w");
	if (!f) {
		perror(path);
		exit(1);
	}
	return f;
}

static void show(const struct tour *t)
{
	size_t blocks = tour_blocks(t);
	const char *slash = strrchr(t->name, '/'), *name = slash ? slash + 1 : t->name;
	FILE *data = output(name, ".hits"), *time = output(name, ".time");

	printf("%s: %zu touches of %zu blocks in %zu regions, %zu marks\n", name, t->n, blocks,
	       t->nregions, t->nmarks);
	evictions(t, blocks, data);
	prefetches(t, blocks);
	if (data)
		fclose(data);
	if (time) {
		over_time(t, blocks, time);
		fclose(time);
	}
}

int main(int argc, char **argv)
{
	int i = 1, status = 0;

	for (; i + 1 < argc && argv[i][0] == '-'; i += 2) {
		if (!strcmp(argv[i], "-o"))
			prefix = argv[i + 1];
		else if (!strcmp(argv[i], "-l"))
			link_speed = atof(argv[i + 1]);
		else if (!strcmp(argv[i], "-w")) {
			/* A tour that is made up, as a trace: for other tools. */
			struct tour t;
			if (i + 2 >= argc || !tour_generate(&t, argv[i + 2]) || !tour_write(&t, argv[i + 1]))
				return fputs("policysim: -w FILE NAME: can't write that\n", stderr), 1;
			return 0;
		} else
			break;
	}
	if (i >= argc || argv[i][0] == '-') {
		fputs(usage, stderr);
		for (unsigned k = 0; tour_names[k]; k++)
			fprintf(stderr, " %s", tour_names[k]);
		fputs("\n-o PREFIX: data for plots (bench/policysim.sh makes them); -l BLOCKS: that a link brings while the\n"
		      "program is on one, 0.8 by default; -w FILE NAME: writes a made-up tour as a trace\n",
		      stderr);
		return 2;
	}
	for (; i < argc; i++) {
		struct tour t;
		char why[128];
		if (!tour_generate(&t, argv[i]) && !tour_read(&t, argv[i], why, sizeof(why))) {
			fprintf(stderr, "policysim: %s: %s\n", argv[i], why);
			status = 1;
			continue;
		}
		show(&t);
		tour_free(&t);
	}
	return status;
}
