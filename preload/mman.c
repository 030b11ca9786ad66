/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The mmap family. Ranges that hold no managed memory go straight to the kernel.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "emfatier.h"
#include "engine.h"
#include "hint.h"
#include "kernel.h"
#include "mapped.h"
#include "preload.h"
#include "region.h"
#include "trap.h"

#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24
#endif
#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#endif

bool lock_future;
static bool populate_future; /* and is to be there at once */

static size_t pages(size_t len)
{
	return (len + K_PAGE - 1) & ~(size_t)(K_PAGE - 1);
}

/* Does the call touch managed memory? Malformed ranges are the kernel's to refuse. */
static bool managed(const void *addr, size_t len)
{
	return !engine_thread && !((uintptr_t)addr & (K_PAGE - 1)) && len &&
	       region_near((uintptr_t)addr, len);
}

/* Plain private memory; not stacks, reservations, code, locked, huge or shared pages. */
static bool eligible(size_t len, int prot, int flags)
{
	const int never = MAP_STACK | MAP_GROWSDOWN | MAP_HUGETLB | MAP_LOCKED;

	/* Allocators map what they use so, too (jemalloc); what is larger is a reservation. */
	if ((flags & MAP_NORESERVE) && len > engine.budget)
		return false;
	return len >= managed_min && !lock_future && prot == (PROT_READ | PROT_WRITE) &&
	       (flags & MAP_TYPE) == MAP_PRIVATE && (flags & MAP_ANONYMOUS) && !(flags & never) &&
	       engine_wants(len);
}

void *map_aligned(size_t len, size_t align)
{
	/* Whole blocks are worth the most: on a 2 MiB boundary, where the kernel puts it by itself
	 * if it can. */
	if (align < BLOCK_SIZE && len >= BLOCK_SIZE)
		align = BLOCK_SIZE;
	void *p = k_map(len);
	if (!p || !((uintptr_t)p & (align - 1)))
		return p;
	k_unmap(p, len);
	return k_map_aligned(len, align, 0);
}

long map_over(void *addr, size_t len, int prot, int flags, int fd, long off)
{
	struct change c;

	if (!(flags & MAP_FIXED) || !managed(addr, len))
		return k_mmap(addr, len, prot, flags, fd, off);
	engine_change_begin(&c, addr, len, NULL, 0, true);
	long r = k_mmap(addr, len, prot, flags, fd, off);
	/* One that fails may have unmapped before; the events tell, if there are any. */
	engine_change_end(&c, r < 0 ? CHANGE_NONE : CHANGE_GONE);
	return r;
}

/*
 * A file that is to be managed. Where the program leaves the place open it is one where blocks are
 * whole. What does not fit is not populated, but fetched ahead as far as there is room.
 */
static long map_file(void *addr, size_t len, int prot, int flags, int fd, off_t off,
		     struct mapping *m, const void *caller)
{
	bool populate = flags & MAP_POPULATE || populate_future;
	void *place =
	    addr || len < BLOCK_SIZE ? NULL : k_map_aligned(pages(len), BLOCK_SIZE, MAP_NORESERVE);

	flags &= ~MAP_POPULATE;
	long r = place ? k_mmap(place, len, prot, flags | MAP_FIXED, fd, off)
		       : map_over(addr, len, prot, flags, fd, off);
	if (r < 0) {
		if (place)
			k_unmap(place, pages(len));
		mapped_forget(m);
		return r;
	}
	mapped_adopt(m, (void *)r, caller);
	if (populate && engine_active())
		hint_give(EMF_HINT_WILL_NEED, (void *)r, len, NULL);
	else if (populate)
		k_madvise((void *)r, pages(len), MADV_POPULATE_READ);
	return r;
}

