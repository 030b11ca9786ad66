/* SPDX-License-Identifier: Apache-2.0 */
#include "options.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../common/address.h"
#include "../common/say.h"
#include "parse.h"
#include "sandbox.h"

#define TEXT(x) #x
#define NUMBER(x) TEXT(x)
#define PORT NUMBER(WIRE_PORT)
#define METRICS_PORT "9465"

static const char help[] =
    "usage: emfatierd --size SIZE [OPTION]...\n"
    "Lends memory of this machine to emfatier on others (store rdma://HOST).\n"
    "\n"
    "  --listen ADDR[:PORT]   where; may be repeated (127.0.0.1:" PORT ")\n"
    "  --size SIZE            how much memory\n"
    "  --node N               of this NUMA node\n"
    "  --dax DEVICE           of this DAX device, all of it without --size\n"
    "  --secret-file FILE     its first line is the secret that clients must know\n"
    "  --tenant NAME=SIZE[,FILE]  may lease so much; FILE: a secret of its own\n"
    "  --lease TIME           that a client which is gone keeps its memory (15s)\n"
    "  --drain TIME           that SIGTERM waits for leases to end (30s)\n"
    "  --metrics [ADDR:]PORT  serve /metrics for Prometheus\n"
    "  --user NAME            to run as when started by root (nobody)\n"
    "  -h, --help             this\n"
    "  --version\n";

/* The text of a wrong value is not a secret: secrets are in files. */
static int wrong(const char *option, const char *value, const char *why)
{
	return say(EXIT_USAGE, "%s %s: %s", option, value, why);
}

static int add_listen(struct options *o, const char *text)
{
	const char *why;

	if (o->nlisten == OPTIONS_LISTEN)
		return wrong("--listen", text, "is one too many");
	o->listen[o->nlisten] = address_find(text, PORT, AI_NUMERICHOST | AI_NUMERICSERV, &why);
	if (!o->listen[o->nlisten])
		return wrong("--listen", text,
			     "write an ADDRESS:PORT in numbers, as 10.0.0.1:" PORT);
	o->listen_text[o->nlisten++] = text;
	return -1;
}

static int read_secret(const char *option, const char *path, struct secret *out)
{
	char why[128];

	return auth_read(path, out, why, sizeof(why)) ? wrong(option, path, why) : -1;
}

/* NAME=SIZE[,FILE] */
static int add_tenant(struct options *o, char *text)
{
	struct tenant *t = &o->tenant[o->ntenants];
	char *rest = text, *name = strsep(&rest, "="), *size = strsep(&rest, ",");

	if (o->ntenants == LEASE_TENANTS)
		return wrong("--tenant", name, "is one too many");
	if (!wire_is_name(name))
		return wrong("--tenant", name, "a name has up to 31 letters, digits and ._-");
	for (uint32_t i = 0; i < o->ntenants; i++)
		if (!strcmp(o->tenant[i].name, name))
			return wrong("--tenant", name, "is named twice");
	if (!size || !parse_size(size, &t->quota) || !t->quota)
		return wrong("--tenant", name, "write NAME=SIZE, as alice=64G");
	snprintf(t->name, sizeof(t->name), "%s", name);
	o->ntenants++;
	return rest ? read_secret("--tenant", rest, &t->secret) : -1;
}

static int set_node(struct options *o, const char *text)
{
	uint64_t v;

	if (!parse_uint(text, &v) || v >= 1024)
		return wrong("--node", text, "is not a node's number");
	o->pool.node = (int)v;
	return -1;
}

static int set_size(struct options *o, const char *text)
{
	if (!parse_size(text, &o->pool.size) || o->pool.size < WIRE_MIN_SLAB ||
	    o->pool.size > WIRE_MAX_SLAB * 64)
		return wrong("--size", text, "is not a size of 2M and more");
	return -1;
}

static int set_time(const char *option, const char *text, unsigned *out)
{
	if (!parse_duration(text, out) || *out < 100 || *out > 24u * 3600 * 1000)
		return wrong(option, text, "is not a time from 100ms to 1440m, as 15s");
	return -1;
}

