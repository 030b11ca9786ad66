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
	{ "help", show_help },
	{ "--version", show_version },
	/* for the runtime: gives back the far space of a process that was killed */
	{ "reap", guard_main },
};

static const struct command *command_find(const char *name)
{
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		if (!strcmp(name, commands[i].name))
			return &commands[i];
	}
	return NULL;
}

int main(int argc, char **argv)
{
	const struct command *command;

	if (argc < 2) {
		help_usage(stderr);
		return EXIT_USAGE;
	}
	command = command_find(argv[1]);
	/* of run, whatever comes later may be for the program that it runs */
	if (command && argc == 3 && (!strcmp(argv[2], "--help") || !strcmp(argv[2], "-h")))
		return show_help(argc, argv);
	if (command)
		return command->run(argc - 1, argv + 1);
	return say(EXIT_USAGE,
		   "unknown command %s; known are run, check, ctl, doctor, topo (emfatier --help)",
		   argv[1]);
}
