/* SPDX-License-Identifier: Apache-2.0 */
/* The simulation's program: what its threads do, at random. */
#define _GNU_SOURCE
#include <errno.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "budget.h"
#include "engine.h"
#include "fork.h"
#include "preload.h"
#include "sim.h"

#define MAPPINGS 48
#define FD 100 /* of its calls */

size_t managed_min = 4096;

struct mapping {
	uintptr_t start;
	size_t pages; /* 0: none */
	bool busy;    /* its shape is being changed */
	bool leaves;  /* its pages are being moved away from it */
};

static struct mapping mappings[MAPPINGS];
static uint64_t last_value;
static unsigned running;

static struct mapping *pick(bool busy_too)
{
	for (int i = 0; i < 20; i++) {
		struct mapping *m = mappings + rnd_below(MAPPINGS);
		if (m->pages && (busy_too || !m->busy))
			return m;
	}
	return NULL;
}

bool program_leaves(uintptr_t addr)
{
	for (const struct mapping *m = mappings; m < mappings + MAPPINGS; m++)
		if (m->leaves && addr >= m->start && addr < m->start + m->pages * K_PAGE)
			return true;
	return false;
}

static bool add_mapping(uintptr_t start, size_t n)
{
	for (struct mapping *m = mappings; n && m < mappings + MAPPINGS; m++)
		if (!m->pages) {
			*m = (struct mapping){ .start = start, .pages = n };
			return true;
		}
	return !n;
}

static size_t mapped_pages(void)
{
	size_t n = 0;

	for (struct mapping *m = mappings; m < mappings + MAPPINGS; m++)
		n += m->pages;
	return n;
}

/* A part of it: all, a whole number of blocks, or any pages. */
static void pick_part(const struct mapping *m, uintptr_t *start, size_t *n)
{
	size_t first = 0, end = m->pages;

	if (!chance(3)) {
		first = rnd_below(m->pages);
		end = first + 1 + rnd_below(m->pages - first);
	}
	*start = m->start + first * K_PAGE;
	*n = end - first;
	if (!chance(4))
		return;
	uintptr_t s = (*start + BLOCK_SIZE - 1) & ~(BLOCK_SIZE - 1),
		  e = (m->start + end * K_PAGE) & ~(BLOCK_SIZE - 1);
	if (s < e) {
		*start = s;
		*n = (e - s) / K_PAGE;
	}
}

/* The part leaves the mapping, which may become two. */
static void cut_mapping(struct mapping *m, uintptr_t start, size_t n)
{
	uintptr_t end = m->start + m->pages * K_PAGE, cut = start + n * K_PAGE;

	m->pages = (start - m->start) / K_PAGE;
	if (end <= cut)
		return;
	if (!m->pages) {
		m->start = cut;
		m->pages = (end - cut) / K_PAGE;
	} else if (!add_mapping(cut, (end - cut) / K_PAGE)) {
		sim_munmap((void *)cut, end - cut);
	}
}

static void op_map(void)
{
	size_t n = 1 + rnd_below(chance(2) ? 2 * BLOCK_PAGES : 8 * BLOCK_PAGES);

	if (mapped_pages() + n > plan.total_blocks * BLOCK_PAGES)
		return;
	uintptr_t p = (uintptr_t)sim_mmap(NULL, n * K_PAGE, PROT_READ | PROT_WRITE,
					  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p != (uintptr_t)MAP_FAILED && !add_mapping(p, n))
		sim_munmap((void *)p, n * K_PAGE);
}

static void op_access(void)
{
	struct mapping *m = pick(true);
	uint64_t value;

	if (!m)
		return;
	uintptr_t at, start = m->start;
	size_t n, size = m->pages;
	pick_part(m, &at, &n);
	unsigned writes = (unsigned)rnd_below(4); /* 0: reads only */
	bool random = rnd() & 1;
	if (random && n > 32)
		n = 32;
	for (size_t i = 0; i < n; i++) {
		uintptr_t page = random ? start + rnd_below(size) * K_PAGE : at + i * K_PAGE;
		bool write = chance(writes);
		value = ++last_value;
		co_self->since = sim_now;
		co_self->may_leave = true;
		touch(page, write ? &value : NULL);
		co_self->may_leave = false;
		if (chance(8))
			co_point();
	}
}

