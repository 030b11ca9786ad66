/* SPDX-License-Identifier: Apache-2.0 */
/* Copies a page from standard input; the line @SETTINGS@ becomes the table of keys, as roff. */
#include <stdio.h>
#include <string.h>

#include "config.h"

static void put(const char *text)
{
	for (; *text; text++) {
		if (*text == '-')
			fputs("\\-", stdout);
		else if (*text == '\\')
			fputs("\\e", stdout);
		else
			putchar(*text);
	}
}

static void describe(const char *section, const char *key, const char *type, const char *dflt,
		     const char *help)
{
	static char last[32];

	if (strcmp(last, section)) {
		snprintf(last, sizeof(last), "%s", section);
		printf(".SS [%s%s]\n", section, strcmp(section, "class") ? "" : " NAME");
	}
	fputs(".TP\n.BR ", stdout);
	put(key);
	fputs(" \" = ", stdout);
	put(type);
	fputs("\"\n", stdout);
	put(help);
	if (*dflt) {
		fputs(". Default: ", stdout);
		put(dflt);
	}
	fputs(".\n", stdout);
}

int main(void)
{
	char line[1024];

	while (fgets(line, sizeof(line), stdin)) {
		if (strcmp(line, "@SETTINGS@\n"))
			fputs(line, stdout);
		else
			config_describe(describe);
	}
	return ferror(stdin) || fflush(stdout);
}
