/* SPDX-License-Identifier: Apache-2.0 */
#include "check.h"

#include <stdio.h>
#include <string.h>

#include "../common/say.h"
#include "config.h"

int check_main(int argc, char **argv)
{
	struct emf_config cfg;
	char err[1024];
	int at = argc > 1 && !strcmp(argv[1], "--") ? 2 : 1;

	if (at == 1 && argc > 1 && argv[1][0] == '-')
		return say(EXIT_USAGE, "check: unknown option %s; usage: emfatier check FILE",
			   argv[1]);
	if (argc != at + 1)
		return say(EXIT_USAGE, "check: %s usage: emfatier check FILE",
			   argc > at ? "one FILE only;" : "which FILE?");
	config_defaults(&cfg);
	if (config_read_file(&cfg, argv[at], err, sizeof(err))) {
		fprintf(stderr, "%s\n", err);
		return EXIT_WRONG;
	}
	/* Where it names no store, that is for who uses it to do. */
	if (cfg.nstores && config_validate_stores(&cfg, err, sizeof(err))) {
		fprintf(stderr, "%s: %s\n", argv[at], err);
		return EXIT_WRONG;
	}
	printf("%s: ok\n", argv[at]);
	return 0;
}
