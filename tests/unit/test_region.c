/* SPDX-License-Identifier: Apache-2.0 */
/* The region map, cutting regions, lists of blocks, slots, the formatter. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "fmt.h"
#include "region.h"
#include "slot.h"

#define BASE 0x100000000000ul

static void find(void **state)
{
	(void)state;
	struct region *a = region_insert(BASE, BASE + 3 * BLOCK_SIZE + 0x5000);
	struct region *b = region_insert(BASE + 8 * BLOCK_SIZE + 0x1000, BASE + 9 * BLOCK_SIZE);

	assert_non_null(a);
	assert_int_equal(a->nblocks, 4);
	assert_int_equal(b->nblocks, 1);
	assert_ptr_equal(region_find(BASE), a);
	assert_ptr_equal(region_find(a->end - 1), a);
	assert_null(region_find(a->end));
	assert_ptr_equal(region_next(a->end), b);
	assert_null(region_find(b->start - 1));
	assert_null(region_next(b->end));
	assert_true(region_near(BASE, 1));
	assert_true(region_near(BASE - 0x1000, 0x2000));
	assert_false(region_near(BASE - 0x1000, 0x1000));
	assert_false(region_near(BASE + 5 * BLOCK_SIZE, BLOCK_SIZE));
	assert_false(region_near(UINTPTR_MAX - 0xfff, 0x1000));
	assert_int_equal(block_len(a->blocks + 3), 0x5000);
	assert_int_equal(block_len(b->blocks), BLOCK_SIZE - 0x1000);
	assert_ptr_equal(block_start(b->blocks), (char *)b->start);
	region_erase(a);
	assert_false(region_near(BASE, BLOCK_SIZE));
	region_erase(b);
	assert_int_equal(region_count(), 0);
	assert_int_equal(region_bytes(), 0);
}

/* Every cut of a region of a few blocks keeps order, lengths, states and list membership. */
static void split(void **state)
{
	const size_t pages = 4 * BLOCK_SIZE / 0x1000;

	(void)state;
	for (size_t at = 1; at < pages; at += 13) {
		struct block_list list = { 0 };
		struct region *low = region_insert(BASE, BASE + 4 * BLOCK_SIZE);
		uintptr_t cut = BASE + at * 0x1000;
		size_t inside = at % 512 ? at / 512 : 4;
		for (size_t i = 0; i < 4; i++) {
			low->blocks[i].state = LOCAL;
			low->blocks[i].evicted_at = i;
			list_append(&list, low->blocks + i);
		}
		struct region *high = region_split(low, cut);
		assert_non_null(high);
		/* Of a block that was cut the upper half is on no list yet. */
		assert_true(inside == 4 || !high->blocks->list);
		if (inside < 4)
			block_part(low->blocks + inside, high->blocks);
		assert_int_equal(low->end, cut);
		assert_int_equal(high->start, cut);
		assert_int_equal(high->end, BASE + 4 * BLOCK_SIZE);
		assert_ptr_equal(region_find(cut - 1), low);
		assert_ptr_equal(region_find(cut), high);
		size_t sum = 0, blocks = low->nblocks + high->nblocks;
		for (struct block *b = list.head; b; b = b->next) {
			assert_true(b->region == low || b->region == high);
			assert_int_equal(b->evicted_at,
					 ((uintptr_t)block_start(b) - BASE) >> BLOCK_SHIFT);
			assert_true(!b->next || b->next->prev == b);
			sum += block_len(b);
			blocks--;
		}
		assert_int_equal(blocks, 0);
		assert_int_equal(sum, 4 * BLOCK_SIZE);
		while (list.head)
			list_remove(list.head);
		assert_int_equal(list.count, 0);
		assert_null(list.tail);
		region_erase(low);
		assert_true(region_near(cut, 1));
		region_erase(high);
		assert_false(region_near(BASE, 4 * BLOCK_SIZE));
	}
}

