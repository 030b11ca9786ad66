/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a pool's new columns are shared out: by how fast each member has been, of which its
 * statistics tell (bytes, and for how long it had something to do), and by how much room it has
 * left. What has been measured lives in this process; where a column lies by then is in the table.
 */
#include "pool_int.h"
#include "timer.h"

#define WEIGH_NS 100000000ull
/* Of less a speed says nothing; of one that moves less in so long it does. */
#define SAMPLE_BYTES (8ull << 20)
#define SAMPLE_NS 2000000000ull
/* So many before they count; and so often in a row before columns have no home any more. */
#define SAMPLES 4u

static uint64_t busy(const struct emf_store_stats *s, uint64_t now)
{
	uint64_t ns = atomic_load(&s->busy_ns), since = atomic_load(&s->busy_since);

	return atomic_load(&s->inflight) && now > since ? ns + (now - since) : ns;
}

static void sample(const struct emf_store_stats *s, struct speed *speed, uint64_t now)
{
	uint64_t bytes = atomic_load(&s->read_bytes) + atomic_load(&s->written_bytes);
	uint64_t ns = busy(s, now), rate;
	/* Other threads count meanwhile: what seems to go backwards is begun anew. */
	bool forwards = bytes >= speed->bytes && ns > speed->ns;

	if (forwards && bytes - speed->bytes < SAMPLE_BYTES && ns - speed->ns < SAMPLE_NS)
		return;
	if (forwards) {
		rate = (bytes - speed->bytes) * 1000 / ((ns - speed->ns) / 1000000 + 1);
		speed->rate = speed->samples ? (3 * speed->rate + rate) / 4 : rate;
		speed->samples++;
	}
	speed->bytes = bytes;
	speed->ns = ns;
}

/* Within one and a half of the fastest is as fast: links differ so much from second to second. */
static void weigh(struct pool *p, uint64_t now)
{
	uint32_t n = atomic_load(&p->n), weight;
	uint64_t fastest = 0;
	bool unlike = false;

	for (unsigned i = 0; i < n; i++) {
		struct speed *speed = &p->member[i].speed;

		if (!pool_is_open(p, i))
			continue;
		sample(&p->o.stats[i], speed, now);
		if (speed->samples >= SAMPLES && speed->rate > fastest)
			fastest = speed->rate;
	}
	for (unsigned i = 0; i < n; i++) {
		const struct speed *speed = &p->member[i].speed;

		if (!pool_is_open(p, i))
			continue;
		weight = POOL_WEIGHT;
		if (speed->samples >= SAMPLES && speed->rate * 3 < fastest * 2)
			weight = (uint32_t)(speed->rate * POOL_WEIGHT / fastest) + 1;
		atomic_store(&p->member[i].weight, weight);
		unlike |= weight < POOL_WEIGHT;
	}
	p->unlike = unlike ? p->unlike + 1 : 0;
	if (p->unlike == SAMPLES) {
		if (p->o.scattered)
			p->o.scattered();
		atomic_store(&p->shared->changed, 1);
	}
}

void pool_weigh(struct pool *p, uint64_t now)
{
	if (!p->o.stats || now < atomic_load(&p->weigh_at) || atomic_exchange(&p->weighing, 1))
		return;
	atomic_store(&p->weigh_at, now + WEIGH_NS);
	weigh(p, now);
	atomic_store(&p->weighing, 0);
}

void pool_weigh_anew(struct pool *p)
{
	for (unsigned i = 0; i < STORE_LEAVES; i++)
		p->member[i].speed.bytes = p->member[i].speed.ns = 0;
	atomic_store(&p->weighing, 0);
}

/* All of what its speed gives it until it is half full, then less and less. */
uint32_t pool_weight(const struct pool *p, unsigned i)
{
	const struct member *m = &p->member[i];
	uint64_t weight = atomic_load(&m->weight), used = atomic_load(&p->shared->used[i]);

	if (used * 2 > m->units)
		weight = used < m->units ? weight * 2 * (m->units - used) / m->units : 0;
	return (uint32_t)weight + 1;
}

uint32_t pool_fair_share(const struct pool *p, unsigned member)
{
	uint64_t columns = 0, weights = 0, fair;

	for (unsigned i = 0; i < atomic_load(&p->n); i++) {
		if (!pool_is_open(p, i))
			continue;
		columns += atomic_load(&p->shared->used[i]) - p->member[i].behind;
		weights += atomic_load(&p->member[i].weight);
	}
	fair = weights ? columns * atomic_load(&p->member[member].weight) / weights : 0;
	return fair < p->member[member].units ? (uint32_t)fair : p->member[member].units;
}

bool pool_is_lighter(const struct pool *p, unsigned i, unsigned than)
{
	const struct member *m = &p->member[i];
	uint64_t used = atomic_load(&p->shared->used[i]);
	uint64_t other = atomic_load(&p->shared->used[than]);

	/* No more than what it would come to have anyway. */
	return pool_is_state(p, i, MEMBER_USED) && used * 2 < m->units && other >= POOL_MANY &&
	       used * atomic_load(&p->member[than].weight) * 3 <
		   other * atomic_load(&m->weight) * 2;
}
