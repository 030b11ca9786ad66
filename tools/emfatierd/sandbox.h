/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the server may do, taken away as soon as it is not needed. In this order:
 *
 *   limits    as many pinned pages and descriptors as its privileges allow
 *   drop      another user, no capabilities, none to come. Before the first descriptor of the
 *             RDMA subsystem is opened: the kernel refuses those that were opened by somebody else
 *   seal      only the system calls that serving takes; no file can be opened any more
 */
#ifndef EMFATIERD_SANDBOX_H
#define EMFATIERD_SANDBOX_H

#include <stddef.h>

/* Why this user won't do, or NULL. Only root becomes another one. */
const char *sandbox_refuses(const char *user);
void sandbox_limits(void);
/* user: only for root, and one that is not refused. 0 or -errno and err: one line. */
int sandbox_drop(const char *user, char *err, size_t errlen);
int sandbox_seal(char *err, size_t errlen);

#endif
