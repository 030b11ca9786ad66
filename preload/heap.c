/* SPDX-License-Identifier: Apache-2.0 */
/*
 * engine.heap=all: jemalloc arenas whose memory is managed, for the program's small objects.
 *
 * Who allocates where:
 *  - a program thread is bound to one pair of tiered arenas at its first allocation: one for
 *    what is small, structure as a rule (keys, nodes, headers), and one for the rest. A lookup
 *    walks through much structure and reads one value; in one arena they would lie mixed, and
 *    every step of every lookup be in another block;
 *  - what libc and the dynamic linker allocate for themselves stays in arena 0, which is
 *    local. The runtime's threads use it, too, at any time: thread descriptors and dtv's,
 *    link maps and scopes at lazy binding, locales and message catalogs. The caller's
 *    address tells (strdup and strndup, which are the program's, are therefore interposed);
 *  - the runtime's threads have a local arena to themselves, so that they wait for no lock
 *    that a program thread holds.
 * free and realloc find the arena by the address. An object of arena 0 that the program frees
 * may serve it again through the thread's cache: local then, which is right if not tight.
 *
 * Where jemalloc 5.3 touches an object's memory, and what it holds then. All its bookkeeping
 * (edata, slab bitmaps, rtree, tcache stacks) is apart from the objects, in base memory, which
 * does not come from the hooks here, and in arena 0. Besides the program there are only
 *  - calloc's memset and realloc's memcpy: no lock is held (arena_malloc_small, large_palloc,
 *    arena_ralloc, large_ralloc);
 *  - ehooks_zero, the memset of an extent that is reused and was not purged: under the arena's
 *    grow_mtx if it comes from the retained ones (extent_alloc_retained), under none else.
 * So a thread can wait for a far page with the grow_mtx of a tiered arena. Those who want that
 * mutex are other program threads and a fork (jemalloc_prefork), which may: what brings the page
 * is the fault thread, the mover and the store, and they never use a tiered arena.
 *
 * The hooks run under locks that a fork in another thread waits for (grow_mtx, the decay
 * mutexes), while that fork has the engine's operations paused. So they never wait for it: fresh
 * memory is only written down by the hook and adopted at the end of the call of malloc that
 * caused it, with no lock held; purging is refused while a fork is under way.
 */
#define _GNU_SOURCE
#define JEMALLOC_NO_RENAME
#include <errno.h>
#include <jemalloc/jemalloc.h>
#include <link.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>

#include "engine.h"
#include "kernel.h"
#include "log.h"
#include "preload.h"
#include "region.h"

/* Larger objects are not structure. */
#define SMALL 256

/*
 * One pair of tiered arenas a CPU, up to so many. jemalloc's four a CPU make contention rare
 * without thread caches; with them one will do, and each arena more has partly filled slabs of
 * every size and a growth series of its own: hot objects are spread over more blocks.
 */
#define ARENAS_MAX 8

/* Growth of which the engine does not know yet: one for each arena, more after a refusal. */
#define FRESH_MAX 64

/* jemalloc's arena_config_t, which its public header lacks (arena_types.h of 5.3). */
struct arena_config {
	extent_hooks_t *extent_hooks;
	bool metadata_use_hooks;
};

enum fresh_state { UNUSED, NOTING, READY, ADOPTING };

struct fresh {
	_Atomic uint32_t state;
	void *addr;
	size_t len;
};

struct text {
	uintptr_t start, end;
};

bool heap_all;
_Atomic unsigned heap_fresh;

static struct fresh fresh[FRESH_MAX];
static struct text libc_text, ld_text;
static unsigned ntiered = 1;
static _Atomic unsigned next_tiered;
/* Indexes, made when first needed; 0, jemalloc's own first arena: not yet. */
static _Atomic unsigned small_arena[ARENAS_MAX], bulk_arena[ARENAS_MAX], runtime_arena;
static __thread bool bound __attribute__((tls_model("initial-exec")));
static __thread int bulk_flags __attribute__((tls_model("initial-exec")));

