/* SPDX-License-Identifier: Apache-2.0 */
#include "config_keys.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "config.h"
#include "config_values.h"

static const struct config_choice encryptions[] = { { "off", false }, { "on", true }, { 0 } };
static const struct config_choice faults[] = { { "thread", false }, { "signal", true }, { 0 } };
static const struct config_choice moves[] = { { "auto", true }, { "off", false }, { 0 } };
static const struct config_choice heaps[] = {
	{ "large", EMF_HEAP_LARGE }, { "all", EMF_HEAP_ALL }, { "off", EMF_HEAP_OFF }, { 0 }
};
static const struct config_choice files[] = { { "weights", EMF_FILES_WEIGHTS },
					      { "match", EMF_FILES_MATCH },
					      { "off", EMF_FILES_OFF },
					      { 0 } };
static const struct config_choice evictions[] = { { "auto", EMF_EVICT_AUTO },
						  { "loop", EMF_EVICT_LOOP },
						  { "lru", EMF_EVICT_LRU },
						  { "lfu", EMF_EVICT_LFU },
						  { 0 } };
static const struct config_choice granules[] = { { "auto", EMF_GRANULE_AUTO },
						 { "4K", EMF_GRANULE_PAGE },
						 { "64K", EMF_GRANULE_CLUSTER },
						 { "2M", EMF_GRANULE_BLOCK },
						 { 0 } };
static const struct config_choice places[] = { { "auto", 0 },
					       { "bind", 100 },
					       { "interleave", 50 },
					       { "weighted", EMF_PLACE_WEIGHTED },
					       { 0 } };
static const struct config_choice prefetches[] = {
	{ "auto", EMF_PREFETCH_AUTO },	 { "sequential", EMF_PREFETCH_SEQUENTIAL },
	{ "trend", EMF_PREFETCH_TREND }, { "learned", EMF_PREFETCH_LEARNED },
	{ "off", EMF_PREFETCH_OFF },	 { 0 }
};

static bool value_trace(const struct config_key *key, void *field, const char *value, char *why,
			size_t len)
{
	if (strlen(value) >= key->width) {
		snprintf(why, len, "the name is too long; at most %zu characters", key->width - 1);
		return false;
	}
	memset(field, 0, key->width);
	memcpy(field, value, strlen(value));
	return true;
}

/* clang-format off */
#define FIELD(member) \
	.offset = offsetof(struct emf_config, member), \
	.width = sizeof(((struct emf_config *)0)->member)
#define CLASS_FIELD(member) \
	.offset = offsetof(struct emf_class, member), \
	.width = sizeof(((struct emf_class *)0)->member)
/* the setter takes the whole struct, or nothing */
#define NO_FIELD .offset = 0

