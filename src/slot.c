/* SPDX-License-Identifier: Apache-2.0 */
#include "slot.h"

#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kernel.h"
#include "store/store.h"

#define MEMBERS 63
#define BUSY (1ull << MEMBERS) /* beside the owner: a write or a trim of it is on its way */

/* The memfd: a page of header, then a mask for each slot. See also store/reap.c. */
struct header {
	_Atomic uint64_t members;
	_Atomic uint64_t high;		  /* no slot from here on was ever owned */
	_Atomic uint64_t generation;	  /* STORE_SLOTS_GENERATION */
	_Atomic uint64_t scattered;	  /* STORE_SLOTS_SCATTERED */
	_Atomic uint32_t births[MEMBERS]; /* how often each number was given out */
};

_Static_assert(offsetof(struct header, generation) == STORE_SLOTS_GENERATION, "as reap.c reads it");
_Static_assert(offsetof(struct header, scattered) == STORE_SLOTS_SCATTERED, "as reap.c reads it");
_Static_assert(sizeof(struct header) <= STORE_SLOTS_HEADER, "it has that page");

static struct {
	struct header *family;
	_Atomic uint64_t *owners;
	uint16_t *refs; /* by blocks of this process */
	struct slot_extent *extent;
	uint32_t *freed; /* a stack: given back, not trimmed yet */
	uint64_t nfreed;
	uint64_t ever;		 /* to what n may grow */
	uint64_t n, hand, nused; /* nused: ours, also those in `freed` */
	unsigned me, next;	 /* our number, the child's */
	int fd, life;
	bool none_left;
} sl = { .fd = -1, .life = -1 };

static uint64_t bit(unsigned member)
{
	return 1ull << member;
}

static uint64_t slots_of(uint64_t bytes)
{
	uint64_t n = bytes >> BLOCK_SHIFT;

	return n >= SLOT_FILE ? SLOT_FILE - 1 : n;
}

int slot_init(uint64_t store_bytes, uint64_t ever_bytes)
{
	uint64_t n = slots_of(ever_bytes);

	if (!slots_of(store_bytes) || n < slots_of(store_bytes))
		return -ENOSPC;
	size_t len = STORE_SLOTS_HEADER + n * sizeof(*sl.owners);
	sl.fd = k_memfd("emfatier-slots", len);
	if (sl.fd < 0)
		return sl.fd;
	long r = k_mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, sl.fd, 0);
	if (r < 0)
		return (int)r;
	sl.family = (struct header *)r;
	sl.owners = (_Atomic uint64_t *)(r + STORE_SLOTS_HEADER);
	sl.refs = k_reserve(n * sizeof(*sl.refs), K_PAGE, false);
	sl.extent = k_reserve(n * sizeof(*sl.extent), K_PAGE, false);
	sl.freed = k_reserve(n * sizeof(*sl.freed), K_PAGE, false);
	sl.n = slots_of(store_bytes);
	sl.ever = n;
	sl.hand = sl.nused = sl.nfreed = 0;
	sl.me = 0;
	sl.family->members = bit(0);
	/* Without /proc there is no second description, so no lock, and no family. */
	sl.life = k_reopen(sl.fd);
	if (sl.life >= 0 && k_lock_byte(sl.life, 0)) {
		close(sl.life);
		sl.life = -1;
	}
	return sl.refs && sl.extent && sl.freed ? 0 : -ENOMEM;
}

void slot_set_capacity(uint64_t store_bytes)
{
	uint64_t n = slots_of(store_bytes);

	/* Less is not taken back: what is in use there stays, and the store refuses what has no
	 * room. */
	if (n > sl.n) {
		sl.n = n < sl.ever ? n : sl.ever;
		sl.none_left = false;
	}
}

uint64_t slot_table(void)
{
	return sl.ever;
}

bool slot_alone(void)
{
	return atomic_load(&sl.family->members) == bit(sl.me);
}

void slot_set_generation(uint64_t generation)
{
	atomic_store(&sl.family->generation, generation);
}

void slot_set_scattered(void)
{
	atomic_store(&sl.family->scattered, 1);
}