/* --- the hooks --- */

static size_t blocks(size_t len)
{
	return (len + BLOCK_SIZE - 1) & ~(BLOCK_SIZE - 1);
}

static void note_fresh(void *p, size_t len)
{
	for (unsigned i = 0; i < FRESH_MAX; i++) {
		uint32_t none = UNUSED;
		if (!atomic_compare_exchange_strong(&fresh[i].state, &none, NOTING))
			continue;
		fresh[i].addr = p;
		fresh[i].len = len;
		atomic_store(&fresh[i].state, READY);
		atomic_fetch_add(&heap_fresh, 1);
		return;
	}
	log_debug("%zu bytes of the heap stay unmanaged: too much growth at once", len);
}

/*
 * jemalloc asks for a series that doubles every four steps (opt.retain): tens of regions for
 * any heap. Regions are whole blocks; what exceeds the request is address space that nobody uses.
 */
static void *hook_alloc(extent_hooks_t *h, void *new_addr, size_t size, size_t align, bool *zero,
			bool *commit, unsigned arena)
{
	(void)h;
	(void)arena;
	if (new_addr || size > PTRDIFF_MAX)
		return NULL;
	void *p = map_aligned(blocks(size), align);
	if (!p)
		return NULL;
	*zero = *commit = true;
	/* What mlockall locks as it comes stays. */
	if (!lock_future)
		note_fresh(p, blocks(size));
	return p;
}

/*
 * True: the pages still hold what they held. Once blocks are moved only whole ones are given
 * back: part of one frees nothing, splits its huge page, and has to be fetched when it is far.
 */
static bool hook_purge(extent_hooks_t *h, void *addr, size_t size, size_t offset, size_t len,
		       unsigned arena)
{
	uintptr_t start = (uintptr_t)addr + offset, end = start + len;
	uintptr_t from = start, to = end;

	(void)h;
	(void)size;
	(void)arena;
	if (engine_active()) {
		from = blocks(start);
		to = end & ~(BLOCK_SIZE - 1);
	}
	if (from >= to)
		return true;
	int err = engine_try_discard((void *)from, to - from);
	return err || from != start || to != end;
}

static bool hook_split(extent_hooks_t *h, void *addr, size_t size, size_t a, size_t b,
		       bool committed, unsigned arena)
{
	(void)h, (void)addr, (void)size, (void)a, (void)b, (void)committed, (void)arena;
	return false;
}

static bool hook_merge(extent_hooks_t *h, void *a, size_t a_size, void *b, size_t b_size,
		       bool committed, unsigned arena)
{
	(void)h, (void)a, (void)a_size, (void)b, (void)b_size, (void)committed, (void)arena;
	return false;
}

/* Without dalloc jemalloc purges and keeps what is freed: the address space is used again. */
static extent_hooks_t hooks = {
	.alloc = hook_alloc,
	.purge_forced = hook_purge,
	.split = hook_split,
	.merge = hook_merge,
};

/* --- arenas --- */

/* Makes *arena if it is not there; of two threads that do, one's stays unused. 0: cannot. */
static unsigned make_arena(_Atomic unsigned *arena, const char *how, void *config, size_t len)
{
	unsigned i = atomic_load(arena), none = 0;
	size_t n = sizeof(i);

	if (i)
		return i;
	if (je_mallctl(how, &i, &n, config, len))
		return 0;
	return atomic_compare_exchange_strong(arena, &none, i) ? i : none;
}

static unsigned make_tiered(_Atomic unsigned *arena)
{
	struct arena_config config = { .extent_hooks = &hooks };

	return make_arena(arena, "experimental.arenas_create_ext", &config, sizeof(config));
}

