/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tierstat prom: metrics in Prometheus' text format.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../common/address.h"
#include "../common/http.h"
#include "metrics.h"
#include "tool.h"

#define PORT "9464"

static void page(void *arg, FILE *f)
{
	metrics_write(arg, f);
}

static int serve(const struct options *opt)
{
	char host[NI_MAXHOST] = "", port[NI_MAXSERV] = "";
	struct addrinfo *at;
	const char *why;
	sigset_t signals;
	int sig, rc;

	if (!http_load(&why))
		return say(EXIT_WRONG, "--listen %s; --textfile needs nothing", why);
	at = address_find(opt->listen, PORT, 0, &why);
	if (!at)
		return say(EXIT_USAGE, "--listen %s: %s; write ADDRESS:PORT, as 127.0.0.1:%s",
			   opt->listen, why, PORT);
	/* before the server's thread is made, which inherits it */
	sigemptyset(&signals);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGTERM);
	pthread_sigmask(SIG_BLOCK, &signals, NULL);
	rc = http_open(at->ai_addr, "tierstat prom", page, (void *)(uintptr_t)opt, true);
	getnameinfo(at->ai_addr, at->ai_addrlen, host, sizeof(host), port, sizeof(port),
		    NI_NUMERICHOST | NI_NUMERICSERV);
	freeaddrinfo(at);
	if (rc)
		return say(EXIT_WRONG, "--listen %s: %s", opt->listen, strerror(-rc));
	say(0,
	    strchr(host, ':') ? "serving http://[%s]:%s/metrics" : "serving http://%s:%s/metrics",
	    host, port);
	sigwait(&signals, &sig);
	http_close();
	return 0;
}

/* Whole or not at all: the collector may read at any time. */
static int textfile(const struct options *opt)
{
	char tmp[4096];
	int status, fd;
	FILE *f;

	if (snprintf(tmp, sizeof(tmp), "%s.XXXXXX", opt->textfile) >= (int)sizeof(tmp))
		return say(EXIT_USAGE, "--textfile: the name is too long");
	fd = mkstemp(tmp);
	f = fd < 0 ? NULL : fdopen(fd, "w");
	if (!f)
		return say(EXIT_WRONG, "%s: %s", opt->textfile, strerror(errno));
	fchmod(fd, 0644);
	status = metrics_write(opt, f);
	if (ferror(f) | fclose(f) || rename(tmp, opt->textfile)) {
		status = say(EXIT_WRONG, "%s: %s", opt->textfile, strerror(errno));
		unlink(tmp);
	}
	return status;
}

int cmd_prom(const struct options *opt)
{
	if (opt->listen && opt->textfile)
		return say(EXIT_USAGE, "--listen or --textfile, not both");
	if (opt->listen)
		return serve(opt);
	return opt->textfile ? textfile(opt) : metrics_write(opt, stdout);
}
