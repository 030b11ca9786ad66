/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE 1 /* strchrnul, memrchr, RTLD_NODELETE */
#include "store.h"

#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "codec/codec.h"
#include "count.h"
#include "crypt.h"
#include "emfatier-stats.h"
#include "env.h"
#include "hierarchy.h"
#include "inject.h"
#include "lock.h"
#include "memory.h"
#include "pool.h"
#include "ready.h"
#include "reconnect.h"
#include "redundant.h"
#include "retry.h"
#include "timer.h"
#include "where.h"

#define MAX_URI 4096
#define LEAVE_NS 250000000ull
#define ADD_MS 3000u /* to open a store that is added */
#define SCHEMES "file:, numa:, dax:, mem:, rdma://, nbd:// or nbd+unix://"

/* --- URIs --- */

/* The userinfo of SCHEME://USERINFO@HOST with its '@'; *length 0: there is none. */
static const char *userinfo(const char *uri, size_t *length)
{
	const char *start = strstr(uri, "://"), *at;

	*length = 0;
	if (!start)
		return uri;
	start += 3;
	at = memrchr(start, '@', strcspn(start, "/?#"));
	if (at)
		*length = (size_t)(at + 1 - start);
	return start;
}

/* Takes every copy of the URI's userinfo out of text. */
static void strip_secrets(const char *uri, char *text)
{
	size_t length;
	const char *secret = userinfo(uri, &length);
	char *at;

	if (!length)
		return;
	while ((at = memmem(text, strlen(text), secret, length)))
		memmove(at, at + length, strlen(at + length) + 1);
}

/* "store.uri: 'URI': why", one line, no secrets. Returns rc. */
static int blame(const char *uri, const char *why, int rc, char *err, size_t errlen)
{
	snprintf(err, errlen, "store.uri: '%.200s': %s", uri, why);
	strip_secrets(uri, err);
	for (char *c = err; *c; c++)
		if ((unsigned char)*c < ' ')
			*c = ' ';
	return rc;
}

static bool make_dir(const char *path)
{
	struct stat st;

	if (!stat(path, &st))
		return S_ISDIR(st.st_mode) && !access(path, W_OK | X_OK);
	return !mkdir(path, 0700);
}

/* file:DIR with DIR = $XDG_CACHE_HOME/emfatier where that can be had, else /var/tmp. */
static void default_uri(char *uri, size_t length)
{
	const char *cache = env_get("XDG_CACHE_HOME");
	char dir[PATH_MAX];
	int n = -1;

	if (cache && cache[0] == '/')
		n = snprintf(dir, sizeof(dir), "%s/emfatier", cache);
	if (n < 0 || (size_t)n >= sizeof(dir) || !make_dir(cache) || !make_dir(dir))
		strcpy(dir, "/var/tmp");
	n = snprintf(uri, length, "file:");
	for (const char *c = dir; *c && (size_t)n + 4 < length; c++)
		n += snprintf(uri + n, length - (size_t)n, *c == '%' || *c == '?' ? "%%%02X" : "%c",
			      (unsigned char)*c);
}

/* --- providers --- */

/* The name of the provider for a URI; false: not SCHEME:... */
static bool provider_name(const char *uri, char *name, size_t length)
{
	size_t n = strspn(uri, "abcdefghijklmnopqrstuvwxyz0123456789+");

	if (!n || uri[n] != ':' || n >= length)
		return false;
	memcpy(name, uri, n);
	name[n] = '\0';
	if (!strcmp(name, "nbds") || !strcmp(name, "nbd+unix") || !strcmp(name, "nbds+unix"))
		strcpy(name, "nbd");
	return !strchr(name, '+');
}

static bool find_provider(const char *dir, const char *name, char *path, size_t length)
{
	static const char *const place[] = { "providers", "../lib/emfatier/providers" };
	char self[PATH_MAX];
	int n;

	if (dir) {
		n = snprintf(path, length, "%s/%s.so", dir, name);
		return n > 0 && (size_t)n < length && !access(path, R_OK);
	}
	if (where_dir(self, sizeof(self)))
		return false;
	for (size_t i = 0; i < sizeof(place) / sizeof(place[0]); i++) {
		n = snprintf(path, length, "%s/%s/%s.so", self, place[i], name);
		if (n > 0 && (size_t)n < length && !access(path, R_OK))
			return true;
	}
	return false;
}

/*
 * isa-l calls its own functions by names that a program may have, too (gf_mul: node), and those of
 * the program come first, but for DEEPBIND. What allocates can't have that (preload/load.c, which
 * is why this is dlmopen); isa-l and its codec don't. NODELETE: libraries below a provider may have
 * left thread-specific data.
 */