/* The kernel's part of read(2) and write(2). */
static long transfer(const long *arg, bool write)
{
	uintptr_t start = (uintptr_t)arg[1], end = start + (size_t)arg[2];

	for (uintptr_t at = start; at < end; at += K_PAGE) {
		uint64_t value = ++last_value;
		if (kernel_touch(at, write, write ? &value : NULL))
			return at > start ? (long)(at - start) : -EFAULT;
		/* What it waits for, and others. */
		if (chance(40))
			co_sleep(rnd_below(20 * SIM_MS));
		else if (chance(4))
			co_point();
	}
	return arg[2];
}

static long do_read(const long *arg)
{
	return transfer(arg, true);
}

static long do_write(const long *arg)
{
	return transfer(arg, false);
}

static void op_call(void)
{
	struct mapping *m = pick(true);
	uintptr_t start;
	size_t n;

	if (!m)
		return;
	pick_part(m, &start, &n);
	/* As much as in real blocks, it would be all there is of local memory. */
	if (n > 2 * BLOCK_PAGES)
		n = 2 * BLOCK_PAGES;
	bool reads = rnd() & 1;
	const long arg[6] = { FD, (long)start, (long)(n * K_PAGE) };
	long r = program_call(reads ? SYS_read : SYS_write, arg, reads ? do_read : do_write);
	trace("%s of %zu pages at %#lx: %ld", reads ? "read" : "write", n, start, r);
}

static void op_populate(void)
{
	struct mapping *m = pick(false);
	uintptr_t start;
	size_t n;

	if (!m)
		return;
	pick_part(m, &start, &n);
	if (n > BLOCK_PAGES)
		n = BLOCK_PAGES;
	m->busy = true;
	int r = sim_madvise((void *)start, n * K_PAGE,
			    rnd() & 1 ? MADV_POPULATE_READ : MADV_POPULATE_WRITE);
	m->busy = false;
	if (r && errno == EFAULT && !store_failures)
		sim_fail("%#lx is not populated", start);
}

/* Before that nobody tells the engine of a bare system call. */
static bool is_active(void)
{
	return engine.phase == PHASE_ACTIVE;
}

static void op_unmap(void)
{
	struct mapping *m = pick(false);
	uintptr_t start;
	size_t n;

	if (!m)
		return;
	pick_part(m, &start, &n);
	m->busy = true;
	if (plan.raw && is_active() && chance(3))
		k_munmap((void *)start, n * K_PAGE);
	else
		sim_munmap((void *)start, n * K_PAGE);
	m->busy = false;
	cut_mapping(m, start, n);
}

static void op_discard(void)
{
	struct mapping *m = pick(false);
	uintptr_t start;
	size_t n;
	int r;

	if (!m)
		return;
	pick_part(m, &start, &n);
	m->busy = true;
	for (size_t i = 0; i < n; i++) {
		page_at(start)[i].model.discards++;
		page_at(start)[i].model.written = false;
	}
	if (plan.raw && is_active() && chance(3))
		r = k_madvise((void *)start, n * K_PAGE, MADV_DONTNEED);
	else
		r = sim_madvise((void *)start, n * K_PAGE, MADV_DONTNEED);
	trace("discard of %#lx-%#lx is done: %d", start, start + n * K_PAGE, r);
	for (size_t i = 0; i < n; i++) {
		struct model *p = &page_at(start)[i].model;
		p->discards--;
		p->lost = false;
		p->or_zero |= r || p->written;
		if (r || p->written)
			continue;
		p->value = 0;
		p->or_zero = p->twice = false;
	}
	m->busy = false;
}

