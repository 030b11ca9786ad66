/* SPDX-License-Identifier: Apache-2.0 */
#include "transfer.h"

#include <errno.h>
#include <string.h>

#include "arena.h"
#include "block.h"
#include "engine.h"
#include "frame.h"
#include "kernel.h"
#include "region.h"
#include "slot.h"
#include "source.h"
#include "source_queue.h"

int transfer_pool_init(struct transfer_pool *p, enum emf_queue_kind kind, unsigned depth)
{
	struct transfer *t = arena_alloc(depth * sizeof(*t));

	/* Now: a mapping that is made later may be where the program has just unmapped something.
	 */
	if (kind == EMF_QUEUE_DEMAND)
		p->clusters = arena_alloc((size_t)depth * STORE_CLUSTER);
	if (!t || (kind == EMF_QUEUE_DEMAND && !p->clusters))
		return -ENOMEM;
	p->all = t;
	p->depth = depth;
	for (unsigned i = 0; i < depth; i++) {
		t[i].pool = p;
		t[i].next = p->free;
		p->free = t + i;
	}
	int err = engine.store.top->ops->queue_open(engine.store.top, kind, depth, &p->queue);
	return err ? err : source_queue_wrap(&p->queue, depth);
}

static void put(struct transfer *t)
{
	t->begin = 0;
	t->next = t->pool->free;
	t->pool->free = t;
	t->pool->inflight--;
}

struct block *transfer_block(const struct transfer *t)
{
	return t->frame == NO_FRAME ? NULL : frame_meta(t->frame)->owner;
}

static struct slot_extent own_extent(const struct block *b)
{
	return (struct slot_extent){ (uint16_t)(block_offset(b) / K_PAGE),
				     (uint16_t)(block_len(b) / K_PAGE) };
}

struct slot_extent transfer_extent(const struct block *b)
{
	if (b->slot == SLOT_FILE)
		return own_extent(b);
	struct slot_extent written = slot_extent(b->slot);
	unsigned first = (unsigned)(block_offset(b) / K_PAGE),
		 end = first + (unsigned)(block_len(b) / K_PAGE),
		 limit = written.first + written.pages;

	first -= first % CLUSTER_PAGES;
	end = (end + CLUSTER_PAGES - 1) / CLUSTER_PAGES * CLUSTER_PAGES;
	if (first < written.first)
		first = written.first;
	if (end > limit)
		end = limit;
	return (struct slot_extent){ (uint16_t)first, (uint16_t)(end > first ? end - first : 0) };
}

/* What was read around the block goes; what was never written of it is zero. */
static void fit(const struct transfer *t, const struct block *b)
{
	char *start = frame_addr(t->frame, b), *end = start + block_len(b);
	char *from = t->addr, *to = t->addr + t->io.length;

	if (from > start)
		memset(start, 0, (size_t)(from - start));
	if (to < end)
		memset(to, 0, (size_t)(end - to));
	if (from < start)
		frame_release_part(from, (size_t)(start - from));
	if (to > end)
		frame_release_part(end, (size_t)(to - end));
}

static void orphan_end(struct transfer *t)
{
	/*
	 * Reads of the frame may have left zero pages in it: empty it for good. A big one may
	 * have had pages around what was to be read, too.
	 */
	if (frame_kind(t->frame) == FRAME_BIG)
		frame_release(t->frame, frame_start(t->frame), BLOCK_SIZE);
	else
		frame_release(t->frame, t->addr, t->io.length);
	if (t->slot != NO_SLOT)
		slot_free(t->slot);
}

static void read_done(struct emf_io *io)
{
	struct transfer *t = io->user;

	lock_take(&engine.lock);
	if (!io->status) {
		atomic_fetch_add(&engine.stats->fetched_bytes, io->length);
		engine.fetches++;
	}
	struct block *b = transfer_block(t);
	if (b) {
		frame_meta(t->frame)->transfer = NULL;
		fit(t, b);
		block_fetched(b, io->status, !(b->flags & B_PREFETCHED));
	} else {
		orphan_end(t);
	}
	put(t);
	lock_give(&engine.lock);
}

/* What is read for so many pages. */
static unsigned unit_pages(unsigned n)
{
	unsigned unit = (unsigned)(engine.store.unit / K_PAGE);

	return n > unit ? n : unit;
}

static void pages_done(struct emf_io *io)
{
	struct transfer *t = io->user;

	lock_take(&engine.lock);
	if (!io->status)
		atomic_fetch_add(&engine.stats->fetched_bytes, io->length);
	struct block *b = transfer_block(t);
	if (b) {
		frame_meta(t->frame)->transfer = NULL;
		char *buf = (char *)io->buf + t->first % unit_pages(t->pages) * K_PAGE;
		block_pages_fetched(b, t->first, t->pages, io->status, buf);
	} else {
		orphan_end(t);
	}
	put(t);
	lock_give(&engine.lock);
}

static void write_done(struct emf_io *io)
{
	struct transfer *t = io->user;

	lock_take(&engine.lock);
	if (io->status)
		engine_store_failed(io->status);
	else
		atomic_fetch_add(&engine.stats->written_bytes, io->length);
	struct block *b = transfer_block(t);
	slot_wrote(t->slot);
	if (b) {
		frame_meta(t->frame)->transfer = NULL;
		block_written(b, io->status ? BLOCK_FAILED : BLOCK_WRITTEN);
	} else {
		orphan_end(t);
	}
	put(t);
	lock_give(&engine.lock);
}

