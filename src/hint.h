/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The hints of include/emfatier.h. By program threads, which wait until it is done (as for the
 * operations of engine.h).
 */
#ifndef EMF_HINT_H
#define EMF_HINT_H

#include <stddef.h>

long hint_give(int what, const void *addr, size_t len, const char *name);

#endif
