/* SPDX-License-Identifier: Apache-2.0 */
#include "pinned.h"

#include <limits.h>
#include <stdatomic.h>
#include <sys/syscall.h>

#include "block.h"
#include "engine.h"
#include "kernel.h"
#include "lock.h"
#include "log.h"

/* By block, hashed: who shares an entry with a block that is pinned stays, too. */
#define ENTRIES 4096

static _Atomic uint32_t pins[ENTRIES], all, forks;
static _Atomic uint32_t taking;	 /* the number where a block begins; 0: none */
static _Atomic uint32_t waiters; /* for that to change */
static _Atomic bool async, direct;

/* Also where a system call returns to the program's registers: see trap.c. */
#ifdef __x86_64__
#define INTEGER __attribute__((target("general-regs-only")))
#else
#define INTEGER
#endif

INTEGER static uint32_t number(uintptr_t addr)
{
	return (uint32_t)(addr >> BLOCK_SHIFT);
}

INTEGER static void count(const struct pinned *p, uint32_t n)
{
	if (!p->len) {
		atomic_fetch_add(&all, n);
		return;
	}
	for (uint32_t b = number(p->start); b <= number(p->start + p->len - 1); b++)
		atomic_fetch_add(&pins[b % ENTRIES], n);
}

/* What moved by mremap is in blocks that begin anywhere, and so may end in the next number. */
static bool is_pinned(uintptr_t start)
{
	return atomic_load(&all) || atomic_load(&pins[number(start) % ENTRIES]) ||
	       atomic_load(&pins[number(start + BLOCK_SIZE - 1) % ENTRIES]);
}

/*
 * Who takes one of these blocks may not have seen the count. A process that is a copy of ours,
 * without our knowing, has nobody who takes.
 */
static void await(uint32_t first, uint32_t last)
{
	uint32_t b;

	while ((b = atomic_load(&taking)) && b + 1 >= first && b <= last &&
	       engine.pid == k_syscall(SYS_getpid, 0, 0, 0, 0, 0, 0)) {
		atomic_fetch_add(&waiters, 1);
		word_wait(&taking, b, 1);
		atomic_fetch_sub(&waiters, 1);
	}
}

void pinned_begin(struct pinned *p, uintptr_t addr, size_t len)
{
	*p = (struct pinned){ addr, len, forks };
	count(p, 1);
	if (len)
		await(number(p->start), number(p->start + len - 1));
	else
		await(0, UINT32_MAX);
}

INTEGER void pinned_end(const struct pinned *p)
{
	/* A handler that interrupted the call may have forked, and this be the child. */
	if (p->forks == forks)
		count(p, UINT32_MAX);
}

static void both(void)
{
	static _Atomic bool told;

	if (!async || !direct || told)
		return;
	await(0, UINT32_MAX);
	told = true;
}

void pinned_async(void)
{
	async = true;
	both();
}

void pinned_direct(void)
{
	direct = true;
	both();
}

bool pinned_has_direct(void)
{
	return direct;
}

void pinned_after_fork(void)
{
	for (size_t i = 0; i < ENTRIES; i++)
		pins[i] = 0;
	all = taking = waiters = 0;
	forks++;
}

bool pinned_for_ever(void)
{
	return async && direct;
}

bool pinned_take(uintptr_t start, bool copy)
{
	static bool told;
	uint32_t nobody = 0;

	if (!atomic_compare_exchange_strong(&taking, &nobody, number(start)))
		return false;
	bool ever = copy && pinned_for_ever();
	if (!ever && !is_pinned(start))
		return true;
	pinned_taken();
	if (ever && !told)
		log_warn("without UFFDIO_MOVE (Linux 6.8) memory can't leave while the program "
			 "reads with O_DIRECT by AIO or io_uring: the budget will be exceeded");
	told |= ever;
	return false;
}

void pinned_taken(void)
{
	atomic_store(&taking, 0);
	if (atomic_load(&waiters))
		k_futex_wake(&taking, INT_MAX);
}
