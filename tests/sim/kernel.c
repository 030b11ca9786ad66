/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kernel.h without a kernel. What it imitates is described there, and in Linux
 * fs/userfaultfd.c (queues of faults and events, mmap_changing), mm/userfaultfd.c (moves and
 * copies), mm/mremap.c and mm/madvise.c (order of events).
 */
#define _GNU_SOURCE
#include "kernel.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "away.h"
#include "block.h"
#include "engine.h"
#include "sim.h"

#define EVENT_FDS 8
#define NO_FD 6000 /* of what is only passed on */
#define FIRST_LIFE 7000
#define EVENTS 32
#define MAX_BATCH (BLOCK_PAGES * 64)

struct event {
	struct uffd_message m;
	bool queued, read, own;
};

static struct page pages[SIM_PAGES];
static struct event *queue[EVENTS];
static size_t nqueue;
static int changing; /* mmap_changing */
static bool opened;
static uint64_t eventfd_count[EVENT_FDS], park_order;
static uint64_t changed_at[SIM_PAGES]; /* by the program's own doing */
static int pagemap = -1;
unsigned kernel_given;
static uintptr_t last_gone; /* the last place that was unmapped */
static uintptr_t frames, frames_end;
static bool *slow;			   /* of each page of the frames: on the slow node */
static uintptr_t preferred, preferred_end; /* what comes to be there is */

/* --- the real kernel --- */

