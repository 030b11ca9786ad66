/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sequential prefetch: a small table of streams. A stream is a place in a region
 * where touches move up, or down, or by the same stride; resident blocks cause no faults, so
 * progress is counted in far blocks, and a touch that skips a few still belongs (several compute
 * threads take their work from a shared counter). A stream that has proved itself goes on, at the
 * end of its region, where it began: sweeps are mostly cyclic, and need not begin where the region
 * does (before a model's layers comes the table of its words).
 */
#include <string.h>

#include "policy/view.h"

#define STREAMS 16
#define SKIP 4	   /* far blocks that a touch may be ahead of its stream */
#define STRIDE 64  /* the longest, in blocks */
#define PROVEN 8   /* touches after which a stream may wrap */
#define WALK 65536 /* blocks looked at for one answer */

struct stream {
	struct region *region; /* NULL: unused */
	size_t pos, head;      /* last touched; next to look at */
	size_t begin;	       /* where it began */
	long step;
	long delta; /* between the last two touches that did not follow */
	unsigned outstanding, confidence;
	uint64_t used;
};

static struct stream streams[STREAMS];
static uint64_t clock;
static unsigned next_stream;

static void reset(void)
{
	memset(streams, 0, sizeof(streams));
	clock = next_stream = 0;
}

/* Far blocks from s->pos up (or down) to block i; more than SKIP is as good as infinity. */
static bool follows(const struct stream *s, size_t i)
{
	long by = (long)i - (long)s->pos;
	unsigned far = 0;

	if (by * s->step <= 0)
		return false;
	if (s->step != 1 && s->step != -1)
		return by == s->step;
	for (size_t k = s->pos + (size_t)s->step;; k += (size_t)s->step) {
		if (view_away(view_block(s->region, k)) || k == i)
			far++;
		if (far > SKIP)
			return false;
		if (k == i)
			return true;
	}
}

static void progress(struct stream *s, size_t i)
{
	long ahead = ((long)s->head - (long)i) * s->step;

	s->pos = i;
	if (ahead <= 0)
		s->head = i + (size_t)s->step;
	s->confidence++;
	s->used = clock;
}

/* Twice the same way from one touch to the next, though not in a row: a stride. */
static bool strides(struct stream *s, size_t i)
{
	long by = (long)i - (long)s->pos;

	if (s->confidence || by > STRIDE || by < -STRIDE || !by)
		return false;
	if (s->delta != by) {
		/* Down by one is as good as up by one. */
		if (by == -1 && !s->delta)
			s->step = -1;
		s->delta = by;
		s->pos = s->begin = i;
		s->head = i + (size_t)s->step;
		s->used = clock;
		return true;
	}
	s->step = by;
	s->begin = s->pos;
	s->head = i + (size_t)by;
	progress(s, i);
	return true;
}

/* Of what it goes over, from where it began to the end of its region. */
static long length(const struct stream *s)
{
	return (long)(s->step > 0 ? view_count(s->region) - s->begin : s->begin + 1);
}

static void returned(struct stream *s, struct block *b, size_t i)
{
	if (s->region != view_region(b))
		return;
	if (s->outstanding)
		s->outstanding--;
	long by = ((long)i - (long)s->pos) * s->step;
	if (by > 0 || -by > length(s) / 2)
		s->pos = i;
	s->confidence++;
	s->used = clock;
}

static bool touched(struct block *b, bool waited, int lane)
{
	struct region *r = view_region(b);
	size_t i = view_index(b);
	struct stream *s, *oldest = streams;

	clock++;
	if (lane >= 0) {
		returned(streams + lane, b, i);
		return true;
	}
	(void)waited;
	for (s = streams; s < streams + STREAMS; s++) {
		if (s->region == r && follows(s, i)) {
			progress(s, i);
			return s->confidence > 1;
		}
		if (s->used < oldest->used)
			oldest = s;
	}
	for (s = streams; s < streams + STREAMS; s++)
		if (s->region == r && strides(s, i))
			return false;
	*oldest = (struct stream){
		.region = r, .pos = i, .begin = i, .head = i + 1, .step = 1, .used = clock
	};
	return false;
}

static struct block *advance(struct stream *s)
{
	struct region *r = s->region;
	size_t n = view_count(r);
	bool round = false;

	for (unsigned walk = 0; walk < WALK; walk++) {
		if (s->head >= n) { /* also below 0 */
			if (s->confidence < PROVEN || (s->step != 1 && s->step != -1) || round)
				return NULL;
			round = true;
			s->head = s->begin;
		}
		if (s->head == s->pos)
			return NULL; /* once round */
		struct block *b = view_block(r, s->head);
		s->head += (size_t)s->step;
		if (view_far(b))
			return b;
	}
	return NULL;
}

static struct block *next(unsigned *lane)
{
	for (unsigned n = 0; n < STREAMS; n++) {
		struct stream *s = streams + next_stream;
		if (s->region && s->confidence &&
		    s->outstanding < prefetch_depth(s->region, s->confidence) &&
		    prefetch_may(&prefetch_sequential, s->region)) {
			struct block *b = advance(s);
			if (b) {
				*lane = next_stream;
				s->outstanding++;
				return b;
			}
		}
		next_stream = (next_stream + 1) % STREAMS;
	}
	return NULL;
}

static void wasted(struct block *b, unsigned lane)
{
	struct stream *s = streams + lane;

	if (s->region != view_region(b))
		return;
	if (s->outstanding)
		s->outstanding--;
	s->confidence /= 2;
}

static void region_gone(const struct region *r)
{
	for (struct stream *s = streams; s < streams + STREAMS; s++)
		if (s->region == r)
			s->region = NULL;
}

const struct prefetcher prefetch_sequential = {
	.reset = reset,
	.touched = touched,
	.next = next,
	.wasted = wasted,
	.region_gone = region_gone,
};
