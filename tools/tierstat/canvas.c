/* SPDX-License-Identifier: Apache-2.0 */
#include "canvas.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tool.h"

/* What is used of libcairo's interface, which has been the same since 1.0. */
struct cairo {
	void *(*surface)(int format, int width, int height);
	void *(*create)(void *surface);
	void (*rgb)(void *cr, double r, double g, double b);
	void (*rectangle)(void *cr, double x, double y, double w, double h);
	void (*fill)(void *cr);
	void (*stroke)(void *cr);
	void (*line_width)(void *cr, double w);
	void (*move_to)(void *cr, double x, double y);
	void (*line_to)(void *cr, double x, double y);
	void (*font_face)(void *cr, const char *family, int slant, int weight);
	void (*font_size)(void *cr, double size);
	void (*show_text)(void *cr, const char *text);
	void (*extents)(void *cr, const char *text, double *six);
	int (*write_png)(void *surface, const char *file);
	const char *(*error)(int status);
};

struct canvas {
	char *file;
	FILE *svg; /* NULL: a PNG */
	struct cairo lib;
	void *surface, *cr;
};

static bool ends_with(const char *text, const char *end)
{
	size_t n = strlen(text), k = strlen(end);

	return n > k && !strcmp(text + n - k, end);
}

static bool load_cairo(struct cairo *c)
{
	const struct {
		const char *name;
		void **to;
	} functions[] = {
		{ "cairo_image_surface_create", (void **)&c->surface },
		{ "cairo_create", (void **)&c->create },
		{ "cairo_set_source_rgb", (void **)&c->rgb },
		{ "cairo_rectangle", (void **)&c->rectangle },
		{ "cairo_fill", (void **)&c->fill },
		{ "cairo_stroke", (void **)&c->stroke },
		{ "cairo_set_line_width", (void **)&c->line_width },
		{ "cairo_move_to", (void **)&c->move_to },
		{ "cairo_line_to", (void **)&c->line_to },
		{ "cairo_select_font_face", (void **)&c->font_face },
		{ "cairo_set_font_size", (void **)&c->font_size },
		{ "cairo_show_text", (void **)&c->show_text },
		{ "cairo_text_extents", (void **)&c->extents },
		{ "cairo_surface_write_to_png", (void **)&c->write_png },
		{ "cairo_status_to_string", (void **)&c->error },
	};
	void *dl = dlopen("libcairo.so.2", RTLD_NOW | RTLD_LOCAL);

	for (size_t i = 0; dl && i < sizeof(functions) / sizeof(functions[0]); i++) {
		*functions[i].to = dlsym(dl, functions[i].name);
		if (!*functions[i].to)
			dl = NULL;
	}
	return dl;
}

static bool open_png(struct canvas *c, double width, double height)
{
	if (!load_cairo(&c->lib)) {
		say(EXIT_WRONG,
		    "%s: a PNG needs libcairo.so.2 (Debian: libcairo2); "
		    "an .svg needs nothing",
		    c->file);
		return false;
	}
	c->surface = c->lib.surface(1 /* RGB24 */, (int)width, (int)height);
	c->cr = c->lib.create(c->surface);
	c->lib.font_face(c->cr, "sans-serif", 0, 0);
	return true;
}

static bool open_svg(struct canvas *c, double width, double height)
{
	c->svg = fopen(c->file, "we");
	if (!c->svg) {
		say(EXIT_WRONG, "%s: %s", c->file, strerror(errno));
		return false;
	}
	fprintf(c->svg,
		"<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%.0f\" height=\"%.0f\" "
		"viewBox=\"0 0 %.0f %.0f\" font-family=\"sans-serif\">\n",
		width, height, width, height);
	return true;
}

