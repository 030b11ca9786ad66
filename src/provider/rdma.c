/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rdma://HOST[:PORT][/]?size=SIZE&tenant=NAME&secret-file=PATH&path=HOST[:PORT]...&odp=on - memory
 * of an emfatierd as a far store, read and written by the network cards, by librdmacm and
 * libibverbs.
 *
 * The space is a lease (rdma/wire.h). Its key is made up here, and every connection names it: so
 * all queues find the same memory, those that are made anew, too. A connection for messages only
 * holds the lease from open to close, and gives it back then; a process that ends otherwise leaves
 * that to the server. When the server has ended the lease, or is another one, a new queue gets a
 * new lease, which is zero: what was stored is lost, as with any server that comes back empty.
 *
 * A fork shares nothing: connections are the parent's, whose cards know its memory.
 */
#define _GNU_SOURCE 1 /* syscall, for own.h */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "io.h"
#include "own.h"
#include "rdma/queue.h"
#include "rdma/resolve.h"
#include "uri.h"

#define NS_PER_MS 1000000ull
#define DEFAULT_TIMEOUT_MS 10000u
#define RELEASE_MS 1000u
#define MAX_LENGTH (1u << 30)

struct space {
	struct emf_backend be;
	struct path_terms terms;
	struct sockaddr_storage peer[QUEUE_PATHS];
	const char *host[QUEUE_PATHS]; /* into text, while opening */
	unsigned npeers;
	unsigned timeout_ms;
	uint64_t until; /* ns: that opening may last */
	int ready_fd;
	bool odp; /* wanted: never tried with a real card, so it has to be asked for */
	struct path control;
};

/* --- the URI --- */

static int malformed(char *err, size_t errlen, const char *what, const char *why)
{
	snprintf(err, errlen, "'%s': %s", what, why);
	return -EINVAL;
}

static int take_option(struct space *s, const char *key, char *value, const char **secret,
		       char *err, size_t errlen)
{
	if (!uri_decode(value))
		return malformed(err, errlen, value, "is not a value");
	if (!strcmp(key, "size")) {
		if (!uri_size(value, &s->terms.bytes) || s->terms.bytes < WIRE_MIN_SLAB)
			return malformed(err, errlen, value, "is not a size of 2M and more");
	} else if (!strcmp(key, "tenant")) {
		if (!wire_is_name(value))
			return malformed(err, errlen, value, "is not a tenant's name");
		memset(s->terms.tenant, 0, WIRE_NAME);
		memcpy(s->terms.tenant, value, strlen(value));
	} else if (!strcmp(key, "secret-file")) {
		*secret = value;
	} else if (!strcmp(key, "odp")) {
		if (strcmp(value, "on") && strcmp(value, "off"))
			return malformed(err, errlen, value, "is not on or off");
		s->odp = !strcmp(value, "on");
	} else if (!strcmp(key, "path")) {
		if (s->npeers == QUEUE_PATHS)
			return malformed(err, errlen, value, "is one path too many");
		s->host[s->npeers++] = value;
	} else {
		return malformed(err, errlen, key,
				 "rdma:// has size=, tenant=, secret-file=, path= and odp=");
	}
	return 0;
}

static int read_secret(struct space *s, const char *file, char *err, size_t errlen)
{
	char why[128];
	int rc;

	/* The store is opened when memory gets short: wherever the program is by then. */
	if (file[0] != '/')
		return malformed(err, errlen, file, "the secret's file needs an absolute path");
	rc = auth_read(file, &s->terms.secret, why, sizeof(why));
	if (rc)
		snprintf(err, errlen, "secret-file %s: %s", file, why);
	return rc;
}

static int parse(struct space *s, char *text, char *err, size_t errlen)
{
	const char *secret = NULL;
	char *query = text + strlen("rdma://"), *host = strsep(&query, "?"), *slash, *key, *value;
	uint64_t now;
	int rc = 0;

	slash = strchr(host, '/');
	if (slash && slash[1])
		return malformed(err, errlen, slash + 1, "a path has no meaning here");
	if (slash)
		*slash = '\0';
	memcpy(s->terms.tenant, "default", sizeof("default"));
	s->host[s->npeers++] = host;
	while (!rc && uri_query_next(&query, &key, &value))
		rc = take_option(s, key, value, &secret, err, errlen);
	if (!rc && secret)
		rc = read_secret(s, secret, err, errlen);
	for (unsigned i = 0; i < s->npeers && !rc; i++) {
		now = queue_now();
		rc = resolve(s->host[i], now < s->until ? (s->until - now) / NS_PER_MS : 0,
			     &s->peer[i], err, errlen);
	}
	return rc;
}

/* --- the space --- */

