/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "sigfault.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine.h"
#include "fault.h"
#include "kernel.h"
#include "region.h"
#include "trap.h"

#define FDS_FROM 960 /* where few programs have any, and select(2) may be used up to it */

static struct uffd own = { .fd = -1, .pagemap = -1 };
static int fds[SIGFAULT_FDS] = { -1, -1, -1, -1 };
static bool on;

bool sigfault_on(void)
{
	return on;
}

const int *sigfault_fds(void)
{
	return fds;
}

bool sigfault_owns(int fd)
{
	return fds[0] >= 0 && fd >= fds[0] && fd <= fds[SIGFAULT_FDS - 1];
}

int sigfault_event(void)
{
	return fds[2];
}

int sigfault_mover_event(void)
{
	return fds[3];
}

bool sigfault_running(void)
{
	uint32_t phase = atomic_load(&engine.phase);

	return on && (phase == PHASE_STARTING || phase == PHASE_ACTIVE);
}

/* --- who waits --- */

#define BUCKETS 1024
static _Atomic uint32_t bucket[BUCKETS], waiting[BUCKETS];

static unsigned hash(uintptr_t addr)
{
	return (unsigned)(addr >> BLOCK_SHIFT) % BUCKETS;
}

static void woken(uintptr_t addr, size_t len)
{
	size_t n = ((addr + len - 1) >> BLOCK_SHIFT) - (addr >> BLOCK_SHIFT) + 1;

	for (size_t i = 0; i < n && i < BUCKETS; i++) {
		unsigned b = (hash(addr) + (unsigned)i) % BUCKETS;
		atomic_fetch_add(&bucket[b], 1);
		if (atomic_load(&waiting[b]))
			k_futex_wake(&bucket[b], INT_MAX);
	}
}

struct given {
	struct uffd_message m;
	struct given *next;
	_Atomic uint32_t taken;
};

static struct given *_Atomic given;
static struct given *taking; /* in order; the fault thread's */

/* --- descriptors --- */

/* In the child of a fork, where nobody waits. */
static void nobody(void)
{
	given = taking = NULL;
	for (unsigned i = 0; i < BUCKETS; i++)
		waiting[i] = 0;
}

static int place(int fd, int at)
{
	int r = (int)k_syscall(SYS_dup3, fd, at, O_CLOEXEC, 0, 0, 0);

	k_syscall(SYS_close, fd, 0, 0, 0, 0, 0);
	return r;
}

static int first_free(void)
{
	struct rlimit l;
	int from = FDS_FROM;

	if (!k_syscall(SYS_prlimit64, 0, RLIMIT_NOFILE, 0, (long)&l, 0, 0) &&
	    l.rlim_cur < FDS_FROM + SIGFAULT_FDS)
		from = (int)l.rlim_cur - SIGFAULT_FDS - 1;
	for (; from > 2; from--) {
		bool all = true;
		for (int i = 0; i < SIGFAULT_FDS; i++)
			all &= k_syscall(SYS_fcntl, from + i, F_GETFD, 0, 0, 0, 0) == -EBADF;
		if (all)
			return from;
	}
	return -EMFILE;
}

int sigfault_open(bool want_move)
{
	struct uffd u;
	int at = on ? fds[0] : first_free();

	if (at < 0)
		return at;
	int err = uffd_open_signal(&u, want_move);
	if (err)
		return err;
	int event = k_eventfd(), mover = k_eventfd();
	if (event < 0 || mover < 0 || place(u.fd, at) < 0 || place(u.pagemap, at + 1) < 0 ||
	    place(event, at + 2) < 0 || place(mover, at + 3) < 0)
		return -EMFILE;
	if (!u.move || !u.poison) {
		sigfault_close();
		return -ENOTSUP;
	}
	nobody();
	own = u;
	own.fd = at;
	own.pagemap = at + 1;
	for (int i = 0; i < SIGFAULT_FDS; i++)
		fds[i] = at + i;
	uffd_on_wake = woken;
	on = true;
	return 0;
}

void sigfault_close(void)
{
	for (int i = 0; i < SIGFAULT_FDS && fds[i] >= 0; i++) {
		k_syscall(SYS_close, fds[i], 0, 0, 0, 0, 0);
		fds[i] = -1;
	}
	sigfault_forget();
}

void sigfault_forget(void)
{
	nobody();
	on = false;
	uffd_on_wake = NULL;
}

void sigfault_take(struct uffd *u)
{
	*u = own;
}

