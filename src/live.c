/* SPDX-License-Identifier: Apache-2.0 */
#include "live.h"

#include <stdio.h>
#include <string.h>

#include "budget.h"
#include "config_keys.h"
#include "engine.h"
#include "log.h"
#include "mailbox.h"
#include "members.h"

static const char *const keys[] = { "local.limit", "local.high", "local.low", "store.timeout",
				    "engine.chaos" };
/* Of a class of the process's own settings. */
static const char *const class_keys[] = { "evict", "prefetch", "window", "resident" };

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* "section.key", or "class.NAME.key", of a setting; what is too long is none that we know. */
static void name_of(const char *text, char *out, size_t len)
{
	size_t n = 0;

	for (; *text && *text != '=' && n + 1 < len; text++)
		if (*text != ' ' && *text != '\t')
			out[n++] = *text;
	out[n] = '\0';
}

static bool is_live(const char *name)
{
	const char *key = strrchr(name, '.');

	for (size_t i = 0; i < COUNT(keys); i++)
		if (!strcmp(keys[i], name))
			return true;
	for (size_t i = 0; i < COUNT(class_keys); i++)
		if (!strncmp(name, CONFIG_CLASS ".", sizeof(CONFIG_CLASS)) && key &&
		    !strcmp(class_keys[i], key + 1))
			return true;
	return false;
}

/* The change, in a copy of the settings. */
static bool try_out(struct emf_config *cfg, const char *text, char *why, size_t len)
{
	char name[128], shown[64];

	if (!config_set_text(cfg, text, why, len))
		return false;
	name_of(text, name, sizeof(name));
	if (is_live(name))
		return true;
	snprintf(
	    why, len,
	    "%s: can't be changed in a running process, only local.limit, local.high, local.low, "
	    "store.timeout, engine.chaos and evict, prefetch, window, resident of a class",
	    config_printable(name, shown, sizeof(shown)));
	return false;
}

bool live_check(const char *text, char *why, size_t len)
{
	static struct emf_config cfg;

	config_defaults(&cfg);
	return try_out(&cfg, text, why, len);
}

/* Nobody else changes settings, and a fork copies all of a change or nothing. */
static void begin(void)
{
	lock_take(&engine.lock);
	while (engine.forking)
		engine_wait_settled();
}

static void set_limit(const struct emf_config *cfg, char *why, size_t len)
{
	uint64_t wanted = config_limit_bytes(cfg), ceiling = budget_ceiling(), now;

	begin();
	engine.config.limit = cfg->limit;
	now = budget_set(wanted > ceiling ? ceiling : wanted);
	lock_give(&engine.lock);
	log_info("local.limit is %lu MiB now", (unsigned long)(now >> 20));
	if (now == wanted)
		return;
	snprintf(why, len, "it is %luM: %s", (unsigned long)(now >> 20),
		 wanted > now ? "the host has no more memory" : "the smallest that can work");
}

/* What regions point to: their classes stay where they are. */
static void copy_classes(const struct emf_config *cfg)
{
	for (unsigned i = 0; i < engine.config.nclasses; i++) {
		struct emf_class *to = &engine.config.classes[i];
		const struct emf_class *from = &cfg->classes[i];

		to->evict = from->evict;
		to->prefetch = from->prefetch;
		to->window = from->window;
		to->resident = from->resident;
	}
}

static bool changed(const struct emf_config *cfg, char *why, size_t len)
{
	if (cfg->nclasses == engine.config.nclasses)
		return true;
	snprintf(why, len, "class %s: the process has no class of that name",
		 cfg->classes[cfg->nclasses - 1].name);
	return false;
}

/* Nothing has changed when it is false. why: then the reason, else a remark or nothing. */
static bool set(const char *text, char *why, size_t len)
{
	static struct emf_config cfg; /* large for a stack of the program's; callers take turns */
	char name[128];

	cfg = engine.config;
	if (!try_out(&cfg, text, why, len) || config_validate(&cfg, why, len) ||
	    !changed(&cfg, why, len))
		return false;
	why[0] = '\0';
	name_of(text, name, sizeof(name));
	if (!strcmp(name, "local.limit")) {
		set_limit(&cfg, why, len);
		return true;
	}
	begin();
	engine.config.high = cfg.high;
	engine.config.low = cfg.low;
	engine.config.timeout_ms = cfg.timeout_ms;
	engine.config.chaos = cfg.chaos;
	copy_classes(&cfg);
	if (!strncmp(name, "local.", 6))
		budget_marks();
	engine_kick_mover();
	lock_give(&engine.lock);
	log_info("%s", text);
	return true;
}

void live_serve(void)
{
	char text[MAILBOX_TEXT], why[MAILBOX_TEXT];
	struct mailbox *m = engine.mailbox;

	while (m && mailbox_take(m, text)) {
		uint32_t store = 0;
		bool drain, done;
		const char *uri;

		if (members_parse(text, &drain, &uri))
			done = members_change(text, why, sizeof(why), &store);
		else
			done = set(text, why, sizeof(why));
		mailbox_answer(m, done ? MAILBOX_DONE : MAILBOX_REFUSED, why, store);
	}
}
