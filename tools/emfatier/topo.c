/* SPDX-License-Identifier: Apache-2.0 */
#include "topo.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../common/say.h"
#include "topo_int.h"

#define MEASURE_BYTES (64ull << 20)

static const char *const kind_name[] = { "memdev", "region", "decoder", "dax", "rdma" };

/* --- devices --- */

void topo_copy(char *out, size_t len, const char *text)
{
	size_t n = 0;

	for (; text && text[n] && n < len - 1; n++)
		out[n] = text[n] < ' ' || text[n] > '~' || text[n] == '"' || text[n] == '\\'
			     ? '?'
			     : text[n];
	out[n] = '\0';
}

struct device *topo_add(struct topo *t, enum kind kind, const char *name, const char *source)
{
	struct device *d = &t->device[t->ndevices];

	if (t->ndevices == TOPO_MAX || !name || strlen(name) >= TOPO_NAME)
		return NULL;
	t->ndevices++;
	*d = (struct device){ .kind = kind, .node = -1, .source = source };
	topo_copy(d->name, sizeof(d->name), name);
	return d;
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
	struct node node[TOPO_MAX];
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

/* The detail, with what only the libraries tell. */
static const char *detail_text(const struct device *d, char *out, size_t len)
{
	size_t n = (size_t)snprintf(out, len, "%s", d->detail);

	if (d->ways && n < len)
		n += (size_t)snprintf(out + n, len - n, ", %u way%s", d->ways,
				      d->ways == 1 ? "" : "s");
	for (unsigned i = 0; i < d->nmemdevs && n < len; i++)
		n += (size_t)snprintf(out + n, len - n, "%s%s", i ? "+" : ", on ", d->memdev[i]);
	if (d->region[0] && n < len)
		n += (size_t)snprintf(out + n, len - n, ", for %s", d->region);
	if (d->told && !d->enabled && n < len)
		snprintf(out + n, len - n, ", not enabled");
	return out;
}

/* What there is none of, and who told what there is. */
static void print_notes(const struct topo *t)
{
	bool cxl = false, dax = false, sysfs = false;

	for (unsigned i = 0; i < t->ndevices; i++) {
		const struct device *d = &t->device[i];

		cxl |= d->kind == CXL_MEMDEV;
		dax |= d->kind == DAX;
		sysfs |= d->kind != RDMA && !d->told;
	}
	if (!cxl || !dax)
		printf("\nno %s here\n", cxl   ? "DAX devices"
					 : dax ? "CXL memory devices"
					       : "CXL memory devices and no DAX devices");
	if (sysfs && !strcmp(t->sysfs, "/sys"))
		puts("\nas sysfs shows them; libcxl1 and libdaxctl1 (Debian) know which device "
		     "is behind a region");
}

static void print_text(const struct topo *t)
{
	char size[2][16], uri[1024], detail[256];

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
		       detail_text(d, detail, sizeof(detail)));
	}
	print_notes(t);
	suggest(t, uri, sizeof(uri));
	printf("\n[store]\nuri = %s\n", uri);
	if (has_rdma(t))
		puts("# an RDMA device is up: rdma://HOST of a memory server belongs before file:");
}

static void print_json_device(const struct device *d)
{
	printf("{\"kind\": \"%s\", \"name\": \"%s\", \"bytes\": %" PRIu64
	       ", \"node\": %d, \"detail\": \"%s\", \"source\": \"%s\"",
	       kind_name[d->kind], d->name, d->bytes, d->node, d->detail, d->source);
	if (d->told && d->kind != CXL_DECODER)
		printf(", \"enabled\": %s", d->enabled ? "true" : "false");
	if (d->ways)
		printf(", \"interleave_ways\": %u", d->ways);
	for (unsigned i = 0; i < d->nmemdevs; i++)
		printf("%s\"%s\"%s", i ? ", " : ", \"memdevs\": [", d->memdev[i],
		       i + 1 == d->nmemdevs ? "]" : "");
	if (d->region[0])
		printf(", \"region\": \"%s\"", d->region);
	putchar('}');
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
		fputs(i ? ", " : "", stdout);
		print_json_device(&t->device[i]);
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

/* The libraries know this host only. */
static void read_all(struct topo *t)
{
	bool here = !strcmp(t->sysfs, "/sys");

	topo_sysfs_nodes(t);
	if (!here || !topo_libcxl(t))
		topo_sysfs_cxl(t);
	if (!here || !topo_libdaxctl(t))
		topo_sysfs_dax(t);
	topo_sysfs_rdma(t);
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
	read_all(&t);
	if (!t.nnodes)
		return say(EXIT_WRONG,
			   "topo: no NUMA nodes in %s/devices/system/node; is sysfs mounted?",
			   t.sysfs);
	if (measured)
		measure(&t);
	(json ? print_json : print_text)(&t);
	return 0;
}
