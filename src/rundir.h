/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The directory of the statistics segments and locks: EMFATIER_RUN_DIR, else
 * /run/emfatier (root), $XDG_RUNTIME_DIR/emfatier, /tmp/emfatier-UID: the first
 * that can be used. Its last part must be a real directory that is ours (or
 * root's) and that not everybody may write to: in /tmp somebody else may have put
 * a link or a directory of that name. No stdio but snprintf, no allocation.
 */
#ifndef EMF_RUNDIR_H
#define EMF_RUNDIR_H

#include <stdbool.h>
#include <stddef.h>

/*
 * create: make it (0755 where root keeps it for all to read, else 0700). Returns 0;
 * or -errno with the place that was refused in out: -ENOENT none is there yet,
 * -EPERM it is somebody else's or open to all, -ENOTDIR it is a link or a file,
 * -ENAMETOOLONG.
 */
int run_dir(char *out, size_t len, bool create);

#endif
