/* SPDX-License-Identifier: Apache-2.0 */
#include "hint.h"

#include <errno.h>

#include "emfatier.h"
#include "engine.h"
#include "names.h"
#include "place.h"
#include "policy/policy.h"
#include "region.h"
#include "trace.h"

/* Cut where blocks begin, so that none is cut in two: what is inside of them is not named. */
static uintptr_t up_in(const struct region *r, uintptr_t at)
{
	uintptr_t grid = r->base + ((at - r->base + BLOCK_SIZE - 1) & ~(BLOCK_SIZE - 1));

	return at <= r->start ? r->start : grid < r->end ? grid : r->end;
}

static uintptr_t down_in(const struct region *r, uintptr_t at)
{
	uintptr_t grid = r->base + ((at - r->base) & ~(BLOCK_SIZE - 1));

	return at >= r->end ? r->end : grid > r->start ? grid : r->start;
}

static long op_name(uintptr_t start, uintptr_t end, unsigned name)
{
	struct region *r;
	int err = 0;

	lock_take(&engine.lock);
	for (uintptr_t at = start; !err && (r = region_next(at)) && r->start < end;) {
		uintptr_t from = up_in(r, start), to = down_in(r, end);
		at = r->end;
		if (from >= to || r->name == name)
			continue;
		err = engine_isolate(from, to);
		r = err ? NULL : region_find(from);
		if (!r || r->start != from || r->end > to)
			continue; /* another thread has unmapped or moved it meanwhile */
		r->name = (uint8_t)name;
		engine_reclass(r);
	}
	engine_update_gauges();
	lock_give(&engine.lock);
	return err;
}

static void pin(struct block *b, bool on)
{
	b->note.pinned = on;
	policy_reclassed(b);
	if (b->list == &engine.in_place)
		place_arrived(b);
}

static long op_blocks(uintptr_t start, uintptr_t end, unsigned what)
{
	struct region *r;

	lock_take(&engine.lock);
	for (uintptr_t at = start; (r = region_next(at)) && r->start < end; at = r->end) {
		struct block *b = region_block(r, start > r->start ? start : r->start),
			     *last = region_block(r, (end < r->end ? end : r->end) - 1);
		if (what == EMF_HINT_WILL_NEED || what == EMF_HINT_PIN)
			prefetch_wanted(b, last);
		for (; b <= last; b++) {
			if (what == EMF_HINT_PIN || what == EMF_HINT_UNPIN)
				pin(b, what == EMF_HINT_PIN);
			else if (what == EMF_HINT_WONT_NEED)
				policy_dismissed(b);
		}
	}
	lock_give(&engine.lock);
	engine_kick_mover();
	return 0;
}

static long op_token(uintptr_t start, uintptr_t end, unsigned ends)
{
	(void)start;
	(void)end;
	lock_take(&engine.lock);
	trace_token(ends);
	lock_give(&engine.lock);
	return 0;
}

long hint_give(int what, const void *addr, size_t len, const char *name)
{
	switch (what) {
	case EMF_HINT_TOKEN_BEGIN:
	case EMF_HINT_TOKEN_END:
		return trace_on() ? engine_call(op_token, NULL, 0, what == EMF_HINT_TOKEN_END) : 0;
	case EMF_HINT_NAME:
	case EMF_HINT_PIN:
	case EMF_HINT_UNPIN:
	case EMF_HINT_WILL_NEED:
	case EMF_HINT_WONT_NEED:
		break;
	default:
		return -ENOSYS;
	}
	if ((uintptr_t)addr + len < (uintptr_t)addr || (uintptr_t)addr + len > 1ul << 47)
		return -EINVAL;
	if (!len || !region_near((uintptr_t)addr, len))
		return 0;
	if (what == EMF_HINT_NAME)
		return engine_call(op_name, addr, len, names_add(name));
	return engine_call(op_blocks, addr, len, (unsigned)what);
}