int slot_memfd(void)
{
	return sl.fd;
}

uint64_t slot_used(void)
{
	return sl.nused;
}

static uint32_t claim(uint64_t s)
{
	uint64_t none = 0;

	if (atomic_load_explicit(sl.owners + s, memory_order_relaxed) ||
	    !atomic_compare_exchange_strong(sl.owners + s, &none, bit(sl.me)))
		return NO_SLOT;
	uint64_t high = atomic_load(&sl.family->high);
	while (high <= s && !atomic_compare_exchange_weak(&sl.family->high, &high, s + 1))
		;
	sl.nused++;
	sl.hand = s + 1 < sl.n ? s + 1 : 0;
	sl.refs[s] = 1;
	return (uint32_t)s;
}

uint32_t slot_alloc(void)
{
	uint32_t got = NO_SLOT;

	if (sl.nfreed) {
		got = sl.freed[--sl.nfreed];
		sl.refs[got] = 1;
		return got;
	}
	/* Next fit: the one after the last is free until the first wrap. */
	for (uint64_t i = 0, s = sl.hand; i < sl.n && got == NO_SLOT;
	     i++, s = s + 1 < sl.n ? s + 1 : 0)
		got = claim(s);
	sl.none_left = got == NO_SLOT;
	return got;
}

bool slot_none_left(void)
{
	return sl.none_left;
}

void slot_share(uint32_t s)
{
	if (s != SLOT_FILE && !sl.refs[s]++)
		sl.nused++;
}

bool slot_hold(uint32_t s)
{
	if (s >= sl.n || !sl.refs[s])
		return false;
	sl.refs[s]++;
	return true;
}

/* It is ours alone, and its content is not needed. */
static void push_freed(uint32_t s)
{
	sl.freed[sl.nfreed++] = s;
	sl.none_left = false;
}

static void leave(uint32_t s)
{
	if (atomic_fetch_and(sl.owners + s, ~bit(sl.me)) & ~bit(sl.me))
		return;
	/* The others have left it in the same moment: it is nobody's, but to be trimmed. */
	if (claim(s) != NO_SLOT) {
		sl.refs[s] = 0;
		push_freed(s);
	}
}

void slot_free(uint32_t s)
{
	if (s == SLOT_FILE || --sl.refs[s])
		return;
	/* Before slot_attach a child only counts: that leaves what it does not hold then. */
	if (sl.fd >= 0 && slot_is_mine(s)) {
		push_freed(s);
		return;
	}
	sl.nused--;
	if (sl.fd >= 0)
		leave(s);
}

static bool is_mine_alone(uint32_t s)
{
	return (atomic_load(sl.owners + s) & ~BUSY) == bit(sl.me);
}

bool slot_is_mine(uint32_t s)
{
	return s != SLOT_FILE && sl.refs[s] <= 1 && is_mine_alone(s);
}

void slot_writing(uint32_t s)
{
	atomic_fetch_or(sl.owners + s, BUSY);
}

void slot_wrote(uint32_t s)
{
	atomic_fetch_and(sl.owners + s, ~BUSY);
}

void slot_set_extent(uint32_t s, struct slot_extent e)
{
	sl.extent[s] = e;
}

struct slot_extent slot_extent(uint32_t s)
{
	return s == SLOT_FILE ? (struct slot_extent){ 0, BLOCK_PAGES } : sl.extent[s];
}

uint32_t slot_to_trim(void)
{
	if (!sl.nfreed)
		return NO_SLOT;
	slot_writing(sl.freed[--sl.nfreed]);
	return sl.freed[sl.nfreed];
}

uint64_t slot_freed_count(void)
{
	return sl.nfreed;
}

void slot_trimmed(uint32_t s)
{
	atomic_fetch_and(sl.owners + s, ~(bit(sl.me) | BUSY));
	sl.nused--;
}

#ifdef EMF_DEBUG
bool slot_audit(void)
{
	bool good = true;

	for (uint64_t s = 0; sl.family && s < sl.family->high; s++)
		good &= !sl.refs[s] || atomic_load(sl.owners + s) & bit(sl.me);
	for (uint64_t i = 0; i < sl.nfreed; i++)
		good &= !sl.refs[sl.freed[i]] && is_mine_alone(sl.freed[i]);
	return good;
}
#endif

