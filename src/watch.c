/* SPDX-License-Identifier: Apache-2.0 */
#include "watch.h"

#include <poll.h>
#include <string.h>

#include "budget.h"
#include "config_memory.h"
#include "engine.h"
#include "governor.h"
#include "keeper.h"
#include "live.h"
#include "log.h"
#include "mailbox.h"
#include "region.h"

#define MUCH (32ul << 20) /* worth two sleeping threads */
#define INTERVAL_MS 1000
#define INTERVAL_NS (INTERVAL_MS * 1000000ull)

static _Atomic bool running;
static struct governor governor;
static uint64_t last;

/* Not while a fork copies it. */
static void set_budget(uint64_t bytes)
{
	uint64_t ceiling = budget_ceiling(), before, now;

	lock_take(&engine.ops);
	lock_take(&engine.lock);
	while (engine.forking)
		engine_wait_settled();
	before = engine.budget;
	now = budget_set(bytes > ceiling ? ceiling : bytes);
	lock_give(&engine.lock);
	lock_give(&engine.ops);
	if (now != before)
		log_debug("local.limit: from %lu to %lu MiB", (unsigned long)(before >> 20),
			  (unsigned long)(now >> 20));
}

static uint64_t wanted(uint64_t now)
{
	struct memory_sample sample;
	uint64_t local;

	if (!engine.config.limit.automatic)
		return config_limit_bytes(&engine.config);
	pressure_read(memory_root(), &sample);
	lock_take(&engine.lock);
	/* Before anything is registered local is what could be, not what is. */
	local = engine.local < sample.rss ? engine.local : sample.rss;
	lock_give(&engine.lock);
	return governor_step(&governor, &sample, local, engine.budget, now);
}

static void follow(void)
{
	uint64_t now = k_now_ns(), bytes;

	if (!engine.config.limit.percent || now - last < INTERVAL_NS / 2)
		return;
	last = now;
	bytes = wanted(now);
	if (bytes != engine.budget)
		set_budget(bytes);
}

static void *watch_main(void *unused)
{
	struct mailbox *m = engine.mailbox;
	int err = k_own_descriptors(NULL, 0);

	(void)unused;
	engine_thread_begin("emf-watch");
	if (err) {
		running = false;
		return NULL;
	}
	if (m)
		atomic_store(&m->attended, 1);
	while (atomic_load(&engine.phase) != PHASE_FAILED) {
		uint32_t seen = m ? atomic_load(&m->asked) : 0;

		lock_take(&engine.ops);
		live_serve();
		lock_give(&engine.ops);
		follow();
		engine_consider_start();
		if (atomic_load(&engine.phase) != PHASE_ACTIVE)
			keeper_look();
		if (m)
			k_futex_wait_shared(&m->asked, seen, INTERVAL_MS);
		else
			poll(NULL, 0, INTERVAL_MS);
	}
	if (m)
		atomic_store(&m->attended, 0);
	return NULL;
}

void watch_start(void)
{
	/* Making a thread takes memory of the program's own malloc, which may be far by now. */
	if (engine.own_malloc)
		return;
	if (!engine.mailbox && !engine.config.limit.percent)
		return;
	if (!atomic_exchange(&running, true) && !engine_try_spawn(watch_main))
		running = false;
}

void watch_consider(void)
{
	if (!running && region_bytes() >= MUCH && keeper_start(false))
		watch_start();
}

void watch_look(void)
{
	if (engine.mailbox && !running)
		live_serve();
}

void watch_after_fork(void)
{
	running = false;
	last = 0;
	memset(&governor, 0, sizeof(governor));
}
