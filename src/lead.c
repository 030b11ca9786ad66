/* SPDX-License-Identifier: Apache-2.0 */
#include "lead.h"

#include <stdatomic.h>
#include <string.h>

#include "engine.h"
#include "env.h"
#include "kernel.h"
#include "sigfault.h"

#define DEPTH 32 /* demand reads in flight of each; more faults than that wait their turn */
#define MOST 4
#define CORES 2	 /* for each: the program is to have some, too */
#define ALONE 16 /* faults in a row of one thread */

static struct server servers[MOST];
static unsigned count = 1;
static _Atomic unsigned joined = 1;
static struct server *_Atomic leader = servers; /* NULL: the next that would wait */
static pid_t last;
static unsigned alone; /* faults in a row of that thread */

void lead_after_fork(void)
{
	memset(servers, 0, sizeof(servers));
	count = joined = 1;
	leader = servers;
	last = 0;
	alone = 0;
}

int lead_open(void)
{
	return transfer_pool_init(&servers[0].pool, EMF_QUEUE_DEMAND, DEPTH);
}

static unsigned wanted(void)
{
	const char *forced = env_get("EMFATIER_FAULT_THREADS"); /* a digit, in tests of the whole */
	unsigned n = k_cores() / CORES;

	if (forced && *forced >= '1' && *forced <= '9')
		n = (unsigned)(*forced - '0');
	/* There who takes a turn is the fault thread, with the one queue. */
	if (sigfault_on() || !n)
		return 1;
	return n < MOST ? n : MOST;
}

void lead_open_more(void)
{
	unsigned n = wanted();

	for (unsigned i = 0; n > 1 && i < n; i++) {
		struct server *s = servers + i;
		s->event = k_eventfd();
		if (s->event < 0 || (i && transfer_pool_init(&s->pool, EMF_QUEUE_DEMAND, DEPTH)))
			return;
		count = i + 1;
	}
}

unsigned lead_count(void)
{
	return count;
}

struct server *lead_first(void)
{
	return servers;
}

struct server *lead_join(void)
{
	return servers + atomic_fetch_add(&joined, 1);
}

bool lead_is(const struct server *s)
{
	return leader == s;
}

bool lead_wait(struct server *s)
{
	if (leader == s)
		return true;
	lock_take(&engine.lock);
	lead_back(s);
	bool leads = leader == s;
	s->waits = !leads;
	lock_give(&engine.lock);
	return leads;
}

bool lead_waited(struct server *s)
{
	if (leader == s)
		return true;
	lock_take(&engine.lock);
	s->waits = false;
	lock_give(&engine.lock);
	return leader == s;
}

void lead_note(pid_t tid)
{
	alone = tid && tid == last ? alone + 1 : 0;
	last = tid;
}

/* Who waits, with the least in flight; of these the first. */
static struct server *next(void)
{
	struct server *to = NULL;

	for (struct server *s = servers; s < servers + count; s++)
		if (s->waits && s->pool.free && (!to || s->pool.inflight < to->pool.inflight))
			to = s;
	return to;
}

static void lead(struct server *to)
{
	leader = to;
	if (!to)
		return;
	to->waits = false;
	k_eventfd_signal(to->event);
}

void lead_on(struct server *s)
{
	if (count > 1 && leader == s && !s->keeps && alone < ALONE)
		lead(next());
}

void lead_back(struct server *s)
{
	if (!leader)
		leader = s;
}

void lead_home(struct server *s)
{
	if (leader == s && s != servers && alone >= ALONE && servers[0].waits &&
	    servers[0].pool.free)
		lead(servers);
}

void lead_elsewhere(struct server *s)
{
	struct server *to = s->keeps ? NULL : next();

	if (to)
		lead(to);
}

bool lead_stuck(void)
{
	for (const struct server *s = servers; s < servers + joined; s++)
		if (!transfer_stuck(&s->pool))
			return false;
	return true;
}
