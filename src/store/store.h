/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The far store: builds the chain
 *
 *   retry -> checksum [-> crypt] -> stripe    -> reconnect -> count [-> inject] -> leaf
 *                                or redundant    (these once a leaf)
 *                                or hierarchy -> stripe, once a tier
 *                                or pool: a stripe whose members may come and go, as those of
 *                                         redundant may
 *
 * from a list of URIs and gives the engine one backend and its queues. (Between
 * crypt and redundant there is another checksum link: copies are told apart by what
 * is stored, not by what is meant.) Leaves that connect to somebody, and redundancy,
 * need a thread that calls store_work for ever.
 *
 * Every link is an emf_backend over others (include/emfatier-provider.h). The
 * stripe link cuts the space into units that go round over all members; the
 * checksum link keeps an XXH3-64 for every unit of a cluster that was written, in
 * this process's own memory, and fails a read whose content differs (-EBADMSG).
 *
 * A write replaces the whole content of the 2 MiB slots that it touches: what else
 * was in them reads as -EBADMSG from then on. A read may take any units of what
 * was written; a unit that was written in part is read with the same bounds.
 */
#ifndef EMF_STORE_H
#define EMF_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "emfatier-provider.h"
#include "tier.h"

#define STORE_CLUSTER (64u << 10)
/* Where nothing between needs whole clusters (encryption, redundancy): the sums cost four times as
 * much. */
#define STORE_UNIT (16u << 10)
#define STORE_LEAVES 16u
/* The memfd of slots (slot.h): a header of so many bytes, then 8 bytes a slot, 0: not in use. */
#define STORE_SLOTS_HEADER 4096u
/* In the header, a uint64_t: a guard of an earlier generation has nothing to do (guard.h). */
#define STORE_SLOTS_GENERATION 16u
/* Another one: not 0 when slots lie elsewhere than a stripe has them. */
#define STORE_SLOTS_SCATTERED 24u

struct emf_store_stats;

struct store {
	struct emf_backend *top; /* what the engine uses: the head of the chain */
	unsigned nleaves;	 /* where they come and go some may be none: leaf NULL */
	size_t unit;		 /* the least that is read, aligned: STORE_UNIT, or STORE_CLUSTER */
	bool outlives; /* a leaf keeps its space after this process: a reaper must trim it */
	/* private to store.c and guard.c below; what was not opened is NULL, or -1 */
	struct emf_backend *leaf[STORE_LEAVES];
	struct emf_backend *inject[STORE_LEAVES];
	struct emf_backend *count[STORE_LEAVES]; /* the counting links over the leaves */
	struct emf_backend *reconnect[STORE_LEAVES];
	void *dl[STORE_LEAVES];
	struct emf_backend *stripe[STORE_LEAVES], *redundant, *hierarchy, *pool;
	struct emf_backend *places; /* pool, or redundant: members may come and go (pool.h) */
	unsigned nstripes;	    /* without tiers at most one */
	struct emf_backend *stored_checksum; /* below crypt */
	struct emf_backend *crypt;
	struct emf_backend *checksum;
	struct emf_backend *retry;
	void *crypt_dl, *parity_dl;
	int wake_fd; /* of store_work */
	int lock_fd[STORE_LEAVES];
	struct store_live *live; /* what changes need, where they are possible */
};

struct store_options {
	const char *const *uri; /* nuri entries; none: the default file store */
	unsigned nuri;
	const uint8_t *tier; /* of each URI, from 0, the fastest first; NULL: there are none */
	const struct store_tier *tiers;
	uint64_t stripe_unit; /* bytes, a power of two, >= 64 KiB */
	unsigned timeout_ms;
	const void *frames; /* where most buffers are; bytes 0: not told */
	size_t frames_bytes;
	bool encrypt;
	unsigned data, more;   /* redundancy: of columns; data 0, or 1 and 0: none */
	uint64_t rebuild_rate; /* bytes a second */
	const char *inject;    /* faults, see inject.h; NULL or "": none */
	/* See spread.h; NULL: all slots are in use, and nobody writes them meanwhile. */
	bool (*hold)(uint64_t slot);
	void (*release)(uint64_t slot);
	const char *provider_dir; /* where *.so providers are; NULL: beside this library or tool */
	const char *run_dir;	  /* for the locks of spaces that outlive us; NULL: no locks */
	struct emf_store_stats *stats; /* one for each URI, or NULL */
	/*
	 * Members may come and go (store_change), where there are no tiers. What
	 * strings and functions there are here must stay.
	 */
	bool live;
	bool (*alone)(void); /* see spread.h */
	void (*still)(bool on);
	/*
	 * By the store's thread: the members are not those of before. False: children share the
	 * store, and it stays with what was known.
	 */
	bool (*changed)(void);
	/* By the store's thread, within `still`: there is one more, and store_capacity is another.
	 */
	void (*grown)(void);
	/* By any thread, and again: from now on slots are STORE_SLOTS_SCATTERED. */
	void (*scattered)(void);
	uint64_t generation; /* for the guard: so often the members have changed (guard.h) */
	bool
	    no_malloc; /* malloc is the program's own: only what does without it (EMF_CAP_MALLOC) */
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
 * parent's queues are garbage there); n are taken, 0 or -errno. stats: of the child's own.
 */
int store_descriptors(const struct store *st, int *fds, unsigned max);
int store_forked(struct store *st, const int *fds, struct emf_store_stats *stats);
/* In a child that does not go on with it: neither a key of the parent's nor its memory stays
 * behind. */
void store_forget(struct store *st);

/*
 * How often a member was lost that nothing makes up for: when it comes back it may be empty,
 * and what is known to be stored there may not be. 0 with redundancy. Any thread.
 */
uint32_t store_losses(const struct store *st);

/*
 * Adds a store, or begins to drain one, which leaves the store when it is empty: how far that is
 * is in its statistics. store_change_ask: by any thread but the store's, one at a time; false: the
 * one before has not ended. Raise wake_fd then (a descriptor of the runtime's threads).
 * store_change_answer: 0 when it has not ended yet, else 1, and *rc 0: *index is its number,
 * else -errno; text is one line for a person.
 */
bool store_change_ask(struct store *st, bool drain, const char *uri);
bool store_change_answer(struct store *st, int *rc, unsigned *index, char *text, size_t length);
/* What member i was opened by, NULL: it is none, or nothing is on it any more. For the guard. */
const char *store_uri(const struct store *st, const struct store_options *opt, unsigned i);
/* Room that there is now; top->size is what there ever can be. */
uint64_t store_capacity(const struct store *st);
/* Of one member, where `all` bytes are in use altogether. Any thread. */
uint64_t store_used(const struct store *st, unsigned member, uint64_t all);

/* Is there anything to do for store_work? */
bool store_needs_work(const struct store *st);
/* One round of what goes on in the background, and the wait before it. By one thread, its own. */
void store_work(struct store *st);

/*
 * Does buf (length bytes, at offset of the store) hold what was last written
 * there? By checksum, no transfer. False when unknown. Any thread.
 */
bool store_matches(struct store *st, uint64_t offset, size_t length, const void *buf);

/*
 * The checksum link and the stripe link by themselves, for tests and for the
 * chain. Closing a link leaves what is below it open.
 */
int checksum_open(struct emf_backend *next, size_t unit, struct emf_backend **out);
/* Reads are verified below: not once more. */
void checksum_trust(struct emf_backend *be);
bool checksum_matches(const struct emf_backend *be, uint64_t offset, size_t length,
		      const void *buf);
int stripe_open(struct emf_backend *const *member, unsigned n, uint64_t unit,
		struct emf_backend **out);

#endif