static const struct config_key keys[] = {
	{ "local", "limit", "SIZE|PERCENT%|auto", "auto",
	  "local memory for what can be moved; percent of the cgroup's or host's, as that changes; "
	  "auto: up to 80%, less when memory is short",
	  value_amount, FIELD(limit) },
	{ "local", "high", "PERCENT", "98", "of the limit: eviction starts above it",
	  value_percent, FIELD(high), .min = 1, .max = 100 },
	{ "local", "low", "PERCENT", "96", "of the limit: eviction stops at it",
	  value_percent, FIELD(low), .min = 1, .max = 100 },

	{ "store", "uri", "URI,...|URI,...", "",
	  "where cold memory goes, several make a stripe set; a | begins a slower tier; empty: a local file",
	  value_uris, NO_FIELD },
	{ "store", "capacity", "SIZE|SIZE...", "",
	  "how much of each tier is used; left out: all of it",
	  value_tier_sizes, FIELD(tiers[0].capacity), .min = 2u << 20, .max = 1ull << 50 },
	{ "store", "high", "PERCENT|PERCENT...", "95",
	  "of each tier's capacity: blocks move to a slower tier above it; the last holds for all that follow",
	  value_tier_percents, FIELD(tiers[0].high), .min = 1, .max = 100 },
	{ "store", "low", "PERCENT|PERCENT...", "90", "of each tier's capacity: that stops at it",
	  value_tier_percents, FIELD(tiers[0].low), .min = 1, .max = 100 },
	{ "store", "stripe", "SIZE", "512K", "unit of the stripe set, a power of two, 64K to 2M",
	  value_power, FIELD(stripe), .min = 64u << 10, .max = 2u << 20 },
	{ "store", "redundancy", "none|mirror[:3]|parity[:K+M]", "none",
	  "copies on 2 (3) stores, or K data and M parity parts, all stores but one and 1",
	  value_redundancy, NO_FIELD },
	{ "store", "rebuild", "SIZE", "256M", "a second: how fast lost redundancy is restored, and blocks change tiers or stores, 1M to 1T",
	  value_size, FIELD(rebuild), .min = 1u << 20, .max = 1ull << 40 },
	{ "store", "in_place", "SIZE", "0", "of the node of a first store numa:N, for blocks that are used where they lie, up to 16T",
	  value_size, FIELD(in_place), .min = 0, .max = 1ull << 44 },
	{ "store", "timeout", "TIME", "10s", "a page that can't be had for so long is lost",
	  value_duration, FIELD(timeout_ms), .min = 1, .max = 3600000 },
	{ "store", "encrypt", "on|off", "off", "on: AES-256-GCM of what leaves local memory",
	  value_choice, FIELD(encrypt), .choice = encryptions },

	{ "store", "inject", "[MEMBER:]KIND=VALUE,...", "",
	  "faults, for tests: error, full, corrupt, cut, stuck, late=0..1, delay=TIME, seed=N",
	  value_inject, NO_FIELD },

	{ "engine", "min_region", "SIZE", "4M", "smaller allocations stay local, from 4K",
	  value_size, FIELD(min_region), .min = 4096, .max = 1ull << 46 },
	{ "engine", "fault", "thread|signal", "thread", "who resolves page faults; signal: who touches",
	  value_choice, FIELD(signal), .choice = faults },
	{ "engine", "move", "auto|off", "auto", "off: copy pages even where the kernel can move them",
	  value_choice, FIELD(move), .choice = moves },
	{ "engine", "heap", "large|all|off", "large",
	  "which of malloc's memory is managed; all: small objects, too",
	  value_choice, FIELD(heap), .choice = heaps },
	{ "engine", "files", "weights|match|off", "weights",
	  "which read-only file mappings are managed; match: those that a class names by file:",
	  value_choice, FIELD(files), .choice = files },
	{ "engine", "chaos", "NUMBER", "0", "random evictions a second, for tests",
	  value_uint, FIELD(chaos), .max = 1000000 },
	{ "engine", "trace", "FILE", "",
	  "records which blocks are touched, for policysim; %p in the name is the PID; empty: off",
	  value_trace, FIELD(trace) },

	{ CONFIG_CLASS, "match", "size>=SIZE size<=SIZE order=N does=WORD command|thread|library|name=GLOB file:GLOB", "",
	  "which regions: all that is given must hold; the first class that matches is taken",
	  value_match, NO_FIELD },
	{ CONFIG_CLASS, "evict", "auto|loop|lru|lfu", "auto",
	  "loop: for what is swept again and again; lfu: for what is used unevenly; lru: recency",
	  value_choice, CLASS_FIELD(evict), .choice = evictions },
	{ CONFIG_CLASS, "prefetch", "auto|sequential|trend|learned|off", "auto",
	  "what is fetched before it is touched",
	  value_choice, CLASS_FIELD(prefetch), .choice = prefetches },
	{ CONFIG_CLASS, "window", "BLOCKS", "0", "how far prefetch runs ahead, 0 to 1024; 0: by itself",
	  value_uint, CLASS_FIELD(window), .max = 1024 },
	{ CONFIG_CLASS, "resident", "PERCENT", "0", "of the region that stays local; 0: by itself",
	  value_percent, CLASS_FIELD(resident), .max = 100 },
	{ CONFIG_CLASS, "granule", "auto|4K|64K|2M", "auto",
	  "what a fault fetches; 4K, 64K: for random access; auto: as it is seen",
	  value_choice, CLASS_FIELD(granule), .choice = granules },
	{ CONFIG_CLASS, "place", "auto|bind|interleave|weighted|PERCENT%", "auto",
	  "what lies on the slow node for good: nothing, all, half, of what is swept as much as is fastest",
	  value_share, CLASS_FIELD(place), .min = 1, .max = 100, .choice = places },
};
/* clang-format on */

#define NKEYS (sizeof(keys) / sizeof(keys[0]))
#define CLASS_NAME_HELP "a class name has 1 to 31 letters, digits, - or _"

