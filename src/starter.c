/* SPDX-License-Identifier: Apache-2.0 */
#include "starter.h"

#include <sys/prctl.h>

#include "engine.h"
#include "identity.h"
#include "keeper.h"

/* How long a program whose main thread has ended may outlive its last thread. */
#define LOOK_MS 1000

static _Atomic bool ready;
static _Atomic uint32_t asked;

static void *starter_main(void *unused)
{
	(void)unused;
	prctl(PR_SET_NAME, "emf-starter", 0, 0, 0);
	engine_thread = true;
	identity_begin();
	while (!atomic_load(&asked)) {
		word_wait(&asked, 0, LOOK_MS);
		keeper_look_alone();
	}
	engine_start();
	return NULL;
}

bool starter_make(void)
{
	if (!starter_ready() && engine_spawn(starter_main))
		atomic_store(&ready, true);
	return starter_ready();
}

bool starter_ready(void)
{
	return atomic_load(&ready);
}

void starter_ask(void)
{
	word_signal(&asked);
}

void starter_after_fork(void)
{
	ready = false;
	asked = 0;
}
