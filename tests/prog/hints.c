/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hints plain: without the library every hint is 0, and nothing happens.
 * hints pin|name|blocks: under a budget of 20M, see below. What memory holds must
 * never change by a hint.
 */
#include "prog.h"
#include "../../include/emfatier.h"

#define MIB ((size_t)1 << 20)
#define SIZE (64 * MIB)
#define PART (8 * MIB)

static char *mem;

static void fill(void)
{
	mem = SYS(mmap(NULL, SIZE + 2 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	mem = (char *)(((uintptr_t)mem + 2 * MIB - 1) & ~(2 * MIB - 1));
	for (size_t i = 0; i < SIZE; i += sizeof(uint64_t))
		*(uint64_t *)(mem + i) = mix(i);
}

/* All but what is left out, end to end. */
static void sweep(size_t from, size_t to)
{
	for (size_t i = from; i < to; i += sizeof(uint64_t))
		CHECK(*(volatile uint64_t *)(mem + i) == mix(i), "wrong data at %zu", i);
}

/* Pages of the range that are in place. */
static size_t there(size_t from, size_t to)
{
	static unsigned char v[SIZE / PAGE];
	size_t n = 0;

	SYS(mincore(mem + from, to - from, v));
	for (size_t i = 0; i < (to - from) / PAGE; i++)
		n += v[i] & 1;
	return n;
}

static void sweeps_elsewhere(void)
{
	for (int i = 0; i < 4; i++)
		sweep(PART, SIZE);
}

static void plain(void)
{
	fill();
	CHECK(!emfatier_hint, "the library is there");
	CHECK(!emf_name(mem, PART, "a") && !emf_pin(mem, PART) && !emf_unpin(mem, PART) &&
		  !emf_will_need(mem, PART) && !emf_wont_need(mem, PART) && !emf_token_begin() &&
		  !emf_token_end(),
	      "a hint that is not 0");
}

static void pins(void)
{
	fill();
	CHECK(!emf_pin(mem, PART), "pin");
	sweep(0, PART);
	sweeps_elsewhere();
	CHECK(there(0, PART) == PART / PAGE, "%zu of %zu pinned pages are local", there(0, PART),
	      PART / PAGE);
	CHECK(!emf_unpin(mem, PART) && !emf_wont_need(mem, PART), "unpin");
	sweeps_elsewhere();
	CHECK(there(0, PART) < PART / PAGE / 2, "%zu of %zu pages are local that are not needed",
	      there(0, PART), PART / PAGE);
	sweep(0, SIZE);
}

/* The class of that name has resident=100%. Unaligned: the blocks inside of it count. */
static void names(void)
{
	fill();
	CHECK(!emf_name(mem - PAGE, PART + 2 * PAGE, "weights of the first layer, cut at 31"), "name");
	CHECK(!emf_name(mem + PART, PART, "rest"), "name");
	/* A block of it was away once, on a busy machine, for a reason not known: not again and again. */
	size_t n = 0;
	for (int i = 0; i < 4 && n < PART / PAGE; i++) {
		sweep(0, PART);
		sweeps_elsewhere();
		n = there(0, PART);
	}
	CHECK(n == PART / PAGE, "%zu of %zu pages of the class are local", n, PART / PAGE);
	/* Whole again for who unmaps it. */
	sweep(0, SIZE);
	SYS(munmap(mem + PART / 2, SIZE - PART));
	sweep(0, PART / 2);
}

static void blocks(void)
{
	fill();
	for (int i = 0; i < 3; i++) {
		emf_token_begin();
		CHECK(!emf_will_need(mem + i * PART, PART), "will need");
		usleep(100000);
		sweep((size_t)i * PART, (size_t)(i + 1) * PART);
		CHECK(!emf_wont_need(mem + i * PART, PART), "won't need");
		emf_token_end();
	}
	CHECK(!emf_will_need(mem, SIZE) && !emf_wont_need(mem, SIZE), "all of it");
	CHECK(emf_will_need((char *)UINTPTR_MAX - PAGE, SIZE) == -EINVAL, "a range that wraps");
	CHECK(emfatier_hint(99, mem, SIZE, NULL) == -ENOSYS, "an unknown hint");
	/* Not managed: nothing happens. */
	static char small[PAGE];
	CHECK(!emf_pin(small, sizeof(small)) && !emf_will_need(NULL, 0), "other memory");
	sweep(0, SIZE);
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*run)(void);
	} all[] = { { "plain", plain }, { "pin", pins }, { "name", names }, { "blocks", blocks } };

	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		if (argc == 2 && !strcmp(argv[1], all[i].name)) {
			all[i].run();
			/* The trace is written ten times a second and more. */
			usleep(200000);
			write_stats();
			return 0;
		}
	die("usage: hints plain|pin|name|blocks");
}
