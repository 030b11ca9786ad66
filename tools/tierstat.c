/* SPDX-License-Identifier: Apache-2.0 */
/* tierstat: what the managed processes of this machine hold, fetch and wait for. */
#include <errno.h>
#include <limits.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rundir.h"
#include "tierstat/columns.h"
#include "tierstat/tool.h"

enum takes { PID_MAYBE = 1, PID_MUST = 2, FILE_MUST = 4, PID_OR_FILE = 8, NUMBERS = 16 };

/* letters: the options it knows, 'j' for --json, 'l' for --listen, 'f' for --textfile. */
static const struct command {
	const char *name, *letters;
	unsigned takes;
	int (*run)(const struct options *opt);
	const char *usage, *help;
} commands[] = {
	{ "", "pctobj", NUMBERS, cmd_list, "[-p PID] [DELAY [COUNT]]",
	  "a line a process; with -p rates, since the start and then every DELAY seconds" },
	{ "top", "pcb", PID_MAYBE | NUMBERS, cmd_top, "[PID] [DELAY [COUNT]]",
	  "the same on a whole screen: sort, filter, regions of one; h for help" },
	{ "why", "pj", PID_MUST | NUMBERS, cmd_why, "PID [SECONDS]",
	  "what limits it, and what to change" },
	{ "regions", "pbj", PID_MUST, cmd_regions, "PID", "its memory, region by region" },
	{ "stores", "ptb", PID_MUST | NUMBERS, cmd_stores, "PID [DELAY [COUNT]]",
	  "its far tiers: space, traffic, latency" },
	{ "hist", "pt", PID_MUST | NUMBERS, cmd_hist, "PID [DELAY [COUNT]]",
	  "how long faults and reads take, drawn" },
	{ "heatmap", "po", PID_MUST, cmd_heatmap, "PID -o FILE.svg|FILE.png",
	  "a picture of its blocks by tier and heat" },
	{ "plot", "po", PID_OR_FILE, cmd_plot, "PID|RECORD -o FILE.svg|FILE.png",
	  "its last minutes, or a record, as curves" },
	{ "record", "pco", PID_MAYBE | NUMBERS, cmd_record, "[PID] -o FILE [DELAY [COUNT]]",
	  "writes down what it sees, for replay and plot" },
	{ "replay", "pctob", FILE_MUST, cmd_replay, "FILE",
	  "shows a record as tierstat -p PID would have" },
	{ "prom", "pclf", 0, cmd_prom, "[--listen [ADDR:]PORT | --textfile FILE]",
	  "metrics for Prometheus: printed, served or put into a file" },
};

#define NCOMMANDS (sizeof(commands) / sizeof(commands[0]))

static const char head[] = "usage: tierstat [COMMAND] [OPTION]...\n\nCommands:\n";
static const char options_help[] =
    "\nOptions:\n"
    "  -p PID             this process only\n"
    "  -c NAME            processes with this name only; * and ? match any characters\n"
    "  -t                 the time in front of each line\n"
    "  -o COLUMN,...      these columns (below); of pictures and records: the file\n"
    "  -b                 sizes in bytes; of top: text without a terminal (batch)\n"
    "  --json             one JSON document\n"
    "  --listen ADDR      prom: serve http://ADDR/metrics, as 127.0.0.1:9464 or 9464\n"
    "  --textfile FILE    prom: for node_exporter's textfile collector\n"
    "  -h, --help         this text\n"
    "  --version          the version\n"
    "\nColumns:\n";
static const char tail[] =
    "\n"
    "MODE    idle: all fits, nothing to do; thread: faults are resolved; unmanaged: see its log\n"
    "LIMIT   local memory that managed memory may take (LOCAL); FAR is what is in the stores\n"
    "faults  far: waited for a store; frame: found in a frame; wprot: first write; zero: first "
    "touch\n"
    "stall   time that threads waited in faults, summed over threads; % of the interval\n"
    "\n"
    "Exit: 0 ok, 1 can't be read, 2 usage, 3 a store is down, 4 no such process.\n";

