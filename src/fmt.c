/* SPDX-License-Identifier: Apache-2.0 */
#include "fmt.h"

#include <stdint.h>
#include <string.h>

struct out {
	char *buf;
	size_t len, at;
};

static void put(struct out *o, const char *s, size_t n)
{
	while (n-- && o->at + 1 < o->len)
		o->buf[o->at++] = *s++;
}

static void put_number(struct out *o, uint64_t v, unsigned base)
{
	char digits[20];
	size_t n = sizeof(digits);

	do {
		digits[--n] = "0123456789abcdef"[v % base];
		v /= base;
	} while (v);
	put(o, digits + n, sizeof(digits) - n);
}

size_t fmt_v(char *buf, size_t len, const char *fmt, va_list ap)
{
	struct out o = { buf, len, 0 };

	if (!len)
		return 0;
	for (; *fmt; fmt++) {
		if (*fmt != '%') {
			put(&o, fmt, 1);
			continue;
		}
		int precision = -1, longs = 0;
		fmt++;
		if (fmt[0] == '.' && fmt[1] == '*') {
			precision = va_arg(ap, int);
			fmt += 2;
		}
		for (; *fmt == 'l' || *fmt == 'z'; fmt++)
			longs++;
		switch (*fmt) {
		case 's': {
			const char *s = va_arg(ap, const char *);
			if (!s)
				s = "(null)";
			put(&o, s, precision >= 0 ? strnlen(s, (size_t)precision) : strlen(s));
			break;
		}
		case 'c': {
			char c = (char)va_arg(ap, int);
			put(&o, &c, 1);
			break;
		}
		case 'd': {
			int64_t v = longs ? va_arg(ap, long) : va_arg(ap, int);
			if (v < 0)
				put(&o, "-", 1);
			put_number(&o, v < 0 ? 0 - (uint64_t)v : (uint64_t)v, 10);
			break;
		}
		case 'u':
		case 'x':
			put_number(&o, longs ? va_arg(ap, unsigned long) : va_arg(ap, unsigned),
				   *fmt == 'u' ? 10 : 16);
			break;
		case 'p':
			put(&o, "0x", 2);
			put_number(&o, (uintptr_t)va_arg(ap, void *), 16);
			break;
		default:
			put(&o, "%", 1);
		}
		if (!*fmt)
			break;
	}
	o.buf[o.at] = 0;
	return o.at;
}

size_t fmt_s(char *buf, size_t len, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	size_t n = fmt_v(buf, len, fmt, ap);
	va_end(ap);
	return n;
}
