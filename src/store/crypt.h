/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The encryption link: what goes down is AES-256-GCM of what came from above, cluster
 * by cluster; what comes up was sealed by this process, or one that it was forked
 * from, for that place, in the last write of it, or the read fails with -EBADMSG.
 *
 * A write is sealed into a buffer of the link's own, because the content must stay as it
 * is for whoever submitted it; a read is unsealed in place. When the buffers are all
 * in use writes wait inside. max_length is one slot, CRYPT_LENGTH.
 *
 * Threads: as in emfatier-provider.h.
 */
#ifndef EMF_CRYPT_H
#define EMF_CRYPT_H

#include "codec/codec.h"
#include "emfatier-provider.h"

#define CRYPT_LENGTH (2u << 20)
/* Of all queues that are open at once; a queue takes one. */
#define CRYPT_CONTEXTS 16u

int crypt_open(struct emf_backend *next, const struct emf_aead *aead, struct emf_backend **out,
	       char *err, size_t errlen);
/* Instead of close, where the link's queues are those of a parent: no key is left behind. */
void crypt_forget(struct emf_backend *be);

#endif
