/* SPDX-License-Identifier: Apache-2.0 */
#include "record.h"

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define MAGIC 0x31636572666d65ull /* "emfrec1" */
#define WORDS (offsetof(struct emf_stats, history_count) / sizeof(uint64_t))
#define PAYLOAD_MAX (WORDS * 20)

struct head {
	uint64_t magic;
	uint32_t version, words;
};

struct entry {
	uint64_t time_ns; /* CLOCK_REALTIME */
	uint32_t pid, bytes;
};

/* The last reading of a process. */
struct last {
	struct last *next;
	uint32_t pid;
	uint64_t word[WORDS];
};

struct record {
	FILE *f;
	struct last *last;
	unsigned char payload[PAYLOAD_MAX];
};

static int begin(const char *file, const char *mode, struct record **out)
{
	struct record *r = calloc(1, sizeof(*r));

	if (!r)
		return -ENOMEM;
	r->f = fopen(file, mode);
	if (!r->f) {
		int err = errno;

		free(r);
		return -err;
	}
	*out = r;
	return 0;
}

int record_create(const char *file, struct record **out)
{
	struct head h = { MAGIC, EMF_STATS_VERSION, WORDS };
	int rc = begin(file, "we", out);

	if (!rc && fwrite(&h, sizeof(h), 1, (*out)->f) != 1) {
		rc = -errno;
		record_close(*out);
	}
	return rc;
}

int record_open(const char *file, struct record **out)
{
	struct head h;
	int rc = begin(file, "re", out);

	if (rc)
		return rc;
	if (fread(&h, sizeof(h), 1, (*out)->f) == 1 && h.magic == MAGIC &&
	    h.version == EMF_STATS_VERSION && h.words == WORDS)
		return 0;
	record_close(*out);
	return -EPROTO;
}

static struct last *last_of(struct record *r, uint32_t pid)
{
	struct last *l;

	for (l = r->last; l; l = l->next) {
		if (l->pid == pid)
			return l;
	}
	l = calloc(1, sizeof(*l));
	if (l) {
		l->pid = pid;
		l->next = r->last;
		r->last = l;
	}
	return l;
}

static unsigned char *put(unsigned char *p, uint64_t v)
{
	for (; v >= 128; v >>= 7)
		*p++ = (unsigned char)(v | 128);
	*p++ = (unsigned char)v;
	return p;
}

/* False: it does not end before `end`. */
static bool get(const unsigned char **p, const unsigned char *end, uint64_t *v)
{
	*v = 0;
	for (unsigned shift = 0; *p < end && shift < 64; shift += 7) {
		unsigned char byte = *(*p)++;

		*v |= (uint64_t)(byte & 127) << shift;
		if (byte < 128)
			return true;
	}
	return false;
}

int record_add(struct record *r, uint64_t time_ns, const struct emf_stats *s)
{
	struct entry e = { .time_ns = time_ns, .pid = s->pid };
	struct last *l = last_of(r, s->pid);
	const uint64_t *word = (const uint64_t *)s;
	unsigned char *p = r->payload;
	size_t before = 0;

	if (!l)
		return -ENOMEM;
	for (size_t i = 0; i < WORDS; i++) {
		uint64_t delta = word[i] - l->word[i];

		if (!delta)
			continue;
		p = put(p, i - before);
		/* small ones of either sign are short */
		p = put(p, delta << 1 ^ (delta >> 63 ? UINT64_MAX : 0));
		before = i;
		l->word[i] = word[i];
	}
	e.bytes = (uint32_t)(p - r->payload);
	if (fwrite(&e, sizeof(e), 1, r->f) != 1 ||
	    (e.bytes && fwrite(r->payload, e.bytes, 1, r->f) != 1) || fflush(r->f))
		return -errno;
	return 0;
}

int record_next(struct record *r, uint64_t *time_ns, struct emf_stats *s)
{
	const unsigned char *p = r->payload;
	struct entry e;
	struct last *l;
	size_t at = 0;

	/* the last one may have been cut short by whatever ended the recording */
	if (fread(&e, sizeof(e), 1, r->f) != 1)
		return ferror(r->f) ? -EIO : 0;
	if (e.bytes > PAYLOAD_MAX)
		return -EPROTO;
	if (e.bytes && fread(r->payload, e.bytes, 1, r->f) != 1)
		return ferror(r->f) ? -EIO : 0;
	l = last_of(r, e.pid);
	if (!l)
		return -ENOMEM;
	while (p < r->payload + e.bytes) {
		uint64_t gap, delta;

		if (!get(&p, r->payload + e.bytes, &gap) ||
		    !get(&p, r->payload + e.bytes, &delta) || gap >= WORDS - at)
			return -EPROTO;
		at += gap;
		l->word[at] += delta >> 1 ^ -(delta & 1);
	}
	memset(s, 0, sizeof(*s));
	memcpy(s, l->word, sizeof(l->word));
	*time_ns = e.time_ns;
	/* a file from somewhere: nothing in it may lead out of its tables */
	if (s->nstores > EMF_STATS_STORES || s->pid != e.pid)
		return -EPROTO;
	s->command[sizeof(s->command) - 1] = '\0';
	for (unsigned i = 0; i < EMF_STATS_STORES; i++)
		s->store[i].uri[sizeof(s->store[i].uri) - 1] = '\0';
	return 1;
}

int record_close(struct record *r)
{
	int rc = fclose(r->f) ? -errno : 0;

	while (r->last) {
		struct last *next = r->last->next;

		free(r->last);
		r->last = next;
	}
	free(r);
	return rc;
}