static int space_queue_open(struct emf_backend *be, enum emf_queue_kind kind, unsigned depth,
			    struct emf_queue **out)
{
	struct space *s = (struct space *)be;
	struct queue_options o = {
		.terms = &s->terms,
		.peer = s->peer,
		.npeers = s->npeers,
		.size = be->size,
		.kind = kind,
		.depth = depth,
		.timeout = s->timeout_ms * NS_PER_MS,
		.ready_fd = s->ready_fd,
	};

	/* As for nbd:, a part of the time must do: others wait for the thread that opens it. */
	return queue_open(&o, s->timeout_ms / 4 + 1, out);
}

/* True: the server has answered. */
static bool give_back(struct space *s, bool anew)
{
	uint64_t until = queue_now() + RELEASE_MS * NS_PER_MS;

	if (anew) {
		path_start(&s->control);
		if (queue_wait(&s->control, PATH_READY, until))
			return false;
	}
	path_release(&s->control);
	return !queue_wait(&s->control, PATH_RELEASED, until);
}

/* Where the network has failed the server may have forgotten a connection that looks well here. */
static void release(struct space *s)
{
	path_step(&s->control);
	if (s->control.state != PATH_READY || !give_back(s, false))
		(void)give_back(s, true);
}

static void space_free(struct space *s)
{
	if (s->control.memory)
		path_free(&s->control);
	if (s->ready_fd >= 0)
		close(s->ready_fd);
	auth_forget(&s->terms.secret);
	own_free(s, sizeof(*s));
}

static void space_close(struct emf_backend *be)
{
	struct space *s = (struct space *)be;

	release(s);
	space_free(s);
}

static int space_descriptors(const struct emf_backend *be, int *fds, int max)
{
	(void)be, (void)fds, (void)max;
	return -ENOTSUP;
}

static int space_forked(struct emf_backend *be, const int *fds)
{
	(void)be, (void)fds;
	return -ENOTSUP;
}

static void space_memory(struct emf_backend *be, const void *base, size_t length)
{
	struct space *s = (struct space *)be;

	if (!s->odp)
		return;
	s->terms.frames = base;
	s->terms.frames_bytes = length;
}

static const struct emf_backend_ops backend_ops = {
	.memory = space_memory,
	.queue_open = space_queue_open,
	.close = space_close,
	.descriptors = space_descriptors,
	.forked = space_forked,
};

/* The first way that leads to the server. */
static int take_lease(struct space *s, char *err, size_t errlen)
{
	int rc = -ENOENT;

	for (unsigned i = 0; i < s->npeers; i++) {
		uint64_t now = queue_now(), left = now < s->until ? s->until - now : 0;

		if (i && !left)
			break;
		rc = path_init(&s->control, &s->terms, &s->peer[i], 0, 0);
		if (rc)
			return rc;
		path_start(&s->control);
		rc = queue_wait(&s->control, PATH_READY, now + left / (s->npeers - i));
		if (!rc)
			return 0;
		if (rc == -ETIMEDOUT)
			snprintf(err, errlen, "no answer in time");
		else
			path_why(&s->control, err, errlen);
		path_free(&s->control);
	}
	return rc;
}

static int space_open(const char *uri, unsigned timeout_ms, struct emf_backend **out, char *err,
		      size_t errlen)
{
	struct space *s = own_alloc(sizeof(*s));
	char *text = strdup(uri);
	int rc = s && text ? 0 : -ENOMEM;

	if (rc) {
		free(text);
		own_free(s, sizeof(*s));
		return rc;
	}
	own_keep_secret(s, sizeof(*s));
	s->timeout_ms = timeout_ms ? timeout_ms : DEFAULT_TIMEOUT_MS;
	s->until = queue_now() + s->timeout_ms * NS_PER_MS;
	s->ready_fd = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
	if (s->ready_fd < 0 || auth_nonce(s->terms.key, WIRE_KEY))
		rc = -EIO;
	if (!rc)
		rc = strncmp(uri, "rdma://", 7) ? malformed(err, errlen, uri, "write rdma://HOST")
						: parse(s, text, err, errlen);
	if (!rc)
		rc = cm_load(err, errlen);
	if (!rc)
		rc = take_lease(s, err, errlen);
	free(text);
	if (rc) {
		space_free(s);
		return rc;
	}
	/* From now on exactly this, or nothing. */
	s->terms.bytes = s->control.bytes;
	s->be.ops = &backend_ops;
	s->be.size = s->control.bytes;
	s->be.caps = EMF_CAP_MALLOC | EMF_CAP_CUTS | EMF_CAP_CONNECTS;
	s->be.max_length = MAX_LENGTH;
	*out = &s->be;
	return 0;
}

__attribute__((visibility("default"))) const struct emf_provider emf_provider = {
	.abi = EMF_PROVIDER_ABI,
	.name = "rdma",
	.open = space_open,
};
