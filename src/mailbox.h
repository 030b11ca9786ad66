/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests to a running process: a ring behind its statistics, in the same file
 * (RUN_DIR/PID.stats, which only its user may open for writing). It costs a process a page of that
 * file and nothing else: no socket, no descriptor, no thread of its own.
 *
 * A client (emfatier ctl; one at a time, by flock on the file) writes the text of request
 * n into slot n % SLOTS, then n + 1 to `asked`, a futex across processes. The process writes
 * status and words of answer into the same slot, then n + 1 to `answered`, a futex, too.
 * Neither side trusts what the other wrote: numbers are bounded, text is copied before it is read.
 */
#ifndef EMF_MAILBOX_H
#define EMF_MAILBOX_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "emfatier-stats.h"

#define MAILBOX_OFFSET ((sizeof(struct emf_stats) + 4095) & ~4095ul)
#define MAILBOX_MAGIC 0x656d666374726c31ull /* "emfctrl1" */
#define MAILBOX_SLOTS 8u
#define MAILBOX_TEXT 224

enum mailbox_status { MAILBOX_DONE, MAILBOX_REFUSED };

struct mailbox_slot {
	char text[MAILBOX_TEXT];  /* section.key=value, store add|drain URI; 0-terminated */
	char reply[MAILBOX_TEXT]; /* why it was refused, or what became of it */
	_Atomic uint32_t status;
	_Atomic uint32_t store; /* that the answer is about, from 1; 0: none */
};

struct mailbox {
	_Atomic uint64_t magic;
	_Atomic uint32_t asked, answered;
	/* 1: a thread waits for requests. 0: they are looked at when memory is managed next. */
	_Atomic uint32_t attended;
	uint32_t pad;
	struct mailbox_slot slot[MAILBOX_SLOTS];
};

/* --- by the process; engine.ops is held, or the watch thread alone calls --- */

void mailbox_init(struct mailbox *m);
/* The next request, its text to out (MAILBOX_TEXT bytes). False: there is none. */
bool mailbox_take(struct mailbox *m, char *out);
/* Answers the one that was taken last. */
void mailbox_answer(struct mailbox *m, enum mailbox_status status, const char *text,
		    uint32_t store);

#endif
