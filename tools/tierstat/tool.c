/* SPDX-License-Identifier: Apache-2.0 */
#include "tool.h"

#include <errno.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "segment.h"

int tool_unreadable(pid_t pid, int rc)
{
	if (rc == -ESRCH || rc == -EAGAIN)
		return say(EXIT_NO_PROCESS, "no managed process with PID %d", (int)pid);
	if (rc == -EPROTO)
		return say(EXIT_WRONG,
			   "PID %d runs with another version of emfatier; "
			   "use the tierstat of that version",
			   (int)pid);
	return say(EXIT_WRONG, "PID %d: %s", (int)pid, strerror(-rc));
}

int tool_read(const struct options *opt, struct emf_stats *s)
{
	int rc = segment_read(opt->dir, opt->pid, s);

	return rc ? tool_unreadable(opt->pid, rc) : 0;
}

int tool_map(const struct options *opt, const struct emf_stats *s, struct emf_map *map)
{
	int rc;

	if (s->mode == EMF_MODE_IDLE)
		return say(EXIT_WRONG,
			   "PID %d: all of it fits (mode idle): nothing is moved, so there "
			   "is no map yet",
			   (int)opt->pid);
	if (s->mode == EMF_MODE_UNMANAGED)
		return say(EXIT_WRONG, "PID %d runs unmanaged; its log says why", (int)opt->pid);
	/* an idle mover looks up once a second; a stopped process never */
	rc = segment_map(opt->dir, opt->pid, 3, map);
	if (rc == -ENODATA)
		return say(EXIT_WRONG,
			   "PID %d gives no map: it is stopped, or has no room for one in "
			   "the run directory",
			   (int)opt->pid);
	return rc ? tool_unreadable(opt->pid, rc) : 0;
}

int tool_health(const struct emf_stats *s)
{
	return segment_degraded(s) ? EXIT_DEGRADED : 0;
}

static bool chosen(const struct options *opt, const struct emf_stats *s)
{
	return !opt->command || !fnmatch(opt->command, s->command, 0);
}

int tool_for_all(const struct options *opt,
		 void (*show)(const struct emf_stats *s, unsigned index, void *arg), void *arg,
		 unsigned *shown)
{
	static struct emf_stats s;
	pid_t *pids, one = opt->pid;
	int n = 1, status = 0;

	*shown = 0;
	if (one) {
		pids = &one;
	} else {
		n = segment_list(opt->dir, &pids);
		if (n < 0 && n != -ENOENT)
			return say(EXIT_WRONG, "%s: %s", opt->dir, strerror(-n));
	}
	for (int i = 0; i < n; i++) {
		int rc = segment_read(opt->dir, pids[i], &s);

		if ((rc == -ESRCH || rc == -EAGAIN) && !one)
			continue;
		if (rc) {
			int wrong = tool_unreadable(pids[i], rc);

			status = status ? status : wrong;
			continue;
		}
		if (!chosen(opt, &s))
			continue;
		show(&s, (*shown)++, arg);
		if (segment_degraded(&s))
			status = EXIT_DEGRADED;
	}
	if (!one)
		free(pids);
	return status;
}

int tool_watch(const struct options *opt, tool_show *show)
{
	static struct emf_stats s, before;
	double due = tool_now(), read_at;
	int rc = tool_read(opt, &s);

	if (rc)
		return rc;
	read_at = tool_now();
	show(opt, &s, &before, segment_uptime(&s), 0);
	for (unsigned long n = 1; opt->delay > 0 && (!opt->count || n < opt->count); n++) {
		double previous = read_at;

		if (fflush(stdout))
			break;
		due += opt->delay;
		tool_sleep_until(due);
		before = s;
		rc = segment_read(opt->dir, opt->pid, &s);
		if (rc == -ESRCH)
			return tool_health(&before);
		if (rc)
			return tool_unreadable(opt->pid, rc);
		read_at = tool_now();
		show(opt, &s, &before, read_at - previous, n);
	}
	return tool_health(&s);
}

uint64_t tool_now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

double tool_now(void)
{
	return (double)tool_now_ns() / 1e9;
}

void tool_sleep_until(double when)
{
	struct timespec t = { .tv_sec = (time_t)when };

	t.tv_nsec = (long)((when - (double)t.tv_sec) * 1e9);
	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR)
		;
}

const char *tool_clock(const struct options *opt)
{
	static char text[16];
	time_t now = time(NULL);
	struct tm tm;

	if (!opt->times)
		return "";
	strftime(text, sizeof(text), "%H:%M:%S ", localtime_r(&now, &tm));
	return text;
}

int tool_flush(int status)
{
	if (fflush(stdout) || ferror(stdout))
		return say(EXIT_WRONG, "standard output: %s", strerror(errno));
	return status;
}
