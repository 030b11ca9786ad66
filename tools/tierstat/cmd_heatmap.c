/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tierstat heatmap: each block a square, its tier the colour, its heat how deep that is. Regions
 * stand in the order of addresses, the big ones with rows of their own, the others in a flow.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "canvas.h"
#include "text.h"
#include "tool.h"

#define SPAN 768.0 /* of a row */
#define FEW 2048   /* squares: then they are drawn larger */
#define LABEL 14.0
#define MARGIN 16.0
#define TOP 88.0
#define BIG 16	  /* squares: a region with a label of its own */
#define LABELS 48 /* at most so many */
#define ROWS 160  /* aimed at: else a square stands for several cells */

static struct emf_map map;
static unsigned step; /* cells to a square */
static unsigned row;  /* squares in a row */
static double size;   /* of one, with the gap */

/* Colour-blind people tell these apart: light to deep is heat, blue local, orange standby, grey
 * far. */
static const struct {
	unsigned cold, hot;
	const char *name;
} looks[EMF_CELL_STATES] = {
	[EMF_CELL_EMPTY] = { 0xf4f4f4, 0xf4f4f4, "never touched" },
	[EMF_CELL_LOCAL] = { 0xc6dbef, 0x08306b, "local" },
	[EMF_CELL_STANDBY] = { 0xfdd0a2, 0xe6550d, "standby (in a frame)" },
	[EMF_CELL_MOVING] = { 0xffe94d, 0xffe94d, "on its way" },
	[EMF_CELL_FAR] = { 0xd0d0d0, 0x606060, "far" },
	[EMF_CELL_LOST] = { 0xd7191c, 0xd7191c, "lost" },
	[EMF_CELL_KEPT] = { 0x74c476, 0x74c476, "kept (locked, device)" },
	[EMF_CELL_PLACED] = { 0xdadaeb, 0x54278f, "in place" },
};

static unsigned mix(unsigned a, unsigned b, double t)
{
	unsigned out = 0;

	for (int shift = 0; shift <= 16; shift += 8) {
		double x = (double)(a >> shift & 255), y = (double)(b >> shift & 255);

		out |= (unsigned)(x + (y - x) * t + 0.5) << shift;
	}
	return out;
}

static unsigned colour_of(unsigned state, unsigned heat)
{
	return mix(looks[state].cold, looks[state].hot, (double)heat / 15);
}

/* Of the cells [from, to): as watch.c does it, most of them and the hottest. */
static unsigned colour(unsigned from, unsigned to)
{
	unsigned votes[EMF_CELL_STATES] = { 0 }, best = 0, heat = 0;

	for (unsigned k = from; k < to; k++) {
		unsigned state = map.cell[k] & 15u, h = map.cell[k] >> 4;

		if (state >= EMF_CELL_STATES)
			continue;
		votes[state]++;
		if (h > heat)
			heat = h;
	}
	for (unsigned i = 1; i < EMF_CELL_STATES; i++)
		best = votes[i] > votes[best] ? i : best;
	return colour_of(best, heat);
}

static unsigned squares(const struct emf_map_region *r)
{
	return (r->cells + step - 1) / step;
}

struct place {
	double y;
	unsigned column;
};

static void draw_cells(struct canvas *c, const struct emf_map_region *r, struct place *at)
{
	unsigned n = squares(r);

	for (unsigned i = 0; i < n;) {
		unsigned from = r->first_cell + i * step, end = r->first_cell + r->cells, rgb;
		unsigned run = 1;

		rgb = colour(from, from + step < end ? from + step : end);
		/* as one: neighbours that look the same */
		while (i + run < n && at->column + run < row) {
			unsigned next = from + run * step;

			if (colour(next, next + step < end ? next + step : end) != rgb)
				break;
			run++;
		}
		if (c)
			canvas_rect(c, MARGIN + at->column * size, at->y,
				    size * (run - 1) + 0.87 * size, 0.87 * size, rgb);
		i += run;
		at->column += run;
		if (at->column == row) {
			at->column = 0;
			at->y += size;
		}
	}
}

static void new_row(struct place *at, double gap)
{
	if (at->column)
		at->y += size;
	at->column = 0;
	at->y += gap;
}