static long raw(long n, long a, long b, long c, long d, long e, long f)
{
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	register long r9 __asm__("r9") = f;

	__asm__ volatile("syscall"
			 : "+a"(n)
			 : "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return n;
}

static void *real_map(size_t len, int flags)
{
	long r = raw(SYS_mmap, 0, (long)len, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);

	return r < 0 && r > -4096 ? NULL : (void *)r;
}

static void real_madvise(uintptr_t addr, size_t len, int advice)
{
	if (raw(SYS_madvise, (long)addr, (long)len, advice, 0, 0, 0))
		sim_fail("madvise of a frame failed");
}

long k_syscall(long n, long a, long b, long c, long d, long e, long f)
{
	const long arg[6] = { a, b, c, d, e, f };
	long r;

	return signal_syscall(n, arg, &r) ? r : raw(n, a, b, c, d, e, f);
}

void *k_map(size_t len)
{
	if (opened && chance(plan.no_memory))
		return NULL;
	return real_map(len, 0);
}

void *k_map_aligned(size_t len, size_t align, int flags)
{
	char *p = real_map(len + align, flags);

	return p ? (void *)(((uintptr_t)p + align - 1) & ~(align - 1)) : NULL;
}

void *k_reserve(size_t len, size_t align, bool huge)
{
	uintptr_t p = (uintptr_t)k_map_aligned(len, align, MAP_NORESERVE);

	real_madvise(p, len, MADV_NOHUGEPAGE);
	if (huge) {
		frames = p;
		frames_end = p + len;
		slow = real_map(len / K_PAGE, 0);
	}
	return (void *)p;
}

void k_unmap(void *p, size_t len)
{
	raw(SYS_munmap, (long)p, (long)len, 0, 0, 0, 0);
}

static bool is_frame(uintptr_t addr)
{
	return addr >= frames && addr < frames_end;
}

/* --- the program's page table --- */

struct page *page_at(uintptr_t addr)
{
	if (!is_program(addr))
		sim_fail("%#lx is no address of the program", addr);
	return pages + (addr - SIM_BASE) / K_PAGE;
}

static bool mapped(uintptr_t addr)
{
	return is_program(addr) && page_at(addr)->flags & P_MAPPED;
}

/* One mapping (VMA)? */
static bool same_mapping(const struct page *a, const struct page *b)
{
	const uint32_t which = P_MAPPED | P_REGISTERED | P_LOCKED | P_READONLY | P_NONE;

	return (a->flags & which) == (b->flags & which) && a->shift == b->shift;
}

static uintptr_t mapping_end(uintptr_t addr, uintptr_t limit)
{
	const struct page *first = page_at(addr);

	while (addr < limit && same_mapping(first, page_at(addr)))
		addr += K_PAGE;
	return addr;
}

static bool is_zapped(uint32_t flags)
{
	return !(flags & (P_PRESENT | P_POISON));
}

/* By the program. */
static void changes(uintptr_t start, uintptr_t end)
{
	for (; start < end; start += K_PAGE)
		changed_at[(start - SIM_BASE) / K_PAGE] = sim_now;
}

/* The page itself goes; the mapping stays. */
static void zap(struct page *p)
{
	p->flags &= ~(uint32_t)(P_PRESENT | P_POISON | P_PROTECTED | P_SHARED | P_FORKED |
				P_PINNED | P_SLOW | P_REFUSED);
	p->value = 0;
}

/* --- who waits --- */

static bool is_woken(struct co *c, void *arg)
{
	(void)arg;
	return c->fault.woken;
}

static void park(uintptr_t addr, bool write, bool protect)
{
	struct fault *f = &co_self->fault;
	const char *doing = co_self->doing;

	*f = (struct fault){ .parked = true,
			     .write = write,
			     .protect = protect,
			     .addr = addr,
			     .order = ++park_order };
	trace("faults at %#lx%s%s", addr, write ? ", write" : "", protect ? ", protected" : "");
	if (!co_self->since)
		co_self->since = sim_now;
	bool mine = !doing;
	if (mine)
		co_self->doing = "a page";
	/* A signal ends the wait, too. */
	co_block(is_woken, NULL, chance(plan.spurious) ? sim_now + rnd_below(20 * SIM_MS) + 1 : 0);
	if (mine) {
		co_self->doing = NULL;
		co_self->since = 0;
	}
	f->parked = false;
}

static bool check(const struct page *p, uintptr_t addr)
{
	const struct model *m = &p->model;

	if (m->lost && !m->discards)
		sim_fail("%#lx was lost, and now holds %#lx", addr, (unsigned long)p->value);
	if (p->value != m->value && !m->twice && !((m->or_zero || m->discards) && !p->value))
		sim_fail("%#lx holds %#lx, not %#lx", addr, (unsigned long)p->value,
			 (unsigned long)m->value);
	return true;
}

static void seen(struct page *p)
{
	if (!p->model.discards) {
		p->model.value = p->value;
		p->model.or_zero = p->model.twice = false;
	}
}

/* Not there, or protected. False: it is none of the runtime's doing. */
static bool fault(uintptr_t addr, bool write, bool present)
{
	uint64_t since = sim_now;

	if (!plan.signal) {
		park(addr, write, present);
		return true;
	}
	if (!signal_fault(addr, write, present, false))
		return true;
	/* Passed on: it is lost, if not poisoned yet. */
	if (!signal_is_lost(addr) && !(page_at(addr)->flags & P_POISON) &&
	    changed_at[(addr - SIM_BASE) / K_PAGE] < since)
		sim_fail("SIGBUS at %#lx, which is not lost", addr);
	return false;
}

static bool poisoned(struct page *p, uintptr_t addr, bool write, bool by_kernel)
{
	if (chance(plan.lost_poison)) {
		p->flags &= ~(uint32_t)P_POISON;
		return false;
	}
	if (!store_failures)
		sim_fail("SIGBUS at %#lx, but no transfer failed", addr);
	if (plan.signal && !by_kernel && !signal_fault(addr, write, false, true))
		return false;
	return true;
}

static enum touch is_lost(struct page *p, uintptr_t addr)
{
	/* Unless it was discarded while the signal was on its way. */
	if (p->flags & P_POISON || signal_is_lost(addr))
		p->model.lost = !p->model.discards;
	trace("SIGBUS at %#lx", addr);
	return TOUCH_BUS;
}

static enum touch access_page(uintptr_t addr, bool write, const uint64_t *value, bool by_kernel)
{
	for (bool again = false;; again = true) {
		struct page *p = page_at(addr);
		/* A signal's handler came before it was tried again. */
		if (again && co_self->may_leave && chance(plan.leaves_off))
			return TOUCH_LEFT;
		if (!(p->flags & P_MAPPED) || p->flags & P_NONE || (write && p->flags & P_READONLY))
			return TOUCH_SEGV;
		if (p->flags & P_POISON) {
			if (!poisoned(p, addr, write, by_kernel))
				continue;
			return is_lost(p, addr);
		}
		bool present = p->flags & P_PRESENT;
		if (present ? write && p->flags & P_PROTECTED : p->flags & P_REGISTERED) {
			if (plan.signal && by_kernel)
				return TOUCH_FAULT;
			if (!fault(addr, write, present))
				return is_lost(p, addr);
			continue;
		}
		if (!present) {
			p->flags |= P_PRESENT;
			p->value = 0;
		}
		check(p, addr);
		seen(p);
		/* What the child has, too, is copied; or the child is gone. */
		if (write && p->flags & P_FORKED && chance(2))
			p->flags &= ~(uint32_t)P_SLOW;
		if (write)
			p->flags &= ~(uint32_t)(P_SHARED | P_FORKED);
		if (value) {
			p->value = p->model.value = *value;
			p->model.twice = p->model.discards && (p->model.twice || p->model.written);
			p->model.written = true;
		}
		return TOUCHED;
	}
}

enum touch touch(uintptr_t addr, const uint64_t *value)
{
	return access_page(addr, value != NULL, value, false);
}

int kernel_touch(uintptr_t addr, bool write, const uint64_t *value)
{
	enum touch got = access_page(addr, write, value, true);

	if (got != TOUCH_FAULT)
		return got == TOUCHED ? 0 : -EFAULT;
	if (!signal_is_lost(addr) && !page_at(addr)->model.discards && !program_leaves(addr) &&
	    changed_at[(addr - SIM_BASE) / K_PAGE] < co_self->called)
		sim_fail("a system call ends with EFAULT at %#lx", addr);
	return -EFAULT;
}

static int populate(uintptr_t start, uintptr_t end, bool write)
{
	for (; start < end; start += K_PAGE)
		switch (access_page(start, write, NULL, true)) {
		case TOUCH_SEGV:
			return mapped(start) ? -EINVAL : -ENOMEM;
		case TOUCH_FAULT:
			return -EFAULT;
		case TOUCH_BUS:
			return -EHWPOISON;
		default:
			break;
		}
	return 0;
}

/* --- events --- */

static bool was_read(struct co *c, void *arg)
{
	(void)c;
	return ((struct event *)arg)->read;
}

/* The change is done, or about to be; its events go out one after the other. */
static void send_events(struct event *e, size_t n)
{
	changing += (int)n;
	for (size_t i = 0; i < n; i++, e++) {
		if (nqueue == EVENTS)
			sim_fail("too many events");
		if (engine_thread && co_self->held)
			sim_fail("raises an event with locks %#x", co_self->held);
		/* Others may be quicker, and have what was freed by now. Who goes past libc is not
		 * safe from that. */
		if (!plan.raw && chance(4))
			co_sleep(rnd_below(SIM_MS));
		if (plan.event_ms)
			co_sleep(plan.event_ms * SIM_MS);
		trace("event %u of %#lx-%#lx", e->m.what, e->m.addr, e->m.end);
		queue[nqueue++] = e;
		co_block(was_read, e, 0);
		changing--;
	}
}

static struct event event(enum uffd_what what, uintptr_t start, uintptr_t end, uintptr_t to)
{
	return (struct event){ .m = { .what = what, .addr = start, .end = end, .to = to } };
}

static bool any_registered(uintptr_t start, uintptr_t end)
{
	for (; start < end; start += K_PAGE)
		if (page_at(start)->flags & P_REGISTERED)
			return true;
	return false;
}

static void unmap_pages(uintptr_t start, uintptr_t end)
{
	last_gone = start;
	changes(start, end);
	for (; start < end; start += K_PAGE)
		*page_at(start) = (struct page){ 0 };
}

/* --- the program's calls --- */

static bool is_empty(uintptr_t start, uintptr_t end)
{
	/* Who looks behind a mapping is to find a page there. */
	if (!is_program(start) || end >= SIM_END)
		return false;
	for (; start < end; start += K_PAGE)
		if (page_at(start)->flags & P_MAPPED)
			return false;
	return true;
}

/* Where something has just been; else anywhere, half of the time on a block's boundary. */
static uintptr_t find_room(size_t len)
{
	if (last_gone && chance(3) && is_empty(last_gone, last_gone + len))
		return last_gone;
	for (int i = 0; i < 1000; i++) {
		uintptr_t at = SIM_BASE + rnd_below(SIM_PAGES - len / K_PAGE) * K_PAGE;
		if (rnd() & 1)
			at &= ~(BLOCK_SIZE - 1);
		if (is_empty(at, at + len))
			return at;
	}
	return 0;
}

static int unmap_program(uintptr_t start, size_t len)
{
	struct event e = event(UFFD_UNMAPPED, start, start + len, 0);
	bool registered = any_registered(start, start + len);

	unmap_pages(start, start + len);
	trace("munmap %#lx-%#lx", start, start + len);
	if (registered)
		send_events(&e, 1);
	return 0;
}

long k_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t off)
{
	uintptr_t at = (uintptr_t)addr;

	co_point();
	if (fd >= 0)
		return raw(SYS_mmap, (long)addr, (long)len, prot, flags, fd, off);
	len = (len + K_PAGE - 1) & ~(size_t)(K_PAGE - 1);
	struct event e = event(UFFD_UNMAPPED, at, at + len, 0);
	bool gone = false;
	if (flags & MAP_FIXED) {
		gone = any_registered(at, at + len);
		unmap_pages(at, at + len);
	} else {
		at = find_room(len);
	}
	if (!at)
		return -ENOMEM;
	for (size_t i = 0; i < len / K_PAGE; i++)
		page_at(at)[i] = (struct page){ .flags = P_MAPPED | (prot ? 0u : P_NONE) };
	trace("mmap %#lx-%#lx", at, at + len);
	if (gone)
		send_events(&e, 1);
	return (long)at;
}

