/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Members whose room is given out in places, a column each: places.c (who has what), weight.c (who
 * gets how much), resettle.c (moves between members). The transfers are pool.c's, or redundant.c's,
 * where a slot has no two columns on one member.
 */
#ifndef EMF_POOL_INT_H
#define EMF_POOL_INT_H

#include <stdatomic.h>
#include <stdbool.h>

#include "../provider/io.h"
#include "pool.h"
#include "store.h"

#ifndef SLOT
#define SLOT (2u << 20)
#endif

/*
 * A place, as the table has it; 0: none. The mark is set while what is there is moved: a write
 * takes it away, and the move comes to nothing.
 */
#define PLACE_SHIFT 26
#define PLACE_MOVES (1u << 31)
#define PLACE(member, index) (((uint32_t)(member) + 1u) << PLACE_SHIFT | (index))
#define PLACE_MEMBER(p) (((p) >> PLACE_SHIFT) - 1u)
#define PLACE_INDEX(p) ((p) & ((1u << PLACE_SHIFT) - 1))

/* Who is at a slot, in this process. */
#define READER 1u
#define WRITER 0x10000u
#define READERS 0xffffu

/* The time in which a new member comes to its full share, in so many steps. */
#define RAMP_NS 8000000000ull
#define RAMP_STEPS 16u

/* Of a member that is as fast as any and has room. */
#define POOL_WEIGHT 256u
/* Columns: of less on a member it says nothing that another has fewer. */
#define POOL_MANY 16u

enum member_state {
	MEMBER_NONE,
	MEMBER_USED,
	MEMBER_FILLING,	 /* new: gets its share of what is there */
	MEMBER_DRAINING, /* nothing is written to it any more */
	MEMBER_LEAVING,	 /* nothing is on it; queues close theirs */
};

/* What was seen of a member's statistics, and what follows: bytes a second. */
struct speed {
	uint64_t bytes, ns, rate;
	unsigned samples;
};

struct member {
	struct emf_backend *be;
	uint32_t units;
	_Atomic uint64_t *taken; /* a bit for each place; shared with children */
	uint64_t since;		 /* ns: when it joined; 0: at the start */
	_Atomic uint32_t state;
	_Atomic uint32_t queues; /* that have one of it open */
	_Atomic uint32_t weight; /* by its speed: up to POOL_WEIGHT */
	struct speed speed;	 /* who has `weighing` */
	uint32_t behind;	 /* places that have been left: the store's thread's */
	bool again;		 /* it was looked at once more before it was left */
};

/* What forked children share, beside the table and `taken`. */
struct pool_shared {
	_Atomic uint32_t changed; /* not all is at home any more, or will be */
	_Atomic uint32_t used[STORE_LEAVES], hand[STORE_LEAVES];
	_Atomic uint64_t high; /* no slot from here on was ever written */
};

struct pool;

/* What is another matter where slots are redundant. */
struct pool_kind {
	/* Where it lies until the first change. */
	uint32_t (*home)(const struct pool *p, uint64_t slot, unsigned column);
	/* What was written of it: [*begin, *end); false: nothing. */
	bool (*written)(const struct pool *p, uint64_t slot, unsigned column, size_t *begin,
			size_t *end);
	/* Reads it, from its place or made from the others, and verifies that. *moved: bytes. */
	int (*source)(struct pool *p, uint64_t slot, unsigned column, uint32_t place, size_t within,
		      size_t length, char *buf, uint64_t *moved);
	/* In the table, if `is` is what it has. *doubt: something may still be written there. */
	bool (*replace)(struct pool *p, uint64_t slot, unsigned column, uint32_t is, uint32_t to,
			bool *doubt);
	void (*publish)(struct pool *p);
	/* Nothing is on it any more. */
	void (*left)(struct pool *p, unsigned member);
};

