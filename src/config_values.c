/* SPDX-License-Identifier: Apache-2.0 */
#include "config_values.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "config.h"
#include "config_keys.h"
#include "store/inject.h"

#define SHOWN 64 /* of a wrong value, in a message */

#define SIZE_HELP "write bytes or a number with K, M, G or T, as 512M or 1.5G"

/* Writes why and is false, so that a check reads `return refuse(...)`. */
__attribute__((format(printf, 4, 5))) static bool refuse(const char *value, char *why, size_t len,
							 const char *format, ...)
{
	char shown[SHOWN];
	int n = snprintf(why, len, "'%s' ", config_printable(value, shown, sizeof(shown)));
	va_list ap;

	if (n < 0 || (size_t)n >= len)
		return false;
	va_start(ap, format);
	vsnprintf(why + n, len - (size_t)n, format, ap);
	va_end(ap);
	return false;
}

/* 65536 as 64K: the largest unit that divides it. */
static const char *format_size(uint64_t bytes, char *out, size_t len)
{
	static const char units[] = "KMGT";
	unsigned u = 0;

	while (u < 4 && bytes && bytes % 1024 == 0) {
		bytes /= 1024;
		u++;
	}
	if (u)
		snprintf(out, len, "%" PRIu64 "%c", bytes, units[u - 1]);
	else
		snprintf(out, len, "%" PRIu64, bytes);
	return out;
}

static void store(const struct config_key *key, void *field, uint64_t value)
{
	uint32_t word = (uint32_t)value;
	bool flag = value != 0;

	if (key->width == sizeof(value))
		memcpy(field, &value, sizeof(value));
	else if (key->width == sizeof(word))
		memcpy(field, &word, sizeof(word));
	else if (key->width == sizeof(flag))
		memcpy(field, &flag, sizeof(flag));
}

bool value_amount(const struct config_key *key, void *field, const char *value, char *why,
		  size_t len)
{
	struct emf_amount amount = { 0 };
	const char *end = value + strlen(value);

	(void)key;
	if (!strcmp(value, "auto")) {
		amount.percent = 80;
		amount.automatic = true;
	} else if (end > value && end[-1] == '%') {
		if (!parse_percent(value, &amount.percent) || !amount.percent)
			return refuse(value, why, len, "is not a percentage; write 1%% to 100%%");
	} else if (!parse_size(value, &amount.bytes)) {
		return refuse(value, why, len,
			      "is not a size; " SIZE_HELP ", or 50%% of the memory, or auto");
	} else if (!amount.bytes) {
		return refuse(value, why, len, "leaves no local memory; " SIZE_HELP);
	}
	memcpy(field, &amount, sizeof(amount));
	return true;
}

bool value_size(const struct config_key *key, void *field, const char *value, char *why, size_t len)
{
	char from[24], to[24];
	uint64_t bytes;

	if (!parse_size(value, &bytes))
		return refuse(value, why, len, "is not a size; " SIZE_HELP);
	if (bytes < key->min || bytes > key->max) {
		format_size(key->min, from, sizeof(from));
		format_size(key->max, to, sizeof(to));
		if (key->min == key->max)
			return refuse(value, why, len, "is not supported by this version; use %s",
				      from);
		return refuse(value, why, len, "is out of range; use %s to %s", from, to);
	}
	store(key, field, bytes);
	return true;
}

bool value_power(const struct config_key *key, void *field, const char *value, char *why,
		 size_t len)
{
	uint64_t bytes;

	if (parse_size(value, &bytes) && (bytes & (bytes - 1)))
		return refuse(value, why, len, "is not a power of two; use 64K, 128K, 256K ...");
	return value_size(key, field, value, why, len);
}

bool value_uint(const struct config_key *key, void *field, const char *value, char *why, size_t len)
{
	uint64_t n;

	if (!parse_uint(value, &n) || n < key->min || n > key->max)
		return refuse(value, why, len, "is not a number from %" PRIu64 " to %" PRIu64,
			      key->min, key->max);
	store(key, field, n);
	return true;
}

bool value_percent(const struct config_key *key, void *field, const char *value, char *why,
		   size_t len)
{
	unsigned percent;

	if (!parse_percent(value, &percent) || percent < key->min || percent > key->max)
		return refuse(value, why, len, "is not a percentage; write %" PRIu64 " to %" PRIu64,
			      key->min, key->max);
	store(key, field, percent);
	return true;
}