EXPORT void *mmap(void *addr, size_t len, int prot, int flags, int fd, off_t off)
{
	int saved = errno;
	struct mapping *m = fd >= 0 && len >= managed_min && !lock_future && engine_wants(len)
				? mapped_look(len, prot, flags, fd, (uint64_t)off)
				: NULL;
	if (m) {
		long at = map_file(addr, len, prot, flags, fd, off, m, __builtin_return_address(0));
		errno = saved;
		return (void *)edge(at);
	}
	/* Populated by the kernel, it would be all there at once: only once it is managed. */
	bool manage = eligible(len, prot, flags), populate = manage && flags & MAP_POPULATE;
	long r = map_over(addr, len, prot, populate ? flags & ~MAP_POPULATE : flags, fd, off);

	if (r < 0)
		return (void *)edge(r);
	if (manage)
		engine_adopt((void *)r, pages(len), __builtin_return_address(0));
	bool write = (prot & PROT_WRITE) && (flags & MAP_TYPE) == MAP_PRIVATE;
	if (populate || populate_future) /* where it cannot be, mlockall itself leaves it, too */
		k_madvise((void *)r, pages(len), write ? MADV_POPULATE_WRITE : MADV_POPULATE_READ);
	errno = saved;
	return (void *)r;
}

EXPORT void *mmap64(void *addr, size_t len, int prot, int flags, int fd, off_t off)
    __attribute__((alias("mmap")));

int unmap(void *addr, size_t len)
{
	struct change c;

	if (!managed(addr, len))
		return k_munmap(addr, len);
	engine_change_begin(&c, addr, len, NULL, 0, true);
	int r = k_munmap(addr, len);
	engine_change_end(&c, r ? CHANGE_NONE : CHANGE_GONE);
	return r;
}

EXPORT int munmap(void *addr, size_t len)
{
	return (int)edge(unmap(addr, len));
}

/* In place, or else where blocks stay what they are: moved by a multiple of 2 MiB. */
static long grow(void *addr, size_t was, size_t size, int flags)
{
	long r = k_mremap(addr, was, size, 0, NULL);

	if (r != -ENOMEM || !(flags & MREMAP_MAYMOVE))
		return r;
	void *place = region_place((uintptr_t)addr, size, PROT_NONE);
	if (!place)
		return k_mremap(addr, was, size, flags, NULL);
	r = k_mremap(addr, was, size, MREMAP_MAYMOVE | MREMAP_FIXED, place);
	if (r < 0)
		k_munmap(place, size);
	return r;
}

long remap(void *addr, size_t old_len, size_t new_len, int flags, void *to)
{
	uintptr_t start = (uintptr_t)addr;
	size_t was = pages(old_len), size = pages(new_len);
	bool plain = !(flags & ~MREMAP_MAYMOVE) && was && size;
	struct change c;
	long r;

	if (mapped_in(addr, old_len))
		mapped_give_back(addr, old_len);
	if (!managed(addr, old_len) && !((flags & MREMAP_FIXED) && managed(to, new_len)))
		return k_mremap(addr, old_len, new_len, flags, to);
	if (plain && size < was) {
		r = unmap((char *)addr + size, was - size);
		return r ? r : (long)start;
	}
	/*
	 * What locked memory grows by the kernel populates inside the call, while it lets nobody
	 * serve the faults of that: it is locked again after it.
	 */
	bool locked = size > was && engine_kept(addr, old_len) & KEPT_LOCKED;
	if (locked)
		syscall(SYS_munlock, addr, was);
	engine_change_begin(&c, addr, old_len, flags & MREMAP_FIXED ? to : NULL, new_len, true);
	r = plain && size > was ? grow(addr, was, size, flags)
				: k_mremap(addr, old_len, new_len, flags, to);
	if (r >= 0 && (uintptr_t)r != start) {
		c.to = (uintptr_t)r;
		engine_change_end(&c, CHANGE_MOVED);
	} else {
		engine_change_end(&c, CHANGE_NONE);
	}
	if (locked)
		syscall(SYS_mlock, r < 0 ? addr : (void *)r, r < 0 ? was : size);
	if (r >= 0 && (flags & MREMAP_DONTUNMAP))
		engine_left(addr, was, (void *)r); /* empty now, but still there */
	else if (r >= 0 && was && size > was)
		engine_grown((void *)((uintptr_t)r + was), size - was);
	return r;
}

