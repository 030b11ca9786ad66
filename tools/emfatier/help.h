/* SPDX-License-Identifier: Apache-2.0 */
/* emfatier --help, with the settings from their table. */
#ifndef EMFATIER_HELP_H
#define EMFATIER_HELP_H

#include <stdio.h>

void help_print(FILE *out);
/* The commands alone. */
void help_usage(FILE *out);

#endif
