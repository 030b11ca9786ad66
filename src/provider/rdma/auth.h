/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who knows the shared secret, shown without telling it: HMAC-SHA256 over the names of both
 * parties' roles, the version, both nonces and the tenant. The two directions differ in the
 * role, so neither answer can be played back as the other; fresh nonces of both sides keep old
 * ones from counting.
 */
#ifndef EMF_RDMA_AUTH_H
#define EMF_RDMA_AUTH_H

#include "wire.h"

#define AUTH_MIN 16u /* bytes of a secret */
#define AUTH_MAX 1024u

struct secret {
	size_t length; /* 0: there is none */
	uint8_t bytes[AUTH_MAX];
};

enum auth_role { AUTH_CLIENT, AUTH_SERVER };

/*
 * The first line of the file, which must be its owner's alone (or a credential that systemd hands
 * to this service), and a plain file. 0; -errno with one line for a person in err, that does not
 * tell what is in it.
 */
int auth_read(const char *path, struct secret *out, char *err, size_t errlen);
/* No trace is left in memory. */
void auth_forget(struct secret *s);

int auth_nonce(uint8_t *out, size_t length);
int auth_mac(const struct secret *s, enum auth_role role, const uint8_t client[WIRE_NONCE],
	     const uint8_t server[WIRE_NONCE], const char *tenant, uint8_t out[WIRE_MAC]);
/* In constant time. */
bool auth_same(const uint8_t a[WIRE_MAC], const uint8_t b[WIRE_MAC]);

#endif
