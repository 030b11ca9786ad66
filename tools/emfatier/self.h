/* SPDX-License-Identifier: Apache-2.0 */
/* What is installed together with this tool. */
#ifndef EMFATIER_SELF_H
#define EMFATIER_SELF_H

#include <stdbool.h>
#include <stddef.h>

/*
 * Finds DIR/name or DIR/../lib/name, where DIR holds this executable; out is
 * absolute. False: there is none; out is then the place in DIR.
 */
bool self_find(const char *name, char *out, size_t len);

#endif