EXPORT void *mremap(void *addr, size_t old_len, size_t new_len, int flags, ...)
{
	va_list ap;

	va_start(ap, flags);
	void *to = flags & (MREMAP_FIXED | MREMAP_DONTUNMAP) ? va_arg(ap, void *) : NULL;
	va_end(ap);
	return (void *)edge(remap(addr, old_len, new_len, flags, to));
}

static int discard(void *addr, size_t len, int advice)
{
	struct change c;

	engine_change_begin(&c, addr, len, NULL, 0, false);
	int r = k_madvise(addr, len, advice);
	engine_change_end(&c, CHANGE_DISCARDED);
	return r;
}

/* What it says of a file's memory, which to the kernel is none. True: that is all there is to it.
 */
static bool advise_mapped(void *addr, size_t len, int advice, int *result)
{
	*result = 0;
	switch (advice) {
	case MADV_NORMAL:
	case MADV_SEQUENTIAL:
	case MADV_RANDOM:
		mapped_advise(addr, len, advice);
		return true;
	case MADV_WILLNEED:
		hint_give(EMF_HINT_WILL_NEED, addr, len, NULL);
		return true;
	case MADV_COLD:
	case MADV_PAGEOUT:
		hint_give(EMF_HINT_WONT_NEED, addr, len, NULL);
		return true;
	case MADV_FREE:
	case MADV_WIPEONFORK:
		*result = -EINVAL;
		return true;
	default:
		return false;
	}
}

int advise(void *addr, size_t len, int advice)
{
	int result;

	if (!managed(addr, len))
		return k_madvise(addr, len, advice);
	if (mapped_in(addr, len) && engine_active() && advise_mapped(addr, len, advice, &result))
		return result;
	switch (advice) {
	case MADV_DONTNEED:
	case MADV_DONTNEED_LOCKED:
		return discard(addr, len, advice);
	case MADV_FREE: /* zeros or the old data: zeros */
		return discard(addr, len, MADV_DONTNEED);
	case MADV_DONTDUMP: /* secrets must not leave */
		engine_keep(addr, len, KEPT_DUMP);
		break;
	case MADV_WIPEONFORK: /* and what a child is to find empty must not be given to it */
		engine_keep(addr, len, KEPT_WIPE);
		break;
	case MADV_MERGEABLE:
	case MADV_GUARD_INSTALL:
		engine_keep(addr, len, KEPT_ALWAYS);
		break;
	case MADV_DONTFORK:
	case MADV_DOFORK:
		engine_no_fork(addr, len, advice == MADV_DONTFORK);
		break;
	default:
		break;
	}
	int r = k_madvise(addr, len, advice);
	if (advice == MADV_POPULATE_READ || advice == MADV_POPULATE_WRITE)
		r = (int)trap_populated(r, (uintptr_t)addr, len, advice == MADV_POPULATE_WRITE);
	if (advice == MADV_DODUMP)
		engine_unkeep(addr, len, KEPT_DUMP);
	if (advice == MADV_KEEPONFORK)
		engine_unkeep(addr, len, KEPT_WIPE);
	if (advice == MADV_DOFORK)
		engine_no_fork(addr, len, false);
	return r;
}

EXPORT int madvise(void *addr, size_t len, int advice)
{
	return (int)edge(advise(addr, len, advice));
}

/* libc's makes the system call itself, and nothing of POSIX_MADV_DONTNEED. */
EXPORT int posix_madvise(void *addr, size_t len, int advice)
{
	return advice == POSIX_MADV_DONTNEED ? 0 : -advise(addr, len, advice);
}

/*
 * Code and keyed memory are left alone. Else the kernel minds what the program may do; far
 * blocks come back however they are protected.
 */
