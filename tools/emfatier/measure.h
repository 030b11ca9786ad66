/* SPDX-License-Identifier: Apache-2.0 */
/* How fast the memory of a node is, seen from here. Takes a second at most, more where it is very
 * slow. */
#ifndef EMFATIER_MEASURE_H
#define EMFATIER_MEASURE_H

#include <stdint.h>

struct speed {
	uint64_t latency_ns;	    /* of a read that depends on the one before */
	uint64_t read_mb, write_mb; /* MB a second */
};

/* With at most `bytes` of it (1 MiB and more). 0, or -errno: its memory can't be had. */
int measure_node(unsigned node, uint64_t bytes, struct speed *out);

#endif
