/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How much memory this process may use: the host's, and the tightest memory limit
 * of its control groups (v2 memory.max and memory.high, v1 memory.limit_in_bytes). Raw file
 * reads, no allocation, no stdio but snprintf; any thread.
 */
#ifndef EMF_CONFIG_MEMORY_H
#define EMF_CONFIG_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct memory_limit {
	uint64_t host;	 /* MemTotal */
	uint64_t cgroup; /* UINT64_MAX: none that binds */
};

/* root: put before /proc and /sys, for tests; else "". Cannot fail. */
void memory_limit_read(const char *root, struct memory_limit *out);

/* What is put before the paths in a test of the whole (EMFATIER_MEMORY_ROOT), else "". */
const char *memory_root(void);
void memory_set_root(const char *root);

/* --- the parts, for pressure.c --- */

/* The process's own group of each hierarchy with memory in it, then its parents. */
typedef void memory_group_fn(const char *dir, unsigned version, void *arg);
void memory_groups(const char *root, memory_group_fn *fn, void *arg);
/* Its limit, UINT64_MAX: none. */
uint64_t memory_group_limit(const char *dir, unsigned version);
/* The number that DIR/file holds; UINT64_MAX: none. */
uint64_t memory_number(const char *dir, const char *file);
/* The number of the line "NAME NUMBER" or "NAME: NUMBER"; UINT64_MAX: there is none. */
uint64_t memory_field(const char *text, const char *name);
/* The file's first len - 1 bytes as a string. */
bool memory_text(const char *path, char *buf, size_t len);

#endif
