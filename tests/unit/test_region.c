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
		good = good && c != a && c != b && slot_is_mine(c);
		(void)!write(from_child[1], good ? "y" : "n", 1);
		pause();
	}
	close(life);
	assert_int_equal(read(from_child[0], &ok, 1), 1);
	assert_int_equal(ok, 'y');
	assert_false(slot_is_mine(a));
	slot_reap(); /* it lives */
	assert_false(slot_is_mine(a));
	assert_int_equal(slot_alloc(), b);
	assert_int_not_equal(slot_alloc(), NO_SLOT);
	assert_int_equal(slot_alloc(), NO_SLOT); /* the child has the fourth */
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	slot_reap(); /* what it had sent may be on its way still */
	assert_false(slot_is_mine(a));
	slot_reap();
	assert_true(slot_is_mine(a));
	assert_int_not_equal(slot_alloc(), NO_SLOT);
	close(from_child[0]);
	close(from_child[1]);
	slot_forget();
}

/* What the child gives up before it has attached is its own, if nobody else has it any more. */
static void family_gives_up(void **state)
{
	int to_child[2], from_child[2];
	char c = 'x';

	(void)state;
	assert_int_equal(slot_init(2 * BLOCK_SIZE, 2 * BLOCK_SIZE), 0);
	uint32_t a = slot_alloc();
	assert_int_equal(pipe(to_child), 0);
	assert_int_equal(pipe(from_child), 0);
	int life = slot_fork();
	assert_true(life >= 0);
	pid_t pid = fork();
	if (!pid) {
		close(to_child[1]);
		int memfd = slot_memfd();
		slot_forked();
		slot_share(a);
		(void)!read(to_child[0], &c, 1);
		slot_free(a);
		slot_attach(memfd, life);
		bool good = slot_used() == 1 && slot_freed_count() == 1 && slot_alloc() == a &&
			    slot_is_mine(a);
		(void)!write(from_child[1], good ? "y" : "n", 1);
		(void)!read(to_child[0], &c, 1); /* until the parent ends, whatever it has found */
		_exit(0);
	}
	close(life);
	slot_free(a);
	assert_int_equal(write(to_child[1], "x", 1), 1);
	assert_int_equal(read(from_child[0], &c, 1), 1);
	assert_int_equal(c, 'y');
	assert_int_not_equal(slot_alloc(), a);
	assert_int_equal(slot_alloc(), NO_SLOT); /* the child has it */
	for (int i = 2; i--;) {
		close(to_child[i]);
		close(from_child[i]);
	}
	waitpid(pid, NULL, 0);
	slot_forget();
}

/* A child that dies at once, having taken over a slot. Returns which. */
static uint32_t short_life(void)
{
	uint32_t s = slot_alloc();
	int life = slot_fork();

	assert_true(s != NO_SLOT && life >= 0);
	slot_free(s);
	close(life);
	return s;
}

/* A number that another process has found dead, and has given out again, is another child's. */
static void family_number(void **state)
{
	int to_child[2], from_child[2];
	char c = 'x';

	(void)state;
	assert_int_equal(slot_init(4 * BLOCK_SIZE, 4 * BLOCK_SIZE), 0);
	assert_int_equal(pipe(to_child), 0);
	assert_int_equal(pipe(from_child), 0);
	int life = slot_fork();
	assert_true(life >= 0);
	pid_t pid = fork();
	if (!pid) {
		close(to_child[1]);
		int memfd = slot_memfd();
		slot_forked();
		slot_attach(memfd, life);
		(void)!read(to_child[0], &c, 1);
		slot_reap();
		slot_reap();
		(void)!write(from_child[1], "y", 1);
		(void)!read(to_child[0], &c, 1);
		_exit(0);
	}
	close(life);
	uint32_t a = short_life();
	assert_false(slot_is_mine(a));
	slot_reap(); /* found dead */
	assert_int_equal(write(to_child[1], "x", 1), 1);
	assert_int_equal(read(from_child[0], &c, 1), 1);
	/* The child has it all, and the number is free. */
	short_life();
	assert_int_equal(slot_freed_count(), 0);
	slot_reap(); /* what it had sent may be on its way still */
	assert_int_equal(slot_freed_count(), 0);
	slot_reap();
	assert_int_equal(slot_freed_count(), 1);
	for (int i = 2; i--;) {
		close(to_child[i]);
		close(from_child[i]);
	}
	waitpid(pid, NULL, 0);
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
		cmocka_unit_test(family_gives_up), cmocka_unit_test(family_number),
		cmocka_unit_test(format),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
