/* SPDX-License-Identifier: Apache-2.0 */
/*
 * local.limit=auto: how large the budget should be, from what pressure.h sees about once a
 * second. It shrinks at once when memory is short and grows back slowly when it is not.
 *
 *  - It is at most 80% of what the process may use, less what of the process is not managed.
 *  - It is at most what is local now and what there is room for, less a margin: filled up to that,
 *    nobody's memory would have to be taken. As more local memory means less room, that does not
 *    move by the process's own doing, only by what others do.
 *  - While tasks wait for memory (PSI) and there is not plenty of it, it goes down a sixteenth a
 *    step. Each time that happens again soon after it had grown back, it waits twice as long
 *    before it grows, so that it comes to rest below what was too much.
 *
 * No system calls, no locks, no state but its own: one thread.
 */
#ifndef EMF_GOVERNOR_H
#define EMF_GOVERNOR_H

#include <stdbool.h>
#include <stdint.h>

#include "pressure.h"

struct governor {
	uint64_t budget;   /* the last answer; 0: none yet */
	uint64_t squeeze;  /* bytes that pressure has taken off */
	uint64_t stall_us; /* of the last look */
	uint64_t at;	   /* ns, of the last look */
	uint64_t quiet;	   /* ns: no pressure since then */
	uint64_t patience; /* ns of quiet before it grows */
	bool grown;	   /* since the last pressure */
};

/* now: ns. local: bytes that the budget holds now. Returns the budget. */
uint64_t governor_step(struct governor *g, const struct memory_sample *s, uint64_t local,
		       uint64_t budget, uint64_t now);

#endif
