/* SPDX-License-Identifier: Apache-2.0 */
/* Transfers one at a time, which the store's thread waits for, by a queue of its own. */
#ifndef EMF_SOLO_H
#define EMF_SOLO_H

#include <errno.h>
#include <stdbool.h>

#include "emfatier-provider.h"

/*
 * what: op, offset, length, buf. *q NULL: opened before; it is closed, and *q NULL then, where the
 * transfer takes a quarter of timeout_ms: status -ECANCELED.
 */
int solo_transfer(struct emf_backend *be, struct emf_queue **q, const struct emf_io *what,
		  unsigned timeout_ms);
void solo_close(struct emf_queue **q);

/* Cut off, it may still come to pass: after what is put there next. */
static inline bool solo_in_doubt(int status)
{
	return status == -ECANCELED || status == -ETIMEDOUT;
}

#endif
