/* SPDX-License-Identifier: Apache-2.0 */
#include "inject.h"

#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../provider/uri.h"
#include "queue.h"

struct inject_link {
	struct emf_backend be;
	struct emf_backend *next;
	struct inject what;
	_Atomic uint64_t random;
};

struct inject_io {
	struct emf_io low; /* first: lists are of these */
	struct emf_io *up;
	struct inject_queue *iq;
	uint64_t due; /* ns */
	int status;
	bool corrupt;
};

struct inject_queue {
	struct emf_queue q;
	struct inject_link *link;
	struct emf_queue *next;
	struct timer timer;
	bool closing, cut;
	struct io_list idle, todo; /* todo: not to be done before their time, or ended already */
	struct io_list stuck;
	struct inject_io io[];
};

/* --- settings --- */

static bool probability(const char *text, double *out)
{
	char *end;

	if (*text < '0' || *text > '9')
		return false;
	*out = strtod(text, &end);
	return !*end && *out >= 0 && *out <= 1;
}

static bool parse_item(char *item, struct inject *out)
{
	static const char *const kind[] = { "error", "full", "corrupt", "cut", "stuck", "late" };
	char *value = strchr(item, '='), *end;

	if (!value)
		return false;
	*value++ = '\0';
	if (!strcmp(item, "delay"))
		return uri_duration(value, &out->delay);
	if (!strcmp(item, "seed")) {
		out->seed = strtoull(value, &end, 10);
		return *value && !*end;
	}
	for (unsigned i = 0; i < INJECT_KINDS; i++)
		if (!strcmp(item, kind[i]))
			return probability(value, &out->p[i]);
	return false;
}

bool inject_parse(const char *text, unsigned member, struct inject *out, char *why, size_t len)
{
	char item[64];

	*out = (struct inject){ .seed = 1 };
	out->p[INJECT_LATE] = 1;
	for (size_t n; *text; text += n + (text[n] == ',')) {
		struct inject other = { 0 };
		struct inject *to = out;
		char *at = item, *colon;

		n = strcspn(text, ",");
		if (n >= sizeof(item)) {
			snprintf(why, len, "'%.40s...' is too long", text);
			return false;
		}
		memcpy(item, text, n);
		item[n] = '\0';
		colon = strchr(item, ':');
		if (colon) {
			char *end;
			unsigned long which = strtoul(item, &end, 10);

			if (end != colon || !which)
				goto bad;
			if (which != member + 1)
				to = &other;
			at = colon + 1;
		}
		if (!parse_item(at, to))
			goto bad;
		if (to == out)
			out->any = true;
		continue;
	bad:
		snprintf(
		    why, len,
		    "'%.*s' is no fault; write [MEMBER:]KIND=VALUE,..., kinds are error, full, "
		    "corrupt, cut, stuck, late (0 to 1), delay (5ms), seed",
		    (int)n, text);
		return false;
	}
	return true;
}

/* --- transfers --- */

static bool happens(struct inject_link *l, enum inject_kind kind)
{
	/* Weyl sequence and a mix: any number of threads, no order between them. */
	uint64_t x = atomic_fetch_add(&l->random, 0x9e3779b97f4a7c15u);

	if (!l->what.p[kind])
		return false;
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
	x = (x ^ x >> 27) * 0x94d049bb133111ebu;
	x ^= x >> 31;
	return (double)(x >> 11) / (double)(1ull << 53) < l->what.p[kind];
}

static void end(struct inject_io *ii, int status)
{
	struct inject_queue *iq = ii->iq;
	struct emf_io *up = ii->up;

	if (ii->corrupt && !status)
		((unsigned char *)up->buf)[up->length / 2 + 11] ^= 4;
	io_push(&iq->idle, &ii->low);
	io_end(&iq->q, up, status);
}

static void low_done(struct emf_io *low)
{
	end((struct inject_io *)low, low->status);
}

