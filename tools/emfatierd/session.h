/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One client's conversation with the server (wire.h), without the wire: messages in, answers out.
 *
 *   HELLO    --HELLO-->  PROVE     --PROVE, right-->  LEASE --LEASE, granted-->  LEASED
 *                                                           |                       |
 *                                                           +-> CLEANING --ready----+
 *     any other, or a malformed message, or too slow: the connection is closed
 *
 * Nothing but the nonce, the tenant's name and the MAC is looked at before the last is right. What
 * is refused later (a quota, say) is answered, and may be asked for again.
 *
 * No thread but the caller's. Whoever owns the session closes it when the connection is gone.
 */
#ifndef EMFATIERD_SESSION_H
#define EMFATIERD_SESSION_H

#include "lease.h"

enum session_state {
	SESSION_HELLO,
	SESSION_PROVE,
	SESSION_LEASE,
	SESSION_CLEANING,
	SESSION_LEASED
};

/* What all sessions of a server share. */
struct desk {
	struct leases leases;
	uint32_t clients; /* that have proved who they are */
	uint32_t most_clients;
	uint64_t denied, malformed, welcomed; /* since the start */
};

struct session {
	struct desk *desk;
	enum session_state state;
	uint8_t client_nonce[WIRE_NONCE], server_nonce[WIRE_NONCE];
	struct tenant *tenant;
	struct lease *lease;
	bool holds; /* the lease: it ends when the client ends this connection */
	bool fresh; /* it was made for this one */
	/*
	 * Lets the client reach a slab of its lease: 0 and where, or -errno. Of the owner of the
	 * connection, on which alone it counts.
	 */
	int (*map)(struct session *s, uint32_t slab, struct wire_slab *out);
};

enum session_verdict {
	SESSION_ANSWER, /* *out is to be sent */
	SESSION_LAST,	/* the same, and then the connection closed */
	SESSION_LATER,	/* there is an answer later: session_later */
	SESSION_CLOSE,	/* no answer: closed */
};

void session_open(struct session *s, struct desk *desk,
		  int (*map)(struct session *s, uint32_t slab, struct wire_slab *out));
/* Is it yet to prove who it is? */
bool session_is_pending(const struct session *s);
/* A message came. */
enum session_verdict session_input(struct session *s, const void *data, size_t length,
				   struct wire_message *out);
/* Is the answer due that was LATER? Then *out is to be sent. */
bool session_later(struct session *s, struct wire_message *out);
/*
 * The client has ended the connection, or its kernel has, as it does when a process ends. Not so
 * when nothing is heard of it any more.
 */
void session_disconnected(struct session *s);
/* The connection is gone, and what was mapped for it cannot be reached any more. */
void session_close(struct session *s, uint64_t now);

#endif
