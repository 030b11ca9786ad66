/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which blocks belong on the slow node for good (`place` of a class): all (bind), every second
 * one (interleave), a percentage, or, where a region is swept, as much as makes sweeps fastest by
 * the bandwidths of local memory and of the node (weighted; bandwidth.h), spread evenly: so both
 * are read at once. They are brought there even while the budget has room, at most store.rebuild
 * a second, and are not promoted, for a sweep uses all alike.
 *
 * That a region is swept is seen by the policies where it is fetched (does=swept), and here where
 * all of it is mapped: the blocks that are sampled in place are come back to in order.
 *
 * Under engine.lock but interleave_init.
 */
#ifndef EMF_INTERLEAVE_H
#define EMF_INTERLEAVE_H

#include <stdbool.h>

struct block;

/* At the start of the engine. Measures, once, where a class wants that. */
void interleave_init(int node);
void interleave_after_fork(void);
bool interleave_belongs(const struct block *b);
/* It was sampled, and the program has come to it. */
void interleave_touched(struct block *b);
/* One that is local and belongs there, or NULL: none of those that were looked at. */
struct block *interleave_next(void);
/* To bring it there, that is, with or without success: another one is next. */
void interleave_tried(bool brought);
/* Are there more to look at soon? */
bool interleave_is_busy(void);

#endif
