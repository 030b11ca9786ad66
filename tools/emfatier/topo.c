/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE 1 /* versionsort */
#include "topo.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../common/say.h"
#include "measure.h"

#define NAME 32
#define MAX_DEVICES 128
#define MEASURE_BYTES (64ull << 20)

struct node {
	unsigned id;
	bool cpus;
	uint64_t total, free; /* bytes */
	struct speed speed;   /* all 0: not known */
	const char *source;   /* of the speed */
};

struct device {
	enum kind { CXL_MEMDEV, CXL_REGION, CXL_DECODER, DAX, RDMA } kind;
	char name[NAME];
	uint64_t bytes;
	int node;	   /* -1: none */
	char detail[NAME]; /* mode, state or driver */
};

static const char *const kind_name[] = { "memdev", "region", "decoder", "dax", "rdma" };

struct topo {
	const char *sysfs;
	unsigned nnodes, ndevices;
	struct node node[MAX_DEVICES];
	struct device device[MAX_DEVICES];
};

/* --- sysfs --- */

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
	for (char *c = out; *c; c++)
		if (*c < ' ' || *c > '~' || *c == '"' || *c == '\\')
			*c = '?';
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

static void read_nodes(struct topo *t)
{
	struct dirent **list;
	int n = entries(t, "devices/system/node", &list);
	unsigned id;
	int end;

	for (int i = 0; i < n && t->nnodes < MAX_DEVICES; i++) {
		end = 0;
		if (sscanf(list[i]->d_name, "node%u%n", &id, &end) == 1 && !list[i]->d_name[end])
			read_node(t, id);
	}
	release(list, n);
}

static struct device *add(struct topo *t, enum kind kind, const char *name)
{
	struct device *d = &t->device[t->ndevices];

	if (t->ndevices == MAX_DEVICES || strlen(name) >= NAME)
		return NULL;
	t->ndevices++;
	*d = (struct device){ .kind = kind, .node = -1 };
	strcpy(d->name, name);
	return d;
}

static void read_number(const struct topo *t, int *out, const char *dir, const char *name,
			const char *key)
{
	char text[NAME];

	if (text_of(t, text, sizeof(text), "%s/%s/%s", dir, name, key))
		*out = (int)strtol(text, NULL, 10);
}

static void read_cxl(struct topo *t)
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
		struct device *d = kind == DAX ? NULL : add(t, kind, name);

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

