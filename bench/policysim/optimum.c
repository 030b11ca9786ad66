/* SPDX-License-Identifier: Apache-2.0 */
/* What a policy is measured by: Belady's optimum, and the LRU that it must not fall behind. */
#include "replay.h"

#include <stdlib.h>
#include <string.h>

#define NEVER UINT32_MAX

/* Blocks in a row: ids instead of addresses. */
struct ids {
	uint32_t *of; /* touch -> id */
	size_t n;
};

static int by_number(const void *a, const void *b)
{
	uint32_t p = *(const uint32_t *)a, q = *(const uint32_t *)b;

	return p < q ? -1 : p > q;
}

static void *array(size_t n, size_t size)
{
	void *p = calloc(n + 1, size);

	if (!p)
		abort();
	return p;
}

static struct ids number(const struct tour *t)
{
	uint32_t *sorted = array(t->n, sizeof(*sorted));
	struct ids ids = { .of = array(t->n, sizeof(*ids.of)) };

	memcpy(sorted, t->at, t->n * sizeof(*sorted));
	qsort(sorted, t->n, sizeof(*sorted), by_number);
	for (size_t i = 0; i < t->n; i++)
		if (!i || sorted[i] != sorted[i - 1])
			sorted[ids.n++] = sorted[i];
	for (size_t i = 0; i < t->n; i++) {
		const uint32_t *p =
		    bsearch(t->at + i, sorted, ids.n, sizeof(*sorted), by_number);
		ids.of[i] = (uint32_t)(p - sorted);
	}
	free(sorted);
	return ids;
}

/* A heap of (next use, id), the latest on top; entries that are out of date stay in it. */
struct entry {
	uint32_t next, id;
};

static void push(struct entry *heap, size_t *n, struct entry e)
{
	size_t i = (*n)++;

	for (; i && heap[(i - 1) / 2].next < e.next; i = (i - 1) / 2)
		heap[i] = heap[(i - 1) / 2];
	heap[i] = e;
}

static struct entry pop(struct entry *heap, size_t *n)
{
	struct entry top = heap[0], e = heap[--*n];
	size_t i = 0, k;

	while ((k = 2 * i + 1) < *n) {
		if (k + 1 < *n && heap[k + 1].next > heap[k].next)
			k++;
		if (heap[k].next <= e.next)
			break;
		heap[i] = heap[k];
		i = k;
	}
	heap[i] = e;
	return top;
}

uint64_t replay_optimum(const struct tour *t, size_t capacity, unsigned *series)
{
	struct ids ids = number(t);
	uint32_t *next = array(t->n, sizeof(*next)), *last = array(ids.n, sizeof(*last));
	uint32_t *current = array(ids.n, sizeof(*current)); /* next use of what is local */
	bool *local = array(ids.n, 1), *seen = array(ids.n, 1);
	struct entry *heap = array(t->n, sizeof(*heap));
	size_t held = 0, n = 0, mark = 0;
	uint64_t fetched = 0;
	unsigned *slot = NULL;

	memset(last, 0xff, ids.n * sizeof(*last));
	for (size_t i = t->n; i-- > 0;) {
		next[i] = last[ids.of[i]];
		last[ids.of[i]] = (uint32_t)i;
	}
	for (size_t i = 0; i < t->n; i++) {
		uint32_t id = ids.of[i];
		for (; mark < t->nmarks && t->mark[mark] == i; mark++)
			if (series)
				*(slot = series + mark) = 0;
		if (!local[id]) {
			if (seen[id]) {
				fetched++;
				if (slot)
					++*slot;
			}
			while (held >= capacity) {
				struct entry e = pop(heap, &n);
				if (!local[e.id] || current[e.id] != e.next)
					continue;
				local[e.id] = false;
				held--;
			}
			local[id] = seen[id] = true;
			held++;
		}
		current[id] = next[i];
		push(heap, &n, (struct entry){ next[i], id });
	}
	free(ids.of);
	free(next);
	free(last);
	free(current);
	free(local);
	free(seen);
	free(heap);
	return fetched;
}

uint64_t replay_lru(const struct tour *t, size_t capacity)
{
	struct ids ids = number(t);
	uint32_t *older = array(ids.n, sizeof(*older)), *newer = array(ids.n, sizeof(*newer));
	bool *local = array(ids.n, 1), *seen = array(ids.n, 1);
	uint32_t oldest = NEVER, newest = NEVER;
	size_t held = 0;
	uint64_t fetched = 0;

	for (size_t i = 0; i < t->n; i++) {
		uint32_t id = ids.of[i];
		if (local[id]) {
			if (older[id] != NEVER)
				newer[older[id]] = newer[id];
			else
				oldest = newer[id];
			if (newer[id] != NEVER)
				older[newer[id]] = older[id];
			else
				newest = older[id];
		} else {
			fetched += seen[id];
			if (held == capacity) {
				local[oldest] = false;
				oldest = newer[oldest];
				if (oldest != NEVER)
					older[oldest] = NEVER;
				else
					newest = NEVER;
				held--;
			}
			held++;
			local[id] = seen[id] = true;
		}
		older[id] = newest;
		newer[id] = NEVER;
		if (newest != NEVER)
			newer[newest] = id;
		else
			oldest = id;
		newest = id;
	}
	free(ids.of);
	free(older);
	free(newer);
	free(local);
	free(seen);
	return fetched;
}
