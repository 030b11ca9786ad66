/* SPDX-License-Identifier: Apache-2.0 */
/* tierstat record and tierstat replay. */
#include <errno.h>
#include <fnmatch.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "columns.h"
#include "record.h"
#include "segment.h"
#include "show.h"
#include "text.h"
#include "tool.h"

static volatile sig_atomic_t stop;

static void on_signal(int sig)
{
	(void)sig;
	stop = 1;
}

struct writing {
	struct record *record;
	uint64_t time_ns;
	unsigned long readings;
	int err, status;
};

static void add(const struct emf_stats *s, unsigned index, void *arg)
{
	struct writing *w = arg;

	(void)index;
	if (!w->err)
		w->err = record_add(w->record, w->time_ns, s);
	w->readings++;
}

static uint64_t real_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Readings until it is told to stop, COUNT is reached or the one process has ended. */
static void readings(const struct options *opt, struct writing *w)
{
	double due = tool_now(), delay = opt->delay > 0 ? opt->delay : 1;
	bool tell = isatty(STDERR_FILENO);
	static struct emf_stats s;
	unsigned shown;

	for (unsigned long i = 1; !stop && !w->err; i++) {
		w->time_ns = real_ns();
		if (!opt->pid) {
			w->status = tool_for_all(opt, add, w, &shown);
		} else if (segment_read(opt->dir, opt->pid, &s)) {
			break; /* it ended */
		} else {
			add(&s, 0, w);
		}
		if (tell)
			fprintf(stderr, "\r%lu readings in %s; ^C ends it ", w->readings, opt->out);
		if (opt->count && i >= opt->count)
			break;
		due += delay;
		for (double now; !stop && (now = tool_now()) < due;)
			tool_sleep_until(due - now > 0.2 ? now + 0.2 : due);
	}
	if (tell)
		fputc('\n', stderr);
}

int cmd_record(const struct options *opt)
{
	struct sigaction sa = { .sa_handler = on_signal };
	struct writing w = { 0 };
	static struct emf_stats s;
	int rc;

	if (!opt->out)
		return say(EXIT_USAGE, "record needs a file: tierstat record -o FILE");
	if (opt->pid) {
		rc = tool_read(opt, &s);
		if (rc)
			return rc;
	}
	rc = record_create(opt->out, &w.record);
	if (rc)
		return say(EXIT_WRONG, "%s: %s", opt->out, strerror(-rc));
	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
	readings(opt, &w);
	rc = record_close(w.record);
	if (w.err || rc)
		return say(EXIT_WRONG, "%s: %s", opt->out, strerror(w.err ? -w.err : -rc));
	return w.status;
}

struct replay {
	const struct options *opt;
	const int *columns;
	struct emf_stats before;
	uint64_t before_ns;
	bool begun;
};

static void clock_of(const struct options *opt, uint64_t time_ns)
{
	time_t t = (time_t)(time_ns / 1000000000u);
	char text[16];
	struct tm tm;

	if (!opt->times)
		return;
	strftime(text, sizeof(text), "%H:%M:%S ", localtime_r(&t, &tm));
	fputs(text, stdout);
}

static void line(struct replay *r, uint64_t time_ns, const struct emf_stats *s)
{
	double interval = (double)(time_ns - r->before_ns) / 1e9;

	if (!r->begun) {
		/* the first reading is where the intervals begin */
		if (r->columns) {
			printf("%s", r->opt->times ? "TIME     " : "");
			columns_header(r->columns);
		} else {
			show_rates_header(r->opt->times ? "TIME" : NULL);
		}
	} else if (time_ns > r->before_ns) {
		clock_of(r->opt, time_ns);
		if (r->columns)
			columns_line(r->columns, s, &r->before, interval);
		else
			show_rates_line(s, &r->before, interval);
	}
	r->begun = true;
	r->before = *s;
	r->before_ns = time_ns;
}

int cmd_replay(const struct options *opt)
{
	static struct replay r;
	static struct emf_stats s;
	int choice[COLUMNS_MAX];
	char wrong[64];
	struct record *record;
	uint64_t time_ns;
	pid_t pid = opt->pid;
	unsigned long others = 0;
	int rc;

	r.opt = opt;
	text_exact = opt->bytes;
	if (opt->out) {
		if (!columns_parse(opt->out, choice, wrong, sizeof(wrong)))
			return say(EXIT_USAGE, "-o: no column '%s' (tierstat --help)", wrong);
		r.columns = choice;
	}
	rc = record_open(opt->file, &record);
	if (rc == -EPROTO)
		return say(EXIT_WRONG, "%s: is no record of this version of tierstat", opt->file);
	if (rc)
		return say(EXIT_WRONG, "%s: %s", opt->file, strerror(-rc));
	while ((rc = record_next(record, &time_ns, &s)) == 1) {
		if (opt->command && fnmatch(opt->command, s.command, 0))
			continue;
		if (!pid)
			pid = (pid_t)s.pid;
		if ((pid_t)s.pid == pid)
			line(&r, time_ns, &s);
		else
			others++;
	}
	record_close(record);
	if (rc < 0)
		return say(EXIT_WRONG, "%s: is damaged", opt->file);
	if (others && !opt->pid)
		say(0, "%s has more than PID %d, which is shown: choose by -p", opt->file,
		    (int)pid);
	if (!r.begun)
		return say(EXIT_NO_PROCESS, "%s: nothing in it of PID %d", opt->file, (int)pid);
	return tool_health(&r.before);
}
