/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "region.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "arena.h"
#include "kernel.h"
#include "source.h"
#include "trace.h"

/*
 * One byte for each 2 MiB of the 47-bit address space says how many regions
 * (saturating) touch it: what lets the interposed calls ask "is this mine?"
 * without a lock. 64 MiB of address space of which little is ever touched.
 */
#define NEAR_ENTRIES (1ul << (47 - BLOCK_SHIFT))
static _Atomic uint8_t *near_map;

/* Sorted by address: tens to a few thousand entries, changed rarely, searched often. */
static struct region **map;
static size_t count, room;
static size_t bytes;
static size_t cap;

static bool near_init(void)
{
	if (near_map)
		return true;
	near_map = k_reserve(NEAR_ENTRIES, K_PAGE, false);
	return near_map != NULL;
}

static void near_add(uintptr_t start, uintptr_t end, int n)
{
	for (size_t i = start >> BLOCK_SHIFT; i <= (end - 1) >> BLOCK_SHIFT; i++) {
		uint8_t v = near_map[i];
		/* 255 sticks: at worst a false positive for ever. */
		if (v != 255)
			near_map[i] = (uint8_t)(v + n);
	}
}

bool region_near(uintptr_t start, size_t len)
{
	if (!near_map || !len || start >> 47 || len >> 47)
		return false;
	size_t last = (start + len - 1) >> BLOCK_SHIFT;
	for (size_t i = start >> BLOCK_SHIFT; i <= last && i < NEAR_ENTRIES; i++)
		if (near_map[i])
			return true;
	return false;
}

/* Index of the first region that ends above addr. */
static size_t search(uintptr_t addr)
{
	size_t lo = 0, hi = count;

	while (lo < hi) {
		size_t mid = (lo + hi) / 2;
		if (map[mid]->end > addr)
			hi = mid;
		else
			lo = mid + 1;
	}
	return lo;
}

static bool map_grow(void)
{
	size_t n = room ? room * 2 : 64;
	struct region **bigger = arena_alloc(n * sizeof(*map));

	if (!bigger)
		return false;
	if (map) {
		memcpy(bigger, map, count * sizeof(*map));
		arena_free(map, room * sizeof(*map));
	}
	map = bigger;
	room = n;
	return true;
}

/* So many regions at the most, a share of vm.max_map_count. */
static size_t most(void)
{
	char text[32] = "";

	if (cap)
		return cap;
	cap = 65530;
	int fd = open("/proc/sys/vm/max_map_count", O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		ssize_t n = read(fd, text, sizeof(text) - 1);
		size_t v = 0;
		for (ssize_t i = 0; i < n && text[i] >= '0' && text[i] <= '9'; i++)
			v = v * 10 + (size_t)(text[i] - '0');
		if (v)
			cap = v;
		close(fd);
	}
	cap /= 12; /* below a tenth of the mappings a process may have */
	return cap;
}

static size_t blocks_of(uintptr_t base, uintptr_t end)
{
	return ((end - 1 - base) >> BLOCK_SHIFT) + 1;
}

static struct block *make_blocks(struct region *r, size_t n)
{
	struct block *b = arena_alloc(n * sizeof(*b));

	for (size_t i = 0; b && i < n; i++) {
		b[i].region = r;
		b[i].frame = NO_FRAME;
		b[i].slot = NO_SLOT;
	}
	return b;
}

static struct region *make(uintptr_t start, uintptr_t end, uintptr_t base)
{
	struct region *r = arena_alloc(sizeof(*r));

	if (!r)
		return NULL;
	r->start = start;
	r->end = end;
	r->base = base;
	r->nblocks = blocks_of(base, end);
	r->blocks = make_blocks(r, r->nblocks);
	if (!r->blocks) {
		arena_free(r, sizeof(*r));
		return NULL;
	}
	return r;
}

static void destroy(struct region *r)
{
	arena_free(r->blocks, r->nblocks * sizeof(*r->blocks));
	arena_free(r, sizeof(*r));
}

static void put_at(size_t i, struct region *r)
{
	memmove(map + i + 1, map + i, (count - i) * sizeof(*map));
	map[i] = r;
	count++;
}

struct region *region_insert(uintptr_t start, uintptr_t end)
{
	if (!near_init() || count >= most() || (count == room && !map_grow()))
		return NULL;
	struct region *r = make(start, end, start & ~(BLOCK_SIZE - 1));
	if (!r)
		return NULL;
	put_at(search(start), r);
	near_add(start, end, 1);
	bytes += end - start;
	trace_range(TRACE_REGION, start, end);
	return r;
}

