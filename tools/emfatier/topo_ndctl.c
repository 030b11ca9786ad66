/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CXL devices by libcxl, DAX devices by libdaxctl: loaded when they are asked, for most hosts
 * have neither. The declarations are their own of version 76, less what is not used; where their
 * headers are installed the compiler holds the two against each other. "verison" is libcxl's.
 */
#include "topo_int.h"

#include <dlfcn.h>
#include <limits.h>

#ifdef HAVE_LIBCXL_H
#include <cxl/libcxl.h>
#endif
#ifdef HAVE_LIBDAXCTL_H
#include <daxctl/libdaxctl.h>
#endif

#define CXL_FUNCTIONS(F)                                                                           \
	F(int, cxl_new, struct cxl_ctx **)                                                         \
	F(void, cxl_unref, struct cxl_ctx *)                                                       \
	F(void, cxl_set_log_priority, struct cxl_ctx *, int)                                       \
	F(struct cxl_memdev *, cxl_memdev_get_first, struct cxl_ctx *)                             \
	F(struct cxl_memdev *, cxl_memdev_get_next, struct cxl_memdev *)                           \
	F(const char *, cxl_memdev_get_devname, struct cxl_memdev *)                               \
	F(unsigned long long, cxl_memdev_get_ram_size, struct cxl_memdev *)                        \
	F(unsigned long long, cxl_memdev_get_pmem_size, struct cxl_memdev *)                       \
	F(int, cxl_memdev_get_numa_node, struct cxl_memdev *)                                      \
	F(int, cxl_memdev_is_enabled, struct cxl_memdev *)                                         \
	F(const char *, cxl_memdev_get_firmware_verison, struct cxl_memdev *)                      \
	F(struct cxl_bus *, cxl_bus_get_first, struct cxl_ctx *)                                   \
	F(struct cxl_bus *, cxl_bus_get_next, struct cxl_bus *)                                    \
	F(struct cxl_port *, cxl_bus_get_port, struct cxl_bus *)                                   \
	F(struct cxl_port *, cxl_port_get_first, struct cxl_port *)                                \
	F(struct cxl_port *, cxl_port_get_next, struct cxl_port *)                                 \
	F(struct cxl_endpoint *, cxl_endpoint_get_first, struct cxl_port *)                        \
	F(struct cxl_endpoint *, cxl_endpoint_get_next, struct cxl_endpoint *)                     \
	F(struct cxl_port *, cxl_endpoint_get_port, struct cxl_endpoint *)                         \
	F(struct cxl_decoder *, cxl_decoder_get_first, struct cxl_port *)                          \
	F(struct cxl_decoder *, cxl_decoder_get_next, struct cxl_decoder *)                        \
	F(const char *, cxl_decoder_get_devname, struct cxl_decoder *)                             \
	F(unsigned long long, cxl_decoder_get_size, struct cxl_decoder *)                          \
	F(unsigned, cxl_decoder_get_interleave_ways, struct cxl_decoder *)                         \
	F(enum cxl_decoder_mode, cxl_decoder_get_mode, struct cxl_decoder *)                       \
	F(struct cxl_memdev *, cxl_decoder_get_memdev, struct cxl_decoder *)                       \
	F(struct cxl_region *, cxl_decoder_get_region, struct cxl_decoder *)                       \
	F(struct cxl_region *, cxl_region_get_first, struct cxl_decoder *)                         \
	F(struct cxl_region *, cxl_region_get_next, struct cxl_region *)                           \
	F(const char *, cxl_region_get_devname, struct cxl_region *)                               \
	F(unsigned long long, cxl_region_get_size, struct cxl_region *)                            \
	F(unsigned, cxl_region_get_interleave_ways, struct cxl_region *)                           \
	F(int, cxl_region_is_enabled, struct cxl_region *)                                         \
	F(struct cxl_memdev_mapping *, cxl_mapping_get_first, struct cxl_region *)                 \
	F(struct cxl_memdev_mapping *, cxl_mapping_get_next, struct cxl_memdev_mapping *)          \
	F(struct cxl_decoder *, cxl_mapping_get_decoder, struct cxl_memdev_mapping *)