/* --- the family --- */

static int new_member(void)
{
	uint64_t members = atomic_load(&sl.family->members);

	for (unsigned m = 0; m < MEMBERS; m++)
		while (!(members & bit(m)))
			if (atomic_compare_exchange_weak(&sl.family->members, &members,
							 members | bit(m)))
				return (int)m;
	return -EAGAIN;
}

int slot_fork(void)
{
	if (sl.life < 0)
		return -ENOTSUP;
	int m = new_member();
	if (m < 0)
		return m;
	int life = k_reopen(sl.fd);
	int err = life < 0 ? life : k_lock_byte(life, (uint64_t)m);
	if (err) {
		/* The number may be another's by now; if not, it is found dead. */
		if (life >= 0)
			close(life);
		return err;
	}
	atomic_fetch_add(&sl.family->births[m], 1);
	/* Somebody who looked for the dead may have taken the number back before it was locked. */
	atomic_fetch_or(&sl.family->members, bit((unsigned)m));
	for (uint64_t s = 0; s < sl.family->high; s++)
		if (sl.refs[s])
			atomic_fetch_or(sl.owners + s, bit((unsigned)m));
	sl.next = (unsigned)m;
	return life;
}

void slot_forked(void)
{
	sl.me = sl.next;
	sl.fd = sl.life = -1;
	sl.nfreed = sl.nused = 0;
	memset(sl.refs, 0, sl.family->high * sizeof(*sl.refs));
}

void slot_attach(int memfd, int life)
{
	sl.fd = memfd;
	sl.life = life;
	/* What the parent's transfers without a block held is none of ours, nor what is given back
	 * already. */
	for (uint64_t s = 0; s < sl.family->high; s++)
		if (!sl.refs[s] && atomic_load(sl.owners + s) & bit(sl.me))
			leave((uint32_t)s);
}

void slot_forget(void)
{
	memset(&sl, 0, sizeof(sl));
	sl.fd = sl.life = -1;
}

/* all: what it had sent cannot come any more. Returns whether something is left. */
static bool take_over(unsigned dead, bool all)
{
	uint64_t gone = bit(dead) | (all ? BUSY : 0);
	bool left = false;

	for (uint64_t s = 0; s < sl.family->high; s++) {
		uint64_t owners = atomic_load_explicit(sl.owners + s, memory_order_relaxed);
		if (!(owners & bit(dead)))
			continue;
		if (!all && owners == (bit(dead) | BUSY)) {
			left = true;
			continue;
		}
		if (!(atomic_fetch_and(sl.owners + s, ~gone) & ~gone) && claim(s) != NO_SLOT) {
			sl.refs[s] = 0;
			push_freed((uint32_t)s);
		}
	}
	return left;
}

void slot_reap(uint64_t grace)
{
	if (sl.life < 0)
		return;
	/* Found so by the call before, or earlier: since when, and at what birth. */
	static uint64_t dead, since[MEMBERS];
	static uint32_t birth[MEMBERS];
	uint64_t others = atomic_load(&sl.family->members) & ~bit(sl.me), was_dead = dead;
	uint64_t now = k_now_ns();

	dead = 0;
	for (unsigned m = 0; others && m < MEMBERS; m++) {
		if (!(others & bit(m)) || k_lock_byte(sl.life, m))
			continue;
		/* We are the only one, and the number is not given out before it is unlocked. */
		uint32_t born = atomic_load(&sl.family->births[m]);
		if (!(was_dead & bit(m)) || birth[m] != born) {
			birth[m] = born;
			since[m] = now;
			dead |= bit(m);
		} else if (atomic_load(&sl.family->members) & bit(m)) {
			if (take_over(m, now - since[m] >= grace))
				dead |= bit(m);
			else
				atomic_fetch_and(&sl.family->members, ~bit(m));
		}
		k_unlock_byte(sl.life, m);
	}
}
