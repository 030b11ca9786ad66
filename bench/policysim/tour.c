/* SPDX-License-Identifier: Apache-2.0 */
#include "tour.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "trace.h"

static void *grow(void *p, size_t n, size_t size)
{
	/* By doubling: n is a power of two when there is no room. */
	if (n & (n - 1))
		return p;
	p = realloc(p, (n ? 2 * n : 1) * size);
	if (!p)
		abort();
	return p;
}

void tour_touch(struct tour *t, uint32_t number)
{
	t->at = grow(t->at, t->n, sizeof(*t->at));
	t->at[t->n++] = number;
}

void tour_mark(struct tour *t)
{
	t->mark = grow(t->mark, t->nmarks, sizeof(*t->mark));
	t->mark[t->nmarks++] = (uint32_t)t->n;
}

static int by_first(const void *a, const void *b)
{
	const struct tour_region *p = a, *q = b;

	return p->first < q->first ? -1 : p->first > q->first;
}

/* Regions that grew, or came again, are one. */
static void merge(struct tour *t)
{
	size_t n = 0;

	qsort(t->regions, t->nregions, sizeof(*t->regions), by_first);
	for (size_t i = 0; i < t->nregions; i++) {
		struct tour_region *r = t->regions + i, *last = n ? t->regions + n - 1 : NULL;
		if (last && r->first < last->first + last->count) {
			uint32_t end = r->first + r->count;
			if (end > last->first + last->count)
				last->count = end - last->first;
		} else {
			t->regions[n++] = *r;
		}
	}
	t->nregions = n;
}

void tour_region(struct tour *t, uint32_t first, uint32_t count)
{
	t->regions = grow(t->regions, t->nregions, sizeof(*t->regions));
	t->regions[t->nregions++] = (struct tour_region){ first, count };
}

void tour_free(struct tour *t)
{
	free(t->at);
	free(t->regions);
	free(t->mark);
	*t = (struct tour){ 0 };
}

static int by_number(const void *a, const void *b)
{
	uint32_t p = *(const uint32_t *)a, q = *(const uint32_t *)b;

	return p < q ? -1 : p > q;
}

size_t tour_blocks(const struct tour *t)
{
	uint32_t *sorted = malloc((t->n + 1) * sizeof(*sorted));
	size_t n = 0;

	if (!sorted)
		abort();
	memcpy(sorted, t->at, t->n * sizeof(*sorted));
	qsort(sorted, t->n, sizeof(*sorted), by_number);
	for (size_t i = 0; i < t->n; i++)
		n += !i || sorted[i] != sorted[i - 1];
	free(sorted);
	return n;
}

/* Of a program that says nothing of tokens: as often as it touches as many blocks as there are. */
static void mark_evenly(struct tour *t)
{
	size_t blocks = tour_blocks(t), at = blocks;

	for (; at < t->n; at += blocks) {
		t->mark = grow(t->mark, t->nmarks, sizeof(*t->mark));
		t->mark[t->nmarks++] = (uint32_t)at;
	}
}

/* --- trace files --- */

static bool next_number(FILE *f, uint64_t *v)
{
	int c, shift = 0;

	*v = 0;
	do {
		c = getc(f);
		if (c == EOF || shift > 63)
			return false;
		*v |= (uint64_t)(c & 127) << shift;
		shift += 7;
	} while (c & 128);
	return true;
}

/* The same visit: one of the last few blocks again. */
static bool again(const struct tour *t, uint32_t number)
{
	for (size_t i = 1; i <= 4 && i <= t->n; i++)
		if (t->at[t->n - i] == number)
			return true;
	return false;
}

static bool read_records(struct tour *t, FILE *f)
{
	uint64_t v, count;
	int64_t number = 0;

	while (next_number(f, &v)) {
		uint64_t arg = v >> TRACE_OP_BITS;
		int64_t by = (int64_t)(arg >> 1) ^ -(int64_t)(arg & 1);
		switch (v & ((1 << TRACE_OP_BITS) - 1)) {
		case TRACE_FAR:
		case TRACE_NEW:
		case TRACE_FRAME:
			number += by;
			if (!again(t, (uint32_t)number))
				tour_touch(t, (uint32_t)number);
			break;
		case TRACE_WRITE:
			number += by;
			break;
		case TRACE_TIME:
			break;
		case TRACE_REGION:
			number += by;
			if (!next_number(f, &count))
				return false;
			tour_region(t, (uint32_t)number, (uint32_t)count);
			break;
		case TRACE_GONE:
			number += by;
			if (!next_number(f, &count))
				return false;
			break;
		case TRACE_TOKEN:
			tour_mark(t);
			break;
		}
	}
	return true;
}

bool tour_read(struct tour *t, const char *path, char *why, size_t len)
{
	char magic[sizeof(TRACE_MAGIC)] = "", command[512];
	size_t n = strlen(path);
	bool packed = n > 3 && !strcmp(path + n - 3, ".xz"), ok;
	FILE *f;

	*t = (struct tour){ .name = path };
	if (packed) {
		if (strchr(path, '\'') || (size_t)snprintf(command, sizeof(command), "xz -dc '%s'", path) >=
					      sizeof(command)) {
			snprintf(why, len, "a name that a shell can't take");
			return false;
		}
		f = popen(command, "r");
	} else {
		f = fopen(path, "rb");
	}
	if (!f) {
		snprintf(why, len, "%s", strerror(errno));
		return false;
	}
	if (fread(magic, 1, sizeof(TRACE_MAGIC) - 1, f) != sizeof(TRACE_MAGIC) - 1 ||
	    strcmp(magic, TRACE_MAGIC)) {
		snprintf(why, len, "not a trace of this version");
		ok = false;
	} else {
		ok = read_records(t, f);
		if (!ok)
			snprintf(why, len, "is cut short");
	}
	if (packed)
		pclose(f);
	else
		fclose(f);
	if (ok && (!t->n || !t->nregions)) {
		snprintf(why, len, "holds no touches");
		ok = false;
	}
	merge(t);
	if (ok && !t->nmarks)
		mark_evenly(t);
	return ok;
}

static void put_number(FILE *f, uint64_t v)
{
	for (; v > 127; v >>= 7)
		putc((int)(v & 127) | 128, f);
	putc((int)v, f);
}

static void put_record(FILE *f, unsigned op, int64_t by)
{
	uint64_t zigzag = ((uint64_t)by << 1) ^ (uint64_t)(by >> 63);

	put_number(f, zigzag << TRACE_OP_BITS | op);
}

bool tour_write(const struct tour *t, const char *path)
{
	FILE *f = fopen(path, "wb");
	int64_t number = 0;
	size_t mark = 0;

	if (!f)
		return false;
	fputs(TRACE_MAGIC, f);
	for (size_t i = 0; i < t->nregions; i++) {
		put_record(f, TRACE_REGION, t->regions[i].first - number);
		put_number(f, t->regions[i].count);
		number = t->regions[i].first;
	}
	for (size_t i = 0; i < t->n; i++) {
		for (; mark < t->nmarks && t->mark[mark] == i; mark++)
			put_number(f, TRACE_TOKEN);
		put_record(f, TRACE_FAR, t->at[i] - number);
		number = t->at[i];
	}
	return !fclose(f);
}
