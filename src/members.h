/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stores that join, or are drained, while the process runs: what is asked for by the mailbox is
 * handed to the store's thread (store_change_ask), and answered when that has begun.
 */
#ifndef EMF_MEMBERS_H
#define EMF_MEMBERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Is it "store add URI" or "store drain URI"? *uri: what follows. For the tool, too: a URI that
 * does not fit, or none, is no such text.
 */
bool members_parse(const char *text, bool *drain, const char **uri);

/*
 * Begins it. False: nothing has changed, why tells. True: *number is the store's, from 1. By whom
 * live_serve is called; engine.ops is held, and given up while it waits, in the watch thread.
 */
bool members_change(const char *text, char *why, size_t len, uint32_t *number);

#endif
