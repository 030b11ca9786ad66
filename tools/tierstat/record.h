/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records: what tierstat saw of processes, reading by reading, in a file. A reading is stored as
 * the words that changed since the last one of that process: some hundred bytes. The history
 * that a segment has is not in it.
 */
#ifndef TIERSTAT_RECORD_H
#define TIERSTAT_RECORD_H

#include <stdio.h>

#include "emfatier-stats.h"

struct record; /* one that is written, or one that is read */

/* 0 or -errno. */
int record_create(const char *file, struct record **out);
int record_add(struct record *r, uint64_t time_ns, const struct emf_stats *s);
/* -EPROTO: it is none, or of another version. */
int record_open(const char *file, struct record **out);
/* 1: there was one more reading, 0: that was all, -errno: the file is damaged. */
int record_next(struct record *r, uint64_t *time_ns, struct emf_stats *s);
/* Closes it; 0 or -errno: what was written is not all there. */
int record_close(struct record *r);

#endif
