/* SPDX-License-Identifier: Apache-2.0 */
/* The policies' window into blocks and regions: see policy/view.h. */
#include "policy/view.h"

#include "block.h"
#include "engine.h"
#include "region.h"

struct region *view_region(const struct block *b)
{
	return b->region;
}

size_t view_index(const struct block *b)
{
	return (size_t)(b - b->region->blocks);
}

size_t view_count(const struct region *r)
{
	return r->nblocks;
}

struct block *view_block(struct region *r, size_t i)
{
	return r->blocks + i;
}

struct policy_note *view_note(struct block *b)
{
	return &b->note;
}

struct policy_region *view_region_note(struct block *b)
{
	return &b->region->note;
}

struct policy_region *view_note_of(struct region *r)
{
	return &r->note;
}

struct region *view_region_at(size_t i)
{
	return region_at(i);
}

const struct block_list *view_list(const struct block *b)
{
	/* Else it is on one of place.c's, which are nothing to the policies. */
	return b->placed || b->sampled ? NULL : b->list;
}

struct block *view_next(const struct block *b)
{
	return b->next;
}

bool view_away(const struct block *b)
{
	return b->state == FAR || b->state == FETCHING;
}

bool view_far(const struct block *b)
{
	return b->state == FAR && (!b->list || b->list == &engine.sparse);
}

bool view_mapped(const struct block *b)
{
	return b->state == LOCAL;
}

uint64_t view_left(const struct block *b)
{
	return b->evicted_at;
}

const struct emf_class *view_region_class(const struct region *r)
{
	return r->class;
}

bool view_random(const struct region *r)
{
	return r->random;
}

const struct emf_class *view_class(const struct block *b)
{
	return b->region->class;
}

uint8_t *view_lane(struct block *b)
{
	return &b->stream;
}

uint32_t view_number(const struct block *b)
{
	return (uint32_t)(region_block_start(b->region, view_index(b)) >> BLOCK_SHIFT);
}

struct block *view_find(uint32_t number)
{
	uintptr_t at = (uintptr_t)number << BLOCK_SHIFT;
	struct region *r = region_next(at);

	/* The region may begin in the middle of its first block. */
	if (!r || r->base > at || (at - r->base) >> BLOCK_SHIFT >= r->nblocks)
		return NULL;
	return r->blocks + ((at - r->base) >> BLOCK_SHIFT);
}
