/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE 1 /* MAP_HUGETLB, MADV_POPULATE_WRITE */
#include "pool.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/mempolicy.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "provider/daxsize.h"
#include "provider/rdma/wire.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif

#define HUGE (2ull << 20)
#define STEP (4ull << 20) /* cleaned at once */
#define GOOD_COUNT 1024u  /* slabs: fine enough for quotas, few enough for their tables */
#define MOST_NODES 1024

static int refuse(char *err, size_t errlen, int rc, const char *why)
{
	snprintf(err, errlen, "%s", why);
	return rc;
}

/* Bytes that can be had without harm to others; UINT64_MAX: unknown. */
static uint64_t spare_memory(int node)
{
	char path[64], line[128];
	unsigned long long kib;
	uint64_t spare = UINT64_MAX;
	FILE *f;

	snprintf(path, sizeof(path),
		 node < 0 ? "/proc/meminfo" : "/sys/devices/system/node/node%d/meminfo", node);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, node < 0 ? "MemAvailable: %llu" : "Node %*d MemFree: %llu",
			   &kib) == 1)
			spare = (uint64_t)kib << 10;
	if (f)
		fclose(f);
	return spare;
}

static int bind_node(void *at, size_t length, int node)
{
	unsigned long mask[MOST_NODES / (8 * sizeof(long)) + 1] = { 0 };

	mask[(unsigned)node / (8 * sizeof(long))] |= 1ul << (unsigned)node % (8 * sizeof(long));
	return syscall(SYS_mbind, at, length, MPOL_BIND, mask, MOST_NODES + 1ul, 0u) ? -errno : 0;
}

/* All pages are there afterwards: a later fault could find none, and nobody to tell. */
static int populate(unsigned char *at, uint64_t length)
{
	if (!madvise(at, (size_t)length, MADV_POPULATE_WRITE))
		return 0;
	if (errno != EINVAL)
		return -errno;
	for (uint64_t i = 0; i < length; i += 4096)
		((volatile unsigned char *)at)[i] = 0;
	return 0;
}

/* Anonymous memory, in its place and there. */
static int map_memory(struct pool *p, int node, bool huge)
{
	/* Aligned to a huge page: what is mapped beyond is cut off again. */
	uint64_t size = p->mapped, extra = huge ? 0 : HUGE, before;
	int rc = 0;
	unsigned char *at = mmap(
	    NULL, (size_t)(size + extra), PROT_READ | PROT_WRITE,
	    MAP_PRIVATE | MAP_ANONYMOUS | (huge ? MAP_HUGETLB | 21 << MAP_HUGE_SHIFT : 0), -1, 0);

	if (at == MAP_FAILED)
		return -errno;
	before = -(uintptr_t)at & (HUGE - 1);
	if (before)
		munmap(at, (size_t)before);
	p->base = at + before;
	if (extra > before)
		munmap(p->base + size, (size_t)(extra - before));
	if (!huge)
		madvise(p->base, (size_t)size, MADV_HUGEPAGE);
	madvise(p->base, (size_t)size, MADV_DONTDUMP);
	if (node >= 0)
		rc = bind_node(p->base, (size_t)size, node);
	if (!rc)
		rc = populate(p->base, size);
	if (rc) {
		munmap(p->base, (size_t)size);
		p->base = NULL;
		return rc;
	}
	p->huge = huge;
	return 0;
}

static int open_memory(struct pool *p, const struct pool_options *opt, char *err, size_t errlen)
{
	uint64_t spare = spare_memory(opt->node);
	int rc;

	if (opt->node >= 0 && spare == UINT64_MAX) {
		snprintf(err, errlen, "--node %d: there is no such node", opt->node);
		return -EINVAL;
	}
	rc = map_memory(p, opt->node, true);
	if (!rc)
		return 0;
	/* The kernel would kill somebody. */
	if (p->mapped > spare) {
		snprintf(err, errlen, "--size: %llu MiB are asked for, and %llu MiB are available",
			 (unsigned long long)(p->mapped >> 20), (unsigned long long)(spare >> 20));
		return -ENOMEM;
	}
	rc = map_memory(p, opt->node, false);
	if (rc)
		snprintf(err, errlen, "--size: cannot get the memory: %s", strerror(-rc));
	return rc;
}

static int map_device(struct pool *p, int fd, char *err, size_t errlen)
{
	void *at = mmap(NULL, (size_t)p->mapped, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	int rc;

	if (at == MAP_FAILED)
		return refuse(err, errlen, -errno, "--dax: cannot map it");
	p->base = at;
	rc = populate(p->base, p->mapped);
	return rc ? refuse(err, errlen, rc, "--dax: cannot read all of it") : 0;
}

static int open_device(const char *path, uint64_t *size, char *err, size_t errlen)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);
	struct stat st;

	if (fd < 0) {
		snprintf(err, errlen, "--dax %s: %s", path, strerror(errno));
		return -errno;
	}
	if (flock(fd, LOCK_EX | LOCK_NB)) {
		int rc = errno == EWOULDBLOCK ? -EBUSY : -errno;

		close(fd);
		snprintf(err, errlen, "--dax %s: %s", path,
			 rc == -EBUSY ? "in use by another process" : strerror(-rc));
		return rc;
	}
	*size = !fstat(fd, &st) && S_ISCHR(st.st_mode) ? dax_device_size(&st) : 0;
	if (!*size) {
		close(fd);
		snprintf(err, errlen, "--dax %s: is not a DAX device", path);
		return -EINVAL;
	}
	return fd;
}

