/* SPDX-License-Identifier: Apache-2.0 */
/* emfatier ctl PID set SECTION.KEY=VALUE: changes a running process. argv[0] is "ctl". */
#ifndef EMFATIER_CTL_H
#define EMFATIER_CTL_H

int ctl_main(int argc, char **argv);

#endif