static void *load_object(const char *path, bool deep)
{
	const int flags = RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE;

	return deep ? dlmopen(LM_ID_BASE, path, flags | RTLD_DEEPBIND) : dlopen(path, flags);
}

static void preload(const char *dir, const char *name, bool deep)
{
	char path[PATH_MAX];

	if (find_provider(dir, name, path, sizeof(path)))
		(void)!load_object(path, deep);
}

void store_load(const struct store_options *opt)
{
	char name[32];

	for (unsigned i = 0; i < (opt->nuri ? opt->nuri : 1); i++)
		if (provider_name(opt->nuri ? opt->uri[i] : "file:", name, sizeof(name)))
			preload(opt->provider_dir, name, false);
	if (opt->encrypt)
		preload(opt->provider_dir, "link-crypt", false);
	if (opt->data > 1)
		preload(opt->provider_dir, "link-parity", true);
}

/* A codec's table, from link-NAME.so; NULL: err tells. The setting is for the message. */
static const void *load_codec(const char *setting, const char *name, const char *symbol, bool deep,
			      const char *dir, void **dl, char *err, size_t errlen)
{
	char file[32], path[PATH_MAX];
	const uint32_t *abi = NULL;

	snprintf(file, sizeof(file), "link-%s", name);
	if (!find_provider(dir, file, path, sizeof(path))) {
		snprintf(err, errlen, "%s: not installed (no %s.so beside the providers)", setting,
			 file);
		return NULL;
	}
	*dl = load_object(path, deep);
	if (*dl)
		abi = dlsym(*dl, symbol);
	if (!abi)
		snprintf(err, errlen, "%s: cannot load %s.so: %.300s", setting, file, dlerror());
	else if (*abi != EMF_CODEC_ABI)
		snprintf(err, errlen, "%s: %s is not of this version", setting, path);
	return abi && *abi == EMF_CODEC_ABI ? abi : NULL;
}

static bool is_ours(const char *name)
{
	static const char *const ours[] = { "file", "numa", "dax", "mem", "nbd", "rdma" };

	for (size_t i = 0; i < sizeof(ours) / sizeof(ours[0]); i++)
		if (!strcmp(name, ours[i]))
			return true;
	return false;
}

static int load(const char *uri, const char *dir, void **dl, const struct emf_provider **out,
		char *err, size_t errlen)
{
	const struct emf_provider *p = NULL;
	char name[32], path[PATH_MAX], why[PATH_MAX + 64];

	if (!provider_name(uri, name, sizeof(name)))
		return blame(uri, "not a URI; use " SCHEMES, -EINVAL, err, errlen);
	if (!find_provider(dir, name, path, sizeof(path))) {
		bool ours = is_ours(name);

		snprintf(why, sizeof(why),
			 ours ? "provider '%s' is not installed (no %s.so)"
			      : "no provider '%s'; use " SCHEMES,
			 name, name);
		return blame(uri, why, -EINVAL, err, errlen);
	}
	*dl = load_object(path, false);
	if (!*dl)
		return blame(uri, dlerror(), -ELIBACC, err, errlen);
	p = dlsym(*dl, "emf_provider");
	if (!p || p->abi != EMF_PROVIDER_ABI) {
		snprintf(why, sizeof(why), "%s is not a provider of this version", path);
		return blame(uri, why, -ELIBBAD, err, errlen);
	}
	*out = p;
	return 0;
}

/* --- the chain --- */

static int lock_leaf(struct store *st, unsigned i, const char *uri, const struct store_options *opt,
		     char *err, size_t errlen)
{
	char clean[MAX_URI], why[PATH_MAX + 64];

	snprintf(clean, sizeof(clean), "%s", uri);
	strip_secrets(uri, clean);
	st->lock_fd[i] = lock_space(clean, opt->run_dir, opt->timeout_ms, why, sizeof(why));
	return st->lock_fd[i] < 0 ? blame(uri, why, st->lock_fd[i], err, errlen) : 0;
}

/*
 * Where members may come and go: what they were opened with, and a change that was asked for:
 * NOTHING -> ASKED by who asks, -> ANSWERED by the store's thread, -> NOTHING by who asked.
 */
enum { NOTHING, ASKED, ANSWERED };

struct store_live {
	struct store_options opt;
	char *uri[STORE_LEAVES];
	_Atomic uint32_t losses; /* of members that have left */
	_Atomic uint32_t state;
	uint32_t leaving; /* a mask of members: who have nothing for a guard to trim */
	bool drain;
	char asked[MAX_URI];
	int rc;
	unsigned index;
	char text[512];
};

/* One space named twice would overwrite itself. */
static bool is_repeated(const char *const *uri, unsigned i)
{
	for (unsigned j = 0; j < STORE_LEAVES && j < i; j++)
		if (uri[j] && !strcmp(uri[i], uri[j]))
			return true;
	return false;
}