static void print_help(void)
{
	fputs(head, stdout);
	for (size_t i = 0; i < NCOMMANDS; i++)
		printf("  %s%s%s\n      %s\n", commands[i].name, *commands[i].name ? " " : "",
		       commands[i].usage, commands[i].help);
	fputs(options_help, stdout);
	columns_describe(stdout);
	fputs(tail, stdout);
}

static bool parse_number(const char *text, double max, double *out)
{
	char *end;

	if (text[0] < '0' || text[0] > '9')
		return false;
	*out = strtod(text, &end);
	return !*end && *out > 0 && *out <= max;
}

static bool parse_whole(const char *text, unsigned long max, unsigned long *out)
{
	char *end;

	if (text[0] < '0' || text[0] > '9')
		return false;
	errno = 0;
	*out = strtoul(text, &end, 10);
	return !errno && !*end && *out > 0 && *out <= max;
}

static bool parse_pid(const char *text, pid_t *out)
{
	unsigned long pid;

	if (!text || !parse_whole(text, INT_MAX, &pid))
		return false;
	*out = (pid_t)pid;
	return true;
}

static const struct option {
	const char *name;
	char letter;
	bool value;
	const char *what;
} options[] = {
	{ "-p", 'p', true, "a PID, as -p 1234" },
	{ "-c", 'c', true, "a NAME, as -c llama-server" },
	{ "-o", 'o', true, "COLUMNS, as -o pid,local,far, or a FILE" },
	{ "-t", 't', false, "" },
	{ "-b", 'b', false, "" },
	{ "--json", 'j', false, "" },
	{ "--listen", 'l', true, "an ADDRESS, as --listen 127.0.0.1:9464" },
	{ "--textfile", 'f', true, "a FILE, as --textfile /var/lib/node_exporter/emfatier.prom" },
};

/* The option that arg is, with *value behind it or NULL. */
static const struct option *option_find(const char *arg, const char **value)
{
	for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++) {
		const struct option *o = &options[i];
		size_t n = strlen(o->name);

		*value = NULL;
		if (!strcmp(arg, o->name))
			return o;
		if (!o->value || strncmp(arg, o->name, n))
			continue;
		/* -pPID, --listen=ADDR */
		if (o->name[1] != '-')
			*value = arg + n;
		else if (arg[n] == '=')
			*value = arg + n + 1;
		if (*value)
			return o;
	}
	return NULL;
}

/* 0, or the exit status. */
static int set_option(struct options *opt, const struct option *o, const char *value)
{
	if (o->value && (!value || !*value))
		return say(EXIT_USAGE, "%s needs %s", o->name, o->what);
	switch (o->letter) {
	case 'p':
		if (!parse_pid(value, &opt->pid))
			return say(EXIT_USAGE, "%s needs %s", o->name, o->what);
		break;
	case 'c':
		opt->command = value;
		break;
	case 'o':
		opt->out = value;
		break;
	case 't':
		opt->times = true;
		break;
	case 'b':
		opt->bytes = true;
		break;
	case 'j':
		opt->json = true;
		break;
	case 'l':
		opt->listen = value;
		break;
	default:
		opt->textfile = value;
		break;
	}
	return 0;
}

