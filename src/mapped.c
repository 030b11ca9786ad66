/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "mapped.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "change.h"
#include "control.h"
#include "engine.h"
#include "fault.h"
#include "log.h"
#include "policy/policy.h"
#include "region.h"
#include "source.h"

#define CHECK_NS 1000000000ull

/* What an operation is asked to do, in memory that is never managed. */
struct mapping {
	struct source look;
	uintptr_t start;
	size_t len;
	uint64_t off;
	uint32_t who;
	int fd;
	bool shared;
};

static _Atomic bool any;			 /* is, or was, anything managed so? */
static _Atomic uint64_t next_look, next_refresh; /* ns */

static uint64_t round_up(uint64_t n)
{
	return (n + K_PAGE - 1) & ~(uint64_t)(K_PAGE - 1);
}

/* Who maps it shared, and may write, wants to share memory with others. */
static bool may_be_written(int fd, int flags)
{
	return (flags & MAP_TYPE) != MAP_PRIVATE && (fcntl(fd, F_GETFL) & O_ACCMODE) != O_RDONLY;
}

static bool wanted(int flags, int fd, struct source *out)
{
	const char *why;
	int err = source_look(fd, out, &why);

	if (!config_file_named(&engine.config, out->path) &&
	    (err || engine.config.files != EMF_FILES_WEIGHTS || !source_is_weights(fd, out)))
		return false;
	if (!err && may_be_written(fd, flags)) {
		why = "it is shared and may be written to";
		err = -EACCES;
	}
	if (err)
		log_info("the mapping of %s stays the kernel's: %s", out->path, why);
	return !err;
}

struct mapping *mapped_look(size_t len, int prot, int flags, int fd, uint64_t off)
{
	const int never = MAP_ANONYMOUS | MAP_STACK | MAP_GROWSDOWN | MAP_HUGETLB | MAP_LOCKED;

	if (prot != PROT_READ || flags & never || off & (K_PAGE - 1) ||
	    engine.config.files == EMF_FILES_OFF)
		return NULL;
	struct mapping *m = k_map(sizeof(*m));
	if (m && wanted(flags, fd, &m->look) && off < m->look.size) {
		/* Beyond the end of the file it stays the kernel's, who raises SIGBUS there. */
		uint64_t left = round_up(m->look.size - off);
		m->len = left < len ? left : round_up(len);
		m->off = off;
		m->fd = fd;
		m->shared = (flags & MAP_TYPE) != MAP_PRIVATE;
		return m;
	}
	mapped_forget(m);
	return NULL;
}

void mapped_forget(struct mapping *m)
{
	if (m)
		k_unmap(m, sizeof(*m));
}

bool mapped_in(const void *addr, size_t len)
{
	return any && region_near((uintptr_t)addr, len) && engine_has_mapped(addr, len);
}

/* --- there and back --- */

static int make_region(uintptr_t at, const struct region *like)
{
	struct region *r = region_insert(at, at + (like->end - like->start));

	if (!r)
		return -ENOMEM;
	int err = uffd_register(&engine.uffd, (void *)r->start, r->end - r->start, true);
	if (err) {
		region_erase(r);
		return err;
	}
	r->registered = true;
	region_inherit(r, like);
	r->file_at = like->file_at;
	engine_inheritable(r, engine.forking);
	engine_reclass(r);
	for (size_t i = 0; i < r->nblocks; i++)
		block_in_file(r->blocks + i);
	return 0;
}

/* Puts a mapping where the region is, or was. */
static int put_there(uintptr_t at, size_t len, uintptr_t start)
{
	long to = k_mremap((void *)at, len, len, MREMAP_MAYMOVE | MREMAP_FIXED, (void *)start);

	if (to < 0)
		k_munmap((void *)at, len);
	return to < 0 ? (int)to : 0;
}

/* Who reads there meanwhile sees the file first and then the file. */
static int replace(uintptr_t start)
{
	lock_take(&engine.lock);
	struct region *r = region_find(start);
	if (!r || r->registered || !r->source) {
		lock_give(&engine.lock);
		return 0;
	}
	size_t len = r->end - r->start;
	uintptr_t at = (uintptr_t)region_place(start, len, PROT_READ | PROT_WRITE);
	if (!at) {
		lock_give(&engine.lock);
		return -ENOMEM;
	}
	k_madvise((void *)at, len, MADV_HUGEPAGE);
	int err = make_region(at, r);
	lock_give(&engine.lock);
	if (err) {
		k_munmap((void *)at, len);
		return err;
	}
	/* The event moves the region, over what stood there in the map. */
	return put_there(at, len, start);
}

static void leave(uintptr_t start, int err)
{
	lock_take(&engine.lock);
	struct region *r = region_find(start);
	if (r && r->source && !r->registered) {
		log_info("the mapping of %s stays the kernel's: error %d", r->source->path, -err);
		region_erase(r);
		engine_update_gauges();
	}
	lock_give(&engine.lock);
}