int k_munmap(void *addr, size_t len)
{
	if (!is_program((uintptr_t)addr))
		return (int)raw(SYS_munmap, (long)addr, (long)len, 0, 0, 0, 0);
	co_point();
	return unmap_program((uintptr_t)addr, (len + K_PAGE - 1) & ~(size_t)(K_PAGE - 1));
}

static int discard_program(uintptr_t start, uintptr_t end)
{
	while (start < end) {
		changes(start, end);
		if (!mapped(start))
			return -ENOMEM;
		uintptr_t part = mapping_end(start, end);
		if (page_at(start)->flags & P_LOCKED)
			return -EINVAL;
		if (page_at(start)->flags & P_REGISTERED) {
			struct event e = event(UFFD_DISCARDED, start, part, 0);
			send_events(&e, 1);
			if (plan.discard_ms)
				co_sleep(rnd_below(plan.discard_ms * SIM_MS));
			co_point();
		}
		changes(start, part);
		for (; start < part; start += K_PAGE)
			if (mapped(start))
				zap(page_at(start));
		trace("discarded up to %#lx", part);
		co_point();
	}
	return 0;
}

static bool *slow_at(uintptr_t frame)
{
	return slow + (frame - frames) / K_PAGE;
}

int k_page_node(void *addr)
{
	uintptr_t at = (uintptr_t)addr;

	co_point();
	return is_frame(at) ? *slow_at(at) : is_program(at) ? !!(page_at(at)->flags & P_SLOW) : 0;
}

/* Pages are small here: each is asked. */
bool k_is_on_node(void *addr, size_t len, size_t step, int node)
{
	bool all = true;

	(void)step;
	for (size_t at = 0; at < len; at += K_PAGE)
		all &= k_page_node((char *)addr + at) == node;
	return all;
}