#define DAX_FUNCTIONS(F)                                                                           \
	F(int, daxctl_new, struct daxctl_ctx **)                                                   \
	F(void, daxctl_unref, struct daxctl_ctx *)                                                 \
	F(void, daxctl_set_log_priority, struct daxctl_ctx *, int)                                 \
	F(struct daxctl_region *, daxctl_region_get_first, struct daxctl_ctx *)                    \
	F(struct daxctl_region *, daxctl_region_get_next, struct daxctl_region *)                  \
	F(struct daxctl_dev *, daxctl_dev_get_first, struct daxctl_region *)                       \
	F(struct daxctl_dev *, daxctl_dev_get_next, struct daxctl_dev *)                           \
	F(const char *, daxctl_dev_get_devname, struct daxctl_dev *)                               \
	F(unsigned long long, daxctl_dev_get_size, struct daxctl_dev *)                            \
	F(int, daxctl_dev_get_target_node, struct daxctl_dev *)                                    \
	F(int, daxctl_dev_is_enabled, struct daxctl_dev *)                                         \
	F(struct daxctl_memory *, daxctl_dev_get_memory, struct daxctl_dev *)

#ifndef HAVE_LIBCXL_H
struct cxl_ctx;
enum cxl_decoder_mode {
	CXL_DECODER_MODE_NONE,
	CXL_DECODER_MODE_MIXED,
	CXL_DECODER_MODE_PMEM,
	CXL_DECODER_MODE_RAM,
};
#endif
struct daxctl_ctx;

#define DECLARE(type, name, ...) type name(__VA_ARGS__);
#define MEMBER(type, name, ...) type (*name)(__VA_ARGS__);
#define CXL_ENTRY(type, name, ...) { #name, (void **)&cxl.name },
#define DAX_ENTRY(type, name, ...) { #name, (void **)&dax.name },

CXL_FUNCTIONS(DECLARE)
DAX_FUNCTIONS(DECLARE)

struct function {
	const char *name;
	void **to;
};

static bool load(const char *library, const struct function *functions, size_t n)
{
	void *dl = dlopen(library, RTLD_NOW | RTLD_LOCAL);

	for (size_t i = 0; dl && i < n; i++) {
		*functions[i].to = dlsym(dl, functions[i].name);
		if (!*functions[i].to)
			return false;
	}
	return dl;
}

/* Both libraries' word for "not known". */
static uint64_t bytes_of(unsigned long long size)
{
	return size == ULLONG_MAX ? 0 : size;
}

/* --- CXL --- */

static struct {
	CXL_FUNCTIONS(MEMBER)
} cxl;

static const char *mode_name(enum cxl_decoder_mode mode)
{
	return mode == CXL_DECODER_MODE_RAM	? "ram"
	       : mode == CXL_DECODER_MODE_PMEM	? "pmem"
	       : mode == CXL_DECODER_MODE_MIXED ? "mixed"
						: "none";
}

static struct device *add_cxl(struct topo *t, enum kind kind, const char *name)
{
	struct device *d = topo_add(t, kind, name, "libcxl");

	if (d)
		d->told = d->enabled = true;
	return d;
}

static void on_memdev(struct device *d, struct cxl_memdev *m)
{
	if (m && d->nmemdevs < TOPO_MEMDEVS)
		topo_copy(d->memdev[d->nmemdevs++], TOPO_NAME, cxl.cxl_memdev_get_devname(m));
}

static void add_memdev(struct topo *t, struct cxl_memdev *m)
{
	struct device *d = add_cxl(t, CXL_MEMDEV, cxl.cxl_memdev_get_devname(m));

	if (!d)
		return;
	d->bytes =
	    bytes_of(cxl.cxl_memdev_get_ram_size(m)) + bytes_of(cxl.cxl_memdev_get_pmem_size(m));
	d->node = cxl.cxl_memdev_get_numa_node(m);
	d->enabled = cxl.cxl_memdev_is_enabled(m);
	topo_copy(d->detail, sizeof(d->detail), cxl.cxl_memdev_get_firmware_verison(m));
}

static void add_region(struct topo *t, struct cxl_region *r)
{
	struct device *d = add_cxl(t, CXL_REGION, cxl.cxl_region_get_devname(r));
	struct cxl_memdev_mapping *m;
	struct cxl_decoder *decoder;

	if (!d)
		return;
	d->bytes = bytes_of(cxl.cxl_region_get_size(r));
	d->ways = cxl.cxl_region_get_interleave_ways(r);
	d->enabled = cxl.cxl_region_is_enabled(r);
	for (m = cxl.cxl_mapping_get_first(r); m; m = cxl.cxl_mapping_get_next(m)) {
		decoder = cxl.cxl_mapping_get_decoder(m);
		topo_copy(d->detail, sizeof(d->detail),
			  mode_name(cxl.cxl_decoder_get_mode(decoder)));
		on_memdev(d, cxl.cxl_decoder_get_memdev(decoder));
	}
}

