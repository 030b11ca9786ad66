/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Codecs: what the links of the store chain compute with other people's libraries.
 * Each is a shared object of its own beside the providers, loaded only when a
 * setting asks for it. libcrypto is linked in statically and hidden: the program may
 * have another copy of it, with other locks and other memory. isa-l has neither.
 *
 * Threads: open, forked and close are called by one thread while no other is
 * inside. The rest may be called by several at once, each with a context of its
 * own, allocates nothing and takes no lock: it runs where faults are resolved.
 * Errors are negative errno values.
 */
#ifndef EMF_CODEC_H
#define EMF_CODEC_H

#include <stddef.h>
#include <stdint.h>

#define EMF_CODEC_ABI 1u

#define AEAD_NONCE 12u
#define AEAD_TAG 16u

struct aead;

/* What link-crypt.so exports as `const struct emf_aead emf_aead`: AES-256-GCM. */
struct emf_aead {
	uint32_t abi; /* EMF_CODEC_ABI */
	/*
	 * Makes a random key, which nobody ever sees, and so many contexts that hold it, in
	 * memory that is locked, not dumped and wiped at close. On error writes one line to err.
	 */
	int (*open)(unsigned contexts, struct aead **out, char *err, size_t errlen);
	/* In the child of a fork: its copy of the memory has to be locked anew. */
	int (*forked)(struct aead *a);
	void (*close)(struct aead *a);
	/* Wipes, and frees nothing: in a child of a fork, where malloc may not be usable yet. */
	void (*forget)(struct aead *a);
	/* Never twice with one nonce: that would give the content away. `to` may be `from`. */
	int (*seal)(struct aead *a, unsigned context, const uint8_t nonce[AEAD_NONCE],
		    const void *bound, size_t bound_length, void *to, const void *from,
		    size_t length, uint8_t tag[AEAD_TAG]);
	/* -EBADMSG: not what was sealed so; buf then holds nothing of use. In place. */
	int (*unseal)(struct aead *a, unsigned context, const uint8_t nonce[AEAD_NONCE],
		      const void *bound, size_t bound_length, void *buf, size_t length,
		      const uint8_t tag[AEAD_TAG]);
	/* How often the library has allocated memory so far; for tests. */
	unsigned (*allocations)(void);
};

#define PARITY_MAX 16u /* data and parity together */

/* What link-parity.so exports as `const struct emf_parity emf_parity`: Reed-Solomon. */
struct emf_parity {
	uint32_t abi; /* EMF_CODEC_ABI */
	/* Bytes that a prepared coder of k data and m parity columns takes. */
	size_t (*size)(unsigned k, unsigned m);
	/* Fills coder for making the m parity columns of k data columns. */
	void (*encoder)(unsigned k, unsigned m, void *coder);
	/*
	 * Fills coder for making column `want` (data: 0 to k-1, then parity) of the k columns
	 * `from`. -EINVAL: they do not determine it (never for distinct columns).
	 */
	int (*decoder)(unsigned k, unsigned m, const uint8_t *from, unsigned want, void *coder);
	/* length bytes each: n outputs of k inputs. */
	void (*run)(const void *coder, unsigned k, unsigned n, size_t length, void *const *in,
		    void *const *out);
};

#endif
