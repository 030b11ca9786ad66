/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names that the program gives to regions (emf_name), by small numbers. They are
 * never forgotten: a program has a handful. Any thread, without a lock.
 */
#ifndef EMF_NAMES_H
#define EMF_NAMES_H

#include <stdint.h>

/* Its number, 0 for "" and when there are too many (63); cut at 31 characters. */
uint8_t names_add(const char *name);
/* "" for 0. */
const char *names_text(uint8_t n);

#endif