void k_bring_near(void *addr, size_t len, int from)
{
	(void)from;
	co_sleep(rnd_below(SIM_MS));
	for (uintptr_t at = (uintptr_t)addr; at < (uintptr_t)addr + len; at += K_PAGE)
		if (page_at(at)->flags & (P_SHARED | P_PINNED))
			page_at(at)->flags |= P_REFUSED;
		else
			page_at(at)->flags &= ~(uint32_t)(P_SLOW | P_REFUSED);
}

/* It may be full. */
int k_prefer_node(void *addr, size_t len, int node)
{
	co_point();
	preferred = node > 0 && !chance(plan.busy) ? (uintptr_t)addr : 0;
	preferred_end = preferred + (preferred ? len : 0);
	return 0;
}

static void place_frame_pages(uintptr_t start, size_t len, int advice)
{
	for (uintptr_t at = start; at < start + len; at += K_PAGE)
		*slow_at(at) =
		    advice == MADV_POPULATE_WRITE && at >= preferred && at < preferred_end;
}

int k_madvise(void *addr, size_t len, int advice)
{
	uintptr_t start = (uintptr_t)addr, end = start + len;

	if (!is_program(start)) {
		if (is_frame(start) && (advice == MADV_DONTNEED || advice == MADV_POPULATE_WRITE)) {
			real_madvise(start, len, advice);
			place_frame_pages(start, len, advice);
		}
		return 0;
	}
	co_point();
	switch (advice) {
	case MADV_DONTNEED:
		return discard_program(start, end);
	case MADV_POPULATE_READ:
	case MADV_POPULATE_WRITE:
		return populate(start, end, advice == MADV_POPULATE_WRITE);
	case MADV_DONTDUMP:
	case MADV_DODUMP:
		trace("dump or not %#lx-%#lx: %d", start, end, advice);
		for (; start < end; start += K_PAGE) {
			page_at(start)->flags &= ~(uint32_t)P_SECRET;
			page_at(start)->flags |= advice == MADV_DONTDUMP ? P_SECRET : 0u;
		}
		return 0;
	default:
		return 0;
	}
}

/* The pages of [from, from + len), with all they are, go to `to`, where nothing is. */
static void move_mapping(uintptr_t from, uintptr_t to, size_t len, bool leave)
{
	static struct page moved[SIM_PAGES];
	size_t n = len / K_PAGE;

	changes(from, from + len);
	changes(to, to + len);

	for (size_t i = 0; i < n; i++) {
		struct page *p = page_at(from) + i;
		moved[i] = *p;
		moved[i].shift += (int64_t)(to - from);
		/* Not to be relied on. */
		if (plan.seed & 1)
			moved[i].flags &= ~(uint32_t)P_PROTECTED;
		uint32_t stay = p->flags & (P_MAPPED | P_REGISTERED | P_READONLY);
		*p = (struct page){ .flags = leave ? stay : 0, .shift = p->shift };
		if (!leave)
			p->shift = 0;
	}
	memcpy(page_at(to), moved, n * sizeof(*moved));
}

static long grow_in_place(uintptr_t start, size_t old, size_t new)
{
	const struct page *last = page_at(start + old - K_PAGE);

	if (!is_empty(start + old, start + new))
		return -ENOMEM;
	for (uintptr_t at = start + old; at < start + new; at += K_PAGE)
		*page_at(at) =
		    (struct page){ .flags = last->flags & (P_MAPPED | P_REGISTERED | P_READONLY),
				   .shift = last->shift };
	trace("grown from %#lx to %#lx", start + old, start + new);
	return (long)start;
}

long k_mremap(void *addr, size_t old_len, size_t new_len, int flags, void *new_addr)
{
	uintptr_t start = (uintptr_t)addr, to = (uintptr_t)new_addr;
	size_t old = (old_len + K_PAGE - 1) & ~(size_t)(K_PAGE - 1),
	       new = (new_len + K_PAGE - 1) & ~(size_t)(K_PAGE - 1);
	struct event e[4];
	size_t n = 0;

	co_point();
	if (!mapped(start) || start + old > SIM_END ||
	    mapping_end(start, start + old) != start + old)
		return -EFAULT;
	if (!(flags & (MREMAP_FIXED | MREMAP_DONTUNMAP)) && new <= old) {
		if (new < old)
			unmap_program(start + new, old - new);
		return (long)start;
	}
	if (!(flags & (MREMAP_FIXED | MREMAP_DONTUNMAP))) {
		long r = grow_in_place(start, old, new);
		if (r > 0 || !(flags & MREMAP_MAYMOVE))
			return r;
	}
	if (page_at(start)->flags & P_LOCKED && flags & MREMAP_DONTUNMAP)
		return -EINVAL;
	bool registered = page_at(start)->flags & P_REGISTERED;
	if (flags & MREMAP_FIXED) {
		if (to < start + old && start < to + new)
			return -EINVAL;
		if (!is_program(to) || to + new > SIM_END)
			return -ENOMEM;
		if (any_registered(to, to + new))
			e[n++] = event(UFFD_UNMAPPED, to, to + new, 0);
		unmap_pages(to, to + new);
	} else if (!(to = find_room(new))) {
		return -ENOMEM;
	}
	size_t keep = new < old ? new : old;
	if (registered)
		e[n++] = event(UFFD_MOVED, start, start + keep, to);
	if (registered && !(flags & MREMAP_DONTUNMAP))
		e[n++] = event(UFFD_UNMAPPED, start, start + old, 0);
	if (new < old)
		unmap_pages(start + new, start + old);
	move_mapping(start, to, keep, flags & MREMAP_DONTUNMAP);
	if (new > old)
		grow_in_place(to, old, new);
	trace("mremap %#lx-%#lx to %#lx-%#lx", start, start + old, to, to + new);
	send_events(e, n);
	return (long)to;
}