/* So that there are some hundred slabs. */
static uint64_t slab_size(uint64_t size)
{
	uint64_t slab = WIRE_MIN_SLAB;

	while (size / slab > GOOD_COUNT)
		slab *= 2;
	return slab;
}

static int open_all(struct pool *p, const struct pool_options *opt, char *err, size_t errlen)
{
	uint64_t size = opt->size, has = 0;
	int fd = -1, rc;

	if (opt->dax) {
		fd = open_device(opt->dax, &has, err, errlen);
		if (fd < 0)
			return fd;
		size = size && size < has ? size : has;
	}
	p->slab_bytes = slab_size(size);
	p->nslabs = (uint32_t)(size / p->slab_bytes);
	p->mapped = p->nslabs * p->slab_bytes;
	if (!p->nslabs)
		rc = refuse(err, errlen, -EINVAL, "--size: at least 2M");
	else
		rc = opt->dax ? map_device(p, fd, err, errlen) : open_memory(p, opt, err, errlen);
	if (fd >= 0 && rc)
		close(fd);
	p->device = fd >= 0 && !rc;
	p->fd = fd;
	return rc;
}

int pool_open(struct pool *p, const struct pool_options *opt, char *err, size_t errlen)
{
	int rc;

	*p = (struct pool){ 0 };
	rc = open_all(p, opt, err, errlen);
	if (rc)
		return rc;
	p->state = malloc(p->nslabs);
	if (!p->state) {
		pool_close(p);
		return refuse(err, errlen, -ENOMEM, "out of memory");
	}
	/* A device holds what was last written to it; the kernel's pages are zero. */
	memset(p->state, opt->dax ? SLAB_DIRTY : SLAB_CLEAN, p->nslabs);
	p->clean = opt->dax ? 0 : p->nslabs;
	p->dirty = opt->dax ? p->nslabs : 0;
	while (pool_work(p))
		;
	return 0;
}

void pool_close(struct pool *p)
{
	while (p->device && pool_work(p))
		;
	if (p->device)
		close(p->fd);
	if (p->base)
		munmap(p->base, (size_t)p->mapped);
	free(p->state);
	*p = (struct pool){ 0 };
}

static bool find_one(struct pool *p, enum slab_state state)
{
	for (uint32_t i = 0; i < p->nslabs; i++) {
		if (p->state[i] != state)
			continue;
		p->cleaning = i;
		p->cleaned = 0;
		return true;
	}
	return false;
}

bool pool_work(struct pool *p)
{
	uint64_t left;

	/* One that is half done goes on where it was: it is dirty or owed until it is done. */
	if (!p->cleaned && !(p->owed && find_one(p, SLAB_OWED)) &&
	    !(p->dirty && find_one(p, SLAB_DIRTY)))
		return false;
	left = p->slab_bytes - p->cleaned;
	left = left < STEP ? left : STEP;
	memset(pool_address(p, p->cleaning) + p->cleaned, 0, (size_t)left);
	p->cleaned += left;
	if (p->cleaned == p->slab_bytes) {
		p->cleaned = 0;
		if (p->state[p->cleaning] == SLAB_OWED) {
			p->state[p->cleaning] = SLAB_TAKEN;
			p->owed--;
		} else {
			p->state[p->cleaning] = SLAB_CLEAN;
			p->clean++;
			p->dirty--;
		}
	}
	return p->dirty || p->owed;
}

int pool_take(struct pool *p, uint32_t n, uint32_t *slab)
{
	uint32_t at = 0;

	if (n > p->clean + p->dirty)
		return -ENOSPC;
	for (uint32_t i = 0; at < n && p->clean; i++) {
		if (p->state[i] != SLAB_CLEAN)
			continue;
		p->state[i] = SLAB_TAKEN;
		p->clean--;
		slab[at++] = i;
	}
	for (uint32_t i = 0; at < n; i++) {
		if (p->state[i] != SLAB_DIRTY)
			continue;
		p->state[i] = SLAB_OWED;
		p->dirty--;
		p->owed++;
		slab[at++] = i;
	}
	return 0;
}

void pool_give(struct pool *p, uint32_t slab, bool used)
{
	bool dirty = used || p->state[slab] == SLAB_OWED;

	p->owed -= p->state[slab] == SLAB_OWED;
	p->state[slab] = dirty ? SLAB_DIRTY : SLAB_CLEAN;
	p->dirty += dirty;
	p->clean += !dirty;
}