/* A word that is no option. *numbers: how many of DELAY and COUNT there were. */
static int set_word(struct options *opt, const struct command *cmd, const char *arg, int *numbers)
{
	bool file = cmd->takes & (FILE_MUST | PID_OR_FILE) && !opt->file;

	/* a number is a PID rather than a record's name, but for who gave it by -p */
	if (file && (cmd->takes & FILE_MUST || opt->pid)) {
		opt->file = arg;
		return 0;
	}
	if (!opt->pid && !opt->file && !*numbers &&
	    cmd->takes & (PID_MUST | PID_OR_FILE | PID_MAYBE)) {
		if (parse_pid(arg, &opt->pid))
			return 0;
		if (file) {
			opt->file = arg;
			return 0;
		}
		if (!parse_number(arg, 86400, &opt->delay))
			return say(EXIT_USAGE, "%s is no PID (tierstat --help)", arg);
	}
	if (!(cmd->takes & NUMBERS) || *numbers >= 2)
		return say(EXIT_USAGE, "too many arguments (tierstat --help)");
	if (*numbers == 0 && !parse_number(arg, 86400, &opt->delay))
		return say(EXIT_USAGE, "%s is no DELAY in seconds%s", arg,
			   opt->pid ? "" : "; a process is chosen by -p PID");
	if (*numbers == 1 && !parse_whole(arg, ULONG_MAX, &opt->count))
		return say(EXIT_USAGE, "%s is no COUNT of lines", arg);
	(*numbers)++;
	return 0;
}

static const struct command *command_find(const char *name)
{
	for (size_t i = 0; i < NCOMMANDS; i++) {
		if (*commands[i].name && !strcmp(commands[i].name, name))
			return &commands[i];
	}
	return NULL;
}

/* Is all there that the command needs? 0, or the exit status. */
static int check(const struct options *opt, const struct command *cmd)
{
	const char *lacks = cmd->takes & PID_MUST && !opt->pid	   ? "a PID"
			    : cmd->takes & FILE_MUST && !opt->file ? "a FILE"
			    : cmd->takes & PID_OR_FILE && !opt->pid && !opt->file
				? "a PID or a record"
				: NULL;

	if (!lacks)
		return 0;
	return say(EXIT_USAGE, "%s needs %s: tierstat %s %s", cmd->name, lacks, cmd->name,
		   cmd->usage);
}

/* 0, or the exit status. *done: there is nothing left to do. */
static int parse(int argc, char **argv, struct options *opt, const struct command **cmd, bool *done)
{
	int i = 1, numbers = 0, rc;

	*cmd = &commands[0];
	if (argc > 1 && argv[1][0] != '-' && !strchr("0123456789", argv[1][0])) {
		*cmd = command_find(argv[i++]);
		if (!*cmd)
			return say(EXIT_USAGE, "unknown command %s (tierstat --help)", argv[1]);
	}
	for (; i < argc; i++) {
		const char *arg = argv[i], *value;
		const struct option *o;

		if (!strcmp(arg, "--help") || !strcmp(arg, "-h")) {
			print_help();
			*done = true;
			return 0;
		}
		if (!strcmp(arg, "--version")) {
			puts("tierstat " EMFATIER_VERSION);
			*done = true;
			return 0;
		}
		if (arg[0] != '-') {
			rc = set_word(opt, *cmd, arg, &numbers);
			if (rc)
				return rc;
			continue;
		}
		o = option_find(arg, &value);
		if (!o)
			return say(EXIT_USAGE, "unknown option %s (tierstat --help)", arg);
		if (!strchr((*cmd)->letters, o->letter))
			return say(EXIT_USAGE, "%s takes no %s (tierstat --help)",
				   *(*cmd)->name ? (*cmd)->name : "the list", o->name);
		if (o->value && !value && i + 1 < argc)
			value = argv[++i];
		rc = set_option(opt, o, value);
		if (rc)
			return rc;
	}
	return check(opt, *cmd);
}

int main(int argc, char **argv)
{
	struct options opt = { 0 };
	const struct command *cmd;
	char dir[PATH_MAX];
	bool done = false;
	int status, rc;

	setlocale(LC_CTYPE, "");
	status = parse(argc, argv, &opt, &cmd, &done);
	if (!status && !done) {
		rc = run_dir(dir, sizeof(dir), false);
		if (rc && rc != -ENOENT)
			return say(EXIT_WRONG, "%s: refused: %s", dir, strerror(-rc));
		opt.dir = dir;
		status = cmd->run(&opt);
	}
	return tool_flush(status);
}