/* The links over one leaf. */
static int add_links(struct store *st, unsigned i, const struct store_options *opt,
		     struct emf_store_stats *stats)
{
	struct emf_backend *below = st->leaf[i];
	struct inject what = { 0 };
	char why[256];
	int rc = 0;

	if (opt->inject && !inject_parse(opt->inject, i, &what, why, sizeof(why)))
		return -EINVAL;
	if (what.any) {
		rc = inject_open(below, &what, &st->inject[i]);
		below = st->inject[i];
	}
	if (!rc && stats) {
		rc = count_open(below, stats, &st->count[i]);
		below = st->count[i];
	}
	return rc ? rc : reconnect_open(below, stats, st->wake_fd, &st->reconnect[i]);
}

static int open_leaf(struct store *st, unsigned i, const char *const *uris,
		     const struct store_options *opt, char *err, size_t errlen)
{
	const char *uri = uris[i];
	const struct emf_provider *p = NULL;
	struct emf_store_stats *stats = opt->stats ? &opt->stats[i] : NULL;
	char why[512] = "";
	int rc;

	if (strlen(uri) >= MAX_URI)
		return blame(uri, "too long", -EINVAL, err, errlen);
	rc = load(uri, opt->provider_dir, &st->dl[i], &p, err, errlen);
	if (rc)
		return rc;
	rc = p->open(uri, opt->timeout_ms, &st->leaf[i], why, sizeof(why));
	if (rc)
		return blame(uri, why[0] ? why : strerror(-rc), rc, err, errlen);
	if (opt->no_malloc && st->leaf[i]->caps & EMF_CAP_MALLOC)
		return blame(
		    uri,
		    "its provider needs malloc, and this program has one of its own, whose "
		    "memory may be far; use a file: store",
		    -ENOTSUP, err, errlen);
	if (opt->frames_bytes && st->leaf[i]->ops->memory)
		st->leaf[i]->ops->memory(st->leaf[i], opt->frames, opt->frames_bytes);
	if (st->leaf[i]->caps & EMF_CAP_OUTLIVES) {
		st->outlives = true;
		if (is_repeated(uris, i))
			return blame(uri, "named twice; each member needs an export of its own",
				     -EINVAL, err, errlen);
		rc = opt->run_dir ? lock_leaf(st, i, uri, opt, err, errlen) : 0;
		if (rc)
			return rc;
	}
	if (stats) {
		snprintf(stats->uri, sizeof(stats->uri), "%s", uri);
		strip_secrets(uri, stats->uri);
		atomic_store(&stats->state, EMF_STORE_OK);
	}
	rc = add_links(st, i, opt, stats);
	return rc ? blame(uri, strerror(-rc), rc, err, errlen) : 0;
}

static int add_crypt(struct store *st, const struct store_options *opt, struct emf_backend **below,
		     char *err, size_t errlen)
{
	if (opt->no_malloc) /* it uses malloc */
		return blame(
		    "store.encrypt",
		    "not in a program that has a malloc of its own, whose memory may be far",
		    -ENOTSUP, err, errlen);
	const struct emf_aead *aead = load_codec("store.encrypt", "crypt", "emf_aead", false,
						 opt->provider_dir, &st->crypt_dl, err, errlen);
	char why[256];
	int rc;

	if (!aead)
		return -ELIBACC;
	rc = crypt_open(*below, aead, &st->crypt, why, sizeof(why));
	if (rc)
		snprintf(err, errlen, "store.encrypt: %s", why);
	else
		*below = st->crypt;
	return rc;
}

static struct spread_options spread_options(const struct store *st, const struct store_options *opt)
{
	return (struct spread_options){
		.unit = opt->stripe_unit,
		.timeout_ms = opt->timeout_ms,
		.rate = opt->rebuild_rate,
		.stats = opt->stats,
		.wake_fd = st->wake_fd,
		.hold = opt->hold,
		.release = opt->release,
		.k = opt->data,
		.m = opt->more,
		.live = opt->live,
		.alone = opt->alone,
		.still = opt->still,
		.scattered = opt->scattered,
	};
}

static int add_redundant(struct store *st, const struct store_options *opt,
			 struct emf_backend **below, char *err, size_t errlen)
{
	struct spread_options o = spread_options(st, opt);
	int rc;

