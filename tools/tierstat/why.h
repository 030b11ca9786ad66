/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What limits a process: judged from two readings of its statistics, with nothing but numbers
 * that are in them, so that it can be tested without a process.
 */
#ifndef TIERSTAT_WHY_H
#define TIERSTAT_WHY_H

#include "emfatier-stats.h"

enum why_cause {
	WHY_NOTHING,
	WHY_UNMANAGED,
	WHY_STORE_DOWN,
	WHY_STORE_FULL,
	WHY_PINNED,
	WHY_MOVERS,
	WHY_SLOW_STORE,
	WHY_RANDOM,
	WHY_BUDGET,
	WHY_WRITE_BACK,
	WHY_LINK,
	WHY_FIRST_TOUCH,
	WHY_READ_AHEAD,
};

/* What a thread had of the processors, in cores: 1 is all the time. */
struct why_thread {
	double ran;    /* negative: unknown */
	double waited; /* ready to run, while others did */
};

struct why_input {
	const struct emf_stats *now, *before;
	double seconds; /* between them */
	struct why_thread mover, fault;
	uint64_t kept_bytes;
	uint64_t now_ns; /* CLOCK_MONOTONIC of `now` */
};

#define WHY_LINES 6

struct why {
	enum why_cause cause;
	double stall; /* threads that wait, on average */
	double
	    bandwidth; /* bytes/s that the stores give while they are busy; 0: nothing was read */
	double pass;   /* s: to fetch once what is far, at that bandwidth; 0: nothing is far */
	char headline[160];
	char evidence[WHY_LINES][200], advice[WHY_LINES][200];
	unsigned nevidence, nadvice;
};

void why_judge(const struct why_input *in, struct why *out);
/* One word: "link", "budget" ... */
const char *why_name(enum why_cause cause);

#endif
