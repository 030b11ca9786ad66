/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A queue over one of the store's that also takes reads of sources (source_address as their
 * offset). They go to a ring of its own (io_uring), made with the first of them; where there is
 * none, by pread in the poll. What a read finds beyond the end of the file is zero; -ESTALE: the
 * file has become shorter than it was.
 */
#ifndef EMF_SOURCE_QUEUE_H
#define EMF_SOURCE_QUEUE_H

#include "emfatier-provider.h"

/* *q becomes such a queue over what it was. -ENOMEM. */
int source_queue_wrap(struct emf_queue **q, unsigned depth);

#endif
