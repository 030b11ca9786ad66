/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The runs of the simulation, and what must hold (see sim.h): what a thread reads is what was
 * written, unless the store failed; nobody waits for ever; the accounts are right; no slot
 * is lost.
 *
 *   SIM_SECONDS=N  goes on for so long (default 10)
 *   SIM_SCENARIO=N only this scenario, with all that happened before a failure; else all come first
 *   SIM_SEED=N     only this seed, with all that happened before a failure
 *   SIM_FIRST=N    the first seed of a series
 *   SIM_MODE=thread|signal  only this way of faults; else two seeds of each in turn
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "engine.h"
#include "frame.h"
#include "log.h"
#include "region.h"
#include "sim.h"
#include "slot.h"

#define SEEDS 8		/* of a scenario */
#define REAL_SECONDS 60 /* of a CPU; a run takes less than one */

struct plan plan;

static bool finished;
static struct emf_stats stats;

/* Of all runs, to see that they did something. */
static struct totals {
	uint64_t evicted, demand, standby, protect, zero, placed, promoted, prefetched, lost,
	    written, led;
	uint64_t signals, given, calls; /* engine.fault=signal */
	unsigned runs[2], failed;
} * totals;

/* --- the runtime's log --- */

bool log_open(const char *spec)
{
	(void)spec;
	return true;
}

void log_own_table(void)
{
}

void log_at(enum log_level level, const char *fmt, ...)
{
	char line[256];
	va_list ap;

	if (!tracing)
		return;
	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	trace("log %d: %s", level, line);
}

/* --- what must hold --- */

/* Slots that blocks point to, each counted once. */
static uint64_t slots_referenced(void)
{
	static uint8_t marked[1 << 16];
	struct region *r;
	uint64_t n = 0;

	memset(marked, 0, plan.slots);
	for (size_t i = 0; (r = region_at(i)); i++)
		for (size_t k = 0; k < r->nblocks; k++) {
			uint32_t s = r->blocks[k].slot;
			if (s == NO_SLOT)
				continue;
			n += !marked[s];
			marked[s] = 1;
		}
	return n;
}

/* What does not count as local has no page there. */
static void audit_placed(void)
{
	struct region *r;

	for (size_t i = 0; (r = region_at(i)); i++)
		for (size_t k = 0; k < r->nblocks; k++) {
			struct block *b = r->blocks + k;
			uintptr_t at = (uintptr_t)block_start(b);
			for (size_t n = b->placed ? BLOCK_PAGES : 0; n--; at += K_PAGE)
				if ((page_at(at)->flags & (P_PRESENT | P_SLOW)) == P_PRESENT)
					sim_fail("%#lx is local, but counts as in place", at);
		}
}

static void audit(void)
{
	if (engine.phase != PHASE_ACTIVE || engine.lock.word)
		return;
	engine_audit();
	/* While the kernel is about to tell of a change the engine can't know. */
	if (!engine.forking && !uffd_changing(&engine.uffd, NULL))
		audit_placed();
	/* One that is being trimmed is in neither, but not for long. */
	static uint64_t same_at;
	if (engine.inflight || !store_quiet()) {
		same_at = 0;
		return;
	}
	uint64_t have = slots_referenced(), used = slot_used() - slot_freed_count();
	if (have == used || !same_at)
		same_at = sim_now;
	if (have > used || sim_now - same_at > 5 * SIM_S)
		sim_fail("%lu slots are in use, blocks point to %lu", (unsigned long)used,
			 (unsigned long)have);
}

/* When the program has given up all, nothing may be left. */
static void *first(void *unused)
{
	(void)unused;
	if (plan.signal)
		signal_start();
	program_run();
	co_self->since = 0;
	plan.stuck_ios = 0;
	co_sleep(SIM_S);
	co_self->since = sim_now;
	co_self->doing = "the end of all transfers";
	while (!store_quiet() || engine.inflight)
		co_sleep(SIM_S);
	co_self->since = 0;
	if (region_count())
		sim_fail("%zu regions are left", region_count());
	for (int i = 0; i < 10; i++) {
		co_sleep(SIM_S);
		audit();
	}
	finished = true;
	return NULL;
}

static const char *state_name(unsigned s)
{
	static const char *const name[] = { "NONE",    "FILLING", "LOCAL",    "TAKING", "STANDBY",
					    "WRITING", "FAR",	  "FETCHING", "LOST" };

	return s < sizeof(name) / sizeof(name[0]) ? name[s] : "?";
}