static void label(struct canvas *c, const struct emf_map_region *r, double y)
{
	char text[160], length[TEXT_NUMBER], local[TEXT_NUMBER], placed[TEXT_NUMBER],
	    far[TEXT_NUMBER], class[32];

	snprintf(text, sizeof(text), "%012" PRIx64 "  %s%s%s: %s local, %s%s%s far%s", r->start,
		 text_size(r->length, length), r->class[0] ? "  class " : "",
		 text_printable(r->class, class, sizeof(class)),
		 text_size(r->local_bytes + r->standby_bytes, local),
		 r->placed_bytes ? text_size(r->placed_bytes, placed) : "",
		 r->placed_bytes ? " in place, " : "", text_size(r->far_bytes, far),
		 r->kept ? ", kept local" : "");
	canvas_text(c, MARGIN, y, 10, CANVAS_LEFT, 0x404040, text);
}

/* Without c it only measures. Returns where it ends. */
static double draw_regions(struct canvas *c)
{
	struct place at = { TOP, 0 };
	unsigned labels = 0, small = 0;

	for (unsigned i = 0; i < map.nregions; i++) {
		const struct emf_map_region *r = &map.region[i];

		if (squares(r) < BIG || labels == LABELS) {
			small++;
			continue;
		}
		labels++;
		new_row(&at, LABEL);
		if (c) {
			char title[64];

			snprintf(title, sizeof(title), "%" PRIx64 "-%" PRIx64, r->start,
				 r->start + r->length);
			label(c, r, at.y - 3);
			canvas_group(c, title);
		}
		draw_cells(c, r, &at);
		if (c)
			canvas_group_end(c);
		new_row(&at, 4);
	}
	if (!small)
		return at.y;
	new_row(&at, LABEL);
	if (c) {
		char text[64];

		snprintf(text, sizeof(text), "%u smaller regions, one after the other", small);
		canvas_text(c, MARGIN, at.y - 3, 10, CANVAS_LEFT, 0x404040, text);
	}
	labels = 0;
	for (unsigned i = 0; i < map.nregions; i++) {
		const struct emf_map_region *r = &map.region[i];

		if (squares(r) >= BIG && labels < LABELS)
			labels++;
		else
			draw_cells(c, r, &at);
	}
	new_row(&at, 4);
	return at.y;
}

static void legend(struct canvas *c)
{
	double x = MARGIN, y = 56;

	for (unsigned i = 0; i < EMF_CELL_STATES; i++) {
		for (unsigned h = 0; h < 3; h++)
			canvas_rect(c, x + h * 8, y, 8, 10, colour_of(i, h * 7 + h / 2));
		canvas_text(c, x + 28, y + 9, 10, CANVAS_LEFT, 0x202020, looks[i].name);
		x += 28 + 5.6 * (double)strlen(looks[i].name) + 10;
	}
	canvas_text(
	    c, MARGIN, y + 26, 10, CANVAS_LEFT, 0x606060,
	    "pale: not seen in use for long; deep: seen in use just now (each step is twice "
	    "as long ago)");
}

static void title(struct canvas *c, const struct emf_stats *s)
{
	char text[256], command[64], local[TEXT_NUMBER], limit[TEXT_NUMBER], far[TEXT_NUMBER],
	    managed[TEXT_NUMBER], square[TEXT_NUMBER];

	snprintf(text, sizeof(text), "%s (PID %u): %s managed, %s local of %s, %s far",
		 text_printable(s->command, command, sizeof(command)), s->pid,
		 text_size(s->managed_bytes, managed), text_size(s->local_bytes, local),
		 text_size(s->local_limit, limit), text_size(s->far_bytes, far));
	canvas_text(c, MARGIN, 26, 16, CANVAS_LEFT, 0, text);
	snprintf(text, sizeof(text), "one square is %s of address space, a row %u of them",
		 text_size((uint64_t)map.block_bytes * map.blocks_per_cell * step, square), row);
	canvas_text(c, MARGIN, 44, 11, CANVAS_LEFT, 0x606060, text);
}

int cmd_heatmap(const struct options *opt)
{
	static struct emf_stats s;
	struct canvas *c;
	double height;
	int rc;

	if (!opt->out)
		return say(EXIT_USAGE, "heatmap needs a file: tierstat heatmap %d -o map.svg",
			   (int)opt->pid);
	rc = tool_read(opt, &s);
	if (!rc)
		rc = tool_map(opt, &s, &map);
	if (rc)
		return rc;
	row = map.ncells <= FEW ? 64 : 128;
	size = SPAN / row;
	for (step = 1; map.ncells / step > row * ROWS; step *= 2)
		;
	height = draw_regions(NULL) + MARGIN;
	rc = canvas_open(opt->out, SPAN + 2 * MARGIN, height, &c);
	if (rc)
		return rc;
	title(c, &s);
	legend(c);
	draw_regions(c);
	rc = canvas_close(c);
	return rc ? rc : tool_health(&s);
}
