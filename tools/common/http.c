/* SPDX-License-Identifier: Apache-2.0 */
#include "http.h"

#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <microhttpd.h>
#include <stdlib.h>
#include <string.h>

static struct {
	struct MHD_Daemon *(*start)(unsigned flags, uint16_t port, MHD_AcceptPolicyCallback apc,
				    void *apc_cls, MHD_AccessHandlerCallback dh, void *dh_cls, ...);
	void (*stop)(struct MHD_Daemon *daemon);
	enum MHD_Result (*run)(struct MHD_Daemon *daemon);
	enum MHD_Result (*timeout)(struct MHD_Daemon *daemon, MHD_UNSIGNED_LONG_LONG *ms);
	const union MHD_DaemonInfo *(*info)(struct MHD_Daemon *daemon, enum MHD_DaemonInfoType what,
					    ...);
	struct MHD_Response *(*response)(size_t size, void *data, enum MHD_ResponseMemoryMode mode);
	enum MHD_Result (*header)(struct MHD_Response *r, const char *name, const char *value);
	enum MHD_Result (*queue)(struct MHD_Connection *c, unsigned status, struct MHD_Response *r);
	void (*destroy)(struct MHD_Response *r);
	struct MHD_Daemon *daemon;
	char who[64];
	void (*page)(void *arg, FILE *f);
	void *arg;
} http;

bool http_load(const char **why)
{
	const struct {
		const char *name;
		void **to;
	} functions[] = {
		{ "MHD_start_daemon", (void **)&http.start },
		{ "MHD_stop_daemon", (void **)&http.stop },
		{ "MHD_run", (void **)&http.run },
		{ "MHD_get_timeout", (void **)&http.timeout },
		{ "MHD_get_daemon_info", (void **)&http.info },
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
	*why = "needs libmicrohttpd.so.12 (Debian: libmicrohttpd12)";
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

	(void)cls, (void)version, (void)upload;
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
		return say(c, MHD_HTTP_OK, http.who);
	if (strcmp(url, "/metrics"))
		return say(c, MHD_HTTP_NOT_FOUND, "there is /metrics\n");
	f = open_memstream(&text, &len);
	if (!f)
		return say(c, MHD_HTTP_INTERNAL_SERVER_ERROR, "out of memory\n");
	http.page(http.arg, f);
	if (fclose(f)) {
		free(text);
		return say(c, MHD_HTTP_INTERNAL_SERVER_ERROR, "out of memory\n");
	}
	return answer(c, MHD_HTTP_OK, "text/plain; version=0.0.4; charset=utf-8", text, len,
		      MHD_RESPMEM_MUST_FREE);
}

int http_open(const struct sockaddr *at, const char *who, void (*page)(void *arg, FILE *f),
	      void *arg, bool thread)
{
	unsigned flags = thread ? MHD_USE_INTERNAL_POLLING_THREAD : MHD_USE_EPOLL;

	if (at->sa_family == AF_INET6)
		flags |= MHD_USE_IPv6;
	snprintf(http.who, sizeof(http.who), "%s: see /metrics\n", who);
	http.page = page;
	http.arg = arg;
	http.daemon = http.start(flags, 0, NULL, NULL, handle, NULL, MHD_OPTION_SOCK_ADDR, at,
				 MHD_OPTION_CONNECTION_TIMEOUT, 10u, MHD_OPTION_CONNECTION_LIMIT,
				 32u, MHD_OPTION_END);
	return http.daemon ? 0 : errno ? -errno : -EIO;
}

int http_fd(void)
{
	const union MHD_DaemonInfo *info = http.info(http.daemon, MHD_DAEMON_INFO_EPOLL_FD);

	return info ? info->epoll_fd : -1;
}

int http_timeout(void)
{
	MHD_UNSIGNED_LONG_LONG ms;

	if (http.timeout(http.daemon, &ms) != MHD_YES)
		return -1;
	return ms < INT_MAX ? (int)ms : INT_MAX;
}

void http_work(void)
{
	http.run(http.daemon);
}

void http_close(void)
{
	http.stop(http.daemon);
}