static void read_dax(struct topo *t)
{
	static const char dir[] = "bus/dax/devices";
	char path[PATH_MAX], driver[PATH_MAX];
	struct dirent **list;
	int n = entries(t, dir, &list);

	for (int i = 0; i < n; i++) {
		const char *name = list[i]->d_name;
		struct device *d = strncmp(name, "dax", 3) || strncmp(name, "dax_", 4) == 0
				       ? NULL
				       : add(t, DAX, name);
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

static void read_rdma(struct topo *t)
{
	static const char dir[] = "class/infiniband";
	struct dirent **list;
	int n = entries(t, dir, &list);

	for (int i = 0; i < n; i++) {
		const char *name = list[i]->d_name;
		struct device *d = name[0] == '.' ? NULL : add(t, RDMA, name);
		char text[NAME];

		if (!d)
			continue;
		/* "4: ACTIVE" */
		if (text_of(t, text, sizeof(text), "%s/%s/ports/1/state", dir, name))
			strcpy(d->detail, strchr(text, ' ') ? strchr(text, ' ') + 1 : text);
		read_number(t, &d->node, dir, name, "device/numa_node");
	}
	release(list, n);
}

/* --- what would fit --- */

static bool is_tier(const struct node *n)
{
	return !n->cpus && n->total;
}

static bool is_devdax(const struct device *d)
{
	return d->kind == DAX && !strcmp(d->detail, "devdax") && d->bytes;
}

/* By latency, those that are not known last. */
static int by_speed(const void *a, const void *b)
{
	const struct node *x = a, *y = b;
	uint64_t lx = x->speed.latency_ns ? x->speed.latency_ns : UINT64_MAX;
	uint64_t ly = y->speed.latency_ns ? y->speed.latency_ns : UINT64_MAX;

	return lx < ly ? -1 : lx > ly ? 1 : x->id < y->id ? -1 : x->id > y->id;
}

/* The value of store.uri. */
static void suggest(const struct topo *t, char *uri, size_t len)
{
	struct node node[MAX_DEVICES];
	size_t n = 0;

	memcpy(node, t->node, sizeof(node));
	qsort(node, t->nnodes, sizeof(node[0]), by_speed);
	for (unsigned i = 0; i < t->nnodes && n < len; i++)
		if (is_tier(&node[i]))
			n += (size_t)snprintf(uri + n, len - n, "numa:%u | ", node[i].id);
	for (unsigned i = 0; i < t->ndevices && n < len; i++)
		if (is_devdax(&t->device[i]))
			n +=
			    (size_t)snprintf(uri + n, len - n, "dax:/dev/%s | ", t->device[i].name);
	if (n < len)
		snprintf(uri + n, len - n, "file:/var/tmp");
}

static bool has_rdma(const struct topo *t)
{
	for (unsigned i = 0; i < t->ndevices; i++)
		if (t->device[i].kind == RDMA && !strcmp(t->device[i].detail, "ACTIVE"))
			return true;
	return false;
}

/* --- output --- */

static const char *size_text(uint64_t bytes, char *out, size_t len)
{
	static const char unit[] = "BKMGTP";
	unsigned u = 0;
	double v = (double)bytes;

	for (; v >= 1024 && u < 5; u++)
		v /= 1024;
	snprintf(out, len, u && v < 100 ? "%.1f%c" : "%.0f%c", v, unit[u]);
	return out;
}

static void print_text(const struct topo *t)
{
	char size[2][16], uri[1024];

	printf("%-8s %-5s %8s %8s %10s %10s %10s\n", "NODE", "CPUS", "TOTAL", "FREE", "LATENCY",
	       "READ", "WRITE");
	for (unsigned i = 0; i < t->nnodes; i++) {
		const struct node *n = &t->node[i];

		printf("node%-4u %-5s %8s %8s ", n->id, n->cpus ? "yes" : "no",
		       size_text(n->total, size[0], sizeof(size[0])),
		       size_text(n->free, size[1], sizeof(size[1])));
		if (n->source)
			printf("%7" PRIu64 " ns %5" PRIu64 " MB/s %5" PRIu64 " MB/s (%s)\n",
			       n->speed.latency_ns, n->speed.read_mb, n->speed.write_mb, n->source);
		else
			puts("  not told by the firmware (HMAT): --measure");
	}
	if (t->ndevices)
		printf("\n%-8s %-12s %8s %5s %s\n", "KIND", "DEVICE", "SIZE", "NODE", "DETAIL");
	for (unsigned i = 0; i < t->ndevices; i++) {
		const struct device *d = &t->device[i];
		char node[16] = "-";

		if (d->node >= 0)
			snprintf(node, sizeof(node), "%d", d->node);
		printf("%-8s %-12s %8s %5s %s\n", kind_name[d->kind], d->name,
		       d->bytes ? size_text(d->bytes, size[0], sizeof(size[0])) : "-", node,
		       d->detail);
	}
	suggest(t, uri, sizeof(uri));
	printf("\n[store]\nuri = %s\n", uri);
	if (has_rdma(t))
		puts("# an RDMA device is up: rdma://HOST of a memory server belongs before file:");
}

static void print_json(const struct topo *t)
{
	char uri[1024];

	fputs("{\"nodes\": [", stdout);
	for (unsigned i = 0; i < t->nnodes; i++) {
		const struct node *n = &t->node[i];

		printf("%s{\"node\": %u, \"cpus\": %s, \"total_bytes\": %" PRIu64
		       ", \"free_bytes\": %" PRIu64,
		       i ? ", " : "", n->id, n->cpus ? "true" : "false", n->total, n->free);
		if (n->source)
			printf(", \"read_latency_ns\": %" PRIu64 ", \"read_mb_s\": %" PRIu64
			       ", \"write_mb_s\": %" PRIu64 ", \"source\": \"%s\"",
			       n->speed.latency_ns, n->speed.read_mb, n->speed.write_mb, n->source);
		putchar('}');
	}
	fputs("], \"devices\": [", stdout);
	for (unsigned i = 0; i < t->ndevices; i++) {
		const struct device *d = &t->device[i];

		printf("%s{\"kind\": \"%s\", \"name\": \"%s\", \"bytes\": %" PRIu64
		       ", \"node\": %d, \"detail\": \"%s\"}",
		       i ? ", " : "", kind_name[d->kind], d->name, d->bytes, d->node, d->detail);
	}
	suggest(t, uri, sizeof(uri));
	printf("], \"store\": {\"uri\": \"%s\"}}\n", uri);
}

/* Where the firmware told nothing. */
static void measure(struct topo *t)
{
	for (unsigned i = 0; i < t->nnodes; i++) {
		struct node *n = &t->node[i];
		uint64_t bytes = n->free / 4 < MEASURE_BYTES ? n->free / 4 : MEASURE_BYTES;

		if (n->source || bytes < 1 << 20)
			continue;
		int rc = measure_node(n->id, bytes, &n->speed);
		if (rc)
			say(0, "topo: node %u can't be measured: %s", n->id, strerror(-rc));
		else
			n->source = "measured";
	}
}

int topo_main(int argc, char **argv)
{
	static struct topo t = { .sysfs = "/sys" };
	bool json = false, measured = false;

	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--json"))
			json = true;
		else if (!strcmp(argv[i], "--measure"))
			measured = true;
		else if (!strcmp(argv[i], "--sysfs") && i + 1 < argc &&
			 strlen(argv[i + 1]) < PATH_MAX / 2)
			t.sysfs = argv[++i];
		else
			return say(EXIT_USAGE,
				   "topo: %s is unknown; usage: emfatier topo [--json] [--measure]",
				   argv[i]);
	}
	if (measured && strcmp(t.sysfs, "/sys"))
		return say(EXIT_USAGE, "topo: --measure works on this host only, not with --sysfs");
	read_nodes(&t);
	read_cxl(&t);
	read_dax(&t);
	read_rdma(&t);
	if (!t.nnodes)
		return say(EXIT_WRONG,
			   "topo: no NUMA nodes in %s/devices/system/node; is sysfs mounted?",
			   t.sysfs);
	if (measured)
		measure(&t);
	(json ? print_json : print_text)(&t);
	return 0;
}
