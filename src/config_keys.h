/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of keys, and how one key is set. Inside config*.c only; the rest of
 * the world uses config.h. Single thread, no allocation, no stdio but snprintf.
 */
#ifndef EMF_CONFIG_KEYS_H
#define EMF_CONFIG_KEYS_H

#include <stdbool.h>
#include <stddef.h>

struct emf_config;

#define CONFIG_CLASS "class"
#define CONFIG_PROCESS                                                                             \
	"process" /* [process GLOB]: settings, by their whole names, for some commands */
#define CONFIG_VALUE_MAX 4096 /* of one value: EMF_MAX_STORES URIs fit */

/*
 * Sets section.key of cfg. cls: the NAME of a [class NAME] section (made on first
 * use, line is noted as its place), else NULL. False: why tells
 * "section.key: what is wrong; what to do".
 */
bool config_set(struct emf_config *cfg, const char *section, const char *cls, const char *key,
		const char *value, unsigned line, char *why, size_t len);

/*
 * Cuts "class NAME" in place into section and name (*cls NULL for others) and
 * checks that there is such a section. False: why tells, as above.
 */
bool config_section(char *text, char **cls, char *why, size_t len);

/* Sets the keys of cfg, or of a class, to the defaults of the table. */
void config_keys_default(struct emf_config *cfg);

/* text with what does not belong on a terminal replaced, cut to fit. Returns out. */
const char *config_printable(const char *text, char *out, size_t len);

#endif
