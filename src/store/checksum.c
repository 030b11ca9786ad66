/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One 64-bit sum for every unit of the space, a cluster or a part of one: XXH3 of the part of
 * the unit that was written, mixed with the bounds of that part. So a read passes
 * only if each of its pieces (its cuts at the borders of units) has the bounds of a
 * piece that was written, and its content: a whole slot may be read back unit
 * by unit, but a short piece is read whole or not at all. 0: nothing is known.
 *
 * A write makes the rest of its slots unknown, so that what an earlier, longer
 * write left there never passes for current.
 *
 * The table costs 0.05% of what was written, or 0.012% by clusters: it is mapped for the whole
 * space and filled by the kernel as that is written. Sums of one slot are used by one
 * thread at a time, as the slot is; relaxed atomics make a wrong answer of
 * checksum_matches the worst that a race can do.
 */
#define _GNU_SOURCE 1 /* syscall */
#include <errno.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../arena.h"
#include "link.h"
#include "store.h"
#include "xxh3.h"

#define PAGE 4096u
#ifndef SLOT
#define SLOT (2u << 20)
#endif

struct checksum {
	struct link link;
	uint64_t (*hash)(const void *buf, size_t length);
	_Atomic uint64_t *sum;
	size_t table_bytes, unit;
	bool trust;
};

/* The bytes from offset to the end of its unit, at most length. */
static size_t piece(const struct checksum *c, uint64_t offset, size_t length)
{
	size_t left = c->unit - (size_t)(offset & (c->unit - 1));

	return length < left ? length : left;
}

static uint64_t sum_piece(const struct checksum *c, uint64_t offset, const void *buf, size_t length)
{
	uint64_t first = (offset & (c->unit - 1)) / PAGE, pages = length / PAGE;
	uint64_t bounds = first << 8 | pages;
	uint64_t sum = c->hash(buf, length) ^ bounds * 0x9e3779b97f4a7c15u;

	return sum ? sum : 1;
}

static _Atomic uint64_t *sum_at(const struct checksum *c, uint64_t offset)
{
	return &c->sum[offset / c->unit];
}

/* Forgets [start, end), widened to whole units. */
static void forget(struct checksum *c, uint64_t start, uint64_t end)
{
	if (end > c->link.be.size)
		end = c->link.be.size;
	start &= ~(uint64_t)(c->unit - 1);
	for (; start < end; start += c->unit)
		atomic_store_explicit(sum_at(c, start), 0, memory_order_relaxed);
}

static void forget_slots(struct checksum *c, const struct emf_io *io)
{
	uint64_t end = io->offset + io->length;

	forget(c, io->offset - io->offset % SLOT, (end + SLOT - 1) / SLOT * SLOT);
}

static void record(struct checksum *c, const struct emf_io *io)
{
	const unsigned char *buf = io->buf;
	uint64_t offset = io->offset, end = offset + io->length;

	forget_slots(c, io);
	while (offset < end) {
		size_t n = piece(c, offset, (size_t)(end - offset));

		atomic_store_explicit(sum_at(c, offset), sum_piece(c, offset, buf, n),
				      memory_order_relaxed);
		offset += n;
		buf += n;
	}
}

static bool verify(const struct checksum *c, uint64_t offset, size_t length, const void *buf)
{
	const unsigned char *at = buf;

	while (length) {
		size_t n = piece(c, offset, length);
		uint64_t want = atomic_load_explicit(sum_at(c, offset), memory_order_relaxed);

		if (!want || want != sum_piece(c, offset, at, n))
			return false;
		offset += n;
		at += n;
		length -= n;
	}
	return true;
}

static bool in_range(const struct checksum *c, uint64_t offset, size_t length)
{
	uint64_t size = c->link.be.size;

	return length && (offset | length) % PAGE == 0 && offset < size && length <= size - offset;
}

/* After the hand-over, so that summing goes on while the bytes travel. */
static void taken(struct link *l, struct link_io *lio)
{
	struct checksum *c = (struct checksum *)l;
	const struct emf_io *io = &lio->low;

	if (!in_range(c, io->offset, io->length))
		return; /* the backend below refuses it */
	if (io->op == EMF_WRITE)
		record(c, io);
	else if (io->op == EMF_TRIM)
		forget(c, io->offset, io->offset + io->length);
}

static void ended(struct link *l, struct link_io *lio)
{
	struct checksum *c = (struct checksum *)l;
	struct emf_io *io = &lio->low;

	if (io->op == EMF_WRITE && io->status && in_range(c, io->offset, io->length))
		forget_slots(c, io);
	else if (io->op == EMF_READ && !io->status && !c->trust &&
		 !verify(c, io->offset, io->length, io->buf))
		io->status = -EBADMSG;
}

static void checksum_close(struct link *l)
{
	struct checksum *c = (struct checksum *)l;

	syscall(SYS_munmap, c->sum, c->table_bytes);
	arena_free(c, sizeof(*c));
}

int checksum_open(struct emf_backend *next, size_t unit, struct emf_backend **out)
{
	struct checksum *c = arena_alloc(sizeof(*c));
	uint64_t units = next->size / unit + 1;
	long at;

	if (!c)
		return -ENOMEM;
	/* The whole table at once: most of it is never touched. */
	c->table_bytes = (size_t)(units * sizeof(*c->sum) + PAGE - 1) & ~(size_t)(PAGE - 1);
	at = syscall(SYS_mmap, NULL, c->table_bytes, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0L);
	if (at == -1) {
		int rc = -errno;

		arena_free(c, sizeof(*c));
		return rc;
	}
	/* A huge page of sums is for 4 GiB of store: far more than a small program has. */
	syscall(SYS_madvise, at, c->table_bytes, MADV_NOHUGEPAGE);
	link_init(&c->link, next);
	c->unit = unit;
	c->sum = (_Atomic uint64_t *)at;
	c->hash = xxh3_base;
#ifdef __x86_64__
	if (__builtin_cpu_supports("avx2"))
		c->hash = xxh3_avx2;
#endif
	c->link.taken = taken;
	c->link.ended = ended;
	c->link.close = checksum_close;
	*out = &c->link.be;
	return 0;
}

void checksum_trust(struct emf_backend *be)
{
	((struct checksum *)be)->trust = true;
}

bool checksum_matches(const struct emf_backend *be, uint64_t offset, size_t length, const void *buf)
{
	const struct checksum *c = (const struct checksum *)be;

	return in_range(c, offset, length) && verify(c, offset, length, buf);
}