static int open_source(uintptr_t start, int fd)
{
	lock_take(&engine.lock);
	struct region *r = region_find(start);
	struct source *s = r ? r->source : NULL, copy;
	if (!s || s->fd >= 0) {
		lock_give(&engine.lock);
		return s ? 0 : -ENOENT;
	}
	source_hold(s);
	copy = *s;
	lock_give(&engine.lock);
	int err = source_open(&copy, fd);
	lock_take(&engine.lock);
	if (!err) {
		s->fd = copy.fd;
		s->direct = copy.direct;
	}
	source_put(s);
	lock_give(&engine.lock);
	return err;
}

static void manage(uintptr_t start, int fd)
{
	int err = open_source(start, fd);

	if (!err)
		err = replace(start);
	if (err)
		leave(start, err);
}

void mapped_start(void)
{
	uintptr_t at = 0;
	struct region *r;

	for (;;) {
		lock_take(&engine.lock);
		for (r = region_next(at); r && (r->registered || !r->source);)
			r = region_next(r->end);
		uintptr_t start = r ? r->start : 0;
		at = r ? r->end : 0;
		lock_give(&engine.lock);
		if (!start)
			return;
		manage(start, -1);
	}
}

static long op_adopt(uintptr_t request, uintptr_t end, unsigned unused)
{
	const struct mapping *m = (const struct mapping *)request;

	(void)end;
	(void)unused;
	engine_before_first();
	lock_take(&engine.lock);
	/* What was there before has gone, and we may not know yet, or never have been told. */
	if (engine_active())
		fault_catch_up();
	change_gone(m->start, m->start + m->len);
	/* By who forks, while it does: no child would know what to fill it from. */
	struct source *s = engine.forking ? NULL : source_get(&m->look);
	struct region *r = s ? region_insert(m->start, m->start + m->len) : NULL;
	if (!r) {
		source_put(s);
		lock_give(&engine.lock);
		return false;
	}
	r->source = s;
	r->file_at = (int64_t)m->off - (int64_t)(r->start - r->base);
	r->shared = m->shared;
	engine_made(r, m->who);
	engine_update_gauges();
	lock_give(&engine.lock);
	if (engine_active())
		manage(m->start, m->fd);
	return true;
}

void mapped_adopt(struct mapping *m, void *addr, const void *caller)
{
	m->start = (uintptr_t)addr;
	m->who = engine_who(caller);
	any = true;
	if (engine_call(op_adopt, m, sizeof(*m), 0) > 0)
		engine_maybe_start();
	mapped_forget(m);
}

static long map_file(size_t len, const struct source *s, bool shared, uint64_t off)
{
	return k_mmap(NULL, len, PROT_READ, shared ? MAP_SHARED : MAP_PRIVATE, s->fd, (off_t)off);
}

static int put_file(uintptr_t start, size_t len, const struct source *s, bool shared, uint64_t off)
{
	long at = map_file(len, s, shared, off);

	return at < 0 ? (int)at : put_there((uintptr_t)at, len, start);
}

static uint64_t offset_of(const struct region *r)
{
	return (uint64_t)(r->file_at + (int64_t)(r->start - r->base));
}

/* The next region of a file in the range, cut to it; NULL: none. The lock may be given up. */
static struct region *next_in(uintptr_t start, uintptr_t end)
{
	struct region *r = region_next(start);

	while (r && r->start < end && !r->source)
		r = region_next(r->end);
	if (!r || r->start >= end)
		return NULL;
	uintptr_t from = r->start > start ? r->start : start, to = r->end < end ? r->end : end;
	if (change_isolate(from, to))
		return NULL;
	r = region_find(from);
	return r && r->source && r->end <= end ? r : NULL;
}

void mapped_give_back_now(uintptr_t start, uintptr_t end)
{
	const uintptr_t held = start;
	struct region *r;

	if (!any)
		return;
	lock_take(&engine.lock);
	engine_hold_still(start, end);
	while ((r = next_in(start, end))) {
		uintptr_t at = r->start;
		size_t len = r->end - at;
		struct source *s = r->source;
		bool shared = r->shared;
		uint64_t off = offset_of(r);

		start = r->end;
		if (!r->registered) {
			region_erase(r);
			continue;
		}
		source_hold(s);
		lock_give(&engine.lock);
		/* The event takes the region out of the map. */
		int err = put_file(at, len, s, shared, off);
		if (err)
			log_warn("the mapping of %s at %p can't be the kernel's again: error %d",
				 s->path, (void *)at, -err);
		lock_take(&engine.lock);
		source_put(s);
	}
	change_release(held, end);
	engine_update_gauges();
	lock_give(&engine.lock);
}

static long op_give_back(uintptr_t start, uintptr_t end, unsigned unused)
{
	(void)unused;
	mapped_give_back_now(start, end);
	return 0;
}

void mapped_give_back(const void *addr, size_t len)
{
	engine_call(op_give_back, addr, len, 0);
}

