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

/* The file's first len - 1 bytes as a string. */
static bool read_text(const char *path, char *buf, size_t len)
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

	if (!read_text(path, text, sizeof(text)))
		return UINT64_MAX;
	text[strcspn(text, "\n")] = '\0';
	return parse_uint(text, &limit) ? limit : UINT64_MAX;
}

/*
 * The tightest limit from the group up to the root of the mount: a parent's holds
 * for its children. Inside a container the path may not exist below the mount,
 * whose root is then our group.
 */
static uint64_t group_limit(const char *root, const char *mount, const char *group,
			    const char *file)
{
	char path[PATH_MAX];
	uint64_t limit = UINT64_MAX;
	size_t n = strlen(group);

	for (;;) {
		while (n && group[n - 1] == '/')
			n--;
		if (snprintf(path, sizeof(path), "%s%s%.*s/%s", root, mount, (int)n, group, file) <
		    (int)sizeof(path)) {
			uint64_t l = read_limit(path);

			if (l < limit)
				limit = l;
		}
		if (!n)
			return limit;
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

static uint64_t cgroup_limit(const char *root)
{
	char path[PATH_MAX], text[8192];
	uint64_t limit = UINT64_MAX;
	char *next;

	snprintf(path, sizeof(path), "%s/proc/self/cgroup", root);
	if (!read_text(path, text, sizeof(text)))
		return limit;
	/* HIERARCHY:CONTROLLERS:PATH, where version 2 is 0::PATH */
	for (char *line = text; *line; line = next) {
		char *list, *group;
		uint64_t l = UINT64_MAX;

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
			l = group_limit(root, "/sys/fs/cgroup", group, "memory.max");
		else if (has_memory(list))
			l = group_limit(root, "/sys/fs/cgroup/memory", group,
					"memory.limit_in_bytes");
		if (l < limit)
			limit = l;
	}
	return limit;
}

static uint64_t host_memory(const char *root)
{
	char path[PATH_MAX], text[4096];
	struct sysinfo info;
	uint64_t kib;

	/* /proc/meminfo first: in a container lxcfs puts the container's size there */
	snprintf(path, sizeof(path), "%s/proc/meminfo", root);
	if (read_text(path, text, sizeof(text))) {
		char *p = strstr(text, "MemTotal:");

		if (p) {
			p += strlen("MemTotal:");
			p += strspn(p, " \t");
			p[strcspn(p, " \n")] = '\0';
			if (parse_uint(p, &kib) && kib && kib < UINT64_MAX / 1024)
				return kib * 1024;
		}
	}
	sysinfo(&info);
	return (uint64_t)info.totalram * info.mem_unit;
}

void memory_limit_read(const char *root, struct memory_limit *out)
{
	out->host = host_memory(root);
	out->cgroup = cgroup_limit(root);
	/* version 1 writes "no limit" as a huge number */
	if (out->cgroup >= out->host)
		out->cgroup = UINT64_MAX;
}
