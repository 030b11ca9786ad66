/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The lock of a space that outlives the process: two processes of this host must
 * never use one export at once. It is held through a descriptor (an OFD lock), so
 * the guard (guard.h), which inherits the descriptor, goes on holding it until
 * the dead process's space is trimmed.
 */
#ifndef EMF_STORE_LOCK_H
#define EMF_STORE_LOCK_H

#include <stddef.h>

/*
 * Locks `uri` (without userinfo) by a file in run_dir. While the space is still
 * being cleaned up after a process that is gone, waits for at most timeout_ms.
 * Returns the descriptor, or -errno with a line in err; -EBUSY: somebody has it.
 */
int lock_space(const char *uri, const char *run_dir, unsigned timeout_ms, char *err, size_t errlen);

#endif
