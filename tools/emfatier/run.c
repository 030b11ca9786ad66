/* SPDX-License-Identifier: Apache-2.0 */
#include "run.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../common/say.h"
#include "budget.h"
#include "config.h"
#include "help.h"
#include "kernel.h"
#include "program.h"
#include "rundir.h"
#include "self.h"
#include "store/store.h"
#include "summary.h"

#define ERR_MAX 1024

/* A setting of the command line. */
struct setting {
	const char *option, *given; /* for messages */
	char *text;		    /* section.key=value; NULL: a later --store took it in */
};

struct command_line {
	const char *policy;
	struct setting *setting;
	unsigned count;
	int last_store; /* index, -1: no --store yet */
	bool summary;
	char **command; /* ends with NULL */
};

static const struct option {
	const char *name, *prefix, *what;
} options[] = {
	{ "--local", "local.limit=", "a SIZE, as --local 2G" },
	{ "--store", "store.uri=", "a URI, as --store nbd://host" },
	{ "--set", "", "SECTION.KEY=VALUE, as --set store.timeout=5s" },
	{ "--policy", NULL, "a NAME or a FILE, as --policy llm-decode" },
};

static void *must(void *p)
{
	if (!p)
		exit(say(EXIT_USAGE, "out of memory"));
	return p;
}

static char *join(const char *a, const char *separator, const char *b)
{
	size_t len = strlen(a) + strlen(separator) + strlen(b) + 1;
	char *text = must(malloc(len));

	snprintf(text, len, "%s%s%s", a, separator, b);
	return text;
}

static void add_setting(struct command_line *line, const struct option *opt, const char *value)
{
	struct setting *s = &line->setting[line->count];

	*s = (struct setting){ .option = opt->name, .given = value };
	if (!strcmp(opt->name, "--store")) {
		if (line->last_store >= 0) {
			/* several make a set: one setting with all of them */
			struct setting *before = &line->setting[line->last_store];

			s->text = join(before->text, ",", value);
			free(before->text);
			before->text = NULL;
		}
		line->last_store = (int)line->count;
	}
	if (!s->text)
		s->text = join(opt->prefix, "", value);
	line->count++;
}

/* The option that arg is, with *value behind its '=' or NULL. */
static const struct option *option_find(const char *arg, const char **value)
{
	size_t n = strcspn(arg, "=");

	*value = arg[n] ? arg + n + 1 : NULL;
	for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++) {
		if (strlen(options[i].name) == n && !strncmp(arg, options[i].name, n))
			return &options[i];
	}
	return NULL;
}

/* 0, or the exit status. */
static int parse(int argc, char **argv, struct command_line *line)
{
	int i;

	*line = (struct command_line){ .last_store = -1 };
	line->setting = must(calloc((size_t)argc + 1, sizeof(*line->setting)));
	for (i = 1; i < argc && argv[i][0] == '-'; i++) {
		const char *value;
		const struct option *opt;

		if (!strcmp(argv[i], "--")) {
			i++;
			break;
		}
		if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
			help_print(stdout);
			exit(0);
		}
		if (!strcmp(argv[i], "--summary")) {
			line->summary = true;
			continue;
		}
		opt = option_find(argv[i], &value);
		if (!opt)
			return say(
			    EXIT_USAGE,
			    "run: unknown option %s; known are --local, --store, --policy, "
			    "--set, --summary; a command that starts with '-' goes behind --",
			    argv[i]);
		if (!value && (i + 1 == argc || !strcmp(argv[i + 1], "--")))
			return say(EXIT_USAGE, "run: %s needs %s", opt->name, opt->what);
		if (!value)
			value = argv[++i];
		if (!*value)
			return say(EXIT_USAGE, "run: %s is empty; it needs %s", opt->name,
				   opt->what);
		if (opt->prefix && strchr(value, ';'))
			return say(EXIT_USAGE,
				   "run: %s %s: a value can't hold ';'; in a URI write %%3B",
				   opt->name, value);
		if (opt->prefix)
			add_setting(line, opt, value);
		else
			line->policy = value;
	}
	if (i == argc)
		return say(
		    EXIT_USAGE,
		    "run: no command; usage: emfatier run [OPTION]... [--] COMMAND [ARG]...");
	line->command = argv + i;
	return 0;
}

/* Policy file < inherited EMFATIER_CONF < command line. policy: PATH_MAX, "" for none. */
static int configure(const struct command_line *line, struct emf_config *cfg, char *policy)
{
	const char *name = line->policy ? line->policy : getenv("EMFATIER_POLICY");
	const char *conf = getenv("EMFATIER_CONF");
	char err[ERR_MAX], found[PATH_MAX];

	config_defaults(cfg);
	policy[0] = '\0';
	if (name && *name) {
		if (config_find_policy(name, found, err, sizeof(err)) ||
		    config_read_file(cfg, found, err, sizeof(err)))
			return say(EXIT_USAGE, "%s%s",
				   line->policy ? "" : "EMFATIER_POLICY: ", err);
		/* absolute: the command's children may have moved to another directory */
		if (!realpath(found, policy))
			return say(EXIT_USAGE, "%s: %s", found, strerror(errno));
	}
	if (conf && config_read_inline(cfg, conf, "EMFATIER_CONF", err, sizeof(err)))
		return say(EXIT_USAGE, "%s", err);
	for (unsigned i = 0; i < line->count; i++) {
		const struct setting *s = &line->setting[i];

		if (s->text && !config_set_text(cfg, s->text, err, sizeof(err)))
			return say(EXIT_USAGE, "%s %s: %s", s->option, s->given, err);
	}
	if (!cfg->limit.percent && cfg->limit.bytes < budget_least())
		say(0, "local.limit: %llu bytes are too few to work with; it is %lluM",
		    (unsigned long long)cfg->limit.bytes, (unsigned long long)budget_least() >> 20);
	if (config_validate(cfg, err, sizeof(err)) || config_validate_stores(cfg, err, sizeof(err)))
		return say(EXIT_USAGE, "%s", err);
	return 0;
}

