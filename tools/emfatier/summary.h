/* SPDX-License-Identifier: Apache-2.0 */
/* emfatier run --summary: stays, and says at the end what the command's processes did. */
#ifndef EMFATIER_SUMMARY_H
#define EMFATIER_SUMMARY_H

/*
 * Runs the command as a child, in the environment as it is; passes signals on to it. run_dir:
 * where statistics appear. Returns the command's exit status, 128 + N after signal N.
 */
int summary_run(const char *path, char *const *command, const char *run_dir);

#endif