void sim_dump(void)
{
	struct region *r;

	printf("# phase %u, budget %lu, local %lu, in flight %zu, free frames %zu, starving %zu, "
	       "leaving %zu, pulls %zu\n",
	       engine.phase, (unsigned long)engine.budget, (unsigned long)engine.local,
	       engine.inflight, frame_free_count(), engine.starving.count, engine.leaving.count,
	       engine.pulls.count);
	for (size_t i = 0; (r = region_at(i)); i++) {
		printf("# region %#lx-%#lx%s kept %u:", r->start, r->end,
		       r->registered ? "" : " (not registered)", r->kept);
		for (size_t k = 0; k < r->nblocks; k++)
			printf(" %s/%x", state_name(r->blocks[k].state), r->blocks[k].flags);
		printf("\n");
	}
}

/* --- a run --- */

static unsigned rarely(unsigned seldom, unsigned least)
{
	return chance(seldom) ? least + (unsigned)rnd_below(200) : 0;
}

static bool by_signal(uint64_t seed)
{
	const char *mode = getenv("SIM_MODE");

	return mode && *mode ? !strcmp(mode, "signal") : seed >> 1 & 1;
}

static void make_plan(uint64_t seed)
{
	plan.seed = seed;
	/* Without a number of its own: other seeds go on as they did. */
	plan.servers = seed % 2 ? 1 : 2 + (unsigned)(seed / 2 % 3);
	plan.signal = by_signal(seed);
	plan.patient = !chance(3);
	plan.move = !chance(4) || plan.signal;
	plan.poison = true;
	plan.budget_blocks = 4 + (unsigned)rnd_below(chance(2) ? 4 : 24);
	plan.total_blocks = plan.budget_blocks + 2 + (unsigned)rnd_below(64);
	plan.threads = 1 + (unsigned)rnd_below(6);
	plan.ops = 20 + (unsigned)rnd_below(200);
	plan.leaves = 1 + (unsigned)rnd_below(3);
	plan.slots = chance(5) ? 4 + (unsigned)rnd_below(20) : 400;
	plan.slow = rarely(2, 30);
	plan.torn = rarely(4, 10);
	plan.busy = rarely(3, 5);
	plan.spurious = rarely(2, 10);
	plan.leaves_off = rarely(3, 5);
	plan.tight = rarely(3, 1);
	plan.write_errors = rarely(4, 5);
	plan.read_errors = rarely(6, 20);
	plan.corruptions = rarely(8, 20);
	plan.stuck_ios = rarely(8, 20);
	plan.rereads = rarely(4, 10);
	plan.delay_us = 1 + (unsigned)rnd_below(chance(3) ? 50000 : 300);
	plan.lost_poison = rarely(2, 2);
	plan.chaos = chance(2) ? 10 + (unsigned)rnd_below(5000) : 0;
	plan.discard_ms = chance(8) ? 100 : 0;
	plan.io_pins = chance(2);
	plan.sync = !plan.stuck_ios && chance(plan.signal ? 2 : 5);
	plan.trim = !chance(3);
	plan.share = chance(3);
	/* Who forks and touches what cannot be read then waits for ever: a known gap. */
	bool sound = !plan.read_errors && !plan.corruptions && !plan.stuck_ios;
	plan.fork = chance(3) && sound;
	/* What is copied must be announced: see engine_may_copy. */
	plan.raw = plan.move && chance(2);
	plan.locks = !plan.raw && chance(2);
	plan.remaps = !chance(3);
	plan.resize = chance(3);
	plan.granule = (unsigned)rnd_below(3);
	/* Not with engine.fault=signal. */
	plan.in_place = chance(2) && !plan.signal ? 1 + (unsigned)rnd_below(24) : 0;
	plan.place = chance(2) ? (unsigned)rnd_below(101) : 0;
}

static bool is_over(void)
{
	return finished;
}

static void on_signal(int sig)
{
	sim_fail("signal %d", sig);
}

static const struct scenario *scenario;

static void *only(void *unused)
{
	(void)unused;
	signal_start();
	co_self->since = sim_now;
	co_self->doing = scenario->name;
	scenario->run();
	finished = true;
	return NULL;
}

static const char *const granules[] = { "auto", "64K", "4K" };

