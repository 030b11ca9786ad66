/* SPDX-License-Identifier: Apache-2.0 */
/* emfatier check FILE: is this a valid policy? argv[0] is "check". */
#ifndef EMFATIER_CHECK_H
#define EMFATIER_CHECK_H

int check_main(int argc, char **argv);

#endif
