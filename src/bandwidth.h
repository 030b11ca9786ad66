/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How fast local memory and that of a slow node are read by all CPUs at once, each alone and both
 * together: from that, what share of what is swept should lie on the node.
 *
 * By the mover when the engine starts, before anything is registered: it makes threads, and takes
 * some tens of milliseconds and up to 32 MiB.
 */
#ifndef EMF_BANDWIDTH_H
#define EMF_BANDWIDTH_H

/* Percent; 0 where both together are not clearly faster than local memory alone. */
unsigned bandwidth_share(int node);

/* What follows from the times for so many bytes of local memory, of the node, and of both. */
unsigned bandwidth_percent(unsigned long local_ns, unsigned long node_ns);
int bandwidth_pays(unsigned long local_ns, unsigned long both_ns);

#endif
