/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "bandwidth.h"

#include <sched.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>
#ifdef __x86_64__
#include <emmintrin.h>
#endif

#include "engine.h"
#include "kernel.h"
#include "log.h"

#define MOST_BYTES (16ull << 20) /* of each of the two; */
#define BUDGET_SHARE 16		 /* no more than this part of the budget */
#define LEAST_BYTES (1ull << 20)
#define THREADS 64u
#define ROUNDS 7 /* the best of which counts: other work gets into the way */
#define GAIN 20	 /* faster by one in so many at least */
#define LINE 64

enum what { LOCAL_ALONE, NODE_ALONE, BOTH, NWHAT };

static struct {
	char *map, *memory[2]; /* local, on the node; in the map, at 2 MiB */
	size_t bytes;	       /* of each */
	unsigned threads;
	_Atomic uint32_t go, met, generation, left;
	_Atomic uint64_t begin, end; /* of the slowest */
	_Atomic unsigned percent;
} run;

/* Until all threads are here. They are as many as CPUs, at most. */
static void meet(void)
{
	uint32_t mine = atomic_load(&run.generation);

	if (atomic_fetch_add(&run.met, 1) + 1 == run.threads) {
		atomic_store(&run.met, 0);
		atomic_fetch_add(&run.generation, 1);
	}
	while (atomic_load(&run.generation) == mine)
		sched_yield();
}

static void flush(const char *p, size_t len)
{
#ifdef __x86_64__
	for (size_t i = 0; i < len; i += LINE)
		_mm_clflush(p + i);
	_mm_mfence();
#else
	(void)p;
	(void)len;
#endif
}

static uint64_t sum(const char *p)
{
	const uint64_t *at = (const uint64_t *)(const void *)p;
	uint64_t all = 0;

	for (size_t i = 0; i < K_PAGE / sizeof(*at); i++)
		all += at[i];
	return all;
}

/* Page by page, as a sweep over blocks that alternate does in the large. */
static void sweep(size_t from, size_t to, unsigned percent)
{
	uint64_t all = 0;

	for (size_t at = from, i = 0; at < to; at += K_PAGE, i++)
		all += sum(run.memory[(i + 1) * percent / 100 != i * percent / 100] + at);
	__asm__ volatile("" : : "r"(all));
}

static void store_if_less(_Atomic uint64_t *at, uint64_t value)
{
	uint64_t was = atomic_load(at);

	while (value < was && !atomic_compare_exchange_weak(at, &was, value))
		;
}

/* The percentage on the node was set by the first thread. ns, to that. */
static uint64_t pass(unsigned k)
{
	size_t part = run.bytes / run.threads & ~(size_t)(K_PAGE - 1);

	flush(run.memory[0] + k * part, part);
	flush(run.memory[1] + k * part, part);
	if (!k) {
		atomic_store(&run.begin, UINT64_MAX);
		atomic_store(&run.end, UINT64_MAX);
	}
	meet();
	store_if_less(&run.begin, k_now_ns());
	sweep(k * part, (k + 1) * part, run.percent);
	/* The latest is the least of what is left to the end of time. */
	store_if_less(&run.end, UINT64_MAX - k_now_ns());
	meet();
	return UINT64_MAX - run.end - run.begin;
}

static uint64_t best(unsigned k, unsigned percent)
{
	uint64_t least = UINT64_MAX;

	for (unsigned i = 0; i < ROUNDS; i++) {
		if (!k)
			atomic_store(&run.percent, percent);
		uint64_t ns = pass(k);
		least = ns < least ? ns : least;
	}
	return least;
}

static void *helper(void *unused)
{
	(void)unused;
	engine_thread_begin("emf-measure");
	unsigned k = atomic_fetch_add(&run.left, 1) + 1;
	while (!atomic_load(&run.go))
		word_wait(&run.go, 0, -1);
	for (unsigned i = 0; i < NWHAT; i++)
		best(k, 0);
	atomic_fetch_sub(&run.left, 1);
	atomic_fetch_sub(&engine.threads, 1);
	return NULL;
}

unsigned bandwidth_percent(unsigned long local_ns, unsigned long node_ns)
{
	unsigned long long sum_ns = (unsigned long long)local_ns + node_ns;

	return (unsigned)((100ull * local_ns + sum_ns / 2) / (sum_ns ? sum_ns : 1));
}

int bandwidth_pays(unsigned long local_ns, unsigned long both_ns)
{
	return both_ns + both_ns / GAIN < local_ns;
}

/* Else caches would be measured. */
static bool can_flush(void)
{
#ifdef __x86_64__
	return true;
#else
	return false;
#endif
}

static unsigned cpus(void)
{
	cpu_set_t set;
	unsigned n = 1;

	if (!sched_getaffinity(0, sizeof(set), &set))
		n = (unsigned)CPU_COUNT(&set);
	return n < THREADS ? n : THREADS;
}

/* Both memories, touched. */
static bool have_memory(int node)
{
	size_t bytes = engine.budget / BUDGET_SHARE;

	bytes = (bytes < MOST_BYTES ? bytes : MOST_BYTES) & ~(size_t)(LEAST_BYTES - 1);
	run.bytes = bytes ? bytes : LEAST_BYTES;
	run.map =
	    mmap(NULL, 2 * run.bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (run.map == MAP_FAILED)
		return false;
	run.memory[0] = run.map;
	run.memory[1] = run.map + run.bytes;
	return !k_prefer_node(run.memory[1], run.bytes, node) &&
	       !k_madvise(run.map, 2 * run.bytes, MADV_POPULATE_WRITE) &&
	       k_is_on_node(run.memory[1], run.bytes, K_PAGE, node);
}

static unsigned long mb_a_second(uint64_t ns)
{
	return (unsigned long)(run.bytes * 1000 / (ns ? ns : 1));
}

static unsigned measure(int node)
{
	uint64_t ns[NWHAT];
	unsigned want = cpus(), made = 0;

	run.go = run.left = run.met = 0;
	while (made + 1 < want && engine_try_spawn(helper))
		made++;
	while (atomic_load(&run.left) < made)
		sched_yield();
	run.threads = made + 1;
	word_signal(&run.go);
	ns[LOCAL_ALONE] = best(0, 0);
	ns[NODE_ALONE] = best(0, 100);
	unsigned percent = bandwidth_percent(ns[LOCAL_ALONE], ns[NODE_ALONE]);
	ns[BOTH] = best(0, percent);
	while (atomic_load(&run.left))
		sched_yield();
	bool pays = bandwidth_pays(ns[LOCAL_ALONE], ns[BOTH]);
	log_info("local memory is read at %lu MB/s by %u threads, node %d at %lu, both at %lu: "
		 "%u%% of what is swept belong on the node",
		 mb_a_second(ns[LOCAL_ALONE]), run.threads, node, mb_a_second(ns[NODE_ALONE]),
		 mb_a_second(ns[BOTH]), pays ? percent : 0);
	return pays ? percent : 0;
}

unsigned bandwidth_share(int node)
{
	unsigned percent = 0;

	if (!can_flush())
		log_warn("place=weighted: this CPU can't measure; nothing is interleaved. Give a "
			 "percentage");
	else if (have_memory(node))
		percent = measure(node);
	else
		log_warn("place=weighted: node %d can't be measured; nothing is interleaved", node);
	if (run.map != MAP_FAILED)
		munmap(run.map, 2 * run.bytes);
	return percent;
}
