/* SPDX-License-Identifier: Apache-2.0 */
/* The list of processes, the rates of one, and both as JSON. */
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "columns.h"
#include "segment.h"
#include "show.h"
#include "text.h"
#include "tool.h"

static const int *columns; /* those of -o; NULL: the usual ones */

static void list_line(const struct emf_stats *s, unsigned index, void *arg)
{
	const struct options *const *opt = arg;

	(void)index;
	fputs(tool_clock(*opt), stdout);
	columns_line(columns, s, NULL, 0);
}

static void header(const struct options *opt)
{
	if (opt->times)
		printf("%-9s", "TIME");
	columns_header(columns);
}

/* "tierstat 4711", by who means the process. */
static void doubt_delay(const struct options *opt)
{
	static struct emf_stats s;

	if (opt->delay >= 100 && !segment_read(opt->dir, (pid_t)opt->delay, &s))
		say(0, "every %.0f seconds; the process is shown by tierstat -p %.0f", opt->delay,
		    opt->delay);
}

static int list(const struct options *opt)
{
	double due = tool_now();
	unsigned shown;
	int status;

	doubt_delay(opt);
	for (unsigned long i = 1;; i++) {
		header(opt);
		status = tool_for_all(opt, list_line, &opt, &shown);
		if (!(opt->delay > 0) || (opt->count && i >= opt->count))
			break;
		if (fflush(stdout))
			return status;
		due += opt->delay;
		tool_sleep_until(due);
		putchar('\n');
	}
	if (!shown && !status)
		return say(0, "no managed process%s%s in %s", opt->command ? " with the name " : "",
			   opt->command ? opt->command : "", opt->dir);
	return status;
}

static void json_element(const struct emf_stats *s, unsigned index, void *arg)
{
	(void)arg;
	fputs(index ? ",\n  " : "\n  ", stdout);
	show_json(s, 2);
}

static int json_all(const struct options *opt)
{
	unsigned shown;
	int status;

	fputs("{\"processes\": [", stdout);
	status = tool_for_all(opt, json_element, NULL, &shown);
	puts(shown ? "\n]}" : "]}");
	return status;
}

static int json_one(const struct options *opt)
{
	static struct emf_stats s;
	int rc = tool_read(opt, &s);

	if (rc)
		return rc;
	show_json(&s, 0);
	putchar('\n');
	return tool_health(&s);
}

/* Lines of figures that fit under a header, as vmstat has it. */
static unsigned lines_of_screen(void)
{
	struct winsize w;

	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) || w.ws_row < 6)
		return 21;
	return w.ws_row - 3u;
}

static void rates(const struct options *opt, const struct emf_stats *s,
		  const struct emf_stats *before, double interval, unsigned long n)
{
	if (n % lines_of_screen() == 0 && columns)
		header(opt);
	else if (n % lines_of_screen() == 0)
		show_rates_header(opt->times ? "TIME" : NULL);
	fputs(tool_clock(opt), stdout);
	if (columns)
		columns_line(columns, s, before, interval);
	else
		show_rates_line(s, before, interval);
}

int cmd_list(const struct options *opt)
{
	static int choice[COLUMNS_MAX];
	char wrong[64];

	if (opt->json && opt->delay > 0)
		return say(EXIT_USAGE, "--json takes no DELAY");
	if (opt->json && opt->out)
		return say(EXIT_USAGE, "--json takes no -o: it has all there is");
	if (opt->out) {
		if (!columns_parse(opt->out, choice, wrong, sizeof(wrong)))
			return say(EXIT_USAGE, "-o: no column '%s' (tierstat --help)", wrong);
		columns = choice;
	}
	text_exact = opt->bytes;
	if (opt->json)
		return opt->pid ? json_one(opt) : json_all(opt);
	if (opt->pid)
		return tool_watch(opt, rates);
	if (!columns)
		columns = columns_default;
	return list(opt);
}
