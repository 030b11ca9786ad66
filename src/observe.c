/* SPDX-License-Identifier: Apache-2.0 */
#include "observe.h"

#include <string.h>
#include <sys/mman.h>

#include "config.h"
#include "engine.h"
#include "frame.h"
#include "kernel.h"
#include "region.h"
#include "slot.h"
#include "stats.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

#define SAMPLE_NS 1000000000ull
#define MAP_NS 250000000ull
#define MAP_SHARE 1000 /* one in so much of the mover's time */
#define PIECE 1024     /* blocks at a time: some ten microseconds */

static void set(emf_stat *to, uint64_t v)
{
	atomic_store_explicit(to, v, memory_order_relaxed);
}

/* A store knows that it is full when it refuses a write; with no room for a block none is made. */
static void look_for_room(void)
{
	static bool full;
	bool was = full;

	full = slot_none_left() && (was || engine.store_retry_at);
	for (unsigned i = 0; full != was && i < engine.stats->nstores; i++) {
		uint32_t state = was ? EMF_STORE_FULL : EMF_STORE_OK;

		atomic_compare_exchange_strong(&engine.stats->store[i].state, &state,
					       full ? EMF_STORE_FULL : EMF_STORE_OK);
	}
}

void observe_sample(void)
{
	static uint64_t next;
	struct emf_stats *s = engine.stats;
	uint64_t now = k_now_ns();

	if (now < next)
		return;
	next = now + SAMPLE_NS;
	look_for_room();
	struct emf_sample *to = s->history + s->history_count % EMF_STATS_HISTORY;
	set(&to->local_limit, s->local_limit);
	set(&to->local_bytes, s->local_bytes);
	set(&to->far_bytes, s->far_bytes);
	set(&to->fetched_bytes, s->fetched_bytes);
	set(&to->written_bytes, s->written_bytes);
	set(&to->stall_ns, s->stall_ns);
	set(&to->faults_demand, s->faults_demand);
	set(&to->faults_standby, s->faults_standby);
	set(&to->prefetch_useful, s->prefetch_useful);
	set(&to->time_ns, now);
	atomic_fetch_add_explicit(&s->history_count, 1, memory_order_release);
}

bool observe_wanted(void)
{
	/* In the child of a fork nobody has asked yet. */
	uint64_t asked = engine.stats->map_wanted;

	return asked && k_now_ns() < asked + EMF_MAP_ATTENTION_NS;
}

/* Where the map that is being made has got to. */
static struct {
	const struct emf_map *map; /* a forked child begins a new one */
	bool writing, populated;
	uint64_t next_at, spent;
	uintptr_t at; /* goes on with the first region that ends above */
	size_t block; /* in that region */
	uint64_t now;
} pass;

/* On a slow node, in place or being sampled? */
static bool is_placed(const struct block *b)
{
	return b->placed ||
	       ((b->state == STANDBY || b->state == WRITING) && frame_meta(b->frame)->placed);
}

static enum emf_cell cell_state(const struct block *b)
{
	if (is_placed(b))
		return EMF_CELL_PLACED;
	switch (b->state) {
	case NONE:
		return b->region->kept ? EMF_CELL_KEPT : EMF_CELL_EMPTY;
	case LOCAL:
		return EMF_CELL_LOCAL;
	case STANDBY:
		return EMF_CELL_STANDBY;
	case FAR:
		return EMF_CELL_FAR;
	case LOST:
		return EMF_CELL_LOST;
	default:
		return EMF_CELL_MOVING;
	}
}

static void add_bytes(struct emf_map_region *m, const struct block *b)
{
	size_t len = block_len(b);

	if (is_placed(b)) {
		m->placed_bytes += len;
		return;
	}
	switch (b->state) {
	case LOCAL:
	case FILLING:
	case TAKING:
		m->local_bytes += len;
		break;
	case STANDBY:
	case WRITING:
		m->standby_bytes += len;
		break;
	case FAR:
	case FETCHING:
		m->far_bytes += len;
		break;
	case LOST:
		m->lost_bytes += len;
		break;
	default:
		break;
	}
}

static unsigned heat(const struct block *b)
{
	uint64_t at = (uint64_t)b->used_at << BLOCK_USED_SHIFT;

	return b->used_at ? emf_heat(pass.now > at ? pass.now - at : 0) : 0;
}

