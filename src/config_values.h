/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From the text of a setting to a field of struct emf_config: one function a type.
 * Each returns true and stores, or returns false, leaves the field alone and
 * writes "what is wrong; what to do" to why. Used by the table in config_keys.c.
 */
#ifndef EMF_CONFIG_VALUES_H
#define EMF_CONFIG_VALUES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct config_choice {
	const char *name;
	int value;
};

struct config_key {
	const char *section, *name;
	const char *type; /* for help */
	const char *dflt; /* parsed like any other value; NULL: nothing to set */
	const char *help;
	bool (*set)(const struct config_key *key, void *field, const char *value, char *why,
		    size_t len);
	size_t offset; /* of the field in struct emf_config, or in struct emf_class */
	size_t width;  /* of the field; 0: there is none, the value is only checked */
	uint64_t min, max;
	const struct config_choice *choice; /* ends with a NULL name */
};

bool value_amount(const struct config_key *key, void *field, const char *value, char *why,
		  size_t len);
bool value_size(const struct config_key *key, void *field, const char *value, char *why,
		size_t len);
bool value_power(const struct config_key *key, void *field, const char *value, char *why,
		 size_t len);
bool value_uint(const struct config_key *key, void *field, const char *value, char *why,
		size_t len);
bool value_percent(const struct config_key *key, void *field, const char *value, char *why,
		   size_t len);
bool value_duration(const struct config_key *key, void *field, const char *value, char *why,
		    size_t len);
bool value_choice(const struct config_key *key, void *field, const char *value, char *why,
		  size_t len);
/* A name, or a percentage. */
bool value_share(const struct config_key *key, void *field, const char *value, char *why,
		 size_t len);
/* These, but for the two of tiers, take the whole struct: emf_config, and emf_class. */
bool value_uris(const struct config_key *key, void *config, const char *value, char *why,
		size_t len);
/* field: of the first of config->tiers. */
bool value_tier_sizes(const struct config_key *key, void *field, const char *value, char *why,
		      size_t len);
bool value_tier_percents(const struct config_key *key, void *field, const char *value, char *why,
			 size_t len);
bool value_redundancy(const struct config_key *key, void *config, const char *value, char *why,
		      size_t len);
bool value_inject(const struct config_key *key, void *config, const char *value, char *why,
		  size_t len);
bool value_match(const struct config_key *key, void *cls, const char *value, char *why, size_t len);

#endif
