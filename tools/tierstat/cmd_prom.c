/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tierstat prom: metrics in Prometheus' text format. Served by libmicrohttpd, which is loaded
 * only for that.
 */
#include <dlfcn.h>
#include <errno.h>
#include <microhttpd.h>
#include <netdb.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "metrics.h"
#include "tool.h"

#define PORT "9464"

static struct {
	struct MHD_Daemon *(*start)(unsigned flags, uint16_t port, MHD_AcceptPolicyCallback apc,
				    void *apc_cls, MHD_AccessHandlerCallback dh, void *dh_cls, ...);
	void (*stop)(struct MHD_Daemon *daemon);
	struct MHD_Response *(*response)(size_t size, void *data, enum MHD_ResponseMemoryMode mode);
	enum MHD_Result (*header)(struct MHD_Response *r, const char *name, const char *value);
	enum MHD_Result (*queue)(struct MHD_Connection *c, unsigned status, struct MHD_Response *r);
	void (*destroy)(struct MHD_Response *r);
} http;

static bool load_http(void)
{
	const struct {
		const char *name;
		void **to;
	} functions[] = {
		{ "MHD_start_daemon", (void **)&http.start },
		{ "MHD_stop_daemon", (void **)&http.stop },
		{ "MHD_create_response_from_buffer", (void **)&http.response },
		{ "MHD_add_response_header", (void **)&http.header },
		{ "MHD_queue_response", (void **)&http.queue },
		{ "MHD_destroy_response", (void **)&http.destroy },
	};
	void *dl = dlopen("libmicrohttpd.so.12", RTLD_NOW | RTLD_LOCAL);

	for (size_t i = 0; dl && i < sizeof(functions) / sizeof(functions[0]); i++) {
		*functions[i].to = dlsym(dl, functions[i].name);
		if (!*functions[i].to)
			dl = NULL;
	}
	return dl;
}

static enum MHD_Result answer(struct MHD_Connection *c, unsigned status, const char *type,
			      char *text, size_t len, enum MHD_ResponseMemoryMode mode)
{
	struct MHD_Response *r = http.response(len, text, mode);
	enum MHD_Result ok;

	if (!r) {
		if (mode == MHD_RESPMEM_MUST_FREE)
			free(text);
		return MHD_NO;
	}
	http.header(r, "Content-Type", type);
	ok = http.queue(c, status, r);
	http.destroy(r);
	return ok;
}

static enum MHD_Result say(struct MHD_Connection *c, unsigned status, const char *text)
{
	return answer(c, status, "text/plain; charset=utf-8", (char *)(uintptr_t)text, strlen(text),
		      MHD_RESPMEM_PERSISTENT);
}

static enum MHD_Result handle(void *cls, struct MHD_Connection *c, const char *url,
			      const char *method, const char *version, const char *upload,
			      size_t *upload_size, void **con_cls)
{
	static int seen;
	char *text = NULL;
	size_t len = 0;
	FILE *f;

	(void)version, (void)upload;
	/* one call before the body, one for each piece of it, one after it: there the answer is due
	 */
	if (!*con_cls || *upload_size) {
		*con_cls = &seen;
		*upload_size = 0;
		return MHD_YES;
	}
	if (strcmp(method, "GET") && strcmp(method, "HEAD"))
		return say(c, MHD_HTTP_METHOD_NOT_ALLOWED, "GET only\n");
	if (!strcmp(url, "/"))
		return say(c, MHD_HTTP_OK, "tierstat prom: see /metrics\n");
	if (strcmp(url, "/metrics"))
		return say(c, MHD_HTTP_NOT_FOUND, "there is /metrics\n");
	f = open_memstream(&text, &len);
	if (!f)
		return say(c, MHD_HTTP_INTERNAL_SERVER_ERROR, "out of memory\n");
	metrics_write(cls, f);
	if (fclose(f)) {
		free(text);
		return say(c, MHD_HTTP_INTERNAL_SERVER_ERROR, "out of memory\n");
	}
	return answer(c, MHD_HTTP_OK, "text/plain; version=0.0.4; charset=utf-8", text, len,
		      MHD_RESPMEM_MUST_FREE);
}

