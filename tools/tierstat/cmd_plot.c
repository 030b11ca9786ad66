/* SPDX-License-Identifier: Apache-2.0 */
/* tierstat plot: the last minutes of a process, or a record, as curves over one time. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "canvas.h"
#include "record.h"
#include "text.h"
#include "tool.h"

#define WIDTH 900.0
#define LEFT 70.0
#define RIGHT 150.0
#define TOP 50.0
#define PANEL 120.0
#define GAP 34.0
#define PANELS 4
#define CURVES 3
#define POINTS 100000u /* of a record; later ones are left out */

/* One interval. */
struct point {
	double t; /* seconds, its end */
	double y[PANELS][CURVES];
};

struct series {
	struct point *point;
	size_t n, room;
	struct emf_sample before;
	bool begun;
};

static const struct panel {
	const char *title, *unit;
	const char *curve[CURVES];
	unsigned rgb[CURVES];
} panels[PANELS] = {
	{ "memory", "GiB", { "budget", "local", "far" }, { 0x999999, 0x08519c, 0xe6550d } },
	{ "transfers", "MiB/s", { "fetched", "written" }, { 0x08519c, 0xe6550d } },
	{ "threads wait", "%", { "stall, all threads" }, { 0xa50f15 } },
	{ "faults",
	  "/s",
	  { "waited for a store", "found in a frame", "fetched ahead in time" },
	  { 0xa50f15, 0x08519c, 0x41ab5d } },
};

static double rate(uint64_t now, uint64_t before, double seconds)
{
	return (double)(now >= before ? now - before : now) / seconds;
}

static bool add(struct series *to, const struct emf_sample *s)
{
	const struct emf_sample *b = &to->before;
	double seconds = (double)(s->time_ns - b->time_ns) / 1e9;
	bool begun = to->begun;

	if (begun && s->time_ns <= b->time_ns)
		return true;
	to->begun = true;
	if (begun) {
		if (to->n == to->room) {
			size_t room = to->room ? 2 * to->room : 512;
			void *more = realloc(to->point, room * sizeof(*to->point));

			if (!more || room > POINTS * 2)
				return false;
			to->point = more;
			to->room = room;
		}
		to->point[to->n++] = (struct point){
			.t = (double)s->time_ns / 1e9,
			.y = { { (double)s->local_limit / (1 << 30),
				 (double)s->local_bytes / (1 << 30),
				 (double)s->far_bytes / (1 << 30) },
			       { rate(s->fetched_bytes, b->fetched_bytes, seconds) / (1 << 20),
				 rate(s->written_bytes, b->written_bytes, seconds) / (1 << 20) },
			       { rate(s->stall_ns, b->stall_ns, seconds) / 1e7 },
			       { rate(s->faults_demand, b->faults_demand, seconds),
				 rate(s->faults_standby, b->faults_standby, seconds),
				 rate(s->prefetch_useful, b->prefetch_useful, seconds) } },
		};
	}
	to->before = *s;
	return true;
}

static void from_history(struct series *to, const struct emf_stats *s)
{
	uint64_t n = s->history_count,
		 from = n > EMF_STATS_HISTORY - 1 ? n - EMF_STATS_HISTORY + 1 : 0;

	/* the oldest may be being overwritten: it is left out */
	for (uint64_t i = from; i < n; i++)
		add(to, &s->history[i % EMF_STATS_HISTORY]);
}

static int from_record(struct series *to, const char *file, struct emf_stats *named)
{
	static struct emf_stats s;
	struct record *record;
	uint64_t time_ns;
	int rc = record_open(file, &record);

	if (rc == -EPROTO)
		return say(EXIT_WRONG, "%s: is no record of this version of tierstat", file);
	if (rc)
		return say(EXIT_WRONG, "%s: %s", file, strerror(-rc));
	while ((rc = record_next(record, &time_ns, &s)) == 1) {
		struct emf_sample sample = {
			.time_ns = time_ns,
			.local_limit = s.local_limit,
			.local_bytes = s.local_bytes,
			.far_bytes = s.far_bytes,
			.fetched_bytes = s.fetched_bytes,
			.written_bytes = s.written_bytes,
			.stall_ns = s.stall_ns,
			.faults_demand = s.faults_demand,
			.faults_standby = s.faults_standby,
			.prefetch_useful = s.prefetch_useful,
		};

		if (named->pid && s.pid != named->pid)
			continue;
		*named = s;
		if (!add(to, &sample))
			break;
	}
	record_close(record);
	return rc < 0 ? say(EXIT_WRONG, "%s: is damaged", file) : 0;
}

/* 1, 2 or 5 times a power of ten, at least v. */
static double nice_above(double v)
{
	double unit = 1e-3;

	while (unit * 10 < v)
		unit *= 10;
	return v <= unit ? unit : v <= 2 * unit ? 2 * unit : v <= 5 * unit ? 5 * unit : 10 * unit;
}

