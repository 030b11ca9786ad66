/* SPDX-License-Identifier: Apache-2.0 */
#include "keeper.h"

#include "trace.h"

#include <stdlib.h>

#include "engine.h"
#include "identity.h"

#define INTERVAL_NS 500000000ull

static _Atomic uint32_t over; /* changes when there is something to do */
static _Atomic bool running, dismissed;

static void *keeper_main(void *unused)
{
	(void)unused;
	identity_begin();
	while (!over)
		word_wait(&over, 0, -1);
	if (!dismissed)
		exit(0);
	return NULL;
}

bool keeper_start(bool must)
{
	if (atomic_exchange(&running, true))
		return true;
	if (must ? engine_spawn(keeper_main) : engine_try_spawn(keeper_main))
		return true;
	running = false;
	return false;
}

void keeper_after_fork(void)
{
	running = dismissed = false;
	over = 0;
}

void keeper_dismiss(void)
{
	dismissed = true;
	word_signal(&over);
}

void keeper_look_alone(void)
{
	if (k_main_thread_gone() && k_threads() == 2)
		exit(0);
}

void keeper_look(void)
{
	static uint64_t next;
	uint64_t now = k_now_ns();

	if (now < next)
		return;
	next = now + INTERVAL_NS;
	/* The dead main thread is still counted. */
	if (k_main_thread_gone() && k_threads() == engine.threads + 1)
		word_signal(&over);
}
