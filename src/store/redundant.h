/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The link that keeps every slot so that members may be lost: as copies (mirror: k
 * is 1 and m copies more) or as k data columns and m parity columns, any k of which
 * give the rest. It takes the stripe link's place.
 *
 * A write goes to all columns and succeeds when k of them have it; the others are
 * *stale* from then on. A read takes columns that are up and not stale, verifies each piece
 * by the checksum link above, and makes up for what is bad, late or away from the
 * others. A member on which a transfer is late is cut off (reconnect.h) for as long as it
 * takes to get a new connection; a write waits a moment for that, since without this
 * column the slot would survive one loss less. What is stale is made good again in the background,
 * by the store's thread: rebuild.
 *
 * Checksums decide what is right; what is known of members only decides where to look
 * first. A member that broke a connection may have lost all, so all it has is stale then.
 *
 * Transfers lie within one slot. Threads: as in emfatier-provider.h.
 */
#ifndef EMF_REDUNDANT_H
#define EMF_REDUNDANT_H

#include <poll.h>

#include "emfatier-provider.h"
#include "spread.h"

/* member: reconnect links. */
int redundant_open(struct emf_backend *const *member, unsigned n, const struct spread_options *o,
		   struct emf_backend **out);
/* The checksum link that sits on this one, before the first queue is opened. */
void redundant_set_sums(struct emf_backend *be, struct emf_backend *sums);
void redundant_forked(struct emf_backend *be, struct emf_store_stats *stats, int wake_fd);

/* --- rebuild, by the store's thread --- */

/* Does a little; returns when to come again (ns), UINT64_MAX: when woken. */
uint64_t redundant_work(struct emf_backend *be, uint64_t now);
/* What to poll(2) for meanwhile, and then what has come of that: a member is gone. */
int redundant_watch(struct emf_backend *be, struct pollfd *fds, int max);
void redundant_see(struct emf_backend *be, const struct pollfd *fds, int n);
/* As this, after it: looks at what nobody reads (patrol.h). */
uint64_t redundant_patrol(struct emf_backend *be, uint64_t now);
/* Ends what work has opened. */
void redundant_work_end(struct emf_backend *be);
/* Bytes on the member that are stale. */
uint64_t redundant_stale(const struct emf_backend *be, unsigned member);

#endif