const char *config_printable(const char *text, char *out, size_t len)
{
	size_t n = 0;

	for (; text[n] && n + 1 < len; n++)
		out[n] = text[n] >= ' ' && text[n] <= '~' ? text[n] : '?';
	out[n] = '\0';
	if (text[n] && len > 4)
		memcpy(out + len - 4, "...", 3);
	return out;
}

/* Levenshtein's, of words that fit a row; longer ones are far from every key. */
static unsigned edit_distance(const char *a, const char *b)
{
	unsigned row[32];
	size_t la = strlen(a), lb = strlen(b);

	if (la >= 32 || lb >= 32)
		return 32;
	for (unsigned j = 0; j <= lb; j++)
		row[j] = j;
	for (unsigned i = 1; i <= la; i++) {
		unsigned diagonal = row[0];

		row[0] = i;
		for (unsigned j = 1; j <= lb; j++) {
			unsigned best = diagonal + (a[i - 1] != b[j - 1]);

			if (row[j] + 1 < best)
				best = row[j] + 1;
			if (row[j - 1] + 1 < best)
				best = row[j - 1] + 1;
			diagonal = row[j];
			row[j] = best;
		}
	}
	return row[lb];
}

/* "unknown key; known are: a, b (did you mean a?)" */
static void unknown_key(const char *section, const char *key, char *why, size_t len)
{
	const char *nearest = NULL;
	unsigned nearest_distance = 3; /* a typo or two, not another word */
	size_t n = (size_t)snprintf(why, len, "unknown key; known are:");
	bool first = true;

	for (size_t i = 0; i < NKEYS; i++) {
		if (strcmp(keys[i].section, section))
			continue;
		unsigned d = edit_distance(key, keys[i].name);
		if (d < nearest_distance) {
			nearest_distance = d;
			nearest = keys[i].name;
		}
		if (n < len)
			n += (size_t)snprintf(why + n, len - n, "%s %s", first ? "" : ",",
					      keys[i].name);
		first = false;
	}
	if (nearest && n < len)
		snprintf(why + n, len - n, " (did you mean %s?)", nearest);
}

static bool section_known(const char *section)
{
	for (size_t i = 0; i < NKEYS; i++) {
		if (!strcmp(keys[i].section, section))
			return true;
	}
	return false;
}

static bool class_name_valid(const char *name)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				      "0123456789-_";
	size_t n = strlen(name);

	return n && n < sizeof(((struct emf_class *)0)->name) && strspn(name, allowed) == n;
}

bool config_section(char *text, char **cls, char *why, size_t len)
{
	static const char blanks[] = " \t";
	size_t n = strcspn(text, blanks);
	char shown[64];

	config_printable(text, shown, sizeof(shown));
	*cls = NULL;
	if (text[n]) {
		text[n++] = '\0';
		*cls = text + n + strspn(text + n, blanks);
	}
	if (!strcmp(text, CONFIG_PROCESS) && *cls && **cls)
		return true;
	if (!section_known(text) || (*cls && strcmp(text, CONFIG_CLASS))) {
		snprintf(why, len,
			 "[%s]: unknown section; known are: local, store, engine, class NAME, "
			 "process GLOB",
			 shown);
		return false;
	}
	if (!strcmp(text, CONFIG_CLASS) && (!*cls || !class_name_valid(*cls))) {
		snprintf(why, len, "[%s]: write [class NAME]; " CLASS_NAME_HELP, shown);
		return false;
	}
	return true;
}

static void class_defaults(struct emf_class *cls)
{
	char why[8];

	for (size_t i = 0; i < NKEYS; i++) {
		const struct config_key *k = &keys[i];

		if (k->dflt && !strcmp(k->section, CONFIG_CLASS))
			k->set(k, (char *)cls + k->offset, k->dflt, why, sizeof(why));
	}
}

void config_keys_default(struct emf_config *cfg)
{
	char why[8];

	for (size_t i = 0; i < NKEYS; i++) {
		const struct config_key *k = &keys[i];

		if (k->dflt && strcmp(k->section, CONFIG_CLASS))
			k->set(k, (char *)cfg + k->offset, k->dflt, why, sizeof(why));
	}
}

/* The class of that name, made when it is new; NULL: no room. */
static struct emf_class *class_get(struct emf_config *cfg, const char *name, unsigned line)
{
	struct emf_class *cls;