bool value_duration(const struct config_key *key, void *field, const char *value, char *why,
		    size_t len)
{
	unsigned ms;

	if (!parse_duration(value, &ms))
		return refuse(value, why, len, "is not a duration; write 500ms, 10s or 2m");
	if (ms < key->min || ms > key->max)
		return refuse(value, why, len, "is out of range; use %" PRIu64 "ms to %" PRIu64 "s",
			      key->min, key->max / 1000);
	store(key, field, ms);
	return true;
}

/* "auto or off", "a, b or c": what can be chosen. */
static const char *choices(const struct config_choice *choice, char *out, size_t len)
{
	unsigned left = 0;
	size_t n = 0;

	for (const struct config_choice *c = choice; c->name; c++)
		left++;
	out[0] = '\0';
	for (const struct config_choice *c = choice; c->name; c++) {
		left--;
		n += (size_t)snprintf(out + n, len - n, "%s%s", c->name,
				      left > 1 ? ", "
				      : left   ? " or "
					       : "");
		if (n >= len)
			break;
	}
	return out;
}

bool value_choice(const struct config_key *key, void *field, const char *value, char *why,
		  size_t len)
{
	const struct config_choice *c;
	char list[128];

	choices(key->choice, list, sizeof(list));
	for (c = key->choice; c->name && strcmp(c->name, value); c++)
		;
	if (!c->name)
		return refuse(value, why, len, "is not known; use %s", list);
	store(key, field, (uint64_t)c->value);
	return true;
}

bool value_share(const struct config_key *key, void *field, const char *value, char *why,
		 size_t len)
{
	char list[128];

	if (*value >= '0' && *value <= '9')
		return value_percent(key, field, value, why, len);
	for (const struct config_choice *c = key->choice; c->name; c++)
		if (!strcmp(c->name, value))
			return value_choice(key, field, value, why, len);
	choices(key->choice, list, sizeof(list));
	return refuse(value, why, len, "is not known; use %s, or a percentage", list);
}

/* The next piece of a list: *text moves behind it. NULL at the end. */
static const char *next_item(const char **text, const char *separators, size_t *length)
{
	const char *p = *text + strspn(*text, separators);

	*length = strcspn(p, separators);
	*text = p + *length;
	return *length ? p : NULL;
}

/* "scheme:...", nothing that a terminal or a list would trip over. */
static bool is_uri(const char *text)
{
	static const char scheme[] = "abcdefghijklmnopqrstuvwxyz0123456789+-";
	size_t n = strspn(text, scheme);

	if (!n || text[n] != ':')
		return false;
	for (; text[n]; n++) {
		if ((unsigned char)text[n] <= ' ' || text[n] == 0x7f)
			return false;
	}
	return true;
}

/* "a | | b", "| a", "a |" */
static bool has_empty_tier(const char *text)
{
	bool empty = true, any = strchr(text, '|');

	for (; *text; text++) {
		if (*text == '|' && empty)
			return true;
		if (!strchr(", \t", *text))
			empty = *text == '|';
	}
	return any && empty;
}

bool value_uris(const struct config_key *key, void *config, const char *value, char *why,
		size_t len)
{
	struct emf_config *cfg = config;
	char uri[EMF_URI_MAX];
	unsigned count = 0;
	const char *item;
	size_t n;

	(void)key;
	/* twice: a list that is wrong somewhere must not leave half of itself behind */
	for (const char *p = value; (item = next_item(&p, "|, \t", &n));) {
		if (n >= sizeof(uri))
			return refuse(item, why, len,
				      "is too long; a URI has at most %zu characters",
				      sizeof(uri) - 1);
		memcpy(uri, item, n);
		uri[n] = '\0';
		if (!is_uri(uri))
			return refuse(uri, why, len,
				      "is not a URI; write file:/path, nbd://host or mem:");
		if (++count > EMF_MAX_STORES)
			return refuse(uri, why, len,
				      "is one too many; at most %d stores make a set",
				      EMF_MAX_STORES);
	}
	if (has_empty_tier(value))
		return refuse(value, why, len, "has a tier without a store; write URI | URI");
	unsigned tier = 0;
	const char *from = value;
	cfg->nstores = 0;
	for (const char *p = value; (item = next_item(&p, "|, \t", &n)); cfg->nstores++) {
		for (; from < item; from++)
			tier += *from == '|';
		cfg->store_tier[cfg->nstores] = (uint8_t)tier;
		memset(cfg->store_uri[cfg->nstores], 0, EMF_URI_MAX);
		memcpy(cfg->store_uri[cfg->nstores], item, n);
	}
	return true;
}

