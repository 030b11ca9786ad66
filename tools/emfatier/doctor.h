/* SPDX-License-Identifier: Apache-2.0 */
/*
 * emfatier doctor: what works here, a line each, and what to do about the rest.
 * Exit 0: programs can be managed on this machine, 1: they can't.
 */
#ifndef EMFATIER_DOCTOR_H
#define EMFATIER_DOCTOR_H

int doctor_main(int argc, char **argv);

#endif