struct pool {
	struct emf_backend be;
	const struct pool_kind *kind; /* NULL: a stripe */
	struct spread_options o;
	struct emf_backend *sums;
	_Atomic uint32_t n;	     /* no member from here on ever was */
	unsigned nhome;		     /* members at the start */
	unsigned columns;	     /* of a slot */
	uint64_t unit, slots, homes; /* homes: so many slots have one */
	int ready_fd;
	_Atomic uint32_t generation; /* of the members' states that queues go by */
	struct pool_shared *shared;
	_Atomic uint32_t *place;   /* of each column of each slot; shared */
	_Atomic uint32_t *users;   /* of each slot */
	_Atomic uint32_t *extent;  /* what was written: first page, and how many above bit 16 */
	struct resettle *resettle; /* the store's thread's */
	_Atomic uint64_t weigh_at; /* ns */
	_Atomic uint32_t weighing; /* somebody does */
	unsigned unlike;	   /* so often in a row members were not as fast as others */
	struct member member[STORE_LEAVES];
};

static inline bool pool_is_state(const struct pool *p, unsigned i, enum member_state s)
{
	return atomic_load(&p->member[i].state) == (uint32_t)s;
}

static inline _Atomic uint32_t *pool_place(const struct pool *p, uint64_t slot, unsigned column)
{
	return &p->place[slot * p->columns + column];
}

/* May it be written to? */
static inline bool pool_is_open(const struct pool *p, unsigned i)
{
	return pool_is_state(p, i, MEMBER_USED) || pool_is_state(p, i, MEMBER_FILLING);
}

/* Without the mark. */
static inline uint32_t pool_look(const struct pool *p, uint64_t slot, unsigned column)
{
	return atomic_load(pool_place(p, slot, column)) & ~PLACE_MOVES;
}

/* Does the slot have a column there? */
static inline bool pool_has_column(const struct pool *p, uint64_t slot, unsigned member)
{
	for (unsigned c = 0; c < p->columns; c++) {
		uint32_t place = pool_look(p, slot, c);

		if (place && PLACE_MEMBER(place) == member)
			return true;
	}
	return false;
}

/*
 * What a queue has of members: whose queues it opens, closes and polls. pool_see_members: outside
 * of any member's own poll if may_close; whose queue is NULL does not answer.
 */
struct pool_queues {
	enum emf_queue_kind kind;
	unsigned depth;
	uint32_t generation;
};
int pool_open_queues(struct pool *p, struct pool_queues *pq, struct emf_queue **member);
void pool_see_members(struct pool *p, struct pool_queues *pq, struct emf_queue **member,
		      const struct io_list *waiting, bool may_close);
/* They are closed. */
void pool_leave_queues(struct pool *p, struct emf_queue *const *member);

/* unit, columns, slots and o are set. On error pool_end is still the caller's to call. */
int pool_init(struct pool *p, struct emf_backend *const *member, unsigned n);
void pool_end(struct pool *p);
/* In a forked child. */
int pool_go_on(struct pool *p);
/* To how many slots it may grow. */
uint64_t pool_slots_ever(uint64_t now);
void pool_note_high(struct pool *p, uint64_t slot);

/* A free place of the member; 0: there is none. */
uint32_t pool_claim(struct pool *p, unsigned member);
bool pool_claim_at(struct pool *p, unsigned member, uint32_t index);
void pool_release(struct pool *p, uint32_t place);
/* 1 to RAMP_STEPS: how much of its share a member gets by now. */
unsigned pool_share(const struct pool *p, unsigned member, uint64_t now);
void resettle_end(struct pool *p);
/* Bytes that are to be moved, from it or to it. */
uint64_t resettle_left(const struct pool *p, unsigned member);
/* By the store's thread: one transfer, waited for. */
int resettle_transfer(struct pool *p, enum emf_op op, uint32_t place, size_t within, size_t length,
		      char *buf);

/* Looks, once in a while, at how fast members have been. Any thread. */
void pool_weigh(struct pool *p, uint64_t now);
/* The statistics are others. */
void pool_weigh_anew(struct pool *p);
/* Of what is written: by speed and room, at least 1. */
uint32_t pool_weight(const struct pool *p, unsigned i);
/* How many columns it would have if all had theirs by speed, as far as its room goes. */
uint32_t pool_fair_share(const struct pool *p, unsigned member);
/* Has it much room, and by its speed much less than the other? */
bool pool_is_lighter(const struct pool *p, unsigned i, unsigned than);

#endif
