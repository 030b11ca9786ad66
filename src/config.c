/* SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config_keys.h"
#include "config_memory.h"

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

	config_columns(cfg, &data, &more);
	least = cfg->redundancy == EMF_REDUNDANCY_PARITY && data < 2 ? 2 + more : data + more;
	if (cfg->redundancy == EMF_REDUNDANCY_NONE || cfg->nstores >= least)
		return 0;
	snprintf(err, errlen,
		 "store.redundancy: %s needs %u stores, store.uri names %u; name more of them, or use "
		 "none",
		 cfg->redundancy == EMF_REDUNDANCY_MIRROR ? "mirror" : "parity", least, cfg->nstores);
	return -EINVAL;
}

int config_read_env(struct emf_config *cfg, char *err, size_t errlen)
{
	const char *policy = getenv("EMFATIER_POLICY");
	const char *conf = getenv("EMFATIER_CONF");
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
	memory_limit_read("", &memory);
	total = memory.cgroup < memory.host ? memory.cgroup : memory.host;
	/* in this order: a total near 2^64 must not overflow */
	return total / 100 * cfg->limit.percent + total % 100 * cfg->limit.percent / 100;
}

/* `*` and `?`; fnmatch(3) would drag the locale in. */
static bool glob_matches(const char *glob, const char *text)
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

const struct emf_class *config_class(const struct emf_config *cfg, uint64_t bytes,
				     const char *command)
{
	for (unsigned i = 0; i < cfg->nclasses; i++) {
		const struct emf_class *cls = &cfg->classes[i];

		if (bytes < cls->match_min || bytes > cls->match_max)
			continue;
		if (!cls->match_command[0] || glob_matches(cls->match_command, command))
			return cls;
	}
	return NULL;
}
