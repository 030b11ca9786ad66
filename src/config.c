/* SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config_keys.h"
#include "config_memory.h"
#include "env.h"

#define WHY_MAX 512

void config_defaults(struct emf_config *cfg)
{
	memset(cfg, 0, sizeof(*cfg));
	config_keys_default(cfg);
}

int config_validate(const struct emf_config *cfg, char *err, size_t errlen)
{
	if (cfg->low > cfg->high) {
		snprintf(err, errlen, "local.low: %u is above local.high, %u; lower it", cfg->low,
			 cfg->high);
		return -EINVAL;
	}
	return 0;
}

static bool is_blank(const char *text)
{
	return !text[strspn(text, " \t\r\n")];
}

int config_read_inline(struct emf_config *cfg, const char *text, const char *source, char *err,
		       size_t errlen)
{
	char setting[CONFIG_VALUE_MAX + 256], why[WHY_MAX];
	unsigned ordinal = 0;

	for (size_t n; *text; text += n + (text[n] == ';')) {
		n = strcspn(text, ";");
		size_t kept = n < sizeof(setting) ? n : sizeof(setting) - 1;
		memcpy(setting, text, kept);
		setting[kept] = '\0';
		if (is_blank(setting))
			continue;
		ordinal++;
		/* a setting that was cut is too long for its value's buffer as well */
		if (!config_set_text(cfg, setting, why, sizeof(why)))
			goto wrong;
	}
	if (!config_validate(cfg, why, sizeof(why)))
		return 0;
wrong:
	snprintf(err, errlen, "%s:%u: %s", source, ordinal, why);
	return -EINVAL;
}

void config_columns(const struct emf_config *cfg, unsigned *data, unsigned *more)
{
	*data = cfg->data;
	*more = cfg->more;
	if (!*data)
		*data = cfg->nstores > *more ? cfg->nstores - *more : 0;
}

int config_validate_stores(const struct emf_config *cfg, char *err, size_t errlen)
{
	unsigned data, more, least;

	for (unsigned i = 0; i < EMF_MAX_STORES; i++) {
		if (cfg->tiers[i].low > cfg->tiers[i].high) {
			snprintf(
			    err, errlen,
			    "store.low: %u%% of tier %u is above store.high, %u%%; make it lower",
			    cfg->tiers[i].low, i + 1, cfg->tiers[i].high);
			return -EINVAL;
		}
	}
	if (cfg->nstores && cfg->store_tier[cfg->nstores - 1] &&
	    cfg->redundancy != EMF_REDUNDANCY_NONE) {
		snprintf(err, errlen,
			 "store.redundancy: not with tiers (a | in store.uri); use none");
		return -EINVAL;
	}
	config_columns(cfg, &data, &more);
	least = cfg->redundancy == EMF_REDUNDANCY_PARITY && data < 2 ? 2 + more : data + more;
	if (cfg->redundancy == EMF_REDUNDANCY_NONE || cfg->nstores >= least)
		return 0;
	snprintf(
	    err, errlen,
	    "store.redundancy: %s needs %u stores, store.uri names %u; name more of them, or use "
	    "none",
	    cfg->redundancy == EMF_REDUNDANCY_MIRROR ? "mirror" : "parity", least, cfg->nstores);
	return -EINVAL;
}

int config_read_env(struct emf_config *cfg, char *err, size_t errlen)
{
	const char *policy = env_get("EMFATIER_POLICY");
	const char *conf = env_get("EMFATIER_CONF");
	int rc = 0;

	if (policy && *policy)
		rc = config_read_policy(cfg, policy, err, errlen);
	if (!rc && conf)
		rc = config_read_inline(cfg, conf, "EMFATIER_CONF", err, errlen);
	return rc;
}

uint64_t config_limit_bytes(const struct emf_config *cfg)
{
	struct memory_limit memory;
	uint64_t total;

	if (!cfg->limit.percent)
		return cfg->limit.bytes;
	memory_limit_read(memory_root(), &memory);
	total = memory.cgroup < memory.host ? memory.cgroup : memory.host;
	/* in this order: a total near 2^64 must not overflow */
	return total / 100 * cfg->limit.percent + total % 100 * cfg->limit.percent / 100;
}

/* `*` and `?`; fnmatch(3) would drag the locale in. */
bool config_glob(const char *glob, const char *text)
{
	const char *star = NULL, *resume = NULL;

	while (*text) {
		if (*glob == '*') {
			star = ++glob;
			resume = text;
		} else if (*glob == '?' || *glob == *text) {
			glob++;
			text++;
		} else if (star) {
			/* the last star takes one character more */
			glob = star;
			text = ++resume;
		} else {
			return false;
		}
	}
	while (*glob == '*')
		glob++;
	return !*glob;
}

static bool wanted(const char *glob, const char *text)
{
	return !glob[0] || config_glob(glob, text);
}

static bool is_file(const char *glob, const char *path)
{
	const char *last = strrchr(path, '/');

	return config_glob(glob, strchr(glob, '/') || !last ? path : last + 1);
}

bool config_file_named(const struct emf_config *cfg, const char *path)
{
	for (unsigned i = 0; i < cfg->nclasses; i++)
		if (cfg->classes[i].match_file[0] && is_file(cfg->classes[i].match_file, path))
			return true;
	return false;
}

uint32_t config_who(const struct emf_config *cfg, const char *thread, const char *library)
{
	uint32_t who = 0;

	_Static_assert(EMF_MAX_CLASSES <= 32, "one bit for each class");
	for (unsigned i = 0; i < cfg->nclasses; i++)
		if (wanted(cfg->classes[i].match_thread, thread) &&
		    wanted(cfg->classes[i].match_library, library))
			who |= 1u << i;
	return who;
}

const struct emf_class *config_class(const struct emf_config *cfg, const struct emf_traits *t)
{
	for (unsigned i = 0; i < cfg->nclasses; i++) {
		const struct emf_class *cls = &cfg->classes[i];

		if (t->bytes < cls->match_min || t->bytes > cls->match_max)
			continue;
		if (t->order < cls->order_min || t->order > cls->order_max)
			continue;
		if ((t->does & cls->match_does) != cls->match_does || !(t->who >> i & 1))
			continue;
		if (cls->match_file[0] && (!t->file || !is_file(cls->match_file, t->file)))
			continue;
		if (wanted(cls->match_command, t->command) && wanted(cls->match_name, t->name))
			return cls;
	}
	return NULL;
}
