/* SPDX-License-Identifier: Apache-2.0 */
#include "text.h"

#include <inttypes.h>
#include <langinfo.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* At most 5 characters: 0, 940, 1.5K, 64K, 31.2M, 1023G. */
static const char *human(uint64_t n, unsigned base, char *out, size_t len)
{
	static const char units[] = " KMGTPE";
	double v = (double)n;
	unsigned u = 0;

	while (v >= (double)base - 0.5 && u < 6) {
		v /= base;
		u++;
	}
	if (!u)
		snprintf(out, len, "%" PRIu64, n);
	else
		snprintf(out, len, "%.*f%c", v < 99.95 ? 1 : 0, v, units[u]);
	return out;
}

bool text_exact;

const char *text_size(uint64_t bytes, char *out)
{
	if (text_exact) {
		snprintf(out, TEXT_NUMBER, "%" PRIu64, bytes);
		return out;
	}
	return human(bytes, 1024, out, TEXT_NUMBER);
}

const char *text_count(uint64_t n, char *out)
{
	return human(n, 1000, out, TEXT_NUMBER);
}

const char *text_mode(uint32_t mode)
{
	return mode == EMF_MODE_IDLE	 ? "idle"
	       : mode == EMF_MODE_THREAD ? "thread"
	       : mode == EMF_MODE_SIGNAL ? "signal"
					 : "unmanaged";
}

const char *text_store_state(uint32_t state)
{
	static const char *const names[] = {
		[EMF_STORE_OK] = "ok",
		[EMF_STORE_FULL] = "full",
		[EMF_STORE_DOWN] = "down",
		[EMF_STORE_REBUILDING] = "rebuilding",
		[EMF_STORE_DEGRADED] = "degraded",
		[EMF_STORE_DRAINING] = "draining",
		[EMF_STORE_DRAINED] = "drained",
	};

	return state < sizeof(names) / sizeof(names[0]) ? names[state] : "unknown";
}

const char *text_stores(const struct emf_stats *s)
{
	static const uint32_t worst_first[] = { EMF_STORE_DOWN, EMF_STORE_DEGRADED, EMF_STORE_FULL,
						EMF_STORE_DRAINING, EMF_STORE_REBUILDING };

	for (size_t k = 0; k < sizeof(worst_first) / sizeof(worst_first[0]); k++)
		for (unsigned i = 0; i < s->nstores; i++)
			if (s->store[i].state == worst_first[k])
				return text_store_state(worst_first[k]);
	return s->nstores ? "ok" : "-";
}

const char *text_time(uint64_t ns, char *out)
{
	double s = (double)ns / 1e9;

	if (!ns)
		snprintf(out, TEXT_NUMBER, "0");
	else if (s < 0.0009995)
		snprintf(out, TEXT_NUMBER, "%.0fus", s * 1e6);
	else if (s < 0.9995)
		snprintf(out, TEXT_NUMBER, "%.0fms", s * 1000);
	else if (s < 600)
		snprintf(out, TEXT_NUMBER, "%.1fs", s);
	else if (s < 36000)
		snprintf(out, TEXT_NUMBER, "%.0fm", s / 60);
	else
		snprintf(out, TEXT_NUMBER, "%.0fh", s / 3600);
	return out;
}

const char *text_printable(const char *text, char *out, size_t len)
{
	size_t n = 0;

	for (; text[n] && n + 1 < len; n++)
		out[n] = text[n] >= ' ' && text[n] <= '~' ? text[n] : '?';
	out[n] = '\0';
	return out;
}

bool text_colour(void)
{
	const char *no = getenv("NO_COLOR"), *term = getenv("TERM");

	return isatty(STDOUT_FILENO) && !(no && *no) && term && strcmp(term, "dumb");
}

bool text_utf8(void)
{
	return !strcmp(nl_langinfo(CODESET), "UTF-8");
}
