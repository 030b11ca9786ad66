/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A sheet to draw on, written to a file: SVG by itself, PNG by libcairo, which is loaded only
 * then. Coordinates are pixels from the upper left corner; colours are 0xRRGGBB.
 */
#ifndef TIERSTAT_CANVAS_H
#define TIERSTAT_CANVAS_H

#include <stddef.h>

struct canvas;

enum canvas_anchor { CANVAS_LEFT, CANVAS_MIDDLE, CANVAS_RIGHT };

/* By the end of its name: .svg or .png. The sheet is white. 0 or the exit status, said. */
int canvas_open(const char *file, double width, double height, struct canvas **out);
void canvas_rect(struct canvas *c, double x, double y, double w, double h, unsigned rgb);
/* What a browser shows when the pointer is on what is drawn between these; may be nested. */
void canvas_group(struct canvas *c, const char *title);
void canvas_group_end(struct canvas *c);
/* y: of the base line */
void canvas_text(struct canvas *c, double x, double y, double size, enum canvas_anchor anchor,
		 unsigned rgb, const char *text);
/* n points: x0, y0, x1, y1, ... */
void canvas_line(struct canvas *c, const double *points, size_t n, double width, unsigned rgb);
/* Writes it out. 0 or the exit status, said. */
int canvas_close(struct canvas *c);

#endif