	if (opt->data > 1) {
		o.codec = load_codec("store.redundancy=parity", "parity", "emf_parity", true,
				     opt->provider_dir, &st->parity_dl, err, errlen);
		if (!o.codec)
			return -ELIBACC;
	}
	rc = redundant_open(st->reconnect, st->nleaves, &o, &st->redundant);
	if (opt->live)
		st->places = st->redundant;
	if (rc)
		snprintf(err, errlen, "store.redundancy: %s",
			 rc == -EINVAL	 ? "more stores are needed; name them by store.uri"
			 : rc == -ENOSPC ? "the stores are too small for one block"
					 : strerror(-rc));
	else
		*below = st->redundant;
	return rc;
}

/* n leaves from `first` on as one. */
static int add_stripe(struct store *st, unsigned first, unsigned n, uint64_t unit,
		      struct emf_backend **below)
{
	int rc = 0;

	*below = st->reconnect[first];
	if (n > 1) {
		rc = stripe_open(st->reconnect + first, n, unit, &st->stripe[st->nstripes]);
		*below = st->stripe[st->nstripes];
		st->nstripes += !rc;
	}
	return rc;
}

static int add_hierarchy(struct store *st, const struct store_options *opt,
			 struct emf_backend **below)
{
	struct hierarchy_tier tier[STORE_LEAVES];
	unsigned n = 0, next;
	int rc = 0;

	for (unsigned i = 0; i < st->nleaves && !rc; i = next, n++) {
		for (next = i + 1; next < st->nleaves && opt->tier[next] == opt->tier[i];)
			next++;
		tier[n] = (struct hierarchy_tier){
			.capacity = opt->tiers[n].capacity,
			.high = opt->tiers[n].high,
			.low = opt->tiers[n].low,
			.stats = opt->stats ? &opt->stats[i] : NULL,
			.nstats = next - i,
		};
		rc = add_stripe(st, i, next - i, opt->stripe_unit, &tier[n].be);
	}
	if (!rc)
		rc = hierarchy_open(tier, n, opt->timeout_ms, opt->rebuild_rate, &st->hierarchy);
	*below = st->hierarchy;
	return rc;
}

/* Members that may come and go. */
static int add_pool(struct store *st, const struct store_options *opt, struct emf_backend **below)
{
	struct spread_options o = spread_options(st, opt);
	int rc = pool_open(st->reconnect, st->nleaves, &o, &st->pool);

	*below = st->places = st->pool;
	return rc;
}

static bool has_tiers(const struct store_options *opt)
{
	return opt->tier && opt->nuri && opt->tier[opt->nuri - 1];
}

/* What spreads over the leaves. */
static int add_spread(struct store *st, const struct store_options *opt, struct emf_backend **below,
		      char *err, size_t errlen)
{
	int rc;

	if (opt->data > 1 || opt->more)
		return add_redundant(st, opt, below, err, errlen);
	if (has_tiers(opt))
		rc = add_hierarchy(st, opt, below);
	else if (opt->live)
		rc = add_pool(st, opt, below);
	else
		rc = add_stripe(st, 0, st->nleaves, opt->stripe_unit, below);
	if (rc)
		snprintf(err, errlen, "store.uri: cannot build the store: %s", strerror(-rc));
	return rc;
}

static int build(struct store *st, const struct store_options *opt, char *err, size_t errlen)
{
	struct emf_backend *below, *sums;
	int rc = add_spread(st, opt, &below, err, errlen);

	if (!rc && opt->encrypt && (st->redundant || st->hierarchy || st->pool)) {
		rc = checksum_open(below, STORE_CLUSTER, &st->stored_checksum);
		below = st->stored_checksum;
		if (rc)
			snprintf(err, errlen, "store.uri: cannot build the store: %s",
				 strerror(-rc));
	}
	if (!rc && opt->encrypt)
		rc = add_crypt(st, opt, &below, err, errlen);
	if (rc)
		return rc;
	st->unit = st->crypt || st->redundant ? STORE_CLUSTER : STORE_UNIT;
	rc = checksum_open(below, st->unit, &st->checksum);
	if (!rc)
		rc = retry_open(st->checksum, opt->timeout_ms, &st->retry);
	if (rc) {
		snprintf(err, errlen, "store.uri: cannot build the store: %s", strerror(-rc));
		return rc;
	}
	sums = st->stored_checksum ? st->stored_checksum : st->checksum;
	if (st->hierarchy)
		hierarchy_set_sums(st->hierarchy, sums);
	if (st->pool)
		pool_set_sums(st->pool, sums);
	if (st->pool && st->stored_checksum) /* crypt verifies what is read */
		checksum_trust(sums);
	if (st->redundant) {
		redundant_set_sums(st->redundant, sums);
		checksum_trust(sums);
	}
	st->top = st->retry;
	return 0;
}

static char *copy_text(const char *text)
{
	size_t n = strlen(text) + 1;
	char *copy = store_alloc(1, n);

	return copy ? memcpy(copy, text, n) : NULL;
}