/* What kind of port it is of; an endpoint's is for one memory device, and has a mode. */
static void add_decoder(struct topo *t, struct cxl_decoder *decoder, const char *of)
{
	struct device *d = add_cxl(t, CXL_DECODER, cxl.cxl_decoder_get_devname(decoder));
	struct cxl_region *r = cxl.cxl_decoder_get_region(decoder);

	if (!d)
		return;
	d->bytes = bytes_of(cxl.cxl_decoder_get_size(decoder));
	if (d->bytes)
		d->ways = cxl.cxl_decoder_get_interleave_ways(decoder);
	topo_copy(d->detail, sizeof(d->detail),
		  of ? of : mode_name(cxl.cxl_decoder_get_mode(decoder)));
	if (!of)
		on_memdev(d, cxl.cxl_decoder_get_memdev(decoder));
	if (r)
		topo_copy(d->region, sizeof(d->region), cxl.cxl_region_get_devname(r));
}

static void decoders_of(struct topo *t, struct cxl_port *port, const char *of)
{
	struct cxl_decoder *d;

	for (d = cxl.cxl_decoder_get_first(port); d; d = cxl.cxl_decoder_get_next(d))
		add_decoder(t, d, of);
}

static void decoders_below(struct topo *t, struct cxl_port *port, const char *of)
{
	struct cxl_endpoint *e;
	struct cxl_port *p;

	decoders_of(t, port, of);
	for (p = cxl.cxl_port_get_first(port); p; p = cxl.cxl_port_get_next(p))
		decoders_below(t, p, "port");
	for (e = cxl.cxl_endpoint_get_first(port); e; e = cxl.cxl_endpoint_get_next(e))
		decoders_of(t, cxl.cxl_endpoint_get_port(e), NULL);
}

bool topo_libcxl(struct topo *t)
{
	const struct function functions[] = { CXL_FUNCTIONS(CXL_ENTRY) };
	struct cxl_ctx *ctx;
	struct cxl_memdev *m;
	struct cxl_decoder *d;
	struct cxl_region *r;
	struct cxl_bus *b;

	if (!load("libcxl.so.1", functions, sizeof(functions) / sizeof(functions[0])) ||
	    cxl.cxl_new(&ctx))
		return false;
	cxl.cxl_set_log_priority(ctx, 0);
	for (m = cxl.cxl_memdev_get_first(ctx); m; m = cxl.cxl_memdev_get_next(m))
		add_memdev(t, m);
	for (b = cxl.cxl_bus_get_first(ctx); b; b = cxl.cxl_bus_get_next(b)) {
		d = cxl.cxl_decoder_get_first(cxl.cxl_bus_get_port(b));
		for (; d; d = cxl.cxl_decoder_get_next(d))
			for (r = cxl.cxl_region_get_first(d); r; r = cxl.cxl_region_get_next(r))
				add_region(t, r);
	}
	for (b = cxl.cxl_bus_get_first(ctx); b; b = cxl.cxl_bus_get_next(b))
		decoders_below(t, cxl.cxl_bus_get_port(b), "root");
	cxl.cxl_unref(ctx);
	return true;
}

/* --- DAX --- */

static struct {
	DAX_FUNCTIONS(MEMBER)
} dax;

static void add_dax(struct topo *t, struct daxctl_dev *dev)
{
	struct device *d = topo_add(t, DAX, dax.daxctl_dev_get_devname(dev), "libdaxctl");

	if (!d)
		return;
	d->told = true;
	d->bytes = bytes_of(dax.daxctl_dev_get_size(dev));
	d->node = dax.daxctl_dev_get_target_node(dev);
	d->enabled = dax.daxctl_dev_is_enabled(dev);
	topo_copy(d->detail, sizeof(d->detail),
		  dax.daxctl_dev_get_memory(dev) ? "system-ram"
		  : d->enabled			 ? "devdax"
						 : "no driver");
}

bool topo_libdaxctl(struct topo *t)
{
	const struct function functions[] = { DAX_FUNCTIONS(DAX_ENTRY) };
	struct daxctl_region *r;
	struct daxctl_ctx *ctx;
	struct daxctl_dev *d;

	if (!load("libdaxctl.so.1", functions, sizeof(functions) / sizeof(functions[0])) ||
	    dax.daxctl_new(&ctx))
		return false;
	dax.daxctl_set_log_priority(ctx, 0);
	for (r = dax.daxctl_region_get_first(ctx); r; r = dax.daxctl_region_get_next(r))
		for (d = dax.daxctl_dev_get_first(r); d; d = dax.daxctl_dev_get_next(d))
			add_dax(t, d);
	dax.daxctl_unref(ctx);
	return true;
}
