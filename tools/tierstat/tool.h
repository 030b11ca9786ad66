/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the commands of tierstat share: the options, how processes are found and time passes.
 * Every cmd_* returns the exit status.
 */
#ifndef TIERSTAT_TOOL_H
#define TIERSTAT_TOOL_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "../common/say.h"
#include "emfatier-stats.h"

struct options {
	const char *dir; /* the run directory */
	bool json, times, bytes;
	pid_t pid;	     /* 0: all */
	const char *command; /* -c: a glob of names */
	const char *out;     /* -o: columns, or a file */
	const char *file;    /* of replay and plot */
	const char *listen, *textfile;
	double delay;	     /* 0: once */
	unsigned long count; /* 0: until the process ends */
};

int cmd_list(const struct options *opt);
int cmd_regions(const struct options *opt);
int cmd_stores(const struct options *opt);
int cmd_hist(const struct options *opt);
int cmd_why(const struct options *opt);
int cmd_heatmap(const struct options *opt);
int cmd_plot(const struct options *opt);
int cmd_record(const struct options *opt);
int cmd_replay(const struct options *opt);
int cmd_top(const struct options *opt);
int cmd_prom(const struct options *opt);

/* Says why a segment could not be read (-errno); returns the exit status. */
int tool_unreadable(pid_t pid, int rc);
/* Reads the segment of opt->pid. 0, or it was said: the exit status. */
int tool_read(const struct options *opt, struct emf_stats *s);
/* The map of opt->pid, with a word about why there is none. 0 or the exit status. */
int tool_map(const struct options *opt, const struct emf_stats *s, struct emf_map *map);
/* 0, or EXIT_DEGRADED when a store is down. */
int tool_health(const struct emf_stats *s);

/*
 * Calls show for each managed process that -p and -c choose. Returns the exit status; a process
 * that ends or starts meanwhile is no error.
 */
int tool_for_all(const struct options *opt,
		 void (*show)(const struct emf_stats *s, unsigned index, void *arg), void *arg,
		 unsigned *shown);

/*
 * Shows opt->pid as -p PID DELAY COUNT has it: from its start until now, then each interval. n
 * counts from 0. Returns the exit status; a process that ends meanwhile is no error.
 */
typedef void tool_show(const struct options *opt, const struct emf_stats *s,
		       const struct emf_stats *before, double interval, unsigned long n);
int tool_watch(const struct options *opt, tool_show *show);

/* The monotonic clock, in seconds and in nanoseconds. */
double tool_now(void);
uint64_t tool_now_ns(void);
void tool_sleep_until(double when);
/* "12:34:56 " in local time; "" without -t. */
const char *tool_clock(const struct options *opt);

/* Standard output could not be written: says so. */
int tool_flush(int status);

#endif
