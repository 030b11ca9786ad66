/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The far store: builds the chain  checksum [-> crypt] -> stripe -> leaf providers
 * from a list of URIs and gives the engine one backend and its queues.
 *
 * Every link is an emf_backend over others (include/emfatier-provider.h). The
 * stripe link cuts the space into units that go round over all members; the
 * checksum link keeps an XXH3-64 for every 64 KiB cluster that was written, in
 * this process's own memory, and fails a read whose content differs (-EBADMSG).
 *
 * A write replaces the whole content of the 2 MiB slots that it touches: what else
 * was in them reads as -EBADMSG from then on. A read may take any clusters of what
 * was written; a cluster that was written in part is read with the same bounds.
 */
#ifndef EMF_STORE_H
#define EMF_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "emfatier-provider.h"

#define STORE_CLUSTER (64u << 10)
#define STORE_LEAVES 16u
/* The memfd of slots (slot.h): a header of so many bytes, then 8 bytes a slot, 0: not in use. */
#define STORE_SLOTS_HEADER 4096u

struct emf_store_stats;

struct store {
	struct emf_backend *top; /* what the engine uses: the head of the chain */
	unsigned nleaves;
	bool outlives; /* a leaf keeps its space after this process: a reaper must trim it */
	/* private to store.c and guard.c below; what was not opened is NULL, or -1 */
	struct emf_backend *leaf[STORE_LEAVES];
	struct emf_backend *count[STORE_LEAVES]; /* the counting links over the leaves */
	void *dl[STORE_LEAVES];
	struct emf_backend *stripe;
	struct emf_backend *crypt;
	struct emf_backend *checksum;
	void *crypt_dl;
	int lock_fd[STORE_LEAVES];
};

struct store_options {
	const char *const *uri; /* nuri entries; none: the default file store */
	unsigned nuri;
	uint64_t stripe_unit; /* bytes, a power of two, >= 64 KiB */
	unsigned timeout_ms;
	bool encrypt;
	const char *provider_dir; /* where *.so providers are; NULL: beside this library or tool */
	const char *run_dir;	  /* for the locks of spaces that outlive us; NULL: no locks */
	struct emf_store_stats *stats; /* one for each URI, or NULL */
	bool no_malloc; /* malloc is the program's own: only what does without it (EMF_CAP_MALLOC) */
};

/*
 * Loads the providers' shared objects, which store_open does, too: but where another thread holds
 * the dynamic linker's lock this waits for it, and nothing else.
 */
void store_load(const struct store_options *opt);

/*
 * Opens all members. Blocks for at most about timeout_ms. On error returns
 * -errno with one line for a person in err (it names the URI), everything closed.
 * -EINVAL: no such provider or a malformed URI. Uses dlopen: never call it in a
 * thread that resolves faults while regions are registered.
 */
int store_open(struct store *st, const struct store_options *opt, char *err, size_t errlen);
void store_close(struct store *st);

/*
 * fork. The descriptors that a child needs to go on with this store (at most max):
 * their count, -ENOTSUP when a member can't be shared, -E2BIG. In the child, with
 * copies of them in the same order: store_forked makes queues possible again (the
 * parent's queues are garbage there); n are taken, 0 or -errno.
 */
int store_descriptors(const struct store *st, int *fds, unsigned max);
int store_forked(struct store *st, const int *fds);
/* In a child that does not go on with it: no key of the parent's stays behind. */
void store_forget(struct store *st);

/*
 * Does buf (length bytes, at offset of the store) hold what was last written
 * there? By checksum, no transfer. False when unknown. Any thread.
 */
bool store_matches(struct store *st, uint64_t offset, size_t length, const void *buf);

/*
 * The checksum link and the stripe link by themselves, for tests and for the
 * chain. Closing a link leaves what is below it open.
 */
int checksum_open(struct emf_backend *next, struct emf_backend **out);
bool checksum_matches(struct emf_backend *be, uint64_t offset, size_t length, const void *buf);
int stripe_open(struct emf_backend *const *member, unsigned n, uint64_t unit,
		struct emf_backend **out);

#endif