/* Before the leaves. */
static int open_live(struct store *st, const struct store_options *opt, const char *const *uri,
		     unsigned n, char *err, size_t errlen)
{
	struct store_live *live = store_alloc(1, sizeof(*live));
	bool whole = live;

	st->live = live;
	if (live) {
		live->opt = *opt;
		live->opt.uri = NULL;
		live->opt.nuri = 0;
	}
	for (unsigned i = 0; i < n && whole; i++) {
		live->uri[i] = copy_text(uri[i]);
		whole = live->uri[i];
	}
	if (!whole)
		snprintf(err, errlen, "store.uri: %s", strerror(ENOMEM));
	return whole ? 0 : -ENOMEM;
}

int store_open(struct store *st, const struct store_options *opt, char *err, size_t errlen)
{
	char dflt[MAX_URI];
	const char *one = dflt, *const *uri = opt->uri;
	unsigned n = opt->nuri;
	int rc = 0;

	*st = (struct store){ 0 };
	for (unsigned i = 0; i < STORE_LEAVES; i++)
		st->lock_fd[i] = -1;
	st->wake_fd = signal_open();
	if (st->wake_fd < 0) {
		snprintf(err, errlen, "store.uri: %s", strerror(-st->wake_fd));
		return st->wake_fd;
	}
	if (!n) {
		default_uri(dflt, sizeof(dflt));
		uri = &one;
		n = 1;
	}
	if (n > STORE_LEAVES) {
		snprintf(err, errlen, "store.uri: %u stores, at most %u are possible", n,
			 STORE_LEAVES);
		store_close(st);
		return -EINVAL;
	}
	if (opt->live && !has_tiers(opt))
		rc = open_live(st, opt, uri, n, err, errlen);
	for (unsigned i = 0; i < n && !rc; i++) {
		st->nleaves = i + 1;
		rc = open_leaf(st, i, uri, opt, err, errlen);
	}
	if (!rc)
		rc = build(st, opt, err, errlen);
	if (rc)
		store_close(st);
	return rc;
}

static void close_one(struct emf_backend **be)
{
	if (*be)
		(*be)->ops->close(*be);
	*be = NULL;
}

static void unload(void **dl)
{
	if (*dl)
		dlclose(*dl);
	*dl = NULL;
}

static void close_leaf(struct store *st, unsigned i)
{
	close_one(&st->reconnect[i]);
	close_one(&st->count[i]);
	close_one(&st->inject[i]);
	close_one(&st->leaf[i]);
	if (st->lock_fd[i] >= 0)
		close(st->lock_fd[i]);
	st->lock_fd[i] = -1;
	unload(&st->dl[i]);
	if (st->live)
		store_free(st->live->uri[i]);
	if (st->live)
		st->live->uri[i] = NULL;
}

void store_close(struct store *st)
{
	close_one(&st->retry);
	close_one(&st->checksum);
	close_one(&st->crypt);
	close_one(&st->stored_checksum);
	close_one(&st->redundant);
	close_one(&st->hierarchy);
	close_one(&st->pool);
	for (unsigned i = 0; i < st->nstripes; i++)
		close_one(&st->stripe[i]);
	unload(&st->crypt_dl);
	unload(&st->parity_dl);
	for (unsigned i = 0; i < STORE_LEAVES; i++)
		close_leaf(st, i);
	store_free(st->live);
	st->live = NULL;
	if (st->wake_fd >= 0)
		close(st->wake_fd);
	st->wake_fd = -1;
	st->top = st->places = NULL;
	st->nleaves = 0;
}

int store_descriptors(const struct store *st, int *fds, unsigned max)
{
	unsigned n = 0;

	if (st->hierarchy) /* where slots lie is in this process's memory only */
		return -ENOTSUP;
	for (unsigned i = 0; i < st->nleaves; i++) {
		const struct emf_backend *leaf = st->leaf[i];

		if (!leaf)
			continue;
		int got = leaf->ops->descriptors(leaf, fds + n, (int)(max - n));

		if (got < 0)
			return got;
		n += (unsigned)got;
		if (st->lock_fd[i] < 0)
			continue;
		if (n == max)
			return -E2BIG;
		fds[n++] = st->lock_fd[i];
	}
	return (int)n;
}

