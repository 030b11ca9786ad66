/* SPDX-License-Identifier: Apache-2.0 */
#include "lease.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct tenant *leases_tenant(struct leases *ls, const char *name)
{
	for (uint32_t i = 0; i < ls->ntenants; i++)
		if (!strcmp(ls->tenant[i].name, name))
			return &ls->tenant[i];
	return NULL;
}

static uint64_t smaller(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

uint64_t leases_available(const struct leases *ls, const struct tenant *t)
{
	uint64_t room = (uint64_t)(ls->pool->clean + ls->pool->dirty) * ls->pool->slab_bytes;
	uint64_t quota = t->quota > t->used ? t->quota - t->used : 0;

	if (ls->draining || ls->count >= ls->most)
		return 0;
	return smaller(room, quota) / ls->pool->slab_bytes * ls->pool->slab_bytes;
}

static struct lease *find(const struct leases *ls, const struct tenant *t,
			  const uint8_t key[WIRE_KEY])
{
	struct lease *l = ls->first;

	while (l && (l->ended || l->tenant != t || memcmp(l->key, key, WIRE_KEY)))
		l = l->next;
	return l;
}

/* Whole slabs, at least one; not all that there is, which others want, too. */
static uint64_t sane(const struct leases *ls, uint64_t available)
{
	uint64_t slab = ls->pool->slab_bytes, quarter = available / 4 / slab * slab;

	return quarter ? quarter : slab;
}

static int make(struct leases *ls, struct tenant *t, const uint8_t key[WIRE_KEY], uint64_t bytes,
		struct lease **out)
{
	uint64_t slab = ls->pool->slab_bytes, n;
	struct lease *l;
	int rc;

	if (ls->draining)
		return -ESHUTDOWN;
	if (ls->count >= ls->most)
		return -ENFILE;
	if (!bytes)
		bytes = ls->usual ? ls->usual : sane(ls, leases_available(ls, t));
	n = bytes / slab + (bytes % slab != 0);
	if (n > ls->pool->nslabs || n > WIRE_MAX_SLABS)
		return -ENOSPC;
	if (n * slab > t->quota || t->used > t->quota - n * slab)
		return -EDQUOT;
	l = calloc(1, sizeof(*l) + n * sizeof(l->slab[0]));
	if (!l)
		return -ENOMEM;
	rc = pool_take(ls->pool, (uint32_t)n, l->slab);
	if (rc) {
		free(l);
		return rc;
	}
	l->tenant = t;
	memcpy(l->key, key, WIRE_KEY);
	l->nslabs = (uint32_t)n;
	l->next = ls->first;
	ls->first = l;
	ls->count++;
	ls->made++;
	t->used += n * slab;
	t->leases++;
	*out = l;
	return 0;
}

int leases_join(struct leases *ls, struct tenant *t, const uint8_t key[WIRE_KEY], uint64_t bytes,
		struct lease **out, bool *fresh)
{
	uint64_t slab = ls->pool->slab_bytes;
	struct lease *l = find(ls, t, key);
	int rc = 0;

	*fresh = !l;
	if (l && bytes && bytes / slab + (bytes % slab != 0) != l->nslabs)
		return -EINVAL;
	if (!l)
		rc = make(ls, t, key, bytes, &l);
	if (rc)
		return rc;
	l->connections++;
	*out = l;
	return 0;
}

bool leases_are_ready(const struct leases *ls, const struct lease *l)
{
	for (uint32_t i = 0; i < l->nslabs; i++)
		if (!pool_is_ready(ls->pool, l->slab[i]))
			return false;
	return true;
}

static void forget(struct leases *ls, struct lease *l)
{
	struct lease **at = &ls->first;

	while (*at != l)
		at = &(*at)->next;
	*at = l->next;
	for (uint32_t i = 0; i < l->nslabs; i++)
		pool_give(ls->pool, l->slab[i], l->used);
	l->tenant->used -= l->nslabs * ls->pool->slab_bytes;
	l->tenant->leases--;
	ls->count--;
	free(l);
}

void leases_leave(struct leases *ls, struct lease *l, uint64_t now)
{
	if (--l->connections)
		return;
	l->until = now + ls->lasts;
	if (l->ended)
		forget(ls, l);
}

void lease_end(struct lease *l)
{
	l->ended = true;
}

uint64_t leases_work(struct leases *ls, uint64_t now)
{
	uint64_t next = UINT64_MAX;
	struct lease *l, *after;

	for (l = ls->first; l; l = after) {
		after = l->next;
		if (l->connections)
			continue;
		if (l->until <= now) {
			ls->expired++;
			forget(ls, l);
		} else {
			next = smaller(next, l->until);
		}
	}
	return next;
}

void leases_close(struct leases *ls)
{
	while (ls->first)
		forget(ls, ls->first);
}
