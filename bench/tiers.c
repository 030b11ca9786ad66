/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tiers LOAD: three tiers of a simulated host (mem: as CXL memory, a memory server, a disk),
 * which 10%, 25% and the rest of 160 blocks have room on, and a load on them. A line for each
 * 1000 reads: how many thousand it were, for each tier its share of the reads and what an oracle's
 * placement would have made it (percent), and the moves of blocks until then: for each of them,
 * and the most of one.
 *
 * LOAD: zipf (some blocks are read much more than others), shift (halfway it is others), uniform,
 * sweep (one after the other, again and again). The store is the very one that programs get; only
 * the thread that moves blocks is called here, a look after each 1000 reads, for the same at each
 * run.
 */
#define _GNU_SOURCE
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "emfatier-stats.h"
#include "store/hierarchy.h"
#include "store/store.h"

#define TIERS 3u
#define BLOCKS 160u
#define BLOCK (2u << 20)
#define READ (64u << 10)
#define LOOKS 200u
#define READS 1000u
#define TIMEOUT_MS 10000

static const unsigned room[TIERS] = { BLOCKS / 10, BLOCKS / 4, BLOCKS };
static const char *const uri[TIERS] = { "mem:?size=1G&latency=300ns&bandwidth=16G",
					"mem:?size=1G&latency=3us&bandwidth=8G",
					"mem:?size=1G&latency=20us&bandwidth=4G" };
static struct emf_store_stats stats[STORE_LEAVES];
static struct emf_backend *tiers;
static struct emf_queue *q;
static uint64_t chance = 4711;
static char *buf;

static void die(const char *what)
{
	fprintf(stderr, "tiers: %s\n", what);
	exit(1);
}

/* splitmix64, below 1 */
static double next_chance(void)
{
	uint64_t z = chance += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return (double)((z ^ z >> 31) >> 11) / 9007199254740992.0;
}

/* --- loads --- */

static double weight[BLOCKS]; /* of the load now: their sum is 1 */

static void weigh(const char *load, unsigned look)
{
	unsigned first = !strcmp(load, "shift") && look >= LOOKS / 2 ? BLOCKS / 2 : 0;
	bool skewed = !strcmp(load, "zipf") || !strcmp(load, "shift");
	double sum = 0;

	for (unsigned rank = 0; rank < BLOCKS; rank++)
		sum += skewed ? 1.0 / (rank + 1) : 1;
	/* Which block has which rank is no matter of order: 77 has no factor in common with 160. */
	for (unsigned rank = 0; rank < BLOCKS; rank++)
		weight[(first + rank) * 77 % BLOCKS] = (skewed ? 1.0 / (rank + 1) : 1) / sum;
}

static unsigned draw(void)
{
	double at = next_chance();
	unsigned i = 0;

	while (i + 1 < BLOCKS && at >= weight[i])
		at -= weight[i++];
	return i;
}

static int heavier(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? 1 : x > y ? -1 : 0;
}

/* Who knows the weights has the heaviest on the first tier, and so on. */
static void oracle(double *share)
{
	double sorted[BLOCKS];
	unsigned n = 0;

	memcpy(sorted, weight, sizeof(sorted));
	qsort(sorted, BLOCKS, sizeof(sorted[0]), heavier);
	for (unsigned t = 0; t < TIERS; t++) {
		share[t] = 0;
		for (unsigned i = 0; i < room[t] && n < BLOCKS; i++)
			share[t] += sorted[n++];
	}
}

/* --- the store --- */

static void done(struct emf_io *io)
{
	*(bool *)io->user = true;
}

static void transfer(enum emf_op op, unsigned block)
{
	bool ended = false;
	struct emf_io io = {
		.op = op,
		.offset = (uint64_t)block * BLOCK,
		.length = READ,
		.buf = buf,
		.done = done,
		.user = &ended,
	};

	if (q->ops->submit(q, &io))
		die("the queue takes less than it was asked for");
	while (!ended)
		q->ops->poll(q);
	if (io.status)
		die(strerror(-io.status));
}

static void open_store(struct store *st)
{
	static const uint8_t order[TIERS] = { 0, 1, 2 };
	static struct store_tier tier[TIERS];
	struct store_options opt = {
		.uri = uri,
		.nuri = TIERS,
		.tier = order,
		.tiers = tier,
		.stripe_unit = 512 << 10,
		.timeout_ms = TIMEOUT_MS,
		.rebuild_rate = 1ull << 40,
		.provider_dir = getenv("EMF_PROVIDERS"),
		.run_dir = getenv("EMFATIER_RUN_DIR"),
		.stats = stats,
	};
	char err[512];

	for (unsigned t = 0; t < TIERS; t++)
		tier[t] =
		    (struct store_tier){ t + 1 < TIERS ? (uint64_t)room[t] * BLOCK : 0, 100, 95 };
	if (store_open(st, &opt, err, sizeof(err)))
		die(err);
	tiers = st->hierarchy;
	if (st->top->ops->queue_open(st->top, EMF_QUEUE_DEMAND, 1, &q))
		die("no queue");
}

static int place[BLOCKS]; /* the tier of each */
static unsigned moves[BLOCKS];

static void look(void)
{
	static uint64_t clock = 1ull << 62; /* later than any time that it has set itself */

	hierarchy_work(tiers, clock++);
	for (unsigned i = 0; i < BLOCKS; i++) {
		int is = hierarchy_tier_of(tiers, i);

		moves[i] += is != place[i];
		place[i] = is;
	}
}

int main(int argc, char **argv)
{
	static const char *const loads[] = { "zipf", "shift", "uniform", "sweep" };
	bool known = false;
	struct store st;

	for (unsigned i = 0; argc == 2 && i < 4; i++)
		known |= !strcmp(argv[1], loads[i]);
	if (!known)
		die("usage: tiers zipf|shift|uniform|sweep");
	buf = mmap(NULL, READ, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (buf == MAP_FAILED)
		die("out of memory");
	memset(buf, 1, READ);
	open_store(&st);
	for (unsigned i = 0; i < BLOCKS; i++) {
		transfer(EMF_WRITE, i);
		place[i] = hierarchy_tier_of(tiers, i);
	}
	for (unsigned n = 0; n < LOOKS; n++) {
		unsigned hits[TIERS] = { 0 }, all = 0, most = 0;
		double best[TIERS];

		weigh(argv[1], n);
		oracle(best);
		for (unsigned i = 0; i < READS; i++) {
			unsigned block =
			    strcmp(argv[1], "sweep") ? draw() : (n * READS + i) % BLOCKS;

			hits[place[block]]++;
			transfer(EMF_READ, block);
		}
		look();
		for (unsigned i = 0; i < BLOCKS; i++) {
			all += moves[i];
			most = moves[i] > most ? moves[i] : most;
		}
		printf("%u", n + 1);
		for (unsigned t = 0; t < TIERS; t++)
			printf(" %.2f %.2f", 100.0 * hits[t] / READS, 100 * best[t]);
		printf(" %.3f %u\n", (double)all / BLOCKS, most);
	}
	q->ops->close(q);
	store_close(&st);
	return 0;
}