static long lock_pages(const long *a)
{
	uintptr_t start = (uintptr_t)a[0], end = start + (size_t)a[1];
	long r = 0;

	trace("mlock %#lx-%#lx", start, end);
	for (uintptr_t at = start; at < end; at += K_PAGE)
		page_at(at)->flags |= P_LOCKED;
	for (uintptr_t at = start; at < end && !r; at += K_PAGE)
		r = kernel_touch(at, !(page_at(at)->flags & P_READONLY), NULL);
	return r;
}

/* By symbol, as preload/ and the engine call it. */
long syscall(long n, ...)
{
	long a[6];
	va_list ap;

	va_start(ap, n);
	for (int i = 0; i < 6; i++)
		a[i] = va_arg(ap, long);
	va_end(ap);
	uintptr_t start = (uintptr_t)a[0], end = start + (size_t)a[1];
	switch (n) {
	case SYS_gettid:
		return co_self - co_all + 1;
	case SYS_tgkill:
		sim_fail("the engine ends the process by signal %ld", a[2]);
	case SYS_mprotect:
		co_point();
		trace("mprotect %#lx-%#lx: %ld", start, end, a[2]);
		for (; start < end; start += K_PAGE) {
			page_at(start)->flags &= ~(uint32_t)P_READONLY;
			page_at(start)->flags |= a[2] & PROT_WRITE ? 0u : P_READONLY;
		}
		return 0;
	case SYS_mlock:
		/* Of which pages are there now, it is none of the test's to say. */
		program_call(n, a, lock_pages);
		return 0;
	case SYS_munlock:
		co_point();
		trace("munlock %#lx-%#lx", start, end);
		for (; start < end; start += K_PAGE)
			page_at(start)->flags &= ~(uint32_t)P_LOCKED;
		return 0;
	default: {
		long r = raw(n, a[0], a[1], a[2], a[3], a[4], a[5]);
		if (r >= 0 || r < -4095)
			return r;
		errno = (int)-r;
		return -1;
	}
	}
}

/* --- userfaultfd --- */

uint64_t k_signals_open;
void (*uffd_on_wake)(uintptr_t addr, size_t len);

int uffd_open_signal(struct uffd *u, bool want_move)
{
	return uffd_open(u, want_move);
}

int uffd_open(struct uffd *u, bool want_move)
{
	opened = true;
	*u = (struct uffd){ .fd = UFFD_FD,
			    .pagemap = PAGEMAP_FD,
			    .move = want_move && plan.move,
			    .poison = plan.poison };
	return 0;
}

bool uffd_user_mode_only(void)
{
	return false;
}

void uffd_close(struct uffd *u)
{
	(void)u;
}

bool uffd_changing(const struct uffd *u, void *page)
{
	(void)u;
	(void)page;
	return changing;
}

bool uffd_allowed(void)
{
	return true;
}

int uffd_open_pagemap(void)
{
	return NO_FD;
}

int uffd_register(const struct uffd *u, void *addr, size_t len, bool missing)
{
	uintptr_t at = (uintptr_t)addr, end = at + len;

	(void)u;
	(void)missing;
	if (!is_program(at))
		return 0;
	co_point();
	for (uintptr_t i = at; i < end; i += K_PAGE)
		if (!mapped(i))
			return -EINVAL;
	for (; at < end; at += K_PAGE)
		page_at(at)->flags |= P_REGISTERED;
	return 0;
}

static void wake(uintptr_t start, uintptr_t end)
{
	for (struct co *c = co_all; c < co_all + CO_MAX; c++)
		if (c->used && c->fault.parked && c->fault.addr >= start && c->fault.addr < end)
			c->fault.woken = true;
}

int uffd_unregister(const struct uffd *u, void *addr, size_t len)
{
	uintptr_t at = (uintptr_t)addr, end = at + len;

	(void)u;
	if (!is_program(at))
		return 0;
	co_point();
	for (; at < end; at += K_PAGE)
		page_at(at)->flags &= ~(uint32_t)(P_REGISTERED | P_PROTECTED);
	wake((uintptr_t)addr, end);
	return 0;
}

void uffd_wake(const struct uffd *u, void *addr, size_t len)
{
	(void)u;
	co_point();
	trace("wakes %#lx-%#lx", (uintptr_t)addr, (uintptr_t)addr + len);
	if (uffd_on_wake)
		uffd_on_wake((uintptr_t)addr, len);
	else
		wake((uintptr_t)addr, (uintptr_t)addr + len);
}

