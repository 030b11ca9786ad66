/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guard: a helper process that trims far space that outlives the process
 * (EMF_CAP_OUTLIVES) after any end of it, SIGKILL included.
 *
 * The helper is `emfatier reap`, beside the library or in ../bin. It is no child of
 * the program (wait() never sees it), has none of its descriptors, and sleeps
 * until the process and all its forked children that use the store have ended or
 * called exec; then it trims every slot that is marked in the slots memfd (slot.h). Until it is
 * done it holds the locks of the spaces (lock.h), so that nobody else's data is trimmed.
 */
#ifndef EMF_GUARD_H
#define EMF_GUARD_H

#include <stdint.h>

#include "store.h"

/*
 * Starts the helper for a store with st->outlives that was opened with opt. Called
 * by a runtime thread; may block for some ms. Returns a descriptor, or -errno.
 * The helper goes to work when the last copy of the descriptor is closed: keep it
 * open (it is CLOEXEC) for as long as slots may be in use. At an orderly end clear
 * the marks first, and it leaves without opening the store.
 *
 * When members have come or gone: start another one with a higher opt->generation, write that
 * to STORE_SLOTS_GENERATION of the memfd, and close the descriptor of the one before, which
 * leaves without opening the store, too.
 */
int guard_start(const struct store *st, const struct store_options *opt, int slots_fd,
		uint64_t nslots, uint64_t slot_bytes);

/* The same with the program that is executed; for tests. */
int guard_start_program(const char *program, const struct store *st,
			const struct store_options *opt, int slots_fd, uint64_t nslots,
			uint64_t slot_bytes);

/* `emfatier reap OPTION...`, argv[0] being "reap". Returns the exit status. */
int guard_main(int argc, char **argv);

#endif
