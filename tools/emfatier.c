/* SPDX-License-Identifier: Apache-2.0 */
/* emfatier: starts programs with a memory budget, and tells what works here. */
#include <stdio.h>
#include <string.h>

#include "emfatier/check.h"
#include "common/say.h"
#include "emfatier/ctl.h"
#include "emfatier/doctor.h"
#include "emfatier/help.h"
#include "emfatier/run.h"
#include "emfatier/topo.h"
#include "store/guard.h"

static int show_help(int argc, char **argv)
{
	(void)argc, (void)argv;
	help_print(stdout);
	return 0;
}

static int show_version(int argc, char **argv)
{
	(void)argc, (void)argv;
	puts("emfatier " EMFATIER_VERSION);
	return 0;
}

static const struct command {
	const char *name;
	int (*run)(int argc, char **argv);
} commands[] = {
	{ "run", run_main },
	{ "check", check_main },
	{ "ctl", ctl_main },
	{ "doctor", doctor_main },
	{ "topo", topo_main },
	{ "--help", show_help },
	{ "-h", show_help },
	{ "--version", show_version },
	/* for the runtime: gives back the far space of a process that was killed */
	{ "reap", guard_main },
};

int main(int argc, char **argv)
{
	if (argc < 2) {
		help_print(stderr);
		return EXIT_USAGE;
	}
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		if (!strcmp(argv[1], commands[i].name))
			return commands[i].run(argc - 1, argv + 1);
	}
	return say(EXIT_USAGE,
		   "unknown command %s; known are run, check, ctl, doctor, topo (emfatier --help)",
		   argv[1]);
}