static int inject_submit(struct emf_queue *q, struct emf_io *io)
{
	struct inject_queue *iq = (struct inject_queue *)q;
	struct inject_link *l = iq->link;
	struct inject_io *ii = iq->closing ? NULL : (struct inject_io *)io_pop(&iq->idle);

	if (!ii)
		return -EAGAIN;
	*ii = (struct inject_io){
		.low = { .op = io->op,
			 .offset = io->offset,
			 .length = io->length,
			 .buf = io->buf,
			 .done = low_done },
		.up = io,
		.iq = iq,
	};
	iq->cut |= happens(l, INJECT_CUT);
	if (iq->cut)
		ii->status = -ENOTCONN;
	else if (happens(l, INJECT_ERROR))
		ii->status = -EIO;
	else if (io->op == EMF_WRITE && happens(l, INJECT_FULL))
		ii->status = -ENOSPC;
	ii->corrupt = io->op == EMF_READ && happens(l, INJECT_CORRUPT);
	if (l->what.delay && happens(l, INJECT_LATE))
		ii->due = timer_now() + l->what.delay;
	q->inflight++;
	if (!iq->cut && happens(l, INJECT_STUCK))
		io_push(&iq->stuck, &ii->low);
	else
		io_push(&iq->todo, &ii->low);
	return 0;
}

static int do_due(struct inject_queue *iq)
{
	struct io_list all = io_take(&iq->todo);
	uint64_t now = timer_now();
	struct emf_io *low;
	int ended = 0;

	while ((low = io_pop(&all))) {
		struct inject_io *ii = (struct inject_io *)low;

		if (ii->due <= now && ii->status) {
			end(ii, ii->status);
			ended++;
		} else if (ii->due > now || iq->next->ops->submit(iq->next, low)) {
			io_push(&iq->todo, low);
		}
	}
	return ended;
}

static int inject_poll(struct emf_queue *q)
{
	struct inject_queue *iq = (struct inject_queue *)q;
	int n = do_due(iq);

	return n + iq->next->ops->poll(iq->next);
}

static int inject_pollfds(struct emf_queue *q, struct pollfd *fds, int max)
{
	struct inject_queue *iq = (struct inject_queue *)q;
	uint64_t due = UINT64_MAX;
	int n = 0;

	if (!q->inflight || max < 1)
		return 0;
	for (const struct emf_io *low = iq->todo.head; low; low = low->next)
		if (((const struct inject_io *)low)->due < due)
			due = ((const struct inject_io *)low)->due;
	/* Also to be handed over at once: due is 0 then. */
	timer_set(&iq->timer, iq->todo.head ? due + 1 : UINT64_MAX >> 2);
	fds[n++] = (struct pollfd){ .fd = iq->timer.fd, .events = POLLIN };
	if (iq->next->inflight && n < max)
		n += iq->next->ops->pollfds(iq->next, fds + n, max - n);
	return n;
}

static void inject_queue_close(struct emf_queue *q)
{
	struct inject_queue *iq = (struct inject_queue *)q;
	struct emf_io *low;

	iq->closing = true;
	iq->next->ops->close(iq->next);
	while ((low = io_pop(&iq->todo)) || (low = io_pop(&iq->stuck)))
		end((struct inject_io *)low, -ECANCELED);
	close(iq->timer.fd);
	store_free(iq);
}

static const struct emf_queue_ops queue_ops = {
	.submit = inject_submit,
	.poll = inject_poll,
	.pollfds = inject_pollfds,
	.close = inject_queue_close,
};

static int inject_queue_open(struct emf_backend *be, enum emf_queue_kind kind, unsigned depth,
			     struct emf_queue **out)
{
	struct inject_link *l = (struct inject_link *)be;
	struct inject_queue *iq;
	int rc;

	iq =
	    queue_alloc(sizeof(*iq), sizeof(iq->io[0]), depth, offsetof(struct inject_queue, idle));
	if (!iq)
		return -ENOMEM;
	rc = queue_open_timed(l->next, kind, depth, &iq->timer, &iq->next);
	if (rc) {
		store_free(iq);
		return rc;
	}
	iq->q.ops = &queue_ops;
	iq->link = l;
	*out = &iq->q;
	return 0;
}

static void inject_close(struct emf_backend *be)
{
	store_free(be);
}

static const struct emf_backend_ops backend_ops = {
	.queue_open = inject_queue_open,
	.close = inject_close,
};

int inject_open(struct emf_backend *next, const struct inject *what, struct emf_backend **out)
{
	struct inject_link *l = store_alloc(1, sizeof(*l));

	if (!l)
		return -ENOMEM;
	l->next = next;
	l->what = *what;
	l->random = what->seed * 0x2545f4914f6cdd1du;
	l->be = backend_like(next, &backend_ops);
	l->be.caps &= ~(uint32_t)(EMF_CAP_SYNC | EMF_CAP_BYTES);
	*out = &l->be;
	return 0;
}