static double x_of(const struct series *s, double t)
{
	double begin = s->point[0].t, end = s->point[s->n - 1].t;

	return LEFT + (t - begin) / (end > begin ? end - begin : 1) * (WIDTH - LEFT - RIGHT);
}

static void time_axis(struct canvas *c, const struct series *s, double bottom)
{
	static const double steps[] = { 1,   2,	  5,	10,   30,   60,	   120,
					300, 600, 1800, 3600, 7200, 14400, 43200 };
	double end = s->point[s->n - 1].t, span = end - s->point[0].t, step = steps[0];

	/* round numbers of seconds or minutes before the end */
	for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]) && span / step > 10; i++)
		step = steps[i];
	for (double ago = 0; ago <= span + 1e-9; ago += step) {
		double x = x_of(s, end - ago);
		char text[32];

		if (ago > 0 && step >= 60)
			snprintf(text, sizeof(text), "-%g min", ago / 60);
		else
			snprintf(text, sizeof(text), ago > 0 ? "-%g s" : "now", ago);
		canvas_rect(c, x, TOP, 0.5, bottom - TOP, 0xe4e4e4);
		canvas_text(c, x, bottom + 16, 10, CANVAS_MIDDLE, 0x404040, text);
	}
}

static void draw_panel(struct canvas *c, const struct series *s, unsigned i, double *points)
{
	const struct panel *p = &panels[i];
	double y0 = TOP + i * (PANEL + GAP), most = 0, top;
	char text[64];

	for (size_t k = 0; k < s->n; k++)
		for (unsigned j = 0; j < CURVES && p->curve[j]; j++)
			most = s->point[k].y[i][j] > most ? s->point[k].y[i][j] : most;
	top = nice_above(most > 0 ? most * 1.02 : 1);
	snprintf(text, sizeof(text), "%s, %s", p->title, p->unit);
	canvas_text(c, LEFT, y0 - 6, 12, CANVAS_LEFT, 0, text);
	for (unsigned g = 0; g <= 4; g++) {
		double y = y0 + PANEL - PANEL * g / 4;

		canvas_rect(c, LEFT, y, WIDTH - LEFT - RIGHT, 0.5, g ? 0xe4e4e4 : 0x808080);
		snprintf(text, sizeof(text), "%g", top * g / 4);
		canvas_text(c, LEFT - 6, y + 3.5, 10, CANVAS_RIGHT, 0x404040, text);
	}
	for (unsigned j = 0; j < CURVES && p->curve[j]; j++) {
		for (size_t k = 0; k < s->n; k++) {
			points[2 * k] = x_of(s, s->point[k].t);
			points[2 * k + 1] = y0 + PANEL - PANEL * s->point[k].y[i][j] / top;
		}
		canvas_line(c, points, s->n, 1.5, p->rgb[j]);
		canvas_rect(c, WIDTH - RIGHT + 10, y0 + 6 + 16 * j, 12, 3, p->rgb[j]);
		canvas_text(c, WIDTH - RIGHT + 26, y0 + 11 + 16 * j, 10, CANVAS_LEFT, 0x202020,
			    p->curve[j]);
	}
}

static int draw(const struct options *opt, const struct series *s, const struct emf_stats *named)
{
	double bottom = TOP + PANELS * (PANEL + GAP) - GAP, *points;
	char title[160], command[64];
	struct canvas *c;
	int rc = canvas_open(opt->out, WIDTH, bottom + 30, &c);

	if (rc)
		return rc;
	points = malloc(2 * s->n * sizeof(*points));
	if (!points)
		return say(EXIT_WRONG, "out of memory");
	snprintf(title, sizeof(title), "%s (PID %u)",
		 text_printable(named->command, command, sizeof(command)), named->pid);
	canvas_text(c, LEFT, 24, 16, CANVAS_LEFT, 0, title);
	time_axis(c, s, bottom);
	for (unsigned i = 0; i < PANELS; i++)
		draw_panel(c, s, i, points);
	free(points);
	return canvas_close(c);
}

int cmd_plot(const struct options *opt)
{
	static struct emf_stats s;
	struct series series = { 0 };
	int rc;

	if (!opt->out)
		return say(EXIT_USAGE, "plot needs a file: tierstat plot %s -o plot.svg",
			   opt->file ? opt->file : "PID");
	if (opt->file) {
		s.pid = (uint32_t)opt->pid;
		rc = from_record(&series, opt->file, &s);
	} else {
		rc = tool_read(opt, &s);
		if (!rc)
			from_history(&series, &s);
	}
	if (!rc && series.n < 2)
		rc = say(EXIT_WRONG, "%s",
			 opt->file		   ? "the record has too few readings to plot"
			 : s.mode == EMF_MODE_IDLE ? "nothing to plot: all of it fits (mode idle)"
						   : "nothing to plot yet: wait three seconds");
	if (!rc)
		rc = draw(opt, &series, &s);
	free(series.point);
	return rc ? rc : tool_health(&s);
}
