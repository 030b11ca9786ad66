/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sequential prefetch: a small table of streams. A stream is a place in a region
 * where touches move up; resident blocks cause no faults, so progress is counted in far
 * blocks, and a touch that skips a few still belongs (several compute threads
 * take their work from a shared counter). A stream that has proved itself wraps at the end
 * of its region: sweeps are mostly cyclic.
 */
#include <string.h>

#include "block.h"
#include "config.h"
#include "policy.h"
#include "region.h"

#define STREAMS 16
#define SKIP 4	   /* far blocks that a touch may be ahead of its stream */
#define PROVEN 8   /* touches after which a stream may wrap */
#define WALK 65536 /* blocks looked at for one answer */

struct stream {
	struct region *region; /* NULL: unused */
	size_t pos, head;      /* last touched; next to look at */
	unsigned outstanding, confidence;
	uint64_t used;
};

static struct stream streams[STREAMS];
static uint64_t clock;
static unsigned next_stream;
static unsigned depth_max;

void prefetch_init(size_t blocks)
{
	memset(streams, 0, sizeof(streams));
	prefetch_resize(blocks);
}

void prefetch_resize(size_t blocks)
{
	depth_max = (unsigned)(blocks / 32);
	if (depth_max < 1)
		depth_max = 1;
	if (depth_max > 16)
		depth_max = 16;
}

static unsigned depth(const struct stream *s)
{
	const struct emf_class *c = s->region->class;
	unsigned d = c && c->window ? c->window : depth_max;

	if (d > 4 * depth_max)
		d = 4 * depth_max;
	/* Slowly at first: the second touch in a row may be chance. */
	return s->confidence < 2 ? 1 : s->confidence < 4 ? (d + 3) / 4 : d;
}

/* Far blocks from s->pos up to and including block i; more than SKIP is as good as infinity. */
static bool follows(const struct stream *s, size_t i)
{
	unsigned far = 0;

	if (i <= s->pos)
		return false;
	for (size_t k = s->pos + 1; k <= i; k++) {
		uint8_t st = s->region->blocks[k].state;
		if (st == FAR || st == FETCHING || k == i)
			far++;
		if (far > SKIP)
			return false;
	}
	return true;
}

void prefetch_touched(struct block *b, bool ahead)
{
	size_t i = (size_t)(b - b->region->blocks);
	struct stream *s, *oldest = streams;

	clock++;
	if (ahead) {
		s = streams + b->stream;
		if (s->region == b->region) {
			if (s->outstanding)
				s->outstanding--;
			if (i > s->pos || s->pos - i > s->region->nblocks / 2)
				s->pos = i;
			s->confidence++;
			s->used = clock;
		}
		return;
	}
	const struct emf_class *c = b->region->class;
	if (c && c->prefetch == EMF_PREFETCH_OFF)
		return;
	for (s = streams; s < streams + STREAMS; s++) {
		if (s->region == b->region && follows(s, i)) {
			s->pos = i;
			if (s->head <= i)
				s->head = i + 1;
			s->confidence++;
			s->used = clock;
			return;
		}
		if (s->used < oldest->used)
			oldest = s;
	}
	*oldest = (struct stream){ .region = b->region, .pos = i, .head = i + 1, .used = clock };
}

static struct block *advance(struct stream *s)
{
	struct region *r = s->region;

	for (unsigned walk = 0; walk < WALK; walk++) {
		if (s->head >= r->nblocks) {
			if (s->confidence < PROVEN)
				return NULL;
			s->head = 0;
		}
		if (s->head == s->pos)
			return NULL; /* once round */
		struct block *b = r->blocks + s->head++;
		if (b->state == FAR && !b->list)
			return b;
	}
	return NULL;
}

struct block *prefetch_next(void)
{
	for (unsigned n = 0; n < STREAMS; n++) {
		struct stream *s = streams + next_stream;
		if (s->region && s->confidence && s->outstanding < depth(s)) {
			struct block *b = advance(s);
			if (b) {
				b->stream = (uint8_t)next_stream;
				s->outstanding++;
				return b;
			}
		}
		next_stream = (next_stream + 1) % STREAMS;
	}
	return NULL;
}

void prefetch_wasted(struct block *b)
{
	struct stream *s = streams + b->stream;

	if (s->region != b->region)
		return;
	if (s->outstanding)
		s->outstanding--;
	s->confidence /= 2;
}

void prefetch_region_gone(const struct region *r)
{
	for (struct stream *s = streams; s < streams + STREAMS; s++)
		if (s->region == r)
			s->region = NULL;
}