/* --- faults --- */

void sigfault_kick(void)
{
	uint64_t one = 1;

	k_syscall(SYS_write, fds[2], (long)&one, sizeof(one), 0, 0, 0);
}

static void give(struct given *g)
{
	g->next = atomic_load(&given);
	while (!atomic_compare_exchange_weak(&given, &g->next, g))
		;
	sigfault_kick();
	while (!atomic_load(&g->taken))
		k_futex_wait(&g->taken, 0, 100);
}

bool sigfault_next(struct uffd_message *m)
{
	if (!taking) {
		struct given *g = atomic_exchange(&given, NULL);
		while (g) {
			struct given *n = g->next;
			g->next = taking;
			taking = g;
			g = n;
		}
	}
	struct given *g = taking;
	if (!g)
		return false;
	taking = g->next;
	*m = g->m;
	/* Its stack frame may be gone as soon as it sees this. */
	atomic_store(&g->taken, 1);
	k_futex_wake(&g->taken, 1);
	return true;
}

/*
 * It may have been registered when it was touched, and be so no more: what is tried again and is
 * foreign each time is.
 */
static bool is_foreign(uintptr_t addr)
{
	static __thread uintptr_t last __attribute__((tls_model("initial-exec")));
	static __thread unsigned times __attribute__((tls_model("initial-exec")));

	times = addr == last ? times + 1 : 1;
	last = addr;
	if (times < 3)
		return false;
	last = 0;
	return true;
}

bool sigfault_resolve(uintptr_t addr, bool write, bool write_protect, bool room)
{
	struct given g = { .m = {
			       .what = UFFD_FAULT,
			       .addr = addr,
			       .write = write,
			       .write_protect = write_protect,
			       .tid = (pid_t)k_syscall(SYS_gettid, 0, 0, 0, 0, 0, 0),
			   } };

	if (!sigfault_running())
		return false;
	unsigned b = hash(addr);
	atomic_fetch_add(&waiting[b], 1);
	uint32_t seen = atomic_load(&bucket[b]);
	enum fault_here how = room ? fault_here(&g.m) : fault_is_ours(&g.m);
	if (how == FAULT_GIVE)
		give(&g);
	/* Woken meanwhile, as a rule. Else whoever wakes the thread of a fault wakes this. */
	if (how != FAULT_FOREIGN)
		word_wait(&bucket[b], seen, 1000);
	atomic_fetch_sub(&waiting[b], 1);
	return how != FAULT_FOREIGN || !is_foreign(addr);
}

void sigfault_barrier(void)
{
	if (!sigfault_running())
		return;
	lock_take(&engine.lock);
	lock_give(&engine.lock);
}

/* The first page of the range that a kernel's access would fail on; end: none. */
static uintptr_t first_away(uintptr_t at, uintptr_t end, bool write, bool *write_protect)
{
	uint64_t entry[64];

	while (at < end) {
		size_t n = (end - at) / K_PAGE < 64 ? (end - at) / K_PAGE : 64;
		long got = k_syscall(SYS_pread64, own.pagemap, (long)entry, (long)n * 8,
				     (long)(at / K_PAGE * 8), 0, 0);
		if (got <= 0)
			return end;
		for (long i = 0; i < got / 8; i++, at += K_PAGE) {
			bool there = entry[i] >> 62;
			*write_protect = there && write && entry[i] >> 57 & 1;
			if (!there || *write_protect)
				return at;
		}
	}
	return end;
}

/* Cut to the first registered region in it. */
static bool next_region(uintptr_t *start, uintptr_t *end)
{
	lock_take(&engine.lock);
	struct region *r = region_next(*start);
	while (r && r->start < *end && !r->registered)
		r = region_next(r->end);
	bool found = r && r->start < *end;
	if (found && *start < r->start)
		*start = r->start;
	if (found && *end > r->end)
		*end = r->end;
	lock_give(&engine.lock);
	return found;
}

bool sigfault_bring(uintptr_t start, uintptr_t end, bool write, bool room)
{
	bool any = false, write_protect;

	if (!sigfault_running())
		return false;
	while (start < end) {
		uintptr_t to = end;
		if (!next_region(&start, &to))
			break;
		while ((start = first_away(start, to, write, &write_protect)) < to) {
			any = sigfault_resolve(start, write, write_protect, room);
			if (!any)
				return false;
			/* Once: what is lost stays so. */
			start += K_PAGE;
		}
	}
	return any;
}