static void trim_done(struct emf_io *io)
{
	struct transfer *t = io->user;

	lock_take(&engine.lock);
	slot_trimmed(t->slot); /* a failed trim costs space until the end, no more */
	put(t);
	lock_give(&engine.lock);
}

static struct transfer *get(struct transfer_pool *p)
{
	struct transfer *t = p->free;

	if (!t)
		return NULL;
	p->free = t->next;
	p->inflight++;
	t->begin = k_now_ns();
	return t;
}

uint64_t transfer_address(const struct block *b, size_t first)
{
	if (b->slot != SLOT_FILE)
		return ((uint64_t)b->slot << BLOCK_SHIFT) + first * K_PAGE;
	return source_address(b->region->source,
			      block_file_offset(b) + first * K_PAGE - block_offset(b));
}

static struct transfer *for_block(struct transfer_pool *p, struct block *b, enum emf_op op,
				  struct slot_extent e, void (*done)(struct emf_io *io))
{
	struct transfer *t = get(p);

	if (!t)
		return NULL;
	t->frame = b->frame;
	t->slot = b->slot;
	t->addr = frame_start(b->frame) + (size_t)e.first * K_PAGE;
	t->io = (struct emf_io){
		.op = op,
		.offset = transfer_address(b, e.first),
		.length = (size_t)e.pages * K_PAGE,
		.buf = t->addr,
		.done = done,
		.user = t,
	};
	frame_meta(b->frame)->transfer = t;
	return t;
}

struct transfer *transfer_read(struct transfer_pool *p, struct block *b)
{
	return for_block(p, b, EMF_READ, transfer_extent(b), read_done);
}

struct transfer *transfer_read_pages(struct transfer_pool *p, struct block *b, unsigned first,
				     unsigned n)
{
	unsigned unit = unit_pages(n);
	struct slot_extent e = { (uint16_t)(first - first % unit), (uint16_t)unit };
	struct transfer *t = for_block(p, b, EMF_READ, e, pages_done);

	if (!t)
		return NULL;
	t->first = first;
	t->pages = n;
	t->io.buf = p->clusters + (size_t)(t - p->all) * STORE_CLUSTER;
	return t;
}

struct transfer *transfer_write(struct transfer_pool *p, struct block *b)
{
	return for_block(p, b, EMF_WRITE, own_extent(b), write_done);
}

void transfer_set_slot(struct transfer *t, uint32_t slot)
{
	uint64_t within = t->io.offset & (BLOCK_SIZE - 1);

	t->slot = slot;
	slot_writing(slot);
	t->io.offset = ((uint64_t)slot << BLOCK_SHIFT) + within;
	slot_set_extent(slot, (struct slot_extent){ (uint16_t)(within / K_PAGE),
						    (uint16_t)(t->io.length / K_PAGE) });
}

struct transfer *transfer_trim(struct transfer_pool *p, uint32_t slot)
{
	struct transfer *t = get(p);

	if (!t)
		return NULL;
	t->frame = NO_FRAME;
	t->slot = slot;
	t->io = (struct emf_io){
		.op = EMF_TRIM,
		.offset = (uint64_t)slot << BLOCK_SHIFT,
		.length = BLOCK_SIZE,
		.done = trim_done,
		.user = t,
	};
	return t;
}

void transfer_start(struct transfer *t)
{
	struct emf_queue *q = t->pool->queue;

	/* The pool is as deep as the queue was asked to be, so this is rare. */
	while (q->ops->submit(q, &t->io) == -EAGAIN)
		q->ops->poll(q);
}

void transfer_cancel(struct transfer *t)
{
	if (transfer_block(t))
		frame_meta(t->frame)->transfer = NULL;
	else
		orphan_end(t);
	put(t);
}

void transfer_detach(struct transfer *t)
{
	frame_meta(t->frame)->owner = NULL;
}

void transfer_keep_slot(struct transfer *t)
{
	t->slot = NO_SLOT;
}

void transfer_expire(struct transfer_pool *p)
{
	uint64_t now = k_now_ns(), timeout = engine.config.timeout_ms * 1000000ull;

	for (struct transfer *t = p->all; t < p->all + p->depth; t++) {
		struct block *b = t->begin ? transfer_block(t) : NULL;
		if (!b || now - t->begin <= timeout || source_is_address(t->io.offset))
			continue; /* for a file the kernel waits, too, as long as it takes */
		if (t->io.op == EMF_WRITE)
			engine_store_failed(-ETIMEDOUT);
		block_expired(b);
	}
}

bool transfer_idle(const struct transfer_pool *p)
{
	for (const struct transfer *t = p->all; t < p->all + p->depth; t++)
		if (t->begin && transfer_block(t))
			return false;
	return true;
}

bool transfer_is_long(const struct transfer_pool *p)
{
	for (const struct transfer *t = p->all; t < p->all + p->depth; t++)
		if (t->begin && t->io.length > STORE_CLUSTER)
			return true;
	return false;
}

bool transfer_stuck(const struct transfer_pool *p)
{
	return !p->free && transfer_idle(p);
}

void transfer_poll(struct transfer_pool *p)
{
	if (p->inflight)
		p->queue->ops->poll(p->queue);
}
