/* SPDX-License-Identifier: Apache-2.0 */
/* tierstat: what the managed processes of this machine hold, fetch and wait for. */
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "rundir.h"
#include "tierstat/segment.h"
#include "tierstat/show.h"

#ifndef EMFATIER_VERSION
#define EMFATIER_VERSION "0.1.0"
#endif

#define EXIT_WRONG 1
#define EXIT_USAGE 2
#define EXIT_DEGRADED 3
#define EXIT_NO_PROCESS 4

static const char help[] =
    "usage: tierstat                          one line a managed process, since its start\n"
    "       tierstat -p PID [DELAY [COUNT]]   rates: since the start, then every DELAY seconds\n"
    "       tierstat --json [-p PID]          one JSON document\n"
    "       tierstat --help | --version\n"
    "\n"
    "MODE    idle: all fits, nothing to do; thread: faults are resolved; unmanaged: see its log\n"
    "LIMIT   local memory that managed memory may take (LOCAL); FAR is what is in the stores\n"
    "faults  far: waited for a store; frame: found in a frame; wprot: first write; zero: first "
    "touch\n"
    "stall   time that threads waited in faults, summed over threads; % of the interval\n"
    "\n"
    "Exit: 0 ok, 1 can't be read, 2 usage, 3 a store is down, 4 no such process.\n";

struct options {
	bool json;
	pid_t pid;	     /* 0: all */
	double delay;	     /* 0: once */
	unsigned long count; /* 0: until the process ends */
};

__attribute__((format(printf, 2, 3))) static int fail(int status, const char *format, ...)
{
	va_list ap;

	fflush(stdout);
	fputs("tierstat: ", stderr);
	va_start(ap, format);
	vfprintf(stderr, format, ap);
	va_end(ap);
	fputc('\n', stderr);
	return status;
}

static int no_process(pid_t pid)
{
	return fail(EXIT_NO_PROCESS, "no managed process with PID %d", (int)pid);
}

/* Says why a segment could not be read; returns the exit status. */
static int unreadable(pid_t pid, int rc)
{
	if (rc == -ESRCH || rc == -EAGAIN)
		return no_process(pid);
	if (rc == -EPROTO)
		return fail(EXIT_WRONG,
			    "PID %d runs with another version of emfatier; "
			    "use the tierstat of that version",
			    (int)pid);
	return fail(EXIT_WRONG, "PID %d: %s", (int)pid, strerror(-rc));
}

/*
 * Calls show for each managed process. Returns the exit status; a process that
 * ends or starts meanwhile is no error.
 */
static int for_all(const char *dir, void (*show)(const struct emf_stats *s, bool first),
		   unsigned *shown)
{
	static struct emf_stats s;
	pid_t *pids;
	int n = segment_list(dir, &pids), status = 0;

	*shown = 0;
	if (n < 0 && n != -ENOENT)
		return fail(EXIT_WRONG, "%s: %s", dir, strerror(-n));
	for (int i = 0; i < n; i++) {
		int rc = segment_read(dir, pids[i], &s);

		if (rc == -ESRCH || rc == -EAGAIN)
			continue;
		if (rc) {
			int wrong = unreadable(pids[i], rc);

			status = status ? status : wrong;
			continue;
		}
		show(&s, !(*shown)++);
		if (segment_degraded(&s))
			status = EXIT_DEGRADED;
	}
	free(pids);
	return status;
}

static void list_line(const struct emf_stats *s, bool first)
{
	(void)first;
	show_list_line(s);
}

static int list(const char *dir)
{
	unsigned shown;
	int status;

	show_list_header();
	status = for_all(dir, list_line, &shown);
	if (!shown && !status)
		return fail(0, "no managed process in %s", dir);
	return status;
}

static void json_element(const struct emf_stats *s, bool first)
{
	fputs(first ? "\n  " : ",\n  ", stdout);
	show_json(s, 2);
}

static int json_all(const char *dir)
{
	unsigned shown;
	int status;

	fputs("{\"processes\": [", stdout);
	status = for_all(dir, json_element, &shown);
	puts(shown ? "\n]}" : "]}");
	return status;
}

static int json_one(const char *dir, pid_t pid)
{
	static struct emf_stats s;
	int rc = segment_read(dir, pid, &s);

	if (rc)
		return unreadable(pid, rc);
	show_json(&s, 0);
	putchar('\n');
	return segment_degraded(&s) ? EXIT_DEGRADED : 0;
}