static void slots(void **state)
{
	uint32_t s[8];

	(void)state;
	assert_int_equal(slot_init(8 * BLOCK_SIZE, 8 * BLOCK_SIZE), 0);
	for (size_t i = 0; i < 8; i++) {
		s[i] = slot_alloc();
		for (size_t k = 0; k < i; k++)
			assert_int_not_equal(s[i], s[k]);
	}
	assert_int_equal(slot_alloc(), NO_SLOT);
	slot_free(s[3]);
	assert_int_equal(slot_alloc(), s[3]); /* reused before it is trimmed */
	slot_free(s[5]);
	assert_int_equal(slot_to_trim(), s[5]);
	assert_int_equal(slot_alloc(), NO_SLOT); /* not while it is being trimmed */
	slot_trimmed(s[5]);
	assert_int_equal(slot_alloc(), s[5]);
	assert_int_equal(slot_used(), 8);
	assert_int_not_equal(slot_init(BLOCK_SIZE - 1, BLOCK_SIZE - 1), 0);
}

/* A region keeps its blocks, and they their places in it, wherever it moves and as it grows. */
static void move(void **state)
{
	(void)state;
	struct region *r = region_insert(BASE + 0x3000, BASE + 2 * BLOCK_SIZE);
	struct block *b = region_block(r, BASE + BLOCK_SIZE);
	size_t offset = block_offset(r->blocks);
	b->evicted_at = 7;
	region_move(r, BASE + 8 * BLOCK_SIZE + 0x1000);
	assert_null(region_find(BASE + 0x3000));
	assert_false(region_near(BASE, BLOCK_SIZE));
	assert_ptr_equal(region_find(BASE + 8 * BLOCK_SIZE + 0x1000), r);
	assert_int_equal(block_offset(r->blocks), offset);
	assert_int_equal(block_len(r->blocks), BLOCK_SIZE - 0x3000);
	assert_ptr_equal(region_block(r, r->end - 1), b);
	assert_true(region_extend(r, r->end + BLOCK_SIZE));
	assert_int_equal(r->nblocks, 3);
	assert_int_equal(r->blocks[1].evicted_at, 7);
	assert_int_equal(block_len(r->blocks + 1), BLOCK_SIZE);
	assert_true(region_near(r->end - 1, 1));
	region_erase(r);
	assert_int_equal(region_bytes(), 0);
}

/* Two processes with one store: neither writes to what the other has, nor loses it. */
static void family(void **state)
{
	int from_child[2];
	char ok = 'n';

	(void)state;
	assert_int_equal(slot_init(4 * BLOCK_SIZE, 4 * BLOCK_SIZE), 0);
	uint32_t a = slot_alloc(), b = slot_alloc();
	assert_true(slot_is_mine(a));
	slot_share(b);
	assert_false(slot_is_mine(b));
	slot_free(b);
	assert_true(slot_is_mine(b));
	slot_free(b);
	assert_int_equal(slot_freed_count(), 1);
	assert_int_equal(pipe(from_child), 0);
	int life = slot_fork();
	assert_true(life >= 0);
	pid_t pid = fork();
	if (!pid) {
		int memfd = slot_memfd();
		slot_forked();
		slot_share(a);
		/* Only now: what is not shared by then it has not. */
		slot_attach(memfd, life);
		bool good = !slot_is_mine(a) && slot_used() == 1;
		uint32_t c = slot_alloc();
		slot_writing(c);
		good = good && c != a && c != b && slot_is_mine(c);
		(void)!write(from_child[1], good ? "y" : "n", 1);
		pause();
	}
	close(life);
	assert_int_equal(read(from_child[0], &ok, 1), 1);
	assert_int_equal(ok, 'y');
	assert_false(slot_is_mine(a));
	slot_reap(0); /* it lives */
	assert_false(slot_is_mine(a));
	assert_int_equal(slot_alloc(), b);
	assert_int_not_equal(slot_alloc(), NO_SLOT);
	assert_int_equal(slot_alloc(), NO_SLOT); /* the child has the fourth */
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	slot_reap(UINT64_MAX); /* it has just ended */
	assert_false(slot_is_mine(a));
	slot_reap(UINT64_MAX);
	assert_true(slot_is_mine(a));
	assert_int_equal(slot_alloc(), NO_SLOT); /* what it was writing may still come */
	slot_reap(0);
	assert_int_not_equal(slot_alloc(), NO_SLOT);
	close(from_child[0]);
	close(from_child[1]);
	slot_forget();
}

