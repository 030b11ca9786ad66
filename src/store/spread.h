/* SPDX-License-Identifier: Apache-2.0 */
/* What the links are told that lay slots out over members: redundant.h and pool.h. */
#ifndef EMF_SPREAD_H
#define EMF_SPREAD_H

#include <stdbool.h>
#include <stdint.h>

#include "codec/codec.h"
#include "emfatier-stats.h"

struct spread_options {
	/* Pool: as stripe_open's; columns are at most a slot. Mirror: a read is spread over the
	 * copies in such pieces. */
	uint64_t unit;
	unsigned timeout_ms;
	uint64_t rate; /* of what is rebuilt, or moved, bytes a second; 0: as fast as it goes */
	struct emf_store_stats *stats; /* of the members, or NULL */
	int wake_fd; /* raised when there is something to do for the work function */
	/*
	 * By the store's thread, around the rebuild or the moves of a slot: hold returns false when
	 * the slot is in nobody's use (a pool forgets it then), and else sees to it that it is
	 * neither written nor trimmed before release. NULL: all are. One write may have been on
	 * its way when it was held.
	 */
	bool (*hold)(uint64_t slot);
	void (*release)(uint64_t slot);

	/* Redundancy. */
	unsigned k, m;
	const struct emf_parity *codec; /* for k > 1 */

	/* Members that come and go. */
	bool live;		/* redundancy: more may come; a pool is there for nothing else */
	bool (*alone)(void);	/* no children share the store; NULL: so it is */
	void (*still)(bool on); /* around what no fork may come into; NULL: none comes */
	/* Any thread: before anything lies elsewhere than a stripe has it; not by pool_open. NULL:
	 * nobody wants to know. */
	void (*scattered)(void);
};

#endif