/* The next of "A|B|C" without blanks around it; false: it is too long. */
static bool next_of_tiers(const char **text, char *out, size_t len)
{
	const char *p = *text + strspn(*text, " \t");
	size_t n = strcspn(p, "|");

	*text = p + n + (p[n] == '|');
	while (n && (p[n - 1] == ' ' || p[n - 1] == '\t'))
		n--;
	if (n >= len)
		return false;
	memcpy(out, p, n);
	out[n] = '\0';
	return true;
}

/* Sets the same field of all tiers; the last percentage holds for those that follow. */
static bool set_tiers(const struct config_key *key, void *field, const char *value, bool sizes,
		      char *why, size_t len)
{
	char item[32] = "";
	union {
		uint64_t size;
		unsigned percent;
	} parsed[EMF_MAX_STORES] = { 0 };

	for (unsigned i = 0; i < EMF_MAX_STORES; i++) {
		bool given = *value || !i;

		if (given && !next_of_tiers(&value, item, sizeof(item)))
			return refuse(value, why, len, "is too long; write A|B");
		if (sizes && (!given || !*item))
			continue; /* all of it */
		if (!(sizes ? value_size : value_percent)(key, &parsed[i], item, why, len))
			return false;
	}
	if (*value)
		return refuse(value, why, len, "is for one tier too many; at most %d are possible",
			      EMF_MAX_STORES);
	for (unsigned i = 0; i < EMF_MAX_STORES; i++)
		memcpy((char *)field + i * sizeof(struct store_tier), &parsed[i], key->width);
	return true;
}

bool value_tier_sizes(const struct config_key *key, void *field, const char *value, char *why,
		      size_t len)
{
	return set_tiers(key, field, value, true, why, len);
}

bool value_tier_percents(const struct config_key *key, void *field, const char *value, char *why,
			 size_t len)
{
	return set_tiers(key, field, value, false, why, len);
}

/* "K+M" */
static bool columns(const char *text, unsigned *data, unsigned *more)
{
	char number[8];
	const char *plus = strchr(text, '+');
	uint64_t k, m;

	if (!plus || (size_t)(plus - text) >= sizeof(number))
		return false;
	memcpy(number, text, (size_t)(plus - text));
	number[plus - text] = '\0';
	if (!parse_uint(number, &k) || !parse_uint(plus + 1, &m) || k < 2 || m < 1 || k > 15 ||
	    k + m > EMF_MAX_STORES)
		return false;
	*data = (unsigned)k;
	*more = (unsigned)m;
	return true;
}

bool value_redundancy(const struct config_key *key, void *config, const char *value, char *why,
		      size_t len)
{
	struct emf_config *cfg = config;
	enum emf_redundancy kind;
	unsigned data = 0, more = 0;
	uint64_t copies;

	(void)key;
	if (!strcmp(value, "none")) {
		kind = EMF_REDUNDANCY_NONE;
		data = 1;
	} else if (!strcmp(value, "mirror")) {
		kind = EMF_REDUNDANCY_MIRROR;
		data = more = 1;
	} else if (!strcmp(value, "parity")) {
		kind = EMF_REDUNDANCY_PARITY; /* as many data columns as there are stores but one */
		more = 1;
	} else if (!strncmp(value, "mirror:", 7)) {
		kind = EMF_REDUNDANCY_MIRROR;
		if (!parse_uint(value + 7, &copies) || copies < 2 || copies > 3)
			return refuse(value, why, len,
				      "is not possible; a mirror has 2 or 3 copies");
		data = 1;
		more = (unsigned)copies - 1;
	} else if (!strncmp(value, "parity:", 7)) {
		kind = EMF_REDUNDANCY_PARITY;
		if (!columns(value + 7, &data, &more))
			return refuse(
			    value, why, len,
			    "is not possible; write parity:DATA+PARITY, as parity:4+1, of at "
			    "least 2+1 and at most %d in all",
			    EMF_MAX_STORES);
	} else {
		return refuse(value, why, len,
			      "is not known; use none, mirror, mirror:3, parity or parity:4+2");
	}
	cfg->redundancy = kind;
	cfg->data = data;
	cfg->more = more;
	return true;
}

bool value_inject(const struct config_key *key, void *config, const char *value, char *why,
		  size_t len)
{
	struct emf_config *cfg = config;
	struct inject what;

	(void)key;
	if (strlen(value) >= sizeof(cfg->inject))
		return refuse(value, why, len, "is too long; at most %zu characters",
			      sizeof(cfg->inject) - 1);
	if (!inject_parse(value, 0, &what, why, len))
		return false;
	memset(cfg->inject, 0, sizeof(cfg->inject));
	strcpy(cfg->inject, value);
	return true;
}

