/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The link that gives a leaf new connections. When a queue below has lost its own
 * (-ENOTCONN, -ETIMEDOUT, ...), its transfers fail at once, those to come too, until
 * the store's own thread (store_work) has opened another one, with back-off, and the
 * owner of the queue has taken it over in a poll. Nobody waits for a connection to
 * be made but that thread. Waiting for a leaf to come back is retry's (retry.h).
 */
#ifndef EMF_RECONNECT_H
#define EMF_RECONNECT_H

#include <poll.h>
#include <stdbool.h>
#include <stdint.h>

#include "emfatier-provider.h"
#include "emfatier-stats.h"

/* stats may be NULL. wake_fd: an eventfd that is raised when there is something to do for work. */
int reconnect_open(struct emf_backend *next, struct emf_store_stats *stats, int wake_fd,
		   struct emf_backend **out);
/*
 * Who is above makes good what was lost: one that is back is EMF_STORE_REBUILDING until that says
 * otherwise.
 */
void reconnect_set_rebuilt(struct emf_backend *be);
/* In the child of a fork: instead of what the parent gave. */
void reconnect_forked(struct emf_backend *be, struct emf_store_stats *stats, int wake_fd);

/*
 * As queue_open, but without waiting for a connection: the store's thread makes the first one, too.
 * Until then transfers fail.
 */
int reconnect_queue_later(struct emf_backend *be, enum emf_queue_kind kind, unsigned depth,
			  struct emf_queue **out);

/* By the owner of the queue, not inside a poll of it: it has waited long enough. */
void reconnect_cut(struct emf_queue *q);
/*
 * By the owner, who has nothing in flight: what to poll(2) for to see at once that the connection
 * is broken (0: that can't be seen), and that it was so.
 */
int reconnect_watch(struct emf_queue *q, struct pollfd *fds, int max);
void reconnect_broke(struct emf_queue *q);
/* By the owner: can the queue be used now? */
bool reconnect_is_up(const struct emf_queue *q);

/* By the store's thread. Opens what is due; returns when there is more to do (ns), or UINT64_MAX.
 */
uint64_t reconnect_work(struct emf_backend *be, uint64_t now);
/* How often the leaf itself has broken a connection: what it held may be gone each time. */
uint32_t reconnect_losses(const struct emf_backend *be);
/* Is a connection missing? */
bool reconnect_is_down(const struct emf_backend *be);
/* Has an attempt to make one failed since the last that did not? Any thread. */
bool reconnect_is_failing(const struct emf_backend *be);

#endif
