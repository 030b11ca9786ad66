/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The link that spreads slots over members that come and go. It takes the stripe link's place
 * where a process may change its stores while it runs, and begins as that: column c of a slot (a
 * unit of the stripe) lies at home, where the stripe link would have it. Where a column lies is in
 * a table, so that from the first change on, or where members differ in size or come to differ in
 * speed, it may be anywhere: new columns are given out by weight (weight.c) to the members that
 * have room and answer, and pool_work moves those that are there, at most `rate` bytes a second:
 * away from a member that is drained, and onto one that is new, until all have as many, by their
 * speed. A new one is given more from second to second (RAMP_NS), both of what is written and of
 * what is moved.
 *
 * A column is moved in this order: it is read and verified by the checksum link above, written to
 * its new place, read from there and verified; then the table says so; and when nobody is at the
 * old place any more that is trimmed and given back. Until then reads find it there.
 *
 * The tables are shared with forked children. They know no members that came after the fork: so
 * while there are children nothing is added, and a drain waits for them to end.
 *
 * Transfers lie within one slot; a write replaces the slot. Threads: as in emfatier-provider.h.
 */
#ifndef EMF_POOL_H
#define EMF_POOL_H

#include "emfatier-provider.h"
#include "spread.h"

/* member: reconnect links. -ENOSPC: no room for one slot. */
int pool_open(struct emf_backend *const *member, unsigned n, const struct spread_options *o,
	      struct emf_backend **out);
/* The checksum link above that knows what is stored, before the first queue is opened. */
void pool_set_sums(struct emf_backend *be, struct emf_backend *sums);
void pool_forked(struct emf_backend *be, struct emf_store_stats *stats, int wake_fd);

/* May slots lie elsewhere than a stripe has them? */
bool pool_is_scattered(const struct emf_backend *be);
/* Bytes that there is room for now; the backend's size is what there ever can be. */
uint64_t pool_capacity(const struct emf_backend *be);
uint64_t pool_used(const struct emf_backend *be, unsigned member);

/* --- by the store's thread --- */

/* A member under a number that none has. -ENOTSUP: what it is differs too much from the others. */
int pool_add(struct emf_backend *be, unsigned i, struct emf_backend *member);
/*
 * Begins. -ENOSPC: the others have no room for what it has (pool_used, pool_free); -ENODEV: there
 * is no other; -ENOTCONN: it does not answer; -EALREADY: it is drained, or just filled.
 */
int pool_drain(struct emf_backend *be, unsigned i);
uint64_t pool_free(const struct emf_backend *be, unsigned but);
/* Nothing is on it, and no queue uses it any more: what it is may be closed. */
bool pool_has_left(const struct emf_backend *be, unsigned i);
void pool_remove(struct emf_backend *be, unsigned i);
/* Is it, or will it be, left? Nobody needs a connection to it. */
bool pool_is_leaving(const struct emf_backend *be, unsigned i);
/* Does a little; returns when to come again (ns), UINT64_MAX: when woken. */
uint64_t pool_work(struct emf_backend *be, uint64_t now);

#endif