	for (unsigned i = 0; i < cfg->nclasses; i++) {
		if (!strcmp(cfg->classes[i].name, name))
			return &cfg->classes[i];
	}
	if (cfg->nclasses == EMF_MAX_CLASSES)
		return NULL;
	cls = &cfg->classes[cfg->nclasses++];
	*cls = (struct emf_class){ .line = line };
	strcpy(cls->name, name);
	class_defaults(cls);
	return cls;
}

/* Sets the key of the table in the struct that holds its field. */
static bool set_value(struct emf_config *cfg, const struct config_key *k, const char *cls,
		      const char *value, unsigned line, char *why, size_t len)
{
	struct emf_class *class;

	if (!cls)
		return k->set(k, (char *)cfg + k->offset, value, why, len);
	class = class_get(cfg, cls, line);
	if (!class) {
		snprintf(why, len, "too many classes; at most %d are possible", EMF_MAX_CLASSES);
		return false;
	}
	if (!k->set(k, (char *)class + k->offset, value, why, len))
		return false;
	cfg->asks |= (class->match_thread[0] ? EMF_ASKS_THREAD : 0u) |
		     (class->match_library[0] ? EMF_ASKS_LIBRARY : 0u);
	return true;
}

bool config_set(struct emf_config *cfg, const char *section, const char *cls, const char *key,
		const char *value, unsigned line, char *why, size_t len)
{
	const struct config_key *k;
	char shown[64];
	int n = snprintf(why, len, "%s%s%s.%s: ", section, cls ? "." : "", cls ? cls : "",
			 config_printable(key, shown, sizeof(shown)));

	if (n < 0 || (size_t)n >= len)
		return false;
	why += n;
	len -= (size_t)n;
	for (k = keys; k < keys + NKEYS; k++) {
		if (!strcmp(k->section, section) && !strcmp(k->name, key))
			return set_value(cfg, k, cls, value, line, why, len);
	}
	unknown_key(section, key, why, len);
	return false;
}

/* Copies [from, to) without the blanks around it. False: it does not fit. */
static bool copy_trimmed(const char *from, const char *to, char *out, size_t len)
{
	static const char blanks[] = " \t\r\n";

	while (from < to && strchr(blanks, *from))
		from++;
	while (from < to && strchr(blanks, to[-1]))
		to--;
	if ((size_t)(to - from) >= len)
		return false;
	memcpy(out, from, (size_t)(to - from));
	out[to - from] = '\0';
	return true;
}

/* The last '.' of [text, to), or NULL. */
static const char *last_dot(const char *text, const char *to)
{
	while (to > text) {
		if (*--to == '.')
			return to;
	}
	return NULL;
}

bool config_set_text(struct emf_config *cfg, const char *text, char *why, size_t len)
{
	char section[96], key[64], value[CONFIG_VALUE_MAX], shown[64];
	const char *equals = strchr(text, '=');
	const char *dot = equals ? last_dot(text, equals) : NULL;
	char *cls;

	if (!dot || !copy_trimmed(text, dot, section, sizeof(section)) ||
	    !copy_trimmed(dot + 1, equals, key, sizeof(key))) {
		snprintf(why, len,
			 "'%s': not a setting; write section.key=value, as local.limit=2G",
			 config_printable(text, shown, sizeof(shown)));
		return false;
	}
	if (!copy_trimmed(equals + 1, equals + strlen(equals), value, sizeof(value))) {
		snprintf(why, len, "%s.%s: the value is too long; at most %d characters", section,
			 config_printable(key, shown, sizeof(shown)), CONFIG_VALUE_MAX - 1);
		return false;
	}
	/* class.NAME as the section line writes it: class NAME */
	cls = strchr(section, '.');
	if (cls)
		*cls = ' ';
	if (!config_section(section, &cls, why, len))
		return false;
	if (!strcmp(section, CONFIG_PROCESS)) {
		snprintf(why, len, "process: only a policy file has such sections");
		return false;
	}
	return config_set(cfg, section, cls, key, value, 0, why, len);
}

void config_describe(void (*fn)(const char *section, const char *key, const char *type,
				const char *dflt, const char *help))
{
	for (size_t i = 0; i < NKEYS; i++)
		fn(keys[i].section, keys[i].name, keys[i].type, keys[i].dflt ? keys[i].dflt : "",
		   keys[i].help);
}
