/* SPDX-License-Identifier: Apache-2.0 */
/* tierstat why: watches a process for a moment and says what limits it. */
#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "segment.h"
#include "show.h"
#include "text.h"
#include "tool.h"
#include "why.h"

#define SECONDS 2.0

static bool first_line(const char *path, char *out, size_t len)
{
	FILE *f = fopen(path, "re");
	bool ok = f && fgets(out, (int)len, f);

	if (f)
		fclose(f);
	if (ok)
		out[strcspn(out, "\n")] = '\0';
	return ok;
}

/* The nanoseconds that threads with that name ran, and waited to; ran < 0: there is none. */
static struct why_thread cpu_of(pid_t pid, const char *name)
{
	char dir[64], path[384], line[1024];
	struct why_thread sum = { -1, 0 };
	unsigned long long ran, waited;
	struct dirent *e;
	DIR *d;

	snprintf(dir, sizeof(dir), "/proc/%d/task", (int)pid);
	d = opendir(dir);
	while (d && (e = readdir(d))) {
		snprintf(path, sizeof(path), "%s/%s/comm", dir, e->d_name);
		if (e->d_name[0] == '.' || !first_line(path, line, sizeof(line)) ||
		    strcmp(line, name))
			continue;
		/* Documentation/scheduler/sched-stats.rst */
		snprintf(path, sizeof(path), "%s/%s/schedstat", dir, e->d_name);
		if (!first_line(path, line, sizeof(line)) ||
		    sscanf(line, "%llu %llu", &ran, &waited) != 2)
			continue;
		sum.ran = (sum.ran < 0 ? 0 : sum.ran) + (double)ran;
		sum.waited += (double)waited;
	}
	if (d)
		closedir(d);
	return sum;
}

/* Of two of these, in cores. */
static struct why_thread since(const struct why_thread *before, const struct why_thread *now,
			       double seconds)
{
	if (before->ran < 0 || now->ran < 0)
		return (struct why_thread){ -1, 0 };
	return (struct why_thread){ (now->ran - before->ran) / (seconds * 1e9),
				    (now->waited - before->waited) / (seconds * 1e9) };
}

static void put_lines(const char *title, const char (*line)[200], unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		printf("%-9s %s\n", i ? "" : title, line[i]);
}

static void ceiling(const struct why *w, const struct emf_stats *s)
{
	char bandwidth[TEXT_NUMBER], far[TEXT_NUMBER], pass[TEXT_NUMBER];

	if (!(w->bandwidth > 0) || !(w->pass > 0))
		return;
	printf("%-9s %s are far; at the %s/s that the stores give, one pass over all memory takes\n"
	       "%-9s at least %s: at most %.2f passes (tokens, epochs) a second\n",
	       "ceiling", text_size(s->far_bytes, far),
	       text_size((uint64_t)w->bandwidth, bandwidth), "",
	       text_time((uint64_t)(w->pass * 1e9), pass), 1 / w->pass);
}

static void text(const struct why *w, const struct emf_stats *s, double seconds)
{
	char command[64], limit[TEXT_NUMBER], local[TEXT_NUMBER], placed[TEXT_NUMBER];
	bool colour = text_colour();

	printf("%s (PID %u), watched for %.1f s: threads waited %.1f%% of the time (summed); "
	       "%s local of %s%s%s\n",
	       text_printable(s->command, command, sizeof(command)), s->pid, seconds,
	       100 * w->stall, text_size(s->local_bytes, local), text_size(s->local_limit, limit),
	       s->placed_bytes ? ", in place on a slow node " : "",
	       s->placed_bytes ? text_size(s->placed_bytes, placed) : "");
	printf("%-9s %s%s%s\n", "limit", colour ? "\033[1m" : "", w->headline,
	       colour ? "\033[0m" : "");
	put_lines("because", w->evidence, w->nevidence);
	ceiling(w, s);
	put_lines("change", w->advice, w->nadvice);
}

static void json_lines(const char *name, const char (*line)[200], unsigned n)
{
	printf(", \"%s\": [", name);
	for (unsigned i = 0; i < n; i++) {
		fputs(i ? ", " : "", stdout);
		json_string(line[i]);
	}
	putchar(']');
}

static void json(const struct why *w, const struct emf_stats *s, double seconds)
{
	printf("{\"pid\": %u, \"command\": ", s->pid);
	json_string(s->command);
	printf(", \"cause\": \"%s\", \"headline\": \"%s\", \"seconds\": %.3f, \"stall_share\": "
	       "%.6f, \"bandwidth\": %.0f, \"pass_seconds\": %.6f, \"placed_bytes\": %llu",
	       why_name(w->cause), w->headline, seconds, w->stall, w->bandwidth, w->pass,
	       (unsigned long long)s->placed_bytes);
	json_lines("evidence", w->evidence, w->nevidence);
	json_lines("advice", w->advice, w->nadvice);
	puts("}");
}

int cmd_why(const struct options *opt)
{
	static struct emf_stats s, before;
	static struct emf_map map;
	struct why_input in = { .now = &s, .before = &before };
	/* The first is two that take turns: their sum. The others are beside them. */
	static const char *const faults[] = { "emf-fault", "emf-fault2", "emf-fault3",
					      "emf-fault4" };
	enum { FAULTS = sizeof(faults) / sizeof(faults[0]) };
	struct why_thread mover, fault[FAULTS], mover_now, fault_now;
	double begin, seconds = opt->delay > 0 ? opt->delay : SECONDS;
	struct why w;
	int rc;

	if (opt->count)
		return say(EXIT_USAGE, "too many arguments (tierstat --help)");
	rc = tool_read(opt, &before);
	if (rc)
		return rc;
	s = before;
	in.seconds = 1;
	in.mover.ran = in.fault.ran = -1;
	if (emf_mode_active(before.mode)) {
		if (isatty(STDERR_FILENO) && seconds >= 1)
			fprintf(stderr, "watching PID %d for %g s ...\r", (int)opt->pid, seconds);
		begin = tool_now();
		mover = cpu_of(opt->pid, "emf-mover");
		for (int i = 0; i < FAULTS; i++)
			fault[i] = cpu_of(opt->pid, faults[i]);
		tool_sleep_until(begin + seconds);
		rc = tool_read(opt, &s);
		if (rc)
			return rc;
		in.now_ns = tool_now_ns();
		in.seconds = tool_now() - begin;
		mover_now = cpu_of(opt->pid, "emf-mover");
		in.mover = since(&mover, &mover_now, in.seconds);
		for (int i = 0; i < FAULTS; i++) {
			fault_now = cpu_of(opt->pid, faults[i]);
			fault_now = since(fault + i, &fault_now, in.seconds);
			if (fault_now.ran > in.fault.ran)
				in.fault = fault_now;
		}
		if (!segment_map(opt->dir, opt->pid, 1, &map))
			in.kept_bytes = map.kept_bytes;
	}
	why_judge(&in, &w);
	if (opt->json)
		json(&w, &s, in.seconds);
	else
		text(&w, &s, in.seconds);
	return tool_health(&s);
}
