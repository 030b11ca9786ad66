/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The patrol over a redundant set: reads what nobody reads, so that what was damaged on its way to
 * a member, or is gone with one that has died unnoticed, is made good while the others still have
 * it. What was written lately comes first, then round after round over the rest; after anything
 * strange what was written lately is looked at as fast as a rebuild goes.
 */
#ifndef EMF_PATROL_H
#define EMF_PATROL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct redundant;

struct patrol {
	_Atomic uint64_t *fresh; /* a bit for each slot: written, and not looked at since */
	_Atomic int64_t nfresh;
	_Atomic bool news;  /* something was written since the round began */
	_Atomic bool alarm; /* something was late, wrong or away */
	/* the store's thread's */
	uint64_t hand, round_hand; /* the next slots */
	uint64_t left;		   /* slots of the round */
	unsigned turn;
	uint64_t ended, took; /* ns: the last look */
	uint64_t moved;	      /* bytes, by it */
	uint64_t alert_until; /* ns */
	bool failed;	      /* the last look: somebody did not answer */
	_Atomic bool rests;
};

int patrol_open(struct redundant *r);
void patrol_close(struct redundant *r);
/* In a forked child: what the parent wrote is the parent's to look at. */
void patrol_forked(struct redundant *r);

/* Any thread. The slot was written, or is to be looked at soon for another reason. */
void patrol_note(struct redundant *r, uint64_t slot);
/* Any thread: a member may be ill. */
void patrol_alarm(struct redundant *r);

#endif
