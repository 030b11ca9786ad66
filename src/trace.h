/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Traces: the tour of a program through its blocks, for bench/policysim. trace_* are called
 * under engine.lock and only put a few bytes into a ring; a thread of its own writes them to
 * the file of engine.trace. What does not fit into the ring is left out, and counted.
 * Without engine.trace all of it is one test of a flag.
 *
 * The file: TRACE_MAGIC, then records. A record begins with a number in LEB128: the lowest
 * TRACE_OP_BITS bits say which, the rest is its argument. Blocks are given by the
 * difference to the one in the record before, in zigzag (0, -1, 1, -2 as 0, 1, 2, 3); a
 * block's number is its address divided by 2 MiB.
 */
#ifndef EMF_TRACE_H
#define EMF_TRACE_H

#include <stdbool.h>
#include <stdint.h>

#define TRACE_MAGIC "emfatier trace 1\n"
#define TRACE_OP_BITS 3

enum trace_op {
	TRACE_FAR,    /* BLOCK: touched while in the store, or on its way */
	TRACE_NEW,    /* BLOCK: touched for the first time */
	TRACE_FRAME,  /* BLOCK: touched in a frame (fetched ahead, or under watch) */
	TRACE_WRITE,  /* BLOCK: written to for the first time since it was fetched */
	TRACE_TIME,   /* MS since the last such record */
	TRACE_REGION, /* BLOCK, then a number: a region of so many blocks begins there */
	TRACE_TOKEN,  /* 0: a token begins, 1: it ends (emf_token_begin, emf_token_end) */
	TRACE_GONE,   /* BLOCK, then a number: so many blocks from there on are unmapped */
};

struct block;

/* Once, before the runtime's threads start; false: the file can't be made (logged). */
bool trace_open(const char *path);
/* The thread, and that of a child that was forked: it does not go on. */
void *trace_main(void *unused);
void trace_after_fork(void);
bool trace_on(void);

void trace_block(enum trace_op op, const struct block *b);
void trace_range(enum trace_op op, uintptr_t start, uintptr_t end);
void trace_token(unsigned end);

#endif
