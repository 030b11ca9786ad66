/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The mover thread: keeps frames free (evicts, checks, writes out, drops), fetches
 * ahead, pulls what structural operations ask for, trims, and does the random
 * evictions of engine.chaos. It owns the bulk queue and all waiting for it.
 */
#ifndef EMF_MOVER_H
#define EMF_MOVER_H

#include <stddef.h>

/* Starts the engine (engine_boot), then moves. */
void *mover_main(void *unused);
int mover_open(void);
/* Any runtime thread: there is something to do. */
void mover_kick(void);
/* Under engine.lock: transfers that it has under way. */
size_t mover_inflight(void);
void mover_after_fork(void);

#endif