/* userfaultfd is asked for as the runtime will do it. */
static int check_userfaultfd(void)
{
	struct uffd u;
	int rc = uffd_open(&u, true);

	switch (rc) {
	case 0:
		uffd_close(&u);
		return 0;
	case -ENOSYS:
		return say(EXIT_USAGE,
			   "this kernel has no userfaultfd; use one with CONFIG_USERFAULTFD "
			   "(in a container the runtime may hide it; see emfatier doctor)");
	case -ENOTSUP:
		return say(EXIT_USAGE,
			   "userfaultfd can't write-protect here; use Linux 5.7 or newer");
	case -EPERM:
		return say(EXIT_USAGE,
			   "no permission for userfaultfd%s; run as root, or as root do: "
			   "sysctl vm.unprivileged_userfaultfd=1 (see emfatier doctor)",
			   uffd_user_mode_only() ? " but for faults in user mode" : "");
	case -EACCES:
	case -ENOENT:
		return say(EXIT_USAGE, "/proc/self/pagemap: %s; mount /proc (see emfatier doctor)",
			   strerror(-rc));
	default:
		return say(EXIT_USAGE, "userfaultfd: %s (see emfatier doctor)", strerror(-rc));
	}
}

static int check_store(const struct emf_config *cfg)
{
	const char *uri[EMF_MAX_STORES];
	char err[ERR_MAX] = "", dir[PATH_MAX];
	struct store_options opt = {
		.uri = uri,
		.nuri = cfg->nstores,
		.tier = cfg->store_tier,
		.tiers = cfg->tiers,
		.stripe_unit = cfg->stripe,
		.timeout_ms = cfg->timeout_ms,
	};
	struct store st = { 0 };
	int rc;

	for (unsigned i = 0; i < cfg->nstores; i++)
		uri[i] = cfg->store_uri[i];
	if (!run_dir(dir, sizeof(dir), true))
		opt.run_dir = dir;
	rc = store_open(&st, &opt, err, sizeof(err));
	if (rc)
		return say(EXIT_USAGE, "%s", err[0] ? err : strerror(-rc));
	store_close(&st);
	return 0;
}

static int check_command(const char *command, char *path)
{
	int rc = program_find(command, path, PATH_MAX);
	const char *why;

	if (rc == -ENOENT)
		return say(EXIT_USAGE, "%s: command not found", command);
	if (rc)
		return say(EXIT_USAGE, "%s: can't be executed: %s", command, strerror(-rc));
	why = program_unmanaged(path);
	if (why)
		return say(0, "%s: %s; it runs unmanaged", path, why);
	why = program_allocator(path);
	if (why)
		say(0,
		    "%s: brings %s with it: only what that takes by mmap, without reserving it "
		    "before, is managed",
		    path, why);
	return 0;
}

static void put_env(const char *name, const char *value)
{
	if (setenv(name, value, 1))
		must(NULL);
}

/* LD_PRELOAD: ours in front of what is there. */
static int set_preload(void)
{
	const char *before = getenv("LD_PRELOAD");
	char library[PATH_MAX];
	size_t n;

	if (!self_find("libemfatier.so", library, sizeof(library)))
		return say(EXIT_USAGE, "%s: not found; build or install it with this tool",
			   library);
	if (strpbrk(library, " :"))
		return say(EXIT_USAGE,
			   "%s: a path with a blank or a colon can't be preloaded; "
			   "install elsewhere",
			   library);
	n = strlen(library);
	if (before && !strncmp(before, library, n) && strchr(": ", before[n]))
		return 0; /* emfatier run within emfatier run */
	put_env("LD_PRELOAD", before && *before ? join(library, ":", before) : library);
	return 0;
}

static void set_environment(const struct command_line *line, const char *policy)
{
	const char *conf = getenv("EMFATIER_CONF");

	for (unsigned i = 0; i < line->count; i++) {
		if (line->setting[i].text)
			conf = conf && *conf ? join(conf, ";", line->setting[i].text)
					     : line->setting[i].text;
	}
	if (conf)
		put_env("EMFATIER_CONF", conf);
	if (*policy)
		put_env("EMFATIER_POLICY", policy);
}

int run_main(int argc, char **argv)
{
	static struct emf_config cfg;
	struct command_line line;
	char path[PATH_MAX], policy[PATH_MAX];
	int rc = parse(argc, argv, &line);

	if (!rc)
		rc = configure(&line, &cfg, policy);
	if (!rc)
		rc = check_command(line.command[0], path);
	if (!rc)
		rc = check_userfaultfd();
	if (!rc)
		rc = check_store(&cfg);
	if (!rc)
		rc = set_preload();
	if (rc)
		return rc;
	set_environment(&line, policy);
	if (line.summary) {
		char dir[PATH_MAX];

		rc = run_dir(dir, sizeof(dir), true);
		if (rc)
			return say(EXIT_USAGE, "--summary: %s: %s", dir, strerror(-rc));
		return summary_run(path, line.command, dir);
	}
	/* not execv: a script without "#!" is the shell's */
	execvp(path, line.command);
	return say(EXIT_USAGE, "%s: %s", path, strerror(errno));
}