static int set_metrics(struct options *o, const char *text)
{
	const char *why;

	o->metrics = address_find(text, METRICS_PORT, AI_NUMERICHOST | AI_NUMERICSERV, &why);
	return o->metrics ? -1 : wrong("--metrics", text, "write an ADDRESS:PORT in numbers");
}

enum { LISTEN = 256, SIZE, NODE, DAX, SECRET, TENANT, LEASE, DRAIN, METRICS, USER, VERSION };

static int take(struct options *o, int option, char *value, struct secret *shared)
{
	switch (option) {
	case LISTEN:
		return add_listen(o, value);
	case SIZE:
		return set_size(o, value);
	case NODE:
		return set_node(o, value);
	case DAX:
		o->pool.dax = value;
		return -1;
	case SECRET:
		return read_secret("--secret-file", value, shared);
	case TENANT:
		return add_tenant(o, value);
	case LEASE:
		return set_time("--lease", value, &o->lease_ms);
	case DRAIN:
		return set_time("--drain", value, &o->drain_ms);
	case METRICS:
		return set_metrics(o, value);
	case USER:
		o->user = value;
		return -1;
	case VERSION:
		puts("emfatierd " EMFATIER_VERSION);
		return 0;
	case 'h':
		fputs(help, stdout);
		return 0;
	default:
		return say(EXIT_USAGE,
			   "unknown option, or one without its value (emfatierd --help)");
	}
}

/* What only the whole shows. */
static int check(struct options *o, const struct secret *shared)
{
	uint32_t with = 0;

	if (!o->pool.size && !o->pool.dax)
		return say(EXIT_USAGE, "say how much memory to lend: --size SIZE, or --dax DEVICE");
	if (o->pool.dax && o->pool.node >= 0)
		return say(EXIT_USAGE, "--node or --dax, not both");
	if (sandbox_refuses(o->user))
		return wrong("--user", o->user, sandbox_refuses(o->user));
	if (!o->nlisten && add_listen(o, "127.0.0.1:" PORT) >= 0)
		return EXIT_USAGE;
	if (!o->ntenants)
		o->tenant[o->ntenants++] =
		    (struct tenant){ .name = "default", .quota = UINT64_MAX };
	for (uint32_t i = 0; i < o->ntenants; i++) {
		if (!o->tenant[i].secret.length)
			o->tenant[i].secret = *shared;
		with += o->tenant[i].secret.length > 0;
	}
	if (with && with < o->ntenants)
		return say(EXIT_USAGE, "all tenants need a secret, or none: give --secret-file");
	for (unsigned i = 0; i < o->nlisten && !with; i++)
		if (!address_is_loopback(o->listen[i]->ai_addr))
			return wrong("--listen", o->listen_text[i],
				     "others could reach it: give --secret-file");
	return -1;
}

int options_parse(struct options *o, int argc, char **argv)
{
	static const struct option known[] = {
		{ "listen", required_argument, NULL, LISTEN },
		{ "size", required_argument, NULL, SIZE },
		{ "node", required_argument, NULL, NODE },
		{ "dax", required_argument, NULL, DAX },
		{ "secret-file", required_argument, NULL, SECRET },
		{ "tenant", required_argument, NULL, TENANT },
		{ "lease", required_argument, NULL, LEASE },
		{ "drain", required_argument, NULL, DRAIN },
		{ "metrics", required_argument, NULL, METRICS },
		{ "user", required_argument, NULL, USER },
		{ "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, VERSION },
		{ 0 },
	};
	struct secret shared = { 0 };
	int c, status = -1;

	*o = (struct options){
		.pool.node = -1, .user = "nobody", .lease_ms = 15000, .drain_ms = 30000
	};
	opterr = 0;
	while (status < 0 && (c = getopt_long(argc, argv, "h", known, NULL)) >= 0)
		status = take(o, c, optarg, &shared);
	if (status < 0 && optind < argc)
		status = say(EXIT_USAGE, "what is %s? (emfatierd --help)", argv[optind]);
	if (status < 0)
		status = check(o, &shared);
	auth_forget(&shared);
	return status;
}
