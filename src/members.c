/* SPDX-License-Identifier: Apache-2.0 */
#include "members.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "control.h"
#include "engine.h"
#include "log.h"
#include "store/ready.h"

#define TURN_MS 5
#define ANSWER_MS 15000 /* to find and open a store takes a while */

bool members_parse(const char *text, bool *drain, const char **uri)
{
	static const char add[] = "store add ", drained[] = "store drain ";

	*drain = !strncmp(text, drained, sizeof(drained) - 1);
	*uri = text + (*drain ? sizeof(drained) : sizeof(add)) - 1;
	return (*drain || !strncmp(text, add, sizeof(add) - 1)) && **uri;
}

/* The descriptor is of the table of the runtime's other threads. */
static long op_wake(uintptr_t start, uintptr_t end, unsigned why)
{
	(void)start;
	(void)end;
	(void)why;
	signal_raise(engine.store.wake_fd);
	return 0;
}

static const char *cannot(void)
{
	if (atomic_load(&engine.phase) != PHASE_ACTIVE)
		return "its memory fits, and no store is open yet; start it with the stores";
	if (engine.store.hierarchy)
		return "with tiers stores can't come or go while it runs";
	return engine.store.live ? NULL
				 : "stores come and go only where a server or a file was named "
				   "(nbd://, rdma://, file:)";
}

/* Without engine.ops: a program thread may hold what it takes to load a provider. */
static bool ask_and_wait(bool drain, const char *uri, int *rc, unsigned *index, char *why,
			 size_t len)
{
	if (!store_change_ask(&engine.store, drain, uri)) {
		/* Nobody has waited for the answer before. */
		store_change_answer(&engine.store, rc, index, why, len);
		if (!store_change_ask(&engine.store, drain, uri))
			return false;
	}
	control_call(op_wake, 0, 0, 0, false);
	for (unsigned ms = 0; ms < ANSWER_MS; ms += TURN_MS) {
		if (store_change_answer(&engine.store, rc, index, why, len))
			return true;
		poll(NULL, 0, TURN_MS);
	}
	return false;
}

bool members_change(const char *text, char *why, size_t len, uint32_t *number)
{
	const char *uri, *no = cannot();
	unsigned index = 0;
	int rc = 0;
	bool drain, answered;

	if (no || !members_parse(text, &drain, &uri)) {
		snprintf(why, len, "%s", no ? no : "not a change of stores");
		return false;
	}
	lock_give(&engine.ops);
	answered = ask_and_wait(drain, uri, &rc, &index, why, len);
	lock_take(&engine.ops);
	if (!answered)
		snprintf(
		    why, len,
		    "its store does not answer in time; tierstat stores tells what becomes of it");
	if (!answered || rc)
		return false;
	log_info("store %s: %s", engine.stats->store[index].uri,
		 drain ? "is being drained" : "has joined");
	*number = index + 1;
	return true;
}