/* Behind KEY=, or NULL where item is another. */
static const char *behind(const char *item, const char *key)
{
	size_t n = strlen(key);

	return strncmp(item, key, n) || !item[n] ? NULL : item + n;
}

static const struct {
	const char *key;
	size_t offset;
} globs[] = { { "command=", offsetof(struct emf_class, match_command) },
	      { "thread=", offsetof(struct emf_class, match_thread) },
	      { "library=", offsetof(struct emf_class, match_library) },
	      { "name=", offsetof(struct emf_class, match_name) },
	      { "file:", offsetof(struct emf_class, match_file) } };

static const struct {
	const char *word;
	unsigned does;
} deeds[] = { { "swept", EMF_DOES_SWEPT },
	      { "random", EMF_DOES_RANDOM },
	      { "appended", EMF_DOES_APPENDED },
	      { "scratch", EMF_DOES_SCRATCH },
	      { "constant", EMF_DOES_CONSTANT } };

#define MATCH_GLOB_MAX sizeof(((struct emf_class *)0)->match_command)

static bool match_order(struct emf_class *cls, const char *op, char *why, size_t len)
{
	const char *digits = op + (op[0] == '=' ? 1 : 2);
	uint64_t n;

	if (!parse_uint(digits, &n) || !n)
		return refuse(digits, why, len, "is no order; the first region that is made is 1");
	if (op[0] != '<')
		cls->order_min = n;
	if (op[0] != '>')
		cls->order_max = n;
	return true;
}

/* One of size>=SIZE, size<=SIZE, order=N, does=WORD, command=GLOB and the other globs. */
static bool match_item(struct emf_class *cls, const char *item, char *why, size_t len)
{
	const char *text = NULL;

	if ((text = behind(item, "size>=")))
		return parse_size(text, &cls->match_min) ||
		       refuse(text, why, len, "is not a size; " SIZE_HELP);
	if ((text = behind(item, "size<=")))
		return parse_size(text, &cls->match_max) ||
		       refuse(text, why, len, "is not a size; " SIZE_HELP);
	if (behind(item, "order=") || behind(item, "order>=") || behind(item, "order<="))
		return match_order(cls, item + 5, why, len);
	for (size_t i = 0; i < sizeof(globs) / sizeof(globs[0]); i++) {
		text = behind(item, globs[i].key);
		if (!text)
			continue;
		if (strlen(text) >= MATCH_GLOB_MAX)
			return refuse(text, why, len, "is too long; at most %zu characters",
				      MATCH_GLOB_MAX - 1);
		strcpy((char *)cls + globs[i].offset, text);
		return true;
	}
	text = behind(item, "does=");
	for (size_t i = 0; text && i < sizeof(deeds) / sizeof(deeds[0]); i++)
		if (!strcmp(text, deeds[i].word)) {
			cls->match_does |= deeds[i].does;
			return true;
		}
	if (text)
		return refuse(text, why, len,
			      "is nothing that a region does; use swept, random, appended, scratch "
			      "or constant");
	return refuse(item, why, len,
		      "is no match; write size>=SIZE, size<=SIZE, order=N, does=WORD, or GLOBs: "
		      "command=, thread=, library=, name=, file:");
}

bool value_match(const struct config_key *key, void *class, const char *value, char *why,
		 size_t len)
{
	struct emf_class match = { .match_max = UINT64_MAX, .order_max = UINT64_MAX }, *cls = class;
	char text[128];
	const char *item;
	size_t n;

	(void)key;
	for (const char *p = value; (item = next_item(&p, ", \t", &n));) {
		if (n >= sizeof(text))
			return refuse(item, why, len, "is too long; at most %zu characters",
				      sizeof(text) - 1);
		memcpy(text, item, n);
		text[n] = '\0';
		if (!match_item(&match, text, why, len))
			return false;
	}
	if (match.match_min > match.match_max)
		return refuse(value, why, len, "matches nothing; size>= must not be above size<=");
	if (match.order_min > match.order_max)
		return refuse(value, why, len,
			      "matches nothing; order>= must not be above order<=");
	cls->match_min = match.match_min;
	cls->match_max = match.match_max;
	cls->order_min = match.order_min;
	cls->order_max = match.order_max;
	cls->match_does = match.match_does;
	for (size_t i = 0; i < sizeof(globs) / sizeof(globs[0]); i++)
		memcpy((char *)cls + globs[i].offset, (char *)&match + globs[i].offset,
		       MATCH_GLOB_MAX);
	return true;
}