/* Of up to blocks_per_cell blocks: the state of most of them, the heat of the hottest. */
static uint8_t cell_of(struct emf_map_region *m, const struct region *r, size_t from, size_t to)
{
	unsigned votes[EMF_CELL_STATES] = { 0 }, best = 0, hottest = 0;

	for (size_t i = from; i < to; i++) {
		const struct block *b = r->blocks + i;
		unsigned h = heat(b);

		add_bytes(m, b);
		votes[cell_state(b)]++;
		if (h > hottest)
			hottest = h;
	}
	for (unsigned i = 1; i < EMF_CELL_STATES; i++)
		if (votes[i] > votes[best])
			best = i;
	return (uint8_t)(best | hottest << 4);
}

static struct emf_map_region *begin_region(struct emf_map *map, const struct region *r)
{
	size_t cells = (r->nblocks + map->blocks_per_cell - 1) / map->blocks_per_cell;
	struct emf_map_region *m = map->region + map->nregions++;

	*m = (struct emf_map_region){
		.start = r->start,
		.length = r->end - r->start,
		.registered = r->registered,
		.kept = r->kept,
		.first_cell = map->ncells,
		.cells = (uint32_t)(map->ncells + cells <= EMF_MAP_CELLS ? cells : 0),
	};
	if (r->class)
		memcpy(m->class, r->class->name, sizeof(m->class) - 1);
	map->ncells += m->cells;
	return m;
}

static void begin(struct emf_map *map)
{
	size_t blocks = (region_bytes() >> BLOCK_SHIFT) + 2 * region_count();

	atomic_fetch_add(&map->sequence, 1);
	map->nregions = map->ncells = 0;
	map->regions_total = (uint32_t)region_count();
	map->kept_bytes = 0;
	map->block_bytes = BLOCK_SIZE;
	map->blocks_per_cell = 1;
	while (blocks / map->blocks_per_cell + region_count() > EMF_MAP_CELLS &&
	       map->blocks_per_cell < 1u << 20)
		map->blocks_per_cell *= 2;
	pass.writing = true;
	pass.at = pass.block = 0;
	pass.now = k_now_ns();
	pass.spent = 0;
}

static void end(struct emf_map *map)
{
	map->written_at = pass.now;
	atomic_fetch_add(&map->sequence, 1);
	pass.writing = false;
}

/* Goes on until a piece is done. False: that was the last. */
static bool piece(struct emf_map *map)
{
	size_t budget = PIECE;

	while (budget) {
		struct region *r = region_next(pass.at);
		if (!r || map->nregions == EMF_MAP_REGIONS)
			return false;
		/* Cut, moved or grown since the last piece: what it was then is good enough. */
		struct emf_map_region *m = map->region + map->nregions - (map->nregions > 0);
		if (!map->nregions || m->start != r->start) {
			m = begin_region(map, r);
			map->kept_bytes += r->kept ? r->end - r->start : 0;
			pass.block = 0;
		}
		while (budget && pass.block < r->nblocks) {
			size_t to = pass.block + map->blocks_per_cell;
			size_t cell = pass.block / map->blocks_per_cell;
			if (to > r->nblocks)
				to = r->nblocks;
			uint8_t c = cell_of(m, r, pass.block, to);
			if (cell < m->cells)
				map->cell[m->first_cell + cell] = c;
			budget -= budget < to - pass.block ? budget : to - pass.block;
			pass.block = to;
		}
		if (pass.block >= r->nblocks) {
			pass.at = r->end;
			budget -= budget > 0;
		} else {
			pass.at = r->start;
		}
	}
	return true;
}

bool observe_map(void)
{
	struct emf_map *map = stats_map();
	uint64_t begun = k_now_ns();

	if (!map || (!pass.writing && !observe_wanted()))
		return false;
	if (pass.map != map) {
		memset(&pass, 0, sizeof(pass));
		pass.map = map;
	}
	if (!pass.writing) {
		if (begun < pass.next_at)
			return false;
		/* A hole that a full file system can't fill would be a SIGBUS: ask first. */
		if (!pass.populated) {
			pass.next_at = begun + 1000000000ull;
			if (k_madvise(map, sizeof(*map), MADV_POPULATE_WRITE))
				return false;
			pass.populated = true;
		}
		begin(map);
	}
	bool more = piece(map);
	if (!more)
		end(map);
	uint64_t now = k_now_ns();
	pass.spent += now - begun;
	pass.next_at = now + (pass.spent > MAP_NS / MAP_SHARE ? pass.spent * MAP_SHARE : MAP_NS);
	return more;
}