static int protect(void *addr, size_t len, int prot, int key)
{
	if (managed(addr, len) && mapped_in(addr, len))
		mapped_give_back(addr, len);
	if ((prot & PROT_EXEC || key >= 0) && managed(addr, len))
		engine_keep(addr, len, KEPT_ALWAYS);
	else if (prot == PROT_READ && managed(addr, len))
		engine_read_only();
	return (int)(key < 0 ? syscall(SYS_mprotect, addr, len, prot)
			     : syscall(SYS_pkey_mprotect, addr, len, prot, key));
}

EXPORT int mprotect(void *addr, size_t len, int prot)
{
	return protect(addr, len, prot, -1);
}

EXPORT int pkey_mprotect(void *addr, size_t len, int prot, int key)
{
	return protect(addr, len, prot, key);
}

/* mlock takes any address: what shares a page with the range is locked, too. */
static void keep_around(const void *addr, size_t len, unsigned why, bool on)
{
	uintptr_t start = (uintptr_t)addr & ~(uintptr_t)(K_PAGE - 1);
	size_t all = pages(len + ((uintptr_t)addr - start));

	if (!len || engine_thread || !region_near(start, all))
		return;
	if (on)
		engine_keep((void *)start, all, why);
	else
		engine_unkeep((void *)start, all, why);
}

void keep_local(const void *addr, size_t len, unsigned why)
{
	int saved = errno;

	keep_around(addr, len, why, true);
	errno = saved;
}

/* Refused, as for want of permission, it need not stay; what was locked before does. */
static int lock_pages(const void *addr, size_t len, unsigned flags)
{
	bool before = engine_kept(addr, len) & KEPT_LOCKED;

	keep_local(addr, len, KEPT_LOCKED);
	int r =
	    (int)(flags ? syscall(SYS_mlock2, addr, len, flags) : syscall(SYS_mlock, addr, len));
	if (r && !before) {
		int saved = errno;
		keep_around(addr, len, KEPT_LOCKED, false);
		errno = saved;
	}
	return r;
}

EXPORT int mlock(const void *addr, size_t len)
{
	return lock_pages(addr, len, 0);
}

EXPORT int mlock2(const void *addr, size_t len, unsigned flags)
{
	return lock_pages(addr, len, flags);
}

EXPORT int munlock(const void *addr, size_t len)
{
	int r = (int)syscall(SYS_munlock, addr, len);

	if (!r)
		keep_around(addr, len, KEPT_LOCKED, false);
	return r;
}

EXPORT int mlockall(int flags)
{
	if (flags & MCL_FUTURE)
		lock_future = true;
	if (flags & MCL_CURRENT)
		engine_keep(NULL, 1ul << 47, KEPT_LOCKED);
	/*
	 * On fault: what is there is locked at once, but the runtime's reserved address
	 * space, thousands of times what there is, does not get populated.
	 */
	int r = (int)syscall(SYS_mlockall,
			     flags & (MCL_CURRENT | MCL_FUTURE) ? flags | MCL_ONFAULT : flags);
	if (r && (flags & MCL_FUTURE))
		lock_future = false;
	populate_future = lock_future && !(flags & MCL_ONFAULT);
	engine_unlock_frames();
	return r;
}

/* mlock(2): a child does not inherit that. */
void mman_after_fork_child(void)
{
	lock_future = populate_future = false;
}

/* A pipe holds the pages themselves, in a way that MOVE does not see: they stay where they are. */
EXPORT ssize_t vmsplice(int fd, const struct iovec *iov, size_t n, unsigned flags)
{
	for (size_t i = 0; i < n && i < IOV_MAX; i++)
		keep_local(iov[i].iov_base, iov[i].iov_len, KEPT_ALWAYS);
	return syscall(SYS_vmsplice, fd, iov, n, flags);
}

EXPORT int munlockall(void)
{
	lock_future = populate_future = false;
	int r = (int)syscall(SYS_munlockall);
	engine_unkeep(NULL, 1ul << 47, KEPT_LOCKED);
	return r;
}
