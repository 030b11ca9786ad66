/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What tierstat sees beyond counters: the history, a sample a second, and the map of regions
 * and blocks (include/emfatier-stats.h). By the mover, under engine.lock. The map is only made
 * while somebody asks for it, in pieces, so that no fault waits for it, and takes the mover at
 * most a thousandth of its time.
 */
#ifndef EMF_OBSERVE_H
#define EMF_OBSERVE_H

#include <stdbool.h>

void observe_sample(void);
/* Does somebody look at the map? */
bool observe_wanted(void);
/* The next piece of the map, when it is due. True: there is more of it to do at once. */
bool observe_map(void);

#endif