/* Which pages of the frame's range are there? As the real kernel has them. */
static void frame_pages(uintptr_t addr, size_t n, bool *there)
{
	static uint64_t entry[MAX_BATCH];

	if (pagemap < 0)
		pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	if (n > MAX_BATCH ||
	    pread(pagemap, entry, n * 8, (off_t)(addr / K_PAGE * 8)) != (ssize_t)n * 8)
		sim_fail("pagemap");
	for (size_t i = 0; i < n; i++)
		there[i] = entry[i] >> 62;
}

int uffd_presence(const struct uffd *u, void *addr, size_t len, struct presence *out)
{
	static bool there[MAX_BATCH];
	uintptr_t at = (uintptr_t)addr;
	size_t n = len / K_PAGE;

	(void)u;
	co_point();
	*out = (struct presence){ 0 };
	if (is_frame(at))
		frame_pages(at, n, there);
	for (size_t i = 0; i < n; i++) {
		uintptr_t page = at + i * K_PAGE;
		if (is_frame(at) ? there[i] : !is_zapped(page_at(page)->flags)) {
			out->bytes += K_PAGE;
			out->last = page;
			if (!is_frame(at) && page_at(page)->flags & P_PROTECTED)
				out->protected += K_PAGE;
		}
	}
	return 0;
}

void k_be_prompt(void)
{
}

int k_thread_cpu(pid_t tid)
{
	(void)tid;
	return -1;
}

unsigned k_cores(void)
{
	return plan.servers * 2;
}

int k_open_schedstat(pid_t tid)
{
	(void)tid;
	return -ENOENT;
}

bool k_schedstat(int fd, int64_t *ran, int64_t *waited)
{
	(void)fd;
	*ran = *waited = 0;
	return false;
}

void uffd_hold_wakes(void)
{
}

void uffd_wake_held(const struct uffd *u)
{
	(void)u;
}

int uffd_present(const struct uffd *u, void *addr, size_t n, uint64_t *there)
{
	static bool is[MAX_BATCH];
	uintptr_t at = (uintptr_t)addr;

	(void)u;
	co_point();
	if (is_frame(at))
		frame_pages(at, n, is);
	memset(there, 0, (n + 63) / 64 * sizeof(*there));
	for (size_t i = 0; i < n; i++) {
		bool in = is_frame(at) ? is[i] : !is_zapped(page_at(at + i * K_PAGE)->flags);
		there[i / 64] |= (uint64_t)in << i % 64;
	}
	return 0;
}

static int may_move_out(const struct page *p, bool there, bool holes)
{
	if (!(p->flags & P_MAPPED))
		return -ENOENT;
	if (p->flags & (P_READONLY | P_LOCKED | P_NONE))
		return -EINVAL;
	if (p->flags & P_POISON)
		return -EFAULT;
	if (!(p->flags & P_PRESENT))
		return holes ? 0 : -ENOENT;
	if (p->flags & P_SECRET)
		sim_fail("a secret leaves: page %zu", (size_t)(p - pages));
	if (p->flags & (P_SHARED | P_PINNED))
		return -EBUSY;
	return there ? -EEXIST : 0;
}

static int may_move_in(const struct page *p, bool there, bool holes, uintptr_t from)
{
	if (!(p->flags & P_MAPPED) || !(p->flags & P_REGISTERED))
		return -ENOENT;
	if (p->flags & (P_READONLY | P_LOCKED))
		return -EINVAL;
	if (!there)
		return holes ? 0 : -ENOENT;
	if (!is_zapped(p->flags))
		return -EEXIST;
	return store_pins(from) ? -EBUSY : 0;
}

static void move_page(struct page *p, uintptr_t frame, bool there, bool out)
{
	if (out && p->flags & P_PRESENT) {
		*(uint64_t *)frame = p->value;
		*slow_at(frame) = p->flags & P_SLOW;
		zap(p);
	} else if (!out && there) {
		p->value = *(uint64_t *)frame;
		p->flags |= P_PRESENT | (*slow_at(frame) ? P_SLOW : 0u);
		p->flags &= ~(uint32_t)(P_PROTECTED | P_SHARED | P_PINNED);
		*slow_at(frame) = false;
	}
}

