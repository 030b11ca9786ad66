/* SPDX-License-Identifier: Apache-2.0 */
/* What topo.c (output), topo_sysfs.c and topo_ndctl.c (where it comes from) share. */
#ifndef EMFATIER_TOPO_INT_H
#define EMFATIER_TOPO_INT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "measure.h"

#define TOPO_NAME 32
#define TOPO_MEMDEVS 8 /* of one region that are named */
#define TOPO_MAX 128

struct node {
	unsigned id;
	bool cpus;
	uint64_t total, free; /* bytes */
	struct speed speed;   /* all 0: not known */
	const char *source;   /* of the speed */
};

enum kind { CXL_MEMDEV, CXL_REGION, CXL_DECODER, DAX, RDMA };

struct device {
	enum kind kind;
	char name[TOPO_NAME];
	uint64_t bytes;
	int node;		/* -1: none */
	char detail[TOPO_NAME]; /* mode, state or driver */
	const char *source;	/* "sysfs", or the library that told it */
	/* What only the libraries tell. */
	bool told, enabled;
	unsigned ways;		/* of interleaving; 0: not known */
	char region[TOPO_NAME]; /* that a decoder decodes */
	char memdev[TOPO_MEMDEVS][TOPO_NAME];
	unsigned nmemdevs;
};

struct topo {
	const char *sysfs;
	unsigned nnodes, ndevices;
	struct node node[TOPO_MAX];
	struct device device[TOPO_MAX];
};

/* NULL: there are too many, or its name is too long. */
struct device *topo_add(struct topo *t, enum kind kind, const char *name, const char *source);
/* Text of a device, nothing in it that a terminal or JSON would trip over. NULL: none. */
void topo_copy(char *out, size_t len, const char *text);

void topo_sysfs_nodes(struct topo *t);
void topo_sysfs_cxl(struct topo *t);
void topo_sysfs_dax(struct topo *t);
void topo_sysfs_rdma(struct topo *t);

/* By libcxl and libdaxctl, of this host. False: the library is not there, or doesn't work. */
bool topo_libcxl(struct topo *t);
bool topo_libdaxctl(struct topo *t);

#endif
