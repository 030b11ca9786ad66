/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The link that does not give up at once: a read that failed is tried again, with
 * back-off, until `timeout_ms` after it was submitted; so a store that comes back in
 * time costs nothing but the wait. What was read but is not what was written
 * (-EBADMSG) is tried REREADS times more, for it may have been damaged on its way.
 * Writes and trims fail at once: the data stays where it is.
 */
#ifndef EMF_RETRY_H
#define EMF_RETRY_H

#include "emfatier-provider.h"

int retry_open(struct emf_backend *next, unsigned timeout_ms, struct emf_backend **out);

#endif