/* kept, if not NULL: gets the pages of mappings that refuse. */
static int move(const struct uffd *u, void *dst, void *src, size_t len, bool holes, uint64_t *kept,
		bool *torn)
{
	static bool there[MAX_BATCH];
	bool out = is_program((uintptr_t)src);
	uintptr_t frame = (uintptr_t)(out ? dst : src);
	struct page *p = page_at((uintptr_t)(out ? src : dst));
	size_t n = len / K_PAGE, i;
	int err = 0;

	*torn = false;
	co_point();
	if (!u->move || !is_frame(frame))
		sim_fail("a move that cannot be");
	if (changing)
		return -EAGAIN;
	/* It may end in the middle: then all is moved back, or, rarely, even that is refused. */
	size_t stop = n, cut = 0;
	if (chance(plan.busy))
		stop = rnd_below(n);
	else if (n > 1 && chance(plan.torn))
		stop = cut = 1 + rnd_below(n - 1);
	frame_pages(frame, n, there);
	for (i = 0; i < n && !err; i++) {
		err = i == stop ? cut || chance(4) ? -EAGAIN : -EBUSY
		      : out	? may_move_out(p + i, there[i], holes)
				: may_move_in(p + i, there[i], holes, frame + i * K_PAGE);
		if (kept && err == -EINVAL) {
			kept[i / 64] |= 1ull << i % 64;
			err = 0;
		}
	}
	if (err)
		n = i - 1;
	*torn = err && cut && cut == n;
	/* For speed alone. */
	for (i = 0; out && !err && !kept && i < n && p[i].flags & P_PRESENT; i++)
		;
	if (out && !err && i > 1)
		real_madvise(frame, i * K_PAGE, MADV_POPULATE_WRITE);
	bool back = err && !*torn && !out && n;
	for (i = 0; i < n; i++)
		if (kept && kept[i / 64] >> i % 64 & 1)
			continue;
		else if (!err || *torn || back)
			move_page(p + i, frame + i * K_PAGE, there[i], out);
		else /* there and back */
			p[i].flags &= ~(uint32_t)P_PROTECTED;
	if (back) {
		/* There for a moment, and the program may write to them. */
		co_point();
		for (i = 0; i < n; i++)
			move_page(p + i, frame + i * K_PAGE, false, true);
	}
	if (!out && (!err || *torn) && n)
		real_madvise(frame, n * K_PAGE, MADV_DONTNEED);
	trace("move of %zu pages %s %#lx, frame %#lx: %d%s", len / K_PAGE, out ? "from" : "to",
	      (uintptr_t)(out ? src : dst), frame, err, *torn ? ", torn" : "");
	return err;
}

int uffd_move(const struct uffd *u, void *dst, void *src, size_t len, bool holes, bool *torn)
{
	return move(u, dst, src, len, holes, NULL, torn);
}

int uffd_move_writable(const struct uffd *u, void *dst, void *src, size_t len, uint64_t *kept,
		       bool *torn)
{
	memset(kept, 0, (len / K_PAGE + 63) / 64 * sizeof(*kept));
	return move(u, dst, src, len, true, kept, torn);
}

static int fill(uintptr_t to, const char *from, size_t len, bool protect, size_t *done)
{
	for (*done = 0; *done < len; *done += K_PAGE) {
		struct page *p = page_at(to + *done);
		if (!(p->flags & P_MAPPED) || !(p->flags & P_REGISTERED))
			return -ENOENT;
		if (!is_zapped(p->flags))
			return -EEXIST;
		p->flags |= P_PRESENT | (protect ? P_PROTECTED : 0u);
		p->value = from ? *(const uint64_t *)(const void *)(from + *done) : 0;
	}
	return 0;
}

int uffd_copy(const struct uffd *u, void *dst, const void *src, size_t len, bool protect)
{
	size_t done = 0;

	(void)u;
	co_point();
	int err = changing ? -EAGAIN : fill((uintptr_t)dst, src, len, protect, &done);
	trace("copy of %zu pages to %#lx: %d", len / K_PAGE, (uintptr_t)dst, err);
	return err;
}

ssize_t uffd_zero(const struct uffd *u, void *addr, size_t len)
{
	size_t done = 0;

	(void)u;
	co_point();
	int err = changing ? -EAGAIN : fill((uintptr_t)addr, NULL, len, false, &done);
	trace("zeros at %#lx: %d, %zu pages", (uintptr_t)addr, err, done / K_PAGE);
	return done ? (ssize_t)done : err;
}

int uffd_protect(const struct uffd *u, void *addr, size_t len, bool on)
{
	uintptr_t at = (uintptr_t)addr;
	int err = -ENOENT;

	(void)u;
	co_point();
	if (changing)
		return -EAGAIN;
	if (is_frame(at))
		return 0;
	for (size_t i = 0; i < len; i += K_PAGE) {
		struct page *p = page_at(at + i);
		if (!(p->flags & P_REGISTERED))
			continue;
		err = 0;
		p->flags &= ~(uint32_t)P_PROTECTED;
		p->flags |= on && p->flags & P_PRESENT ? P_PROTECTED : 0u;
	}
	trace("protection %d of %#lx: %d", on, at, err);
	if (!on && !err)
		wake(at, at + len);
	return err;
}

/* The mapping that begins at `at` goes, as far as the block does. */
static void take_pages(uintptr_t at, uintptr_t end, char *to, struct taken *out)
{
	for (; at < end; at += K_PAGE, to += K_PAGE) {
		struct page *p = page_at(at);
		bool poison = p->flags & P_POISON;
		if (p->flags & P_SECRET)
			sim_fail("a secret leaves: page %zu", (size_t)(p - pages));
		out->holes |= !(p->flags & P_PRESENT);
		memset(to, 0, K_PAGE);
		memcpy(to, &p->value, 8);
		zap(p);
		p->flags |= poison ? P_POISON : 0u;
	}
}

int away_take(const struct uffd *u, void *dst, void *src, size_t len, struct taken *out)
{
	uintptr_t from = (uintptr_t)src, end = from + len;

	(void)u;
	*out = (struct taken){ 0, false };
	co_point();
	for (uintptr_t at = from; at < end; at += K_PAGE)
		if (!mapped(at) || page_at(at)->flags & P_LOCKED)
			return -EINVAL;
	for (uintptr_t at = from; at < end;) {
		struct event e = event(UFFD_MOVED, at, at, 0);
		e.own = true;
		if (!mapped(at) || chance(plan.torn)) {
			return -ENOMEM;
		}
		uintptr_t next = mapping_end(at, end);
		take_pages(at, next, (char *)dst + (at - from), out);
		out->taken += next - at;
		at = next;
		send_events(&e, 1);
	}
	trace("taken away %#lx-%#lx", from, end);
	return 0;
}

