/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The link that makes faults, for tests, over one leaf: store.inject, a list of
 * [MEMBER:]KIND=VALUE, separated by commas; MEMBER counts from 1, none: all. Kinds:
 *   error=P    a transfer fails (-EIO)             full=P   a write finds no room
 *   corrupt=P  a read has one bit wrong            cut=P    the connection breaks
 *   stuck=P    a transfer does not end before the queue is closed
 *   delay=TIME, late=P   so many transfers (all) take so much longer
 *   seed=N
 * P from 0 to 1.
 */
#ifndef EMF_INJECT_H
#define EMF_INJECT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "emfatier-provider.h"

enum inject_kind {
	INJECT_ERROR,
	INJECT_FULL,
	INJECT_CORRUPT,
	INJECT_CUT,
	INJECT_STUCK,
	INJECT_LATE,
	INJECT_KINDS
};

struct inject {
	double p[INJECT_KINDS];
	uint64_t delay; /* ns */
	uint64_t seed;
	bool any;
};

/* What the text says of a member (from 0). False: why tells what is wrong. */
bool inject_parse(const char *text, unsigned member, struct inject *out, char *why, size_t len);

int inject_open(struct emf_backend *next, const struct inject *what, struct emf_backend **out);

#endif
