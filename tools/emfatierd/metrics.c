/* SPDX-License-Identifier: Apache-2.0 */
#include "metrics.h"

static void head(FILE *f, const char *name, const char *type, const char *help)
{
	fprintf(f, "# HELP emfatierd_%s %s\n# TYPE emfatierd_%s %s\n", name, help, name, type);
}

static void one(FILE *f, const char *name, const char *type, const char *help, uint64_t v)
{
	head(f, name, type, help);
	fprintf(f, "emfatierd_%s %llu\n", name, (unsigned long long)v);
}

/* Names of tenants need no quoting (wire_is_name). */
static void each(FILE *f, const struct leases *ls, const char *name, const char *help,
		 uint64_t (*value)(const struct tenant *t))
{
	head(f, name, "gauge", help);
	for (uint32_t i = 0; i < ls->ntenants; i++)
		fprintf(f, "emfatierd_%s{tenant=\"%s\"} %llu\n", name, ls->tenant[i].name,
			(unsigned long long)value(&ls->tenant[i]));
}

static uint64_t used(const struct tenant *t)
{
	return t->used;
}

static uint64_t quota(const struct tenant *t)
{
	return t->quota;
}

static uint64_t count(const struct tenant *t)
{
	return t->leases;
}

void metrics_print(const struct desk *d, FILE *f)
{
	const struct leases *ls = &d->leases;
	const struct pool *p = ls->pool;

	one(f, "size_bytes", "gauge", "Memory that can be leased in all.",
	    p->nslabs * p->slab_bytes);
	one(f, "clean_bytes", "gauge", "Memory that is free and zero.", p->clean * p->slab_bytes);
	one(f, "dirty_bytes", "gauge", "Memory that was given back and is to be zeroed.",
	    (p->dirty + p->owed) * p->slab_bytes);
	one(f, "huge_pages", "gauge", "1: the memory is of reserved huge pages.", p->huge);
	one(f, "draining", "gauge", "1: the server is about to end.", ls->draining);
	one(f, "clients", "gauge", "Connections that have proved who they are.", d->clients);
	one(f, "connections_total", "counter", "Connections that had proved who they are.",
	    d->welcomed);
	one(f, "denied_total", "counter", "Connections with a wrong secret or tenant.", d->denied);
	one(f, "malformed_total", "counter", "Connections that said what makes no sense.",
	    d->malformed);
	one(f, "leases_total", "counter", "Leases that were made.", ls->made);
	one(f, "leases_expired_total", "counter", "Leases whose client did not come back.",
	    ls->expired);
	each(f, ls, "leases", "Leases of a tenant.", count);
	each(f, ls, "leased_bytes", "Memory that a tenant has leased.", used);
	each(f, ls, "quota_bytes", "Memory that a tenant may lease.", quota);
}
