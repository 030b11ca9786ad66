/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libcxl and libdaxctl of a made-up host, for topo.sh: two memory devices, of which a region takes
 * turns, a third that is not enabled, and two DAX devices. A handle is the name of the thing.
 */
#include <limits.h>
#include <stddef.h>
#include <string.h>

#define GIB (1ull << 30)

typedef const char *handle;

/* The one behind h in a list that ends with NULL. */
static handle behind(handle h, const handle *list)
{
	while (*list && strcmp(*list, h))
		list++;
	return *list ? list[1] : NULL;
}

static const handle memdevs[] = { "mem0", "mem1", "mem2", NULL };
static const handle root_decoders[] = { "decoder0.0", NULL };
static const handle targets[] = { "decoder2.0", "decoder3.0", NULL };
static const handle endpoints[] = { "endpoint2", "endpoint3", NULL };
static const handle daxes[] = { "dax0.0", "dax0.1", NULL };

int cxl_new(handle *ctx) { *ctx = "ctx"; return 0; }
void cxl_unref(handle ctx) { (void)ctx; }
void cxl_set_log_priority(handle ctx, int priority) { (void)ctx; (void)priority; }
handle cxl_memdev_get_first(handle ctx) { (void)ctx; return memdevs[0]; }
handle cxl_memdev_get_next(handle m) { return behind(m, memdevs); }
handle cxl_memdev_get_devname(handle m) { return m; }
unsigned long long cxl_memdev_get_ram_size(handle m) { (void)m; return 64 * GIB; }
unsigned long long cxl_memdev_get_pmem_size(handle m) { (void)m; return ULLONG_MAX; }
int cxl_memdev_get_numa_node(handle m) { (void)m; return 0; }
int cxl_memdev_is_enabled(handle m) { return strcmp(m, "mem2") != 0; }
handle cxl_memdev_get_firmware_verison(handle m) { (void)m; return "FW \"1\""; }
handle cxl_bus_get_first(handle ctx) { (void)ctx; return "root0"; }
handle cxl_bus_get_next(handle b) { (void)b; return NULL; }
handle cxl_bus_get_port(handle b) { return b; }
handle cxl_port_get_first(handle p) { return strcmp(p, "root0") ? NULL : "port1"; }
handle cxl_port_get_next(handle p) { (void)p; return NULL; }
handle cxl_endpoint_get_first(handle p) { return strcmp(p, "port1") ? NULL : endpoints[0]; }
handle cxl_endpoint_get_next(handle e) { return behind(e, endpoints); }
handle cxl_endpoint_get_port(handle e) { return e; }
handle cxl_decoder_get_first(handle p)
{
	return !strcmp(p, "root0")     ? root_decoders[0]
	       : !strcmp(p, "port1")   ? "decoder1.0"
	       : !strcmp(p, "endpoint2") ? targets[0]
				       : targets[1];
}
handle cxl_decoder_get_next(handle d) { (void)d; return NULL; }
handle cxl_decoder_get_devname(handle d) { return d; }
unsigned long long cxl_decoder_get_size(handle d) { return strcmp(d, "decoder1.0") ? 128 * GIB : ULLONG_MAX; }
unsigned cxl_decoder_get_interleave_ways(handle d) { (void)d; return 2; }
int cxl_decoder_get_mode(handle d) { (void)d; return 3; }
handle cxl_decoder_get_memdev(handle d) { return strcmp(d, targets[0]) ? "mem1" : "mem0"; }
handle cxl_decoder_get_region(handle d) { return strcmp(d, root_decoders[0]) ? "region0" : NULL; }
handle cxl_region_get_first(handle d) { (void)d; return "region0"; }
handle cxl_region_get_next(handle r) { (void)r; return NULL; }
handle cxl_region_get_devname(handle r) { return r; }
unsigned long long cxl_region_get_size(handle r) { (void)r; return 128 * GIB; }
unsigned cxl_region_get_interleave_ways(handle r) { (void)r; return 2; }
int cxl_region_is_enabled(handle r) { (void)r; return 1; }
handle cxl_mapping_get_first(handle r) { (void)r; return targets[0]; }
handle cxl_mapping_get_next(handle m) { return behind(m, targets); }
handle cxl_mapping_get_decoder(handle m) { return m; }

int daxctl_new(handle *ctx) { *ctx = "ctx"; return 0; }
void daxctl_unref(handle ctx) { (void)ctx; }
void daxctl_set_log_priority(handle ctx, int priority) { (void)ctx; (void)priority; }
handle daxctl_region_get_first(handle ctx) { (void)ctx; return "region"; }
handle daxctl_region_get_next(handle r) { (void)r; return NULL; }
handle daxctl_dev_get_first(handle r) { (void)r; return daxes[0]; }
handle daxctl_dev_get_next(handle d) { return behind(d, daxes); }
handle daxctl_dev_get_devname(handle d) { return d; }
unsigned long long daxctl_dev_get_size(handle d) { (void)d; return 64 * GIB; }
int daxctl_dev_get_target_node(handle d) { (void)d; return 2; }
int daxctl_dev_is_enabled(handle d) { (void)d; return 1; }
handle daxctl_dev_get_memory(handle d) { return strcmp(d, "dax0.0") ? NULL : d; }