long mapped_discard(uintptr_t start, uintptr_t end, unsigned unused)
{
	struct region *r;

	(void)unused;
	lock_take(&engine.lock);
	/* What is at the address must stay what it is: no changes by the program meanwhile. */
	engine.discarding = true;
	while (engine.changes)
		engine_wait_settled();
	fault_catch_up();
	while (start < end && (r = region_next(start)) && r->start < end) {
		uintptr_t from = r->start > start ? r->start : start,
			  to = r->end < end ? r->end : end;

		start = to;
		if (!r->source || !r->registered)
			continue;
		lock_give(&engine.lock);
		k_madvise((void *)from, to - from, MADV_DONTNEED);
		lock_take(&engine.lock);
		change_discard_done(from, to);
	}
	engine.discarding = false;
	lock_give(&engine.lock);
	return 0;
}

/* --- fork --- */

void mapped_lend(void)
{
	struct region *r;

	for (size_t i = 0; (r = region_at(i)); i++) {
		if (!r->source || !r->registered || r->no_fork)
			continue;
		long at = map_file(r->end - r->start, r->source, r->shared, offset_of(r));
		if (at < 0) /* then it gets nothing there */
			log_warn("fork: %s cannot be mapped for the child: error %ld",
				 r->source->path, -at);
		else
			r->lent = (uintptr_t)at;
	}
}

void mapped_unlend(void)
{
	struct region *r;

	for (size_t i = 0; (r = region_at(i)); i++)
		if (r->lent) {
			k_munmap((void *)r->lent, r->end - r->start);
			r->lent = 0;
		}
}

void mapped_take_lent(void)
{
	struct region *r;

	for (size_t i = 0; (r = region_at(i)); i++)
		if (r->lent) {
			put_there(r->lent, r->end - r->start, r->start);
			r->lent = 0;
		}
}

/* --- advice, writes, changes of the file --- */

static long op_advise(uintptr_t start, uintptr_t end, unsigned random)
{
	lock_take(&engine.lock);
	for (struct region *r = region_next(start); r && r->start < end; r = region_next(r->end))
		if (r->source && r->start >= start && r->end <= end)
			r->random = random;
	lock_give(&engine.lock);
	return 0;
}

void mapped_advise(const void *addr, size_t len, int advice)
{
	engine_call(op_advise, addr, len, advice == MADV_RANDOM);
}

void mapped_written(uintptr_t addr, size_t len)
{
	engine_read_only(); /* MOVE can't take it then */
	k_syscall(SYS_mprotect, (long)addr, (long)len, PROT_READ, 0, 0, 0);
}

void mapped_shortened(void)
{
	next_look = 0;
	engine_kick_mover();
}

/* Nothing of what was read of it stays, and what there is no more raises SIGBUS. False: it stays.
 */
static bool let_go(struct block *b, const struct source *s)
{
	if (b->state == LOCAL && block_take(&b))
		return false;
	if (b->state == STANDBY)
		block_refetch(b);
	if (b->state == FAR && block_file_offset(b) >= round_up(s->size))
		block_lose(b, -ENODATA);
	return true;
}

/* False: some of it stayed, and is to be let go of again. */
static bool refresh(const struct source *s)
{
	struct region *r;
	uintptr_t at = 0, next, from = 0, to = 0;

	for (; (r = region_next(at)); at = next) {
		next = r->end;
		if (r->source != s || !r->registered)
			continue;
		int64_t cut = (int64_t)r->base - r->file_at + (int64_t)round_up(s->size);
		if (cut > (int64_t)r->start && cut < (int64_t)r->end)
			change_cut((uintptr_t)cut);
		/* Without MOVE the lock is given up, and the map may change. */
		if (at < r->start)
			at = r->start;
		r = region_find(at);
		if (!r)
			continue;
		struct block *b = region_block(r, at);
		next = (uintptr_t)block_start(b) + block_len(b);
		if (let_go(b, s))
			continue;
		from = to ? from : at;
		to = next;
	}
	/* Of others that lie in between all is fetched again, too. */
	return !to || control_post(mapped_discard, from, to, 0);
}

/* By the control thread: whoever serves the file may not answer, and the mover must go on. */
static long op_look(uintptr_t start, uintptr_t end, unsigned unused)
{
	struct source *s, copy;

	(void)start;
	(void)end;
	(void)unused;
	lock_take(&engine.lock);
	for (unsigned i = 0; (s = source_at(i)); i++) {
		source_hold(s);
		copy = *s;
		lock_give(&engine.lock);
		bool changed = source_changed(&copy);
		lock_take(&engine.lock);
		if (changed) {
			log_info("%s has changed while it is mapped: it is read anew", s->path);
			s->size = copy.size;
			s->mtime = copy.mtime;
			s->stale = 2; /* what was being read is let go of by the next look */
			next_refresh = 0;
			engine_kick_mover();
		}
		source_put(s);
	}
	lock_give(&engine.lock);
	return 0;
}

void mapped_check(void)
{
	uint64_t now = k_now_ns();
	struct source *s;

	if (!any || engine.hold)
		return;
	if (now >= next_refresh) {
		next_refresh = now + CHECK_NS;
		for (unsigned i = 0; (s = source_at(i)); i++)
			if (s->stale && refresh(s))
				s->stale--;
	}
	if (now >= next_look && control_post(op_look, 0, 0, 0))
		next_look = now + CHECK_NS;
}
