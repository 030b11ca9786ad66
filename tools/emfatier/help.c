/* SPDX-License-Identifier: Apache-2.0 */
#include "help.h"

#include <string.h>

#include "config.h"

static const char usage[] =
    "usage: emfatier run [OPTION]... [--] COMMAND [ARG]...   runs COMMAND with a memory budget\n"
    "       emfatier check FILE                              validates a policy file\n"
    "       emfatier ctl PID set SECTION.KEY=VALUE           changes a running process\n"
    "       emfatier ctl PID store add|drain URI             a store joins it, or leaves\n"
    "       emfatier doctor                                  what works on this machine\n"
    "       emfatier topo [--json] [--measure]               the memory tiers of this host\n"
    "       emfatier --help | --version\n";

static const char options[] =
    "\n"
    "Options of run:\n"
    "  --local SIZE             local memory of the command, as 2G or 50%: local.limit\n"
    "  --store URI              where cold memory goes; several make a stripe set: store.uri\n"
    "  --policy NAME|FILE       a policy that ships, as llm-decode, or a file\n"
    "  --set SECTION.KEY=VALUE  any setting\n"
    "  --summary                at the end, what its memory did (on standard error)\n"
    "\n"
    "Order: built-in < policy file (or EMFATIER_POLICY) < EMFATIER_CONF < command line.\n"
    "\n"
    "Settings (section, key, values, default):\n";

static const char trailer[] =
    "\n"
    "A class is [class NAME] in a policy file and class.NAME.key=value elsewhere.\n"
    "Exit status of run: the command's; 2 for a bad setting, before the command starts.\n"
    "To watch a running command: tierstat -p PID 1\n";

static FILE *stream;

static void describe(const char *section, const char *key, const char *type, const char *dflt,
		     const char *help)
{
	char name[64];

	snprintf(name, sizeof(name), "%s.%s", section, key);
	fprintf(stream, "  %-17s %s%s%s\n  %-17s   %s\n", name, type, dflt[0] ? ", default " : "",
		dflt, "", help);
}

void help_usage(FILE *out)
{
	fputs(usage, out);
}

void help_print(FILE *out)
{
	stream = out;
	fputs(usage, out);
	fputs(options, out);
	config_describe(describe);
	fputs(trailer, out);
}
