/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A family of processes at random: each has blocks, whose slots it writes to, shares, gives up,
 * trims and forks with, and what one has written there must be there as long as it has it.
 */
#include "slot.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define SLOTS 200u
#define BLOCKS 48u
#define STEPS 300000u
#define CHILD_STEPS 5000u
#define DEPTH 3u
#define PROCESSES 24u

static struct {
	_Atomic uint64_t content[SLOTS]; /* the store: what was written last */
	_Atomic uint64_t written;
	_Atomic uint32_t forks, processes, wrong;
} * shared;

static struct {
	uint32_t slot;
	uint64_t content;
} block[BLOCKS];

static uint64_t rng;
static unsigned depth;

static unsigned below(unsigned n)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return (unsigned)((rng >> 11) % n);
}

static void look(unsigned i)
{
	if (block[i].slot == NO_SLOT || shared->content[block[i].slot] == block[i].content)
		return;
	if (!atomic_fetch_add(&shared->wrong, 1))
		print_error("slot %u: %lu was written there, and %lu is found at depth %u\n",
			    block[i].slot, (unsigned long)block[i].content,
			    (unsigned long)shared->content[block[i].slot], depth);
}

static void drop(unsigned i)
{
	look(i);
	if (block[i].slot != NO_SLOT)
		slot_free(block[i].slot);
	block[i].slot = NO_SLOT;
}

static void write_out(unsigned i)
{
	if (block[i].slot == NO_SLOT || !slot_is_mine(block[i].slot)) {
		drop(i);
		block[i].slot = slot_alloc();
	}
	if (block[i].slot == NO_SLOT)
		return;
	slot_writing(block[i].slot);
	block[i].content = atomic_fetch_add(&shared->written, 1) + 1;
	shared->content[block[i].slot] = block[i].content;
	slot_wrote(block[i].slot);
}

/* As two halves of a block that is cut. */
static void share(unsigned i, unsigned with)
{
	if (i == with || block[i].slot == NO_SLOT)
		return;
	drop(with);
	slot_share(block[i].slot);
	block[with] = block[i];
}

static void trim(void)
{
	uint32_t s = slot_to_trim();

	if (s == NO_SLOT)
		return;
	shared->content[s] = 0;
	slot_trimmed(s);
}

static void run(unsigned steps);

static void child(int memfd, int life)
{
	depth++;
	rng ^= (uint64_t)getpid() * 0x9e3779b97f4a7c15u;
	slot_forked();
	for (unsigned i = 0; i < BLOCKS; i++)
		if (block[i].slot != NO_SLOT)
			slot_share(block[i].slot);
	/* What the child does not get after all. */
	for (unsigned i = 0; i < BLOCKS; i++)
		if (!below(4)) {
			usleep(below(50));
			drop(i);
		}
	slot_attach(memfd, life);
	run(1 + below(CHILD_STEPS));
	atomic_fetch_sub(&shared->processes, 1);
	if (below(2))
		kill(getpid(), SIGKILL);
	_exit(0);
}

static void have_child(void)
{
	if (depth >= DEPTH || atomic_fetch_add(&shared->processes, 1) >= PROCESSES) {
		if (depth < DEPTH)
			atomic_fetch_sub(&shared->processes, 1);
		return;
	}
	int life = slot_fork(), memfd = slot_memfd();
	pid_t pid = life >= 0 ? fork() : -1;

	if (!pid)
		child(memfd, life);
	if (pid < 0)
		atomic_fetch_sub(&shared->processes, 1);
	else
		atomic_fetch_add(&shared->forks, 1);
	if (life >= 0)
		close(life);
}

static void step(void)
{
	unsigned i = below(BLOCKS);

	switch (below(16)) {
	case 0:
		if (!below(8))
			have_child();
		break;
	case 1:
		share(i, below(BLOCKS));
		break;
	case 2:
	case 3:
		drop(i);
		break;
	case 4:
		trim();
		break;
	case 5:
		if (!below(16))
			slot_reap(0);
		break;
	case 6:
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
		break;
	case 7:
	case 8:
	case 9:
		look(i);
		break;
	default:
		write_out(i);
	}
}

static void run(unsigned steps)
{
	while (steps-- && !atomic_load(&shared->wrong))
		step();
	for (unsigned i = 0; i < BLOCKS; i++)
		look(i);
}

static void family(void **state)
{
	uint64_t seed = (uint64_t)getpid();

	(void)state;
	shared =
	    mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_true(shared != MAP_FAILED);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	rng = seed * 0x9e3779b97f4a7c15u | 1;
	atomic_store(&shared->processes, 1);
	for (unsigned i = 0; i < BLOCKS; i++)
		block[i].slot = NO_SLOT;
	assert_int_equal(slot_init(SLOTS * BLOCK_SIZE, SLOTS * BLOCK_SIZE), 0);
	run(STEPS);
	while (waitpid(-1, NULL, 0) > 0)
		;
	assert_int_equal(atomic_load(&shared->wrong), 0);
	assert_true(atomic_load(&shared->forks) > 10);
	/* All have ended: what they had comes back, and nothing is lost. */
	for (unsigned i = 0; i < BLOCKS; i++)
		drop(i);
	slot_reap(0);
	slot_reap(0);
	assert_true(slot_alone());
	while (slot_freed_count())
		trim();
	assert_int_equal(slot_used(), 0);
	for (unsigned i = 0; i < SLOTS; i++)
		assert_int_not_equal(slot_alloc(), NO_SLOT);
	slot_forget();
	munmap(shared, sizeof(*shared));
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(family) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
