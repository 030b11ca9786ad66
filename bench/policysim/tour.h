/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A tour: the blocks that a program came to, in order; read from a trace (src/trace.h)
 * or made up by a generator. Single thread; memory from malloc, errors end the process.
 */
#ifndef EMF_TOUR_H
#define EMF_TOUR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct tour {
	const char *name;
	uint32_t *at; /* numbers of blocks, of all touches */
	size_t n;
	struct tour_region {
		uint32_t first, count;
	} *regions; /* in order of address, apart from each other */
	size_t nregions;
	uint32_t *mark; /* touches at which something new begins (a token, a phase; else evenly) */
	size_t nmarks;
};

void tour_touch(struct tour *t, uint32_t number);
void tour_region(struct tour *t, uint32_t first, uint32_t count);
void tour_mark(struct tour *t);
void tour_free(struct tour *t);
/* Different blocks that are touched. */
size_t tour_blocks(const struct tour *t);

/* A trace file, or "dense", "moe" ... for one that is made up. False: why tells. */
bool tour_read(struct tour *t, const char *path, char *why, size_t len);
bool tour_generate(struct tour *t, const char *name);
/* The names for tour_generate, NULL behind the last. */
extern const char *const tour_names[];
bool tour_write(const struct tour *t, const char *path);

#endif