static void run(uint64_t seed)
{
	const struct itimerval most = { .it_value.tv_sec = REAL_SECONDS };
	static char stack[64 << 10];
	char conf[352], place[16] = "auto";
	struct sigaction sa = { .sa_handler = on_signal, .sa_flags = SA_ONSTACK };

	sigaltstack(&(stack_t){ .ss_sp = stack, .ss_size = sizeof(stack) }, NULL);
	sigaction(SIGSEGV, &sa, NULL);
	sigaction(SIGBUS, &sa, NULL);
	sigaction(SIGABRT, &sa, NULL);
	sigaction(SIGPROF, &sa, NULL);
	setitimer(ITIMER_PROF, &most, NULL);
	plan.seed = seed;
	if (scenario)
		scenario_plan(scenario);
	else
		make_plan(seed);
	if (plan.place)
		snprintf(place, sizeof(place), "%u%%", plan.place);
	snprintf(conf, sizeof(conf),
		 "local.limit=8M;engine.min_region=4K;store.timeout=2s;engine.chaos=%u;"
		 "class.all.match=size>=4K;class.all.granule=%s;class.all.place=%s;store.uri=numa:"
		 "1;store.in_place=%lu",
		 plan.chaos, granules[plan.granule], place, plan.in_place * BLOCK_SIZE);
	setenv("EMFATIER_CONF", conf, 1);
	engine_init();
	engine.limit = engine.budget = plan.budget_blocks * BLOCK_SIZE;
	engine.stats = &stats;
	co_start("first", scenario ? only : first, NULL);
	co_run(is_over, audit);
	if (scenario)
		_exit(0);
	totals->runs[plan.signal]++;
	totals->signals += signal_faults;
	totals->given += signal_given;
	totals->calls += signal_calls;
	totals->evicted += stats.evicted_blocks;
	totals->demand += stats.faults_demand;
	totals->standby += stats.faults_standby;
	totals->protect += stats.faults_write_protect;
	totals->zero += stats.faults_zero;
	totals->placed += stats.placed_blocks;
	totals->promoted += stats.promoted_blocks;
	totals->prefetched += stats.prefetch_useful;
	totals->lost += stats.lost_bytes;
	totals->written += stats.written_bytes;
	totals->led += kernel_given;
	_exit(0);
}

static bool passes(uint64_t seed, bool traced)
{
	int status;

	fflush(stdout);
	pid_t pid = fork();
	if (!pid) {
		tracing = traced;
		run(seed);
	}
	waitpid(pid, &status, 0);
	return WIFEXITED(status) && !WEXITSTATUS(status);
}

static uint64_t number(const char *name, uint64_t otherwise)
{
	const char *text = getenv(name);

	return text ? strtoull(text, NULL, 0) : otherwise;
}

/* The number that failed. */
static unsigned play(const char *which)
{
	unsigned failed = 0, played = 0;

	for (scenario = scenarios; scenario->name; scenario++) {
		unsigned long n = (unsigned long)(scenario - scenarios);
		if (which && strtoul(which, NULL, 0) != n)
			continue;
		bool ok = true;
		played++;
		for (uint64_t seed = 1; ok && seed <= SEEDS; seed++)
			ok = passes(seed, which);
		failed += !ok;
		printf("%sok %lu - %s", ok ? "" : "not ", n + 2, scenario->name);
		if (!ok && !which)
			printf("; SIM_SCENARIO=%lu tells more", n);
		printf("\n");
	}
	scenario = NULL;
	return failed + !played;
}

int main(void)
{
	uint64_t seed = number("SIM_FIRST", 1);

	totals =
	    mmap(NULL, sizeof(*totals), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (getenv("SIM_SCENARIO"))
		return play(getenv("SIM_SCENARIO")) != 0;
	if (getenv("SIM_SEED")) {
		bool ok = passes(number("SIM_SEED", 1), true);
		printf("%sok 1 - seed %lu\n", ok ? "" : "not ",
		       (unsigned long)number("SIM_SEED", 1));
		return !ok;
	}
	unsigned failed = play(NULL);
	time_t end = time(NULL) + (time_t)number("SIM_SECONDS", 10);
	for (; time(NULL) < end; seed++) {
		if (passes(seed, false))
			continue;
		totals->failed++;
		printf("not ok - seed %lu; SIM_SEED=%lu tells more\n", (unsigned long)seed,
		       (unsigned long)seed);
	}
	printf("# %u runs passed by the fault thread, %u by signal, %u failed; blocks evicted %lu; "
	       "faults: %lu far, %lu frame, "
	       "%lu protection, %lu zero; %lu in place, %lu promoted; %lu fetched ahead, %lu MiB "
	       "written, %lu MiB lost; another fault thread led %lu times\n",
	       totals->runs[0], totals->runs[1], totals->failed, (unsigned long)totals->evicted,
	       (unsigned long)totals->demand, (unsigned long)totals->standby,
	       (unsigned long)totals->protect, (unsigned long)totals->zero,
	       (unsigned long)totals->placed, (unsigned long)totals->promoted,
	       (unsigned long)totals->prefetched, (unsigned long)(totals->written >> 20),
	       (unsigned long)(totals->lost >> 20), (unsigned long)totals->led);
	printf("# signals: %lu, of which %lu were given to the fault thread; %lu system calls held "
	       "memory\n",
	       (unsigned long)totals->signals, (unsigned long)totals->given,
	       (unsigned long)totals->calls);
	if (totals->failed)
		return 1;
	/* Or it proves nothing. */
	bool worked = totals->evicted && totals->demand && totals->standby && totals->protect;
	if (totals->runs[0])
		worked &= totals->placed && totals->led;
	if (totals->runs[1])
		worked &= totals->signals > totals->given && totals->given && totals->calls;
	printf("%sok 1 - simulation\n", worked ? "" : "not ");
	return !worked || failed;
}
