/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "env.h"

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include "arena.h"

/* All that the runtime asks for. */
static const char *const names[] = {
	"EMFATIER_CONF",       "EMFATIER_DISABLE",     "EMFATIER_FAULT_THREADS",
	"EMFATIER_LOG",	       "EMFATIER_MEMORY_ROOT", "EMFATIER_POLICY",
	"EMFATIER_POLICY_DIR", "EMFATIER_RUN_DIR",     "HOME",
	"XDG_CACHE_HOME",      "XDG_RUNTIME_DIR",
};

#define NAMES (sizeof(names) / sizeof(names[0]))

static bool kept;
static const char *values[NAMES];

/* libc's own name for it: a program may have a variable `environ` of its own. */
extern char **__environ;

static const char *find(const char *name)
{
	size_t n = strlen(name);

	for (char **e = __environ; e && *e; e++)
		if (!strncmp(*e, name, n) && (*e)[n] == '=')
			return *e + n + 1;
	return NULL;
}

void env_keep(void)
{
	for (size_t i = 0; i < NAMES; i++) {
		const char *value = find(names[i]);
		size_t len = value ? strlen(value) + 1 : 0;
		char *copy = value ? arena_alloc(len) : NULL;

		values[i] = copy ? memcpy(copy, value, len) : NULL;
	}
	kept = true;
}

const char *env_get(const char *name)
{
	if (!kept)
		return find(name);
	for (size_t i = 0; i < NAMES; i++)
		if (!strcmp(names[i], name))
			return values[i];
	return NULL;
}
