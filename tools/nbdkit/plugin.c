/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An nbdkit plugin that lends this machine's memory as emfatierd does, by NBD, where there is no
 * RDMA:
 *
 *   nbdkit nbdkit-emfatier-plugin.so size=64G [lease=32G] [quota=NAME:SIZE]... [lasts=15s] [node=N]
 * [dax=DEVICE]
 *
 * Who is let in, and TLS, are nbdkit's matter. The export that a client names is its space:
 * TENANT/KEY, or KEY for the only tenant there is without quotas. All connections to one share it,
 * it is zero at first, is kept for a while when the last one is gone, and then overwritten with
 * zeros. So emfatier on several hosts, or several processes, each name an export of their own.
 *
 * Where to put what is under the lock; what lies in a space is its clients', who read and write
 * without one.
 */
#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "emfatierd/lease.h"
#include "parse.h"

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL
#define MOST_LEASES 1024u
#define WAKE_NS 100000000ull

struct client {
	struct lease *lease;
	uint64_t size, slab_bytes;
};

/*
 * Mutexes are not fair: who gives one back and takes it again, as the worker does, keeps others
 * out. So there is a gate before it, which is held while waiting.
 */
static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER, lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t over = PTHREAD_COND_INITIALIZER;
static bool ending, working;
static pthread_t worker;
static struct pool pool;
static struct pool_options pool_options = { .node = -1 };
static struct tenant tenant[LEASE_TENANTS];
static struct leases leases = {
	.pool = &pool, .tenant = tenant, .most = MOST_LEASES, .lasts = 15000000000ull
};

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void enter(void)
{
	pthread_mutex_lock(&gate);
	pthread_mutex_lock(&lock);
	pthread_mutex_unlock(&gate);
}

static void leave(void)
{
	pthread_mutex_unlock(&lock);
}

/* --- settings --- */

static int add_quota(const char *value)
{
	const char *colon = strchr(value, ':');
	struct tenant *t = &tenant[leases.ntenants];

	if (leases.ntenants == LEASE_TENANTS || !colon ||
	    snprintf(t->name, sizeof(t->name), "%.*s", (int)(colon - value), value) !=
		colon - value ||
	    !wire_is_name(t->name) || leases_tenant(&leases, t->name) ||
	    !parse_size(colon + 1, &t->quota)) {
		nbdkit_error("quota=%s: write NAME:SIZE, each name once", value);
		return -1;
	}
	leases.ntenants++;
	return 0;
}

static int set_size(const char *key, const char *value, uint64_t *out)
{
	if (parse_size(value, out) && *out >= WIRE_MIN_SLAB && *out <= WIRE_MAX_SLAB * 64)
		return 0;
	nbdkit_error("%s=%s: is not a size of 2M and more", key, value);
	return -1;
}

static int set_number(const char *key, const char *value, bool ok)
{
	if (ok)
		return 0;
	nbdkit_error("%s=%s: is not a number or a time", key, value);
	return -1;
}

static int emf_config(const char *key, const char *value)
{
	unsigned ms;
	uint64_t v;
	bool ok;

	if (!strcmp(key, "size"))
		return set_size(key, value, &pool_options.size);
	if (!strcmp(key, "lease"))
		return set_size(key, value, &leases.usual);
	if (!strcmp(key, "quota"))
		return add_quota(value);
	if (!strcmp(key, "lasts")) {
		ok = parse_duration(value, &ms);
		if (ok)
			leases.lasts = ms * 1000000ull;
		return set_number(key, value, ok);
	}
	if (!strcmp(key, "node")) {
		ok = parse_uint(value, &v) && v < 1024;
		if (ok)
			pool_options.node = (int)v;
		return set_number(key, value, ok);
	}
	if (!strcmp(key, "dax")) {
		pool_options.dax = nbdkit_realpath(value);
		return pool_options.dax ? 0 : -1;
	}
	nbdkit_error("unknown parameter '%s'", key);
	return -1;
}

static int emf_config_complete(void)
{
	if (!pool_options.size && !pool_options.dax) {
		nbdkit_error("say how much memory to lend: size=SIZE, or dax=DEVICE");
		return -1;
	}
	if (pool_options.dax && pool_options.node >= 0) {
		nbdkit_error("node= or dax=, not both");
		return -1;
	}
	if (pool_options.size && leases.usual > pool_options.size) {
		nbdkit_error("lease= is more than size=");
		return -1;
	}
	for (uint32_t i = 0; i < leases.ntenants; i++) {
		if (tenant[i].quota >= leases.usual)
			continue;
		nbdkit_error("quota=%s is less than lease=", tenant[i].name);
		return -1;
	}
	if (!leases.ntenants)
		tenant[leases.ntenants++] =
		    (struct tenant){ .name = "default", .quota = UINT64_MAX };
	return 0;
}

/* --- the pool --- */

/* Ends leases, and cleans a few MiB at a time so that clients come in between. */
static void *work(void *unused)
{
	(void)unused;
	enter();
	while (!ending) {
		struct timespec until;

		leases_work(&leases, now_ns());
		if (pool_work(&pool)) {
			leave();
			enter();
			continue;
		}
		clock_gettime(CLOCK_REALTIME, &until);
		until.tv_nsec += (long)WAKE_NS;
		until.tv_sec += until.tv_nsec / 1000000000;
		until.tv_nsec %= 1000000000;
		pthread_cond_timedwait(&over, &lock, &until);
	}
	leave();
	return NULL;
}

