/* SPDX-License-Identifier: Apache-2.0 */
#include "pressure.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "config_memory.h"
#include "kernel.h"
#include "parse.h"

struct look {
	uint64_t room, stall_us;
};

/* "some avg10=0.00 avg60=0.00 avg300=0.00 total=123" */
static uint64_t stalled(const char *path)
{
	char text[256], *p;
	uint64_t us;

	if (!memory_text(path, text, sizeof(text)) || strncmp(text, "some ", 5))
		return UINT64_MAX;
	text[strcspn(text, "\n")] = '\0';
	p = strstr(text, "total=");
	return p && parse_uint(p + 6, &us) ? us : UINT64_MAX;
}

/* Page cache that nobody has mapped or written lately makes way without anybody waiting. */
static uint64_t cached(const char *dir, unsigned version)
{
	char path[PATH_MAX], text[8192];
	uint64_t bytes;

	if (snprintf(path, sizeof(path), "%s/memory.stat", dir) >= (int)sizeof(path) ||
	    !memory_text(path, text, sizeof(text)))
		return 0;
	bytes = memory_field(text, version == 1 ? "total_inactive_file" : "inactive_file");
	return bytes == UINT64_MAX ? 0 : bytes;
}

static void look_at(const char *dir, unsigned version, void *arg)
{
	struct look *l = arg;
	uint64_t limit = memory_group_limit(dir, version), used, room;
	char path[PATH_MAX];

	if (version == 2 && l->stall_us == UINT64_MAX &&
	    snprintf(path, sizeof(path), "%s/memory.pressure", dir) < (int)sizeof(path))
		l->stall_us = stalled(path);
	used = memory_number(dir, version == 1 ? "memory.usage_in_bytes" : "memory.current");
	if (limit == UINT64_MAX || used == UINT64_MAX)
		return;
	room = cached(dir, version);
	if (room > used)
		room = used;
	room = used - room < limit ? limit - (used - room) : 0;
	if (room < l->room)
		l->room = room;
}

/* The second number of /proc/self/statm. */
static uint64_t resident(const char *root)
{
	char path[PATH_MAX], text[128];
	uint64_t pages;
	char *p;

	snprintf(path, sizeof(path), "%s/proc/self/statm", root);
	if (!memory_text(path, text, sizeof(text)))
		return 0;
	p = text + strcspn(text, " ");
	p += strspn(p, " ");
	p[strcspn(p, " \n")] = '\0';
	return parse_uint(p, &pages) && pages < UINT64_MAX / K_PAGE ? pages * K_PAGE : 0;
}

void pressure_read(const char *root, struct memory_sample *out)
{
	struct look l = { .room = UINT64_MAX, .stall_us = UINT64_MAX };
	char path[PATH_MAX], text[4096];
	struct memory_limit limit;

	memory_limit_read(root, &limit);
	out->total = limit.cgroup < limit.host ? limit.cgroup : limit.host;
	memory_groups(root, look_at, &l);
	snprintf(path, sizeof(path), "%s/proc/meminfo", root);
	if (memory_text(path, text, sizeof(text))) {
		uint64_t kib = memory_field(text, "MemAvailable");

		if (kib < UINT64_MAX / 1024 && kib * 1024 < l.room)
			l.room = kib * 1024;
	}
	if (l.stall_us == UINT64_MAX) {
		snprintf(path, sizeof(path), "%s/proc/pressure/memory", root);
		l.stall_us = stalled(path);
	}
	out->room = l.room;
	out->stall_us = l.stall_us;
	out->rss = resident(root);
}