int uffd_poison(const struct uffd *u, void *addr, size_t len)
{
	uintptr_t at = (uintptr_t)addr;

	co_point();
	if (!u->poison)
		return -ENOSYS;
	if (changing)
		return -EAGAIN;
	for (size_t i = 0; i < len; i += K_PAGE) {
		struct page *p = page_at(at + i);
		if (!(p->flags & P_MAPPED) || !(p->flags & P_REGISTERED))
			return -ENOENT;
		if (!is_zapped(p->flags))
			return -EEXIST;
		p->flags |= P_POISON;
	}
	trace("poison at %#lx", at);
	return 0;
}

static struct co *oldest_fault(void)
{
	struct co *first = NULL;

	for (struct co *c = co_all; c < co_all + CO_MAX; c++)
		if (c->used && c->fault.parked && !c->fault.read && !c->fault.woken &&
		    (!first || c->fault.order < first->fault.order))
			first = c;
	return first;
}

int uffd_read(const struct uffd *u, struct uffd_message *out, int max)
{
	int n = 0;

	(void)u;
	co_point();
	while (n < max) {
		struct co *c = oldest_fault();
		if (c) {
			c->fault.read = true;
			out[n++] = (struct uffd_message){ .what = UFFD_FAULT,
							  .addr = c->fault.addr,
							  .write = c->fault.write,
							  .write_protect = c->fault.protect,
							  .tid = (pid_t)(c - co_all) + 1 };
		} else if (nqueue) {
			queue[0]->read = true;
			out[n] = queue[0]->m;
			n += !queue[0]->own;
			memmove(queue, queue + 1, --nqueue * sizeof(queue[0]));
		} else {
			break;
		}
	}
	if (n)
		trace("reads %d messages", n);
	return n;
}

bool kernel_fd_ready(int fd)
{
	if (fd >= EVENT_FD && fd < EVENT_FD + EVENT_FDS)
		return eventfd_count[fd - EVENT_FD];
	return fd == UFFD_FD && (oldest_fault() || nqueue);
}

int k_mapping(uintptr_t addr, uintptr_t *start, uintptr_t *end)
{
	if (!mapped(addr))
		return -ENOENT;
	*end = mapping_end(addr, SIM_END);
	*start = addr;
	while (*start > SIM_BASE && same_mapping(page_at(*start - K_PAGE), page_at(addr)))
		*start -= K_PAGE;
	return 0;
}

/* --- the rest --- */

uint64_t k_now_ns(void)
{
	return sim_now += 20;
}

void k_signals_block(uint64_t *saved)
{
	*saved = 0;
}

void k_signals_restore(uint64_t saved)
{
	(void)saved;
}

void k_signals_allow_setxid(void)
{
}

void k_setxid_before(void (*fn)(void))
{
	(void)fn;
}

unsigned k_threads(void)
{
	return 100;
}

bool k_main_thread_gone(void)
{
	return false;
}

int k_own_descriptors(const int *keep, unsigned n)
{
	(void)keep;
	(void)n;
	return 0;
}

int k_socketpair(int fds[2])
{
	fds[0] = fds[1] = NO_FD;
	return chance(4) ? -EMFILE : 0;
}

int k_borrow_fd(int fd)
{
	return fd;
}

int k_send_fds(int sock, const int *fds, unsigned n)
{
	(void)sock;
	(void)fds;
	(void)n;
	return 0;
}

int k_receive_fds(int sock, int *fds, unsigned max)
{
	(void)sock;
	(void)fds;
	(void)max;
	return -EBADF;
}

int k_memfd(const char *name, size_t len)
{
	int fd = memfd_create(name, MFD_CLOEXEC);

	return fd >= 0 && ftruncate(fd, (off_t)len) ? -ENOMEM : fd;
}

/* The first is our own life (slot.c), each other one a child's, which is as long as it pleases. */
int k_reopen(int fd)
{
	static int next = FIRST_LIFE;

	(void)fd;
	return next++;
}

int k_lock_byte(int fd, uint64_t at)
{
	static uint64_t lives_until[64];

	if (fd == FIRST_LIFE)
		return lives_until[at] > sim_now ? -EAGAIN : 0;
	lives_until[at] = sim_now + rnd_below(5 * SIM_S);
	return 0;
}

void k_unlock_byte(int fd, uint64_t at)
{
	(void)fd;
	(void)at;
}

int k_eventfd(void)
{
	static int n;

	if (n == EVENT_FDS)
		sim_fail("too many events' descriptors");
	return EVENT_FD + n++;
}

void k_eventfd_signal(int fd)
{
	eventfd_count[signal_fd(fd) - EVENT_FD]++;
	kernel_given += !plan.signal && fd != EVENT_FD; /* the mover's */
}

void k_eventfd_drain(int fd)
{
	/* Of the fault thread where it has none (sigfault_event). */
	if (fd >= 0)
		eventfd_count[signal_fd(fd) - EVENT_FD] = 0;
}

void k_object_name(uintptr_t addr, char *out, size_t len)
{
	(void)addr;
	if (len)
		*out = '\0';
}
