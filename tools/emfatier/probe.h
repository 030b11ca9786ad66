/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the kernel offers, tried rather than concluded from its version: security
 * modules and containers take away what the version promises. For emfatier doctor
 * only; the runtime probes for itself (src/kernel.c).
 */
#ifndef EMFATIER_PROBE_H
#define EMFATIER_PROBE_H

#include <stdbool.h>
#include <stdint.h>

enum probe_uffd_way { UFFD_BY_CALL, UFFD_BY_DEVICE };

/* 0 and the features that a handle may ask for; else -errno. */
int probe_userfaultfd(uint64_t *features, enum probe_uffd_way *way);

/* May a handle with this feature be had? EVENT_FORK needs a privilege of its own. */
bool probe_feature(uint64_t feature);

/* ioctl(PAGEMAP_SCAN) of /proc/self/pagemap, Linux 6.7: 0 or -errno. */
int probe_pagemap_scan(void);

/* io_uring_setup: 0 or -errno. */
int probe_io_uring(void);

#endif
