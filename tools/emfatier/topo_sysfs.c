/* SPDX-License-Identifier: Apache-2.0 */
/* Nodes, RDMA devices, and where the libraries are not there the others, as sysfs shows them. */
#define _GNU_SOURCE 1 /* versionsort */
#include "topo_int.h"

#include <dirent.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The file's first line, nothing in it that a terminal or JSON would trip over. False: none. */
__attribute__((format(printf, 4, 5))) static bool text_of(const struct topo *t, char *out,
							  size_t len, const char *format, ...)
{
	char path[PATH_MAX];
	va_list ap;
	FILE *f;
	int n = snprintf(path, sizeof(path), "%s/", t->sysfs);

	out[0] = '\0';
	va_start(ap, format);
	vsnprintf(path + n, sizeof(path) - (size_t)n, format, ap);
	va_end(ap);
	f = fopen(path, "re");
	if (!f)
		return false;
	bool ok = fgets(out, (int)len, f);
	fclose(f);
	out[strcspn(out, "\n")] = '\0';
	topo_copy(out, len, out);
	return ok;
}

__attribute__((format(printf, 2, 3))) static uint64_t number_of(const struct topo *t,
								const char *format, ...)
{
	char path[256], text[64];
	va_list ap;

	va_start(ap, format);
	vsnprintf(path, sizeof(path), format, ap);
	va_end(ap);
	return text_of(t, text, sizeof(text), "%s", path) ? strtoull(text, NULL, 0) : 0;
}

/* The entries of a directory of sysfs, in order; -1: there is none. */
static int entries(const struct topo *t, const char *dir, struct dirent ***list)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/%s", t->sysfs, dir);
	*list = NULL;
	return scandir(path, list, NULL, versionsort);
}

static void release(struct dirent **list, int n)
{
	while (n-- > 0)
		free(list[n]);
	free(list);
}

static uint64_t meminfo(const struct topo *t, unsigned node, const char *key)
{
	char path[PATH_MAX], line[256], *at;
	uint64_t kib = 0;
	FILE *f;

	snprintf(path, sizeof(path), "%s/devices/system/node/node%u/meminfo", t->sysfs, node);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f))
		if ((at = strstr(line, key)))
			kib = strtoull(at + strlen(key), NULL, 10);
	if (f)
		fclose(f);
	return kib << 10;
}

static void read_node(struct topo *t, unsigned id)
{
	struct node *n = &t->node[t->nnodes++];
	char cpus[64];
	char dir[96];

	snprintf(dir, sizeof(dir), "devices/system/node/node%u/access0/initiators", id);
	*n = (struct node){
		.id = id,
		.total = meminfo(t, id, "MemTotal:"),
		.free = meminfo(t, id, "MemFree:"),
		.speed = {
			.latency_ns = number_of(t, "%s/read_latency", dir),
			.read_mb = number_of(t, "%s/read_bandwidth", dir),
			.write_mb = number_of(t, "%s/write_bandwidth", dir),
		},
	};
	n->cpus =
	    text_of(t, cpus, sizeof(cpus), "devices/system/node/node%u/cpulist", id) && cpus[0];
	n->source = n->speed.latency_ns || n->speed.read_mb ? "HMAT" : NULL;
}

void topo_sysfs_nodes(struct topo *t)
{
	struct dirent **list;
	int n = entries(t, "devices/system/node", &list);
	unsigned id;
	int end;

	for (int i = 0; i < n && t->nnodes < TOPO_MAX; i++) {
		end = 0;
		if (sscanf(list[i]->d_name, "node%u%n", &id, &end) == 1 && !list[i]->d_name[end])
			read_node(t, id);
	}
	release(list, n);
}

static void read_number(const struct topo *t, int *out, const char *dir, const char *name,
			const char *key)
{
	char text[TOPO_NAME];

	if (text_of(t, text, sizeof(text), "%s/%s/%s", dir, name, key))
		*out = (int)strtol(text, NULL, 10);
}

void topo_sysfs_cxl(struct topo *t)
{
	static const char dir[] = "bus/cxl/devices";
	struct dirent **list;
	int n = entries(t, dir, &list);

	for (int i = 0; i < n; i++) {
		const char *name = list[i]->d_name;
		enum kind kind = !strncmp(name, "mem", 3)	? CXL_MEMDEV
				 : !strncmp(name, "region", 6)	? CXL_REGION
				 : !strncmp(name, "decoder", 7) ? CXL_DECODER
								: DAX;
		struct device *d = kind == DAX ? NULL : topo_add(t, kind, name, "sysfs");

		if (!d)
			continue;
		if (kind == CXL_MEMDEV) {
			d->bytes = number_of(t, "%s/%s/ram/size", dir, name) +
				   number_of(t, "%s/%s/pmem/size", dir, name);
			read_number(t, &d->node, dir, name, "numa_node");
			text_of(t, d->detail, sizeof(d->detail), "%s/%s/firmware_version", dir,
				name);
		} else {
			d->bytes = number_of(t, "%s/%s/size", dir, name);
			if (!text_of(t, d->detail, sizeof(d->detail), "%s/%s/mode", dir, name))
				text_of(t, d->detail, sizeof(d->detail), "%s/%s/devtype", dir,
					name);
		}
	}
	release(list, n);
}

void topo_sysfs_dax(struct topo *t)
{
	static const char dir[] = "bus/dax/devices";
	char path[PATH_MAX], driver[PATH_MAX];
	struct dirent **list;
	int n = entries(t, dir, &list);

	for (int i = 0; i < n; i++) {
		const char *name = list[i]->d_name;
		struct device *d = strncmp(name, "dax", 3) || strncmp(name, "dax_", 4) == 0
				       ? NULL
				       : topo_add(t, DAX, name, "sysfs");
		ssize_t len;

		if (!d)
			continue;
		d->bytes = number_of(t, "%s/%s/size", dir, name);
		read_number(t, &d->node, dir, name, "target_node");
		snprintf(path, sizeof(path), "%s/%s/%s/driver", t->sysfs, dir, name);
		len = readlink(path, driver, sizeof(driver) - 1);
		driver[len > 0 ? len : 0] = '\0';
		const char *base = strrchr(driver, '/');
		strcpy(d->detail, !base			      ? "no driver"
				  : !strcmp(base + 1, "kmem") ? "system-ram"
							      : "devdax");
	}
	release(list, n);
}

void topo_sysfs_rdma(struct topo *t)
{
	static const char dir[] = "class/infiniband";
	struct dirent **list;
	int n = entries(t, dir, &list);

	for (int i = 0; i < n; i++) {
		const char *name = list[i]->d_name;
		struct device *d = name[0] == '.' ? NULL : topo_add(t, RDMA, name, "sysfs");
		char text[TOPO_NAME];

		if (!d)
			continue;
		/* "4: ACTIVE" */
		if (text_of(t, text, sizeof(text), "%s/%s/ports/1/state", dir, name))
			strcpy(d->detail, strchr(text, ' ') ? strchr(text, ' ') + 1 : text);
		read_number(t, &d->node, dir, name, "device/numa_node");
	}
	release(list, n);
}