/* What a child gives back before it is attached, when nobody else has it any more, it owns or not. */
static void family_early(void **state)
{
	int to_child[2], from_child[2];
	char ok = 'n';

	(void)state;
	assert_int_equal(slot_init(4 * BLOCK_SIZE, 4 * BLOCK_SIZE), 0);
	uint32_t a = slot_alloc(), b = slot_alloc();
	assert_int_equal(pipe(to_child), 0);
	assert_int_equal(pipe(from_child), 0);
	int life = slot_fork();
	assert_true(life >= 0);
	pid_t pid = fork();
	if (!pid) {
		int memfd = slot_memfd();
		(void)!read(to_child[0], &ok, 1);
		slot_forked();
		slot_share(a);
		slot_free(a);
		/* One of two blocks that have it. */
		slot_share(b);
		slot_free(b);
		slot_share(b);
		slot_attach(memfd, life);
		bool good = slot_alloc() == a && slot_is_mine(a) && slot_is_mine(b);
		good = good && slot_used() == 2;
		(void)!write(from_child[1], good ? "y" : "n", 1);
		pause();
	}
	close(life);
	slot_free(a);
	slot_free(b);
	(void)!write(to_child[1], "", 1);
	assert_int_equal(read(from_child[0], &ok, 1), 1);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	assert_int_equal(ok, 'y');
	close(to_child[0]);
	close(to_child[1]);
	close(from_child[0]);
	close(from_child[1]);
	slot_forget();
}

/* A number that was given out again is that of another process: it has its time, too. */
static void family_number(void **state)
{
	int to_child[2], from_child[2];
	char c;

	(void)state;
	assert_int_equal(slot_init(4 * BLOCK_SIZE, 4 * BLOCK_SIZE), 0);
	uint32_t a = slot_alloc();
	assert_int_equal(pipe(to_child), 0);
	assert_int_equal(pipe(from_child), 0);
	int life = slot_fork();
	pid_t pid = fork();
	if (!pid) {
		int memfd = slot_memfd();
		slot_forked();
		slot_attach(memfd, life);
		while (read(to_child[0], &c, 1) == 1) {
			slot_reap(0);
			slot_reap(0);
			(void)!write(from_child[1], "", 1);
		}
	}
	close(life);
	close(slot_fork()); /* born, and dead */
	slot_reap(0);
	assert_false(slot_is_mine(a));
	(void)!write(to_child[1], "", 1);
	assert_int_equal(read(from_child[0], &c, 1), 1);
	assert_true(slot_is_mine(a)); /* the child has seen to it */
	close(slot_fork());
	slot_reap(0);
	assert_false(slot_is_mine(a));
	slot_reap(0);
	assert_true(slot_is_mine(a));
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	close(to_child[0]);
	close(to_child[1]);
	close(from_child[0]);
	close(from_child[1]);
	slot_forget();
}

static void format(void **state)
{
	char buf[64];

	(void)state;
	fmt_s(buf, sizeof(buf), "%s|%d|%u|%zu|%lu|%x|%c|%%|%.*s", "a", -5, 7u, (size_t)9, 10ul, 255u,
	      'z', 2, "xyz");
	assert_string_equal(buf, "a|-5|7|9|10|ff|z|%|xy");
	assert_int_equal(fmt_s(buf, 4, "%s", "long text"), 3);
	assert_string_equal(buf, "lon");
	fmt_s(buf, sizeof(buf), "%ld", (long)INT64_MIN);
	assert_string_equal(buf, "-9223372036854775808");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(find),
		cmocka_unit_test(split),
		cmocka_unit_test(slots), cmocka_unit_test(move), cmocka_unit_test(family),
		cmocka_unit_test(family_early),
		cmocka_unit_test(family_number), cmocka_unit_test(format),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
