/* SPDX-License-Identifier: Apache-2.0 */
#include "thrash.h"

#include "block.h"
#include "kernel.h"

/* A table by hash; who shares an entry is found later, or not to stand still. */
#define THREADS 64
#define PAGES 4	 /* that an instruction may need at once */
#define ROUNDS 3 /* faults on each of these before it counts as standing still */
#define SPARE_NS 4000000ull
#define DOUBLINGS 8 /* about a second */

static struct {
	pid_t tid;
	uintptr_t page[PAGES]; /* of its last faults, each once */
	unsigned next, again;
} last[THREADS];

static uint64_t until; /* no block is spared after that */

void thrash_fault(struct block *b, uintptr_t page, pid_t tid, uint64_t now)
{
	unsigned e = (unsigned)tid % THREADS, i = 0;

	if (!tid)
		return;
	if (last[e].tid != tid) {
		last[e].tid = tid;
		last[e].again = 0;
	}
	while (i < PAGES && last[e].page[i] != page)
		i++;
	if (i == PAGES) {
		last[e].page[last[e].next++ % PAGES] = page;
		last[e].again = 0;
		return;
	}
	if (++last[e].again < PAGES * ROUNDS)
		return;
	unsigned times = last[e].again / PAGES - ROUNDS;
	b->spare_until = now + (SPARE_NS << (times < DOUBLINGS ? times : DOUBLINGS));
	if (until < b->spare_until)
		until = b->spare_until;
}

bool thrash_spares(const struct block *b)
{
	return b->spare_until && b->spare_until > k_now_ns();
}

bool thrash_now(void)
{
	return until && until > k_now_ns();
}
