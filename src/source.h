/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sources: files that regions are filled from (mapped.h). What a file was when it was mapped, and
 * a descriptor of the runtime's own for it. Under engine.lock but where it says otherwise.
 *
 * Reads of it bypass the page cache (O_DIRECT), or leave nothing behind in it where the
 * file system wants to have it in between.
 */
#ifndef EMF_SOURCE_H
#define EMF_SOURCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SOURCE_PATH_MAX 512

struct source {
	uint64_t dev, ino, size, mtime; /* mtime: ns */
	char path[SOURCE_PATH_MAX];
	int fd;	  /* in the runtime's table; -1: not open */
	int sent; /* its place in what source_descriptors gave last; -1: it was not open */
	bool direct;
	uint8_t stale; /* it has changed: so often is all of it to be let go of still */
	uint32_t refs; /* regions */
};

/*
 * By a program thread, without a lock: what is behind the program's descriptor fd? 0, or -errno
 * and *why: what is wrong with it.
 */
int source_look(int fd, struct source *out, const char **why);
/* The same: is it a file of weights, by its name or its first bytes? */
bool source_is_weights(int fd, const struct source *s);
/* The part of that which only asks for the name. */
bool source_is_weights_name(const char *path);

/* The one that is the same file, or a new one; NULL: too many. Counts one region. */
struct source *source_get(const struct source *look);
void source_hold(struct source *s);
void source_put(struct source *s);

/*
 * By a runtime thread, without the lock, of a copy: these take as long as a server does.
 * Opens it, by what the program has open (fd, -1: nothing) or by its path.
 */
int source_open(struct source *s, int fd);
/* Has the file changed since? Takes note of what it is now. */
bool source_changed(struct source *s);

/* What emf_io.offset says for a read of it, beside the addresses of the store. */
uint64_t source_address(const struct source *s, uint64_t offset);
bool source_is_address(uint64_t address);
struct source *source_of(uint64_t address, uint64_t *offset);

/* The i-th that is open, NULL: no more. */
struct source *source_at(unsigned i);

/*
 * fork, as for stores (emfatier-provider.h). In a child first of all: the parent's descriptors are
 * none of ours. Then, with copies of them: what is not referred to any more is closed. Returns
 * how many there are.
 */
int source_descriptors(int *fds, int max);
void source_forget(void);
int source_forked(const int *fds);

#endif