/* "9464", ":9464", "127.0.0.1:9464", "[::1]:9464", "host". A port alone is on the loopback. */
static struct addrinfo *address(const char *text)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE }, *found;
	char host[256], *port;
	int rc;

	snprintf(host, sizeof(host), "%s", text);
	port = strrchr(host, ':');
	if (strspn(host, "0123456789") == strlen(host)) {
		snprintf(host, sizeof(host), "127.0.0.1");
		port = (char *)(uintptr_t)text;
	} else if (port && port != host && strchr(host, ':') != port && host[0] != '[') {
		port = (char *)(uintptr_t)PORT; /* an IPv6 address without a port */
	} else if (port) {
		*port++ = '\0';
	} else {
		port = (char *)(uintptr_t)PORT;
	}
	if (host[0] == '[' && host[strlen(host) - 1] == ']') {
		host[strlen(host) - 1] = '\0';
		memmove(host, host + 1, strlen(host));
	}
	rc = getaddrinfo(host[0] ? host : NULL, port, &hints, &found);
	if (rc) {
		tool_fail(EXIT_USAGE, "--listen %s: %s; write ADDRESS:PORT, as 127.0.0.1:%s", text,
			  gai_strerror(rc), PORT);
		return NULL;
	}
	return found;
}

static int serve(const struct options *opt)
{
	struct addrinfo *at;
	struct MHD_Daemon *daemon;
	unsigned flags = MHD_USE_INTERNAL_POLLING_THREAD;
	sigset_t signals;
	int sig;

	if (!load_http())
		return tool_fail(EXIT_WRONG, "--listen needs libmicrohttpd.so.12 (Debian: "
					     "libmicrohttpd12); --textfile needs nothing");
	at = address(opt->listen);
	if (!at)
		return EXIT_USAGE;
	/* before the server's thread is made, which inherits it */
	sigemptyset(&signals);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGTERM);
	pthread_sigmask(SIG_BLOCK, &signals, NULL);
	if (at->ai_family == AF_INET6)
		flags |= MHD_USE_IPv6;
	daemon = http.start(flags, 0, NULL, NULL, handle, (void *)(uintptr_t)opt,
			    MHD_OPTION_SOCK_ADDR, at->ai_addr, MHD_OPTION_CONNECTION_TIMEOUT, 10u,
			    MHD_OPTION_CONNECTION_LIMIT, 32u, MHD_OPTION_END);
	freeaddrinfo(at);
	if (!daemon)
		return tool_fail(EXIT_WRONG, "--listen %s: %s", opt->listen, strerror(errno));
	fprintf(stderr, "tierstat: serving /metrics on %s\n", opt->listen);
	sigwait(&signals, &sig);
	http.stop(daemon);
	return 0;
}

/* Whole or not at all: the collector may read at any time. */
static int textfile(const struct options *opt)
{
	char tmp[4096];
	int status, fd;
	FILE *f;

	if (snprintf(tmp, sizeof(tmp), "%s.XXXXXX", opt->textfile) >= (int)sizeof(tmp))
		return tool_fail(EXIT_USAGE, "--textfile: the name is too long");
	fd = mkstemp(tmp);
	f = fd < 0 ? NULL : fdopen(fd, "w");
	if (!f)
		return tool_fail(EXIT_WRONG, "%s: %s", opt->textfile, strerror(errno));
	fchmod(fd, 0644);
	status = metrics_write(opt, f);
	if (ferror(f) | fclose(f) || rename(tmp, opt->textfile)) {
		status = tool_fail(EXIT_WRONG, "%s: %s", opt->textfile, strerror(errno));
		unlink(tmp);
	}
	return status;
}

int cmd_prom(const struct options *opt)
{
	if (opt->listen && opt->textfile)
		return tool_fail(EXIT_USAGE, "--listen or --textfile, not both");
	if (opt->listen)
		return serve(opt);
	return opt->textfile ? textfile(opt) : metrics_write(opt, stdout);
}