static long do_remap(const long *a)
{
	return k_mremap((void *)a[0], (size_t)a[1], (size_t)a[2], (int)a[3], (void *)a[4]);
}

static void op_grow(void)
{
	struct mapping *m = pick(false);

	if (!m)
		return;
	size_t old = m->pages, n = 1 + rnd_below(old + (chance(2) ? BLOCK_PAGES : old));
	if (n > old && mapped_pages() + n - old > plan.total_blocks * BLOCK_PAGES)
		return;
	m->busy = true;
	uintptr_t r;
	if (plan.raw && is_active() && chance(3)) {
		const long arg[6] = { (long)m->start, (long)(old * K_PAGE), (long)(n * K_PAGE),
				      MREMAP_MAYMOVE };
		long k = program_call(SYS_mremap, arg, do_remap);
		r = k < 0 ? (uintptr_t)MAP_FAILED : (uintptr_t)k;
	} else {
		r = (uintptr_t)sim_mremap((void *)m->start, old * K_PAGE, n * K_PAGE,
					  MREMAP_MAYMOVE);
	}
	if (r != (uintptr_t)MAP_FAILED) {
		m->start = r;
		m->pages = n;
	}
	m->busy = false;
}

/* A part goes to a place that was reserved, or over another mapping. */
static void op_move(void)
{
	struct mapping *m = pick(false), *over = NULL;
	uintptr_t start, to;
	size_t n;

	if (!m)
		return;
	pick_part(m, &start, &n);
	m->busy = true;
	if (rnd() & 1) {
		over = pick(false);
		if (!over || over->pages < n) {
			m->busy = false;
			return;
		}
		over->busy = true;
		to = over->start + rnd_below(over->pages - n + 1) * K_PAGE;
	} else {
		to = (uintptr_t)sim_mmap(NULL, n * K_PAGE, PROT_NONE,
					 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	}
	uintptr_t r = (uintptr_t)MAP_FAILED;
	if (to != (uintptr_t)MAP_FAILED)
		r = (uintptr_t)sim_mremap((void *)start, n * K_PAGE, n * K_PAGE,
					  MREMAP_MAYMOVE | MREMAP_FIXED, to);
	m->busy = false;
	if (over)
		over->busy = false;
	if (r == (uintptr_t)MAP_FAILED) {
		if (!over && to != (uintptr_t)MAP_FAILED)
			sim_munmap((void *)to, n * K_PAGE);
		return;
	}
	cut_mapping(m, start, n);
	if (!over && !add_mapping(to, n))
		sim_munmap((void *)to, n * K_PAGE);
}

/* The pages go, the mapping stays. */
static void op_leave(void)
{
	struct mapping *m = pick(false);
	uintptr_t start;
	size_t n;

	if (!m)
		return;
	pick_part(m, &start, &n);
	if (mapped_pages() + n > plan.total_blocks * BLOCK_PAGES)
		return;
	m->busy = m->leaves = true;
	uintptr_t r;
	if (plan.raw && plan.signal && is_active() && chance(3)) {
		const long arg[6] = { (long)start, (long)(n * K_PAGE), (long)(n * K_PAGE),
				      MREMAP_MAYMOVE | MREMAP_DONTUNMAP };
		long k = program_call(SYS_mremap, arg, do_remap);
		r = k < 0 ? (uintptr_t)MAP_FAILED : (uintptr_t)k;
	} else {
		r = (uintptr_t)sim_mremap((void *)start, n * K_PAGE, n * K_PAGE,
					  MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL);
	}
	m->busy = m->leaves = false;
	if (r != (uintptr_t)MAP_FAILED && !add_mapping(r, n))
		sim_munmap((void *)r, n * K_PAGE);
}

static void op_lock(void)
{
	struct mapping *m = pick(false);
	uintptr_t start;
	size_t n;

	if (!m)
		return;
	pick_part(m, &start, &n);
	if (n > 2 * BLOCK_PAGES)
		return;
	m->busy = true;
	switch (rnd_below(5)) {
	case 0:
		sim_mlock((void *)start, n * K_PAGE);
		for (size_t i = 0; is_active() && i < n; i++)
			if ((page_at(start)[i].flags & (P_SLOW | P_REFUSED)) == P_SLOW)
				sim_fail("%#lx is locked on the slow node", start + i * K_PAGE);
		co_sleep(rnd_below(50 * SIM_MS));
		sim_munlock((void *)start, n * K_PAGE);
		break;
	case 1:
		sim_madvise((void *)start, n * K_PAGE, MADV_DONTDUMP);
		co_sleep(rnd_below(50 * SIM_MS));
		sim_madvise((void *)start, n * K_PAGE, MADV_DODUMP);
		break;
	case 2:
		sim_madvise((void *)start, n * K_PAGE, MADV_DONTFORK);
		sim_madvise((void *)start, n * K_PAGE, MADV_DOFORK);
		break;
	case 3: /* that was not locked */
		sim_munlock((void *)start, n * K_PAGE);
		break;
	default:
		sim_mprotect((void *)start, n * K_PAGE, PROT_READ);
		co_sleep(rnd_below(20 * SIM_MS));
		sim_mprotect((void *)start, n * K_PAGE, PROT_READ | PROT_WRITE);
		break;
	}
	m->busy = false;
}

static long pin_page(const long *arg)
{
	uintptr_t at = (uintptr_t)arg[2];
	int err = kernel_touch(at, true, NULL);

	if (!err)
		page_at(at)->flags |= P_PINNED;
	return err;
}

/* A device pins some pages; or a child is forked, which the engine is told of only so far. */
static void op_hold_pages(void)
{
	struct mapping *m = pick(true);
	uintptr_t start;
	size_t n;

	if (!m)
		return;
	if (plan.share && chance(4)) {
		engine.forked = true;
		for (uintptr_t at = SIM_BASE; at < SIM_END; at += K_PAGE)
			if (page_at(at)->flags & P_PRESENT)
				page_at(at)->flags |= P_SHARED;
		return;
	}
	pick_part(m, &start, &n);
	/* All of a few pages, or one of each block, for long. */
	size_t step = chance(3) ? BLOCK_PAGES : 1;
	if (step == 1 && n > 8)
		n = 8;
	for (size_t i = 0; i < n; i += step) {
		co_self->since = sim_now;
		const long arg[6] = { FD, 0, (long)(start + i * K_PAGE) };
		program_call(SYS_ioctl, arg, pin_page);
	}
	co_self->since = 0;
	co_sleep(rnd_below(step == 1 ? 500 * SIM_MS : 10 * SIM_S));
	for (size_t i = 0; i < n; i += step)
		page_at(start)[i].flags &= ~(uint32_t)P_PINNED;
}

/* As the watch thread does it. */
static void op_budget(void)
{
	lock_take(&engine.lock);
	while (engine.forking)
		engine_wait_settled();
	budget_set((4 + rnd_below(2 * plan.budget_blocks)) * BLOCK_SIZE);
	lock_give(&engine.lock);
}

static bool have_got_on(struct co *self, void *arg)
{
	const uintptr_t *parked = arg;

	(void)self;
	for (struct co *c = co_all; c < co_all + CO_MAX; c++)
		if (c->used && c->fault.parked && c->fault.addr == parked[c - co_all])
			return false;
	return true;
}

/* Who waits for a page may have what is needed to go on with the fork: a lock of libc's, for one.
 */
static void await_others(void)
{
	uintptr_t parked[CO_MAX] = { 0 };

	for (struct co *c = co_all; c < co_all + CO_MAX; c++)
		if (c->used && c->fault.parked)
			parked[c - co_all] = c->fault.addr;
	co_self->since = sim_now;
	co_self->doing = "others that wait while it forks";
	co_block(have_got_on, parked, 0);
	co_self->since = 0;
	co_self->doing = NULL;
}

/* Of the child there is only that it shares pages and slots for a while. */
static void op_fork(void)
{
	fork_prepare(true);
	bool active = is_active();
	if (active && chance(2))
		await_others();
	for (size_t n = rnd_below(20); active && n; n--) {
		struct mapping *m = pick(true);
		uint64_t value = ++last_value;
		if (m)
			touch(m->start + rnd_below(m->pages) * K_PAGE, rnd() & 1 ? &value : NULL);
	}
	co_sleep(rnd_below(2 * SIM_MS));
	for (uintptr_t at = SIM_BASE; at < SIM_END; at += K_PAGE)
		if (page_at(at)->flags & P_PRESENT)
			page_at(at)->flags |= P_SHARED | (active ? P_FORKED : 0);
	trace("forked");
	fork_parent();
}

static const struct {
	const char *name;
	void (*fn)(void);
	unsigned weight;
	bool *when;
} ops[] = {
	{ "access", op_access, 60, NULL },	   { "mmap", op_map, 8, NULL },
	{ "munmap", op_unmap, 4, NULL },	   { "discard", op_discard, 5, NULL },
	{ "grow", op_grow, 3, &plan.remaps },	   { "move", op_move, 3, &plan.remaps },
	{ "leave", op_leave, 1, &plan.remaps },	   { "lock", op_lock, 3, &plan.locks },
	{ "hold", op_hold_pages, 2, &plan.share }, { "fork", op_fork, 2, &plan.fork },
	{ "budget", op_budget, 3, &plan.resize },  { "call", op_call, 8, NULL },
	{ "populate", op_populate, 2, NULL },
};

static long nothing(const long *arg)
{
	(void)arg;
	return 0;
}

static void *program(void *left)
{
	const unsigned n = sizeof(ops) / sizeof(ops[0]);
	const long none[6] = { 0 };
	unsigned all = 0;

	signal_thread();
	for (unsigned i = 0; i < n; i++)
		all += ops[i].weight;
	for (uintptr_t i = (uintptr_t)left; i; i--) {
		size_t k, r = rnd_below(all);
		for (k = 0; k < n - 1 && r >= ops[k].weight; k++)
			r -= ops[k].weight;
		if (ops[k].when && !*ops[k].when)
			k = 0;
		co_self->doing = ops[k].name;
		co_self->since = sim_now;
		ops[k].fn();
		co_self->since = 0;
		if (chance(10))
			co_sleep(rnd_below(chance(5) ? 500 * SIM_MS : 5 * SIM_MS));
		/* The thread ends, and another one goes on. */
		if (chance(100)) {
			running++;
			co_start(co_self->name, program, (void *)(i - 1));
			break;
		}
	}
	co_self->doing = "ended";
	program_call(SYS_exit, none, nothing);
	running--;
	return NULL;
}

/* Then everything is read once more, and given up. */
void program_run(void)
{
	for (unsigned i = 0; i < plan.threads; i++) {
		static const char *const name[] = {
			"p0", "p1", "p2", "p3", "p4", "p5", "p6", "p7"
		};
		running++;
		co_start(name[i], program, (void *)(uintptr_t)plan.ops);
	}
	while (running)
		co_sleep(SIM_MS);
	co_self->doing = "the last look";
	for (struct mapping *m = mappings; m < mappings + MAPPINGS; m++)
		for (size_t i = 0; i < m->pages; i++) {
			co_self->since = sim_now;
			if (touch(m->start + i * K_PAGE, NULL) == TOUCH_SEGV)
				sim_fail("%#lx is mapped no more", m->start + i * K_PAGE);
		}
	for (struct mapping *m = mappings; m < mappings + MAPPINGS; m++) {
		co_self->since = sim_now;
		if (m->pages)
			sim_munmap((void *)m->start, m->pages * K_PAGE);
	}
}
