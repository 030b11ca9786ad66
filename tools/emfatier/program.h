/* SPDX-License-Identifier: Apache-2.0 */
/* The command to be run: where it is, and whether a preloaded library reaches it. */
#ifndef EMFATIER_PROGRAM_H
#define EMFATIER_PROGRAM_H

#include <stddef.h>

/*
 * As the shell finds it: by PATH unless it has a slash. 0, or -errno: -ENOENT
 * there is none, -EACCES it is there and can't be executed.
 */
int program_find(const char *command, char *path, size_t len);

/*
 * NULL: it can be managed. Else why it will run unmanaged. A script is judged by
 * its interpreter.
 */
const char *program_unmanaged(const char *path);

/*
 * An allocator that is linked into the program, in words ("jemalloc"), or NULL: malloc is then
 * its own, not the library's. One in a shared object of its own does not matter.
 */
const char *program_allocator(const char *path);

#endif