/* Lines of figures that fit under a header, as vmstat has it. */
static unsigned lines_of_screen(void)
{
	struct winsize w;

	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) || w.ws_row < 6)
		return 21;
	return w.ws_row - 3u;
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void sleep_until(double when)
{
	struct timespec t = { .tv_sec = (time_t)when };

	t.tv_nsec = (long)((when - (double)t.tv_sec) * 1e9);
	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR)
		;
}

static int watch(const char *dir, const struct options *opt)
{
	static struct emf_stats s, before;
	double due = now(), read_at;
	int rc = segment_read(dir, opt->pid, &s);

	if (rc)
		return unreadable(opt->pid, rc);
	read_at = now();
	show_rates_header();
	show_rates_line(&s, &before, segment_uptime(&s));
	for (unsigned long line = 1; opt->delay > 0 && (!opt->count || line < opt->count); line++) {
		double previous = read_at;

		fflush(stdout);
		due += opt->delay;
		sleep_until(due);
		before = s;
		rc = segment_read(dir, opt->pid, &s);
		if (rc == -ESRCH)
			return segment_degraded(&before) ? EXIT_DEGRADED : 0; /* it ended */
		if (rc)
			return unreadable(opt->pid, rc);
		read_at = now();
		if (line % lines_of_screen() == 0)
			show_rates_header();
		show_rates_line(&s, &before, read_at - previous);
	}
	return segment_degraded(&s) ? EXIT_DEGRADED : 0;
}

static bool parse_number(const char *text, double max, double *out)
{
	char *end;

	if (text[0] < '0' || text[0] > '9')
		return false;
	*out = strtod(text, &end);
	return !*end && *out > 0 && *out <= max;
}

static bool parse_whole(const char *text, unsigned long max, unsigned long *out)
{
	char *end;

	if (text[0] < '0' || text[0] > '9')
		return false;
	errno = 0;
	*out = strtoul(text, &end, 10);
	return !errno && !*end && *out > 0 && *out <= max;
}

/* 0: go on; else the exit status + 1. */
static int parse(int argc, char **argv, struct options *opt)
{
	int numbers = 0;

	for (int i = 1; i < argc; i++) {
		const char *arg = argv[i], *value = NULL;
		unsigned long pid;

		if (!strcmp(arg, "--help") || !strcmp(arg, "-h")) {
			fputs(help, stdout);
			return 1;
		}
		if (!strcmp(arg, "--version")) {
			puts("tierstat " EMFATIER_VERSION);
			return 1;
		}
		if (!strcmp(arg, "--json")) {
			opt->json = true;
		} else if (!strncmp(arg, "-p", 2)) {
			value = arg[2] ? arg + 2 : argv[++i];
			if (!value || !parse_whole(value, INT_MAX, &pid))
				return 1 + fail(EXIT_USAGE, "-p needs a PID, as -p 1234");
			opt->pid = (pid_t)pid;
		} else if (arg[0] == '-') {
			return 1 + fail(EXIT_USAGE, "unknown option %s (tierstat --help)", arg);
		} else if (!opt->pid) {
			return 1 + fail(EXIT_USAGE, "unknown command %s (tierstat --help)", arg);
		} else if (numbers == 0 && parse_number(arg, 86400, &opt->delay)) {
			numbers++;
		} else if (numbers == 1 && parse_whole(arg, ULONG_MAX, &opt->count)) {
			numbers++;
		} else if (numbers < 2) {
			return 1 + fail(EXIT_USAGE, "%s is no %s", arg,
					numbers ? "COUNT of lines" : "DELAY in seconds");
		} else {
			return 1 + fail(EXIT_USAGE, "too many arguments (tierstat --help)");
		}
	}
	if (opt->json && numbers)
		return 1 + fail(EXIT_USAGE, "--json takes no DELAY");
	return 0;
}

int main(int argc, char **argv)
{
	struct options opt = { 0 };
	char dir[PATH_MAX];
	int status = parse(argc, argv, &opt), rc;

	if (status)
		return status - 1;
	rc = run_dir(dir, sizeof(dir), false);
	if (rc && rc != -ENOENT)
		return fail(EXIT_WRONG, "%s: refused: %s", dir, strerror(-rc));
	if (opt.json)
		status = opt.pid ? json_one(dir, opt.pid) : json_all(dir);
	else
		status = opt.pid ? watch(dir, &opt) : list(dir);
	if (fflush(stdout) || ferror(stdout))
		return fail(EXIT_WRONG, "standard output: %s", strerror(errno));
	return status;
}