static void bind_thread(void)
{
	int saved = errno;

	bound = true;
	unsigned n = atomic_fetch_add(&next_tiered, 1) % ntiered;
	unsigned small = make_tiered(small_arena + n), bulk = make_tiered(bulk_arena + n);
	if (!small || !bulk || je_mallctl("thread.arena", NULL, NULL, &small, sizeof(small)))
		log_debug("a thread's small objects stay local: no arena");
	else
		bulk_flags = (int)MALLOCX_ARENA(bulk);
	errno = saved;
}

static bool within(const struct text *t, const void *p)
{
	return (uintptr_t)p >= t->start && (uintptr_t)p < t->end;
}

int heap_flags(size_t size, const void *caller)
{
	if (engine_thread)
		return (int)MALLOCX_ARENA(make_arena(&runtime_arena, "arenas.create", NULL, 0)) |
		       MALLOCX_TCACHE_NONE;
	if (within(&libc_text, caller) || within(&ld_text, caller) || lock_future)
		return (int)MALLOCX_ARENA(0) | MALLOCX_TCACHE_NONE;
	if (!bound)
		bind_thread();
	/* With the thread's cache: all objects of a size in it are of one kind. */
	return size > SMALL ? bulk_flags : 0;
}

/* --- what grew becomes managed --- */

void heap_settle(void)
{
	int saved = errno;

	for (unsigned i = 0; i < FRESH_MAX && atomic_load(&heap_fresh); i++) {
		struct fresh *f = fresh + i;
		uint32_t ready = READY;
		if (!atomic_compare_exchange_strong(&f->state, &ready, ADOPTING))
			continue;
		int err =
		    engine_wants(SIZE_MAX) ? engine_try_adopt(f->addr, f->len, NULL) : -ENOMEM;
		if (err == -EAGAIN) {
			/* A fork is under way: later. */
			atomic_store(&f->state, READY);
			break;
		}
		atomic_fetch_sub(&heap_fresh, 1);
		atomic_store(&f->state, UNUSED);
	}
	errno = saved;
}

void heap_fork_child(void)
{
	/* None is NOTING: jemalloc's fork handler has waited for the hook. */
	for (unsigned i = 0; i < FRESH_MAX; i++) {
		struct fresh *f = fresh + i;
		if (f->state != ADOPTING)
			continue;
		/* Its thread is gone; did the operation come before the fork? */
		f->state = region_near((uintptr_t)f->addr, f->len) ? UNUSED : READY;
	}
	heap_fresh = 0;
	for (unsigned i = 0; i < FRESH_MAX; i++)
		heap_fresh += fresh[i].state == READY;
}

/* --- start --- */

static int find_text(struct dl_phdr_info *info, size_t size, void *unused)
{
	const char *slash = strrchr(info->dlpi_name, '/');
	const char *name = slash ? slash + 1 : info->dlpi_name;
	struct text *t = !strcmp(name, "libc.so.6")	 ? &libc_text
			 : !strncmp(name, "ld-linux", 8) ? &ld_text
							 : NULL;

	(void)size;
	(void)unused;
	for (unsigned i = 0; t && i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *p = info->dlpi_phdr + i;
		if (p->p_type != PT_LOAD || !(p->p_flags & PF_X))
			continue;
		t->start = info->dlpi_addr + p->p_vaddr;
		t->end = t->start + p->p_memsz;
	}
	return 0;
}

bool heap_start(void)
{
	bool off = false;
	cpu_set_t cpus;

	/* MALLOC_CONF may have asked for them; they would call the hooks, of a process that forks.
	 */
	je_mallctl("background_thread", NULL, NULL, &off, sizeof(off));
	dl_iterate_phdr(find_text, NULL);
	if (!libc_text.start || !ld_text.start)
		return false;
	if (!sched_getaffinity(0, sizeof(cpus), &cpus))
		ntiered = (unsigned)CPU_COUNT(&cpus);
	if (ntiered > ARENAS_MAX)
		ntiered = ARENAS_MAX;
	heap_all = true;
	return true;
}