int canvas_open(const char *file, double width, double height, struct canvas **out)
{
	bool svg = ends_with(file, ".svg");
	struct canvas *c;

	if (!svg && !ends_with(file, ".png"))
		return say(EXIT_USAGE, "%s: its name must end in .svg or .png", file);
	c = calloc(1, sizeof(*c));
	if (!c || !(c->file = strdup(file))) {
		free(c);
		return say(EXIT_WRONG, "out of memory");
	}
	if (!(svg ? open_svg : open_png)(c, width, height)) {
		free(c->file);
		free(c);
		return EXIT_WRONG;
	}
	canvas_rect(c, 0, 0, width, height, 0xffffff);
	*out = c;
	return 0;
}

static void colour(struct canvas *c, unsigned rgb)
{
	c->lib.rgb(c->cr, (double)(rgb >> 16 & 255) / 255, (double)(rgb >> 8 & 255) / 255,
		   (double)(rgb & 255) / 255);
}

void canvas_rect(struct canvas *c, double x, double y, double w, double h, unsigned rgb)
{
	if (c->svg) {
		fprintf(c->svg,
			"<rect x=\"%g\" y=\"%g\" width=\"%g\" height=\"%g\" fill=\"#%06x\"/>\n", x,
			y, w, h, rgb);
		return;
	}
	colour(c, rgb);
	c->lib.rectangle(c->cr, x, y, w, h);
	c->lib.fill(c->cr);
}

static void put_escaped(FILE *f, const char *text)
{
	for (; *text; text++) {
		if (*text == '<')
			fputs("&lt;", f);
		else if (*text == '&')
			fputs("&amp;", f);
		else if (*text == '"')
			fputs("&quot;", f);
		else
			putc(*text, f);
	}
}

void canvas_group(struct canvas *c, const char *title)
{
	if (!c->svg)
		return;
	fputs("<g><title>", c->svg);
	put_escaped(c->svg, title);
	fputs("</title>\n", c->svg);
}

void canvas_group_end(struct canvas *c)
{
	if (c->svg)
		fputs("</g>\n", c->svg);
}

void canvas_text(struct canvas *c, double x, double y, double size, enum canvas_anchor anchor,
		 unsigned rgb, const char *text)
{
	static const char *const names[] = { "start", "middle", "end" };
	double extents[6];

	if (c->svg) {
		fprintf(c->svg,
			"<text x=\"%g\" y=\"%g\" font-size=\"%g\" text-anchor=\"%s\" "
			"fill=\"#%06x\">",
			x, y, size, names[anchor], rgb);
		put_escaped(c->svg, text);
		fputs("</text>\n", c->svg);
		return;
	}
	colour(c, rgb);
	c->lib.font_size(c->cr, size);
	c->lib.extents(c->cr, text, extents);
	if (anchor != CANVAS_LEFT)
		x -= anchor == CANVAS_MIDDLE ? extents[4] / 2 : extents[4];
	c->lib.move_to(c->cr, x, y);
	c->lib.show_text(c->cr, text);
}

void canvas_line(struct canvas *c, const double *points, size_t n, double width, unsigned rgb)
{
	if (c->svg) {
		fprintf(c->svg,
			"<polyline fill=\"none\" stroke=\"#%06x\" stroke-width=\"%g\" points=\"",
			rgb, width);
		for (size_t i = 0; i < n; i++)
			fprintf(c->svg, "%s%.1f,%.1f", i ? " " : "", points[2 * i],
				points[2 * i + 1]);
		fputs("\"/>\n", c->svg);
		return;
	}
	colour(c, rgb);
	c->lib.line_width(c->cr, width);
	for (size_t i = 0; i < n; i++)
		(i ? c->lib.line_to : c->lib.move_to)(c->cr, points[2 * i], points[2 * i + 1]);
	c->lib.stroke(c->cr);
}

int canvas_close(struct canvas *c)
{
	int status = 0;

	if (c->svg) {
		fputs("</svg>\n", c->svg);
		if (ferror(c->svg) | fclose(c->svg))
			status = say(EXIT_WRONG, "%s: %s", c->file, strerror(errno));
	} else {
		int rc = c->lib.write_png(c->surface, c->file);

		if (rc)
			status = say(EXIT_WRONG, "%s: %s", c->file, c->lib.error(rc));
	}
	free(c->file);
	free(c);
	return status;
}
