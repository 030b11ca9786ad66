/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "trace.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "arena.h"
#include "block.h"
#include "engine.h"
#include "fmt.h"
#include "kernel.h"
#include "log.h"
#include "region.h"

#define RING 65536u /* bytes: half a second of 30000 touches a second, of 3 or 4 bytes */
#define CHUNK 16384u
#define PERIOD_MS 50

static _Atomic bool on;
static int fd = -1;
static uint8_t *ring, *chunk;
static uint32_t head, tail; /* count on and on; head - tail bytes are in the ring */
static int64_t last;	    /* block of the last record */
static uint64_t last_ms, lost;

bool trace_on(void)
{
	return on;
}

void trace_after_fork(void)
{
	on = false;
	fd = -1;
}

static void put(uint64_t v)
{
	for (; v > 127; v >>= 7)
		ring[head++ % RING] = (uint8_t)(v | 128);
	ring[head++ % RING] = (uint8_t)v;
}

/* Is there room for a record, with the time before it? */
static bool begin(void)
{
	uint64_t ms = k_now_ns() / 1000000;

	if (RING - (head - tail) < 64) {
		lost++;
		return false;
	}
	if (ms != last_ms)
		put((ms - last_ms) << TRACE_OP_BITS | TRACE_TIME);
	last_ms = ms;
	return true;
}

static void put_block(enum trace_op op, uintptr_t addr)
{
	int64_t number = (int64_t)(addr >> BLOCK_SHIFT), by = number - last;

	last = number;
	put((((uint64_t)by << 1) ^ -(uint64_t)(by < 0)) << TRACE_OP_BITS | (uint64_t)op);
}

void trace_block(enum trace_op op, const struct block *b)
{
	if (on && begin())
		put_block(op, region_block_start(b->region, (size_t)(b - b->region->blocks)));
}

void trace_range(enum trace_op op, uintptr_t start, uintptr_t end)
{
	if (!on || !begin())
		return;
	put_block(op, start);
	put(((end - 1) >> BLOCK_SHIFT) - (start >> BLOCK_SHIFT) + 1);
}

void trace_token(unsigned end)
{
	if (on && begin())
		put((uint64_t)end << TRACE_OP_BITS | TRACE_TOKEN);
}

/* A %p is the number of the process: children would write over one another's otherwise. */
static void file_name(const char *path, char *out, size_t len)
{
	const char *p = strstr(path, "%p");

	if (p)
		fmt_s(out, len, "%.*s%d%s", (int)(p - path), path, getpid(), p + 2);
	else
		fmt_s(out, len, "%s", path);
}

bool trace_open(const char *path)
{
	char name[512];
	struct region *r;

	file_name(path, name, sizeof(name));
	ring = arena_alloc(RING);
	chunk = arena_alloc(CHUNK);
	fd =
	    ring && chunk
		? open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0644)
		: -1;
	if (fd < 0 || write(fd, TRACE_MAGIC, strlen(TRACE_MAGIC)) < 0) {
		log_error("engine.trace: %s cannot be written (error %d); going on without", name,
			  ring && chunk ? errno : ENOMEM);
		return false;
	}
	last_ms = k_now_ns() / 1000000;
	on = true;
	for (size_t i = 0; (r = region_at(i)); i++)
		trace_range(TRACE_REGION, r->start, r->end);
	return true;
}

/* What is in the ring goes to the file; false: no more can be written. */
static bool flush(void)
{
	size_t n = 0;

	lock_take(&engine.lock);
	while (n < CHUNK && tail != head)
		chunk[n++] = ring[tail++ % RING];
	lock_give(&engine.lock);
	for (size_t at = 0; at < n;) {
		ssize_t w = write(fd, chunk + at, n - at);
		if (w > 0)
			at += (size_t)w;
		else if (w < 0 && errno != EINTR)
			return false;
	}
	return true;
}

void *trace_main(void *unused)
{
	static uint64_t told;

	(void)unused;
	engine_thread_begin("emf-trace");
	while (on && flush()) {
		if (lost > told)
			log_warn("engine.trace: %lu records left out so far", (unsigned long)lost);
		told = lost;
		if (head - tail < CHUNK)
			poll(NULL, 0, PERIOD_MS);
	}
	if (on)
		log_error("engine.trace: cannot write (error %d); the trace ends here", errno);
	on = false;
	/* It stays: the keeper counts the runtime's threads. */
	for (;;)
		poll(NULL, 0, -1);
	return NULL;
}
