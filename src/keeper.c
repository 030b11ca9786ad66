/* SPDX-License-Identifier: Apache-2.0 */
#include "keeper.h"

#include <stdlib.h>

#include "engine.h"

#define INTERVAL_NS 500000000ull

static _Atomic uint32_t over; /* changes when there is something to do */
static _Atomic bool dismissed;

void *keeper_main(void *unused)
{
	(void)unused;
	while (!over)
		word_wait(&over, 0, -1);
	if (!dismissed)
		exit(0);
	return NULL;
}

void keeper_dismiss(void)
{
	dismissed = true;
	word_signal(&over);
}

void keeper_look(void)
{
	static uint64_t next;
	uint64_t now = k_now_ns();

	if (now < next)
		return;
	next = now + INTERVAL_NS;
	/* The dead main thread is still counted. */
	if (k_main_thread_gone() && k_threads() == ENGINE_THREADS + 1u + engine.store_thread)
		word_signal(&over);
}