static int fork_links(struct store *st, struct emf_store_stats *stats)
{
	struct emf_backend *const link[] = { st->stripe[0], st->pool, st->redundant, st->crypt };
	int rc = 0;

	st->wake_fd = signal_open();
	if (st->wake_fd < 0)
		return st->wake_fd;
	for (unsigned i = 0; i < st->nleaves && !rc; i++) {
		if (!st->leaf[i])
			continue;
		if (st->count[i] && stats)
			count_forked(st->count[i], &stats[i]);
		reconnect_forked(st->reconnect[i], stats ? &stats[i] : NULL, st->wake_fd);
		rc = st->reconnect[i]->ops->forked(st->reconnect[i], NULL);
	}
	if (st->pool)
		pool_forked(st->pool, stats, st->wake_fd);
	if (st->live) { /* who asked is not here */
		st->live->opt.stats = stats;
		st->live->state = NOTHING;
	}
	if (st->redundant)
		redundant_forked(st->redundant, stats, st->wake_fd);
	for (size_t i = 0; i < sizeof(link) / sizeof(link[0]) && !rc; i++)
		if (link[i])
			rc = link[i]->ops->forked(link[i], NULL);
	return rc;
}

int store_forked(struct store *st, const int *fds, struct emf_store_stats *stats)
{
	for (unsigned i = 0; i < st->nleaves; i++) {
		if (!st->leaf[i])
			continue;
		int rc = st->leaf[i]->ops->forked(st->leaf[i], fds);

		if (rc < 0)
			return rc;
		fds += rc;
		if (st->lock_fd[i] >= 0)
			st->lock_fd[i] = *fds++;
	}
	return fork_links(st, stats);
}

void store_forget(struct store *st)
{
	if (st->crypt)
		crypt_forget(st->crypt);
	for (unsigned i = 0; i < st->nleaves; i++)
		if (st->leaf[i] && st->leaf[i]->ops->forget)
			st->leaf[i]->ops->forget(st->leaf[i]);
	*st = (struct store){ 0 };
}

bool store_matches(struct store *st, uint64_t offset, size_t length, const void *buf)
{
	return checksum_matches(st->checksum, offset, length, buf);
}

uint32_t store_losses(const struct store *st)
{
	uint32_t sum = st->live ? atomic_load(&st->live->losses) : 0;

	for (unsigned i = 0; i < st->nleaves && !st->redundant; i++)
		sum += st->reconnect[i] ? reconnect_losses(st->reconnect[i]) : 0;
	return sum;
}

/* --- changes of members --- */

const char *store_uri(const struct store *st, const struct store_options *opt, unsigned i)
{
	if (st->places && pool_is_leaving(st->places, i))
		return NULL;
	return st->live ? st->live->uri[i] : i < opt->nuri ? opt->uri[i] : NULL;
}

uint64_t store_capacity(const struct store *st)
{
	return st->places ? pool_capacity(st->places) : st->top->size;
}

uint64_t store_used(const struct store *st, unsigned member, uint64_t all)
{
	return st->places ? pool_used(st->places, member) : all / st->nleaves;
}

bool store_change_ask(struct store *st, bool drain, const char *uri)
{
	struct store_live *live = st->live;

	if (!live || atomic_load(&live->state) != NOTHING)
		return false;
	live->drain = drain;
	snprintf(live->asked, sizeof(live->asked), "%s", uri);
	atomic_store(&live->state, ASKED);
	return true;
}

bool store_change_answer(struct store *st, int *rc, unsigned *index, char *text, size_t length)
{
	struct store_live *live = st->live;

	if (!live || atomic_load(&live->state) != ANSWERED)
		return false;
	*rc = live->rc;
	*index = live->index;
	snprintf(text, length, "%s", live->text);
	atomic_store(&live->state, NOTHING);
	return true;
}

static void still(const struct store *st, bool on)
{
	if (st->live->opt.still)
		st->live->opt.still(on);
}

static bool changed(const struct store *st)
{
	return !st->live->opt.changed || st->live->opt.changed();
}

static bool alone(const struct store *st)
{
	return !st->live->opt.alone || st->live->opt.alone();
}

/* "store 'URI': why", into the answer. Returns rc. */
static int decline(struct store_live *live, int rc, const char *why)
{
	blame(live->asked, why, rc, live->text, sizeof(live->text));
	memmove(live->text, live->text + strlen("store.uri: "),
		strlen(live->text + strlen("store.uri: ")) + 1);
	return rc;
}

/* A store without leaves, beside the one that others see. */
static struct store aside(const struct store *st)
{
	struct store s = { .wake_fd = st->wake_fd };

	for (unsigned k = 0; k < STORE_LEAVES; k++)
		s.lock_fd[k] = -1;
	return s;
}

static void hand_over(struct store *to, struct store *from, unsigned i)
{
	to->leaf[i] = from->leaf[i];
	to->inject[i] = from->inject[i];
	to->count[i] = from->count[i];
	to->reconnect[i] = from->reconnect[i];
	to->dl[i] = from->dl[i];
	to->lock_fd[i] = from->lock_fd[i];
	from->leaf[i] = from->inject[i] = from->count[i] = from->reconnect[i] = NULL;
	from->dl[i] = NULL;
	from->lock_fd[i] = -1;
}

