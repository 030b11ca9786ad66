/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the runtime was loaded from: providers and tools are found from there.
 * Uses the dynamic linker's lists: not in a thread that resolves faults.
 */
#ifndef EMF_WHERE_H
#define EMF_WHERE_H

#include <stddef.h>

/*
 * The directory of the library or program that this code is part of, absolute,
 * without a slash at the end. 0 or -errno.
 */
int where_dir(char *buf, size_t length);

#endif