/* After nbdkit has become a daemon, if it does: threads and locked memory are not inherited. */
static int emf_after_fork(void)
{
	char why[128];

	if (pool_open(&pool, &pool_options, why, sizeof(why))) {
		nbdkit_error("%s", why);
		return -1;
	}
	working = !pthread_create(&worker, NULL, work, NULL);
	if (!working)
		nbdkit_error("cannot start a thread");
	return working ? 0 : -1;
}

static void emf_unload(void)
{
	if (working) {
		enter();
		ending = true;
		pthread_cond_signal(&over);
		leave();
		pthread_join(worker, NULL);
	}
	leases_close(&leases);
	pool_close(&pool);
}

/* --- clients --- */

/* "TENANT/KEY" or "KEY"; a key is as long as those of RDMA, and may be empty. */
static struct tenant *parse_export(const char *name, uint8_t key[WIRE_KEY])
{
	const char *slash = strchr(name, '/');
	char who[WIRE_NAME] = "default";

	if (slash && (size_t)(slash - name) < sizeof(who)) {
		memcpy(who, name, (size_t)(slash - name));
		who[slash - name] = '\0';
	} else if (slash) {
		return NULL;
	}
	if (slash)
		name = slash + 1;
	if (strlen(name) > WIRE_KEY || strchr(name, '/'))
		return NULL;
	memset(key, 0, WIRE_KEY);
	memcpy(key, name, strlen(name));
	return leases_tenant(&leases, who);
}

static void *emf_open(int readonly)
{
	const char *name = nbdkit_export_name();
	struct client *c = calloc(1, sizeof(*c));
	uint8_t key[WIRE_KEY];
	struct tenant *t;
	bool fresh;
	int rc;

	(void)readonly;
	if (!c)
		return NULL;
	t = name ? parse_export(name, key) : NULL;
	if (!t) {
		nbdkit_error("no such export: it is TENANT/KEY, or KEY, of up to %u letters",
			     WIRE_KEY);
		free(c);
		return NULL;
	}
	enter();
	rc = leases_join(&leases, t, key, 0, &c->lease, &fresh);
	while (!rc && !leases_are_ready(&leases, c->lease)) { /* others come in between */
		pool_work(&pool);
		leave();
		enter();
	}
	if (!rc)
		c->lease->used = true;
	leave();
	if (rc) {
		nbdkit_error("%s of %s: no space: %s", name, t->name, strerror(-rc));
		free(c);
		return NULL;
	}
	c->slab_bytes = pool.slab_bytes;
	c->size = c->lease->nslabs * c->slab_bytes;
	return c;
}

static void emf_close(void *handle)
{
	struct client *c = handle;

	enter();
	leases_leave(&leases, c->lease, now_ns());
	leave();
	free(c);
}

static int64_t emf_get_size(void *handle)
{
	return (int64_t)((struct client *)handle)->size;
}

/* Connections to one export see each other's writes: it is memory. */
static int yes(void *handle)
{
	(void)handle;
	return 1;
}

/* What lies at `offset` in the client's space, and how much of it from there in one piece. */
static unsigned char *piece(const struct client *c, uint64_t offset, uint32_t *count)
{
	uint64_t in = offset % c->slab_bytes, left = c->slab_bytes - in;

	if (*count > left)
		*count = (uint32_t)left;
	return pool_address(&pool, c->lease->slab[offset / c->slab_bytes]) + in;
}

static int emf_pread(void *handle, void *buf, uint32_t count, uint64_t offset, uint32_t flags)
{
	(void)flags;
	for (uint32_t n; count; count -= n, offset += n, buf = (char *)buf + n) {
		n = count;
		const unsigned char *from = piece(handle, offset, &n);
		memcpy(buf, from, n);
	}
	return 0;
}

static int emf_pwrite(void *handle, const void *buf, uint32_t count, uint64_t offset,
		      uint32_t flags)
{
	(void)flags;
	for (uint32_t n; count; count -= n, offset += n, buf = (const char *)buf + n) {
		n = count;
		unsigned char *to = piece(handle, offset, &n);
		memcpy(to, buf, n);
	}
	return 0;
}

static int emf_zero(void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
	(void)flags;
	for (uint32_t n; count; count -= n, offset += n) {
		n = count;
		unsigned char *to = piece(handle, offset, &n);
		memset(to, 0, n);
	}
	return 0;
}

static struct nbdkit_plugin plugin = {
	.name = "emfatier",
	.longname = "memory for emfatier",
	.description = "lends this machine's memory, each export a space of its own",
	.config = emf_config,
	.config_complete = emf_config_complete,
	.config_help = "size=SIZE      how much memory to lend (required, but for dax=)\n"
		       "lease=SIZE     of one export; a quarter of what is left\n"
		       "quota=NAME:SIZE  tenants, and what each may have in all\n"
		       "lasts=TIME     that an export without clients is kept (15s)\n"
		       "node=N         memory of this NUMA node\n"
		       "dax=DEVICE     memory of this DAX device",
	.after_fork = emf_after_fork,
	.unload = emf_unload,
	.open = emf_open,
	.close = emf_close,
	.get_size = emf_get_size,
	.can_multi_conn = yes,
	.can_trim = yes,
	.can_fast_zero = yes,
	.pread = emf_pread,
	.pwrite = emf_pwrite,
	.zero = emf_zero,
	/* Space that is leased stays; what nobody needs any more need not be kept from anybody. */
	.trim = emf_zero,
	.errno_is_preserved = 0,
};

NBDKIT_REGISTER_PLUGIN(plugin)
