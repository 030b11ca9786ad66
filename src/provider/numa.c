/* SPDX-License-Identifier: Apache-2.0 */
/*
 * numa:N[?size=SIZE&cpus=on] - memory of node N (CXL memory is a node without CPUs) as a far
 * store that is copied to and from. A node with CPUs is local memory: only with cpus=on.
 *
 * The memory is bound to the node, and a bound allocation that finds the node full ends in the
 * OOM killer. So the node's free memory is looked at while it is filled: with little left a
 * write is refused (-ENOSPC).
 */
#define _GNU_SOURCE 1 /* syscall, strsep */
#include <fcntl.h>
#include <numa.h>
#include <numaif.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "bytes.h"
#include "space.h"
#include "uri.h"

#define MAX_LENGTH (1u << 30)
#define MAX_RESERVE (256ull << 20)

struct numa {
	struct bytes b;
	struct space space;
	unsigned node;
	char meminfo[64];
	uint64_t reserve;	 /* bytes of the node that stay free */
	_Atomic uint64_t unseen; /* bytes written since its free memory was looked at */
	_Atomic bool full;
};

/* MemFree of the node, without stdio: UINT64_MAX where it can't be had. */
static uint64_t node_free(const struct numa *m)
{
	char text[1024], *at;
	ssize_t n;
	int fd;

	fd = (int)syscall(SYS_openat, AT_FDCWD, m->meminfo, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return UINT64_MAX;
	n = syscall(SYS_read, fd, text, sizeof(text) - 1);
	syscall(SYS_close, fd);
	text[n > 0 ? n : 0] = '\0';
	at = strstr(text, "MemFree:");
	return at ? strtoull(at + 8, NULL, 10) * 1024 : UINT64_MAX;
}

static int numa_room(struct bytes *b, const struct emf_io *io)
{
	struct numa *m = (struct numa *)b;

	if (atomic_fetch_add(&m->unseen, io->length) + io->length >= m->reserve / 4 || m->full) {
		atomic_store(&m->unseen, 0);
		atomic_store(&m->full, node_free(m) < m->reserve);
	}
	return m->full ? -ENOSPC : 0;
}

static int numa_trim(struct bytes *b, uint64_t offset, size_t length)
{
	return space_trim(&((struct numa *)b)->space, offset, length);
}

static void numa_close(struct emf_backend *be)
{
	struct numa *m = (struct numa *)be;

	space_unmap(&m->space);
	own_free(m, sizeof(*m));
}

static const struct emf_backend_ops backend_ops = {
	.queue_open = bytes_queue_open,
	.close = numa_close,
	.descriptors = space_descriptors,
	.forked = space_forked,
	.forget = numa_close,
};

/* The memory, bound to the node. */
static int map(struct numa *m, uint64_t size, char *err, size_t errlen)
{
	const unsigned bits = 8 * sizeof(unsigned long);
	unsigned long mask[1024 / (8 * sizeof(unsigned long))] = { 0 };
	int rc = space_map(&m->space, size);

	if (rc) {
		snprintf(err, errlen, "cannot map %llu bytes: %s", (unsigned long long)size,
			 strerror(-rc));
		return rc;
	}
	mask[m->node / bits] = 1ul << m->node % bits;
	if (mbind(m->space.map, m->space.length, MPOL_BIND, mask, 1024, 0)) {
		rc = -errno;
		snprintf(err, errlen, "binding memory to node %u: %s%s", m->node, strerror(-rc),
			 rc == -EPERM ? "; a container's seccomp profile must allow mbind" : "");
		space_unmap(&m->space);
		return rc;
	}
	m->b.base = m->space.base;
	m->b.be.size = size;
	return 0;
}

/* Has the node CPUs? Those that are offline count. */
static bool has_cpus(int node)
{
	struct bitmask *cpus = numa_allocate_cpumask();
	bool any = cpus && !numa_node_to_cpus(node, cpus) && numa_bitmask_weight(cpus);

	numa_free_cpumask(cpus);
	return any;
}

static int check(unsigned node, bool cpus, uint64_t *size, char *err, size_t errlen)
{
	long long total;

	if (numa_available() < 0) {
		snprintf(err, errlen,
			 "this kernel has no NUMA support, or get_mempolicy is not allowed");
		return -ENOSYS;
	}
	if (node > (unsigned)numa_max_node() || !numa_bitmask_isbitset(numa_nodes_ptr, node)) {
		snprintf(err, errlen, "there is no node %u; the last of this host is %d", node,
			 numa_max_node());
		return -ENXIO;
	}
	if (!cpus && has_cpus((int)node)) {
		snprintf(
		    err, errlen,
		    "node %u has CPUs, its memory is local; name a node without, or add ?cpus=on",
		    node);
		return -EINVAL;
	}
	total = numa_node_size64((int)node, NULL);
	if (total <= 0) {
		snprintf(err, errlen, "node %u has no memory (is it online?)", node);
		return -ENXIO;
	}
	struct bitmask *allowed = numa_get_mems_allowed();
	bool may = numa_bitmask_isbitset(allowed, node);
	numa_free_nodemask(allowed);
	if (!may) {
		snprintf(err, errlen,
			 "no permission: node %u is not in cpuset.mems of this process", node);
		return -EPERM;
	}
	if (!*size || *size > (uint64_t)total)
		*size = (uint64_t)total & ~(uint64_t)(IO_PAGE - 1);
	return 0;
}

static int parse(char *query, unsigned *node, const char *path, bool *cpus, uint64_t *size,
		 char *err, size_t errlen)
{
	char *key, *value, *end;
	unsigned long n = strtoul(path, &end, 10);

	if (*path < '0' || *path > '9' || *end || n >= 1024) {
		snprintf(err, errlen, "write numa:N, N being the number of a node, e.g. numa:1");
		return -EINVAL;
	}
	*node = (unsigned)n;
	while (uri_query_next(&query, &key, &value)) {
		if (!strcmp(key, "size") && uri_size(value, size) && *size >= SPACE_HUGE_PAGE) {
			*size &= ~(uint64_t)(IO_PAGE - 1);
		} else if (!strcmp(key, "cpus") && !strcmp(value, "on")) {
			*cpus = true;
		} else {
			snprintf(err, errlen,
				 "'%s=%s': numa: has size=SIZE (2M and more) and cpus=on", key,
				 value);
			return -EINVAL;
		}
	}
	return 0;
}

static int numa_open(const char *uri, unsigned timeout_ms, struct emf_backend **out, char *err,
		     size_t errlen)
{
	struct numa *m = own_alloc(sizeof(*m));
	char *text = strdup(uri), *query = text, *path;
	uint64_t size = 0;
	bool cpus = false;
	int rc = -ENOMEM;

	(void)timeout_ms;
	if (m && text) {
		strsep(&query, "?");
		path = text + strlen("numa:");
		rc = parse(query, &m->node, path, &cpus, &size, err, errlen);
		if (!rc)
			rc = check(m->node, cpus, &size, err, errlen);
		if (!rc)
			rc = map(m, size, err, errlen);
	}
	free(text);
	if (rc) {
		own_free(m, sizeof(*m));
		return rc;
	}
	m->reserve = size / 16 < MAX_RESERVE ? size / 16 : MAX_RESERVE;
	snprintf(m->meminfo, sizeof(m->meminfo), "/sys/devices/system/node/node%u/meminfo",
		 m->node);
	m->b.room = numa_room;
	m->b.trim = numa_trim;
	m->b.be.ops = &backend_ops;
	m->b.be.caps = EMF_CAP_TRIM | EMF_CAP_CUTS | EMF_CAP_SYNC | EMF_CAP_BYTES;
	m->b.be.max_length = MAX_LENGTH;
	*out = &m->b.be;
	return 0;
}

__attribute__((visibility("default"))) const struct emf_provider emf_provider = {
	.abi = EMF_PROVIDER_ABI,
	.name = "numa",
	.open = numa_open,
};
