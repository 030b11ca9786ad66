/* SPDX-License-Identifier: Apache-2.0 */
/* emfatier run [OPTION]... [--] COMMAND [ARG...] */
#ifndef EMFATIER_RUN_H
#define EMFATIER_RUN_H

/*
 * Checks everything that can be wrong before the command starts, then becomes the
 * command. argv[0] is "run". Returns the exit status only when it did not start.
 */
int run_main(int argc, char **argv);

#endif
