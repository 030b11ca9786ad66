/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The budget (local.limit), and the limit that the engine keeps to: a little less where it
 * needs room for itself. A budget that grows counts at once. One that shrinks is followed by the
 * limit in steps, each as far as eviction has come, so that a program that waits for a page
 * meanwhile finds a free frame and not a queue of evictions.
 * Under engine.lock, but for budget_init and budget_ceiling.
 */
#ifndef EMF_BUDGET_H
#define EMF_BUDGET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* From the settings, once. */
void budget_init(void);
/* The engine starts, and knows now what the kernel can do. */
void budget_boot(void);
/* Sets up replacement, prefetch and the reserve of frames for it. */
void budget_reserve(void);
/* There is room for no more frames than for what it is. */
void budget_fix_ceiling(void);
/* What it can be in this process: frames are reserved for that when the engine starts. */
uint64_t budget_ceiling(void);
/* Less can't work. */
uint64_t budget_least(void);
/* Changes it, within what can work. Returns what it is now. */
uint64_t budget_set(uint64_t bytes);
/* local.high or local.low have changed. */
void budget_marks(void);
/* By the mover, each round. */
void budget_follow(void);
/* What is managed does not fit (only in doubt while the engine does not run). */
bool budget_exceeded(void);

#endif