/* Out of what others see of the store, then closed. */
static void take_out(struct store *st, unsigned i, bool was_member)
{
	struct store gone = aside(st);

	still(st, true);
	if (was_member) {
		if (!st->redundant)
			atomic_fetch_add(&st->live->losses, reconnect_losses(st->reconnect[i]));
		pool_remove(st->places, i);
	}
	hand_over(&gone, st, i);
	if (!was_member && st->nleaves == i + 1)
		st->nleaves = i;
	still(st, false);
	store_free(st->live->uri[i]);
	st->live->uri[i] = NULL;
	changed(st);
	close_leaf(&gone, i);
}

/* Becomes a member, unless children share the store. */
static int join(struct store *st, struct store *fresh, unsigned i)
{
	struct store_live *live = st->live;
	int rc = -EBUSY;

	still(st, true);
	if (alone(st)) {
		hand_over(st, fresh, i);
		st->outlives |= fresh->outlives;
		if (st->nleaves <= i)
			st->nleaves = i + 1;
		rc = 0;
	}
	still(st, false);
	if (rc)
		return rc;
	/* First: what is written there is to be trimmed whatever happens. */
	bool known = changed(st);
	still(st, true);
	rc = known && alone(st) ? pool_add(st->places, i, st->reconnect[i]) : -EBUSY;
	if (!rc && live->opt.grown)
		live->opt.grown();
	still(st, false);
	if (rc)
		take_out(st, i, false);
	return rc;
}

/* Opens it where nobody sees it yet: a child that is forked knows all of it, or nothing. */
static int open_and_join(struct store *st, unsigned i)
{
	struct store_live *live = st->live;
	struct store_options opt = live->opt;
	struct store fresh = aside(st);
	char err[512];
	int rc;

	if (opt.timeout_ms > ADD_MS) /* others may need this thread */
		opt.timeout_ms = ADD_MS;
	rc = open_leaf(&fresh, i, (const char *const *)live->uri, &opt, err, sizeof(err));
	if (rc) {
		snprintf(live->text, sizeof(live->text), "%s", err + strlen("store.uri: "));
	} else {
		rc = join(st, &fresh, i);
		if (rc)
			decline(live, rc,
				rc == -EBUSY
				    ? "forked children share the store; when they have ended"
				: rc == -ENOTSUP
				    ? "the stores are memory of this host, and this one is not"
				: rc == -ENOSPC ? "it is too small"
						: strerror(-rc));
	}
	close_leaf(&fresh, i);
	return rc;
}

static int change_add(struct store *st, unsigned *index)
{
	struct store_live *live = st->live;
	struct emf_store_stats *stats, before;
	uint64_t room;
	unsigned i = 0;
	int rc;

	while (i < STORE_LEAVES && live->uri[i])
		i++;
	if (i == STORE_LEAVES)
		return decline(live, -EINVAL, "there are 16 stores, more are not possible");
	for (unsigned k = 0; k < STORE_LEAVES; k++)
		if (live->uri[k] && !strcmp(live->uri[k], live->asked) &&
		    st->leaf[k]->caps & EMF_CAP_OUTLIVES)
			return decline(live, -EINVAL,
				       pool_is_leaving(st->places, k)
					   ? "it is drained, but not let go of yet; try later"
					   : "it is one of the stores already");
	if (!alone(st))
		return decline(live, -EBUSY,
			       "forked children share the store; when they have ended");
	live->uri[i] = copy_text(live->asked);
	if (!live->uri[i])
		return decline(live, -ENOMEM, strerror(ENOMEM));
	stats = live->opt.stats ? &live->opt.stats[i] : NULL;
	if (stats) {
		memcpy(&before, stats, sizeof(before));
		memset(stats, 0, sizeof(*stats));
	}
	*index = i;
	room = store_capacity(st);
	rc = open_and_join(st, i);
	if (!rc && st->redundant)
		snprintf(live->text, sizeof(live->text), "room for %llu MiB, before for %llu MiB",
			 (unsigned long long)store_capacity(st) >> 20,
			 (unsigned long long)room >> 20);
	if (!rc)
		return 0;
	store_free(live->uri[i]);
	live->uri[i] = NULL;
	if (stats) /* of the one that was drained under this number */
		memcpy(stats, &before, sizeof(before));
	return rc;
}

/* By its URI as it was given, or as it is shown: without secrets. */
static unsigned find_leaf(const struct store *st, const char *uri)
{
	char shown[MAX_URI];
	unsigned i = 0;

	for (; i < STORE_LEAVES; i++) {
		const char *has = st->live->uri[i];

		if (!has || pool_is_leaving(st->places, i))
			continue;
		snprintf(shown, sizeof(shown), "%s", has);
		strip_secrets(has, shown);
		if (!strcmp(has, uri) || !strcmp(shown, uri))
			break;
	}
	return i;
}

