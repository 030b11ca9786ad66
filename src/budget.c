/* SPDX-License-Identifier: Apache-2.0 */
#include "budget.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "config_memory.h"
#include "engine.h"
#include "env.h"
#include "log.h"
#include "policy/policy.h"
#include "region.h"

/* Less than this and a program can't hold what one instruction and its neighbours touch. */
#define LIMIT_MIN (4 * BLOCK_SIZE)

/*
 * Without MOVE a block is twice in memory while it is copied: at most one by the
 * mover and one by the fault thread, for which the budget keeps room.
 */
#define COPY_SLACK (2 * BLOCK_SIZE)

/* A shrinking limit is so far ahead of eviction: little beside what is local, but worth a round. */
#define STEP_MIN (8 * BLOCK_SIZE)
#define STEP_SHARE 64

static uint64_t ceiling = UINT64_MAX; /* where address space is short */
static uint64_t goal;		      /* what engine.limit is on its way to */

static uint64_t usable(uint64_t budget)
{
	if (engine.uffd.move || engine.phase == PHASE_IDLE)
		return budget;
	return budget - (budget > 2 * COPY_SLACK ? COPY_SLACK : budget / 2);
}

static void set_marks(uint64_t limit)
{
	size_t blocks = limit >> BLOCK_SHIFT;

	engine.reserve_low = blocks * (100 - engine.config.high) / 100;
	engine.reserve_high = blocks * (100 - engine.config.low) / 100;
	/*
	 * Prefetch leaves two to who waits already (mover.c), and would stop for good where nobody
	 * makes more than these. In a small budget one more is worth less than what it holds.
	 */
	size_t least = blocks < 16 ? 1 : blocks < 96 ? 2 : 3;
	if (engine.reserve_low < least)
		engine.reserve_low = least;
	if (engine.reserve_high < engine.reserve_low + 1)
		engine.reserve_high = engine.reserve_low + 1;
}

/* For replacement and prefetch: the blocks that stay when the reserve is kept free. */
static size_t holds(uint64_t limit)
{
	size_t blocks = limit >> BLOCK_SHIFT;

	return blocks > engine.reserve_high ? blocks - engine.reserve_high : 1;
}

void budget_reserve(void)
{
	set_marks(goal);
	policy_init(holds(goal));
	prefetch_init(goal >> BLOCK_SHIFT);
}

uint64_t budget_least(void)
{
	return LIMIT_MIN;
}

void budget_init(void)
{
	memory_set_root(env_get("EMFATIER_MEMORY_ROOT"));
	engine.budget = config_limit_bytes(&engine.config);
	if (engine.budget < LIMIT_MIN) {
		log_info("local.limit is below the smallest that can work and was raised to %luM",
			 LIMIT_MIN >> 20);
		engine.budget = LIMIT_MIN;
	}
	engine.limit = goal = engine.budget;
}

void budget_boot(void)
{
	engine.limit = goal = usable(engine.budget);
	budget_reserve();
}

void budget_fix_ceiling(void)
{
	ceiling = engine.budget;
}

uint64_t budget_ceiling(void)
{
	static uint64_t host;
	struct memory_limit memory;

	if (!host) {
		memory_limit_read(memory_root(), &memory);
		host = memory.host;
	}
	uint64_t most = engine.budget > host ? engine.budget : host;
	return most < ceiling ? most : ceiling;
}

uint64_t budget_set(uint64_t bytes)
{
	engine.budget = bytes < LIMIT_MIN ? LIMIT_MIN : bytes;
	goal = usable(engine.budget);
	atomic_store(&engine.stats->local_limit, engine.budget);
	set_marks(goal);
	policy_init(holds(goal));
	prefetch_init(goal >> BLOCK_SHIFT);
	if (engine.phase != PHASE_ACTIVE || goal > engine.limit)
		engine.limit = goal;
	else
		engine_kick_mover();
	return engine.budget;
}

void budget_marks(void)
{
	budget_set(engine.budget);
}

void budget_follow(void)
{
	uint64_t step = engine.limit / STEP_SHARE;

	if (engine.limit <= goal || engine.local > engine.limit)
		return;
	if (step < STEP_MIN)
		step = STEP_MIN;
	/* Where it was not used up there is nothing to wait for. */
	if (engine.limit > engine.local)
		engine.limit = engine.local;
	engine.limit = engine.limit > goal + step ? engine.limit - step : goal;
}

bool budget_exceeded(void)
{
	return region_bytes() > engine.limit / 100 * engine.config.high;
}
