/* SPDX-License-Identifier: Apache-2.0 */
/*
 * emfatier topo [--json] [--measure] [--sysfs DIR]: the memory tiers of this host, as libcxl,
 * libdaxctl and sysfs show them, and a [store] section that fits. --sysfs: of the host whose /sys is
 * at DIR, by that alone.
 */
#ifndef EMFATIER_TOPO_H
#define EMFATIER_TOPO_H

int topo_main(int argc, char **argv);

#endif