static int change_drain(struct store *st, unsigned *index)
{
	struct store_live *live = st->live;
	unsigned i = find_leaf(st, live->asked);
	char why[160], few[64];
	int rc;

	if (i == STORE_LEAVES)
		return decline(live, -ENOENT,
			       "it is none of the stores (tierstat stores lists them)");
	*index = i;
	still(st, true);
	rc = alone(st) ? pool_drain(st->places, i) : -EBUSY;
	still(st, false);
	if (rc == -ENOSPC) {
		snprintf(why, sizeof(why),
			 "%llu MiB are on it, and the others have room for %llu MiB",
			 (unsigned long long)pool_used(st->places, i) >> 20,
			 (unsigned long long)pool_free(st->places, i) >> 20);
		return decline(live, rc, why);
	}
	if (!rc)
		return 0;
	if (st->redundant)
		snprintf(few, sizeof(few), "the redundancy needs %u stores",
			 live->opt.data + live->opt.more);
	else
		snprintf(few, sizeof(few), "it is the last one");
	return decline(live, rc,
		       rc == -EBUSY	 ? "forked children share the store; when they have ended"
		       : rc == -EALREADY ? "it is being drained already"
		       : rc == -ENODEV	 ? few
		       : rc == -ENOTCONN ? "it does not answer: what is on it can't be moved"
					 : strerror(-rc));
}

/* Members that have nothing any more. Children may still know them: not before these have ended. */
static uint64_t leave_work(struct store *st, uint64_t now)
{
	struct store_live *live = st->live;
	uint32_t leaving = 0;

	for (unsigned i = 0; i < st->nleaves; i++)
		leaving |= (uint32_t)pool_is_leaving(st->places, i) << i;
	if (leaving && !alone(st))
		return now + LEAVE_NS;
	/* Its server may be stopped now: no guard shall wait for it. */
	if (leaving & ~live->leaving && !changed(st))
		return now + LEAVE_NS;
	live->leaving = leaving;
	for (unsigned i = 0; i < st->nleaves; i++)
		if (st->leaf[i] && pool_has_left(st->places, i))
			take_out(st, i, true);
	return UINT64_MAX;
}

/* By the store's thread: what was asked for. */
static void change_work(struct store *st)
{
	struct store_live *live = st->live;

	if (atomic_load(&live->state) != ASKED)
		return;
	live->text[0] = '\0';
	live->rc = (live->drain ? change_drain : change_add)(st, &live->index);
	atomic_store(&live->state, ANSWERED);
}

/* --- in the background --- */

#define IDLE_MS 60000u

bool store_needs_work(const struct store *st)
{
	bool needs = st->redundant || st->hierarchy || st->pool;

	for (unsigned i = 0; i < st->nleaves && !needs; i++)
		needs |= st->inject[i] || st->leaf[i]->caps & EMF_CAP_CONNECTS;
	return needs;
}

void store_work(struct store *st)
{
	struct pollfd fds[1 + STORE_LEAVES] = { { .fd = st->wake_fd, .events = POLLIN } };
	int n = 1;
	uint64_t now = timer_now(), next = UINT64_MAX, at;
	unsigned ms = IDLE_MS;

	if (st->places) {
		change_work(st);
		next = leave_work(st, now);
	}
	for (unsigned i = 0; i < st->nleaves; i++) {
		if (!st->reconnect[i] || (st->places && pool_is_leaving(st->places, i)))
			continue;
		at = reconnect_work(st->reconnect[i], now);
		next = at < next ? at : next;
	}
	if (st->pool) {
		at = pool_work(st->pool, now);
		next = at < next ? at : next;
	}
	if (st->redundant) {
		at = redundant_work(st->redundant, now);
		next = at < next ? at : next;
		at = redundant_patrol(st->redundant, timer_now());
		next = at < next ? at : next;
	}
	if (st->hierarchy) {
		at = hierarchy_work(st->hierarchy, now);
		next = at < next ? at : next;
	}
	now = timer_now();
	if (next <= now)
		return;
	if ((next - now) / 1000000 < ms)
		ms = (unsigned)((next - now) / 1000000) + 1;
	if (st->redundant)
		n += redundant_watch(st->redundant, fds + 1, STORE_LEAVES);
	poll(fds, (nfds_t)n, (int)ms);
	if (fds[0].revents)
		signal_clear(st->wake_fd);
	if (st->redundant)
		redundant_see(st->redundant, fds + 1, n - 1);
}