void region_erase(struct region *r)
{
	size_t i = search(r->start);

	memmove(map + i, map + i + 1, (count - i - 1) * sizeof(*map));
	count--;
	near_add(r->start, r->end, -1);
	bytes -= r->end - r->start;
	trace_range(TRACE_GONE, r->start, r->end);
	source_put(r->source);
	destroy(r);
}

struct region *region_next(uintptr_t addr)
{
	size_t i = search(addr);

	return i < count ? map[i] : NULL;
}

struct region *region_find(uintptr_t addr)
{
	struct region *r = region_next(addr);

	return r && r->start <= addr ? r : NULL;
}

struct region *region_before(uintptr_t addr)
{
	size_t i = search(addr);

	return i ? map[i - 1] : NULL;
}

struct region *region_at(size_t i)
{
	return i < count ? map[i] : NULL;
}

struct block *region_block(struct region *r, uintptr_t addr)
{
	return r->blocks + ((addr - r->base) >> BLOCK_SHIFT);
}

void region_inherit(struct region *r, const struct region *from)
{
	r->who = from->who;
	r->order = from->order;
	r->name = from->name;
	r->no_fork = from->no_fork;
	r->shared = from->shared;
	r->random = from->random;
	r->source = from->source;
	source_hold(r->source);
}

struct region *region_split(struct region *r, uintptr_t at)
{
	if (count == room && !map_grow())
		return NULL;

	size_t first = (at - r->base) >> BLOCK_SHIFT, nlow = blocks_of(r->base, at);
	struct region *high = make(at, r->end, region_block_start(r, first));
	struct block *low = high ? make_blocks(r, nlow) : NULL;
	if (!low) {
		if (high)
			destroy(high);
		return NULL;
	}
	for (size_t i = 0; i < nlow; i++) {
		low[i] = r->blocks[i];
		block_relocate(low + i, r->blocks + i, r);
	}
	for (size_t i = first; i < r->nblocks; i++) {
		struct block *to = high->blocks + (i - first);
		*to = r->blocks[i];
		if (i >= nlow) {
			block_relocate(to, r->blocks + i, high);
			continue;
		}
		to->region = high;
		to->list = NULL;
		to->prev = to->next = NULL;
	}
	region_inherit(high, r);
	high->class = r->class;
	high->note = r->note;
	high->registered = r->registered;
	high->kept = r->kept;
	high->file_at = r->file_at + (int64_t)(high->base - r->base);
	high->lent = r->lent ? r->lent + (at - r->start) : 0;
	high->grain = r->grain;
	near_add(high->start, high->end, 1);
	near_add(r->start, at, 1);
	near_add(r->start, r->end, -1);
	arena_free(r->blocks, r->nblocks * sizeof(*r->blocks));
	r->blocks = low;
	r->nblocks = nlow;
	r->end = at;
	put_at(search(high->start), high);
	return high;
}

bool region_extend(struct region *r, uintptr_t end)
{
	size_t n = blocks_of(r->base, end);
	struct block *more = make_blocks(r, n);

	if (!more)
		return false;
	for (size_t i = 0; i < r->nblocks; i++) {
		more[i] = r->blocks[i];
		block_relocate(more + i, r->blocks + i, r);
	}
	arena_free(r->blocks, r->nblocks * sizeof(*r->blocks));
	near_add(r->start, end, 1);
	near_add(r->start, r->end, -1);
	bytes += end - r->end;
	r->blocks = more;
	r->nblocks = n;
	r->end = end;
	trace_range(TRACE_REGION, r->start, r->end);
	return true;
}

void region_move(struct region *r, uintptr_t to)
{
	size_t i = search(r->start);
	uintptr_t by = to - r->start;

	memmove(map + i, map + i + 1, (count - i - 1) * sizeof(*map));
	count--;
	near_add(r->start, r->end, -1);
	trace_range(TRACE_GONE, r->start, r->end);
	r->start += by;
	r->end += by;
	r->base += by;
	near_add(r->start, r->end, 1);
	trace_range(TRACE_REGION, r->start, r->end);
	put_at(search(r->start), r);
}

void *region_place(uintptr_t start, size_t len, int prot)
{
	size_t off = start & (BLOCK_SIZE - 1);
	long r = k_mmap(NULL, len + BLOCK_SIZE, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
			-1, 0);

	if (r < 0)
		return NULL;
	uintptr_t got = (uintptr_t)r, to = ((got - off + BLOCK_SIZE - 1) & ~(BLOCK_SIZE - 1)) + off;
	if (to > got)
		k_munmap((void *)got, to - got);
	if (got + BLOCK_SIZE > to)
		k_munmap((void *)(to + len), got + BLOCK_SIZE - to);
	return (void *)to;
}

size_t region_count(void)
{
	return count;
}

size_t region_bytes(void)
{
	return bytes;
}
