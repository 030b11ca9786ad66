/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A printf subset that takes no lock, allocates nothing and needs no locale: what may
 * be used while a thread of the program is stopped.
 * Conversions: %s %d %u %x %p %c %% with l, ll and z, and %.*s. No widths.
 * Any thread, any time.
 */
#ifndef EMF_FMT_H
#define EMF_FMT_H

#include <stdarg.h>
#include <stddef.h>

/* Always terminates; returns the length written (truncated to len - 1). */
size_t fmt_v(char *buf, size_t len, const char *fmt, va_list ap)
    __attribute__((format(printf, 3, 0)));
size_t fmt_s(char *buf, size_t len, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

#endif
