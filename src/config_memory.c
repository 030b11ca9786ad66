/* SPDX-License-Identifier: Apache-2.0 */
#include "config_memory.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "parse.h"

bool memory_text(const char *path, char *buf, size_t len)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t n = 0;
	ssize_t r;

	if (fd < 0)
		return false;
	while (n < len - 1 && (r = read(fd, buf + n, len - 1 - n)) != 0) {
		if (r > 0)
			n += (size_t)r;
		else if (errno != EINTR)
			break;
	}
	close(fd);
	buf[n] = '\0';
	return n > 0;
}

/* "max" and what is no number are no limit. */
static uint64_t read_limit(const char *path)
{
	char text[32];
	uint64_t limit;

	if (!memory_text(path, text, sizeof(text)))
		return UINT64_MAX;
	text[strcspn(text, "\n")] = '\0';
	return parse_uint(text, &limit) ? limit : UINT64_MAX;
}

/*
 * From the group up to the root of the mount: a parent's limit holds for its children.
 * Inside a container the path may not exist below the mount, whose root is then our group.
 */
static void walk(const char *root, const char *mount, const char *group, unsigned version,
		 memory_group_fn *fn, void *arg)
{
	char path[PATH_MAX];
	size_t n = strlen(group);

	for (;;) {
		while (n && group[n - 1] == '/')
			n--;
		if (snprintf(path, sizeof(path), "%s%s%.*s", root, mount, (int)n, group) <
		    (int)sizeof(path))
			fn(path, version, arg);
		if (!n)
			return;
		while (n && group[n - 1] != '/')
			n--;
	}
}

/* Is "memory" in the list "cpu,memory" that ends at the colon? */
static bool has_memory(const char *list)
{
	size_t n;

	for (; *list != ':'; list += n + (list[n] == ',')) {
		n = strcspn(list, ",:");
		if (n == 6 && !strncmp(list, "memory", n))
			return true;
	}
	return false;
}

void memory_groups(const char *root, memory_group_fn *fn, void *arg)
{
	char path[PATH_MAX], text[8192];
	char *next;

	snprintf(path, sizeof(path), "%s/proc/self/cgroup", root);
	if (!memory_text(path, text, sizeof(text)))
		return;
	/* HIERARCHY:CONTROLLERS:PATH, where version 2 is 0::PATH */
	for (char *line = text; *line; line = next) {
		char *list, *group;

		next = line + strcspn(line, "\n");
		if (*next)
			*next++ = '\0';
		list = strchr(line, ':');
		group = list ? strchr(list + 1, ':') : NULL;
		if (!group)
			continue;
		list++;
		group++;
		if (!strncmp(line, "0::", 3))
			walk(root, "/sys/fs/cgroup", group, 2, fn, arg);
		else if (has_memory(list))
			walk(root, "/sys/fs/cgroup/memory", group, 1, fn, arg);
	}
}

uint64_t memory_number(const char *dir, const char *file)
{
	char path[PATH_MAX];

	return snprintf(path, sizeof(path), "%s/%s", dir, file) < (int)sizeof(path)
		   ? read_limit(path)
		   : UINT64_MAX;
}

uint64_t memory_group_limit(const char *dir, unsigned version)
{
	uint64_t max, high;

	if (version == 1)
		return memory_number(dir, "memory.limit_in_bytes");
	/* Above memory.high a group is held up so that it gives memory back. */
	max = memory_number(dir, "memory.max");
	high = memory_number(dir, "memory.high");
	return high < max ? high : max;
}

static void tightest(const char *dir, unsigned version, void *arg)
{
	uint64_t limit = memory_group_limit(dir, version), *least = arg;

	if (limit < *least)
		*least = limit;
}

uint64_t memory_field(const char *text, const char *name)
{
	size_t n = strlen(name);
	uint64_t value;
	char digits[24];

	for (const char *p = text; p; p = strchr(p, '\n'), p += p != NULL) {
		if (strncmp(p, name, n) || (p[n] != ' ' && p[n] != ':' && p[n] != '\t'))
			continue;
		p += n + strspn(p + n, ": \t");
		n = strspn(p, "0123456789");
		if (n >= sizeof(digits))
			break;
		memcpy(digits, p, n);
		digits[n] = '\0';
		return parse_uint(digits, &value) ? value : UINT64_MAX;
	}
	return UINT64_MAX;
}

static uint64_t host_memory(const char *root)
{
	char path[PATH_MAX], text[4096];
	struct sysinfo info;

	/* /proc/meminfo first: in a container lxcfs puts the container's size there */
	snprintf(path, sizeof(path), "%s/proc/meminfo", root);
	if (memory_text(path, text, sizeof(text))) {
		uint64_t kib = memory_field(text, "MemTotal");

		if (kib && kib < UINT64_MAX / 1024)
			return kib * 1024;
	}
	sysinfo(&info);
	return (uint64_t)info.totalram * info.mem_unit;
}

void memory_limit_read(const char *root, struct memory_limit *out)
{
	out->host = host_memory(root);
	out->cgroup = UINT64_MAX;
	memory_groups(root, tightest, &out->cgroup);
	/* version 1 writes "no limit" as a huge number */
	if (out->cgroup >= out->host)
		out->cgroup = UINT64_MAX;
}

static char test_root[256];

const char *memory_root(void)
{
	return test_root;
}

void memory_set_root(const char *root)
{
	if (root && strlen(root) < sizeof(test_root))
		strcpy(test_root, root);
}
